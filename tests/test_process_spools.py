"""The spools of several processes: asked as one, and each with its part of the room."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import signal
import smtplib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guerrilla.cli import main
from guerrilla.control.requests import MAX_LINE
from guerrilla.control.spool import DeskError
from guerrilla.errors import GuerrillaError
from guerrilla.processes import spools
from guerrilla.processes.channel import Asked as Request
from guerrilla.processes.channel import ChannelError, RefusedError
from guerrilla.processes.spools import ChildDesks, FamilyDesk
from tests.families import asked, pids, processes, replaced
from tests.running import RunningDaemon
from tests.spools import Asked, kept, spooling
from tests.wire import until

IMPATIENT = (
    "import sys\n"
    "from guerrilla.processes import spools\n"
    "spools.PATIENCE = 0.5\n"
    "from guerrilla.cli import main\n"
    "sys.exit(main())\n"
)
"""A parent that does not wait long for a successor."""

SHUTTING = (
    "\n    def open(self):\n"
    "        if os.path.exists('shut'):\n"
    "            raise guerrilla.ConfigError('Fate: shut')\n"
)
"""More of the stage `Fate`: it does not open any more once a file `shut` is there.

Not as a store that is away, which a start does without where it stands right of the spool."""

Say = Callable[..., list[str]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with spooling(tmp_path, top="processes = 2") as running:
        yield running


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs `guerrillad spool`; its lines: those of stderr where its status is not to be 0."""

    def run(command: str, *, status: int = 0) -> list[str]:
        capsys.readouterr()
        file = os.fspath(tmp_path / "guerrilla.toml")
        assert main(["spool", *command.split(), "-c", file]) == status
        found = capsys.readouterr()
        return (found.err if status else found.out).splitlines()

    return run


def deliver_to_both(daemon: RunningDaemon, subject: str, least: int = 8) -> list[str]:
    """Mails on a connection each, until each process has had some; their ids."""
    before = [one["messages"] for one in processes(daemon)]
    found: list[str] = []
    while len(found) < least or not all(
        one["messages"] > was for one, was in zip(processes(daemon), before, strict=True)
    ):
        assert len(found) < 200
        with smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client:
            client.ehlo("client.example.org")
            client.mail("from@example.org")
            client.rcpt("to@example.com")
            code, text = client.data(f"Subject: {subject}\r\n\r\nbody\r\n".encode())
        assert code == 250, text
        found.append(text.decode().rsplit(" ", 1)[1])
    return found


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "spool").iterdir())


def test_a_list_has_the_mails_of_all(daemon: RunningDaemon) -> None:
    later = deliver_to_both(daemon, "later")
    never = deliver_to_both(daemon, "never")
    with Asked(daemon) as ask:
        until(lambda: set(ask.states().values()) == {"deferred", "failed"})
        for ids, failed in ((later, False), (never, True)):
            for most in (2, 500):
                found = [entry["id"] for entry in ask.entries(failed=failed, max=most)]
                assert sorted(found) == sorted(ids)
            assert ask("spool-list", failed=failed, max=1)["total"] == len(ids)
        assert ask.entries(backend="other") == []
        assert ask.longest <= MAX_LINE


def test_a_message_is_shown_by_whoever_has_it(daemon: RunningDaemon, say: Say) -> None:
    ids = deliver_to_both(daemon, "later")
    with Asked(daemon) as ask, Asked(daemon) as other:
        for one in ids:
            found = ask("spool-show", id=one)
            assert found["entry"]["id"] == one
            # Another client may read it without having asked for it.
            for client in (ask, other):
                chunk = client("spool-read", id=one, part="message")
                data = base64.b64decode(chunk["data"])
                assert data.endswith(b"Subject: later\r\n\r\nbody\r\n")
                assert len(data) == found["message_size"]
            chunk = ask("spool-read", id=one, part="record", offset=1)
            assert len(base64.b64decode(chunk["data"])) == found["record_size"] - 1
        for command in ("show nosuchmessage", f"drop --yes {ids[0]} nosuchmessage"):
            assert say(command, status=1) == [
                "guerrillad: nosuchmessage: no such message in the spool"
            ]
        until(lambda: ask.states()[ids[0]] == "deferred")
        (error,) = ask.answer("spool-show", id="../1")["errors"]
        assert error.startswith("arguments.id: ")


