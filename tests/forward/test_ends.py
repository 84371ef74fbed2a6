"""The stage and a far side that ends, stalls or talks nonsense: what is sent again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from guerrilla.errors import Unavailable
from guerrilla.forward import Connection
from guerrilla.forward.transaction import IN_DOUBT
from guerrilla.kept import Kept
from guerrilla.processors.forward import Forward
from guerrilla.reply import TRY_LATER
from guerrilla.testing import make_envelope
from tests.forward.helpers import (
    ALL,
    CLOSE,
    MESSAGE,
    PATIENCE,
    PIPELINED,
    SILENCE,
    FarSide,
    ask,
    opened,
    saved,
    send,
)
from tests.wire import until

BOTH = ["a@example.com", "b@example.com"]
NO = "550 5.1.1 no such user"


def test_a_kept_connection_that_was_closed_costs_nobody_a_reply() -> None:
    with FarSide(*PIPELINED) as far, opened(far.options) as stage:
        assert saved(stage) is None
        far.hang_up()
        until(lambda: not far._open)
        assert saved(stage) is None
    assert (far.connections, len(far.messages)) == (2, 2)


@pytest.mark.parametrize("end", [CLOSE, "421 4.3.2 enough"])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("offers", [(), PIPELINED])
def test_one_that_ends_before_the_message_is_made_again_once(
    offers: tuple[str, ...], verb: str, end: str
) -> None:
    with FarSide(*offers) as far, opened(far.options) as stage:
        assert saved(stage) is None
        far.will_say(verb, end)
        assert saved(stage) is None
        assert (far.connections, len(far.messages)) == (2, 2)
        # Once: the new one is not tried again.
        far.will_say(verb, end, end)
        with pytest.raises(Unavailable):
            saved(stage)
        assert (far.connections, len(far.messages)) == (3, 2)
        assert saved(stage) is None
    assert len(far.messages) == 3


@pytest.mark.parametrize("end", [CLOSE, "421 4.3.2 enough"])
@pytest.mark.parametrize("offers", [(), PIPELINED, ALL])
def test_after_the_end_of_the_message_nothing_is_sent_again(
    offers: tuple[str, ...], end: str, caplog: pytest.LogCaptureFixture
) -> None:
    with FarSide(*offers) as far, opened(far.options) as stage:
        assert saved(stage) is None
        far.will_say(".", end)
        assert saved(stage) == IN_DOUBT
        assert "perhaps taken by next server" in caplog.text
        assert saved(stage) is None
    assert (far.connections, len(far.messages)) == (2, 3)


def test_who_was_told_of_is_told_whatever_comes_then(caplog: pytest.LogCaptureFixture) -> None:
    """Of LMTP replies: those who have it must not be sent it again."""
    three = [*BOTH, "c@example.com"]
    with (
        FarSide(*PIPELINED, lmtp=True) as far,
        opened(far.options, forward_timeout=4) as stage,
    ):
        for last in ("what?", "421 4.3.2 bye", CLOSE, SILENCE):
            far.will_say(".", "250 2.0.0 taken", NO, last)
            outcome: Any = stage.save(make_envelope(rcpt_to=three, protocol="LMTP"))
            assert [reply.code for reply in outcome] == [250, 550, 451]
            assert outcome[2] == IN_DOUBT
    assert caplog.text.count("perhaps taken by next server") == 4


def test_no_answer_after_the_end_of_the_message_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with FarSide(*PIPELINED) as far, opened(far.options, forward_timeout=4) as stage:
        far.will_say(".", SILENCE)
        mail = make_envelope()
        assert stage.save(mail) == IN_DOUBT
        assert f"{mail.queued_id}: perhaps taken by next server" in caplog.text
        assert "no answer in time" in caplog.text
        assert saved(stage) is None
    assert far.connections == 2


def test_a_first_connection_that_ends_is_not_made_again() -> None:
    with FarSide(*PIPELINED) as far:
        far.will_say("MAIL", CLOSE)
        (reply,) = send(far.options)
    assert (reply.code, far.connections) == (451, 1)


def test_a_server_that_is_gone_is_told_at_once_and_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("guerrilla.kept.FIRST_DELAY", 4.0)
    with FarSide(*PIPELINED) as far, opened(far.options) as stage:
        far.will_say("CONNECT", "421 4.3.2 not now")
        far.hang_up()
        until(lambda: not far._open)
        with pytest.raises(Unavailable, match=r"LostError: it said 421 4\.3\.2 not now"):
            saved(stage)
        with pytest.raises(Unavailable, match=r"tried again in [0-4]\.\d s"):
            saved(stage)
        until(lambda: _is_saved(stage))


def _is_saved(stage: Forward) -> bool:
    try:
        return saved(stage) is None
    except Unavailable:
        return False


def test_an_early_refusal_of_a_large_message_is_told() -> None:
    """It is said while the message is on its way, and the connection ends."""
    large = make_envelope(b"x" * 8_000_000)
    with FarSide() as far:
        far.will_say("DATA", "354 go\r\n552 5.3.4 too big")
        far.deaf = True
        (reply,) = send(far.options, large)
    assert (reply.code, reply.enhanced, reply.text) == (552, "5.3.4", "too big")


def test_a_far_side_that_says_nothing_is_451_in_time() -> None:
    with FarSide(*PIPELINED) as far, opened(far.options, forward_timeout=4) as stage:
        assert saved(stage) is None
        far.silent = "MAIL"
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer in time"):
            saved(stage)
        assert 3.9 < time.monotonic() - began < 15
        far.silent = ""
        assert saved(stage) is None
    assert far.connections == 2


@pytest.mark.parametrize(
    "garbage", ["hello", "250-a\r\n550 b", "199 what", "250 " + "x" * 5_000, "\x16\x03\x01"]
)
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_what_is_no_reply_is_451_and_ends_the_connection(
    verb: str, garbage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with FarSide() as far, opened(far.options) as stage:
        far.will_say(verb, garbage)
        if verb == ".":
            assert saved(stage) == IN_DOUBT
        else:
            with pytest.raises(Unavailable):
                saved(stage)
        assert ("perhaps taken by" in caplog.text) == (verb == ".")
        assert saved(stage) is None
    assert far.connections == 2


def test_a_reply_too_many_ends_the_connection() -> None:
    """Else it would be taken for that to the next command."""
    with FarSide() as far, opened(far.options) as stage:
        far.will_say(".", "250 taken\r\n250 surprise")
        assert saved(stage) is None
        far.will_say("MAIL", NO)
        outcome: Any = saved(stage)
        assert outcome.code == 550
    assert far.connections == 2


def test_who_talks_unasked_gets_no_mail() -> None:
    """Each reply would be taken for that to the next command."""
    with FarSide(*ALL) as far, opened(far.options) as stage:
        assert saved(stage) is None
        far.will_say("EHLO", "250-mx\r\n250 CHUNKING\r\n250 and more")
        far.hang_up()
        until(lambda: not far._open)
        with pytest.raises(Unavailable, match="it says what it was not asked"):
            saved(stage)
        until(lambda: _is_saved(stage))
        far.will_say("MAIL", "250 ok\r\n250 ok\r\n250 ok")
        with pytest.raises(Unavailable):
            saved(stage)
    assert len(far.messages) == 2


def test_half_a_reply_too_many_is_one() -> None:
    with FarSide() as far, opened(far.options) as stage:
        far.will_say("MAIL", "250 ok\r\n250-and more")
        with pytest.raises(Unavailable, match="it said more than it was asked"):
            saved(stage)
        assert saved(stage) is None
    assert far.messages == [MESSAGE]


@pytest.mark.parametrize("clock", [0.0, 3_600.0])
def test_nothing_is_sent_once_the_sender_was_told_451(clock: float) -> None:
    """At twice `gw_save_timeout`, whatever `forward_timeout` allows, wherever the clock is set."""
    with FarSide() as far, opened(far.options, gw_save_timeout=2, forward_timeout=60) as stage:
        far.silent = "RCPT"
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer in time"):
            saved(stage, received_at=time.time() + clock)
        assert time.monotonic() - began < 10
        far.silent = ""
        # One that came from no socket may be of any age.
        assert saved(stage, received_at=1.0) is None
    assert far.messages == [MESSAGE]


def test_nothing_is_sent_that_was_answered_while_it_connected() -> None:
    mail = make_envelope()
    with FarSide() as far, opened(far.options) as stage:
        connect = stage._connect

        def slowly() -> Connection:
            mail.answer(TRY_LATER)  # as at its time limit
            return connect()

        stage._kept.close()
        stage._kept = Kept("it", slowly, Connection.close)
        assert stage.save(mail) is TRY_LATER
        assert saved(stage) is None
    assert len(far.messages) == 1


def test_so_many_mails_a_connection_as_it_takes() -> None:
    with FarSide("LIMITS MAILMAX=2") as far, opened(far.options) as stage:
        assert [saved(stage) for _ in range(3)] == [None] * 3
        assert ask(stage) is None
        assert saved(stage) is None
    assert far.connections == 3
    assert far.said.count("QUIT") == 3


def test_data_that_is_granted_to_nobody_ends_the_connection_at_once() -> None:
    """The far side waits for a message, and would for long."""
    with FarSide(*PIPELINED) as far, opened(far.options) as stage:
        far.will_say("RCPT", NO)
        far.will_say("DATA", "354 go ahead")
        outcome: Any = saved(stage)
        assert outcome.code == 550
        until(lambda: not far._open, PATIENCE / 2)  # before the far side has had enough
        assert saved(stage) is None
    assert far.messages == [MESSAGE]


def test_a_connection_is_kept_for_so_long() -> None:
    with FarSide() as far, opened(far.options, forward_keep=0) as stage:
        assert [saved(stage) for _ in range(3)] == [None] * 3
    assert far.connections == 3
    assert far.said.count("QUIT") == 3


def test_many_recipients_do_not_jam_it() -> None:
    """More replies than sockets hold, before all commands are heard."""
    rcpt_to = [f"{'x' * 60}{number}@example.com" for number in range(20_000)]
    with FarSide(*PIPELINED) as far:
        far.will_say("RCPT", *[f"250 {'y' * 400}"] * len(rcpt_to))
        (reply,) = send(far.options, make_envelope(MESSAGE, rcpt_to=rcpt_to))
    assert reply.code == 250
    assert len(far.said) == len(rcpt_to) + 4
