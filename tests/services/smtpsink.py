"""Postfix's smtp-sink: a server that takes any mail, and refuses what it is told to."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.services.base import Service, free_port, program


class SmtpSink(Service):
    """smtp-sink on a port of 127.0.0.1 or on a unix socket.

    Args:
        folder: an empty one of its own, which others than its owner can enter.
        flags: of smtp-sink(1).
        unix: whether it listens on a unix socket.
        keep: whether it keeps what it takes; see `mails`.
    """

    name = "smtp-sink"

    def __init__(self, folder: Path, *flags: str, unix: bool = False, keep: bool = False) -> None:
        super().__init__(folder)
        self.flags = flags
        self.address = f"unix:{folder / 'sink'}" if unix else f"127.0.0.1:{free_port()}"
        self._mails = folder / "mails" if keep else None
        if self._mails is not None:
            self._mails.mkdir()
            self._mails.chmod(0o777)

    @property
    def options(self) -> dict[str, object]:
        """Keys of Forward that lead to it."""
        protocol = "lmtp" if "-L" in self.flags else "smtp"
        return {"forward_address": self.address, "forward_protocol": protocol}

    def command(self) -> Sequence[str]:
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "sink").unlink()
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        dump = () if self._mails is None else ("-d", f"{self._mails}/")
        return [program("smtp-sink"), *user, *dump, *self.flags, self.address, "200"]

    def is_ready(self) -> bool:
        kind, _, where = self.address.rpartition(":")
        unix = kind == "unix"
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as probe:
            probe.connect(where if unix else (kind, int(where)))
        return True

    def mails(self) -> list[bytes]:
        """What it has taken, with lines of its own before each: `X-Mail-Args: <from@…>` and so on.

        Line ends are LF, and there is an empty line more at the end.
        """
        assert self._mails is not None
        return [path.read_bytes() for path in self._mails.iterdir()]