def test_what_is_done_is_done_by_all(daemon: RunningDaemon, say: Say, tmp_path: Path) -> None:
    later = deliver_to_both(daemon, "later")
    never = deliver_to_both(daemon, "never")
    with Asked(daemon) as ask:
        until(lambda: set(ask.states().values()) == {"deferred", "failed"})
        assert say(f"drop --yes {later[0]} {later[-1]}") == ["2 messages dropped"]
        assert set(ask.states()) == {*later[1:-1], *never}
        (tmp_path / "open").touch()
        assert say("replay --all") == [f"{len(never)} messages in the spool again"]
        say("retry --all")
        until(lambda: not ask.states())
    assert sorted(kept(tmp_path)) == sorted([*later[1:-1], *never])


def test_a_successor_goes_on_with_the_folder(
    daemon: RunningDaemon, say: Say, tmp_path: Path
) -> None:
    ids = deliver_to_both(daemon, "later")
    for number in (0, 1):
        before = pids(daemon)[number]
        os.kill(before, signal.SIGKILL)
        # At once: who asks meanwhile waits for the successor.
        assert sorted(entry["id"] for entry in entries(say)) == sorted(ids)
        replaced(daemon, number, before)
    assert folders(tmp_path) == ["0", "1"]
    assert "taken over" not in daemon.log_text()
    (tmp_path / "open").touch()
    say("retry --all")
    with Asked(daemon) as ask:
        until(lambda: not ask.states())
    # None was in work when its process was killed, so none comes twice.
    assert sorted(kept(tmp_path)) == sorted(ids)


@pytest.mark.timeout(120)
def test_fewer_processes_find_the_mail_of_all(
    daemon: RunningDaemon, say: Say, tmp_path: Path
) -> None:
    ids = deliver_to_both(daemon, "later")
    daemon.stop()
    assert folders(tmp_path) == ["0", "1"]
    with spooling(tmp_path, top="processes = 1") as fewer, Asked(fewer) as ask:
        there = set(ask.states())
        assert there < set(ids)
        # A folder that nobody has is left to a successor for 15 s.
        until(lambda: len(ask.states()) == len(ids), 60)
        (tmp_path / "open").touch()
        say("retry --all")
        until(lambda: not ask.states())
        until(lambda: folders(tmp_path) == ["0"])
    assert sorted(kept(tmp_path)) == sorted(ids)


def entries(say: Say) -> list[dict[str, Any]]:
    return [json.loads(line) for line in say("list --json")]


def test_who_cannot_be_asked_is_named(tmp_path: Path, say: Say) -> None:
    command = (sys.executable, "-c", IMPATIENT)
    with spooling(tmp_path, top="processes = 2", command=command) as daemon:
        ids = deliver_to_both(daemon, "later")
        with (tmp_path / "fate.py").open("a") as module:
            module.write(SHUTTING)
        (tmp_path / "shut").touch()
        with held_without_its_process(daemon, tmp_path):
            until(lambda: processes(daemon)[0]["state"] == "waiting to be started again")
            away = "process 0 cannot be asked now"
            unseen = [f"guerrillad: {away}: its messages are not shown"]
            assert plain(say("list", status=1)) == unseen
            with Asked(daemon) as ask:
                there = {entry["id"] for entry in ask.entries()}
            gone = set(ids) - there
            assert there
            assert gone
            for one in there:
                assert say(f"show {one}")
            for one in gone:
                assert plain(say(f"show {one}", status=1)) == [f"guerrillad: {away}"]
            assert plain(say("drop --all --yes", status=1)) == unseen
            with Asked(daemon) as ask:
                answer = ask.answer("spool-drop", ids=ids)
                assert plain(answer["errors"]) == [
                    away,
                    f"it was done to {len(there)} of {len(ids)} messages",
                ]
                assert ask.entries() == []


