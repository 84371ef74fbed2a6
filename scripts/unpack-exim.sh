#!/bin/sh
# Unpacks Exim into build/exim/, for the tests: its Debian package cannot be installed beside that of
# Postfix. Nothing of the machine is changed, and no user is made: libnss-wrapper, unpacked with it,
# tells Exim of the user that its binary asks for. Does nothing where it is there already.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/build/exim
[ -e "$out/unpacked" ] && exit 0

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "make test needs Exim in build/exim: its binary, and libnss_wrapper.so; on Debian it is unpacked there" >&2
    exit 1
fi
echo "unpacking Exim into build/exim (for the tests)"
rm -rf "$out"
mkdir -p "$out/packages"

# Fetches packages without installing them.
download() {
    # shellcheck disable=SC2086  # a list of names
    (cd "$out/packages" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download $1)
}

# What a machine lacks of its libraries is unpacked as well. Their names change with Debian's
# versions, and some have libraries of their own.
libraries() {
    direct=$(apt-cache depends exim4-daemon-light | sed -n 's/^  Depends: \(lib.*\)/\1/p')
    # shellcheck disable=SC2086  # a list of names
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances $direct | sed -n 's/^\(lib[a-z0-9.+-]*\)$/\1/p' | sort -u
}

unpack() {
    for package in "$out"/packages/*.deb; do
        dpkg -x "$package" "$out"
    done
}

wanted="exim4-daemon-light libnss-wrapper"
# Only root may fetch the lists that say where packages are.
download "$wanted" || { [ "$(id -u)" = 0 ] && apt-get -qq update && download "$wanted"; } || {
    echo "make test needs Exim in build/exim, and cannot fetch it: as root, apt-get update" >&2
    exit 1
}
unpack
if LD_LIBRARY_PATH=$(echo "$out"/usr/lib/*-linux-gnu*) ldd "$out/usr/sbin/exim4" | grep -q 'not found'; then
    for name in $(libraries); do
        dpkg -s "$name" >/dev/null 2>&1 || download "$name"
    done
    unpack
fi
rm -r "$out/packages"
# With it, the loader would not hear of libnss-wrapper where Exim runs itself as another user; and
# nobody wants such a file in a folder for builds.
chmod u-s "$out/usr/sbin/exim4"
# Written last, so that what was interrupted is done again.
touch "$out/unpacked"
