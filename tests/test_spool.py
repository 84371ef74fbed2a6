"""The spool from end to end: answered once a mail is on the disk, worked on later."""

from __future__ import annotations

import dataclasses
import logging
import socket
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import apsw
import pytest

import guerrilla
from guerrilla import Envelope, _core
from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.engine.registry import DECORATED
from guerrilla.errors import StartError
from guerrilla.reply import Outcome, Reply
from guerrilla.running.checking import check
from guerrilla.testing import make_envelope, run_chain
from tests.daemons import where
from tests.running import RunningDaemon
from tests.shelves import Shelf, Spooling, config, deliver, depth, hurry, send
from tests.wire import HELLO, TRANSACTION, Wire, until

LMTP = b"LHLO client.example.org\r\n"


def test_a_mail_is_answered_while_what_stores_it_is_away(
    spooling: Spooling, shelf: type[Shelf]
) -> None:
    shelf.away.set()
    daemon = spooling()
    (answer,) = send(daemon, "one")
    assert answer.startswith("250 2.0.0 OK: queued as ")
    until(lambda: daemon.stats()["spool_deferred"] == 1)
    assert (shelf.kept, depth(daemon)) == ([], 1)
    assert daemon.stats()["breaker_open"] == 0
    shelf.away.clear()
    until(lambda: shelf.kept == ["one"])
    until(lambda: depth(daemon) == 0)
    assert answer.endswith(shelf.seen[0].queued_id)
    stats = daemon.stats()
    assert [stats[f"spool_{name}"] for name in ("committed", "done", "retries", "failed")] == [
        1,
        1,
        1,
        0,
    ]


