"""What is said before the first mail, and what ends it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from guerrilla.forward.extensions import Extensions
from guerrilla.forward.opening import Session, opening
from guerrilla.forward.steps import LostError, RefusedError, Say
from tests.forward.helpers import talk

PLAIN = Session("me.example.com")
LOGGED = Session("me.example.com", username="us\u00e9r", password="s\u00e9cret")
HELLO = b"EHLO me.example.com\r\n"
GREETING = "220 mx ready\n"
SECRET = base64.b64encode("\0us\u00e9r\0s\u00e9cret".encode())


def hold(
    *answers: str, session: Session = PLAIN, starttls: bool = True, required: bool = False
) -> tuple[list[bytes], Extensions]:
    return talk(opening(session, starttls=starttls, required=required), *answers)


def test_a_plain_session() -> None:
    said, far = hold(GREETING, "250-mx\n250-SIZE 10\n250 PIPELINING\n")
    assert said == [b"", HELLO]
    assert far.size_limit == 10
    assert "PIPELINING" in far


def test_lmtp_says_lhlo() -> None:
    said, _ = hold(GREETING, "250 mx\n", session=Session("me", lmtp=True))
    assert said == [b"", b"LHLO me\r\n"]


def test_helo_where_ehlo_is_unknown() -> None:
    said, far = hold(GREETING, "502 what?\n", "250 mx\n")
    assert said == [b"", HELLO, b"HELO me.example.com\r\n"]
    assert "PIPELINING" not in far


def test_keywords_that_are_not_to_be_seen() -> None:
    session = Session("me", ignored=["chunking"])
    _, far = hold(GREETING, "250-mx\n250-CHUNKING\n250 DSN\n", session=session)
    assert ("CHUNKING" in far, "DSN" in far) == (False, True)


def test_starttls_forgets_what_was_said_before() -> None:
    said, far = hold(GREETING, "250-mx\n250-DSN\n250 STARTTLS\n", "220 go\n", "250-mx\n250 SIZE\n")
    assert said == [b"", HELLO, b"STARTTLS\r\n", b"TLS", HELLO]
    assert ("DSN" in far, "SIZE" in far) == (False, True)


@pytest.mark.parametrize("offer", ["250 mx\n", "250-mx\n250 STARTTLS\n"])
def test_tls_that_is_not_to_be_had_is_no_need_or_the_end(offer: str) -> None:
    refusal = ["454 4.7.0 not now\n"] if "STARTTLS" in offer else []
    hold(GREETING, offer, *refusal)
    with pytest.raises(RefusedError, match="STARTTLS"):
        hold(GREETING, offer, *refusal, required=True)


def test_none_is_begun_where_it_is_not_wanted() -> None:
    said, _ = hold(GREETING, "250-mx\n250 STARTTLS\n", starttls=False)
    assert said == [b"", HELLO]


@pytest.mark.parametrize(
    ("offer", "answers", "last"),
    [
        ("AUTH LOGIN PLAIN", ["235 ok\n"], [b"AUTH PLAIN %s\r\n" % SECRET]),
        (
            "AUTH=LOGIN",
            ["334 who\n", "334 prove it\n", "235 ok\n"],
            [
                b"AUTH LOGIN\r\n",
                base64.b64encode("us\u00e9r".encode()) + b"\r\n",
                base64.b64encode("s\u00e9cret".encode()) + b"\r\n",
            ],
        ),
    ],
)
def test_it_logs_in(offer: str, answers: list[str], last: list[bytes]) -> None:
    said, _ = hold(GREETING, f"250-mx\n250 {offer}\n", *answers, session=LOGGED)
    assert said == [b"", HELLO, *last]


@pytest.mark.parametrize(
    ("offer", "answers", "told"),
    [
        ("AUTH CRAM-MD5", [], "neither AUTH PLAIN nor AUTH LOGIN"),
        ("DSN", [], "neither AUTH PLAIN nor AUTH LOGIN"),
        ("AUTH PLAIN", ["535 5.7.8 no\n"], r"refused AUTH: 535 5\.7\.8 no"),
        ("AUTH PLAIN", ["334 \n"], "refused AUTH: 334"),
        ("AUTH LOGIN", ["334 \n", "535 no\n"], "refused AUTH: 535 no"),
        ("AUTH LOGIN", ["504 no\n"], "refused AUTH: 504 no"),
    ],
)
def test_a_login_that_fails_shows_no_secret(offer: str, answers: list[str], told: str) -> None:
    with pytest.raises(RefusedError, match=told) as caught:
        hold(GREETING, f"250-mx\n250 {offer}\n", *answers, session=LOGGED)
    assert "cret" not in repr(caught.value)
    assert "cret" not in repr(LOGGED)
    assert SECRET.decode() not in repr(Say((SECRET,), 1))


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (["554 go away\n"], RefusedError),
        ([GREETING, "550 who are you\n"], RefusedError),
        ([GREETING, "502 what?\n", "550 no\n"], RefusedError),
        ([""], LostError),
        ([GREETING, ""], LostError),
    ],
)
def test_who_will_not_have_us(answers: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        hold(*answers)


def test_lmtp_knows_no_helo() -> None:
    session: Any = Session("me", lmtp=True)
    with pytest.raises(RefusedError):
        hold(GREETING, "500 what?\n", session=session)
