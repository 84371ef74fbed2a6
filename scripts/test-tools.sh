#!/bin/sh
# Makes sure that the programs of the tests are there: mail clients, mail servers that send, proxies,
# OpenSSL, Go, gcc, strace, valgrind, Node.js, logrotate, and the servers that processors store into.
# Installed where that is possible; otherwise says what to install, and fails: no test is skipped.
set -u
# Debian has nginx and haproxy where only root's PATH looks.
PATH=$PATH:/usr/sbin:/sbin

# Prints the Debian packages of what is missing.
missing() {
    for name in swaks curl openssl haproxy msmtp npm; do
        command -v "$name" >/dev/null || printf ' %s' "$name"
    done
    command -v go >/dev/null || printf ' golang-go'
    command -v gcc >/dev/null || printf ' gcc libc6-dev'  # builds the disk that fails, of tests/faults
    command -v strace >/dev/null || printf ' strace'
    command -v valgrind >/dev/null || printf ' valgrind'  # counts instructions, for make bench-gate
    command -v node >/dev/null || printf ' nodejs'
    perl -MNet::SSLeay -e 1 2>/dev/null || printf ' libnet-ssleay-perl'  # TLS of swaks
    command -v nginx >/dev/null || printf ' nginx'
    has_nginx_mail || printf ' libnginx-mod-mail'
    command -v logrotate >/dev/null || printf ' logrotate'
    command -v mariadbd >/dev/null || printf ' mariadb-server'
    command -v redis-server >/dev/null || printf ' redis-server'
    command -v dovecot >/dev/null || printf ' dovecot-core'
    command -v htpasswd >/dev/null || printf ' apache2-utils'
    has_lmtp || printf ' dovecot-lmtpd'
    has_postfix || printf ' postfix'
    has_postgres || printf ' postgresql'
    has_php_fpm || printf ' php-fpm'
    has_faketime || printf ' libfaketime'
}

# Debian keeps the server's programs apart, by version.
has_postgres() { ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null; }

# Its smtp is its lmtp client, too; others build smtp-sink alone.
has_postfix() { command -v smtp-sink >/dev/null && [ -x /usr/lib/postfix/sbin/master ]; }

has_php_fpm() { ls /usr/sbin/php-fpm* >/dev/null 2>&1 || command -v php-fpm >/dev/null; }

# A library that tests preload.
has_faketime() { ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1; }

# A program that Dovecot starts.
has_lmtp() { [ -x /usr/lib/dovecot/lmtp ] || [ -x /usr/libexec/dovecot/lmtp ]; }

# Either a module of its own, as in Debian, or built in.
has_nginx_mail() {
    [ -e /usr/lib/nginx/modules/ngx_mail_module.so ] || nginx -V 2>&1 | grep -qE -- '--with-mail( |$)'
}

# RUNLEVEL: see below. Nothing is removed for it, as another mail server would be for Postfix.
install() {
    # shellcheck disable=SC2086  # a list of names
    env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends --no-remove $1
}

# Most of these packages start a service, and that of nginx fails where port 80 is taken; that of
# logrotate starts a timer. A test starts its own process on a free port, so none is wanted:
# systemd is told so by a mask for the time of the installation, and every other way of starting by a
# runlevel without services.
install_without_services() {
    services=""
    if [ -d /run/systemd/system ]; then
        for name in nginx haproxy redis-server; do
            case "$1 " in *" $name "*) services="$services $name.service" ;; esac
        done
        for pair in mariadb-server:mariadb dovecot-core:dovecot dovecot-lmtpd:dovecot postfix:postfix postgresql:postgresql php-fpm:php8.2-fpm; do
            case "$1 " in *" ${pair%%:*} "*) services="$services ${pair#*:}.service" ;; esac
        done
        case "$1 " in *" logrotate "*) services="$services logrotate.timer" ;; esac
    fi
    # shellcheck disable=SC2086
    [ -z "$services" ] || systemctl mask --runtime --quiet $services
    # Postfix, unless it is told so, makes a main.cf with which it would serve all the world.
    case "$1 " in
        *" postfix "*) echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections ;;
    esac
    install "$1" || { apt-get update && install "$1"; }
    if [ -n "$services" ]; then
        # shellcheck disable=SC2086
        systemctl unmask --runtime --quiet $services
        # shellcheck disable=SC2086
        systemctl disable --quiet $services
    fi
}

packages=$(missing)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$packages (for the tests)"
    install_without_services "$packages" >/dev/null
    packages=$(missing)
fi
[ -z "$packages" ] && exec sh "$(dirname "$0")/unpack-exim.sh"
echo "make test needs$packages: on Debian, apt-get install$packages" >&2
exit 1
