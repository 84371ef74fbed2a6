"""The FastCGI stage before PHP-FPM: what is saved, and what is answered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla._core import TLSInfo
from guerrilla.processors.fastcgi import FastCGI
from guerrilla.testing import make_envelope, run_chain
from tests.corpora import as_sent, corpus
from tests.fastcgi.helpers import UNRULY, Mailbox, ask, opened, options
from tests.running import RunningDaemon
from tests.services.phpfpm import PhpFpm
from tests.wire import Wire

CHAIN = "HeadersParser|Header|FastCGI"
OK = (250, "2.0.0")
LATER = (451, "4.3.0")


@pytest.fixture
def unruly(unix_php: PhpFpm) -> Iterator[FastCGI]:
    """Validates by `unruly.php`."""
    stage = opened(unix_php, fcgi_script_filename_validate=UNRULY, fcgi_timeout=4)
    yield stage
    stage.close()


def saved_as(php: PhpFpm, subject: str, **keys: object) -> tuple[int, str | None]:
    """What a sender hears when `unruly.php` does that."""
    envelope = make_envelope(subject=subject)
    limit = 1 if subject == "sleeps" else 10
    keys = {"fcgi_script_filename_save": UNRULY, "fcgi_timeout": limit, **keys}
    [reply] = run_chain(CHAIN, envelope, options=options(php, **keys))
    return reply.code, reply.enhanced


# --- What is saved -------------------------------------------------------------------------------


def test_it_stores_and_says_so() -> None:
    assert FastCGI.stores
    assert not FastCGI.atomic


@pytest.mark.parametrize(("kind", "step"), [("unix_php", 1), ("tcp_php", 9)])
def test_the_corpus_is_saved_byte_for_byte(
    kind: str, step: int, mailbox: Mailbox, request: pytest.FixtureRequest
) -> None:
    php = request.getfixturevalue(kind)
    envelopes = [make_envelope(as_sent(path.read_bytes())) for path in corpus()[::step]]
    replies = run_chain(CHAIN, envelopes, options=options(php))
    assert {reply.code for reply in replies} == {250}
    stored = mailbox.mails()
    for envelope in envelopes:
        assert stored[envelope.queued_id] == bytes(envelope)
        assert stored[envelope.queued_id].endswith(bytes(envelope.data))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\r\n", id="no header"),
        pytest.param(b"Subject: x\r\n\r\n", id="empty body"),
        pytest.param(bytes(range(256)) * 40, id="every octet"),
        pytest.param(b"a&b=c%41+d;e f\x00g\r\n", id="marks of forms"),
        pytest.param(b"X: y\r\n" * 10_000 + b"\r\n", id="10,000 headers"),
        pytest.param(b"Subject: \xff\xfe\x00\r\n\r\nx\r\n", id="invalid subject"),
    ],
)
def test_any_octets_are_saved(body: bytes, unix_php: PhpFpm, mailbox: Mailbox) -> None:
    envelope = make_envelope(body)
    [reply] = run_chain("HeadersParser|FastCGI", envelope, options=options(unix_php))
    assert reply.code == 250
    assert mailbox.mails()[envelope.queued_id] == body


@pytest.mark.parametrize(
    ("line", "size", "memory"),
    [
        pytest.param(b"QUJD" * 19 + b"\r\n", 50 << 20, "256M", id="50 MiB of Base64"),
        pytest.param(b"\x80\x00\xff\r\n", 10 << 20, "90M", id="10 MiB, all escaped"),
    ],
)
def test_a_large_mail_is_saved(line: bytes, size: int, memory: str, tmp_path: Path) -> None:
    """Whatever PHP's own limit of a form is, given the memory that the page says."""
    body = b"Subject: big\r\n\r\n" + line * (size // len(line))
    box = Mailbox(tmp_path / "mail")
    values = {"memory_limit": memory, "post_max_size": "64K"}
    with PhpFpm(tmp_path, environment=box.environment, values=values) as php:
        envelope = make_envelope(body)
        [reply] = run_chain("FastCGI", envelope, options=options(php, fcgi_timeout=30))
        assert reply.code == 250
        assert box.mails()[envelope.queued_id] == body


def test_a_mail_that_php_has_no_memory_for_is_451(tmp_path: Path) -> None:
    """And the next one is saved."""
    box = Mailbox(tmp_path / "mail")
    with PhpFpm(tmp_path, environment=box.environment, values={"memory_limit": "16M"}) as php:
        mails = [make_envelope(b"x: y\r\n\r\n" + b"x" * (30 << 20)), make_envelope()]
        replies = run_chain("FastCGI", mails, options=options(php))
        assert [reply.code for reply in replies] == [451, 250]
        assert list(box.mails()) == [mails[1].queued_id]


def test_a_form_that_php_leaves_out_is_not_saved(tmp_path: Path) -> None:
    """As with a server that does not take our settings: the script runs, and sees nothing."""
    box = Mailbox(tmp_path / "mail")
    with PhpFpm(tmp_path, environment=box.environment) as php:
        stage = opened(php)
        stage.php_values = "post_max_size=10K"
        small, large = make_envelope(), make_envelope(body="x" * 20_000)
        assert stage.save(small) is None
        outcome: Any = stage.save(large)
        assert (outcome.code, outcome.enhanced) == LATER
        stage.close()
        assert list(box.mails()) == [small.queued_id]


def test_a_script_that_looks_at_nothing_is_not_believed_either(tmp_path: Path) -> None:
    """It says SAVED, and PHP that it has left out the form."""
    with PhpFpm(tmp_path) as php:
        stage = opened(php, fcgi_script_filename_save=UNRULY)
        stage.php_values = "post_max_size=10K"
        outcome: Any = stage.save(make_envelope(subject="default", body="x" * 20_000))
        assert (outcome.code, outcome.enhanced) == LATER
        stage.close()


def test_the_script_has_the_envelope(unix_php: PhpFpm, mailbox: Mailbox) -> None:
    recipients = [f"user{number}@example.com" for number in range(100)]
    envelope = make_envelope(
        headers={"X-Note": "y"},
        subject="=?utf-8?q?gr=C3=BC=C3=9Fe_=F0=9F=90=A2?=",
        rcpt_to=[*recipients, '"a b&c=d"@example.com'],
        helo="client.example",
        remote_ip="2001:db8::1",
        tls=TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    )
    bounce = make_envelope(mail_from=None)
    replies = run_chain(CHAIN, [envelope, bounce], options=options(unix_php))
    assert {reply.code for reply in replies} == {250}
    assert mailbox.envelope(envelope.queued_id) == {
        "queued_id": envelope.queued_id,
        "remote_ip": "2001:db8::1",
        "helo": "client.example",
        "tls": True,
        "mail_from": "from@example.org",
        "rcpt_to": [*recipients, '"a b&c=d"@example.com'],
        "subject": "grüße 🐢",
    }
    assert b"Delivered-To" not in mailbox.mails()[envelope.queued_id]
    told = mailbox.envelope(bounce.queued_id)
    assert (told["mail_from"], told["tls"]) == ("", False)


def test_the_script_has_addresses_of_any_script(unix_php: PhpFpm, mailbox: Mailbox) -> None:
    recipients = ["用户@例え.jp", '"ü ü"@bücher.example', "😀@xn--r8jz45g.jp"]
    message = "Subject: Grüße an 用户 😀\r\n\r\nü\r\n".encode()
    envelope = make_envelope(message, mail_from="jörg@bücher.example", rcpt_to=recipients)
    (reply,) = run_chain(CHAIN, [envelope], options=options(unix_php))
    assert reply.code == 250
    told = mailbox.envelope(envelope.queued_id)
    assert (told["mail_from"], told["rcpt_to"]) == ("jörg@bücher.example", recipients)
    assert told["subject"] == "Grüße an 用户 😀"
    stored = mailbox.mails()[envelope.queued_id]
    assert stored.endswith(message)
    stage = opened(unix_php)
    unknown = ask(stage, "用户")
    stage.close()
    assert unknown is not None
    assert unknown.code == 550


def test_a_daemon_saves_and_validates(unix_php: PhpFpm, mailbox: Mailbox, tmp_path: Path) -> None:
    keys = "\n".join(f"{key} = '{value}'" for key, value in options(unix_php).items())
    backend = f'validate_process = "FastCGI"\n{keys}'
    with RunningDaemon(tmp_path, chain=CHAIN, backend=backend) as daemon, Wire(daemon.port) as wire:
        wire.ask(b"EHLO client.example\r\n")
        wire.ask(b"MAIL FROM:<a@example.org>\r\n")
        refused = wire.ask(b"RCPT TO:<nobody@example.com>\r\n")
        assert refused == ("550 5.1.1 User unknown in local recipient table: no such mailbox")
        assert wire.ask(b"RCPT TO:<TO@example.com>\r\n").startswith("250 2.1.5")
        wire.ask(b"DATA\r\n")
        accepted = wire.ask(b"Subject: x\r\n\r\nhello\r\n.\r\n")
        assert accepted.startswith("250 2.0.0 OK: queued as ")
    queued_id = accepted.split()[-1]
    assert mailbox.mails()[queued_id].endswith(b"Subject: x\r\n\r\nhello\r\n")
    assert mailbox.envelope(queued_id)["rcpt_to"] == ["TO@example.com"]


# --- What is answered ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "answer"),
    [
        ("good", OK),
        ("more", OK),
        ("size", OK),
        ("created", OK),
        ("warns-and-saves", OK),
        ("complains", OK),
        ("babbles", OK),
        ("talks-first", LATER),
        ("other-size", LATER),
        ("silent", LATER),
        ("exits", LATER),
        ("dies", LATER),
        ("shows-death", LATER),
        ("shows-warning", LATER),
        ("sleeps", LATER),
        ("killed", LATER),
        ("killed-talking", LATER),
        ("unavailable", LATER),
        ("forbidden", LATER),
        ("two-fifty", LATER),
        ("lower", LATER),
        ("space", LATER),
        ("html", LATER),
        ("mixed", LATER),
        ("quota", (452, "4.2.2")),
        ("spam", (554, "5.7.1")),
        ("bare", (550, "5.0.0")),
        ("accented", (550, "5.7.1")),
    ],
)
def test_what_a_script_makes_of_a_mail(
    subject: str, answer: tuple[int, str], unix_php: PhpFpm
) -> None:
    assert saved_as(unix_php, subject) == answer


