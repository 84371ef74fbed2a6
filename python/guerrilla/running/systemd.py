"""What systemd is told of a service of `Type=notify`: sd_notify(3), and its watchdog.

Elsewhere, where `NOTIFY_SOCKET` is not set, everything here does nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger("guerrilla.systemd")

_SEND_LIMIT: Final = 2.0
"""Seconds that systemd has to take a message, before it is given up."""


class ServiceManager:
    """The systemd that started us, if any did.

    Args:
        environment: where it says how to be reached; by default the one of the process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Sends nothing."""
        variables = os.environ if environment is None else environment
        self._address = _address(variables.get("NOTIFY_SOCKET", ""))
        self.watchdog = _watchdog(variables)
        """Seconds after which a silent service is killed; 0: it is not watched."""
        self._stopping = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_there(self) -> bool:
        """Whether anyone is to be told."""
        return self._address is not None

    def notify(self, *assignments: str) -> None:
        """Sends assignments such as `READY=1`, all in one; what fails is logged, and no more."""
        if self._address is None:
            return
        # A line end would begin another assignment.
        text = "\n".join(one.replace("\n", " ") for one in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_SEND_LIMIT)
                sender.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError as error:
            log.warning("systemd cannot be told %s: %s", assignments[0], error)

    def ready(self, status: str) -> None:
        """It serves; `status` is a line for `systemctl status`."""
        self.notify("READY=1", f"STATUS={status}")

    @contextlib.contextmanager
    def reloading(self, status: Callable[[], str]) -> Iterator[None]:
        """Around a reload, whatever becomes of it; then it is ready, with the status of then."""
        # The time tells systemd that this is the answer to the signal it has just sent.
        self.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")
        try:
            yield
        finally:
            if not self._stopping:  # For which a reload is not waited for.
                self.ready(status())

    def stopping(self) -> None:
        """A stop begins; told once."""
        if not self._stopping:
            self._stopping = True
            self.notify("STOPPING=1", "STATUS=stopping")

    def replaced_by(self, pid: int) -> None:
        """Another process is the service from now on; told by this one, which is believed.

        By default systemd takes messages of the service's main process alone.
        """
        self.notify(f"MAINPID={pid}", "STATUS=another process has taken over")

    def watch(self, is_well: Callable[[float], bool]) -> None:
        """Tells systemd that the daemon lives, twice in each `watchdog`, for as long as it does.

        Args:
            is_well: given that time in seconds, says whether there was a sign of life within it.
        """
        if self.is_there and self.watchdog > 0 and self._thread is None:
            self._thread = threading.Thread(
                target=self._watch, args=(is_well,), name="guerrilla-watchdog", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Ends the watch."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, is_well: Callable[[float], bool]) -> None:
        while True:
            if is_well(self.watchdog):
                self.notify("WATCHDOG=1")
            else:
                log.critical("no sign of life for %g s: systemd will end it", self.watchdog)
            if self._ended.wait(self.watchdog / 2):
                return


def _address(name: str) -> str | None:
    """The address of a socket file, or of an abstract one; None for anything else."""
    if name.startswith("@"):
        return f"\0{name[1:]}"
    return name if name.startswith("/") else None


def _watchdog(variables: Mapping[str, str]) -> float:
    if variables.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0  # meant for another process of ours
    with contextlib.suppress(ValueError):
        return max(0, int(variables.get("WATCHDOG_USEC", "0"))) / 1e6
    return 0.0
