"""The Wildcard stage: which hosts it takes, and which patterns it does not."""

from __future__ import annotations

import time

import pytest

from guerrilla._core import Address, make_check
from guerrilla.engine.chain import build, read_options
from guerrilla.engine.registry import Registry
from guerrilla.errors import ConfigError
from guerrilla.processors import TABLE
from guerrilla.processors.wildcard import Wildcard
from tests.daemons import Make, config, connect

TRANSACTION = make_check("a@example.com").transaction


def takes(hosts: object, host: str) -> bool:
    stage = Wildcard(Wildcard.Options.model_validate({"wildcard_hosts": hosts}))
    reply = stage.validate(TRANSACTION, Address("user", host))
    assert reply is None or (reply.code, reply.enhanced) == (550, "5.1.2")
    return reply is None


@pytest.mark.parametrize(
    ("hosts", "taken", "refused"),
    [
        ("example.com", ["example.com", "EXAMPLE.com"], ["a.example.com", "example.co"]),
        ("*.example.com", ["a.example.com", "a.B.example.com"], ["example.com", "a.example.org"]),
        ("*", ["example.com", "localhost", "[127.0.0.1]"], []),
        ("mx?.example.com", ["mx1.example.com"], ["mx.example.com", "mx10.example.com"]),
        ("mx[0-3a].example.com", ["mx3.example.com", "mxA.example.com"], ["mx4.example.com"]),
        ("mx[!0-3].example.com", ["mx4.example.com"], ["mx3.example.com", "mx.example.com"]),
        ("mx[^x].example.com", ["mx^.example.com", "mx1.example.com"], ["mxx.example.com"]),
        ("mx[-x].example.com", ["mx-.example.com", "mxx.example.com"], ["mxy.example.com"]),
        (" A.example , B.example ,", ["a.example", "b.EXAMPLE"], [" a.example", "c.example"]),
        (["*.A.example", " b.example "], ["x.a.example", "b.example"], ["a.example"]),
        ("a*b*c.example", ["abc.example", "axxbxbxxc.example"], ["acb.example", "abc.exampl"]),
        ("*a*", ["a", "xax"], ["b"]),
        ("[127.0.0.1]", ["[127.0.0.1]"], ["1", "[127.0.0.2]", "127.0.0.1"]),
        ("[IPv6:2001:db8::1], a.example", ["[IPv6:2001:DB8::1]", "a.example"], ["[IPv6:::1]"]),
        ("a.example", ["a.example"], ["axexample"]),
        ("bücher.example", ["BÜCHER.example", "xn--bcher-kva.EXAMPLE"], ["bucher.example"]),
        ("*.xn--r8jz45g.jp", ["mx.例え.jp"], ["例え.jp"]),
        ("*.例え.jp", ["ä.例え.jp", "mx.xn--r8jz45g.jp"], ["例え.jp"]),
    ],
)  # fmt: skip
def test_hosts(hosts: object, taken: list[str], refused: list[str]) -> None:
    assert [host for host in taken if not takes(hosts, host)] == []
    assert [host for host in refused if takes(hosts, host)] == []


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ("", "expected at least one host, as every recipient would be refused, got ''"),
        (" , ", "expected at least one host"),
        ([], "expected at least one host"),
        (None, "expected a list of hosts, or a text with commas between them, got null"),
        (7, "got 7"),
        ([7], "expected a host name or a pattern such as '*.example.com', got 7"),
        ([""], "expected a host name or a pattern such as '*.example.com', got ''"),
        (["a.example, b.example"], "got 'a.example, b.example'"),
        ("a b.example", "got 'a b.example'"),
        ("b\u00fc*.example", "expected a host name or a pattern"),
        ("mx[0-9.example.com", "expected a set of characters such as [a-z], closed and not empty"),
        ("mx[].example.com", "closed and not empty, got 'mx[].example.com'"),
        ("mx[!].example.com", "closed and not empty"),
        ("mx[9-0].example.com", "expected a range of characters that runs forwards"),
    ],
)
def test_what_is_no_pattern_stops_the_start(hosts: object, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options("Wildcard", Wildcard, {"wildcard_hosts": hosts})
    (line,) = caught.value.problems
    assert line.startswith("backend_config.wildcard_hosts: expected ")
    assert told in line


def test_without_the_key_it_does_not_start() -> None:
    with pytest.raises(ConfigError, match=r"wildcard_hosts: expected at least one host"):
        build("Wildcard", "validate", {}, Registry())


def test_a_pattern_of_stars_takes_no_time() -> None:
    """What backtracks would need ages for this."""
    began = time.thread_time()
    assert not takes("*a" * 60 + "b", "a" * 255)
    assert time.thread_time() - began < 1


def test_it_has_two_names() -> None:
    assert TABLE.target("WildCardProcessor") == TABLE.target("wildcard") is not None


def test_a_client_is_told_which_host(make: Make) -> None:
    raw = config(
        validate_process="WildcardProcessor", wildcard_hosts="*.Example.com, mx.example.net"
    )
    daemon = make(raw, allowed_hosts=["."])
    daemon.start()
    client = connect(daemon)
    client.ask(b"EHLO client.example.org\r\n")
    client.ask(b"MAIL FROM:<a@example.org>\r\n")
    assert client.ask(b"RCPT TO:<b@MX.example.COM>\r\n") == "250 2.1.5 OK"
    assert client.ask(b"RCPT TO:<b@Mx.example.net>\r\n") == "250 2.1.5 OK"
    refused = client.ask(b"RCPT TO:<b@Example.com>\r\n")
    assert refused == "550 5.1.2 Host Example.com is not served here"
    client.close()
