"""`guerrillad cert`: makes a self-signed certificate and its private key."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from typing import TYPE_CHECKING, Final

from guerrilla._core import make_certificate
from guerrilla.commands.common import CommandError, add_command

if TYPE_CHECKING:
    from guerrilla.commands.common import Subparsers

DEFAULT_DAYS: Final = 365
_DAY: Final = 86_400
_KEY_MODE: Final = 0o600
_CERTIFICATE_MODE: Final = 0o644

_MORE: Final = """\
examples:
  guerrillad cert --host mx1.example.com --out tls
  guerrillad cert --host '*.example.com' --host example.com --host 192.0.2.1 --out tls

The files are named after the first host: tls/mx1.example.com.key, which only its owner may read,
and tls/mx1.example.com.crt. Nobody but you vouches for the certificate: senders that use TLS where
they can are content with it, those that verify are not, but where they are given it to trust.
"""


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "cert", run, help_="make a self-signed certificate and its key", more=_MORE
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        dest="hosts",
        action="append",
        required=True,
        help="DNS name, '*.' and one, or IP address; may be given several times",
    )
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder for the files; made if missing"
    )
    parser.add_argument(
        "--days",
        metavar="N",
        type=int,
        default=DEFAULT_DAYS,
        help=f"days it is valid (default: {DEFAULT_DAYS})",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def run(args: argparse.Namespace) -> int:
    """Makes both files, and says what to put into the config.

    Raises:
        CommandError: a bad host or number of days, files that are there, a folder that cannot be
            written.
    """
    try:
        key, certificate = make_certificate(args.hosts, args.days)
    except ValueError as error:
        raise CommandError(str(error)) from error
    base = os.path.join(args.out, file_name(args.hosts[0]))
    key_path, certificate_path = f"{base}.key", f"{base}.crt"
    try:
        os.makedirs(args.out, exist_ok=True)
        if args.force:
            _replace(key_path, key, _KEY_MODE)
            _replace(certificate_path, certificate, _CERTIFICATE_MODE)
        else:
            _make_both(key_path, key, certificate_path, certificate)
    except FileExistsError as error:
        reason = "is there already: --force replaces it"
        if error.filename == args.out:
            reason = "is no folder"
        raise CommandError(f"{error.filename} {reason}") from error
    except OSError as error:
        raise CommandError(f"{error.filename or args.out}: {error.strerror or error}") from error
    _explain(key_path, certificate_path, args.days)
    return 0


def file_name(host: str) -> str:
    """What the files for a host are called: a name that shells and other systems take too.

    `*.example.com` is `_wildcard.example.com`, which no host can be called; an address is without
    its brackets, and has hyphens for colons.
    """
    plain = host.strip("[]").lower().removeprefix("ipv6:").removesuffix(".")
    return plain.replace("*", "_wildcard").replace(":", "-")


def _make_both(key_path: str, key: str, certificate_path: str, certificate: str) -> None:
    """Writes new files; neither, where one of them is there or cannot be written."""
    made: list[str] = []
    try:
        for path, text, mode in (
            (key_path, key, _KEY_MODE),
            (certificate_path, certificate, _CERTIFICATE_MODE),
        ):
            # The mode is there from the first moment: nobody can have opened a key before.
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            made.append(path)
            _write(fd, text)
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


def _replace(path: str, text: str, mode: int) -> None:
    """Writes beside the file and then takes its place, so that nobody ever reads half of it."""
    folder, name = os.path.split(path)
    fd, fresh = tempfile.mkstemp(prefix=f".{name}.", dir=folder)  # for its owner alone
    try:
        os.fchmod(fd, mode)
        _write(fd, text)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise


def _write(fd: int, text: str) -> None:
    with open(fd, "w", encoding="ascii") as file:
        file.write(text)


def _explain(key_path: str, certificate_path: str, days: int) -> None:
    until = time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * _DAY))
    print(f"made {key_path}\nmade {certificate_path}, valid until {until}\n")
    print("For STARTTLS, put this into the [[servers]] table of the config:\n")
    print("[servers.tls]\nstart_tls_on = true")
    # Absolute: another path would begin where the daemon is started. JSON's strings are TOML's.
    for name, path in (("private", key_path), ("public", certificate_path)):
        print(f"{name}_key_file = {json.dumps(os.path.abspath(path), ensure_ascii=False)}")
    print("\nFor TLS from the first byte, as on port 465, it is tls_always_on = true instead.")
