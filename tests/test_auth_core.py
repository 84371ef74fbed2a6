"""AUTH over sockets: credentials on their way to who checks them, and what failures cost."""

from __future__ import annotations

import base64
import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla._core import Core, Login, Reply
from tests.cores import AUTH, core
from tests.wire import HELLO, Wire, until

OFFERED: Final = AUTH | {"offered": True, "allow_plaintext": True}
SECRET: Final = "tanst\u00e4\u00e4f"
GOOD: Final = Reply(235, "2.7.0", "Authentication successful")
BAD: Final = Reply(535, "5.7.8", "Authentication credentials invalid")


def plain(password: str = SECRET, name: str = "joe", identity: str = "") -> bytes:
    return base64.b64encode(f"{identity}\0{name}\0{password}".encode())


def login(password: str = SECRET, **more: str) -> bytes:
    return b"AUTH PLAIN %s\r\n" % plain(password, **more)


class Keeper:
    """Answers logins in a thread of its own: who knows the secret is let in."""

    def __init__(self, made: Core) -> None:
        self.seen: list[Login] = []
        self._backend = made.backend("default")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (logins := self._backend.receive_logins(8, 20)) is not None:
            for one in logins:
                self.seen.append(one)
                one.answer(None if one.credentials.password == SECRET else BAD)

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def keeping(
    *, server: dict[str, Any] | None = None, **auth: Any
) -> Iterator[tuple[str, Keeper, Core]]:
    with core(server={**(server or {}), "auth": OFFERED | auth}) as (made, address):
        keeper = Keeper(made)
        yield address, keeper, made
    keeper.join()


def greeted(address: str) -> Wire:
    wire = Wire(address)
    assert wire.ask(HELLO).startswith("250 ")
    return wire


def test_who_checks_sees_the_client_and_what_it_shows() -> None:
    with keeping() as (address, keeper, made), greeted(address) as wire:
        assert wire.ask(login("wrong")) == str(BAD)
        assert wire.ask(login(identity="jane")) == str(GOOD)
        first, second = keeper.seen
        assert first.transaction.remote_ip == "127.0.0.1"
        assert first.transaction.helo == "client.example.org"
        assert first.transaction.protocol == "ESMTP"
        assert (second.credentials.username, second.credentials.password) == ("joe", SECRET)
        assert second.credentials.authorization_identity == "jane"
        assert second.credentials.mechanism == "PLAIN"
        wire.begin_again(" AUTH=<>")
        wire.send(b".\r\n")
        [envelope] = made.receive(1, 20) or []
        assert (envelope.auth, envelope.parameters) == ("jane", {"AUTH": "<>"})
        envelope.answer()
        assert wire.reply().startswith("250 ")
        stats = made.stats()
        assert (stats["logins"], stats["logins_failed"], stats["login_queue_depth"]) == (2, 1, 0)


def test_a_client_of_the_standard_library_logs_in_by_either_mechanism() -> None:
    """`smtplib` has none but ASCII."""
    with core(server={"auth": OFFERED}) as (made, address):
        backend = made.backend("default")

        def serve() -> None:
            while (logins := backend.receive_logins(1, 20)) is not None:
                for asked in logins:
                    asked.answer(None if asked.credentials.password == "secret" else BAD)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        host, _, port = address.rpartition(":")
        for mechanism in ("auth_plain", "auth_login"):
            with smtplib.SMTP(host, int(port), timeout=20) as client:
                client.ehlo()
                client.user, client.password = "joe", "wrong"
                with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                    client.auth(mechanism[5:].upper(), getattr(client, mechanism))
                assert refused.value.smtp_code == 535
                client.password = "secret"
                code, _ = client.auth(
                    mechanism[5:].upper(), getattr(client, mechanism), initial_response_ok=False
                )
                assert code == 235
    thread.join(20)
    assert not thread.is_alive()


def test_a_login_that_nobody_answers_in_time_is_a_passing_failure() -> None:
    with (
        core(server={"auth": OFFERED}, auth_timeout=0.1) as (made, address),
        greeted(address) as wire,
    ):
        assert wire.ask(login()) == "454 4.7.0 Temporary authentication failure"
        stats = made.stats()
        assert (stats["logins_expired"], stats["logins_failed"]) == (1, 0)
        # It does not wait for a worker that nobody waits for.
        assert stats["login_queue_depth"] == 0
        assert wire.ask(b"NOOP\r\n").startswith("250 ")


def test_a_login_that_is_dropped_is_a_passing_failure() -> None:
    with core(server={"auth": OFFERED}) as (made, address), greeted(address) as wire:
        wire.send(login())
        asked = made.backend("default").receive_logins(1, 20)
        assert asked
        del asked
        assert wire.reply() == "454 4.7.0 Temporary authentication failure"


