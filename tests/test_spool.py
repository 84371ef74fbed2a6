"""The spool from end to end: answered once a mail is on the disk, worked on later."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.errors import StartError
from guerrilla.running.checking import check
from tests.daemons import where
from tests.running import RunningDaemon
from tests.shelves import Shelf, Spooling, config, deliver, depth, send
from tests.wire import HELLO, Wire, until

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
    stages = {(one["task"], one["stage"]): one["count"] for one in daemon.stats()["stages"]}
    assert stages == {
        ("save", "HeadersParser"): 1,
        ("save", "Scorer"): 1,
        ("save", "Header"): 1,
        ("save", "250"): 1,
        ("spooled", "Shelf"): 1,
    }


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


def test_a_worker_that_hangs_behind_the_spool_loses_no_mail(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    shelf.open_for.clear()
    daemon = spooling(config(tmp_path, gw_save_timeout="100ms"))
    send(daemon, "one")
    until(lambda: daemon.stats()["spooled_workers_abandoned"] == 1)
    until(lambda: daemon.stats()["spool_deferred"] == 1)
    assert depth(daemon) == 1
    # Mail goes on: what is spooled is safe.
    assert daemon.stats()["spooled_workers"] == 1
    shelf.open_for.set()
    # It comes back with a success, which counts.
    until(lambda: depth(daemon) == 0)
    assert shelf.kept == ["one"]


def test_spooling_at_once_asks_no_worker(
    spooling: Spooling, shelf: type[Shelf], tmp_path: Path
) -> None:
    daemon = spooling(config(tmp_path, "250|HeadersParser|Shelf"))
    assert {answer[:9] for answer in send(daemon, "one", "two")} == {"250 2.0.0"}
    until(lambda: shelf.kept == ["one", "two"])
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
    assert [line for line in from_mapping(raw).warnings() if line.startswith("spool: is not used")]
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

    def sender(name: str) -> None:
        host, port = where(daemon)
        with Wire(f"{host}:{port}") as wire:
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
    assert begun.wait(30)
    assert daemon.shutdown(30)
    for thread in senders:
        thread.join()
    again = spooling(config(tmp_path))
    until(lambda: depth(again) == 0)
    assert sorted(shelf.kept) == sorted(answered)
