"""What a reload changes of the spool, and what becomes of mails that wait there."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.reply import Reply
from guerrilla.running.reloading import ReloadReport
from tests.reloads import shows
from tests.shelves import Shelf, Spooling, config, deliver, depth, hurry, send
from tests.wire import HELLO, Wire, until


def reload(daemon: Daemon, raw: dict[str, Any]) -> ReloadReport:
    """Obeys another config."""
    return daemon.reload_config(from_mapping(raw))


def test_what_is_spooled_goes_through_the_chain_of_now(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.away.set()
    daemon = spooling()
    send(daemon, "one", "two")
    until(lambda: daemon.stats()["spool_deferred"] == 2)
    assert reload(daemon, config(tmp_path, "HeadersParser|250|Scorer|Shelf")).ok
    shelf.away.clear()
    hurry(daemon)
    until(lambda: sorted(shelf.kept) == ["one", "two"])
    assert all("score" in one.values for one in shelf.seen)
    until(lambda: depth(daemon) == 0)


def test_a_chain_without_the_spool_takes_up_what_waits(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.away.set()
    daemon = spooling(config(tmp_path, "250|Shelf"))
    send(daemon, "spooled")
    until(lambda: daemon.stats()["spool_deferred"] == 1)
    report = reload(daemon, config(tmp_path, "HeadersParser|Scorer|Shelf"))
    assert report.ok
    assert [line for line in report.warnings if line.startswith("spool: no save_process has")]
    shelf.away.clear()
    hurry(daemon)
    assert send(daemon, "direct")[0].startswith("250")
    until(lambda: sorted(shelf.kept) == ["direct", "spooled"])
    # The whole of it: also what stood left of the spool.
    assert all("score" in one.values for one in shelf.seen)
    until(lambda: depth(daemon) == 0)
    # And a start without the spool in the chain does the same.
    assert daemon.stats()["spooled_workers"] == 1


def test_a_start_takes_up_what_waits_for_a_chain_without_the_spool(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.away.set()
    first = spooling(config(tmp_path, "250|Shelf"))
    send(first, "spooled")
    until(lambda: first.stats()["spool_deferred"] == 1)
    first.shutdown(10)
    shelf.away.clear()
    second = spooling(config(tmp_path, "HeadersParser|Scorer|Shelf"))
    hurry(second)
    until(lambda: shelf.kept == ["spooled"])
    assert "score" in shelf.seen[0].values
    until(lambda: depth(second) == 0)


def test_mails_of_a_backend_that_is_gone_wait_for_it(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.away.set()
    raw = config(tmp_path)
    raw["backends"] = {"other": {"save_process": "HeadersParser|250|Shelf"}}
    raw["servers"][0]["backend"] = "other"
    daemon = spooling(raw)
    send(daemon, "one", "two")
    until(lambda: daemon.stats()["spool_deferred"] == 2)
    report = reload(daemon, config(tmp_path))
    told = "spool: 2 mails wait for the backend other, which is not in the config"
    assert [line for line in report.warnings if line.startswith(told)]
    assert [line for line in daemon.warnings() if line.startswith(told)]
    shelf.away.clear()
    send(daemon, "three")
    until(lambda: shelf.kept == ["three"])
    daemon.shutdown(10)
    again = spooling(config(tmp_path))
    assert [line for line in again.warnings() if line.startswith(told)]
    assert reload(again, raw).ok
    until(lambda: sorted(shelf.kept) == ["one", "three", "two"])
    assert not [line for line in again.warnings() if line.startswith("spool: ")]


def test_a_spool_that_comes_with_a_reload_is_opened(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    raw = config(tmp_path, "HeadersParser|Shelf")
    del raw["spool"]
    daemon = spooling(raw)
    assert "spool_depth" not in daemon.stats()
    with Wire(daemon.addresses[0]) as wire:
        wire.ask(HELLO)
        assert deliver(wire, "before").startswith("250")
        assert reload(daemon, config(tmp_path)).ok
        shelf.away.set()
        assert deliver(wire, "behind").startswith("250")
    until(lambda: daemon.stats()["spool_deferred"] == 1)
    assert shelf.kept == ["before"]
    shelf.away.clear()
    hurry(daemon)
    until(lambda: shelf.kept == ["before", "behind"])


def test_a_spool_that_cannot_be_opened_leaves_what_was_there(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    raw = config(tmp_path, "HeadersParser|Shelf")
    del raw["spool"]
    daemon = spooling(raw)
    (tmp_path / "spool").write_text("no folder", encoding="utf-8")
    report = reload(daemon, config(tmp_path))
    assert [line for line in report.failures if line.startswith(f"spool.path: {tmp_path}/spool")]
    assert daemon.config.spool is None
    assert daemon.config.backend_config.save_process == "HeadersParser|Shelf"
    assert send(daemon, "one")[0].startswith("250")
    assert shelf.kept == ["one"]


@shows("next start", "spool.path")
@pytest.mark.parametrize("path", [None, "elsewhere"])
def test_where_the_spool_is_waits_for_the_next_start(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path, path: str | None
) -> None:
    daemon = spooling()
    raw = config(tmp_path)
    if path is None:
        raw = config(tmp_path, "HeadersParser|Shelf")
        del raw["spool"]
    else:
        raw["spool"]["path"] = str(tmp_path / path)
    report = reload(daemon, raw)
    key = "spool" if path is None else "spool.path"
    assert report.failures == (f"{key}: takes effect at the next start",)
    assert daemon.config.spool is not None
    assert daemon.config.spool.path == str(tmp_path / "spool")
    assert send(daemon, "one")[0].startswith("250")
    until(lambda: shelf.kept == ["one"])
    assert not (tmp_path / "elsewhere").exists()


@shows("at once", "spool.max_bytes", "spool.min_free")
def test_limits_of_the_spool_change_at_once(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.open_for.clear()
    daemon = spooling()
    raw = config(tmp_path)
    with Wire(daemon.addresses[0]) as wire:
        wire.ask(HELLO)
        assert deliver(wire, "one", b"x" * 5_000).startswith("250")
        for limits, answer in (
            ({"max_bytes": 6_000}, "452 4.3.1"),
            ({"max_bytes": 100_000}, "250 2.0.0"),
            ({"min_free": 2**60}, "452 4.3.1"),
            ({}, "250 2.0.0"),
        ):
            assert reload(daemon, raw | {"spool": raw["spool"] | limits}).ok
            assert deliver(wire, "more", b"x" * 5_000)[:9] == answer, limits
    shelf.open_for.set()
    until(lambda: shelf.kept == ["one", "more", "more"])


@shows("at once", "spool.max_age")
def test_a_mail_that_is_too_old_for_the_limit_of_now_is_set_aside(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.open_for.clear()
    shelf.away.set()
    daemon = spooling()
    send(daemon, "one")
    until(lambda: shelf.tried == ["one"])
    raw = config(tmp_path)
    assert reload(daemon, raw | {"spool": raw["spool"] | {"max_age": "1ms"}}).ok
    shelf.open_for.set()
    until(lambda: daemon.stats()["spool_failed"] == 1)
    assert depth(daemon) == 0


def test_no_sender_hears_of_a_chain_that_comes_to_spool_or_ends_to(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    raw = config(tmp_path, "HeadersParser|Shelf")
    daemon = spooling(raw)
    answers: dict[str, str] = {}
    ending = threading.Event()

    def sender(name: str) -> None:
        with Wire(daemon.addresses[0]) as wire:
            wire.ask(HELLO)
            for number in itertools.count():
                answers[f"{name}-{number}"] = deliver(wire, f"{name}-{number}")
                if ending.is_set():
                    return

    senders = [threading.Thread(target=sender, args=(f"s{n}",)) for n in range(8)]
    for thread in senders:
        thread.start()
    chains = ["HeadersParser|250|Shelf", "HeadersParser|Shelf", "250|HeadersParser|Shelf"]
    try:
        for chain in (*chains, *chains):
            before = len(answers)
            assert reload(daemon, config(tmp_path, chain)).ok
            until(lambda before=before: len(answers) > before + 20)  # type: ignore[misc]
    finally:
        ending.set()
        for thread in senders:
            thread.join()
    assert {answer[:9] for answer in answers.values()} == {"250 2.0.0"}
    until(lambda: depth(daemon) == 0)
    assert sorted(shelf.kept) == sorted(answers)


def set_aside(daemon: Daemon, shelf: type[Shelf], subject: str) -> None:
    """Lets a mail fail for good, and the daemon end."""
    shelf.replies[subject] = Reply(550, "5.7.1", "not now")
    send(daemon, subject)
    until(lambda: daemon.stats()["spool_failed"] == 1)
    daemon.shutdown()
    shelf.replies.clear()


def replay(daemon: Daemon) -> None:
    """As `guerrillad spool replay --all`."""
    spool = daemon.spool()
    assert spool is not None
    assert spool.replay(None) == 1


def test_mail_that_comes_later_gets_workers(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    """Its chain had the spool once: at the start nothing was left for it."""
    set_aside(spooling(), shelf, "one")
    raw = config(tmp_path, "HeadersParser|Scorer|Shelf", save_workers_size=2)
    daemon = spooling(raw)
    assert "spooled_workers" not in daemon.stats()
    replay(daemon)
    until(lambda: shelf.kept == ["one"])
    assert "score" in shelf.seen[0].values
    until(lambda: depth(daemon) == 0)
    until(lambda: daemon.stats()["spooled_workers"] == 2)
    assert (daemon.stats()["reloads"], daemon.stats()["spooled_workers_replaced"]) == (0, 0)
    # A reload knows them, and so does a stop.
    assert reload(daemon, config(tmp_path, "HeadersParser|Shelf")).ok
    assert daemon.stats()["spooled_workers"] == 1
    assert daemon.shutdown(10)


def test_mail_that_comes_later_waits_for_a_store_that_is_away(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_aside(spooling(), shelf, "one")
    daemon = spooling(config(tmp_path, "HeadersParser|Shelf"))
    away = threading.Event()
    away.set()

    def opening(stage: Shelf) -> None:
        if away.is_set():
            raise ConnectionRefusedError

    monkeypatch.setattr(shelf, "open", opening)
    replay(daemon)
    until(lambda: [line for line in daemon.warnings() if "waits until its chain opens" in line])
    away.clear()
    until(lambda: shelf.kept == ["one"])


def test_workers_for_it_are_not_made_while_it_reloads_or_stops(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    set_aside(spooling(), shelf, "one")
    daemon = spooling(config(tmp_path, "HeadersParser|Shelf"))
    assert daemon._parts is not None
    supervisor = daemon._parts.supervisor
    with daemon._lock:
        replay(daemon)
        for _ in range(2):
            before = supervisor.looked_at
            until(lambda before=before: supervisor.looked_at > before)  # type: ignore[misc]
        assert "spooled_workers" not in daemon.stats()
    until(lambda: shelf.kept == ["one"])


def test_mail_of_a_backend_that_is_gone_is_told_of(
    spooling: Spooling,
    shelf: type[Shelf],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    raw = config(tmp_path)
    raw["backends"] = {"other": {"save_process": "HeadersParser|250|Shelf"}}
    raw["servers"][0]["backend"] = "other"
    set_aside(spooling(raw), shelf, "one")
    daemon = spooling(config(tmp_path))
    replay(daemon)
    told = (
        "spool: 1 mails wait for the backend other, and nobody works on them: "
        "bring it back, or drop them (guerrillad spool drop)"
    )
    until(lambda: told in caplog.messages)
    assert shelf.kept == []
    assert reload(daemon, raw).ok
    until(lambda: shelf.kept == ["one"])
    assert caplog.messages.count(told) == 1


def test_what_stays_behind_in_another_folder_is_told(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.away.set()
    daemon = spooling()
    send(daemon, "one")
    raw = config(tmp_path)
    raw["spool"]["path"] = str(tmp_path / "elsewhere")
    assert reload(daemon, raw).failures == (
        f"spool.path: takes effect at the next start; 1 mails in {tmp_path}/spool are not moved",
    )
