"""`Credentials` and `Login` by themselves, from no socket."""

from __future__ import annotations

import pytest

from guerrilla._core import Credentials, Login, Reply, make_login


def login(**more: str) -> Login:
    return make_login(Credentials("joe", "tanstaaf"), **more)


def test_credentials_are_as_they_were_sent_and_show_no_password() -> None:
    plain = Credentials("joe", "tanst\u00e4\x7f", authorization_identity="jane")
    assert plain.mechanism == "PLAIN"
    assert (plain.username, plain.authorization_identity) == ("joe", "jane")
    assert plain.password == "tanst\u00e4\x7f"
    for text in (repr(plain), str(plain), f"{plain}", repr(make_login(plain))):
        assert "tanst" not in text
    assert repr(plain) == (
        'Credentials("joe", ..., mechanism="PLAIN", authorization_identity="jane")'
    )
    assert Credentials("joe", "x", mechanism="LOGIN").mechanism == "LOGIN"
    with pytest.raises(ValueError, match="no mechanism: CRAM-MD5"):
        Credentials("joe", "x", mechanism="CRAM-MD5")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        plain.password = "y"  # type: ignore[misc]


def test_credentials_cannot_be_compared() -> None:
    assert Credentials("joe", "x") != Credentials("joe", "x")


def test_a_login_knows_its_client_and_has_no_mail() -> None:
    asked = login(remote_ip="192.0.2.1", helo="client.example")
    assert asked.transaction.remote_ip == "192.0.2.1"
    assert asked.transaction.helo == "client.example"
    assert asked.transaction.mail_from.is_null
    assert asked.transaction.rcpt_to == ()
    assert asked.transaction.auth is None
    assert asked.credentials.username == "joe"


def test_a_login_is_answered_once() -> None:
    asked = login()
    assert (asked.answered, asked.expired) == (None, False)
    assert asked.answer()
    assert asked.answered == Reply(235, "2.7.0", "Authentication successful")
    assert asked.expired
    refusal = Reply(535, "5.7.8", "Authentication credentials invalid")
    assert not asked.answer(refusal)
    refused = login()
    assert refused.answer(refusal)
    assert refused.answered == refusal
    with pytest.raises(TypeError):
        login().answer("no")  # type: ignore[arg-type]
