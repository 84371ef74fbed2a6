"""MAIL and RCPT, by what our client said and what the far side can do."""

from __future__ import annotations

import pytest

from guerrilla._core import Reply
from guerrilla.forward.commands import (
    NEEDS_BINARY,
    NEEDS_UTF8,
    TOO_LARGE,
    Path,
    Wishes,
    mail_command,
    rcpt_command,
)
from tests.forward.helpers import extensions, path

SENDER = "from@example.org"
FULL = Wishes(size=100, has_8bit=True)


def mail(sender: Path, wishes: Wishes, *offers: str) -> bytes | Reply:
    return mail_command(sender, wishes, extensions(*offers))


@pytest.mark.parametrize(
    ("given", "offers", "said"),
    [
        ({}, (), ""),
        ({}, ("SIZE",), " SIZE=100"),
        ({}, ("SIZE 100",), " SIZE=100"),
        ({}, ("SIZE 0",), " SIZE=100"),
        ({"SIZE": "99"}, ("SIZE nonsense",), " SIZE=100"),
        ({}, ("8BITMIME",), " BODY=8BITMIME"),
        ({"BODY": "7BIT"}, ("8BITMIME",), " BODY=8BITMIME"),
        ({"BODY": "8bitmime"}, ("8bitmime",), " BODY=8BITMIME"),
        # As it is, as others do: hardly any server minds.
        ({"BODY": "8BITMIME"}, (), ""),
        ({"BODY": "BINARYMIME"}, ("BINARYMIME", "CHUNKING", "8BITMIME"), " BODY=BINARYMIME"),
        ({"RET": "HDRS", "ENVID": "a+2Bb"}, ("DSN",), " RET=HDRS ENVID=a+2Bb"),
        ({"RET": "HDRS", "ENVID": "a"}, (), ""),
        ({"ENVID": "a b\r\nRSET", "RET": None}, ("DSN",), ""),
        ({"AUTH": "x"}, ("AUTH", "SMTPUTF8"), ""),
        # The header of a part may be in UTF-8: nobody has looked.
        ({"SMTPUTF8": None}, ("SMTPUTF8",), " SMTPUTF8"),
        ({"SMTPUTF8": None}, (), ""),
    ],
)
def test_mail(given: dict[str, str | None], offers: tuple[str, ...], said: str) -> None:
    expected = f"MAIL FROM:<{SENDER}>{said}\r\n".encode()
    assert mail(path(SENDER, **given), FULL, *offers) == expected


def test_who_has_logged_in_vouches_for_nobody() -> None:
    """RFC 4954 section 5, whatever our client said."""
    far = extensions("AUTH PLAIN")
    far.logged_in = True
    found = mail_command(path(SENDER, AUTH="joe@example.org"), Wishes(), far)
    assert found == b"MAIL FROM:<from@example.org> AUTH=<>\r\n"


def test_what_is_not_known_is_not_said() -> None:
    found = mail(path(SENDER), Wishes(), "SIZE", "8BITMIME", "SMTPUTF8")
    assert found == b"MAIL FROM:<from@example.org>\r\n"
    assert mail(path(""), Wishes()) == b"MAIL FROM:<>\r\n"
    given = mail(path("", SMTPUTF8=None), Wishes(), "SMTPUTF8")
    assert given == b"MAIL FROM:<>\r\n"


@pytest.mark.parametrize(
    ("given", "wishes", "offers", "reply"),
    [
        ({"BODY": "BINARYMIME"}, FULL, (), NEEDS_BINARY),
        ({"BODY": "BINARYMIME"}, FULL, ("CHUNKING", "8BITMIME"), NEEDS_BINARY),
        ({"BODY": "BINARYMIME"}, FULL, ("BINARYMIME",), NEEDS_BINARY),
        ({}, FULL, ("SIZE 99",), TOO_LARGE),
        ({}, Wishes(needs_utf8=True), ("8BITMIME",), NEEDS_UTF8),
    ],
)
def test_what_the_far_side_cannot_have_is_refused_for_good(
    given: dict[str, str | None], wishes: Wishes, offers: tuple[str, ...], reply: Reply
) -> None:
    assert mail(path(SENDER, **given), wishes, *offers) is reply
    assert reply.code in {550, 552, 554}