def plain(lines: list[str]) -> list[str]:
    """Without what the process is doing just then."""
    return [re.sub(r" \((starting|waiting to be started again)\)", "", line) for line in lines]


@contextmanager
def held_without_its_process(daemon: RunningDaemon, tmp_path: Path) -> Iterator[None]:
    """Kills the first process, and keeps its folder from who would take it over."""
    os.kill(pids(daemon)[0], signal.SIGKILL)
    with (tmp_path / "spool/0/spool.lock").open("r+") as lock:
        until(lambda: can_lock(lock.fileno()))
        yield


def can_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_without_a_spool_that_is_said(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path, top="processes = 2") as daemon, Asked(daemon) as ask:
        assert ask.answer("spool-list")["errors"] == ["this daemon has no spool"]


def test_each_process_has_its_part_of_the_room(tmp_path: Path) -> None:
    config = f"{{ path = '{tmp_path / 'spool'}', min_free = 0, max_bytes = 20_000 }}"
    with RunningDaemon(
        tmp_path, top=f"processes = 2\nspool = {config}", chain="250|HeadersParser|Debugger"
    ) as daemon:
        code, text = offered(daemon, 12_000)
        assert (code, text[:5]) == (452, "4.3.1")
        assert offered(daemon, 8_000)[0] == 250
        text = daemon.config_file.read_text()
        daemon.config_file.write_text(text.replace("20_000", "40_000"))
        with Asked(daemon) as ask:
            ask("reload")
        assert offered(daemon, 12_000)[0] == 250
        assert offered(daemon, 22_000)[0] == 452


def offered(daemon: RunningDaemon, size: int) -> tuple[int, str]:
    """The answer to a mail of that size, once the spool has nothing."""
    until(lambda: asked(daemon, "stats")["spool_depth"] == 0)
    with smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client:
        client.ehlo("client.example.org")
        client.mail("from@example.org")
        client.rcpt("to@example.com")
        try:
            code, text = client.data(b"\r\n" + (b"x" * 98 + b"\r\n") * (size // 100))
        except smtplib.SMTPDataError as error:  # before the data
            return error.smtp_code, str(error.smtp_error)
        return code, text.decode()


# What children say is not believed


class FakeChild:
    """Answers `spool` with what it is told to."""

    state = "serving"

    def __init__(self, number: int, answer: object) -> None:
        self.number = number
        self.told = answer
        self.closed = 0

    @property
    def asking(self) -> FakeChild | None:
        return None if self.told is None else self

    def begin(self, command: str, arguments: object = None, timeout: float = 1) -> Request:
        del arguments, timeout
        self.closed += command == "spool-close"
        future: Future[object] = Future()
        if isinstance(self.told, GuerrillaError):
            future.set_exception(self.told)
        else:
            future.set_result(self.told)
        return Request(1, command, future)

    def answer(self, asked: Request) -> object:
        return asked.answer.result(0)


def desk(*answers: object) -> FamilyDesk:
    """Of children that say these; None: one that cannot be asked."""
    parent: Any = SimpleNamespace(
        children=[FakeChild(number, answer) for number, answer in enumerate(answers)],
        config=SimpleNamespace(spool=object()),
        ask_all=lambda _: {0: {"spool_depth": 3}, 1: {"spool_depth": "many"}},
    )
    return FamilyDesk(parent, 7)


def entry(**changes: object) -> dict[str, object]:
    return {
        "id": "a",
        "backend": "default",
        "received_at": 1.5,
        "size": 2,
        "attempts": 0,
        "next_at": None,
        "state": "ready",
        "error": None,
        "from": "from@example.org",
        "to": ["to@example.com"],
        "recipients": 1,
        **changes,
    }


def page(*found: object, onward: object = None) -> dict[str, object]:
    return {"result": {"entries": list(found), "next": onward, "total": 1}}


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"result": 5},
        page(5),
        page(entry(size=-1)),
        page(entry(size="1")),
        page(entry(received_at=float("nan"))),
        page(entry(to=["x"] * 11)),
        page(entry(error="x" * 1001)),
        page(*[entry()] * 501),
        page(onward=-1),
        page(onward=2**63),
        page(onward=True),
    ],
)
def test_a_list_that_is_none_is_refused(answer: object) -> None:
    found = desk(answer).answer("spool-list", {})
    (error,) = found["errors"]
    assert error.startswith("process 0 does not answer spool-list as it should")
    assert (found["entries"], found["next"]) == ([], None)


