"""Daemons that are replaced while they serve, and senders that count what they notice of it."""

from __future__ import annotations

import itertools
import os
import signal
import smtplib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from guerrilla.control.client import ControlError, ask
from tests.running import RunningDaemon
from tests.wire import until

TIMEOUT = 30.0

STOPS = 421
"""What a client hears of a process that stops."""

PROGRAM = Path(__file__).parent / "data" / "upgraded.py"
"""Runs `guerrillad`; one that takes another's place does what files beside its config say."""


class Upgradable(RunningDaemon):
    """A daemon whose program can be replaced; it ends with all that came after it."""

    def __init__(self, folder: Path, control: Path | None = None, **keys: Any) -> None:
        self._control = control
        self.pid_file = folder / "guerrilla.pid"
        top = f'pid_file = "guerrilla.pid"\n{keys.pop("top", "")}'
        keys.setdefault("command", (sys.executable, os.fspath(PROGRAM)))
        super().__init__(folder, top=top, **keys)
        self.pids = [self.pid]
        """Of all processes that have served."""

    @property
    def control(self) -> str:
        return os.fspath(self._control or f"{self.pid_file}.sock")

    def ask(self, command: str) -> dict[str, Any]:
        return ask(self.control, command)

    def asked(self, command: str = "status") -> dict[str, Any]:
        answer = self.ask(command)
        assert answer["ok"], answer
        return dict(answer["result"] or {})

    def upgrade(self) -> int:
        """Has another one take over; its process id."""
        pid = int(self.asked("upgrade")["pid"])
        self.pids.append(pid)
        return pid

    def refused(self) -> str:
        """What is said against an upgrade."""
        answer = self.ask("upgrade")
        assert not answer["ok"], answer
        return "\n".join(answer["errors"])

    def other_does(self, what: str, text: str = "") -> Path:
        """Has the next program do something."""
        path = self.folder / what
        path.write_text(text)
        return path

    def written_pid(self) -> int:
        return int(self.pid_file.read_text())

    def ended(self) -> None:
        """The first process has ended well."""
        assert self.process.wait(TIMEOUT) == 0, self.log_text()

    def end(self) -> None:
        """Ends whoever serves, and all others."""
        with suppress(ControlError):
            self.pids.append(int(self.asked()["pid"]))
            self.ask("stop")
        self.kill()
        for pid in dict.fromkeys(self.pids):
            with suppress(ProcessLookupError):
                if is_there(pid):
                    os.kill(pid, signal.SIGKILL)
            until(gone(pid))


Make = Callable[..., Upgradable]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts daemons, each in a folder of its own; ends what is left."""
    made: list[Upgradable] = []
    numbers = itertools.count()

    def start(processes: int = 1, *, module: str = "", **keys: Any) -> Upgradable:
        folder = tmp_path / f"daemon{next(numbers)}"
        folder.mkdir(mode=0o755)
        if module:
            (folder / "own_stages.py").write_text(module)
            keys["backend"] = f'import = ["own_stages"]\n{keys.get("backend", "")}'
        keys["top"] = f"processes = {processes}\n{keys.get('top', '')}"
        daemon = Upgradable(folder, **keys)
        made.append(daemon)
        return daemon

    yield start
    for daemon in made:
        daemon.end()


class Senders:
    """Threads that send mail, each on a connection of its own, until the end.

    What is not answered 250 is sent again.

    Args:
        port: of the receiver.
        threads: how many.
    """

    def __init__(self, port: int, threads: int = 6) -> None:
        self._port = port
        self.refused = 0
        self.reset: list[str] = []
        self.sent: list[str] = []
        """Subjects that were answered 250."""
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(f"sender{number}",), daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(TIMEOUT)

    def more(self, count: int = 50) -> None:
        """Waits until so many more are delivered."""
        before = len(self.sent)
        until(lambda: len(self.sent) >= before + count)

    def _run(self, name: str) -> None:
        for number in itertools.count():
            subject = f"{name}-{number}"
            while not self._deliver(subject):
                pass
            with self._lock:
                self.sent.append(subject)
            if self._end.is_set():
                return

    def _deliver(self, subject: str) -> bool:
        try:
            return deliver(self._port, subject)
        except ConnectionRefusedError:
            self._count(refused=1)
        except (OSError, smtplib.SMTPServerDisconnected) as error:
            self._count(reset=f"{subject}: {error!r}")
        return False

    def _count(self, refused: int = 0, reset: str = "") -> None:
        with self._lock:
            self.refused += refused
            if reset:
                self.reset.append(reset)


def is_there(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    return False


def gone(pid: int) -> Callable[[], bool]:
    return lambda: not is_there(pid)


def subjects(daemon: RunningDaemon) -> list[str]:
    """What is stored, by subject."""
    return [row["subject"] for row in daemon.rows()]


def deliver(port: int, subject: str) -> bool:
    """One mail on a connection of its own; whether it was answered 250, and not 421 before.

    Raises:
        ConnectionRefusedError: nobody listens.
        OSError: the connection was reset.
        SMTPServerDisconnected: it ended without an answer.
    """
    try:
        client = smtplib.SMTP("127.0.0.1", port, "client.example.org", TIMEOUT)
        with closing(client):
            code, text = client.ehlo()
            if code != 250:
                # By itself smtplib would say HELO then, to a connection that has ended.
                raise smtplib.SMTPHeloError(code, text)
            client.sendmail(
                "from@example.org", ["to@example.com"], f"Subject: {subject}\r\n\r\nbody\r\n"
            )
    except smtplib.SMTPResponseException as error:
        if error.smtp_code != STOPS:
            raise
        return False
    except smtplib.SMTPRecipientsRefused as error:
        if {code for code, _ in error.recipients.values()} != {STOPS}:
            raise
        return False
    return True


def send(port: int, subject: str = "hello") -> None:
    """One mail, until it is answered 250: at first one may come to a process that stops."""
    until(lambda: deliver(port, subject))
