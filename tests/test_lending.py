"""Places whose process does not serve: another one takes who connects to them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import ExitStack

from guerrilla.control.client import ask
from tests.families import (
    DYING,
    TIMEOUT,
    Make,
    in_data,
    make,
    pids,
    processes,
    refused,
    replaced,
)
from tests.running import RunningDaemon
from tests.services.base import free_port
from tests.test_agreement import reload
from tests.wire import Wire, until

__all__ = ["make"]

IMPATIENT = (
    "import sys\n"
    "from guerrilla.processes import children, lending, vigil\n"
    "children.DELAYS = (0.1,) * 7\n"
    "lending.AFTER, vigil.EVERY, vigil.MOST = 0.3, 0.2, 100\n"
    "from guerrilla.cli import main\n"
    "sys.exit(main())\n"
)
CUT_OFF = IMPATIENT.replace("100", "20").replace(
    "from guerrilla.cli",
    "from guerrilla.processes.parent import Parent\n"
    "Parent.reopen_logs = lambda parent: parent.children[0].life.asking.end()\n"
    "from guerrilla.cli",
)
"""Its `reopen-logs` ends the channel to the first process, as where that has read nothing."""
PATIENT = IMPATIENT.replace("(0.1,)", "(3600.0,)").replace("0.3", "3600.0")
COMMAND = [sys.executable, "-c", IMPATIENT]

REFUSING = DYING.replace("os.kill(os.getpid(), signal.SIGSEGV)", 'raise LookupError("no driver")')


def served_by(daemon: RunningDaemon) -> list[int | None]:
    return [one["served_by"] for one in processes(daemon)]


def greeted(daemon: RunningDaemon, count: int = 24) -> set[str]:
    """Connects so often, and waits for each; by which names they are greeted."""
    with ExitStack() as opened:
        wires = [opened.enter_context(Wire(daemon.port, greeted=False)) for _ in range(count)]
        return {wire.reply().split()[1] for wire in wires}


def test_one_that_cannot_start_is_served_by_another(make: Make) -> None:
    daemon = make(module=REFUSING, chain="Dying|SQL", command=COMMAND)
    first, second = pids(daemon)
    (daemon.folder / "die").touch()
    os.kill(first, signal.SIGKILL)
    assert greeted(daemon) == {"mx.example.com"}
    until(lambda: served_by(daemon) == [1, None])
    assert "process 0 does not serve: 1 does meanwhile" in daemon.log_text()
    # A reload takes it, and it is lent again: as that of another name.
    answer = reload(daemon, ("mx.example.com", "new.example.com"))
    assert answer["ok"], answer
    assert greeted(daemon) == {"new.example.com"}
    until(lambda: served_by(daemon) == [1, None])
    # So where the other one dies as well, as soon as one of both is there.
    (daemon.folder / "die").unlink()
    replaced(daemon, 0, first)
    until(lambda: served_by(daemon) == [None, None])
    (daemon.folder / "die").touch()
    os.kill(second, signal.SIGKILL)
    assert greeted(daemon) == {"new.example.com"}
    until(lambda: served_by(daemon) == [None, 0])
    (daemon.folder / "die").unlink()
    replaced(daemon, 1, second)
    until(lambda: served_by(daemon) == [None, None])
    assert greeted(daemon) == {"new.example.com"}
    daemon.stop()


def test_one_that_takes_its_time_to_stop_is_served_by_another(make: Make) -> None:
    """As one that was told so, and not by its parent."""
    daemon = make(command=COMMAND, top="shutdown_timeout = 30")
    first, _ = pids(daemon)
    with ExitStack() as opened:
        clients = [opened.enter_context(Wire(daemon.port)) for _ in range(24)]
        for client in clients:
            in_data(client)
        os.kill(first, signal.SIGTERM)
        until(lambda: served_by(daemon) == [1, None])
        assert greeted(daemon) == {"mx.example.com"}
        assert [one["state"] for one in processes(daemon)] == ["stopping", "serving"]
        # That all stop changes nothing for it.
        daemon.process.send_signal(signal.SIGTERM)
        until(lambda: refused(daemon))
        for client in clients:
            assert client.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250 ")
    assert daemon.process.wait(TIMEOUT) == 0


def test_one_whose_parent_can_ask_it_nothing_stops_in_its_own_time(make: Make) -> None:
    """To it the parent is gone. It answers no more, and is served for, and not killed for that."""
    daemon = make(command=[sys.executable, "-c", CUT_OFF], top="shutdown_timeout = 30")
    first, second = pids(daemon)
    with ExitStack() as opened:
        clients = [opened.enter_context(Wire(daemon.port)) for _ in range(24)]
        for client in clients:
            in_data(client)
        assert ask(f"{daemon.config_file}.sock", "reopen-logs")["ok"]
        until(lambda: served_by(daemon) == [1, None])
        threading.Event().wait(5.0)  # more than it has to answer
        assert greeted(daemon) == {"mx.example.com"}
        assert [one["state"] for one in processes(daemon)] == ["stopping", "serving"]
        for client in clients:
            assert client.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250 ")
    replaced(daemon, 0, first)
    assert pids(daemon)[1] == second
    assert f"process 0 (pid {first}) ended with status 0 after " in daemon.log_text()
    daemon.stop()


def test_who_waits_where_nobody_is_hears_why_a_reload_takes_the_place(make: Make) -> None:
    daemon = make(command=[sys.executable, "-c", PATIENT])
    first, port = pids(daemon)[0], free_port()
    os.kill(first, signal.SIGKILL)
    until(lambda: processes(daemon)[0]["state"] == "waiting to be started again")
    with ExitStack() as opened:
        clients = [opened.enter_context(Wire(daemon.port, greeted=False)) for _ in range(24)]
        answer = reload(daemon, ("127.0.0.1:0", f"127.0.0.1:{port}"))
        assert answer["ok"], answer
        heard = [client.reply() for client in clients]
    assert {line[:4] for line in heard} <= {"220 ", "421 "}
    daemon.stop()


def test_what_all_have_is_not_lent(make: Make) -> None:
    daemon = make(module=REFUSING, chain="Dying|SQL", command=COMMAND, top="shared_sockets = true")
    (daemon.folder / "die").touch()
    os.kill(pids(daemon)[0], signal.SIGKILL)
    until(lambda: daemon.log_text().count("process 0 is started again") > 1)
    assert greeted(daemon) == {"mx.example.com"}
    assert served_by(daemon) == [None, None]
    assert "meanwhile" not in daemon.log_text()
    daemon.stop()
