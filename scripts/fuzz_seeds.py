"""Makes the first inputs of the fuzz targets from the mails and conversations of the tests.

`python scripts/fuzz_seeds.py FOLDER` writes FOLDER/TARGET/… for each target. What is committed in
`fuzz/corpus` is made of them and of what the fuzzer found, by `scripts/fuzz-corpus.sh`.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST = 2_048
"""Octets of the longest seed: a fuzzer gets nowhere with long ones."""

_ESCAPE = re.compile(rb"\\(r|n|t|\\|x[0-9a-fA-F]{2})")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}
_LEADING_DOT = re.compile(rb"(\A|\r\n)\.")
_NEWLINES = {"fix": 0, "keep": 1, "reject": 2}
_FLAGS = {"start_tls": 8, "tls_required": 16, "xclient": 32, "check_recipients": 64}


def conversations() -> Iterator[tuple[bytes, bytes]]:
    """Give the settings of each conversation, as `session` has them, and what the client says."""
    for path in sorted((ROOT / "tests" / "conversations").glob("*.smtp")):
        flags, said = 0, b""
        for line in path.read_bytes().splitlines():
            mark, _, rest = line.partition(b" ")
            if mark == b"!":
                name, _, value = rest.decode().partition(" ")
                flags |= _FLAGS.get(name, 0) if value == "true" else 0
                flags |= _NEWLINES.get(value, 0) if name == "bare_newline" else 0
                flags |= 4 if (name, value) == ("helo_required", "false") else 0
            elif mark == b"C:":
                said += rest + b"\r\n"
            elif mark == b"C|":
                said += unescape(rest)
            elif mark == b"C*":
                count, _, text = rest.partition(b" ")
                said += unescape(text) * int(count)
            elif line == b"== tls":
                said += b"\xff\xff"
        yield bytes([flags, 0, 0, len(said) % 251]), said


def unescape(text: bytes) -> bytes:
    """Undo the escapes of a conversation."""
    return _ESCAPE.sub(lambda found: _PLAIN.get(found[1]) or bytes([int(found[1][1:], 16)]), text)


def mails() -> list[bytes]:
    """Give the mails of the corpus that are short enough."""
    read = [path.read_bytes() for path in sorted((ROOT / "tests" / "corpus").glob("*.eml"))]
    return [mail for mail in read if len(mail) <= LONGEST]


def commands(verb: bytes) -> Iterator[bytes]:
    """Give what stands behind a verb in the conversations."""
    for _, said in conversations():
        for line in said.split(b"\r\n"):
            if line.upper().startswith(verb):
                yield line[len(verb) :]


def proxy_headers() -> Iterator[bytes]:
    """Give PROXY headers of both versions, whole and broken."""
    for line in (
        b"TCP4 192.0.2.1 198.51.100.2 12345 25",
        b"TCP6 2001:db8::1 2001:db8::2 12345 25",
        b"TCP6 ::ffff:192.0.2.1 ::1 1 2",
        b"UNKNOWN",
        b"UNKNOWN ffff::1 ffff::2 1 2",
        b"UDP4 192.0.2.1 198.51.100.2 12345 25",
        b"TCP4 192.0.2.1 198.51.100.2 12345",
        b"TCP4 192.0.2.1 198.51.100.2 12345 65536",
    ):
        yield b"PROXY " + line + b"\r\nEHLO client.example\r\n"
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    ports = struct.pack("!HH", 12345, 25)
    four = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2") + ports
    six = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + ports
    tlv = b"\x20\x00\x05\x01\x00\x00\x00\x00"
    for command in (0x20, 0x21, 0x22, 0x11):
        for family, payload in (
            (0x11, four), (0x21, six), (0x00, b""), (0x31, bytes(216)),
            (0x12, four), (0x11, four + tlv), (0x11, four[:-1]),
        ):  # fmt: skip
            header = signature + bytes([command, family])
            yield header + struct.pack("!H", len(payload)) + payload + b"EHLO a\r\n"


def scripts() -> Iterator[bytes]:
    """Give what `bdat` makes a session of: acts, with their octets behind their number."""
    texts = [
        b"",
        b"Subject: a\r\n\r\n",
        b"\r\n.\r\nRSET\r\n",
        b"BDAT 5 LAST\r\n",
        b"\n.\n",
        b"x" * 200,
    ]
    takes = [bytes([kind, len(text)]) + text for kind in (0, 4, 7, 8) for text in texts]
    acts = [*takes, *(bytes([kind]) for kind in (9, 10, 12, 14, 142, 15))]
    for number, act in enumerate(acts):
        for other in acts:
            yield bytes([number % 16, 0 if number % 3 else 20, number]) + act + other + b"\x04\x01x"


def seeds() -> Iterator[tuple[str, bytes]]:
    """Give each seed with its target."""
    for settings, said in conversations():
        yield "session", settings + said
        if b"AUTH" in said or b"LHLO" in said:
            yield "auth", settings[:2] + said
        yield "command", said
    yield from (("bdat", script) for script in scripts())
    for line in commands(b""):
        yield "command", line + b"\r\n"
    for verb in (b"MAIL FROM:", b"RCPT TO:", b"EHLO ", b"HELO "):
        yield from (("address", argument) for argument in commands(verb))
    yield from (("xclient", argument) for argument in commands(b"XCLIENT"))
    yield from (("proxy", header) for header in proxy_headers())
    for number, mail in enumerate(mails()):
        yield "data", bytes([number % 251]) + _LEADING_DOT.sub(rb"\1..", mail)
        yield "header", mail
        yield "mime", mail
        yield from fields(mail)


def fields(mail: bytes) -> Iterator[tuple[str, bytes]]:
    """Give the fields of a mail that have something to decode, or addresses."""
    head = re.split(rb"\r?\n\r?\n", mail, maxsplit=1)[0]
    for field in re.split(rb"\r?\n(?![ \t])", head):
        if b"=?" in field:
            yield "rfc2047", field.partition(b":")[2]
        if field[:5].lower() in {b"from:", b"to:", b"cc:", b"reply"}:
            yield "header", field


def main() -> None:
    """Write the seeds."""
    folder = Path(sys.argv[1])
    for target, seed in seeds():
        if len(seed) <= LONGEST:
            name = hashlib.sha256(seed).hexdigest()[:16]
            path = folder / target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(seed)


if __name__ == "__main__":
    main()
