"""Async stages, and checks of recipients."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from guerrilla import errors
from guerrilla._core import Address, Check, Envelope, Transaction, make_check
from guerrilla.engine.base import Processor
from guerrilla.reply import TRY_LATER, Outcome, Reply
from tests.chains import NO, Mail, Stage, chain_of, fate, fates, run

# Async


class Async(Processor):
    """An async stage: `save` is given."""

    def __init__(self, save: Callable[[Envelope], Any]) -> None:
        super().__init__(self.Options())
        self._given = save

    async def save(self, envelope: Envelope) -> Outcome:  # type: ignore[override]
        outcome: Outcome = await self._given(envelope)
        return outcome


def test_async_mails_run_beside_each_other_up_to_the_limit(mail: Mail) -> None:
    now = peak = 0

    async def save(envelope: Envelope) -> Outcome:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        await asyncio.sleep(0.001)
        now -= 1
        return NO if envelope.subject == "3" else None

    mails = [mail(str(number)) for number in range(10)]
    last = Stage()
    run(mails, Async(save), last, concurrency=4)
    assert peak == 4
    assert fates(mails) == [NO if number == 3 else "accepted" for number in range(10)]
    assert last.seen == [str(number) for number in range(10) if number != 3]


def test_async_errors_concern_one_mail(mail: Mail) -> None:
    async def save(envelope: Envelope) -> Outcome:
        await asyncio.sleep(0)
        match envelope.subject:
            case "raise":
                raise ValueError
            case "user":
                raise errors.NoSuchUser
            case "gone":
                message = "gone"
                raise errors.Unavailable(message)
            case "cancel":
                raise asyncio.CancelledError
            case "timeout":
                raise TimeoutError
        return None

    names = ["a", "raise", "user", "gone", "cancel", "timeout", "b"]
    mails = [mail(name) for name in names]
    run(mails, Async(save))
    user = Reply(550, "5.1.1", errors.NoSuchUser.text)
    expected = ["accepted", TRY_LATER, user, TRY_LATER, TRY_LATER, TRY_LATER, "accepted"]
    assert fates(mails) == expected


def test_an_async_mail_is_cancelled_at_its_time_limit(
    mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled: list[str] = []

    async def save(envelope: Envelope) -> Outcome:
        if envelope.subject == "slow":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(envelope.queued_id)
                raise
        return None

    mails = [mail("a"), mail("slow")]
    run(mails, Async(save), save_timeout=0.2)
    assert fates(mails) == ["accepted", TRY_LATER]
    assert cancelled == [mails[1].queued_id]
    assert mails[1].queued_id in caplog.text


def test_an_async_batch_is_cancelled_at_its_time_limit(mail: Mail) -> None:
    class Slow(Processor):
        async def save_batch(  # type: ignore[override]
            self, envelopes: Sequence[Envelope]
        ) -> Sequence[Outcome]:
            await asyncio.Event().wait()
            return [None] * len(envelopes)

    mails = [mail("a"), mail("b")]
    run(mails, Slow(Processor.Options()), save_timeout=0.2)
    assert fates(mails) == [TRY_LATER, TRY_LATER]


def test_an_async_batch_at_its_time_limit_is_not_asked_again(mail: Mail) -> None:
    """Whether it was saved is not known, and nobody waits for the answer any more."""
    batches: list[int] = []

    class Slow(Processor):
        stores = True
        atomic = True

        async def save_batch(  # type: ignore[override]
            self, envelopes: Sequence[Envelope]
        ) -> Sequence[Outcome]:
            batches.append(len(envelopes))
            await asyncio.Event().wait()
            return [None] * len(envelopes)

        async def validate_batch(  # type: ignore[override]
            self, checks: Sequence[Check]
        ) -> Sequence[Reply | None]:
            batches.append(len(checks))
            await asyncio.Event().wait()
            return [None] * len(checks)

    mails = [mail("a"), mail("b")]
    run(mails, Slow(Processor.Options()), save_timeout=0.1)
    assert (fates(mails), batches) == ([TRY_LATER, TRY_LATER], [2])
    checks = asked("a@example.com", "b@example.com", "c@example.com")
    run(checks, Slow(Processor.Options()), task="validate", check_timeout=0.1)
    assert [check.verdicts for check in checks] == [[TRY_LATER]] * 3
    assert batches == [2, 3]


def test_an_old_mail_that_nobody_waits_for_has_its_whole_time() -> None:
    async def save(envelope: Envelope) -> Outcome:
        await asyncio.sleep(0)
        return None

    envelope = Envelope.create(b"x", rcpt_to=["a@b.example"], received_at=time.time() - 3600)
    run([envelope], Async(save))
    assert fate(envelope) == "accepted"


def test_a_mail_has_no_more_than_its_time_where_the_clock_is_set_back() -> None:
    async def save(envelope: Envelope) -> Outcome:
        await asyncio.Event().wait()
        return None

    envelope = Envelope.create(b"x", rcpt_to=["a@b.example"], received_at=time.time() + 3600)
    run([envelope], Async(save), save_timeout=0.1)
    assert fate(envelope) == TRY_LATER


def test_async_stages_open_and_close_on_their_own_loop(mail: Mail) -> None:
    loops: list[object] = []

    class Own(Processor):
        async def open(self) -> None:  # type: ignore[override]
            loops.append(asyncio.get_running_loop())

        async def close(self) -> None:  # type: ignore[override]
            loops.append(asyncio.get_running_loop())

        async def save(self, envelope: Envelope) -> Outcome:  # type: ignore[override]
            loops.append(asyncio.get_running_loop())
            return None

    run([mail()], Own(Processor.Options()))
    assert len(loops) == 3
    assert len(set(loops)) == 1


def test_an_exit_of_an_async_stage_gets_out(mail: Mail) -> None:
    async def save(envelope: Envelope) -> Outcome:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run([mail(), mail()], Async(save))
    # asyncio tells of each task that ended like this when it is collected. In another test that may
    # be while a module is parsed, and formatting the traceback parses too: CPython 3.11 fails then.
    gc.collect()


def test_an_abandoned_chain_begins_no_more_async_mails(mail: Mail) -> None:
    seen: list[str] = []

    async def save(envelope: Envelope) -> None:
        seen.append(envelope.subject)
        await asyncio.sleep(0)
        if envelope.subject == "2":
            chain.pulse.abandoned = True

    mails = [mail(str(number)) for number in range(8)]
    with chain_of(Async(save), task="spooled", concurrency=2) as chain:
        chain.run(mails)
    # Those beside it had begun.
    assert seen[:3] == ["0", "1", "2"]
    assert len(seen) <= 4
    assert fates(mails) == ["accepted"] * len(seen) + ["unanswered"] * (8 - len(seen))


# Checks


class Users(Processor):
    """Knows the user `me`; raises for others."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(self.Options())
        self._error = error

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        if recipient.user != "me" and self._error is not None:
            raise self._error
        return None if recipient.user == "me" else NO


