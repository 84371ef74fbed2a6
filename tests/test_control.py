"""The control socket: its answers, and clients that are slow, many or mistaken."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from guerrilla.config import from_mapping
from guerrilla.control import server
from guerrilla.control.client import ControlError, ask
from guerrilla.control.requests import MAX_LINE
from guerrilla.control.server import MAX_CLIENTS, TIMEOUT, Control
from guerrilla.control.spool import COMMANDS
from guerrilla.errors import ConfigError
from tests.control import Client, FakeDaemon, FakeReport, started

Until = Callable[[Callable[[], object]], None]


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def control(daemon: FakeDaemon, tmp_path: Path) -> Iterator[Control]:
    with started(daemon, tmp_path / "c.sock") as control:
        yield control


# What it answers


def test_a_connection_may_ask_several_things(control: Control) -> None:
    with Client(control.path) as client:
        status = client.ask("status")
        assert status["result"] == {"version": "0.1", "pid": 1, "path": "p", "text": "a\nb"}
        assert client.ask("stats")["result"] == {"connections": 3}
        client.send(b'{"command": "stats"}\n{"command": "status"}\n{"comm')
        assert client.answer()["result"] == {"connections": 3}
        assert client.answer() == status
        client.send(b'and": "stats"}')
        client.end_sending()
        assert client.answer()["ok"]
        assert client.has_ended()


def test_reload_tells_what_changed(control: Control, daemon: FakeDaemon) -> None:
    daemon.report = FakeReport(changes=("log_level: debug -> info", "b"), warnings=("w",))
    assert ask(control.path, "reload") == {
        "ok": True,
        "result": {"changes": ["log_level: debug -> info", "b"], "warnings": ["w"]},
    }


def test_a_reload_that_is_refused_is_in_the_log_too(
    control: Control, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    """As that of a signal; who asked may be a program that shows it to nobody."""
    daemon.error = ConfigError(["F: a: unknown key", "F: b: unknown key"])
    with caplog.at_level(logging.ERROR):
        assert not ask(control.path, "reload")["ok"]
    said = ["F: a: unknown key", "F: b: unknown key", "nothing of the config was applied"]
    assert caplog.messages == [f"reload: {line}" for line in said]


def test_reload_tells_every_failure(control: Control, daemon: FakeDaemon) -> None:
    daemon.report = FakeReport(("a",), ("servers[1].listen_interface: in use", "pid_file: no"))
    assert ask(control.path, "reload") == {
        "ok": False,
        "result": {"changes": ["a"], "warnings": []},
        "errors": ["servers[1].listen_interface: in use", "pid_file: no"],
    }
    daemon.error = ConfigError(["F: a: unknown key", "F: b: unknown key"])
    assert ask(control.path, "reload") == {
        "ok": False,
        "result": {"changes": [], "warnings": []},
        "errors": ["F: a: unknown key", "F: b: unknown key"],
    }


def test_reopen_logs(control: Control, daemon: FakeDaemon) -> None:
    assert ask(control.path, "reopen-logs") == {"ok": True, "result": None}
    daemon.error = PermissionError(13, "Permission denied", "/log")
    assert ask(control.path, "reopen-logs") == {
        "ok": False,
        "errors": ["[Errno 13] Permission denied: '/log': the old log stays open"],
    }


def test_the_config_has_its_secrets_masked(control: Control, daemon: FakeDaemon) -> None:
    keys = {"sql_dsn": "u:hidden@tcp(h)/d", "my_token": "hidden"}
    daemon.config = from_mapping({"backend_config": keys})
    answer = ask(control.path, "config")
    assert answer["result"]["backend_config"]["my_token"] == "***"
    assert answer["result"]["servers"][0]["max_size"] == "10 MiB"
    assert "hidden" not in json.dumps(answer)


def test_a_fault_of_the_daemon_is_answered_and_logged(
    control: Control, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.error = LookupError("oh")
    for command in ("status", "reload", "reopen-logs"):
        answer = ask(control.path, command)
        assert answer == {"ok": False, "errors": ["LookupError: oh: the log has more"]}
    assert "Traceback" in caplog.text


def test_who_asked_is_in_the_log(control: Control, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "guerrilla.control")
    ask(control.path, "status")
    ask(control.path, "reload")
    assert [record.getMessage() for record in caplog.records] == [
        f"reload, as process {os.getpid()} of user {os.geteuid()} asks"
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"status", b"", b"[]", b'"status"', b"{}", b'{"command": 1}', b"\xff\xfe", b"[" * 50_000,
        b'{"command": "status", "now": true}', b'{"Command": "status"}', b"GET / HTTP/1.1\r",
    ],
)  # fmt: skip
def test_what_is_no_request(control: Control, daemon: FakeDaemon, line: bytes) -> None:
    with Client(control.path) as client:
        client.send(line + b"\n")
        (error,) = client.answer()["errors"]
        assert error.startswith('a request is an object such as {"command": "status"}')
        assert client.ask("stats")["ok"]
    assert daemon.did == ["stats"]


def test_an_unknown_command(control: Control) -> None:
    with Client(control.path) as client:
        (error,) = client.ask("x" * 1000)["errors"]
    assert error.startswith("unknown command 'xxx")
    assert (
        "; known: reload, upgrade, reopen-logs, stop, status, stats, config, spool-list, " in error
    )
    assert len(error) < 300


def test_arguments_are_checked_by_the_command(control: Control) -> None:
    with Client(control.path) as client:
        assert client.ask("status", now=True)["errors"] == ["status takes no arguments"]
        client.send(b'{"command": "status", "arguments": {}}\n')
        assert client.answer()["ok"]
        client.send(b'{"command": "status", "arguments": [1]}\n')
        assert client.answer()["errors"] == ["arguments: expected an object"]
        for given, problem in (
            ({"after": "1"}, "arguments.after: Input should be a valid integer"),
            ({"max": 501}, "arguments.max: Input should be less than or equal to 500"),
            ({"x" * 99: 1}, f"arguments.{'x' * 60}: Extra inputs are not permitted"),
        ):
            assert client.ask("spool-list", **given)["errors"] == [problem]
        for bad in ("../a", "", "a" * 65, "a/b", "a\n", "é"):
            (error,) = client.ask("spool-show", id=bad)["errors"]
            assert error.startswith("arguments.id: String should match pattern"), bad
        (error,) = client.ask("spool-drop", ids=["a"] * 1001)["errors"]
        assert error.startswith("arguments.ids: List should have at most 1000 items")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("spool-list", {}),
        ("spool-show", {"id": "a"}),
        ("spool-read", {"id": "a", "part": "message"}),
        ("spool-retry", {"ids": ["a"]}),
        ("spool-drop", {"ids": ["a"]}),
        ("spool-replay", {"ids": ["a"]}),
    ],
)
def test_a_daemon_without_a_spool(
    control: Control, command: str, arguments: dict[str, object]
) -> None:
    with Client(control.path) as client:
        assert client.ask(command, **arguments) == {
            "ok": False,
            "errors": ["this daemon has no spool"],
        }


# Clients that are slow, many or gone


def test_a_line_has_an_end(control: Control) -> None:
    with Client(control.path) as client:
        client.send(b'{"command": "' + b"x" * MAX_LINE)
        assert client.answer()["errors"] == [f"a request has at most {MAX_LINE} bytes"]
        assert client.has_ended()
    assert ask(control.path, "stats")["ok"]


def test_a_line_is_not_too_long_for_what_comes_behind_it(control: Control) -> None:
    request = b'{"command": "stats"' + b" " * 40_000 + b"}"
    with Client(control.path) as client:
        client.send(request[:-1])
        time.sleep(0.2)  # So that the rest is read together with the next one.
        client.send(b"}\n" + request + b"\n")
        assert client.answer()["ok"]
        assert client.answer()["ok"]


def test_there_are_only_so_many_connections(control: Control) -> None:
    clients = [Client(control.path) for _ in range(MAX_CLIENTS)]
    for client in clients:
        assert client.ask("stats")["ok"]
    with Client(control.path) as more:
        assert more.answer()["errors"] == [f"more than {MAX_CLIENTS} connections at a time"]
        assert more.has_ended()
    assert ask(control.path, "stats")["errors"]
    clients[0].end_sending()
    assert clients[0].has_ended()
    for client in clients:
        client.close()


def test_one_more_waits_for_the_place_of_one_that_goes(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ROOM_TIMEOUT", 20.0)
    clients = [Client(control.path) for _ in range(MAX_CLIENTS)]
    for client in clients:
        assert client.ask("stats")["ok"]
    going = threading.Timer(0.2, clients[0].close)
    going.start()
    assert ask(control.path, "stats")["ok"]
    going.join()
    for client in clients:
        client.close()


def test_the_end_does_not_wait_for_one_that_waits_for_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(server, "ROOM_TIMEOUT", 300.0)
    with started(FakeDaemon(), tmp_path / "c.sock") as control:
        clients = [Client(control.path) for _ in range(MAX_CLIENTS + 1)]
        time.sleep(0.2)  # So that the last one waits.
        control.stop()
        until(lambda: not control._thread.is_alive())
        for client in clients:
            client.close()


def test_who_is_in_the_queue_of_a_socket_that_moves_is_answered(
    tmp_path: Path, until: Until
) -> None:
    with started(FakeDaemon(), tmp_path / "c.sock") as control:
        clients = [Client(control.path) for _ in range(MAX_CLIENTS)]
        for client in clients:
            assert client.ask("stats")["ok"]
        more = [Client(control.path) for _ in range(2)]
        time.sleep(0.2)  # So that the first one waits for a place, and the other behind it.
        control.move(tmp_path / "d.sock")
        for client in more:
            assert client.answer()["errors"] == [f"more than {MAX_CLIENTS} connections at a time"]
        clients.pop().close()
        until(lambda: len(control._clients) < MAX_CLIENTS)
        assert ask(tmp_path / "d.sock", "stats")["ok"]
        for client in [*clients, *more]:
            client.close()


def test_a_place_is_free_again_when_its_client_has_gone(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ROOM_TIMEOUT", 20.0)
    for _ in range(3):
        clients = [Client(control.path) for _ in range(MAX_CLIENTS)]
        for client in clients:
            client.close()
        assert ask(control.path, "stats")["ok"]


@pytest.mark.parametrize("sent", [b"", b'{"command": "sta'])
def test_who_sends_nothing_whole_is_closed(daemon: FakeDaemon, tmp_path: Path, sent: bytes) -> None:
    with started(daemon, tmp_path / "c.sock", timeout=1.0) as control:
        with Client(control.path) as client:
            with suppress(BrokenPipeError):  # It was too late already.
                client.send(sent)
            assert client.has_ended()
        control._timeout = TIMEOUT
        assert ask(control.path, "stats")["ok"]


def test_who_does_not_read_is_closed(daemon: FakeDaemon, tmp_path: Path, until: Until) -> None:
    daemon.config = from_mapping({"allowed_hosts": ["a" * 200 + str(n) for n in range(2000)]})
    path = tmp_path / "c.sock"
    with started(daemon, path, timeout=1.0) as control, Client(path) as client:
        client.send(b'{"command": "config"}\n' * 20)
        until(lambda: not control._clients)


def test_a_slow_command_stops_nobody_else(control: Control, daemon: FakeDaemon) -> None:
    daemon.hangs = True
    with Client(control.path) as slow:
        slow.send(b'{"command": "reload"}\n')
        assert daemon.entered.wait(10)
        daemon.hangs = False
        assert ask(control.path, "stats")["ok"]
        daemon.release.set()
        assert slow.answer()["ok"]


# The end


def test_stop_answers_at_once_and_lasts_until_it_has_stopped(
    control: Control, daemon: FakeDaemon
) -> None:
    daemon.hangs = True
    with Client(control.path) as client:
        assert client.ask("stop") == {
            "ok": True,
            "result": {"pid": os.getpid(), "shutdown_timeout": 5.0},
        }
        assert daemon.entered.wait(10)
        # Others may still look, and a second stop changes nothing.
        daemon.hangs = False
        assert ask(control.path, "status")["ok"]
        with Client(control.path) as other:
            assert other.ask("stop")["ok"]
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.socket.recv(1)
        client.socket.setblocking(True)
        daemon.release.set()
        assert client.has_ended()
    assert daemon.did.count("shutdown") == 1
    assert not os.path.exists(control.path)


def test_asking_for_a_stop_returns_when_it_has_stopped(
    control: Control, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guerrilla.control.client._LAST_BREATH", 0.01)
    daemon.hangs = True
    answers: list[dict[str, object]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(control.path, "stop")))
    asking.start()
    assert daemon.entered.wait(10)
    asking.join(0.1)
    assert asking.is_alive()
    daemon.release.set()
    asking.join(10)
    assert answers[0]["ok"]
    assert daemon.did == ["shutdown"]
    assert not os.path.exists(control.path)


def test_its_end_ends_idle_connections_and_lets_an_answer_out(
    control: Control, daemon: FakeDaemon, until: Until
) -> None:
    daemon.hangs = True
    with Client(control.path) as idle, Client(control.path) as busy:
        busy.send(b'{"command": "reload"}\n')
        assert daemon.entered.wait(10)
        ending = threading.Thread(target=control.stop)
        ending.start()
        assert idle.has_ended()
        daemon.release.set()
        assert busy.answer()["ok"]
        assert busy.has_ended()
        ending.join(10)
        assert not ending.is_alive()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("guerrilla-control")])


def test_its_end_does_not_wait_for_a_command_that_hangs(
    control: Control, daemon: FakeDaemon
) -> None:
    daemon.hangs = True
    with Client(control.path) as busy:
        busy.send(b'{"command": "reload"}\n')
        assert daemon.entered.wait(10)
        control.stop()
        assert not daemon.release.is_set()


# The client


def test_a_daemon_that_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    for _ in range(2):
        with pytest.raises(ControlError) as caught:
            ask(path, "status")
        assert str(caught.value) == f"{path}: no daemon answers there: is it running?"
        if not path.exists():
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"220 mx.example.com\r\n", "what answers there is no guerrillad"),
        (b"", "it ended without an answer"),
        (b"[1]\n", "what answers there is no guerrillad"),
        (None, "no answer within 0.05 s"),
    ],
)
def test_what_answers_is_something_else(tmp_path: Path, said: bytes | None, problem: str) -> None:
    path = str(tmp_path / "c.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            client.recv(100)
            if said is not None:
                client.sendall(said)
                client.close()
            else:
                waiting.append(client)

        waiting: list[socket.socket] = []
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ControlError) as caught:
            ask(path, "status", timeout=0.05 if said is None else 10)
        thread.join()
        for client in waiting:
            client.close()
    assert str(caught.value) == f"{path}: {problem}"


def test_the_document_says_what_is_true(control: Control) -> None:
    text = (Path(__file__).parent.parent / "docs" / "control.md").read_text(encoding="utf-8")
    requests = re.findall(r'^\| `(\{"command": "[a-z-]+"\})` \|', text, re.MULTILINE)
    with Client(control.path) as client:
        for request in requests:
            client.send(request.encode() + b"\n")
            assert client.answer()["ok"], request
    assert {json.loads(request)["command"] for request in requests} == set(control._commands)
    assert f"at most {MAX_LINE // 1024} KiB, as has an answer about the spool" in text
    assert f"{TIMEOUT:g} seconds to come whole" in text
    assert f"at most {MAX_CLIENTS} connections at a time" in text


def test_the_document_has_every_argument_about_the_spool() -> None:
    """With its default, where it has one."""
    text = (Path(__file__).parent.parent / "docs" / "control.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(spool-[a-z]+)` \| (.*?) \| ", text, re.MULTILINE))
    assert list(rows) == list(COMMANDS)
    for name, (kind, _) in COMMANDS.items():
        told = dict(re.findall(r"`([a-z]+)`(?: \(([a-z0-9]+)[;:)])?", rows[name]))
        assert told == {
            field: "" if info.is_required() else json.dumps(info.default)
            for field, info in kind.model_fields.items()
        }
