"""Forward before Dovecot's LMTP: a reply for each recipient, and mails in maildirs."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import loads
from guerrilla.reply import Replies
from guerrilla.testing import make_envelope
from tests.certificates import Pair, self_signed
from tests.corpora import as_sent, corpus
from tests.forward.helpers import ask, opened, send
from tests.ledger import audit, deliver, killer, make_mails
from tests.reference.pages import examples
from tests.running import RunningDaemon
from tests.services.dovecot import shared_folder
from tests.services.dovecotlmtp import DovecotLMTP
from tests.wire import Wire

CHAIN = "HeadersParser|Header|Forward"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def dovecot(pair: Pair) -> Iterator[DovecotLMTP]:
    with (
        shared_folder(in_memory=True) as folder,
        DovecotLMTP(folder, key=pair.key, certificate=pair.certificate) as server,
    ):
        yield server


def message_of(mail: bytes) -> bytes:
    """A mail of a maildir without what Dovecot has put before it."""
    fields = mail.partition(b"; ")[2]  # the date of its Received
    return fields.partition(b"\n")[2]


@pytest.mark.parametrize("ignored", [[], ["CHUNKING"], ["CHUNKING", "PIPELINING"]])
def test_the_corpus_arrives(dovecot: DovecotLMTP, ignored: list[str]) -> None:
    """By BDAT, by DATA, and one command after the other."""
    messages = [as_sent(path.read_bytes()) for path in corpus()]
    mails = [make_envelope(message, rcpt_to=["a@example.com"]) for message in messages]
    replies = send(dovecot.unix, *mails, forward_ignored_extensions=ignored)
    assert [reply.code for reply in replies] == [250] * len(messages)
    found = [message_of(mail) for mail in dovecot.mails("a")]
    assert sorted(found) == sorted(message.replace(b"\r\n", b"\n") for message in messages)


def test_each_recipient_has_its_own_reply(dovecot: DovecotLMTP) -> None:
    rcpt_to = [f"{user}@example.com" for user in ("a", "nobody", "full", "b")]
    with opened(dovecot.tcp) as stage:
        codes = []
        for _ in range(2):
            outcome = stage.save(make_envelope(rcpt_to=rcpt_to, protocol="LMTP"))
            assert isinstance(outcome, Replies)
            codes.append([(reply.code, reply.enhanced) for reply in outcome])
    ok, unknown, full = (250, "2.0.0"), (550, "5.1.1"), (552, "5.2.2")
    assert codes == [[ok, unknown, ok, ok], [ok, unknown, full, ok]]
    assert [len(dovecot.mails(user)) for user in ("a", "full", "b")] == [2, 1, 2]


def test_a_client_of_lmtp_hears_each(dovecot: DovecotLMTP, tmp_path: Path) -> None:
    backend = "\n".join(f"{key} = {json.dumps(value)}" for key, value in dovecot.unix.items())
    users = ("a", "nobody", "full", "b")
    server = 'protocol = "lmtp"'
    with (
        RunningDaemon(tmp_path, chain=CHAIN, server=server, backend=backend) as daemon,
        Wire(daemon.port) as wire,
    ):
        wire.ask(b"LHLO x\r\n")
        for last in ("250", "552"):
            wire.ask(b"MAIL FROM:<a@example.org>\r\n")
            for user in users:
                assert wire.ask(b"RCPT TO:<%s@example.com>\r\n" % user.encode())[:3] == "250"
            wire.ask(b"DATA\r\n")
            wire.send(b"Subject: x\r\n\r\n.\r\n")
            told = [wire.reply()[:3] for _ in users]
            assert told == ["250", "550", last, "250"]
    assert [len(dovecot.mails(user)) for user in ("a", "full", "b")] == [2, 1, 2]


def test_one_reply_for_all_is_a_mail_for_all_or_none(dovecot: DovecotLMTP) -> None:
    mail = make_envelope(rcpt_to=["a@example.com", "nobody@example.com", "b@example.com"])
    (reply,) = send(dovecot.tcp, mail)
    assert (reply.code, reply.enhanced) == (550, "5.1.1")
    assert "nobody@example.com" in reply.text
    assert dovecot.mails("a") == dovecot.mails("b") == []


def test_recipients_are_asked_about(dovecot: DovecotLMTP) -> None:
    with opened(dovecot.unix) as stage:
        for _ in range(2):
            assert ask(stage, "a@example.com") is None
            reply: Any = ask(stage, "nobody@example.com")
            assert (reply.code, reply.enhanced) == (550, "5.1.1")
        assert stage.save(make_envelope(rcpt_to=["a@example.com"])) is None
    assert len(dovecot.mails("a")) == 1


def test_tls_that_is_checked(dovecot: DovecotLMTP, pair: Pair) -> None:
    keys = {"forward_tls": "required", "forward_ca_file": str(pair.certificate)}
    with opened(dovecot.tcp, **keys) as stage:
        assert stage._kept.get().tls is not None
        assert stage.save(make_envelope(rcpt_to=["a@example.com"])) is None
    assert len(dovecot.mails("a")) == 1


def test_it_is_told_of_each_client(dovecot: DovecotLMTP) -> None:
    """Which it puts into its Received."""
    with opened(dovecot.tcp, forward_xclient=True) as stage:
        for address, helo in (("192.0.2.7", "one"), ("2001:db8::9", "two"), ("192.0.2.7", "one")):
            mail = make_envelope(remote_ip=address, helo=helo, rcpt_to=["a@example.com"])
            assert stage.save(mail) is None
    fields = [mail.partition(b"Received: from ")[2] for mail in dovecot.mails("a")]
    told = sorted(field.partition(b"\n")[0] for field in fields)
    assert told == [b"one ([192.0.2.7])"] * 2 + [b"two ([2001:db8::9])"]


def test_the_example_on_its_page(dovecot: DovecotLMTP, tmp_path: Path) -> None:
    """With an SMTP client that names one whom Dovecot does not know."""
    _, text, _ = examples("Forward")
    assert loads(text, format="toml").backend_config.options["forward_protocol"] == "lmtp"
    text = text.replace("unix:/run/dovecot/lmtp", str(dovecot.unix["forward_address"]))
    place = '[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
    with (
        RunningDaemon(tmp_path, config=f"{text}\n{place}") as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        to = ["a@example.com", "nobody@example.com", "b@example.com"]
        refused = client.sendmail("from@example.org", to, "Subject: hello\r\n\r\nbody\r\n")
        ((code, said),) = refused.values()
        assert (code, said[:9]) == (550, b"5.1.1 <no")
    (mail,) = dovecot.mails("a")
    assert mail.endswith(b"\nSubject: hello\n\nbody\n")
    assert b"Delivered-To" not in mail
    assert len(dovecot.mails("b")) == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_dovecot_that_is_killed_under_load(kind: str, dovecot: DovecotLMTP, tmp_path: Path) -> None:
    """Three times: what was answered 250 is there, and a copy more only where nobody could know."""
    workers, count = 3, 1_500
    mails = make_mails(count)
    keys = {**getattr(dovecot, kind), "save_workers_size": workers}
    backend = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    server = "max_clients = 200"
    with RunningDaemon(tmp_path, chain=CHAIN, server=server, backend=backend) as daemon:
        disturb = killer(count, dovecot.kill, dovecot.start)
        ledger = deliver(daemon.port, mails, recipient="a@example.com", disturb=disturb)
        assert ledger.dropped == ledger.unanswered.total() == 0
        stored = [mail.replace(b"\n", b"\r\n") for mail in dovecot.mails("a")]
        copies = audit(ledger, stored)
    assert copies <= 3 * workers
    assert "Traceback" not in daemon.log_text()