@pytest.mark.parametrize("why", ["nobody answers", "intake"])
def test_where_nobody_is_asked_it_is_told_at_once(why: str) -> None:
    with core(server={"auth": OFFERED}, authenticate=why == "intake") as (made, address):
        made.backend("default").set_intake(why != "intake")
        with greeted(address) as wire:
            assert wire.ask(login()) == "454 4.7.0 Temporary authentication failure"
        assert made.stats()["logins"] == 0


def test_a_client_that_is_gone_leaves_no_password_behind() -> None:
    with core(server={"auth": OFFERED}) as (made, address):
        wire = greeted(address)
        wire.send(login())
        until(lambda: made.stats()["login_queue_depth"] == 1)
        wire.reset()
        until(lambda: made.stats()["login_queue_depth"] == 0)
        # In the middle of the exchange there is nothing that could be left.
        half = greeted(address)
        assert half.ask(b"AUTH LOGIN\r\n") == "334 VXNlcm5hbWU6"
        half.send(b"am9")
        half.reset()
        until(lambda: made.stats()["connections_open"] == 0)
        assert made.stats()["logins"] == 1


def test_a_renewed_backend_gives_logins_to_its_new_workers_alone() -> None:
    with core(server={"auth": OFFERED}) as (made, address), greeted(address) as wire:
        old, new = made.backend("default"), made.backend("default")
        waiting = threading.Thread(target=old.receive_logins, args=(1, 20))
        waiting.start()
        new.renew()
        waiting.join(20)
        assert not waiting.is_alive()
        wire.send(login())
        assert old.receive_logins(1, 0) == []
        [asked] = new.receive_logins(1, 20) or []
        assert asked.answer(BAD)
        assert wire.reply() == str(BAD)


def test_failures_are_answered_later_each_time() -> None:
    with keeping(failure_delay=0.2) as (address, _, _), greeted(address) as wire:
        took = []
        for _ in range(3):
            began = time.monotonic()
            assert wire.ask(login("wrong")) == str(BAD)
            took.append(time.monotonic() - began)
        assert [least <= one for least, one in zip((0.2, 0.4, 0.8), took, strict=True)] == [
            True
        ] * 3
        # Who is right does not wait.
        began = time.monotonic()
        with greeted(address) as other:
            assert other.ask(login()) == str(GOOD)
        assert time.monotonic() - began < 20


def test_a_delay_holds_up_nobody_else() -> None:
    with keeping(failure_delay=60.0) as (address, keeper, made), greeted(address) as wire:
        wire.send(login("wrong"))
        until(lambda: made.stats()["logins_failed"] == 1)
        with greeted(address) as other:
            assert other.ask(login()) == str(GOOD)
        # The shutdown ends it, and what is behind it.
        assert made.stop(20)
        assert wire.reply() == str(BAD)
        assert wire.reply().startswith("421 4.3.0 ")
        assert len(keeper.seen) == 2


def test_a_client_address_that_guesses_is_not_asked_any_more() -> None:
    with keeping(max_failures=2) as (address, keeper, made):
        for _ in range(2):
            with greeted(address) as wire:
                assert wire.ask(login("wrong")) == str(BAD)
        with greeted(address) as wire:
            assert wire.ask(login()) == "421 4.7.0 Too many authentication failures"
            assert wire.rest() == []
        assert len(keeper.seen) == 2
        assert made.stats()["logins_limited"] == 1
        # Mail is taken from it all the same.
        with greeted(address) as wire:
            assert wire.ask(b"MAIL FROM:<>\r\n").startswith("250 ")


def test_connections_at_a_time_are_no_more_guesses() -> None:
    """What was tried beside those that reached the limit tells nothing, were it right."""
    server = {"auth": OFFERED | {"max_failures": 2}}
    with core(server=server) as (made, address), ExitStack() as stack:
        guesses = []
        for password in ("wrong", "wrong", "wrong", SECRET):
            wire = stack.enter_context(greeted(address))
            wire.send(login(password))
            [asked] = made.backend("default").receive_logins(1, 20) or []
            guesses.append((wire, asked))
        told = []
        for wire, asked in guesses:
            asked.answer(None if asked.credentials.password == SECRET else BAD)
            told.append(wire.reply())
        assert told == [str(BAD)] * 2 + ["421 4.7.0 Too many authentication failures"] * 2
        assert guesses[-1][0].rest() == []
        stats = made.stats()
        assert (stats["logins_failed"], stats["logins_limited"]) == (2, 2)


