"""Forward before Postfix's smtp-sink, which can refuse any command and end at any moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from guerrilla.errors import StartError
from guerrilla.testing import make_envelope
from tests.corpora import as_sent, corpus
from tests.forward.helpers import ask, opened, send
from tests.services.dovecot import shared_folder
from tests.services.smtpsink import SmtpSink

BOTH = ["a@example.com", "b@example.com"]
COMMANDS = ["MAIL", "RCPT", "DATA", "."]
PROTOCOLS = [pytest.param((), id="smtp"), pytest.param(("-L",), id="lmtp")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that smtp-sink can enter, which root starts as nobody."""
    with shared_folder() as made:
        yield made


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("flags", [(), ("-L",), ("-p",), ("-8", "-N"), ("-e",), ("-P",)])
def test_the_corpus_arrives(flags: tuple[str, ...], unix: bool, folder: Path) -> None:
    """With PIPELINING, DSN and 8BITMIME, without each, and without ESMTP at all."""
    messages = [as_sent(path.read_bytes()) for path in corpus()]
    mails = [make_envelope(message, rcpt_to=BOTH) for message in messages]
    with SmtpSink(folder, *flags, unix=unix, keep=True) as sink:
        replies = send(sink.options, *mails)
        assert [reply.code for reply in replies] == [250] * len(messages)
        found = sink.mails()
    heads, bodies = zip(*(_parted(mail) for mail in found), strict=True)
    assert sorted(bodies) == sorted(map(_as_kept, messages))
    assert all(head.count(b"X-Rcpt-Args: <") == 2 for head in heads)
    assert (b"X-Client-Proto: SMTP\n" in heads[0]) == (flags in {("-e",), ("-P",)})
    assert any(b"8BITMIME" in head for head in heads) == (flags in {(), ("-L",), ("-p",)})


def _parted(mail: bytes) -> tuple[bytes, bytes]:
    """What smtp-sink has put before a mail, and the mail."""
    end = mail.index(b" (UTC)\n") + len(b" (UTC)\n")
    return mail[:end], mail[end:]


def _as_kept(message: bytes) -> bytes:
    if not message.endswith(b"\r\n"):
        message += b"\r\n"
    return message.replace(b"\r\n", b"\n") + b"\n"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("flag", "text", "said"),
    [("-f", "-B", "554 5.7.9 never"), ("-r", "-b", "450 4.2.9 not now")],
)
def test_a_refusal_is_passed_on(
    protocol: tuple[str, ...], command: str, *, flag: str, text: str, said: str, folder: Path
) -> None:
    with SmtpSink(folder, *protocol, flag, command, text, said) as sink:
        mails = [make_envelope(), make_envelope(rcpt_to=BOTH)]
        replies = send(sink.options, *mails)
        assert [f"{r.code} {r.enhanced} {r.text}" for r in replies] == [said, said]
        with opened(sink.options) as stage:
            reply = ask(stage)
    if command in {"MAIL", "RCPT"}:
        assert reply is not None
        assert f"{reply.code} {reply.enhanced} {reply.text}" == said
    else:
        assert reply is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-q", "-Q"])
def test_one_that_ends_is_451(
    protocol: tuple[str, ...], command: str, flag: str, folder: Path
) -> None:
    with SmtpSink(folder, *protocol, flag, command) as sink:
        replies = [send(sink.options)[0] for _ in range(2)]
    assert [reply.code for reply in replies] == [451, 451]
    assert {reply.enhanced for reply in replies} == {"4.4.2" if command == "." else "4.3.0"}


@pytest.mark.parametrize("flag", ["-f", "-r", "-q", "-Q"])
@pytest.mark.parametrize("command", ["CONNECT", "EHLO", "LHLO"])
def test_one_that_will_not_begin_stops_the_start(flag: str, command: str, folder: Path) -> None:
    lmtp = ("-L",) if command == "LHLO" else ()
    with (
        SmtpSink(folder, *lmtp, flag, f"{command},HELO") as sink,
        pytest.raises(StartError, match=r"forward_address: "),
        opened(sink.options),
    ):
        pass


def test_it_hears_xclient_again_and_again(folder: Path) -> None:
    with SmtpSink(folder) as sink, opened(sink.options, forward_xclient=True) as stage:
        first = stage._kept.get()
        for helo in ("one", "two", "one"):
            assert stage.save(make_envelope(helo=helo)) is None
        assert stage._kept.get() is first
        assert first._introduced == "NAME=[UNAVAILABLE] HELO=one"


def test_a_refusal_before_the_message_is_read_is_passed_on(folder: Path) -> None:
    """`-A`: it says 550 behind its 354, and reads no more."""
    with SmtpSink(folder, "-A", "0") as sink:
        large = make_envelope(b"x" * 5_000_000)
        replies = [send(sink.options, mail)[0] for mail in (make_envelope(), large)]
    assert [reply.code for reply in replies] == [550, 550]


def test_a_small_window_and_a_slow_reader(folder: Path) -> None:
    message = b"Subject: large\r\n\r\n" + b"x" * 70 * 1_000 + b"\r\n"
    with SmtpSink(folder, "-T", "5000", "-H", "1", keep=True) as sink:
        assert send(sink.options, make_envelope(message))[0].code == 250
        (found,) = sink.mails()
    assert _parted(found)[1] == _as_kept(message)