@pytest.mark.parametrize(
    ("user", "answer"),
    [
        ("good", None),
        ("more", None),
        ("silent", "550 5.1.1 User unknown in local recipient table"),
        ("html", "550 5.1.1 User unknown in local recipient table"),
        ("reason", "550 5.1.1 User unknown in local recipient table: moved to another company"),
        ("quota", "452 4.2.2 The mailbox is full"),
        ("spam", "554 5.7.1 We do not want this"),
        ("bare", "550 5.0.0 Rejected"),
        ("accented", "550 5.7.1 caf????"),
        ("dies", "451 4.3.0"),
        ("shows-death", "451 4.3.0"),
        ("shows-warning", "451 4.3.0"),
        ("warns", "451 4.3.0"),
        ("unavailable", "451 4.3.0"),
        ("forbidden", "451 4.3.0"),
        ("mixed", "451 4.3.0"),
        ("killed", "451 4.3.0"),
    ],
)
def test_what_a_script_makes_of_a_recipient(user: str, answer: str | None, unruly: FastCGI) -> None:
    reply = ask(unruly, user)
    told = reply and f"{reply.code} {reply.enhanced} {reply.text}"
    assert told == answer or (told or "").startswith(f"{answer} Please")
    assert ask(unruly, "good") is None  # the next one is as good as ever


