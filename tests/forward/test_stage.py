"""The stage and a far side with a script: connections, errors, retries."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from guerrilla._core import Address, Envelope, Reply
from guerrilla.errors import StartError, Unavailable
from guerrilla.forward.transaction import IN_DOUBT
from guerrilla.processors.forward import Forward
from guerrilla.reply import TRY_LATER, Replies
from guerrilla.testing import make_envelope
from tests.forward.helpers import (
    ALL,
    CLOSE,
    MESSAGE,
    PATIENCE,
    PIPELINED,
    FarSide,
    as_lmtp,
    ask,
    opened,
    send,
)
from tests.wire import until

BOTH = ["a@example.com", "b@example.com"]
NO = "550 5.1.1 no such user"


def saved(stage: Forward, **keys: Any) -> object:
    return stage.save(make_envelope(MESSAGE, **keys))


# --- What arrives --------------------------------------------------------------------------------


@pytest.mark.parametrize("drip", [False, True])
@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("offers", [(), PIPELINED, ALL])
def test_mails_arrive_as_they_are(offers: tuple[str, ...], lmtp: bool, drip: bool) -> None:
    messages = [MESSAGE, b".\r\n..\r\n", b"Subject: 8\r\n\r\n\xff\r\n", b"x" * 700_000 + b"\r\n"]
    with FarSide(*offers, lmtp=lmtp, drip=drip) as far:
        far.offers = [offer.replace("100000", "1000000") for offer in far.offers]
        mails = [make_envelope(message, rcpt_to=BOTH) for message in messages]
        replies = send(far.options, *mails)
    assert [reply.code for reply in replies] == [250] * 4
    assert far.messages == messages
    assert far.connections == 1
    assert far.said[-1] == "QUIT"


def test_its_header_goes_before_it() -> None:
    with FarSide(*ALL) as far:
        mail = make_envelope(MESSAGE)
        mail.add_header("X-One", "1")
        send(far.options, mail, chain="HeadersParser|Header|Forward")
    (message,) = far.messages
    assert message.startswith(b"X-One: 1\r\nReceived: from ")
    assert message.endswith(b"\r\n" + MESSAGE)


def test_parameters_are_passed_on() -> None:
    with FarSide(*ALL) as far:
        mail = Envelope.create(
            MESSAGE,
            mail_from="from@example.org",
            rcpt_to=[_with("to", NOTIFY="FAILURE", ORCPT="rfc822;x@y")],
            parameters={"RET": "FULL", "ENVID": "id", "SIZE": "7", "SMTPUTF8": None},
        )
        send(far.options, mail, make_envelope(MESSAGE, mail_from=None))
    first, second, *rest = far.said[1:]
    # Its header section is ASCII: SMTPUTF8 would only keep it from servers without it.
    assert first == f"MAIL FROM:<from@example.org> SIZE={len(MESSAGE)} RET=FULL ENVID=id"
    assert second == "RCPT TO:<to@example.com> NOTIFY=FAILURE ORCPT=rfc822;x@y"
    assert f"MAIL FROM:<> SIZE={len(MESSAGE)}" in rest


def _with(user: str, **parameters: str | None) -> Any:
    return Address(user, "example.com", parameters)


@pytest.mark.parametrize("offers", [ALL, PIPELINED])
def test_a_header_in_utf8_needs_smtputf8(offers: tuple[str, ...]) -> None:
    message = "Subject: gr\u00fc\u00dfe\r\n\r\n".encode()
    with FarSide(*offers) as far:
        (reply,) = send(far.options, make_envelope(message, parameters={"SMTPUTF8": None}))
        # An old mail that was never right goes where any other goes.
        (other,) = send(far.options, make_envelope(message))
    assert other.code == 250
    if offers is ALL:
        assert reply.code == 250
        assert far.said[1].endswith(" BODY=8BITMIME SMTPUTF8")
    else:
        assert (reply.code, reply.enhanced) == (550, "5.6.7")
    assert "SMTPUTF8" not in far.said[-3]


# --- Who is told what ----------------------------------------------------------------------------


def test_an_smtp_sender_is_told_one_reply_and_nobody_has_the_mail() -> None:
    with FarSide(*PIPELINED) as far:
        far.will_say("RCPT", "250 ok", NO)
        (reply,) = send(far.options, make_envelope(MESSAGE, rcpt_to=BOTH))
        assert (reply.code, reply.enhanced, reply.text) == (550, "5.1.1", "no such user")
        far.will_say("RCPT", NO, "452 4.2.2 full")
        (reply,) = send(far.options, make_envelope(MESSAGE, rcpt_to=BOTH))
    assert (reply.code, reply.enhanced, reply.text) == (452, "4.2.2", "full")
    assert far.messages == []
    assert far.said.count("RSET") == 2


def test_an_lmtp_client_is_told_a_reply_a_recipient() -> None:
    with FarSide(*PIPELINED) as far, opened(far.options) as stage:
        far.will_say("RCPT", "250 ok", NO)
        outcome = stage.save(as_lmtp(make_envelope(MESSAGE, rcpt_to=BOTH)))
        assert outcome == Replies(
            [Reply(250, "2.0.0", "taken"), Reply(550, "5.1.1", "no such user")]
        )
        assert stage.save(as_lmtp(make_envelope(MESSAGE, rcpt_to=BOTH))) is None
    assert far.messages == [MESSAGE] * 2


def test_lmtp_behind_smtp_may_take_it_for_some(caplog: pytest.LogCaptureFixture) -> None:
    """There is no other way, and it is said."""
    with FarSide(*PIPELINED, lmtp=True) as far:
        far.will_say(".", "250 ok", "452 4.2.2 full")
        with caplog.at_level(logging.WARNING, "guerrilla.processors.forward"):
            (reply,) = send(far.options, make_envelope(MESSAGE, rcpt_to=BOTH))
    assert reply.code == 452
    assert "1 of 2 recipients have it and its sender is told 452 for all" in caplog.text


def test_a_mail_without_recipients() -> None:
    with FarSide() as far, opened(far.options) as stage:
        outcome: Any = saved(stage, rcpt_to=[])
    assert outcome.code == 554
    assert far.messages == []


def test_a_mail_whose_sender_is_answered_is_not_sent() -> None:
    with FarSide() as far, opened(far.options) as stage:
        mail = make_envelope(MESSAGE)
        mail.answer(TRY_LATER)
        assert stage.save(mail) is TRY_LATER
    assert far.messages == []


# --- Connections that end ------------------------------------------------------------------------


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


def test_a_first_connection_that_ends_is_not_made_again() -> None:
    with FarSide(*PIPELINED) as far:
        far.will_say("MAIL", CLOSE)
        (reply,) = send(far.options)
    assert (reply.code, far.connections) == (451, 1)


def test_a_server_that_is_gone_is_told_at_once_and_found_again() -> None:
    with FarSide(*PIPELINED) as far, opened(far.options) as stage:
        far.will_say("CONNECT", "421 4.3.2 not now")
        far.hang_up()
        until(lambda: not far._open)
        with pytest.raises(Unavailable, match=r"LostError: it said 421 4\.3\.2 not now"):
            saved(stage)
        with pytest.raises(Unavailable, match=r"tried again in 0\.\d s"):
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
    with FarSide(*PIPELINED) as far, opened(far.options, forward_timeout=0.3) as stage:
        assert saved(stage) is None
        far.silent = "MAIL"
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer in time"):
            saved(stage)
        assert 0.2 < time.monotonic() - began < 5
        far.silent = ""
        assert saved(stage) is None
    assert far.connections == 2


@pytest.mark.parametrize(
    "garbage", ["hello", "250-a\r\n550 b", "199 what", "250 " + "x" * 5_000, "\x16\x03\x01"]
)
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_what_is_no_reply_is_451_and_ends_the_connection(verb: str, garbage: str) -> None:
    with FarSide() as far, opened(far.options) as stage:
        far.will_say(verb, garbage)
        with pytest.raises(Unavailable):
            saved(stage)
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


def test_nothing_is_sent_once_the_sender_was_told_451() -> None:
    """At twice `gw_save_timeout`, whatever `forward_timeout` allows."""
    with FarSide() as far, opened(far.options, gw_save_timeout=0.2, forward_timeout=60) as stage:
        far.silent = "RCPT"
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer in time"):
            saved(stage, received_at=time.time())
        assert time.monotonic() - began < 10
        far.silent = ""
        # One that came from no socket may be of any age.
        assert saved(stage, received_at=1.0) is None
    assert far.messages == [MESSAGE]


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


# --- Questions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("offers", [(), PIPELINED])
@pytest.mark.parametrize("lmtp", [False, True])
def test_recipients_are_asked_about(offers: tuple[str, ...], lmtp: bool) -> None:
    with FarSide(*offers, lmtp=lmtp) as far, opened(far.options) as stage:
        assert ask(stage) is None
        far.will_say("RCPT", NO, "450-4.2.0 grey\r\n450 4.2.0 listed", "251 will forward")
        assert ask(stage) == Reply(550, "5.1.1", "no such user")
        assert ask(stage) == Reply(450, "4.2.0", "grey listed")
        assert ask(stage) is None
        far.will_say("MAIL", "554 5.7.1 not from there")
        assert ask(stage) == Reply(554, "5.7.1", "not from there")
        far.will_say("MAIL", "421 4.3.2 enough")
        assert ask(stage) is None
        assert saved(stage) is None
    assert far.connections == 2
    assert far.messages == [MESSAGE]
    assert "RCPT TO:<to@example.com>" in far.said


def test_nobody_is_refused_while_it_is_away() -> None:
    with FarSide() as far, opened(far.options) as stage:
        far.will_say("MAIL", CLOSE)
        with pytest.raises(Unavailable):
            ask(stage)


# --- The start -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "answer", "told"),
    [
        ("CONNECT", "554 5.7.1 no", "its reply to our connection is 554 5.7.1 no"),
        ("CONNECT", "421 4.3.2 busy", "it said 421 4.3.2 busy"),
        ("CONNECT", CLOSE, "it closed the connection"),
        ("CONNECT", "HTTP/1.1 400 Bad Request", "no reply: b'HTTP/1.1 400 Bad Request'"),
        ("EHLO", "550 5.7.1 no", "its reply to EHLO is 550 5.7.1 no"),
    ],
)
def test_a_server_that_will_not_have_us_stops_the_start(verb: str, answer: str, told: str) -> None:
    with FarSide() as far:
        far.will_say(verb, answer)
        with pytest.raises(StartError) as caught, opened(far.options):
            pass
    (line,) = caught.value.problems
    assert line == f"backend_config.forward_address: {far.options['forward_address']}: {told}"


def test_nobody_there_stops_the_start() -> None:
    with FarSide() as far:
        options = far.options
    with pytest.raises(StartError, match="cannot connect: Connection refused"), opened(options):
        pass
    with (
        pytest.raises(StartError, match="unix:/nowhere: cannot connect: No such file"),
        opened({"forward_address": "unix:/nowhere"}),
    ):
        pass
