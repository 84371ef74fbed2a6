"""SMTPUTF8 and IDNA from the socket to every store: what is not ASCII comes through as it is."""

from __future__ import annotations

import json
import logging
import smtplib
import zlib
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Literal

import pytest

from guerrilla._core import Address, Envelope, Reply, ascii_host, make_check
from guerrilla.commands.common import shown
from guerrilla.config import loads
from guerrilla.errors import ConfigError
from guerrilla.logs.form import make_formatter
from guerrilla.processors.wildcard import Wildcard
from guerrilla.store import Target, drivers
from guerrilla.testing import GuerrillaServer, make_envelope
from tests import maildirs, pipes
from tests.redises import save
from tests.services.redis import RedisServer
from tests.services.sql import Place
from tests.store.mails import TABLE, envelope, rows, stored

PEOPLE = ("用户@例え.jp", "jörg@bücher.example", '"ü ü"@bücher.example', "😀@xn--r8jz45g.jp")
"""As `str(Address)` writes them."""
MAIL = "From: Jörg <jörg@bücher.example>\r\nSubject: Grüße an 用户 😀\r\n\r\nbody\r\n".encode()
FROM = "jörg@bücher.example"


# --- Addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", PEOPLE)
def test_an_address_is_read_and_written_as_it_is(text: str) -> None:
    address = Address.parse(text)
    assert str(address) == text
    assert Address.parse(f"<{text}>") == address
    assert Address.parse(str(Address(address.user, address.host))) == address
    assert address.ascii_host.isascii()


