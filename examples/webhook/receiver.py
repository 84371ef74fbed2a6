"""Takes what guerrilla's HTTP processor posts and saves it: a receiver to begin with.

    WEBHOOK_SECRET=… python receiver.py PORT FOLDER

It needs nothing but Python. A 2xx is a promise to the sender of the mail, so it comes after the
file and its folder are synced. A `queued_id` that comes again is saved once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WINDOW = 300
"""Seconds that a request may be old: one that somebody recorded is no good after that."""
MOST = 256 << 20
"""Octets of a request."""


def is_signed(
    headers: Message, body: bytes, secrets: Sequence[str], now: float | None = None
) -> bool:
    """Whether one of the secrets has signed this request, and not long ago."""
    stamp = headers.get("X-Guerrilla-Timestamp", "")
    if not re.fullmatch("[0-9]{1,15}", stamp):
        return False
    if abs((time.time() if now is None else now) - int(stamp)) > WINDOW:
        return False
    signed = stamp.encode() + b"."
    envelope = headers.get("X-Guerrilla-Envelope")  # with http_format = "raw"
    if envelope is not None:
        signed += envelope.encode() + b"."
    signed += body
    given = headers.get("X-Guerrilla-Signature", "").split(",")
    wanted = ["v1=" + hmac.new(s.encode(), signed, hashlib.sha256).hexdigest() for s in secrets]
    # Each with each, and none faster than another: the time it takes tells nothing.
    found = [hmac.compare_digest(g.encode(), w.encode()) for g in given for w in wanted]
    return any(found)


def save(folder: Path, name: str, octets: bytes) -> None:
    """Saves it under this name, durably, however often it is called."""
    if not (name.isascii() and name.isalnum()):
        raise ValueError(f"no queued_id: {name!r}")
    part = folder / f"{name}.{time.time_ns()}.part"
    with part.open("xb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    part.rename(folder / name)
    entry = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)


class Receiver(BaseHTTPRequestHandler):
    """One connection; guerrilla keeps it from one mail to the next."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # An answer goes out in one piece, and not in two with a delay between.
    disable_nagle_algorithm = True
    folder = Path()
    secrets: tuple[str, ...] = ()

    def do_POST(self) -> None:
        """Saves one mail, or several."""
        size = int(self.headers.get("Content-Length", "-1"))
        if not 0 <= size <= MOST:
            self.close_connection = True
            self._answer(413, {"error": "too large, or of an unknown size"})
            return
        body = self.rfile.read(size)
        if self.secrets and not is_signed(self.headers, body, self.secrets):
            self._answer(401, {"error": "not signed, or too long ago"})
            return
        if self.headers.get_content_type() == "message/rfc822":
            mail = json.loads(self.headers["X-Guerrilla-Envelope"])
            save(self.folder, mail["queued_id"] + "eml", body)
            self._answer(200, {"saved": 1})
            return
        found = json.loads(body)
        mails = found if isinstance(found, list) else [found]
        for mail in mails:
            save(self.folder, mail["queued_id"], json.dumps(mail).encode())
        # Each mail may have a reply of its own; without "replies" a 2xx is for all of them.
        replies = [{"id": mail["queued_id"], "code": 250} for mail in mails]
        self._answer(200, {"replies": replies})

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing of each mail, but of what it cannot read."""


def main() -> None:
    """Listens on 127.0.0.1: let a web server with TLS stand before it."""
    Receiver.folder = Path(sys.argv[2])
    Receiver.secrets = tuple(filter(None, os.environ.get("WEBHOOK_SECRET", "").split(",")))
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()


if __name__ == "__main__":
    main()
