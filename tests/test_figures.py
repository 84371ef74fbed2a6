"""The figures of each stage."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from guerrilla import NoSuchUser, QuotaExceeded, StorageTimeout, Unavailable
from guerrilla._core import Envelope, StageFigures, Stopwatch
from guerrilla.cli import main
from guerrilla.commands.control import describe
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.engine.figures import StageBook
from guerrilla.reply import Outcome
from tests.chains import NO, Atomic, Batch, Mail, Stage, Store, chain_of, throw, when
from tests.daemons import Keeper, Make, config, send
from tests.running import RunningDaemon
from tests.wire import Wire, until


def _book(*processors: Processor, mails: Sequence[Envelope], **settings: Any) -> dict[str, Any]:
    """The figures of each stage by its name, after one batch."""
    book = StageBook()
    figures = book_of(book)
    with chain_of(*processors, figures=figures, **settings) as chain:
        chain.run(mails)
    return {stage["stage"]: stage for stage in book.snapshot()}


def book_of(book: StageBook) -> Callable[[str], StageFigures]:
    return lambda name: book.of("default", "save", name)


def _counts(stage: dict[str, Any]) -> tuple[int, int, int]:
    return stage["count"], stage["errors"], stage["calls"]


def test_a_stage_counts_those_it_was_asked_about(mail: Mail) -> None:
    found = _book(Stage(when("no", lambda: NO)), Store(), mails=[mail("a"), mail("no"), mail("b")])
    assert {name: _counts(stage) for name, stage in found.items()} == {
        "Stage": (3, 0, 3),
        "Store": (2, 0, 2),
    }


def test_a_batch_is_one_call_and_its_time_counts_once(mail: Mail) -> None:
    def slow(items: Sequence[Envelope]) -> list[Outcome]:
        time.sleep(0.06)
        return [None for _ in items]

    stage = _book(Batch(slow), mails=[mail("a"), mail("b"), mail("c")])["Batch"]
    assert _counts(stage) == (3, 0, 1)
    assert 0.06 <= stage["seconds"] < 10
    assert stage["buckets"]["0.05"] == 0
    assert stage["buckets"]["10"] == stage["buckets"]["+Inf"] == 1


def test_time_is_of_the_stage_that_took_it(mail: Mail) -> None:
    def sleep(envelope: Envelope) -> None:
        time.sleep(0.2)

    class Quick(Stage):
        pass

    found = _book(Stage(sleep), Quick(), mails=[mail("a"), mail("b")])
    assert found["Stage"]["seconds"] >= 0.4
    assert found["Quick"]["seconds"] < 0.2
    assert found["Quick"]["buckets"]["0.2"] == 2


@pytest.mark.parametrize(
    ("error", "errors"),
    [(ValueError(), 1), (StorageTimeout(), 1), (NoSuchUser(), 0), (QuotaExceeded(), 0)],
)
def test_an_error_is_what_the_stage_failed_for(mail: Mail, error: Exception, errors: int) -> None:
    stage = _book(Stage(when("bad", throw(error))), mails=[mail("bad"), mail("good")])["Stage"]
    assert _counts(stage) == (2, errors, 2)


def test_what_is_away_fails_for_all_that_wait_for_it(mail: Mail) -> None:
    mails = [mail("a"), mail("bad"), mail("b"), mail("c")]
    stage = _book(Stage(when("bad", throw(Unavailable("gone")))), mails=mails)["Stage"]
    assert _counts(stage) == (4, 3, 2)
    mails = [mail("a"), mail("b")]
    assert _counts(_book(Batch(throw(Unavailable("gone"))), mails=mails)["Batch"]) == (2, 2, 1)


def test_what_is_no_outcome_is_an_error(mail: Mail) -> None:
    assert _counts(_book(Stage(lambda _: 250), mails=[mail("a")])["Stage"]) == (1, 1, 1)
    mails = [mail("a"), mail("b")]
    assert _counts(_book(Batch(lambda _: [None]), mails=mails)["Batch"]) == (2, 2, 1)
    mails = [mail("a"), mail("b")]
    assert _counts(_book(Batch(lambda _: [None, 7]), mails=mails)["Batch"]) == (2, 1, 1)


def test_a_batch_that_is_asked_again_counts_each_mail_once(mail: Mail) -> None:
    def poisoned(items: Sequence[Envelope]) -> list[Outcome]:
        if any(item.subject == "bad" for item in items):
            raise ValueError
        return [None for _ in items]

    mails = [mail("a"), mail("bad"), mail("b")]
    assert _counts(_book(Atomic(poisoned), mails=mails)["Atomic"]) == (3, 1, 4)
    mails = [mail("a"), mail("bad"), mail("b")]
    assert _counts(_book(Batch(poisoned), mails=mails)["Batch"]) == (3, 3, 1)


def test_async_stages_have_a_time_each(mail: Mail) -> None:
    class Slow(Stage):
        async def save(self, envelope: Envelope) -> Outcome:  # type: ignore[override]
            if envelope.subject == "away":
                raise Unavailable("gone")
            await asyncio.sleep(20 if envelope.subject == "late" else 0.5)
            return None

    class Together(Processor):
        async def save_batch(  # type: ignore[override]
            self, envelopes: Sequence[Envelope]
        ) -> Sequence[Outcome]:
            await asyncio.sleep(0.05)
            return [None for _ in envelopes]

    mails = [mail("a"), mail("b"), mail("away"), mail("late")]
    found = _book(Slow(), Stage(), Together(Processor.Options()), mails=mails, save_timeout=4)
    assert _counts(found["Slow"]) == (4, 2, 4)
    # Side by side, and yet each has its own: twice 0.5, and 4 less what the limit ran before.
    assert found["Slow"]["seconds"] >= 3
    assert _counts(found["Stage"]) == (2, 0, 2)
    assert _counts(found["Together"]) == (2, 0, 1)
    assert found["Together"]["seconds"] >= 0.05


def test_a_stage_is_known_by_backend_task_and_name_in_any_case() -> None:
    book = StageBook()
    watch = Stopwatch()
    watch.start()
    book.of("default", "save", "SQL").timer(watch).done()
    book.of("default", "save", "sql").timer(watch).done(2)
    book.of("default", "validate", "SQL")
    book.of("other", "save", "SQL")
    assert [(one["backend"], one["task"], one["stage"], one["count"]) for one in book.snapshot()] \
        == [("default", "save", "SQL", 3), ("default", "validate", "SQL", 0),
            ("other", "save", "SQL", 0)]  # fmt: skip


def _keeper(daemon: Daemon, task: str = "save") -> dict[str, Any]:
    return next(
        one for one in daemon.stats()["stages"] if (one["task"], one["stage"]) == (task, "Keeper")
    )


def test_figures_survive_a_replaced_worker_and_a_reload(make: Make, keeper: type[Keeper]) -> None:
    with make(config(validate_process="Keeper")) as daemon:
        assert _counts(_keeper(daemon)) == (0, 0, 0)
        assert send(daemon)[0] == 250
        assert send(daemon, to="nobody@example.com")[0] == 550
        assert send(daemon, "raise")[0] == 451
        assert send(daemon, "exit")[0] == 451
        until(lambda: daemon.stats()["save_workers_replaced"] == 1)
        assert send(daemon)[0] == 250
        # What ended its worker did not come to an end.
        assert _counts(_keeper(daemon)) == (3, 1, 3)
        assert _counts(_keeper(daemon, "validate")) == (5, 0, 5)
        other = daemon.config.backend_config.model_copy(update={"save_workers_size": 2})
        assert daemon.reload_config(daemon.config.model_copy(update={"backend_config": other})).ok
        assert send(daemon)[0] == 250
        assert _counts(_keeper(daemon)) == (4, 1, 4)
        stages = [(one["task"], one["stage"]) for one in daemon.status()["stats"]["stages"]]
        assert stages == [("save", "HeadersParser"), ("save", "Keeper"), ("validate", "Keeper")]
        stats = daemon.stats()
        assert json.loads(json.dumps(stats)) == stats


def test_status_and_stats_show_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunningDaemon(tmp_path) as daemon:
        with Wire(daemon.port) as wire:
            assert wire.deliver(b"Subject: counted").startswith("250 ")
        assert main(["stats", "-c", str(daemon.config_file)]) == 0
        found = dict(line.split() for line in capsys.readouterr().out.splitlines())
        assert found["stages.default.save.SQL.count"] == "1"
        assert float(found["stages.default.save.SQL.seconds"]) > 0
        assert main(["status", "-c", str(daemon.config_file)]) == 0
        assert "stage      default save SQL: 1 items, 0 errors, " in capsys.readouterr().out


def test_a_stage_that_was_not_asked_is_described() -> None:
    stage = {"backend": "default", "task": "save", "stage": "SQL"}
    stage |= StageFigures().snapshot()
    assert "  stage      default save SQL: 0 items, 0 errors, 0 ms a call" in describe(
        {"stats": {"stages": [stage]}}
    )
