"""The chain: who is asked what, what becomes of each answer, and of each error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import pytest

from guerrilla import errors
from guerrilla._core import Address, Envelope, Transaction
from guerrilla.engine.base import Processor
from guerrilla.errors import StartError
from guerrilla.reply import TRY_LATER, Outcome, Replies, Reply
from tests.chains import (
    NO,
    Atomic,
    Batch,
    Mail,
    Stage,
    Store,
    chain_of,
    errors_logged,
    fate,
    fates,
    ids,
    run,
    throw,
    when,
)

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


def test_who_is_answered_meanwhile_is_not_asked_about_again(mail: Mail) -> None:
    """As at a time limit: saved then, the mail would be there twice when its sender tries again."""
    mails = [mail("a"), mail("b"), mail("c")]
    asked: list[list[str]] = []

    def save(batch: Sequence[Envelope]) -> list[Outcome]:
        asked.append([envelope.subject for envelope in batch])
        if len(batch) > 1:
            raise ValueError
        if batch[0] is mails[0]:
            mails[1].answer(TRY_LATER)
        return [None]

    run(mails, Atomic(save))
    assert asked == [["a", "b", "c"], ["a"], ["c"]]
    assert fates(mails) == ["accepted", TRY_LATER, "accepted"]


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


# Progress


def test_the_pulse_beats_with_each_mail_and_each_stage(mail: Mail) -> None:
    beats: list[str] = []

    def note(_: Envelope) -> None:
        beats.append(str(chain.pulse.state()))

    def note_batch(batch: Sequence[Envelope]) -> list[None]:
        note(batch[0])
        return [None] * len(batch)

    with chain_of(Stage(note), Stage(note), Batch(note_batch), Stage(note)) as chain:
        chain.run([mail()])
        chain.run([mail()])
    assert len(beats) == 8
    assert len(set(beats)) == 8


# Abandoned: its worker hung for too long, and what is left of the batch is for others


def abandoned(
    mails: Sequence[Envelope], make: Callable[[Callable[[], Outcome]], list[Stage]]
) -> None:
    """Takes them through stages, one of which hangs until its worker is given up."""

    def give_up() -> Outcome:
        chain.pulse.abandoned = True
        return None

    with chain_of(*make(give_up), task="spooled") as chain:
        chain.run(mails)


def test_one_by_one_nothing_more_is_begun(mail: Mail) -> None:
    mails = [mail(name) for name in ("one", "two", "three")]
    stages: list[Stage] = []

    def make(give_up: Callable[[], Outcome]) -> list[Stage]:
        stages.extend([Stage(when("two", give_up)), Store()])
        return stages

    abandoned(mails, make)
    assert [stage.seen for stage in stages] == [["one", "two"], ["one"]]
    assert fates(mails) == ["accepted", "unanswered", "unanswered"]


def test_what_hung_at_the_end_of_the_chain_counts(mail: Mail) -> None:
    mails = [mail(name) for name in ("one", "two", "three")]
    abandoned(mails, lambda give_up: [Stage(), Store(when("two", give_up))])
    assert fates(mails) == ["accepted", "accepted", "unanswered"]


def test_no_stage_is_begun_behind_a_batch(mail: Mail) -> None:
    mails = [mail(name) for name in ("one", "two")]
    last = Store()
    abandoned(mails, lambda give_up: [Batch(lambda batch: [give_up() for _ in batch]), last])
    assert last.seen == []
    assert fates(mails) == ["unanswered"] * 2


def test_a_batch_that_hung_at_the_end_of_the_chain_counts(mail: Mail) -> None:
    mails = [mail(name) for name in ("one", "two")]
    abandoned(mails, lambda give_up: [Batch(lambda batch: [give_up() for _ in batch])])
    assert fates(mails) == ["accepted"] * 2


def test_a_batch_is_not_asked_again_one_by_one(mail: Mail) -> None:
    mails = [mail(name) for name in ("one", "two", "three")]

    def make(give_up: Callable[[], Outcome]) -> list[Stage]:
        def batch(envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
            if len(envelopes) > 1:
                raise ValueError
            return [when("two", give_up)(envelopes[0])]

        stages.append(Atomic(batch))
        return list(stages)

    stages: list[Atomic] = []
    abandoned(mails, make)
    assert stages[0].sizes == [3, 1, 1]
    assert fates(mails) == ["accepted", "accepted", "unanswered"]


# Storing


def test_who_is_not_waited_for_is_not_stored(
    mail: Mail, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "guerrilla.engine.stages._core.claim", lambda mails: [m.subject != "gone" for m in mails]
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

    monkeypatch.setattr("guerrilla.engine.stages._core.claim", claim)
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
