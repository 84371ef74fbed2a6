"""The channel of a parent and its child: lines, descriptors, requests, and what is not believed."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.errors import StartError
from guerrilla.processes import channel
from guerrilla.processes.channel import (
    MAX_ANSWER,
    MAX_UNDER_WAY,
    Answering,
    Asking,
    ChannelError,
    GoneError,
    RefusedError,
    TooLargeError,
    pack,
    unpack,
)
from guerrilla.processes.wire import TooLongError, Wire, WireError, close_all
from tests.test_inherited import without_descriptors
from tests.wire import descriptors, no_more_than

PATIENCE = 20.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a socket pair."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


Pair = tuple[socket.socket, socket.socket]


def test_lines_come_whole_however_they_are_cut(pair: Pair) -> None:
    wire = Wire(pair[0])
    pair[1].sendall(b'{"a": 1')
    pair[1].sendall(b'}\n{"b": "\\n"}\n{"c"')
    assert wire.receive(PATIENCE) == ({"a": 1}, ())
    assert wire.receive(PATIENCE) == ({"b": "\n"}, ())
    with pytest.raises(WireError, match="took too long"):
        wire.receive(0.01)
    pair[1].close()
    assert wire.receive(PATIENCE) is None


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"{\n", b"\xff\n", b"[" * 100_000 + b"\n", b'{"descriptors": 1}\n']
)
def test_what_is_no_line(pair: Pair, line: bytes) -> None:
    wire = Wire(pair[0])
    pair[1].sendall(line)
    with pytest.raises(WireError):
        wire.receive(PATIENCE)


@pytest.mark.parametrize("value", ["true", "-1", '"1"', "1.0", "null", "2"])
def test_a_number_of_descriptors_that_is_none(pair: Pair, value: str) -> None:
    wire = Wire(pair[0], takes_descriptors=True)
    with closing(os.fdopen(os.open(os.devnull, os.O_RDONLY))) as file:
        line = f'{{"descriptors": {value}}}\n'.encode()
        socket.send_fds(pair[1], [line], [file.fileno()])
    with pytest.raises(WireError, match="has not the descriptors"):
        wire.receive(PATIENCE)
    wire.close()


def test_a_line_that_never_ends(pair: Pair) -> None:
    wire = Wire(pair[0], max_line=100_000)
    thread = threading.Thread(target=send_all, args=(pair[1], b"x" * 1_000_000))
    thread.start()
    with pytest.raises(WireError, match="more than 100000 bytes"):
        wire.receive(PATIENCE)
    wire.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def send_all(end: socket.socket, data: bytes) -> None:
    try:
        end.sendall(data)
    except OSError:
        return


def test_a_line_that_is_too_long_is_not_sent(pair: Pair) -> None:
    wire = Wire(pair[0], max_sent=100)
    with pytest.raises(TooLongError):
        wire.send({"text": "x" * 100})
    wire.send({"text": "y"})
    assert Wire(pair[1]).receive(PATIENCE) == ({"text": "y"}, ())


def test_who_does_not_read_is_not_waited_for(pair: Pair) -> None:
    wire = Wire(pair[0], max_sent=2**24)
    with pytest.raises(WireError, match="took too long"):
        wire.send({"text": "x" * 2**23}, timeout=0.05)
    # Part of it is on its way: nothing may follow.
    with pytest.raises(WireError):
        wire.send({"text": "x"}, timeout=PATIENCE)


@pytest.mark.parametrize("count", [1, 3, 250, 251, 700])
def test_descriptors_come_with_their_line(pair: Pair, count: int) -> None:
    here, there = Wire(pair[0]), Wire(pair[1], takes_descriptors=True)
    reader, writer = os.pipe()
    here.send({"before": 1})
    here.send({"with": 2}, [writer] * count)
    here.send({"and": 3}, [reader])
    os.close(writer)
    assert there.receive(PATIENCE) == ({"before": 1}, ())
    found = there.receive(PATIENCE)
    assert found is not None
    assert (found.value, len(found.descriptors)) == ({"with": 2}, count)
    assert not any(os.get_inheritable(one) for one in found.descriptors)
    os.write(found.descriptors[-1], b"hi")
    last = there.receive(PATIENCE)
    assert last is not None
    assert os.read(last.descriptors[0], 9) == b"hi"
    found.close()
    last.close()
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_descriptors_that_nobody_asked_for_are_closed(pair: Pair) -> None:
    reader, writer = os.pipe()
    wire = Wire(pair[1])
    Wire(pair[0]).send({"a": 1}, [writer])
    os.close(writer)
    with pytest.raises(WireError, match="has not the descriptors"):
        wire.receive(PATIENCE)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_descriptors_whose_line_never_came_are_closed(pair: Pair) -> None:
    reader, writer = os.pipe()
    wire = Wire(pair[1], takes_descriptors=True)
    socket.send_fds(pair[0], [b"{"], [writer])
    os.close(writer)
    pair[0].close()
    assert wire.receive(PATIENCE) is None
    wire.close()
    assert os.read(reader, 1) == b""
    os.close(reader)


Commands = Mapping[str, Callable[[Mapping[str, Any], Sequence[int]], object]]


class Both:
    """A parent's side and a child's in one process."""

    def __init__(self, pair: Pair, commands: Commands) -> None:
        self.ended = threading.Event()
        self.asking = Asking(pair[0], "process 1", self.ended.set)
        self.answering = Answering(pair[1], commands)
        self._thread = threading.Thread(target=self.answering.serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.asking.end()
        assert self.ended.wait(PATIENCE)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def test_requests_are_answered_as_they_are_done(pair: Pair) -> None:
    release = threading.Event()
    both = Both(
        pair,
        {
            "slow": lambda *_: release.wait(PATIENCE),
            "echo": lambda arguments, _: dict(arguments),
        },
    )
    slow = both.asking.begin("slow")
    assert both.asking.ask("echo", {"a": [1, "x"]}) == {"a": [1, "x"]}
    release.set()
    assert both.asking.answer(slow) is True
    both.end()
    with pytest.raises(GoneError, match="process 1 cannot be asked: it is gone"):
        both.asking.ask("echo")


def test_an_answer_that_takes_too_long_is_for_nobody(pair: Pair) -> None:
    release = threading.Event()
    both = Both(pair, {"slow": lambda *_: release.wait(PATIENCE), "fast": lambda *_: 1})
    with pytest.raises(ChannelError, match=r"process 1 has not answered slow within 0\.01 s"):
        both.asking.ask("slow", timeout=0.01)
    release.set()
    assert both.asking.ask("fast") == 1
    both.end()


def refuse(error: Exception) -> Callable[[Mapping[str, Any], Sequence[int]], object]:
    def command(arguments: Mapping[str, Any], descriptors: Sequence[int]) -> object:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "lines", "kind"),
    [
        (StartError(["a: 1", "b: 2"]), ("a: 1", "b: 2"), "StartError"),
        (ValueError("no\x1b\u202e"), ("no\\x1b\\u202e",), "ValueError"),
        (LookupError(), ("no reason was given",), "LookupError"),
        (FileNotFoundError(2, "gone", "/a"), ("/a: gone",), "FileNotFoundError"),
        (ZeroDivisionError("x"), ("ZeroDivisionError: x: the log has more",), "ZeroDivisionError"),
    ],
)
def test_a_refusal_says_why(pair: Pair, error: Exception, lines: Sequence[str], kind: str) -> None:
    both = Both(pair, {"it": refuse(error)})
    with pytest.raises(RefusedError) as caught:
        both.asking.ask("it")
    assert (caught.value.errors, caught.value.kind) == (tuple(lines), kind)
    with pytest.raises(RefusedError, match="unknown command 'other'"):
        both.asking.ask("other")
    both.end()


def test_an_answer_that_is_too_long(pair: Pair) -> None:
    both = Both(pair, {"long": lambda *_: "x" * MAX_ANSWER, "short": lambda *_: "y"})
    with pytest.raises(RefusedError, match=f"more than {MAX_ANSWER} bytes"):
        both.asking.ask("long")
    assert both.asking.ask("short") == "y"
    both.end()


def test_descriptors_are_closed_once_a_request_is_answered(pair: Pair) -> None:
    seen: list[int] = []
    both = Both(pair, {"take": lambda _, descriptors: seen.extend(descriptors)})
    reader, writer = os.pipe()
    both.asking.ask("take", descriptors=[writer])
    os.close(writer)
    assert len(seen) == 1
    assert os.read(reader, 1) == b""
    os.close(reader)
    both.end()


@pytest.mark.parametrize("count", [1, 251])
def test_descriptors_that_cannot_be_taken_refuse_their_request_alone(
    pair: Pair, count: int
) -> None:
    before = descriptors()
    taken: list[int] = []
    both = Both(
        pair,
        {
            "take": lambda _, descriptors: taken.append(len(descriptors)),
            "echo": lambda arguments, _: dict(arguments),
        },
    )
    reader, writer = os.pipe()
    with without_descriptors(but=count // 2):
        with pytest.raises(RefusedError, match=r"cannot be taken: .*ulimit -n, Limit") as why:
            both.asking.ask("take", descriptors=[writer] * count)
        assert why.value.kind == "DescriptorsError"
        assert both.asking.ask("echo", {"a": 1}) == {"a": 1}
    both.asking.ask("take", descriptors=[writer] * count)
    assert taken == [count]
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    no_more_than(before)
    both.end()


def test_only_so_many_requests_are_under_way(pair: Pair) -> None:
    release = threading.Event()
    both = Both(pair, {"slow": lambda *_: release.wait(PATIENCE)})
    asked = [both.asking.begin("slow") for _ in range(MAX_UNDER_WAY)]
    with pytest.raises(ChannelError, match="requests to answer"):
        both.asking.begin("slow")
    release.set()
    assert [both.asking.answer(one) for one in asked] == [True] * MAX_UNDER_WAY
    both.end()


def test_a_request_that_is_too_large_is_not_sent(pair: Pair) -> None:
    both = Both(pair, {"echo": lambda arguments, _: dict(arguments)})
    with pytest.raises(TooLargeError, match="process 1 cannot be asked for echo: a line would"):
        both.asking.ask("echo", {"a": "x" * channel.MAX_REQUEST})
    assert both.asking.ask("echo", {"a": 1}) == {"a": 1}
    both.end()


ANSWER = b'{"id": 1, "ok": true, "result": 7}\n'


@pytest.mark.parametrize("is_late", [False, True])
def test_a_request_has_one_answer(pair: Pair, *, is_late: bool) -> None:
    """Else a child could keep a thread of its parent busy for as long as it likes."""
    ended = threading.Event()
    asking = Asking(pair[0], "process 1", ended.set)
    asked = asking.begin("status")
    if is_late:
        with pytest.raises(ChannelError, match="has not answered"):
            asking.answer(asked, 0.0)
    other = asking.begin("stats")
    pair[1].sendall(ANSWER + b'{"id": 2, "ok": true, "result": 8}\n')
    assert asking.answer(other, PATIENCE) == 8
    assert is_late or asking.answer(asked, PATIENCE) == 7
    assert not ended.is_set()
    pair[1].sendall(ANSWER)
    assert ended.wait(PATIENCE)
    with pytest.raises(ChannelError, match="what came is no answer to any request"):
        asking.ask("status")


def test_a_child_that_answers_nothing_is_asked_no_more(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "MAX_LATE", 3)
    ended = threading.Event()
    asking = Asking(pair[0], "process 1", ended.set)
    for _ in range(4):
        assert not ended.is_set()
        with pytest.raises(ChannelError, match="has not answered"):
            asking.ask("status", timeout=0.0)
    assert ended.wait(PATIENCE)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b'{"ok": true}\n',
        b'{"id": true, "ok": true}\n',
        b'{"id": 0, "ok": true}\n',
        b'{"id": 99, "ok": true}\n',
        b'{"id": 1, "ok": "yes"}\n',
        b"x" * (MAX_ANSWER + 2),
    ],
)
def test_a_child_that_says_nonsense_is_asked_no_more(pair: Pair, line: bytes) -> None:
    ended = threading.Event()
    asking = Asking(pair[0], "process 1", ended.set)
    asked = asking.begin("status")
    send_all(pair[1], line)
    assert ended.wait(PATIENCE)
    with pytest.raises(ChannelError, match="process 1 cannot be asked"):
        asking.answer(asked)
    with pytest.raises(ChannelError, match="process 1 cannot be asked"):
        asking.ask("status")


@pytest.mark.parametrize(
    ("errors", "lines"),
    [
        (b"[]", ("no reason was given",)),
        (b"7", ("no reason was given",)),
        (b'[1, "a\\nb", null]', ("a\\nb",)),
    ],
)
def test_a_refusal_of_a_child_that_is_not_believed(
    pair: Pair, errors: bytes, lines: Sequence[str]
) -> None:
    asking = Asking(pair[0], "process 1")
    asked = asking.begin("status")
    pair[1].sendall(b'{"id": 1, "ok": false, "kind": 3, "errors": ' + errors + b"}\n")
    with pytest.raises(RefusedError) as caught:
        asking.answer(asked)
    assert (caught.value.errors, caught.value.kind) == (tuple(lines), "")
    asking.end()


def test_nothing_stays_open() -> None:
    before = descriptors()
    both = Both(socket.socketpair(), {"echo": lambda *_: 1})
    assert both.asking.ask("echo") == 1
    both.end()
    both.answering.close()
    no_more_than(before)


def test_a_config_travels() -> None:
    config = from_mapping(
        {
            "servers": [{"listen_interface": "127.0.0.1:0", "tls": {"start_tls_on": False}}],
            "backend_config": {"save_process": "HeadersParser|SQL", "sql_dsn": "a"},
            "backends": {"other": {"save_process": "Debugger"}},
            "spool": {"path": "/tmp/s"},
        }
    )
    assert unpack(pack(config)) == config


def test_what_is_closed_already_is_left() -> None:
    reader, writer = os.pipe()
    close_all([reader, writer])
    close_all([reader, writer])
