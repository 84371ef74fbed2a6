"""The stage and a far side with a script: what arrives, and who is told what."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from guerrilla._core import Address, Envelope, Reply
from guerrilla.errors import StartError, Unavailable
from guerrilla.reply import TRY_LATER, Replies
from guerrilla.testing import make_envelope
from tests.forward.helpers import (
    ALL,
    CLOSE,
    MESSAGE,
    PIPELINED,
    FarSide,
    ask,
    opened,
    saved,
    send,
)

BOTH = ["a@example.com", "b@example.com"]
NO = "550 5.1.1 no such user"


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
        outcome = stage.save(make_envelope(MESSAGE, rcpt_to=BOTH, protocol="LMTP"))
        assert outcome == Replies(
            [Reply(250, "2.0.0", "taken"), Reply(550, "5.1.1", "no such user")]
        )
        assert stage.save(make_envelope(MESSAGE, rcpt_to=BOTH, protocol="LMTP")) is None
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