@pytest.mark.parametrize(
    "text", ["\x85@example.com", '"\u2028"@example.com', "a@-ü.example", '"\\ü"@example.com', "ü@"]
)
def test_what_is_no_address_is_none_in_utf_8_either(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid address"):
        Address.parse(text)


def test_both_forms_of_a_host_are_one() -> None:
    forms = ["bücher.example", "BÜCHER.example", "bu\u0308cher.example", "XN--BCHER-KVA.Example"]
    addresses = {Address("a", form) for form in forms}
    assert len(addresses) == 1
    assert {address.ascii_host for address in addresses} == {"xn--bcher-kva.example"}
    assert [Address("a", form).host for form in forms] == forms
    assert Address("ä", "b") != Address("a\u0308", "b"), "a local part is its host's affair"
    assert ascii_host("例え.jp") == "xn--r8jz45g.jp"
    with pytest.raises(ValueError, match='not a host name: "ü ü"'):
        ascii_host("ü ü")


# --- The config ----------------------------------------------------------------------------------


def test_a_config_may_have_either_form_of_a_host() -> None:
    config = loads(
        'allowed_hosts = ["bücher.example", "*.例え.jp", "xn--r8jz45g.jp"]\n'
        '[[servers]]\nlisten_interface = "127.0.0.1:0"\nhost_name = "mx.bücher.example"\n'
        '[backend_config]\nprimary_mail_host = "BÜCHER.example"\n',
        format="toml",
    )
    assert config.allowed_hosts == ("bücher.example", "*.例え.jp", "xn--r8jz45g.jp")
    assert config.servers[0].host_name == "mx.xn--bcher-kva.example"
    assert config.backend_config.primary_mail_host == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('allowed_hosts = ["a.example", "-ü.example"]', "allowed_hosts"),
        ('allowed_hosts = ["ü*.example"]', "allowed_hosts"),
        ('[[servers]]\nlisten_interface = ":0"\nhost_name = "ü ü.example"', "host_name"),
        ('[backend_config]\nprimary_mail_host = "ü..example"', "primary_mail_host"),
    ],
)
def test_a_wrong_name_is_named(text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        loads(text, format="toml")


# --- Over the wire -------------------------------------------------------------------------------


def _send(server: GuerrillaServer, *recipients: str, data: bytes = MAIL) -> None:
    with smtplib.SMTP(server.host, server.port) as client:
        client.ehlo("client.example")
        client.sendmail(FROM, recipients, data, ["SMTPUTF8", "RET=HDRS", "ENVID=QQ+2B1"])


def test_smtplib_sends_what_is_not_ascii() -> None:
    with GuerrillaServer(allowed_hosts=["bücher.example", "xn--r8jz45g.jp"]) as server:
        _send(server, *PEOPLE)
        (mail,) = server.received
    assert mail.smtputf8
    assert str(mail.mail_from) == FROM
    assert tuple(map(str, mail.rcpt_to)) == PEOPLE
    assert mail.subject == "Grüße an 用户 😀"
    assert mail.header["From"] == "Jörg <jörg@bücher.example>"
    assert bytes(mail.data) == MAIL


def test_smtplib_may_say_it_twice() -> None:
    """Once for its caller, and once since an address is not ASCII."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = FROM, PEOPLE[0], "Grüße"
    message.set_content("ü", cte="8bit")
    with GuerrillaServer() as server, smtplib.SMTP(server.host, server.port) as client:
        client.ehlo("client.example")
        said = ["SMTPUTF8", "BODY=8BITMIME"]
        assert client.send_message(message, FROM, [PEOPLE[0]], said) == {}
        (mail,) = server.received
    assert mail.parameters.keys() >= {"SMTPUTF8", "BODY"}
    assert mail.subject == "Grüße"


def test_headers_in_utf_8_need_no_smtputf8() -> None:
    """No mail is refused for its header section (RFC 5321 section 3.3)."""
    with GuerrillaServer() as server, smtplib.SMTP(server.host, server.port) as client:
        client.sendmail("a@example.org", ["b@example.com"], MAIL)
        (mail,) = server.received
    assert not mail.smtputf8
    assert mail.subject == "Grüße an 用户 😀"


def test_what_was_asked_of_notifications_is_kept() -> None:
    with GuerrillaServer() as server, smtplib.SMTP(server.host, server.port) as client:
        client.ehlo("client.example")
        client.mail(FROM, ["SMTPUTF8", "ret=hdrs", "ENVID=QQ+2B1"])
        client.rcpt("a@example.com", ["NOTIFY=delay,SUCCESS", "ORCPT=utf-8;j\\x{F6}rg@ü.example"])
        client.rcpt("b@example.com", ["ORCPT=RFC822;Bob+2Bx@example.com", "NOTIFY=never"])
        client.rcpt("c@example.com")
        client.data(MAIL)
        (mail,) = server.received
    for one in (mail, Envelope.from_bytes(mail.to_bytes())):
        assert (one.dsn_return, one.envelope_id, one.smtputf8) == ("HDRS", "QQ+1", True)
        asked = [(to.notify, to.original_recipient) for to in one.rcpt_to]
        assert asked == [
            (("DELAY", "SUCCESS"), "utf-8;jörg@ü.example"),
            (("NEVER",), "rfc822;Bob+x@example.com"),
            (None, None),
        ]
    plain = make_envelope()
    assert (plain.dsn_return, plain.envelope_id, plain.smtputf8) == (None, None, False)


# --- Trace fields and replies --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "auth", "utf8", "named"),
    [
        ("ESMTP", None, False, "ESMTP"),
        ("ESMTP", "me", False, "ESMTPA"),
        ("ESMTP", None, True, "UTF8SMTP"),
        ("ESMTP", "me", True, "UTF8SMTPA"),
        ("LMTP", None, True, "UTF8LMTP"),
        ("SMTP", None, False, "SMTP"),
    ],
)
def test_received_names_the_protocol(
    protocol: Literal["SMTP", "ESMTP", "LMTP"], auth: str | None, utf8: bool, named: str
) -> None:
    parameters: dict[str, str | None] = {"SMTPUTF8": None} if utf8 else {}
    one = Envelope.create(
        MAIL, mail_from=FROM, rcpt_to=PEOPLE, protocol=protocol, auth=auth, parameters=parameters
    )
    one.make_delivery_header("bücher.example")
    assert one.with_protocol == named
    assert f" with {named} id ".encode() in one.delivery_header
    assert one.delivery_header.isascii()
    header = one.delivery_header_for(0).decode()
    assert header.startswith("Delivered-To: 用户@bücher.example\r\n")


def test_a_reply_may_be_of_any_script() -> None:
    assert Reply.reject("5.1.1", "没有 用户 😀").text == "没有 用户 😀"
    for wrong in ("a\x85b", "a\u2028b", "a\nb", "ü\x7f"):
        with pytest.raises(ValueError, match="printable"):
            Reply.reject("5.1.1", wrong)


# --- What a log and a terminal are given ---------------------------------------------------------


def test_nobody_turns_the_text_of_a_log() -> None:
    record = logging.makeLogRecord({"name": "g", "msg": "用户 \u202eevil\u2066 \u200f ü"})
    line = make_formatter("text").format(record)
    assert line.endswith("用户 \\u202eevil\\u2066 \\u200f ü")
    entry = make_formatter("json").format(record)
    assert entry.isascii()
    assert json.loads(entry)["message"] == "用户 \u202eevil\u2066 \u200f ü"
    assert shown("用户 \u202e") == "用户 \\u202e"


# --- Stores --------------------------------------------------------------------------------------


def _mail(**more: Any) -> Envelope:
    return envelope(MAIL, *PEOPLE, mail_from=FROM, **more)


def test_sqlite_keeps_it(tmp_path: Path) -> None:
    store = drivers.connect("sqlite", str(tmp_path / "mail.db"), Target(TABLE))
    store.insert(rows(_mail()))
    store.close()
    _check_rows(stored(tmp_path / "mail.db"))


def test_servers_keep_it(place: Place) -> None:
    store = drivers.connect(place.driver, place.dsn(), Target(TABLE))
    store.insert(rows(_mail()))
    store.close()
    _check_rows(place.rows())


def _check_rows(found: list[dict[str, Any]]) -> None:
    assert [row["recipient"] for row in found] == list(PEOPLE)
    assert {row["return_path"] for row in found} == {FROM}
    assert {row["subject"] for row in found} == {"Grüße an 用户 😀"}


def test_redis_keeps_it(empty_redis: RedisServer) -> None:
    one = _mail()
    (reply,) = save(empty_redis, one, chain="HeadersParser|Hasher|Header|Compressor|Redis")
    assert reply.code == 250
    found = empty_redis.values()
    for index, digest in enumerate(one.hashes):
        assert zlib.decompress(found[digest.encode()]) == one.bytes_for(index)
    assert "Delivered-To: 用户@".encode() in one.bytes_for(0)


def test_a_maildir_may_be_a_users_of_any_script(tmp_path: Path) -> None:
    one = maildirs.stage(tmp_path, "jörg=-1:-1,用户=-1:-1")
    one.open()
    mail = maildirs.envelope("Jörg@bücher.example", "用户@例え.jp", data=MAIL)
    assert one.save_batch([mail]) == [None]
    for index, user in enumerate(("jörg", "用户")):
        assert maildirs.contents(tmp_path / user) == [mail.bytes_for(index)]
    unknown = one.validate(make_check("a@b").transaction, Address("ü", "bücher.example"))
    assert unknown is not None
    assert unknown.code == 550


def test_a_user_of_a_maildir_is_one_in_either_normal_form(tmp_path: Path) -> None:
    """RFC 6532 section 3.1 asks for NFC, and not every keyboard does."""
    one = maildirs.stage(tmp_path, "jo\u0308rg=-1:-1")
    one.open()
    mail = maildirs.envelope("jörg@bücher.example", "JO\u0308RG@example.com", data=MAIL)
    assert one.save_batch([mail]) == [None]
    assert len(maildirs.contents(tmp_path / "jörg")) == 2


def test_redis_and_a_table_keep_it(tmp_path: Path, empty_redis: RedisServer) -> None:
    one = _mail()
    (reply,) = save(
        empty_redis, one, chain="GuerrillaRedisDB", sql_dsn=str(tmp_path / "db"), mail_table=TABLE
    )
    assert reply.code == 250
    _check_rows(stored(tmp_path / "db"))
    found = empty_redis.values()
    for index, digest in enumerate(one.hashes):
        assert zlib.decompress(found[digest.encode()]) == one.bytes_for(index)


@pytest.mark.parametrize("pattern", ["*.bücher.example", "*.XN--BCHER-kva.example"])
def test_wildcard_takes_either_form(pattern: str) -> None:
    stage = Wildcard(Wildcard.Options.model_validate({"wildcard_hosts": [pattern]}))
    check = make_check("a@b").transaction
    for host in ("mx.bücher.example", "MX.BÜCHER.example", "mx.xn--bcher-kva.example"):
        assert stage.validate(check, Address("用户", host)) is None
    refused = stage.validate(check, Address("用户", "mx.büch.example"))
    assert refused is not None
    assert refused.code == 550


def test_a_program_gets_it_in_its_arguments(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = 'printf "%s\\n" "$2" "$3" "$4" > "$1"; cat > /dev/null'
    command = ["/bin/sh", "-c", script.replace("$", "$$"), "sh", str(out)]
    stage = pipes.pipe(*command, "${recipient}", "${user}", "${sender}")
    mail = pipes.envelope("用户@例え.jp", data=MAIL, mail_from=FROM)
    assert pipes.answers(stage, mail) == ["saved"]
    assert out.read_text(encoding="utf-8").splitlines() == ["用户@例え.jp", "用户", FROM]
