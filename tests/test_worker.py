"""Workers: what they do with a batch, and what becomes of those that die or hang."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from guerrilla._core import Envelope
from guerrilla.engine.chain import AwayError, Chain
from guerrilla.engine.supervisor import Supervisor
from guerrilla.engine.worker import SPARE, Worker, WorkerPool
from guerrilla.errors import StartError
from guerrilla.reply import TRY_LATER, Reply
from tests.chains import Mail, fate
from tests.daemons import Until
from tests.pools import HANG_AFTER, Bench, Trial


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    assert bench.stop()


def looked(bench: Bench, now: float) -> WorkerPool[Envelope]:
    """The pool after the supervisor looked at it."""
    bench.pool.check(now)
    return bench.pool


def saved(bench: Bench, mail: Mail, until: Until) -> bool:
    """Whether a mail that is sent now is refused by the stage, as it should be."""
    envelope = mail("no")
    bench.feed.put(envelope)
    until(lambda: envelope.answered is not None)
    return envelope.answered == Reply.reject()


def test_each_worker_opens_and_closes_its_own_chain_in_its_own_thread() -> None:
    bench = Bench(size=3)
    bench.start()
    assert bench.stop()
    threads = {trial.opened_in for trial in bench.trials}
    assert len(threads) == 3
    assert [trial.opened_in for trial in bench.trials] == [t.closed_in for t in bench.trials]


def test_what_is_queued_is_saved_before_the_end(bench: Bench, mail: Mail) -> None:
    mails = [mail("no") for _ in range(50)]
    bench.pool.open()
    bench.feed.put(*mails)
    bench.pool.begin()
    assert bench.stop()
    assert all(envelope.answered == Reply.reject() for envelope in mails)


def test_what_comes_while_the_core_is_stopping_is_saved(
    bench: Bench, mail: Mail, until: Until
) -> None:
    bench.start()
    bench.feed.stopping = True
    assert saved(bench, mail, until)
    assert saved(bench, mail, until)


def test_an_exit_answers_the_batch_and_a_new_worker_goes_on(
    mail: Mail, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    mails = [mail("no"), mail("exit"), mail("no")]
    bench.feed.put(*mails)
    bench.start()
    until(lambda: bench.trials[0].closed_in)
    until(lambda: bench.pool._workers[0].ended)
    bench.pool.check(0.0)
    assert [fate(envelope) for envelope in mails] == [Reply.reject(), TRY_LATER, TRY_LATER]
    assert saved(bench, mail, until)
    assert (bench.pool.size, bench.pool.replaced, len(bench.trials)) == (1, 1, 2)
    failed = [record for record in caplog.records if record.exc_info]
    assert len(failed) == 1
    assert mails[1].queued_id in failed[0].getMessage()
    assert bench.stop()


def test_a_fault_of_the_chain_itself_does_not_end_the_worker(
    bench: Bench, mail: Mail, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.start()

    def broken(self: Chain[Any], items: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(Chain, "run", broken)
        envelope = mail("no")
        bench.feed.put(envelope)
        until(lambda: envelope.answered == TRY_LATER)
    assert saved(bench, mail, until)
    assert len(bench.trials) == 1


def test_a_worker_that_hangs_is_abandoned_and_comes_back_quietly(
    bench: Bench, mail: Mail, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start()
    hanging = bench.hang(mail, 0)
    bench.pool.check(HANG_AFTER - 1)
    assert bench.pool.abandoned == 0
    bench.pool.check(HANG_AFTER)
    assert (bench.pool.abandoned, bench.pool.size) == (1, 1)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert hanging.queued_id in record.getMessage()
    assert "self.release.wait" in (record.stack_info or "")
    assert saved(bench, mail, until)
    bench.trials[0].release.set()
    until(lambda: bench.trials[0].closed_in)
    until(lambda: looked(bench, HANG_AFTER + 1).abandoned == 0)
    assert len(bench.trials) == 2
    assert saved(bench, mail, until)


def test_a_worker_whose_mails_are_all_answered_is_abandoned_sooner(
    bench: Bench, mail: Mail, until: Until
) -> None:
    bench.start()
    hanging = bench.hang(mail, 0)
    bench.pool.check(HANG_AFTER / 2)
    assert bench.pool.abandoned == 0
    hanging.answer(TRY_LATER)
    bench.pool.check(HANG_AFTER / 2 - 1)
    assert bench.pool.abandoned == 0
    bench.pool.check(HANG_AFTER / 2)
    assert bench.pool.abandoned == 1
    assert saved(bench, mail, until)


def test_slow_progress_is_no_hang(bench: Bench, mail: Mail) -> None:
    bench.start()
    bench.hang(mail, 0)
    chain = bench.pool._workers[0]._chain
    assert chain is not None
    for step in range(1, 5):
        chain.pulse.count += 1
        bench.pool.check(step * (HANG_AFTER - 1))
    assert bench.pool.abandoned == 0


def test_waiting_is_no_hang(bench: Bench) -> None:
    bench.start()
    for step in range(5):
        bench.pool.check(step * HANG_AFTER)
    assert bench.pool.abandoned == 0


def test_too_many_that_hang_close_the_intake_until_one_comes_back(
    bench: Bench, mail: Mail, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    intake: list[bool] = []
    supervisor = Supervisor([bench.pool])
    bench.pool.set_intake = intake.append
    bench.start()
    for number in range(1 + SPARE):
        until(lambda number=number: len(bench.trials) > number)  # type: ignore[misc]
        assert intake == []
        bench.hang(mail, number, now=number * 1000.0)
        bench.pool.check(number * 1000.0 + HANG_AFTER)
        supervisor._adjust_intake()
    assert intake == [False]
    assert "restart" in caplog.text
    assert (bench.pool.size, bench.pool.abandoned) == (0, 1 + SPARE)
    bench.trials[2].release.set()
    until(lambda: looked(bench, 10_000.0).abandoned == SPARE)
    supervisor._adjust_intake()
    assert intake == [False, True]
    assert bench.pool.size == 1
    assert saved(bench, mail, until)


def test_the_supervisor_replaces_on_its_own(bench: Bench, mail: Mail, until: Until) -> None:
    supervisor = Supervisor([bench.pool])
    bench.start()
    supervisor.start()
    bench.feed.put(mail("exit"))
    until(lambda: len(bench.trials) == 2)
    assert saved(bench, mail, until)
    supervisor.stop()


def test_a_failing_supervisor_goes_on(
    bench: Bench, until: Until, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def check(now: float) -> None:
        looks.append(now)
        raise RuntimeError

    monkeypatch.setattr(bench.pool, "check", check)
    supervisor = Supervisor([bench.pool])
    supervisor.start()
    bench.pool.wake()
    until(lambda: len(looks) >= 2)
    supervisor.stop()
    assert "it goes on" in caplog.text


def test_a_chain_that_does_not_open_stops_the_start(bench: Bench) -> None:
    bench.fail = StartError(["no database", "no disk"])
    with pytest.raises(StartError) as caught:
        bench.pool.open()
    assert caught.value.problems == ("no database", "no disk")


def test_the_second_worker_that_does_not_open_ends_the_first() -> None:
    bench = Bench(size=2)
    good = bench.make

    def make() -> Chain[Envelope]:
        if bench.trials:
            message = "only once"
            raise ValueError(message)
        return good()

    bench.pool._make = make
    with pytest.raises(StartError, match="ValueError: only once"):
        bench.pool.open()
    assert bench.trials[0].closed_in is not None


def test_a_chain_that_hangs_in_opening_stops_the_start(
    until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(size=2, open_limit=5.0)
    release = threading.Event()
    good = bench.make

    def make() -> Chain[Envelope]:
        chain = good()
        if len(bench.trials) == 2:

            def hang() -> None:
                assert release.wait(30)

            bench.trials[1].open = hang  # type: ignore[method-assign]
        return chain

    bench.pool._make = make
    with pytest.raises(StartError, match=r"^Trial: open has not ended within 5 s \(guerrilla-"):
        bench.pool.open()
    assert bench.trials[0].closed_in is not None
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "release.wait" in (record.stack_info or "")
    release.set()
    until(lambda: bench.trials[1].closed_in)


def test_an_interrupt_ends_the_wait_for_a_chain_that_hangs_in_opening() -> None:
    bench = Bench()
    release = threading.Event()
    before = signal.getsignal(signal.SIGUSR2)

    def make() -> Chain[Envelope]:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
        assert release.wait(30)
        return Chain([], "save")

    bench.pool._make = make
    signal.signal(signal.SIGUSR2, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            bench.pool.open()
    finally:
        signal.signal(signal.SIGUSR2, before)
        release.set()


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def test_a_successor_that_does_not_open_is_tried_again_later(
    bench: Bench, mail: Mail, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start()
    bench.fail = StartError(["no database"])
    bench.feed.put(mail("exit"))
    until(lambda: bench.pool._workers[0].ended)
    bench.pool.check(0.0)
    until(lambda: bench.pool._workers[0].ended)
    bench.pool.check(0.0)
    assert bench.pool.size == 0
    assert "no database" in caplog.text
    bench.fail = None
    bench.pool.check(0.5)
    assert bench.pool.size == 0
    bench.pool.check(1.5)
    assert bench.pool.size == 1
    assert saved(bench, mail, until)


def test_a_pool_opens_without_what_is_away(
    mail: Mail, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """One worker tries at a time, ever more rarely; once it could, so do all others."""
    bench = Bench(size=3, task="spooled")
    bench.fail = AwayError(["no database"])
    bench.pool.open(may_be_away=True)
    bench.pool.begin()
    assert (bench.pool.size, bench.pool.problems) == (0, ("no database",))
    assert "tried again in 1 s: no database" in caplog.text
    began = bench.pool._not_before - 1
    for wait in (1, 2, 4, 8, 16, 30, 30):
        bench.pool.check(began + wait - 0.5)
        assert bench.pool.size == 0
        bench.pool.check(began := began + wait + 0.5)
        assert bench.pool.size == 1
        until(lambda: bench.pool._workers[0].ended)
        bench.pool.check(began)
    bench.fail = None
    bench.pool.check(began := began + 30)
    until(lambda: bench.pool.ready == 1)
    assert bench.pool.size == 1
    bench.pool.check(began)
    until(lambda: bench.pool.ready == 3)
    assert (bench.pool.problems, bench.pool.replaced) == ((), 0)
    assert saved(bench, mail, until)
    assert bench.stop()


def test_a_pool_opens_without_what_hangs(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(open_limit=0.2, task="spooled")
    release = threading.Event()
    monkeypatch.setattr(Trial, "open", lambda _trial: release.wait(30))
    bench.pool.open(may_be_away=True)
    bench.pool.begin()
    assert (bench.pool.size, bench.pool.ready) == (1, 0)
    (problem,) = bench.pool.problems
    assert problem.startswith("Trial: open has not ended within 0.2 s")
    release.set()
    until(lambda: bench.pool.ready == 1)
    bench.pool.check(0.0)
    assert bench.pool.problems == ()
    assert bench.stop()


def test_only_what_is_away_is_tried_again(bench: Bench) -> None:
    bench.fail = StartError(["broken"])
    with pytest.raises(StartError, match="broken"):
        bench.pool.open(may_be_away=True)


def test_what_is_away_for_days_is_still_tried(bench: Bench, until: Until) -> None:
    bench.start()
    bench.pool._failures = 5_000
    bench.feed.error = RuntimeError("no core")
    until(lambda: bench.pool._workers[0].ended)
    bench.feed.error = None
    bench.pool.check(0.0)
    bench.pool.check(29.0)
    assert bench.pool.size == 0
    bench.pool.check(30.0)
    assert bench.pool.size == 1


def test_a_queue_that_fails_is_not_asked_in_a_hurry(
    bench: Bench, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    bench.feed.error = RuntimeError("no core")
    bench.start()
    until(lambda: bench.pool._workers[0].ended)
    bench.pool.check(0.0)
    bench.pool.check(0.5)
    assert bench.pool.size == 0
    assert "RuntimeError" in caplog.text
    bench.feed.error = None
    bench.pool.check(2.0)
    assert bench.pool.size == 1


def test_the_end_does_not_wait_for_an_abandoned_worker(bench: Bench, mail: Mail) -> None:
    bench.start()
    bench.hang(mail, 0)
    bench.pool.check(HANG_AFTER)
    bench.feed.stopping = True
    assert bench.pool.end(10)


def test_the_end_tells_when_a_worker_is_still_busy(bench: Bench, mail: Mail) -> None:
    bench.start()
    bench.hang(mail, 0)
    bench.feed.stopping = True
    assert not bench.pool.end(0.05)


def test_the_end_waits_for_a_successor_that_is_just_starting(
    bench: Bench, mail: Mail, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, go = threading.Event(), threading.Event()
    start = Worker.start

    def slowly(worker: Worker[Envelope]) -> None:
        starting.set()
        assert go.wait(30)
        start(worker)

    bench.start()
    bench.feed.put(mail("exit"))
    until(lambda: bench.pool._workers[0].ended)
    monkeypatch.setattr(Worker, "start", slowly)
    supervisor = threading.Thread(target=bench.pool.check, args=(0.0,))
    supervisor.start()
    assert starting.wait(30)
    bench.feed.stopping = True
    ended: list[bool] = []
    stop = threading.Thread(target=lambda: ended.append(bench.pool.end(30)))
    stop.start()
    stop.join(0.2)  # An end that does not wait is over by then.
    assert ended == []
    go.set()
    supervisor.join(30)
    stop.join(30)
    assert ended == [True]
    assert bench.trials[-1].closed_in is not None
