"""A daemon of several processes under fault: its children are killed, its config changes."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import apsw

from guerrilla.control.client import ControlError, ask
from tests.families import QUICKLY
from tests.faults.cuts import Cuts
from tests.faults.lives import Lives
from tests.faults.stores import Spooled, Store, check_database, count
from tests.running import STOP_TIMEOUT, RunningDaemon
from tests.wire import until

PROCESSES: Final = 2


class SpooledByAll(Spooled):
    """The spool, of which each process has its own."""

    def is_drained(self) -> bool:
        try:
            return all(count(path, "msg") == 0 for path in self.root.glob("*/spool.db"))
        except (apsw.IOError, apsw.CantOpenError):
            return False  # Another process has just taken that folder over, and removes it.

    def check(self) -> None:
        check_database(self.behind)
        for path in self.root.glob("*/spool.db"):
            check_database(path)
            assert count(path, "msg") == 0
        for name in ("bodies", "failed", "damaged"):
            left = [path for path in self.root.glob(f"*/{name}/**/*") if path.is_file()]
            assert left == []


class Family:
    """A parent and its children, and who takes their place in an upgrade. A context manager.

    Args:
        folder: where it runs.
        store: where it stores.
        backend: more lines of TOML for `backend_config`.
        command: as that of `RunningDaemon`.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        *,
        backend: str = "",
        command: tuple[str, ...] = (sys.executable, "-c", QUICKLY),
    ) -> None:
        self.store = store
        self._backend = backend
        folder.mkdir(exist_ok=True)
        self.daemon = RunningDaemon(folder, config=self.config(0), command=command)
        self.pid = self.daemon.pid
        """Of the parent of now."""
        self.cuts = Cuts(self.daemon.port)
        self.reloads = 0
        self.unheeded = 0
        """Reloads that were not obeyed."""
        self.refused: list[str] = []
        """What was said of those."""
        self.upgrades = 0

    def config(self, turn: int) -> str:
        """Another one each time: of the sessions, of the limits, and of the chains."""
        text = config_of(self.store, server=f"max_size = {2_000_000 + turn}", backend=self._backend)
        text = text.replace("mx.example.com", f"mx{turn}.example.com")
        return text.replace("save_workers_size = 2", f"save_workers_size = {1 + turn % 2}")

    def ask(self, command: str) -> dict[str, Any]:
        """Over the control socket; by another connection, where one is lost in an upgrade."""
        path = f"{self.daemon.config_file}.sock"
        try:
            return ask(path, command)
        except (ControlError, OSError):
            return ask(path, command)

    def told(self, command: str) -> dict[str, Any]:
        """The result of what has to go well."""
        answer = self.ask(command)
        assert answer["ok"], answer
        return dict(answer["result"])

    def serving(self) -> list[int]:
        """The children that serve now."""
        return [one["pid"] for one in self.children() if one["state"] == "serving"]

    def children(self) -> list[dict[str, Any]]:
        """What `status` tells of them."""
        return list(self.told("status")["processes"])

    def reload(self) -> bool:
        """Has it obey another config; whether it did."""
        self.reloads += 1
        fresh = self.daemon.config_file.with_suffix(".part")
        fresh.write_text(self.config(self.reloads), encoding="utf-8")
        fresh.replace(self.daemon.config_file)
        answer = self.ask("reload")
        if not answer["ok"]:
            self.unheeded += 1
            self.refused += answer["errors"]
        return bool(answer["ok"])

    def upgrade(self) -> None:
        """Another program takes over, and the one before ends well."""
        answer = self.ask("upgrade")
        while not answer["ok"] and "a reload is under way" in answer["errors"][0]:
            answer = self.ask("upgrade")
        assert answer["ok"], answer
        self.upgrades += 1
        self.pid = answer["result"]["pid"]

    def is_idle(self) -> bool:
        """Whether nobody is connected to any of its processes, as far as it has counted."""
        status = self.told("status")
        clients = [one["clients"] for one in status["processes"]]
        return bool(status["stats"]["connections_open"] == sum(clients) == 0)

    def stop(self) -> None:
        """Ends it well, once all has come to where it is looked for."""
        until(self.store.is_drained, 120.0)
        if self.upgrades:
            os.kill(self.pid, signal.SIGTERM)
            until(lambda: not is_there(self.pid), STOP_TIMEOUT)
            status = self.daemon.process.wait(STOP_TIMEOUT)
            if status == 1 and "was killed by SIGKILL as all stop" in self.daemon.log_text():
                self.daemon.kill()  # So it has not stopped well, and says so.
                return
        self.daemon.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.daemon.process.returncode is None:
            self.stop()
        if self.upgrades and is_there(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        self.daemon.kill()


class Orphans(Lives):
    """The lives of several processes, each of which ends by the death of the parent alone.

    All are at the address of the first one.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        super().__init__(folder, store)
        self._port = 0
        self._orphans: list[tuple[RunningDaemon, list[int]]] = []

    def start(self) -> None:
        """Begins a life, in a folder of its own: who is still ending has its log."""
        folder = self._folder / str(len(self._orphans))
        folder.mkdir()
        text = config_of(self.store).replace("127.0.0.1:0", f"127.0.0.1:{self._port}")
        self._daemon = RunningDaemon(folder, config=text)
        self._port = self._daemon.port

    def kill(self) -> None:
        """Ends the parent by SIGKILL."""
        daemon = self.daemon
        status = ask(f"{daemon.config_file}.sock", "status")
        self._orphans.append((daemon, [one["pid"] for one in status["result"]["processes"]]))
        super().kill()

    def check_ends(self) -> int:
        """Asserts that all children of all parents have ended well; how many."""
        for daemon, children in self._orphans:
            until(partial(are_gone, children))
            log = daemon.log_text()
            assert log.count("the parent process is gone: stopping") == len(children), log
            assert log.count("] stopped") == len(children), log
        return sum(len(children) for _, children in self._orphans)


class Weather:
    """A child is killed each second, reloads come, and an upgrade in the middle.

    Args:
        family: what it is done to.
        seconds: how long.
        upgrades: whether there is one.
        seed: of who is killed.
    """

    def __init__(
        self, family: Family, seconds: float, *, upgrades: bool = False, seed: int = 1
    ) -> None:
        self._family = family
        self._seconds = seconds
        self._chance = random.Random(seed)
        self._upgrades = upgrades
        self._early: set[int] = set()
        """Places whose last process was killed before it served."""
        self._over = threading.Event()
        self._errors: list[BaseException] = []

    def __call__(self) -> None:
        """Returns when it is over."""
        family = self._family
        threads = [
            threading.Thread(target=self._each, args=(1.0, self._kill)),
            threading.Thread(target=self._each, args=(3.0, family.reload)),
        ]
        for thread in threads:
            thread.start()
        try:
            self._over.wait(self._seconds / 2)
            if self._upgrades and not self._over.is_set():
                family.upgrade()
            self._over.wait(self._seconds / 2)
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def _each(self, seconds: float, act: Callable[[], object]) -> None:
        begun = time.monotonic()
        try:
            while not self._over.wait(max(0.0, begun + seconds - time.monotonic())):
                begun = time.monotonic()
                act()
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            self._errors.append(error)
            self._over.set()

    def _kill(self) -> None:
        """One that serves, or that starts: of the latter no two in a row.

        Five in a row that die before they serve end the daemon, as they should.
        """
        while not self._over.is_set():
            children = self._family.children()
            self._early -= {one["number"] for one in children if one["state"] == "serving"}
            mortal = [one for one in children if one["pid"] and one["number"] not in self._early]
            if mortal:
                one = self._chance.choice(mortal)
                if one["state"] != "serving":
                    self._early.add(one["number"])
                with suppress(FileNotFoundError, ProcessLookupError):  # it has just been replaced
                    self._family.cuts.kill(one["pid"])
                return
            time.sleep(0.02)


def config_of(store: Store, *, server: str = "", backend: str = "") -> str:
    """Of several processes that store there."""
    return f"processes = {PROCESSES}\n{store.config(server=server, backend=backend)}"


def are_gone(pids: Sequence[int]) -> bool:
    """Whether none of these processes runs."""
    return not any(map(is_there, pids))


def is_there(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    return False