def test_smtputf8_is_asked_for_where_it_is_needed() -> None:
    wishes = Wishes(needs_utf8=True)
    found = mail(path("gr\u00fc\u00dfe@example.org"), wishes, "SMTPUTF8", "8BITMIME")
    assert found == "MAIL FROM:<gr\u00fc\u00dfe@example.org> SMTPUTF8\r\n".encode()


@pytest.mark.parametrize(
    ("given", "offers", "said"),
    [
        ({}, ("DSN",), ""),
        ({"NOTIFY": "NEVER"}, (), ""),
        ({"NOTIFY": "SUCCESS,DELAY"}, ("DSN",), " NOTIFY=SUCCESS,DELAY"),
        ({"ORCPT": "rfc822;a+2Bb@c"}, ("DSN",), " ORCPT=rfc822;a+2Bb@c"),
        ({"ORCPT": "utf-8;\u00fc\U0001f600+2B@c"}, ("DSN",), r" ORCPT=utf-8;\x{FC}\x{1F600}+2B@c"),
        ({"ORCPT": "utf-8;a\u2028 b"}, ("DSN",), ""),
        ({"ORCPT": "utf-8;\u00fc@\u4f8b"}, ("DSN",), r" ORCPT=utf-8;\x{FC}@\x{4F8B}"),
        ({"ORCPT": "utf-8;\u00fc@\u4f8b"}, ("DSN", "SMTPUTF8"), r" ORCPT=utf-8;\x{FC}@\x{4F8B}"),
        ({"ORCPT": "utf-8;" + "\u00fc" * 82}, ("DSN",), " ORCPT=utf-8;" + r"\x{FC}" * 82),
        ({"ORCPT": "utf-8;" + "\u00fc" * 83}, ("DSN",), ""),
        ({"ORCPT": "rfc822;\u00fc@c"}, ("DSN",), ""),
        ({"X": "y", "NOTIFY": ""}, ("DSN",), ""),
    ],
)
def test_rcpt(given: dict[str, str | None], offers: tuple[str, ...], said: str) -> None:
    found = rcpt_command(path("to@example.com", **given), FULL, extensions(*offers))
    assert found == f"RCPT TO:<to@example.com>{said}\r\n".encode()


def test_a_recipient_in_utf8() -> None:
    to = path("gr\u00fc\u00dfe@example.com", ORCPT="utf-8;\u00fc@c")
    assert rcpt_command(to, FULL, extensions()) is NEEDS_UTF8
    found = rcpt_command(to, Wishes(needs_utf8=True), extensions("SMTPUTF8", "DSN"))
    assert found == "RCPT TO:<gr\u00fc\u00dfe@example.com> ORCPT=utf-8;\u00fc@c\r\n".encode()


def test_no_address_ends_a_command() -> None:
    evil = path('"a\r\nDATA\r\n"@example.com')
    with pytest.raises(ValueError, match="no control character"):
        rcpt_command(evil, FULL, extensions())
    with pytest.raises(ValueError, match="no control character"):
        mail_command(evil, FULL, extensions())


def test_a_joiner_is_no_control_character() -> None:
    """As in addresses of scripts that need one."""
    to = path("\u0915\u094d\u200d\u0937@example.com")
    found = rcpt_command(to, Wishes(needs_utf8=True), extensions("SMTPUTF8"))
    assert found == f"RCPT TO:<{to.mailbox}>\r\n".encode()


def test_keywords_are_found_in_any_case_and_form() -> None:
    far = extensions("Size 1000", "auth=PLAIN LOGIN", "AUTH CRAM-MD5", "x-odd", "", "pipelining ")
    assert far.size_limit == 1_000
    assert far.parameters("AUTH") == ["PLAIN", "LOGIN", "CRAM-MD5"]
    assert "PIPELINING" in far
    assert "MX.EXAMPLE.COM" not in far


def test_limits_are_numbers() -> None:
    far = extensions("limits rcptmax=100 MAILMAX=x ODD")
    names = ("RCPTMAX", "MAILMAX", "ODD", "RCPTDOMAINMAX")
    assert [far.limit(name) for name in names] == [100, 0, 0, 0]
    assert extensions().limit("RCPTMAX") == 0