@pytest.mark.parametrize("script", ["/nowhere/save.php", "/etc/hostname"])
def test_a_script_that_is_not_there_or_no_script_is_451(
    script: str, unix_php: PhpFpm, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the server answers with a 404 or a 403, which means for good elsewhere."""
    assert saved_as(unix_php, "good", fcgi_script_filename_save=script) == LATER
    stage = opened(unix_php, fcgi_script_filename_validate=script)
    reply: Any = ask(stage, "to")
    stage.close()
    assert (reply.code, reply.enhanced) == LATER
    assert f"by {script}: status 40" in caplog.text
    warned = f"{script}: not found here; the FastCGI server has to have it" in caplog.text
    assert warned != os.path.exists(script)


def test_a_mail_that_fails_does_not_fail_its_neighbours(unix_php: PhpFpm) -> None:
    subjects = ["good", "dies", "good", "killed", "good", "spam", "good"]
    mails = [make_envelope(subject=subject) for subject in subjects]
    keys = {"fcgi_script_filename_save": UNRULY}
    replies = run_chain(CHAIN, mails, options=options(unix_php, **keys))
    assert [reply.code for reply in replies] == [250, 451, 250, 451, 250, 554, 250]


def test_what_was_answered_meanwhile_is_not_saved(unix_php: PhpFpm, mailbox: Mailbox) -> None:
    stage = opened(unix_php)
    late = make_envelope()
    late.answer()
    outcome: Any = stage.save(late)
    stage.close()
    assert (outcome.code, outcome.enhanced) == LATER
    assert late.queued_id not in mailbox.mails()


@pytest.mark.parametrize("what", ["save", "validate"])
def test_a_task_without_a_script_is_451(what: str, unix_php: PhpFpm) -> None:
    stage = opened(unix_php, **{f"fcgi_script_filename_{what}": ""})
    reply: Any = stage.save(make_envelope()) if what == "save" else ask(stage, "to")
    stage.close()
    assert (reply.code, reply.enhanced) == LATER
