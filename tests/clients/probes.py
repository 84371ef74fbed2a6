"""What `openssl s_client` can agree on with a server, and a server of openssl's own beside it.

Debian's openssl.cnf and OpenSSL's security level make the client itself refuse what is old and
weak. Neither is in force here, so that it is the server that refuses.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.certificates import Pair

_NO_CONFIG: Final = {"OPENSSL_CONF": os.devnull}
_AGREED: Final = re.compile(r"^(New|Reused), (\S+), Cipher is (\S+)$", re.MULTILINE)
# In the line above, OpenSSL 3.0 gives the version that the cipher is from.
_PROTOCOL: Final = re.compile(r"^ *Protocol *: (\S+)$", re.MULTILINE)
_SUBJECT: Final = re.compile(r"^subject=.*?CN ?= ?(\S+)$", re.MULTILINE)
_ACCEPT: Final = re.compile(r"ACCEPT .*:(\d+)$")


@dataclass(frozen=True)
class Agreed:
    """What came out of a handshake."""

    protocol: str
    """As `TLSv1.3`."""
    cipher: str
    """By OpenSSL's name."""
    reused: bool
    """Whether it resumed an earlier session."""
    name: str
    """The common name of the server's certificate."""
    said: str
    """All that s_client said."""


def probe(
    where: tuple[str, int], *options: str | Path, starttls: bool = False, then: bytes = b"QUIT\n"
) -> Agreed | None:
    """One handshake; None when none came about.

    Args:
        where: address and port of the server.
        options: of `openssl s_client`.
        starttls: asks for TLS by SMTP, instead of beginning with it.
        then: what makes the server close; tickets for a later session come before that.
    """
    host, port = where
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-ign_eof", "-crlf"]
    command += ["-starttls", "smtp"] if starttls else []
    done = subprocess.run(
        [*command, *(os.fspath(option) for option in options)],
        input=then,
        capture_output=True,
        env={**os.environ, **_NO_CONFIG},
        timeout=20,
        check=False,
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    # A typing error, or a server that is not there, must not pass for a refusal.
    assert "CONNECTED(" in said, said
    agreed = _AGREED.search(said)
    if agreed is None or agreed[3] == "(NONE)":
        return None
    protocol, name = _PROTOCOL.search(said), _SUBJECT.search(said)
    version = protocol[1] if protocol else agreed[2]
    return Agreed(version, agreed[3], agreed[1] == "Reused", name[1] if name else "", said)


HTTP: Final = b"GET / HTTP/1.0\n\n"
"""What makes `weak_server` close."""


@contextmanager
def weak_server(pair: Pair) -> Iterator[tuple[str, int]]:
    """`openssl s_server`, which takes everything that OpenSSL still knows; where it is."""
    process = subprocess.Popen(
        [
            *("openssl", "s_server", "-accept", "127.0.0.1:0", "-www"),
            *("-min_protocol", "TLSv1", "-cipher", "ALL:@SECLEVEL=0"),
            *("-key", os.fspath(pair.key), "-cert", os.fspath(pair.certificate)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **_NO_CONFIG},
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout)
        port = next(int(found[1]) for line in lines if (found := _ACCEPT.search(line.strip())))
        yield "127.0.0.1", port
    finally:
        process.kill()
        process.communicate()