def test_all_of_an_envelope_comes_through_the_spool(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    daemon = spooling(config(tmp_path, "HeadersParser|Scorer|Header|250|Shelf"))
    (answer,) = send(daemon, "all of it")
    until(lambda: shelf.kept == ["all of it"])
    (seen,) = shelf.seen
    assert seen.values == {"score": {"spam": [1, 2.5, None, "ü"]}}
    assert len(seen.hashes) == len(seen.rcpt_to) == 1
    assert seen.added_headers == "X-Score: ü\r\n".encode()
    assert b"by mx.example.com" in seen.delivery_header
    assert bytes(seen.data) == b"Subject: all of it\r\n\r\n\r\n"
    assert (seen.helo, seen.protocol, str(seen.mail_from)) == (
        "client.example.org",
        "ESMTP",
        "from@example.org",
    )
    assert answer.endswith(seen.queued_id)
    # It is answered, and may be stored, before the worker comes to count.
    until(lambda: all(one["count"] for one in daemon.stats()["stages"]))
    stages = {(one["task"], one["stage"]): one["count"] for one in daemon.stats()["stages"]}
    assert stages == {
        ("save", "HeadersParser"): 1,
        ("save", "Scorer"): 1,
        ("save", "Header"): 1,
        ("save", "250"): 1,
        ("spooled", "Shelf"): 1,
    }


def test_what_is_read_from_the_disk_is_what_was_given_out_from_memory(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[bytes, ...]] = []

    def save(_self: Shelf, envelope: Envelope) -> Outcome:
        tried.append((envelope.to_bytes(), bytes(envelope), bytes(envelope.header_data)))
        return Reply.retry("4.3.0", "once more") if len(tried) == 1 else None

    monkeypatch.setattr(shelf, "save", save)
    daemon = spooling(config(tmp_path, "HeadersParser|Scorer|Header|250|Shelf"))
    send(daemon, "twice")
    until(lambda: daemon.stats()["spool_deferred"] == 1)
    hurry(daemon)
    until(lambda: depth(daemon) == 0)
    assert len(tried) == 2
    assert tried[0] == tried[1]


def test_what_waits_in_the_spool_keeps_no_buffer_of_its_reception(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def save(_self: Shelf, _envelope: Envelope) -> Outcome:
        begun.set()
        goes_on.wait(20)
        return None

    monkeypatch.setattr(shelf, "save", save)
    daemon = spooling(config(tmp_path, "HeadersParser|250|Shelf"))
    try:
        for name in ("first", "second", "third"):
            send(daemon, name)
        assert begun.wait(20)
        until(lambda: daemon.stats()["memory_retained"] == 0)
        assert depth(daemon) == 3
    finally:
        goes_on.set()
    until(lambda: depth(daemon) == 0)


def test_nothing_expires_behind_the_spool(spooling: Spooling, shelf: type[Shelf]) -> None:
    shelf.open_for.clear()
    daemon = spooling(None, backend_config={"save_process": "250|Shelf", "gw_save_timeout": "30s"})
    send(daemon, "one")
    until(lambda: shelf.tried == ["one"])
    shelf.open_for.set()
    until(lambda: shelf.kept == ["one"])
    assert shelf.seen[0].expired  # answered now
    until(lambda: depth(daemon) == 0)


def test_a_value_that_is_not_json_refuses_that_mail_alone(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = spooling(config(tmp_path, "HeadersParser|Scorer|250|Shelf"))
    with caplog.at_level(logging.ERROR, "guerrilla.spool"):
        answers = send(daemon, "one", "odd", "two")
    assert [answer[:9] for answer in answers] == ["250 2.0.0", "451 4.3.0", "250 2.0.0"]
    until(lambda: shelf.kept == ["one", "two"])
    assert "250: values['odd'] is not JSON" in caplog.text


def test_a_start_takes_up_what_is_left_in_its_order(spooling: Spooling, shelf: type[Shelf]) -> None:
    shelf.open_for.clear()
    daemon = spooling(None, backend_config={"save_process": "250|Shelf", "save_batch_size": 1})
    subjects = [f"mail {number}" for number in range(20)]
    assert {answer[:3] for answer in send(daemon, *subjects)} == {"250"}
    stopping = threading.Thread(target=daemon.shutdown, args=(20,))
    stopping.start()
    # These end once the queues are closed: then the spool gives nothing more.
    until(lambda: not any("guerrilla-save" in thread.name for thread in threading.enumerate()))
    shelf.open_for.set()
    stopping.join()
    # What it had in hand, and never the whole spool.
    assert shelf.kept == subjects[:1]
    spooling(None, backend_config={"save_process": "250|Shelf", "save_batch_size": 1})
    until(lambda: len(shelf.kept) == 20)
    assert shelf.kept == subjects


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    module = tmp_path / "hanging.py"
    module.write_text(
        "import pathlib, time, guerrilla\n"
        "@guerrilla.processor('Hang', stores=True)\n"
        "def hang(envelope):\n"
        "    while not pathlib.Path('go').exists(): time.sleep(0.01)\n",
        encoding="utf-8",
    )
    top = f'[spool]\npath = "{tmp_path}/spool"\nmin_free = 0\n'
    keys: dict[str, Any] = {
        "chain": "HeadersParser|Hasher|Header|250|Hang|SQL",
        "backend": 'import = ["hanging"]\nsave_batch_size = 3\n',
    }
    first = RunningDaemon(tmp_path, **_with_spool(keys, top))
    with Wire(first.addresses[0]) as wire:
        wire.ask(HELLO)
        answers = [deliver(wire, f"mail {number:02}") for number in range(12)]
    first.kill()
    assert {answer[:3] for answer in answers} == {"250"}
    (tmp_path / "go").touch()
    with RunningDaemon(tmp_path, **_with_spool(keys, top)) as second:
        until(lambda: len(second.rows()) == 12)
        assert [row["subject"] for row in second.rows()] == [f"mail {n:02}" for n in range(12)]


def _with_spool(keys: dict[str, Any], spool: str) -> dict[str, Any]:
    # A table ends what stands before it: so it comes behind the backend's keys.
    return keys | {"backend": keys["backend"] + "\n" + spool}


def test_lmtp_answers_each_recipient_from_the_spool(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    raw = config(tmp_path)
    raw["servers"][0]["protocol"] = "lmtp"
    daemon = spooling(raw)
    with Wire(daemon.addresses[0]) as wire:
        wire.ask(LMTP)
        wire.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n")
        wire.send(b"RCPT TO:<c@example.com>\r\nDATA\r\n")
        assert [wire.reply()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        wire.send(b"Subject: lmtp\r\n\r\n.\r\n")
        assert [wire.reply()[:3] for _ in range(2)] == ["250", "250"]
    until(lambda: shelf.kept == ["lmtp"])
    assert shelf.seen[0].protocol == "LMTP"


def test_each_backend_has_its_own_of_the_spool(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    raw = config(tmp_path, "HeadersParser|250|Shelf")
    raw["backends"] = {"plain": {"save_process": "HeadersParser|Shelf"}, "late": {}}
    raw["backends"]["late"] = {"save_process": "HeadersParser|250|Scorer|Shelf"}
    for name in ("plain", "late"):
        raw["servers"].append({"listen_interface": "127.0.0.2:0", "backend": name})
        raw["servers"][-1]["host_name"] = "mx.example.com"
    daemon = spooling(raw)
    for server, subject in enumerate(("default", "plain", "late")):
        send(daemon, subject, server=server)
    until(lambda: sorted(shelf.kept) == ["default", "late", "plain"])
    until(lambda: depth(daemon) == 0)
    assert daemon.stats()["spool_committed"] == 2
    assert [one.subject for one in shelf.seen if "score" in one.values] == ["late"]
    assert daemon.stats()["backends"]["plain"].keys() >= {"save_workers"}
    assert "spooled_workers" not in daemon.stats()["backends"]["plain"]
    assert daemon.stats()["backends"]["late"]["spooled_workers"] == 1


@pytest.mark.parametrize("chain", ["HeadersParser|250|Shelf", "250|Shelf"])
def test_a_full_spool_takes_no_data(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path, chain: str
) -> None:
    shelf.open_for.clear()
    raw = config(tmp_path, chain)
    raw["spool"]["max_bytes"] = 20_000
    daemon = spooling(raw)
    with Wire(daemon.addresses[0]) as wire:
        wire.ask(HELLO)
        assert deliver(wire, "large", b"x" * 18_000)[:3] == "250"
        # Before the data, or behind it where only then it is too much.
        assert deliver(wire, "refused", b"x" * 18_000)[:9] == "452 4.3.1"
        shelf.open_for.set()
        until(lambda: depth(daemon) == 0)
        assert deliver(wire, "again", b"x" * 18_000)[:3] == "250"
    until(lambda: shelf.kept == ["large", "again"])


def give_up_soon(daemon: Daemon) -> None:
    """On who hangs right of the spool, and there alone: the mails had the usual time to come in."""
    assert daemon._parts is not None
    for pool in daemon._parts.pools:
        if pool.settings.name == "spooled":
            pool.settings = dataclasses.replace(pool.settings, hang_after=0.3)
    daemon._parts.supervisor._interval = 0.05
    daemon._parts.supervisor._wake.set()


def test_a_worker_that_hangs_behind_the_spool_loses_no_mail(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.open_for.clear()
    daemon = spooling(config(tmp_path))
    assert send(daemon, "one")[0].startswith("250 ")
    give_up_soon(daemon)
    until(lambda: daemon.stats()["spooled_workers_abandoned"] == 1)
    until(lambda: daemon.stats()["spool_deferred"] == 1)
    assert depth(daemon) == 1
    # Mail goes on: what is spooled is safe.
    until(lambda: daemon.stats()["spooled_workers"] == 1)
    shelf.open_for.set()
    # It comes back with a success, which counts.
    until(lambda: depth(daemon) == 0)
    assert shelf.kept == ["one"]


def test_a_worker_that_was_abandoned_begins_no_more_of_its_batch(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by: dict[str, list[str]] = {}
    plain = shelf.save

    def noted(stage: Shelf, envelope: Envelope) -> Outcome:
        by.setdefault(threading.current_thread().name, []).append(envelope.subject)
        return plain(stage, envelope)

    monkeypatch.setattr(shelf, "save", noted)
    shelf.open_for.clear()
    daemon = spooling(config(tmp_path))
    # The first hangs with what came first, so that the others are a batch for the second.
    answers = send(daemon, "zero", "one", "two", "three")
    assert [answer[:4] for answer in answers] == ["250 "] * 4
    give_up_soon(daemon)
    until(lambda: daemon.stats()["spool_deferred"] == 4)
    until(lambda: daemon.stats()["spooled_workers"] == 1)
    hung = list(by)
    assert len(hung) < 4
    shelf.open_for.set()
    until(lambda: daemon.stats()["spooled_workers_abandoned"] == 0)
    # What each was in the middle of has succeeded; the rest is for others.
    assert [len(by[name]) for name in hung] == [1] * len(hung)
    hurry(daemon)
    until(lambda: depth(daemon) == 0)
    assert sorted(shelf.kept) == ["one", "three", "two", "zero"]


def test_spooling_at_once_asks_no_worker(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    daemon = spooling(config(tmp_path, "250|HeadersParser|Shelf"))
    assert {answer[:9] for answer in send(daemon, "one", "two")} == {"250 2.0.0"}
    until(lambda: shelf.kept == ["one", "two"])
    until(lambda: depth(daemon) == 0)
    counts = {one["stage"]: one["count"] for one in daemon.stats()["stages"]}
    assert counts == {"250": 0, "HeadersParser": 2, "Shelf": 2}


@pytest.mark.parametrize(
    ("chains", "problem"),
    [
        ({"save_process": "250|A"}, "backend_config.save_process: 250 needs a spool"),
        ({"save_process": "250|A|250"}, "backend_config.save_process: 250 stands there 2 times"),
        ({"save_process": "250:x|A"}, "backend_config.save_process: 250 takes no alias"),
        ({"validate_process": "250"}, "backend_config.validate_process: 250 stands for the spool"),
        ({"auth_process": "A|250"}, "backend_config.auth_process: 250 stands for the spool"),
    ],
)
def test_a_chain_that_spools_wrongly_is_refused(
    tmp_path: Path, chains: dict[str, str], problem: str
) -> None:
    raw = config(tmp_path) | {"backend_config": chains}
    if "needs" in problem:
        del raw["spool"]
    assert [line for line in check(from_mapping(raw)).problems if line.startswith(problem)]


def test_a_spool_that_no_chain_uses_is_warned_of(tmp_path: Path) -> None:
    raw = config(tmp_path, "HeadersParser|Header|Debugger")
    assert [
        line
        for line in from_mapping(raw).warnings()
        if line.startswith("spool: no save_process has")
    ]
    assert not [line for line in from_mapping(config(tmp_path)).warnings() if "spool" in line]


def test_a_chain_that_stores_nothing_behind_the_spool_is_warned_of(tmp_path: Path) -> None:
    raw = config(tmp_path, "HeadersParser|250|Debugger")
    found = check(from_mapping(raw))
    assert not found.problems
    what = "save_process stores nothing right of 250: mail is accepted and discarded"
    assert [line for line in found.warnings if what in line]
    raw = config(tmp_path, "HeadersParser|250|MailDir", maildir_path=str(tmp_path / "mails"))
    assert not [line for line in check(from_mapping(raw)).warnings if "stores nothing" in line]


def test_a_spool_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no folder", encoding="utf-8")
    with pytest.raises(StartError) as error:
        Daemon(from_mapping(config(tmp_path, "250|Debugger"))).start()
    (line,) = error.value.problems
    assert line.startswith(f"spool.path: {tmp_path}/spool")


def test_stopping_under_load_loses_nothing(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    daemon = spooling()
    answered: list[str] = []
    begun = threading.Event()
    host, port = where(daemon)
    all_there = threading.Barrier(9)

    def sender(name: str) -> None:
        with Wire(f"{host}:{port}") as wire:
            all_there.wait(30)
            wire.ask(HELLO)
            for number in range(sys.maxsize):
                try:
                    answer = deliver(wire, f"{name}-{number}")
                except OSError:
                    return
                if not answer.startswith("250"):
                    return
                answered.append(f"{name}-{number}")
                begun.set()

    senders = [threading.Thread(target=sender, args=(f"s{n}",)) for n in range(8)]
    for thread in senders:
        thread.start()
    all_there.wait(30)
    assert begun.wait(30)
    assert daemon.shutdown(30)
    for thread in senders:
        thread.join()
    again = spooling(config(tmp_path))
    until(lambda: depth(again) == 0)
    assert sorted(shelf.kept) == sorted(answered)


def test_what_the_commands_ask_is_answered_by_core_and_folder(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.away.set()
    shelf.replies["bad"] = Reply(550, "5.7.1", "never")
    daemon = spooling()
    assert daemon._parts is not None
    spool = daemon._parts.core.spool()
    assert spool is not None
    (first, second) = (answer.rpartition(" ")[2] for answer in send(daemon, "one", "two"))
    until(lambda: daemon.stats()["spool_deferred"] == 2)
    entries = spool.list(0, 10, False)
    assert [(one.queued_id, one.state, one.attempts) for one in entries] == [
        (first, "deferred", 1),
        (second, "deferred", 1),
    ]
    assert [one.id for one in spool.list(entries[0].id, 10, False)] == [entries[1].id]
    (entry, record, message) = spool.show(first)
    assert (entry.backend, entry.mail_from, entry.rcpt_to) == (
        "default",
        "from@example.org",
        ["to@example.com"],
    )
    assert entry.error is not None
    assert entry.error.startswith("451 4.3.0")
    assert entry.next_at is not None
    assert entry.next_at > entry.received_at
    assert record["helo"] == "client.example.org"
    assert bytes(message) == b"Subject: one\r\n\r\n\r\n"
    with pytest.raises(LookupError):
        spool.show("nobody")
    with pytest.raises(BlockingIOError):
        _core.Spool(str(tmp_path / "spool"), print)
    shelf.away.clear()
    assert spool.retry([first]) == 1
    until(lambda: shelf.kept == ["one"])
    until(lambda: depth(daemon) == 1)
    daemon.shutdown(10)
    offline = _core.Spool(str(tmp_path / "spool"), print)
    try:
        assert [one.queued_id for one in offline.list(0, 10, False)] == [second]
        assert offline.waiting() == [("default", 1)]
        assert offline.drop([second]) == 1
        assert offline.list(0, 10, False) == []
    finally:
        offline.close()
    with pytest.raises(FileNotFoundError):
        _core.Spool(str(tmp_path / "elsewhere"), print)


def test_a_5xx_behind_the_spool_is_set_aside(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.replies["bad"] = Reply(550, "5.7.1", "never")
    daemon = spooling()
    (answer,) = send(daemon, "bad")
    until(lambda: daemon.stats()["spool_failed"] == 1)
    until(lambda: depth(daemon) == 0)
    folder = tmp_path / "spool" / "0" / "failed"
    kept = folder / f"{answer.rpartition(' ')[2]}.eml"
    assert kept.read_bytes() == b"Subject: bad\r\n\r\n\r\n"
    assert "550 5.7.1 never" in kept.with_suffix(".json").read_text(encoding="utf-8")
    # Once it can be saved it is put back.
    shelf.replies.clear()
    assert daemon._parts is not None
    spool = daemon._parts.core.spool()
    assert spool is not None
    assert [one.state for one in spool.list(0, 10, True)] == ["failed"]
    assert spool.replay() == 1
    until(lambda: shelf.kept == ["bad"])
    assert not kept.exists()


def test_the_log_says_what_becomes_of_each_mail(
    spooling: Spooling, shelf: type[Shelf], caplog: pytest.LogCaptureFixture
) -> None:
    shelf.away.set()
    shelf.replies["bad"] = Reply(550, "5.7.1", "never")
    daemon = spooling()
    with caplog.at_level(logging.INFO, "guerrilla.spool"):
        (good, bad) = (answer.rpartition(" ")[2] for answer in send(daemon, "good", "bad"))
        until(lambda: daemon.stats()["spool_deferred"] == 2)
        shelf.away.clear()
        hurry(daemon)
        until(lambda: depth(daemon) == 0)
        until(lambda: f"{bad}: failed at attempt 2, set aside: 550 5.7.1 never" in caplog.text)
        until(lambda: f"{good}: done at attempt 2" in caplog.text)
    assert f"{good}: deferred at attempt 1, tried again in " in caplog.text
    assert "s: 451 4.3.0" in caplog.text


def test_a_record_that_is_no_envelope_is_set_aside(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.away.set()
    first = spooling()
    send(first, "one", "two")
    until(lambda: first.stats()["spool_deferred"] == 2)
    first.shutdown(10)
    # With a checksum that is right, as a version to come might leave one.
    database = apsw.Connection(str(tmp_path / "spool" / "0" / "spool.db"))
    rows = list(database.execute("SELECT id, env, body FROM msg ORDER BY id"))
    (number, record, body) = rows[0]
    damaged = record.replace(b'"protocol":"ESMTP"', b'"protocol":"XMTP"')
    database.execute(
        "UPDATE msg SET env = ?, crc = ? WHERE id = ?",
        (damaged, zlib.crc32(body, zlib.crc32(damaged)), number),
    )
    database.close()
    shelf.away.clear()
    second = spooling()
    hurry(second)
    until(lambda: depth(second) == 0)
    assert shelf.kept == ["two"]
    (note,) = (tmp_path / "spool" / "0" / "failed").glob("*.json")
    assert "its envelope is protocol: not SMTP, ESMTP or LMTP: XMTP" in note.read_text("utf-8")


def test_a_chain_with_the_spool_is_tried_as_a_whole(shelf: type[Shelf]) -> None:
    DECORATED.add("TestShelf", shelf)
    shelf.replies["bad"] = Reply(550, "5.7.1", "never")
    mails = [make_envelope(f"Subject: {subject}\r\n\r\n") for subject in ("good", "bad")]
    assert [reply.code for reply in run_chain("HeadersParser|250|TestShelf", mails)] == [250, 550]
    assert shelf.kept == ["good"]


def test_a_check_looks_where_the_spool_is_to_be(tmp_path: Path) -> None:
    def problems(path: Path) -> list[str]:
        raw = config(tmp_path, "250|Debugger") | {"spool": {"path": str(path)}}
        return [line for line in check(from_mapping(raw)).problems if line.startswith("spool")]

    assert problems(tmp_path / "not" / "yet" / "there") == []
    (tmp_path / "file").touch()
    (line,) = problems(tmp_path / "file" / "spool")
    assert line == f"spool.path: {tmp_path}/file/spool: Not a directory"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_stop_begins_no_more_of_what_is_spooled(spooling: Spooling, shelf: type[Shelf]) -> None:
    daemon = spooling()
    host, port = where(daemon)
    with Wire(f"{host}:{port}") as wire:
        wire.ask(HELLO)
        wire.send(TRANSACTION)
        assert [wire.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        stopping = threading.Thread(target=daemon.shutdown, args=(30,))
        stopping.start()
        until(lambda: _is_refused(where(daemon)))
        assert wire.ask(b"Subject: last\r\n\r\n\r\n.\r\n").startswith("250 ")
    stopping.join(30)
    assert not stopping.is_alive()
    assert shelf.tried == []
    spooling()
    until(lambda: shelf.kept == ["last"])


def test_nothing_but_the_spool_answers_what_it_was_given(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    answered: list[bool] = []

    @guerrilla.processor("Hasty")
    def hasty(envelope: Envelope) -> Reply:
        assert envelope.spool()
        answered.append(envelope.answer())
        return Reply(550, "5.7.1", "too late")

    daemon = spooling(config(tmp_path, "HeadersParser|Hasty|250|Shelf"))
    assert send(daemon, "one")[0].startswith("250 2.0.0 OK: queued as ")
    until(lambda: shelf.kept == ["one"])
    until(lambda: answered)
    assert answered == [False]


def _is_refused(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, 5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # It waited to be accepted when the listener went.
        return False
    return False