class Asked:
    """A check that remembers its answer."""

    expired = False

    def __init__(self, check: Check) -> None:
        self.transaction = check.transaction
        self.recipient = check.recipient
        self.verdicts: list[Reply | None] = []

    def answer(self, reply: Reply | None = None) -> bool:
        self.verdicts.append(reply)
        return len(self.verdicts) == 1


def asked(*recipients: str) -> list[Asked]:
    return [Asked(make_check(recipient)) for recipient in recipients]


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (None, NO),
        (ValueError("x"), TRY_LATER),
        (errors.NoSuchUser(), Reply(550, "5.1.1", errors.NoSuchUser.text)),
    ],
)
def test_each_recipient_gets_its_own_answer(error: Exception | None, reply: Reply) -> None:
    checks = asked("me@example.com", "you@example.com", "me@example.org")
    run(checks, Users(error), task="validate")
    assert [check.verdicts for check in checks] == [[None], [reply], [None]]


def test_a_real_check_is_answered() -> None:
    check = make_check("me@example.com")
    run([check], Users(), task="validate")
    assert not check.answer(TRY_LATER), "it was answered before"


def test_an_async_validator() -> None:
    class Slow(Processor):
        async def validate(  # type: ignore[override]
            self, transaction: Transaction, recipient: Address
        ) -> Reply | None:
            if recipient.user == "slow":
                await asyncio.Event().wait()
            return None

    checks = asked("fast@example.com", "slow@example.com")
    run(checks, Slow(Processor.Options()), task="validate", check_timeout=0.1)
    assert [check.verdicts for check in checks] == [[None], [TRY_LATER]]


def test_a_validate_batch_that_raised_is_asked_again_one_by_one() -> None:
    class Table(Processor):
        def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
            if any(check.recipient.user == "bad" for check in checks):
                raise ValueError
            return [None] * len(checks)

    checks = asked("a@example.com", "bad@example.com", "b@example.com")
    run(checks, Table(Processor.Options()), task="validate")
    assert [check.verdicts for check in checks] == [[None], [TRY_LATER], [None]]
