"""XCLIENT: the next server is told of each client, as its own client would be."""

from __future__ import annotations

from typing import Any

import pytest

from guerrilla._core import Address, Reply, TLSInfo, make_check
from guerrilla.engine.chain import read_options
from guerrilla.errors import ConfigError, StartError, Unavailable
from guerrilla.forward.client import Client, client_of
from guerrilla.forward.opening import Session, introduce
from guerrilla.forward.steps import RefusedError
from guerrilla.processors.forward import Forward
from guerrilla.testing import GuerrillaServer, make_envelope
from tests.forward.helpers import PIPELINED, FarSide, opened, talk

OFFER = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"


def client(**keys: Any) -> Client:
    return client_of(make_envelope(**keys))


def test_what_is_said_of_a_client() -> None:
    one = client(remote_ip="192.0.2.7", remote_port=4711, helo="a+b=c d", auth="us\u00e9r")
    assert one.attributes(OFFER.split()) == (
        "NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP HELO=a+2Bb+3Dc+20d "
        "LOGIN=us+C3+A9r DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]"
    )
    other = client(remote_ip="2001:db8::1", protocol="SMTP", helo="mx")
    assert other.attributes(["ADDR", "PROTO", "LOGIN", "ODD"]) == (
        "ADDR=IPV6:2001:db8::1 PROTO=SMTP LOGIN=[UNAVAILABLE]"
    )


@pytest.mark.parametrize(
    ("helo", "said"), [("mx", "mx"), ("", "me"), ("a b", "me"), ("\u00fc", "me")]
)
def test_who_it_greets_as(helo: str, said: str) -> None:
    assert Client({}, helo).greets_as("me") == said


def test_the_session_begins_again() -> None:
    said, far = talk(introduce(Session("me"), "ADDR=x", "you"), "220 mx\n", "250-mx\n250 DSN\n")
    assert said == [b"XCLIENT ADDR=x\r\n", b"EHLO you\r\n"]
    assert "DSN" in far
    # As smtp-sink has it, and old versions of Postfix.
    talk(introduce(Session("me"), "ADDR=x", "you"), "250 ok\n", "250 mx\n")
    with pytest.raises(RefusedError, match="its reply to XCLIENT is 550 no"):
        talk(introduce(Session("me"), "ADDR=x", "you"), "550 no\n")


def test_a_second_guerrilla_sees_each_client() -> None:
    server = {"xclient_on": True, "trusted_proxies": ["127.0.0.1"]}
    with GuerrillaServer(server=server) as far:
        keys = {"forward_address": far.address, "forward_xclient": True}
        clients = [("192.0.2.7", "one"), ("192.0.2.7", "one"), ("2001:db8::9", "two"), ("", "")]
        with opened(keys) as stage:
            for address, helo in clients:
                assert stage.save(make_envelope(remote_ip=address, helo=helo)) is None
            check = make_check("to@example.com", remote_ip="192.0.2.9", helo="three")
            assert stage.validate(check.transaction, Address("to", "example.com")) is None
        received = far.received
    assert [mail.remote_ip for mail in received] == ["192.0.2.7", "192.0.2.7", "2001:db8::9", ""]
    assert [mail.helo for mail in received][:3] == ["one", "one", "two"]
    # It hears XCLIENT once in a session.
    assert len({mail.client_id for mail in received}) == 3


def test_it_is_said_where_the_client_is_another_one() -> None:
    with FarSide(OFFER, *PIPELINED) as far:
        far.will_say("XCLIENT", *["220 mx"] * 3)
        with opened(far.options, forward_xclient=True) as stage:
            for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1"):
                assert stage.save(make_envelope(remote_ip=address)) is None
    told = [line.split()[2] for line in far.said if line.startswith("XCLIENT")]
    assert told == ["ADDR=192.0.2.1", "ADDR=192.0.2.2", "ADDR=192.0.2.1"]
    assert (far.connections, len(far.messages)) == (1, 4)


def test_who_will_not_hear_of_it_gets_no_mail() -> None:
    with FarSide(*PIPELINED) as far:
        with (
            pytest.raises(StartError, match="it does not offer us XCLIENT"),
            opened(far.options, forward_xclient=True),
        ):
            pass
        far.offers.append(OFFER)
        with opened(far.options, forward_xclient=True) as stage:
            far.will_say("XCLIENT", "550 5.7.0 not from you")
            with pytest.raises(Unavailable, match=r"its reply to XCLIENT is 550 5\.7\.0"):
                stage.save(make_envelope())
            far.will_say("XCLIENT", "421 4.3.2 bye")
            with pytest.raises(Unavailable):
                stage.save(make_envelope())
    assert far.messages == []


def test_a_kept_connection_that_ends_then_is_made_again() -> None:
    with FarSide(OFFER, *PIPELINED) as far:
        far.will_say("XCLIENT", "220 mx", "421 4.3.2 bye", "220 mx")
        with opened(far.options, forward_xclient=True) as stage:
            for address in ("192.0.2.1", "192.0.2.2"):
                assert stage.save(make_envelope(remote_ip=address)) is None
    assert (far.connections, len(far.messages)) == (2, 2)


def test_a_refusal_of_a_client_is_its_own() -> None:
    with FarSide(OFFER, *PIPELINED) as far:
        far.will_say("XCLIENT", "220 mx", "220 mx")
        far.will_say("MAIL", "554 5.7.1 that client not")
        with opened(far.options, forward_xclient=True) as stage:
            tls = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256")
            refused = stage.save(make_envelope(remote_ip="192.0.2.1", tls=tls))
            assert refused == Reply(554, "5.7.1", "that client not")
            assert stage.save(make_envelope(remote_ip="192.0.2.2")) is None


def test_it_goes_with_no_login() -> None:
    keys = {"forward_address": "127.0.0.1:25", "forward_username": "me", "forward_xclient": True}
    with pytest.raises(ConfigError, match="forward_xclient: expected false with forward_username"):
        read_options("Forward", Forward, keys)
