"""Forward before a second guerrilla: daemons as they run, with TLS, and one that is killed."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from guerrilla import Address, Reply
from guerrilla.cli import main
from guerrilla.forward.transaction import IN_DOUBT
from guerrilla.reply import Replies
from guerrilla.testing import GuerrillaServer, make_envelope
from tests.certificates import Pair, self_signed
from tests.corpora import as_sent, corpus
from tests.forward.helpers import opened, send
from tests.ledger import audit, deliver, killer, make_mails
from tests.reference.pages import examples
from tests.running import RunningDaemon
from tests.services.base import free_port

CHAIN = "HeadersParser|Header|Forward"
WORKERS = 3
At = Literal["mail", "rcpt", "data", "message", "saved"]
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return self_signed(tmp_path)


@pytest.fixture
def far() -> Iterator[GuerrillaServer]:
    with GuerrillaServer() as server:
        yield server


def keys_of(server: GuerrillaServer, **keys: object) -> dict[str, object]:
    return {"forward_address": server.address, **keys}


def as_toml(keys: dict[str, object]) -> str:
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())


@pytest.mark.parametrize("mode", ["none", "opportunistic", "required", "implicit"])
def test_the_corpus_arrives(mode: str, pair: Pair) -> None:
    messages = [as_sent(path.read_bytes()) for path in corpus()]
    implicit = mode == "implicit"
    section = pair.section(start_tls_on=not implicit, tls_always_on=implicit)
    with GuerrillaServer(server={"tls": section}) as server:
        keys = keys_of(server, forward_tls=mode, forward_ca_file=str(pair.certificate))
        mails = [make_envelope(message) for message in messages]
        replies = send(keys, *mails)
        received = server.received
    assert [reply.code for reply in replies] == [250] * len(messages)
    assert [bytes(mail.data) for mail in received] == messages
    assert {mail.tls is not None for mail in received} == {mode != "none"}
    assert len({mail.client_id for mail in received}) == 1


def test_addresses_of_any_script_arrive_as_they_are(far: GuerrillaServer) -> None:
    message = "Subject: Grüße an 用户 😀\r\n\r\nü\r\n".encode()
    to = ["用户@例え.jp", '"ü ü"@bücher.example', "😀.a@xn--r8jz45g.jp", '"a\\"ü"@example.com']
    mail = make_envelope(
        message,
        mail_from="jörg@bücher.example",
        rcpt_to=[Address.parse(one) for one in to],
        parameters={"SMTPUTF8": None},
    )
    assert [reply.code for reply in send(keys_of(far), mail)] == [250]
    (received,) = far.received
    assert [str(one) for one in received.rcpt_to] == to
    assert [one.user for one in received.rcpt_to] == ["用户", "ü ü", "😀.a", 'a"ü']
    assert (str(received.mail_from), received.smtputf8) == ("jörg@bücher.example", True)
    assert bytes(received.data) == message


def test_what_it_says_is_what_the_client_hears(far: GuerrillaServer) -> None:
    busy, never = Reply(450, "4.2.0", "come back"), Reply(554, "5.7.1", "never")
    with opened(keys_of(far)) as stage:
        for at in ("mail", "rcpt", "data", "message"):
            for reply in (busy, never):
                far.refuse(reply, at=at, count=1)
                assert stage.save(make_envelope(rcpt_to=["a@x.org", "b@x.org"])) == reply
        assert stage.save(make_envelope()) is None
    assert len(far.received) == 1


@pytest.mark.parametrize("chunking", [False, True])
def test_each_recipient_of_lmtp_hears_why_there_is_no_mail(chunking: bool) -> None:
    server = {
        "protocol": "lmtp",
        "max_size": 100,
        "extensions": {"CHUNKING": chunking, "SIZE": False},
    }
    busy = Reply(452, "4.2.2", "come back")
    rcpt_to = ["a@x.org", "b@x.org"]
    with (
        GuerrillaServer(server=server) as far,
        opened(keys_of(far, forward_protocol="lmtp")) as stage,
    ):
        for at in ("data", "message"):
            far.refuse(busy, at=at, count=1)
            mail = make_envelope(rcpt_to=rcpt_to, protocol="LMTP")
            assert stage.save(mail) == Replies([busy] * 2)
        large = make_envelope(b"x" * 1_000_000, rcpt_to=rcpt_to, protocol="LMTP")
        outcome: Any = stage.save(large)
        assert [reply.code for reply in outcome] == [552, 552]
        assert stage.save(make_envelope(rcpt_to=rcpt_to, protocol="LMTP")) is None
    assert len(far.received) == 1


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_one_that_ends_is_found_again(binary: bool, reset: bool) -> None:
    before: list[At] = ["mail", "rcpt", "data"]
    after: list[At] = ["message", "saved"]
    # Of BDAT and its message nobody knows how much was heard.
    if binary:
        after.insert(0, before.pop())
    keys: dict[str, Any] = {"parameters": {"BODY": "BINARYMIME"}} if binary else {}
    with GuerrillaServer() as far, opened(keys_of(far)) as stage:
        assert stage.save(make_envelope()) is None
        for at in before:
            far.drop(at=at, count=1, reset=reset)
            assert stage.save(make_envelope(subject=at, **keys)) is None
        for at in after:
            far.drop(at=at, count=1, reset=reset)
            assert stage.save(make_envelope(subject=at, **keys)) == IN_DOUBT
        assert stage.save(make_envelope(subject="last")) is None
        subjects = [mail.subject for mail in far.received]
    assert subjects[1:] == [*before, "saved", "last"]


def test_the_examples_on_its_page(far: GuerrillaServer, pair: Pair, tmp_path: Path) -> None:
    """The first as it is but for the address, the last with the certificate of the test."""
    first, _, last = examples("Forward")
    config = first.replace("mail.internal:2525", far.address)
    config += '\n[[servers]]\nlisten_interface = "127.0.0.1:0"\nhost_name = "mx.example.com"\n'
    with (
        RunningDaemon(tmp_path, config=config) as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        far.refuse(Reply(550, "5.1.1", "no such user"), at="rcpt", count=1)
        to = ["nobody@example.com", "a@example.com", "b@example.com"]
        refused = client.sendmail("from@example.org", to, "Subject: hello\r\n\r\nbody\r\n")
        assert refused == {"nobody@example.com": (550, b"5.1.1 no such user")}
    (mail,) = far.wait_for(1)
    assert [str(one) for one in mail.rcpt_to] == ["a@example.com", "b@example.com"]
    assert bytes(mail.data).startswith(b"Received: from ")
    assert bytes(mail.data).endswith(b"\r\nSubject: hello\r\n\r\nbody\r\n")
    assert 'forward_tls = "implicit"' in last


def test_the_example_among_the_files(far: GuerrillaServer, tmp_path: Path) -> None:
    text = (EXAMPLES / "forward.toml").read_text(encoding="utf-8")
    text = text.replace("127.0.0.1:2525", "127.0.0.1:0").replace("127.0.0.1:2526", far.address)
    with RunningDaemon(tmp_path, config=text) as daemon:
        messages = [as_sent(path.read_bytes()) for path in corpus()]
        with smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client:
            for message in messages:
                assert client.sendmail("from@example.org", ["to@example.com"], message) == {}
    received = [bytes(mail.data) for mail in far.wait_for(len(messages))]
    heads = [mail.index(b" +0000\r\n") + 8 for mail in received]
    assert [mail[end:] for mail, end in zip(received, heads, strict=True)] == messages
    assert all(mail.startswith(b"Received: from ") for mail in received)


def test_check_tries_it(
    far: GuerrillaServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "guerrilla.toml"
    keys: dict[str, object] = {"save_process": CHAIN, "forward_password": "s3cret"}
    for address, status in ((far.address, 0), (f"127.0.0.1:{free_port()}", 1)):
        keys["forward_address"] = address
        file.write_text(f"[backend_config]\n{as_toml(keys)}\n")
        assert main(["check", "-c", str(file), "--connect"]) == status
        told = capsys.readouterr()
        assert ("cannot connect: Connection refused" in told.err) == bool(status)
        assert "s3cret" not in told.out + told.err
        assert status or "forward_password" in told.out


class Mortal:
    """A guerrilla that stores in SQLite, on a port of its own, and can be started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.daemon: Any = None

    def start(self) -> None:
        server = f'listen_interface = "127.0.0.1:{self.port}"\nmax_clients = 200\n'
        backend = f'save_process = "HeadersParser|SQL"\nsql_dsn = "{self.folder}/mail.db"\n'
        config = f'allowed_hosts = ["."]\n[[servers]]\n{server}[backend_config]\n{backend}'
        self.daemon = RunningDaemon(self.folder, config=config)

    def kill(self) -> None:
        self.daemon.kill()


@pytest.mark.timeout(300)
def test_one_that_is_killed_under_load(tmp_path: Path, until: Callable[..., None]) -> None:
    """Three times: what was answered 250 is there, and a copy more only where nobody could know."""
    for name in ("near", "far"):
        (tmp_path / name).mkdir()
    far = Mortal(tmp_path / "far")
    far.start()
    count = 2_000
    mails = make_mails(count)
    keys = {"forward_address": f"127.0.0.1:{far.port}", "save_workers_size": WORKERS}
    server = "max_clients = 200"
    try:
        with RunningDaemon(
            tmp_path / "near", chain=CHAIN, server=server, backend=as_toml(keys)
        ) as daemon:
            disturb = killer(count, far.kill, far.start)
            ledger = deliver(daemon.port, mails, disturb=disturb)
            assert ledger.dropped == ledger.unanswered.total() == 0
            stored = [row["mail"] for row in far.daemon.rows()]
            copies = audit(ledger, stored)
        # An answer that was lost: one a worker and kill.
        assert copies <= 3 * WORKERS
        assert "Traceback" not in daemon.log_text()
    finally:
        far.kill()
