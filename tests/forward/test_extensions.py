"""Before a second guerrilla that offers less and less: what is passed on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guerrilla._core import Address, Envelope, Reply
from guerrilla.errors import ConfigError
from guerrilla.forward.commands import NEEDS_BINARY, NEEDS_UTF8
from guerrilla.testing import GuerrillaServer, make_envelope
from tests.certificates import self_signed
from tests.forward.helpers import MESSAGE, opened, send
from tests.running import RunningDaemon
from tests.wire import Wire

ALL = (
    "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME", "DSN", "LIMITS",
    "ENHANCEDSTATUSCODES", "HELP",
)  # fmt: skip
BINARY = b"Subject: x\r\n\r\n\n\0\r.\r\n.\xff"
UTF8 = "Subject: gr\u00fc\u00dfe\r\n\r\n".encode()


def _mails() -> list[Envelope]:
    """One with hosts that are not ASCII and every parameter, one with a user, one with a header."""
    dsn: dict[str, str | None] = {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "utf-8;\u00fc@x.org"}
    to = Address("to", "gr\u00fc\u00dfe.example", dsn)
    given: dict[str, str | None] = {"RET": "FULL", "ENVID": "q+2B", "SMTPUTF8": None}
    utf8: dict[str, str | None] = {"SMTPUTF8": None}
    return [
        make_envelope(MESSAGE, mail_from="a@b\u00fccher.example", rcpt_to=[to], parameters=given),
        make_envelope(MESSAGE, mail_from="\u00fc@example.org", parameters=utf8),
        make_envelope(UTF8, parameters=utf8),
        make_envelope(BINARY, parameters={"BODY": "BINARYMIME"}),
    ]


@pytest.mark.parametrize("without", [(), *((one,) for one in ALL), ALL])
def test_what_it_does_not_offer_is_not_used(without: tuple[str, ...]) -> None:
    extensions: dict[str, Any] = dict.fromkeys(without, False)
    if "CHUNKING" in without or "8BITMIME" in without:
        extensions |= {"BINARYMIME": False} if "CHUNKING" in without else {"SMTPUTF8": False}
    off = extensions.keys()
    with GuerrillaServer(server={"extensions": extensions}) as far:
        replies = send({"forward_address": far.address}, *_mails())
        received = far.received
    utf8 = NEEDS_UTF8 if "SMTPUTF8" in off else None
    binary = NEEDS_BINARY if "BINARYMIME" in off else None
    refused = [None, utf8, utf8, binary]
    assert [None if reply.is_success else reply for reply in replies] == refused
    expected = [MESSAGE, MESSAGE, UTF8, BINARY]
    taken = [data for data, reply in zip(expected, refused, strict=True) if reply is None]
    assert [bytes(mail.data) for mail in received] == taken
    first = received[0]
    (to,) = first.rcpt_to
    assert (first.mail_from.host.isascii(), to.host.isascii()) == (bool(utf8),) * 2
    assert to == Address("to", "gr\u00fc\u00dfe.example")
    assert first.smtputf8 == (utf8 is None)
    assert ("SIZE" in first.parameters) == ("SIZE" not in off)
    if "DSN" in off:
        assert (first.dsn_return, first.envelope_id, to.notify) == (None, None, None)
    else:
        assert (first.dsn_return, first.envelope_id) == ("FULL", "q+")
        assert to.notify == ("SUCCESS", "DELAY")
        assert to.original_recipient == "utf-8;\u00fc@x.org"


def test_its_words_reach_the_client_as_it_can_hear_them(tmp_path: Path) -> None:
    with GuerrillaServer() as far:
        keys = f'validate_process = "Forward"\nforward_address = {json.dumps(far.address)}'
        far.refuse(Reply(550, "5.1.1", "gr\u00fc\u00dfe"), at="rcpt", count=2)
        with (
            RunningDaemon(tmp_path, chain="HeadersParser|Header|Forward", backend=keys) as daemon,
            Wire(daemon.port) as wire,
        ):
            wire.ask(b"EHLO x\r\n")
            wire.ask(b"MAIL FROM:<a@example.org>\r\n")
            assert wire.ask(b"RCPT TO:<b@example.com>\r\n") == r"550 5.1.1 gr\x{FC}\x{DF}e"
            wire.ask(b"RSET\r\n")
            wire.ask(b"MAIL FROM:<a@example.org> SMTPUTF8\r\n")
            to = "RCPT TO:<\u00fc@example.com>\r\n".encode()
            assert wire.ask(to) == r"550 5.1.1 gr\x{FC}\x{DF}e"
            # RFC 6531 section 3.7.4: only what names a mailbox may be UTF-8.
            far.refuse(Reply(551, "5.1.6", "try <gr\u00fc\u00dfe@example.org>"), at="rcpt")
            assert wire.ask(to) == "551 5.1.6 try <gr\u00fc\u00dfe@example.org>"


@pytest.mark.parametrize("mode", ["none", "required", "implicit"])
def test_it_logs_in(mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = self_signed(tmp_path)
    implicit = mode == "implicit"
    server: dict[str, Any] = {"auth": {"required": True}}
    if mode != "none":
        server["tls"] = pair.section(start_tls_on=not implicit, tls_always_on=implicit)
    with GuerrillaServer(server=server, users={"relay": "s3cret \u00fc"}) as far:
        keys = {"forward_address": far.address, "forward_tls": mode, "forward_username": "relay"}
        keys |= {"forward_ca_file": str(pair.certificate)}
        assert send(keys, forward_password="s3cret \u00fc")[0].code == 250
        wrong = {**keys, "forward_password": "wr0ng"}
        with (
            pytest.raises(ConfigError, match=r"it refused AUTH: 535 5\.7\.8") as told,
            opened(wrong),
        ):
            pass
        # Mail that is refused for want of a login can be sent again.
        keys["forward_username"] = ""
        (reply,) = send(keys)
        assert (reply.code, reply.enhanced) == (451, "4.7.0")
    (mail,) = far.received
    assert mail.auth == "relay"
    secrets = ("s3cret", "wr0ng", "d3IwbmcK", "AHJlbGF5")
    assert not [one for one in secrets if one in caplog.text + str(told.value)]
