"""The chain: who is asked what, what becomes of each answer, and of each error."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pydantic
import pytest

from guerrilla import errors
from guerrilla._core import Address, Check, Envelope, Transaction, make_check
from guerrilla.base import Processor, TaskName
from guerrilla.chain import Chain, ChainSettings, build
from guerrilla.errors import ConfigError, StartError
from guerrilla.registry import DECORATED, Registry
from guerrilla.reply import TRY_LATER, Outcome, Replies, Reply

Mail = Callable[..., Envelope]
NO = Reply.reject()


class Stage(Processor):
    """A stage whose `save` is given, and which notes what it is asked."""

    def __init__(self, save: Callable[[Envelope], Any] | None = None) -> None:
        super().__init__(self.Options())
        self.seen: list[str] = []
        self.did: list[str] = []
        self._given = save

    def open(self) -> None:
        self.did.append("open")

    def close(self) -> None:
        self.did.append("close")

    def save(self, envelope: Envelope) -> Outcome:
        self.seen.append(envelope.subject)
        return self._given(envelope) if self._given else None


class Batch(Stage):
    """A stage that takes batches; `batch` is given."""

    def __init__(self, batch: Callable[[Sequence[Envelope]], Any]) -> None:
        super().__init__()
        self._batch = batch
        self.sizes: list[int] = []

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        self.sizes.append(len(envelopes))
        answer: Sequence[Outcome] = self._batch(envelopes)
        return answer


class Atomic(Batch):
    atomic = True


class Store(Stage):
    stores = True


def chain_of(*processors: Processor, task: TaskName = "save", **settings: Any) -> Chain[Any]:
    stages = [(type(processor).__name__, processor) for processor in processors]
    return Chain(stages, task, ChainSettings(**settings))


def run(items: Sequence[Any], *processors: Processor, **settings: Any) -> None:
    with chain_of(*processors, **settings) as chain:
        chain.run(items)


def fate(envelope: Envelope) -> object:
    """The verdict, or a word where there is none. Ends the envelope."""
    if envelope.answered is not None:
        return envelope.answered
    return "unanswered" if envelope.answer(TRY_LATER) else "accepted"


def fates(envelopes: Sequence[Envelope]) -> list[object]:
    return [fate(envelope) for envelope in envelopes]


def when(subject: str, act: Callable[[], Any]) -> Callable[[Envelope], Any]:
    return lambda envelope: act() if envelope.subject == subject else None


def throw(error: BaseException) -> Callable[..., Any]:
    def act(*args: object) -> Any:
        raise error

    return act


def ids(envelopes: Sequence[Envelope]) -> set[str]:
    return {envelope.queued_id for envelope in envelopes}


def errors_logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


# Answers


def test_reaching_the_end_is_acceptance(mail: Mail) -> None:
    first, second = Stage(), Stage()
    envelope = mail("a")
    run([envelope], first, second)
    assert (first.seen, second.seen, fate(envelope)) == (["a"], ["a"], "accepted")


def test_a_reply_stops_one_mail_and_no_other(mail: Mail) -> None:
    mails = [mail("a"), mail("b"), mail("c")]
    last = Stage()
    run(mails, Stage(when("b", lambda: NO)), Batch(lambda batch: [None] * len(batch)), last)
    assert fates(mails) == ["accepted", NO, "accepted"]
    assert last.seen == ["a", "c"]


def test_a_mail_is_answered_after_its_own_save_and_not_with_its_batch(mail: Mail) -> None:
    mails = [mail("a"), mail("b")]
    seen: list[bool] = []

    def look(envelope: Envelope) -> None:
        if envelope is mails[1]:
            seen.append(mails[0].answer(NO))

    run(mails, Stage(look))
    assert seen == [False]


def test_one_reply_a_recipient(mail: Mail) -> None:
    envelope = mail("a", "one@example.com", "two@example.com")
    replies = Replies([Reply.ok(), NO])
    run([envelope], Stage(lambda _: replies))
    assert fate(envelope) == replies


@pytest.mark.parametrize(
    "nonsense",
    [
        "250 OK",
        250,
        True,
        b"",
        [Reply.ok()],
        (Reply.ok(),),
        Replies([Reply.ok(), Reply.ok()]),
        Replies([]),
        Reply,
    ],
)
def test_nonsense_is_451_and_logged_once_with_the_id(
    mail: Mail, nonsense: object, caplog: pytest.LogCaptureFixture
) -> None:
    mails = [mail("a"), mail("b")]
    run(mails, Stage(when("a", lambda: nonsense)))
    assert fates(mails) == [TRY_LATER, "accepted"]
    (record,) = errors_logged(caplog)
    assert mails[0].queued_id in record.getMessage()


@pytest.mark.parametrize(
    "nonsense", [None, [], [None], [None] * 3, "ab", Replies([NO, NO]), {1: None, 2: None}]
)
def test_outcomes_that_belong_to_nobody_are_451_for_the_batch(
    mail: Mail, nonsense: object, caplog: pytest.LogCaptureFixture
) -> None:
    mails = [mail("a"), mail("b")]
    run(mails, Batch(lambda _: nonsense))
    assert fates(mails) == [TRY_LATER, TRY_LATER]
    (record,) = errors_logged(caplog)
    assert all(queued_id in record.getMessage() for queued_id in ids(mails))


def test_one_bad_outcome_in_a_batch_harms_no_other(mail: Mail) -> None:
    mails = [mail("a"), mail("b"), mail("c")]
    run(mails, Batch(lambda _: [None, "x", NO]))
    assert fates(mails) == ["accepted", TRY_LATER, NO]


def test_an_empty_chain_accepts(mail: Mail) -> None:
    envelope = mail()
    run([envelope])
    assert fate(envelope) == "accepted"


def test_a_stage_without_the_method_is_not_asked(mail: Mail) -> None:
    class Validator(Processor):
        def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
            raise AssertionError

    envelope = mail()
    with chain_of(Validator(Processor.Options())) as chain:
        chain.run([envelope])
        assert chain._segments == []
    assert fate(envelope) == "accepted"


def test_what_a_batch_stage_calls_of_its_parent_is_save_of_each(mail: Mail) -> None:
    stage = Batch(lambda envelopes: Processor.save_batch(stage, envelopes))
    stage._given = when("b", lambda: NO)
    mails = [mail("a"), mail("b")]
    run(mails, stage)
    assert fates(mails) == ["accepted", NO]


# Errors


def test_an_exception_fails_one_mail_of_a_save_stage(
    mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    mails = [mail("a"), mail("b"), mail("c")]
    run(mails, Stage(when("b", throw(ValueError("poison")))))
    assert fates(mails) == ["accepted", TRY_LATER, "accepted"]
    (record,) = errors_logged(caplog)
    assert mails[1].queued_id in record.getMessage()
    assert record.exc_info


def test_a_delivery_error_is_its_reply_for_that_mail(mail: Mail) -> None:
    mails = [mail("a"), mail("b")]
    run(mails, Stage(when("a", throw(errors.NoSuchUser()))))
    assert fates(mails) == [Reply(550, "5.1.1", errors.NoSuchUser.text), "accepted"]


def test_an_atomic_batch_that_raised_is_asked_again_one_by_one(
    mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    def save(batch: Sequence[Envelope]) -> list[Outcome]:
        if any(envelope.subject == "b" for envelope in batch):
            message = "poison"
            raise ValueError(message)
        return [None] * len(batch)

    mails = [mail("a"), mail("b"), mail("c")]
    stage = Atomic(save)
    run(mails, stage)
    assert fates(mails) == ["accepted", TRY_LATER, "accepted"]
    assert stage.sizes == [3, 1, 1, 1]
    (record,) = errors_logged(caplog)
    assert record.exc_info
    assert mails[1].queued_id in record.getMessage()
    assert mails[0].queued_id not in record.getMessage()


def test_another_batch_that_raised_is_451_and_not_repeated(
    mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    mails = [mail("a"), mail("b")]
    stage = Batch(throw(ValueError("half saved")))
    run(mails, stage)
    assert fates(mails) == [TRY_LATER, TRY_LATER]
    assert stage.sizes == [2]
    (record,) = errors_logged(caplog)
    assert record.exc_info
    assert all(queued_id in record.getMessage() for queued_id in ids(mails))


def test_a_refusal_raised_for_a_batch_refuses_none_of_it_for_good(mail: Mail) -> None:
    mails = [mail("a"), mail("b")]
    run(mails, Batch(throw(errors.NoSuchUser())))
    assert fates(mails) == [TRY_LATER, TRY_LATER]


def test_a_refusal_raised_for_an_atomic_batch_refuses_whom_it_concerns(mail: Mail) -> None:
    def save(batch: Sequence[Envelope]) -> list[Outcome]:
        if any(envelope.subject == "a" for envelope in batch):
            raise errors.QuotaExceeded
        return [None] * len(batch)

    mails = [mail("a"), mail("b")]
    run(mails, Atomic(save))
    assert fates(mails) == [Reply(452, "4.2.2", errors.QuotaExceeded.text), "accepted"]


@pytest.mark.parametrize("kind", [Batch, Atomic])
def test_unavailable_is_451_for_the_batch_without_a_second_try(
    mail: Mail, kind: type[Batch], caplog: pytest.LogCaptureFixture
) -> None:
    mails = [mail("a"), mail("b")]
    stage = kind(throw(errors.Unavailable("connection lost")))
    run(mails, stage)
    assert fates(mails) == [TRY_LATER, TRY_LATER]
    assert stage.sizes == [2]
    (record,) = errors_logged(caplog)
    assert "connection lost" in record.getMessage()


def test_unavailable_in_a_save_stage_spares_the_rest_the_wait(mail: Mail) -> None:
    mails = [mail("a"), mail("b"), mail("c")]
    stage = Stage(when("b", throw(errors.Unavailable("gone"))))
    run(mails, stage)
    assert fates(mails) == ["accepted", TRY_LATER, TRY_LATER]
    assert stage.seen == ["a", "b"]


def test_unavailable_while_repeating_stops_the_repeating(mail: Mail) -> None:
    def save(batch: Sequence[Envelope]) -> list[Outcome]:
        if len(batch) > 1:
            raise ValueError
        if batch[0].subject == "b":
            message = "gone"
            raise errors.Unavailable(message)
        return [None]

    mails = [mail("a"), mail("b"), mail("c")]
    stage = Atomic(save)
    run(mails, stage)
    assert fates(mails) == ["accepted", TRY_LATER, TRY_LATER]
    assert stage.sizes == [3, 1, 1]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_gets_out(mail: Mail, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        run([mail()], Stage(throw(kind())))


# Storing


def test_who_is_not_waited_for_is_not_stored(
    mail: Mail, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "guerrilla.stages._core.claim", lambda mails: [m.subject != "gone" for m in mails]
    )
    caplog.set_level(logging.INFO, "guerrilla")
    mails = [mail("a"), mail("gone"), mail("c")]
    first, store = Stage(), Store()
    run(mails, first, store)
    assert first.seen == ["a", "gone", "c"]
    assert store.seen == ["a", "c"]
    assert fates(mails) == ["accepted", TRY_LATER, "accepted"]
    assert mails[1].queued_id in caplog.text


def test_a_batch_is_claimed_once_and_only_before_a_storing_stage(
    mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def claim(mails: Sequence[Envelope]) -> list[bool]:
        order.append(f"claim {len(mails)}")
        return [True] * len(mails)

    def note(name: str) -> Callable[[Envelope], None]:
        return lambda envelope: order.append(name)

    monkeypatch.setattr("guerrilla.stages._core.claim", claim)
    run([mail()], Stage(note("before")), Store(note("first")), Store(note("second")))
    assert order == ["before", "claim 1", "first", "second"]
    order.clear()
    run([mail()], Stage(note("only")))
    assert order == ["only"]


def test_an_acceptance_before_the_storing_stage_is_logged_as_discarded(
    mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    envelope = mail()
    store = Store()
    run([envelope], Stage(lambda _: Reply.ok()), store)
    assert fate(envelope) == Reply.ok()
    assert store.seen == []
    assert any(
        envelope.queued_id in record.getMessage() and "discarded" in record.getMessage()
        for record in caplog.records
    )


def test_an_acceptance_by_the_storing_stage_is_not_discarded(
    mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    run([mail()], Store(lambda _: Reply.ok()))
    run([mail()], Stage(lambda _: NO), Store())
    assert "discarded" not in caplog.text


def test_a_chain_that_stores_nothing_says_so() -> None:
    assert chain_of(Stage(), Store()).warnings() == []
    (warning,) = chain_of(Stage()).warnings()
    assert "stores nothing" in warning


def test_a_stage_that_does_nothing_in_its_chain_is_named() -> None:
    (warning,) = chain_of(Stage(), task="validate").warnings()
    assert "validate_process: Stage" in warning


# Opening


def test_stages_open_in_order_and_close_in_reverse(mail: Mail) -> None:
    order: list[str] = []

    class Noted(Stage):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def open(self) -> None:
            order.append(f"open {self.name}")

        def close(self) -> None:
            order.append(f"close {self.name}")

    run([mail()], Noted("a"), Noted("b"))
    assert order == ["open a", "open b", "close b", "close a"]


def test_an_error_while_opening_closes_those_opened() -> None:
    class Broken(Stage):
        def open(self) -> None:
            message = "refused"
            raise OSError(message)

    first, broken, last = Stage(), Broken(), Stage()
    with pytest.raises(StartError, match="Broken: OSError: refused"):
        chain_of(first, broken, last).open()
    assert (first.did, broken.did, last.did) == (["open", "close"], [], [])


def test_an_error_while_closing_closes_the_others(
    mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    class Sticky(Stage):
        def close(self) -> None:
            message = "stuck"
            raise OSError(message)

    first = Stage()
    run([mail()], first, Sticky())
    assert first.did == ["open", "close"]
    assert "stuck" in caplog.text


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


def test_an_old_mail_that_nobody_waits_for_has_its_whole_time() -> None:
    async def save(envelope: Envelope) -> Outcome:
        await asyncio.sleep(0)
        return None

    envelope = Envelope.create(b"x", rcpt_to=["a@b.example"], received_at=time.time() - 3600)
    run([envelope], Async(save))
    assert fate(envelope) == "accepted"


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


# Building


class Wanting(Processor):
    class Options(pydantic.BaseModel):
        limit: int = 3
        place: str

    seen: ClassVar[list[pydantic.BaseModel]] = []

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.seen.append(options)

    def save(self, envelope: Envelope) -> Outcome:
        return None


@pytest.fixture
def registry() -> Registry:
    registry = Registry(DECORATED)
    registry.add("Wanting", Wanting)
    return registry


def test_each_processor_reads_its_own_keys(registry: Registry) -> None:
    chain = build("Hasher| wanting ", "save", {"place": "here", "other": 1}, registry)
    assert [name for name, _ in chain.stages] == ["Hasher", "wanting"]
    assert chain.stages[1][1].options.model_dump() == {"limit": 3, "place": "here"}


def test_everything_wrong_is_told_at_once_with_its_key(registry: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        build("HeaderParser|Wanting", "save", {"limit": "many"}, registry)
    unknown, *keys = caught.value.problems
    assert "'HeaderParser'" in unknown
    assert "'HeadersParser'" in unknown
    assert sorted(key.split(":")[0] for key in keys) == [
        "backend_config.limit",
        "backend_config.place",
    ]


def test_a_key_may_be_spelt_otherwise_than_its_field(registry: Registry) -> None:
    class Aliased(Processor):
        class Options(pydantic.BaseModel):
            class_: str = pydantic.Field(alias="Class")

    registry.add("Aliased", Aliased)
    chain = build("Aliased", "save", {"class": "a"}, registry)
    assert chain.stages[0][1].options.model_dump() == {"class_": "a"}


def test_an_error_while_making_one_is_told(registry: Registry) -> None:
    class Broken(Processor):
        def __init__(self, options: pydantic.BaseModel) -> None:
            message = "no licence"
            raise RuntimeError(message)

    registry.add("Broken", Broken)
    with pytest.raises(ConfigError, match="Broken: RuntimeError: no licence"):
        build("Broken", "save", {}, registry)


# The built-in ones


def test_the_standard_chain(mail: Mail) -> None:
    envelope = mail("hi", "one@example.com", "two@example.com")
    values = {"primary_mail_host": "mx.example.net"}
    with build("HeadersParser|Hasher|Header|Debugger", "save", values, Registry()) as chain:
        chain.run([envelope])
    assert fate(envelope) == "accepted"
    assert len(envelope.hashes) == 2
    assert b"mx.example.net" in envelope.delivery_header_for(1)


def test_debugger_logs_sender_recipients_and_headers(
    mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "guerrilla")
    envelope = mail("hi", "one@example.com")
    with build("Debugger", "save", {"log_received_mails": True}, Registry()) as chain:
        chain.run([envelope])
    for part in (envelope.queued_id, "from@example.org", "one@example.com", "Subject"):
        assert part in caplog.text


def test_debugger_is_silent_unless_told(mail: Mail, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "guerrilla")
    with build("Debugger", "save", {}, Registry()) as chain:
        chain.run([mail()])
    assert caplog.text == ""


def test_debugger_fails_on_purpose_after_a_sleep_of_one(
    mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("guerrilla.processors.debugger.time.sleep", slept.append)
    for seconds in (1, 2):
        envelope = mail()
        with build("Debugger", "save", {"sleep_seconds": seconds}, Registry()) as chain:
            chain.run([envelope])
        assert fate(envelope) == (TRY_LATER if seconds == 1 else "accepted")
    assert slept == [1, 2]