def test_a_list_goes_on_and_never_back() -> None:
    both = desk(page(entry(more=1), onward=4), page(entry(id="b")))
    found = both.answer("spool-list", {})
    assert found == {"entries": [entry()], "next": 8, "total": 3}
    with pytest.raises(DeskError, match="process 0 does not answer as it should"):
        both.answer("spool-list", {"after": 8})
    with pytest.raises(DeskError, match="goes back"):
        desk(page(onward=2**63 - 1), page()).answer("spool-list", {})
    assert both.answer("spool-list", {"after": 1})["entries"] == [entry(id="b")]
    assert both.answer("spool-list", {"after": 1})["next"] is None


@pytest.mark.parametrize(
    ("command", "arguments", "result"),
    [
        ("spool-show", {"id": "a"}, {"entry": entry(), "record_size": 1}),
        ("spool-show", {"id": "a"}, {"entry": [], "record_size": 1, "message_size": 1}),
        ("spool-retry", {"ids": ["a"]}, {"count": "1"}),
        ("spool-drop", {"ids": ["a"]}, {"count": -1}),
        ("spool-replay", {"ids": ["a"]}, {"count": 0.5}),
    ],
)
def test_what_is_no_answer_is_refused(
    command: str, arguments: dict[str, Any], result: object
) -> None:
    with pytest.raises(DeskError, match=f"process 0 does not answer {command} as it should: "):
        desk({"result": result}).answer(command, arguments)


def test_a_count_is_at_most_what_was_asked_for() -> None:
    assert desk({"result": {"count": 2**40}}).answer("spool-drop", {"ids": ["a", "b", "b"]}) == {
        "count": 2
    }


def test_octets_go_on_and_never_back() -> None:
    one = desk({"result": {"entry": entry(), "record_size": 1, "message_size": 1}})
    child: Any = one._children[0]
    one.answer("spool-show", {"id": "a"})
    wrong = [{"data": "?", "next": None}, {"data": "A" * 70_000, "next": None}]
    for result in [*wrong, {"data": "", "next": 3}]:
        child.told = {"result": result}
        with pytest.raises(DeskError, match="as it should"):
            one.answer("spool-read", {"id": "a", "part": "message", "offset": 3})
    child.told = {"result": None}
    with pytest.raises(LookupError, match="no such message"):
        one.answer("spool-read", {"id": "a", "part": "message"})


def test_one_that_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "PATIENCE", 0.1)
    there = {"result": {"entry": entry(), "record_size": 1, "message_size": 1}}
    none = {"result": None}
    fails = RefusedError(["spool: Input/output error"])
    for other in (fails, none, None, ChannelError("gone")):
        for answers in ((other, there), (there, other)):
            assert desk(*answers).answer("spool-show", {"id": "a"})["entry"] == entry()
    for other, problem in (
        (fails, "process 0: spool: Input/output error"),
        (None, "process 0 cannot be asked now"),
        (ChannelError("gone"), "process 0 has not answered in time"),
    ):
        with pytest.raises(DeskError, match=problem):
            desk(other, none).answer("spool-show", {"id": "a"})
    with pytest.raises(LookupError):
        desk(none, none).answer("spool-show", {"id": "a"})


def test_desks_of_a_child_are_few_and_forgotten() -> None:
    found: Any = ChildDesks(lambda: None)
    ask = {"command": "spool-show", "arguments": {"id": "a"}}
    for number in range(100):
        assert found.answer({"desk": number, **ask}, ()) == {"result": None}
    assert len(found._desks) == 16
    found.close({"desk": 99}, ())
    found.close({"desk": 99}, ())
    assert len(found._desks) == 15
    both = desk(None, page())
    both.close()
    child: Any = both._children[1]
    assert child.closed == 1