def test_a_network_of_ipv6_is_one_client() -> None:
    proxied = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]}
    with keeping(server=proxied, max_failures=1) as (address, _, _):

        def comes(source: str) -> Wire:
            wire = Wire(address, greeted=False)
            wire.send(b"PROXY TCP6 %s 2001:db8::25 4711 25\r\n" % source.encode() + HELLO)
            assert [wire.reply()[:3] for _ in range(2)] == ["220", "250"]
            return wire

        sources = ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1")
        first, same, other = (closing(comes(source)) for source in sources)
        with first as wire:
            assert wire.ask(login("wrong")) == str(BAD)
        with same as wire:
            assert wire.ask(login()).startswith("421 4.7.0 ")
        with other as wire:
            assert wire.ask(login()) == str(GOOD)


def test_a_connection_without_an_address_has_a_limit_of_its_own(tmp_path: Path) -> None:
    place = {"address": f"unix:{tmp_path}/socket"}
    with keeping(server=place, max_failures=2) as (address, _, _):
        with greeted(address) as wire:
            assert [wire.ask(login("wrong"))[:3] for _ in range(3)] == ["535", "535", "421"]
        with greeted(address) as wire:
            assert wire.ask(login()) == str(GOOD)


def test_no_limit_and_no_delay_are_none() -> None:
    with keeping() as (address, _, _), greeted(address) as wire:
        began = time.monotonic()
        assert [wire.ask(login("wrong"))[:3] for _ in range(20)] == ["535"] * 20
        assert time.monotonic() - began < 15


def test_long_lines_of_any_split_and_garbage_behind_them() -> None:
    """12,288 octets with the CRLF (RFC 4954 section 4)."""
    password = "x" * (12_288 // 4 * 3 - 3 - 5)
    answer = plain(password) + b"\r\n"
    assert 12_284 < len(answer) <= 12_288
    with keeping() as (address, keeper, _), greeted(address) as wire:
        assert wire.ask(b"AUTH PLAIN\r\n") == "334 "
        for at in range(0, len(answer), 1_000):
            wire.send(answer[at : at + 1_000])
        assert wire.reply() == str(BAD)
        assert keeper.seen[0].credentials.password == password
        wire.send(b"AUTH PLAIN\r\n" + b"A" * 50_000 + b"\r\n\xff\xfe\r\n" + login())
        codes = [wire.reply()[:3] for _ in range(4)]
        assert codes == ["334", "500", "500", "235"]


def test_no_password_is_logged_or_told() -> None:
    lines: list[str] = []

    def read(made: Core) -> None:
        while (batches := made.receive_logs(64, 20)) is not None:
            lines.extend(record.message for batch in batches for record in batch.records)

    with core(server={"auth": OFFERED}, log_level=10) as (made, address):
        thread = threading.Thread(target=read, args=(made,), daemon=True)
        thread.start()
        keeper = Keeper(made)
        with greeted(address) as wire:
            replies = [wire.ask(login("guess-4711")), wire.ask(login(identity="jane"))]
            replies += [wire.ask(b"AUTH PLAIN " + plain("x\0guess-4711") + b"\r\n")]
        shown = [repr(one) + repr(one.credentials) for one in keeper.seen]
    keeper.join()
    thread.join(20)
    told = "\n".join(lines + replies + shown)
    assert 'is "jane" by PLAIN' in told
    assert "its login has failed: 535" in told
    forms: list[Callable[[str], str]] = [str, repr, lambda text: plain(text).decode()]
    for password in (SECRET, "guess-4711"):
        assert all(form(password) not in told for form in forms)


def test_behind_xclient_it_is_somebody_else() -> None:
    """XCLIENT LOGIN names a client; without it what a proxy itself is says nothing."""
    trusted = {"xclient": True, "trusted_proxies": ["127.0.0.0/8"]}
    with keeping(server=trusted) as (address, _, made), greeted(address) as wire:

        def identity() -> str | None:
            wire.send(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n.\r\n")
            [envelope] = made.receive(1, 20) or []
            envelope.answer()
            assert [wire.reply()[:3] for _ in range(4)] == ["250", "250", "354", "250"]
            return envelope.auth

        assert wire.ask(login()) == str(GOOD)
        assert wire.ask(b"XCLIENT ADDR=192.0.2.1 HELO=client.example\r\n").startswith("220 ")
        assert identity() is None
    with keeping(server=trusted) as (address, _, made), greeted(address) as wire:
        assert wire.ask(b"XCLIENT LOGIN=jane HELO=client.example\r\n").startswith("220 ")
        assert identity() == "jane"
