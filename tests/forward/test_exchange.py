"""Sending and hearing at the same time, over a socket that does what a test says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from guerrilla.forward.connection import _Exchange
from guerrilla.forward.replies import FarReply, ReplyReader
from guerrilla.forward.steps import Heard, ProtocolError, Say

OK = FarReply(250, ("ok",))
NO = FarReply(552, ("too big",), "5.3.4")


class FakeLink:
    """A link whose calls have these outcomes, one after the other.

    Args:
        sends: for each `send` how many octets it takes; all of them behind the last.
        receives: for each `receive` what comes; the end of the connection behind the last.
    """

    def __init__(self, sends: list[int | OSError], receives: list[bytes | OSError | None]) -> None:
        self._sends, self._receives = deque(sends), deque(receives)
        self.sent = b""
        self.waits: list[bool] = []

    def send(self, octets: memoryview) -> int:
        outcome = self._sends.popleft() if self._sends else len(octets)
        if isinstance(outcome, OSError):
            raise outcome
        self.sent += octets[:outcome]
        return outcome

    def receive(self) -> bytes | None:
        outcome = self._receives.popleft() if self._receives else b""
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def wait(self, deadline: float, *, sending: bool) -> None:
        self.waits.append(sending)
        if deadline == 0:
            raise TimeoutError("no answer in time")


def exchange(link: FakeLink, say: Say, deadline: float = 1.0) -> Heard:
    fake: Any = link
    return _Exchange(fake, ReplyReader(), say).run(deadline)


def test_a_little_at_a_time() -> None:
    link = FakeLink([1, 0, 2], [None, None, None, b"25", b"0 ok\r\n"])
    assert exchange(link, Say((b"MAIL\r\n",), 1)) == Heard([OK])
    assert link.sent == b"MAIL\r\n"
    assert link.waits == [True, True, True, False, False]


def test_several_pieces_and_several_replies() -> None:
    link = FakeLink([], [None, None, b"250 ok\r\n250 ok\r\n250"])
    say = Say(iter([b"a", b"", b"b", b"c"]), 2)
    assert exchange(link, say) == Heard([OK, OK])
    assert link.sent == b"abc"


def test_a_message_is_in_doubt_from_its_last_piece_on() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    gone = ConnectionResetError("gone")
    cases: list[tuple[list[int | OSError], bool]] = [
        ([gone], False), ([1, gone], False), ([3, gone], True), ([3, 1, gone], True),
    ]  # fmt: skip
    for sends, in_doubt in cases:
        heard = exchange(FakeLink(sends, [None, None, b""]), Say(pieces(), 1, is_message=True))
        assert (heard.replies, heard.in_doubt, bool(heard.lost)) == ([], in_doubt, True)


@pytest.mark.parametrize("end", [BrokenPipeError("gone"), ConnectionResetError("gone")])
def test_what_was_said_before_the_end_is_heard(end: OSError) -> None:
    """A far side that refuses a message while it comes, and closes."""
    link = FakeLink([3, end], [None, b"552 5.3.4 ", b"too big\r\n", ConnectionResetError("gone")])
    heard = exchange(link, Say((b"message", b"more"), 1, is_message=True))
    assert heard == Heard([NO], unsent=True)


def test_a_refusal_ends_the_sending() -> None:
    link = FakeLink([3], [b"552 5.3.4 too big\r\n"])
    heard = exchange(link, Say((b"message", b"more"), 1, is_message=True))
    assert heard == Heard([NO], unsent=True)
    assert link.sent == b"mes"


def test_the_end_in_the_middle_of_a_reply() -> None:
    heard = exchange(FakeLink([], [b"250-ok\r\n", b""]), Say((b"RSET\r\n",), 1))
    assert heard == Heard([], lost="it closed the connection")


def test_421_is_the_last_reply() -> None:
    link = FakeLink([], [b"250 ok\r\n421 4.3.2 bye\r\n250 ok\r\n"])
    heard = exchange(link, Say((b"MAIL\r\nRCPT\r\nDATA\r\n",), 3))
    assert heard == Heard([OK], lost="it said 421 4.3.2 bye")


def test_who_answers_what_he_has_not_heard_speaks_no_smtp() -> None:
    link = FakeLink([2], [b"250 ok\r\n"])
    with pytest.raises(ProtocolError, match="it answered what it had not heard"):
        exchange(link, Say((b"RSET\r\n",), 1))


def test_time_that_is_over_is_told_as_such() -> None:
    with pytest.raises(TimeoutError, match="no answer in time"):
        exchange(FakeLink([], []), Say((b"RSET\r\n",), 1), deadline=0)
    large = Say((b"message", b"more"), 1, is_message=True)
    with pytest.raises(TimeoutError, match="no answer in time"):
        exchange(FakeLink([], []), large, deadline=0)


@pytest.mark.parametrize("last", ["what?\r\n", "250-a\r\n550 b\r\n", ""])
def test_what_was_said_of_a_message_holds_whatever_comes_then(last: str) -> None:
    """Some recipients of LMTP have it: they would have it twice."""
    late = TimeoutError("no answer in time")
    link = FakeLink([], [None, b"250 ok\r\n" + last.encode(), late])
    heard = exchange(link, Say((b"message", b"."), 2, is_message=True))
    assert heard.replies == [OK]
    assert heard.in_doubt
    assert heard.lost
