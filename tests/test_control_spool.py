"""What a running daemon tells of its spool, and does with it, over its control socket."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guerrilla.control.requests import MAX_LINE
from guerrilla.control.spool import MAX_ENTRIES, described
from tests.running import RunningDaemon
from tests.spools import Asked, deliver, kept, spooling
from tests.wire import HELLO, Wire, until

ROOT = Path(__file__).parent.parent


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with spooling(tmp_path) as running:
        yield running


@pytest.fixture
def ask(daemon: RunningDaemon) -> Iterator[Asked]:
    with Asked(daemon) as asked:
        yield asked


def test_what_waits_and_what_has_failed(daemon: RunningDaemon, ask: Asked, tmp_path: Path) -> None:
    began = time.time()
    later, never = deliver(daemon, "later", "never")
    until(lambda: ask.states() == {later: "deferred", never: "failed"})
    (hang,) = deliver(daemon, "hang")
    until(lambda: ask.states()[hang] == "in work")
    entries = {entry["id"]: entry for entry in [*ask.entries(), *ask.entries(failed=True)]}
    waiting, failed, working = entries[later], entries[never], entries[hang]
    for entry in entries.values():
        assert entry["backend"] == "default"
        assert (entry["from"], entry["to"]) == ("from@example.org", ["to@example.com"])
        assert entry["recipients"] == 1
        assert began - 1 < entry["received_at"] < time.time() + 1
    assert waiting["size"] == failed["size"] == len(b"Subject: later\r\n\r\nbody\r\n")
    assert waiting["attempts"] >= 1
    assert waiting["next_at"] > waiting["received_at"]
    assert "451 4.3.0 not now" in waiting["error"]
    assert failed["attempts"] == 1
    assert "550 5.7.1 not at all" in failed["error"]
    assert (working["attempts"], working["error"]) == (0, None)
    (tmp_path / "open").touch()


def test_a_message_and_its_record(daemon: RunningDaemon, ask: Asked) -> None:
    later, never = deliver(daemon, "later", "never")
    until(lambda: ask.states() == {later: "deferred", never: "failed"})
    for one, subject in ((later, b"later"), (never, b"never")):
        shown = ask("spool-show", id=one)
        assert shown["entry"]["id"] == one
        message = ask("spool-read", id=one, part="message")
        assert base64.b64decode(message["data"]) == b"Subject: " + subject + b"\r\n\r\nbody\r\n"
        assert message["next"] is None
        record = json.loads(base64.b64decode(ask("spool-read", id=one, part="record")["data"]))
        assert record["helo"] == "client.example.org"
        assert shown["message_size"] == len(base64.b64decode(message["data"]))
    assert ask.answer("spool-show", id="a" * 26) == {
        "ok": False,
        "errors": [f"{'a' * 26}: no such message in the spool"],
    }
    past = ask("spool-read", id=later, part="message", offset=10_000)
    assert past == {"data": "", "next": None}


def test_no_answer_is_longer_than_a_line(daemon: RunningDaemon, ask: Asked) -> None:
    """Neither of a large message, nor of many recipients with long names, nor of many messages."""
    octets = bytes(range(32, 127)) * 20 + b"\r\n"
    (large,) = deliver(daemon, "later", body=octets * 500)
    shown = ask("spool-show", id=large)
    read = b""
    offset: int | None = 0
    while offset is not None:
        chunk = ask("spool-read", id=large, part="message", offset=offset)
        read += base64.b64decode(chunk["data"])
        offset = chunk["next"]
    assert len(read) == shown["message_size"]
    assert read == b"Subject: later\r\n\r\n" + octets * 500 + b"\r\n"
    name = "ü" * 60
    recipients = "".join(f"RCPT TO:<{name}{n}@{'a' * 60}.example.com>\r\n" for n in range(100))
    with Wire(daemon.port) as wire:
        assert wire.ask(HELLO).startswith("250 ")
        for _ in range(100):
            wire.send(f"MAIL FROM:<{name}@example.org> SMTPUTF8\r\n{recipients}DATA\r\n".encode())
            assert {wire.reply()[:3] for _ in range(101)} == {"250"}
            assert wire.reply()[:3] == "354"
            assert wire.ask(b"Subject: later\r\n\r\nbody\r\n.\r\n").startswith("250 ")
    entries = ask.entries(max=MAX_ENTRIES)
    assert len({entry["id"] for entry in entries}) == 101
    assert {entry["recipients"] for entry in entries} == {1, 100}
    many = [entry for entry in entries if entry["recipients"] == 100]
    assert [len(entry["to"]) for entry in many] == [5] * 100
    record = ask("spool-show", id=many[0]["id"])
    assert record["record_size"] > 100 * 120
    # The page was full before the number of its entries was.
    assert ask("spool-list", max=MAX_ENTRIES)["next"] is not None
    assert MAX_LINE / 2 < ask.longest <= MAX_LINE


def test_the_longest_entry_there_can_be_fits_in_what_a_page_leaves() -> None:
    """With characters that take twelve octets each in JSON."""
    wide = "\U0001f4e7" * 1000
    entry: Any = SimpleNamespace(
        queued_id="a" * 26, backend="b" * 255, received_at=1e9 / 3, size=2**62, attempts=2**31,
        next_at=1e9 / 3, state="deferred", error=wide, mail_from=wide, rcpt_to=[wide] * 1000,
    )  # fmt: skip
    assert len(json.dumps(described(entry))) < 20 * 2**10


def test_pages_have_every_message_once(daemon: RunningDaemon, ask: Asked) -> None:
    ids = deliver(daemon, *["later"] * 30)
    until(lambda: set(ask.states().values()) == {"deferred"})
    assert [entry["id"] for entry in ask.entries(max=7)] == ids
    assert ask("spool-list", max=7)["total"] == 30
    assert ask("spool-list", max=30)["entries"][-1]["id"] == ids[-1]
    assert [entry["id"] for entry in ask.entries(max=7, backend="default")] == ids
    assert ask.entries(max=7, backend="other") == []


def test_retry_drop_and_replay(daemon: RunningDaemon, ask: Asked, tmp_path: Path) -> None:
    first, second, never = deliver(daemon, "later", "later", "never")
    until(lambda: ask.states() == {first: "deferred", second: "deferred", never: "failed"})
    assert ask("spool-drop", ids=[second, never]) == {"count": 1}
    until(lambda: ask.states() == {first: "deferred", never: "failed"})
    (tmp_path / "open").touch()
    assert ask("spool-retry", ids=[first, never]) == {"count": 1}
    until(lambda: kept(tmp_path) == [first])
    until(lambda: ask.states() == {never: "failed"})
    assert ask("spool-replay", ids=[never, second]) == {"count": 1}
    until(lambda: kept(tmp_path) == [first, never])
    until(lambda: ask.states() == {})
    log = daemon.log_text()
    for command in ("retry", "drop", "replay"):
        assert f"spool-{command}, as process " in log
    assert "spool-list" not in log


def test_what_has_failed_is_dropped_where_that_is_said(daemon: RunningDaemon, ask: Asked) -> None:
    (never,) = deliver(daemon, "never")
    until(lambda: ask.states() == {never: "failed"})
    assert ask("spool-drop", ids=[never]) == {"count": 0}
    assert ask("spool-drop", ids=[never], failed=True) == {"count": 1}
    assert ask.states() == {}


def test_who_reads_a_message_has_it_whatever_becomes_of_it(
    daemon: RunningDaemon, ask: Asked
) -> None:
    octets = b"x" * 998 + b"\r\n"
    (large,) = deliver(daemon, "later", body=octets * 400)
    until(lambda: ask.states() == {large: "deferred"})
    ask("spool-show", id=large)
    first = ask("spool-read", id=large, part="message")
    with Asked(daemon) as other:
        assert other("spool-drop", ids=[large]) == {"count": 1}
        assert not other.answer("spool-read", id=large, part="message")["ok"]
    second = ask("spool-read", id=large, part="message", offset=first["next"])
    assert set(base64.b64decode(second["data"])) == set(b"x\r\n")
    assert not ask.answer("spool-show", id=large)["ok"]


def test_the_example_spools_and_stores(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "spool.toml").read_text(encoding="utf-8")
    # As it is, but for a port that is free: paths begin where the daemon runs.
    text = text.replace("127.0.0.1:2525", "127.0.0.1:0")
    with RunningDaemon(tmp_path, config=text) as daemon, Asked(daemon) as ask:
        ids = deliver(daemon, "one", "two")
        until(lambda: ask.states() == {})
        assert sorted(row["queued_id"] for row in daemon.rows()) == sorted(ids)
        assert (tmp_path / "spool" / "0" / "spool.db").stat().st_mode & 0o777 == 0o600


def test_the_page_has_every_figure(daemon: RunningDaemon, ask: Asked) -> None:
    del daemon
    page = (ROOT / "docs" / "spool.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(spool_[a-z_]+)`", page))
    assert told == {name for name in ask("stats") if name.startswith("spool_")}
