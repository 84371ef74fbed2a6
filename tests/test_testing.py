"""`guerrilla.testing` without sockets: envelopes from nowhere, chains and what they answer."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from email.message import EmailMessage

import pytest

import guerrilla
import guerrilla.testing
from guerrilla import TAKEN, Address, ConfigError, Envelope, Processor, Replies, Reply, StartError
from guerrilla.reply import TRY_LATER, Outcome
from guerrilla.testing import Stage, make_envelope, run_chain

# Envelopes


def test_an_envelope_without_arguments_is_a_small_mail() -> None:
    envelope = make_envelope()
    assert bytes(envelope.data) == b"Subject: hello\r\n\r\nbody\r\n"
    assert str(envelope.mail_from) == "from@example.org"
    assert [str(address) for address in envelope.rcpt_to] == ["to@example.com"]
    assert envelope.helo == "localhost"
    assert envelope.queued_id != make_envelope().queued_id


def test_an_envelope_has_what_it_is_told() -> None:
    envelope = make_envelope(
        subject="caf\u00e9",
        body="one\r\ntwo\n",
        headers={"From": "A <a@example.org>", "X-A": "1"},
        mail_from=None,
        rcpt_to=[Address("b", "example.com"), "c@example.com"],
        helo="client.example.org",
        remote_ip="192.0.2.1",
    )
    assert bytes(envelope.data) == (
        "Subject: caf\u00e9\r\nFrom: A <a@example.org>\r\nX-A: 1\r\n\r\none\r\ntwo\r\n".encode()
    )
    assert envelope.mail_from.is_null
    assert [address.user for address in envelope.rcpt_to] == ["b", "c"]
    assert (envelope.helo, envelope.remote_ip) == ("client.example.org", "192.0.2.1")


def test_a_message_may_be_octets_text_or_of_pythons_email() -> None:
    assert bytes(make_envelope(b"a\nb").data) == b"a\nb"
    assert bytes(make_envelope("a\nb\r\n").data) == b"a\r\nb\r\n"
    message = EmailMessage()
    message["Subject"] = "from email"
    message.set_content("text\n")
    envelope = make_envelope(message)
    assert envelope.subject == "from email"
    assert bytes(envelope.data).endswith(b"\r\n\r\ntext\r\n")
    assert b"\n" not in bytes(envelope.data).replace(b"\r\n", b"")


def test_what_cannot_be_an_envelope_is_refused() -> None:
    with pytest.raises(ValueError, match="address"):
        make_envelope(rcpt_to=["not an address"])
    with pytest.raises(TypeError):
        make_envelope(colour="red")


# Chains


class Store(Processor):
    """Stores nothing, and says so of some."""

    stores = True

    class Options(Processor.Options):
        """What it reads."""

        quota: int = 10

    def save(self, envelope: Envelope) -> Outcome:
        assert isinstance(self.options, self.Options)
        if envelope.size > self.options.quota:
            raise guerrilla.QuotaExceeded
        return None


def refuse(envelope: Envelope) -> Reply | None:
    return Reply.reject() if envelope.subject == "bad" else None


def test_a_chain_says_what_each_sender_would_hear() -> None:
    good, bad = make_envelope(subject="good"), make_envelope(subject="bad")
    assert run_chain([refuse], [good, bad]) == [
        Reply.ok(f"OK: queued as {good.queued_id}"),
        Reply.reject(),
    ]


def test_a_chain_may_be_named_as_in_a_config() -> None:
    guerrilla.processor("TestingRefuse")(refuse)
    (reply,) = run_chain("HeadersParser|TestingRefuse", make_envelope(subject="bad"))
    assert reply == Reply.reject()


def test_stages_are_names_processors_classes_and_functions() -> None:
    """Each is asked; the options are read by those that are not made yet."""
    asked: list[str] = []

    async def later(envelope: Envelope) -> None:
        await asyncio.sleep(0)
        asked.append("later")

    class Note(Processor):
        def save(self, envelope: Envelope) -> None:
            asked.append("note")

    made = Note(Note.Options())
    small, large = make_envelope(body=""), make_envelope()
    chain: list[Stage] = ["Hasher", made, Note, later, Store]
    replies = run_chain(chain, [small, large], options={"Quota": small.size})
    assert [reply.code for reply in replies] == [250, 452]
    assert asked == ["note", "note"] * 2 + ["later"] * 2
    assert len(small.hashes) == 1


def test_what_a_stage_raises_is_dealt_with_as_by_the_daemon(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(envelope: Envelope) -> None:
        raise KeyError(envelope.subject)

    assert run_chain([fail], [make_envelope()]) == [TRY_LATER]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_one_reply_a_recipient_is_folded() -> None:
    def each(envelope: Envelope) -> Replies:
        return Replies([Reply.ok(), Reply.retry()])

    envelope = make_envelope(rcpt_to=["a@example.com", "b@example.com"])
    assert run_chain([each], envelope) == [Reply.retry()]
    assert envelope.answered == (Reply.ok(), Reply.retry())


def test_what_is_taken_and_not_answered_is_451() -> None:
    assert run_chain([lambda envelope: TAKEN], make_envelope()) == [TRY_LATER]


def test_an_envelope_is_run_once() -> None:
    envelope = make_envelope()
    run_chain([refuse], envelope)
    with pytest.raises(ValueError, match=f"answered before.*{envelope.queued_id}"):
        run_chain([refuse], envelope)


def test_a_chain_that_cannot_be_made_or_opened_raises() -> None:
    class Closed(Processor):
        def open(self) -> None:
            raise OSError

    with pytest.raises(ConfigError, match="Nonesuch"):
        run_chain("Nonesuch", make_envelope())
    with pytest.raises(ConfigError, match="quota"):
        run_chain([Store], make_envelope(), options={"quota": "much"})
    with pytest.raises(StartError, match="Closed"):
        run_chain([Closed], make_envelope())
    with pytest.raises(TypeError, match="not 7"):
        run_chain([7], make_envelope())  # type: ignore[list-item]


# The package


def test_names_are_found_when_they_are_used() -> None:
    assert all(getattr(guerrilla.testing, name) for name in guerrilla.testing.__all__)
    with pytest.raises(AttributeError, match="nonesuch"):
        guerrilla.testing.nonesuch  # type: ignore[attr-defined] # noqa: B018


def test_the_plugin_costs_those_next_to_nothing_who_do_not_use_it() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import guerrilla.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == [
        "guerrilla",
        "guerrilla._core",
        "guerrilla.testing",
        "guerrilla.testing.plugin",
    ]
