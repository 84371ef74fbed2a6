"""Another backend for a daemon that runs: its chains, its workers, and each of its keys."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest

from guerrilla._core import Check, Envelope
from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError
from guerrilla.reply import Outcome, Reply
from tests.daemons import Keeper, Make, config, connect, send
from tests.reloads import MAIL, SENDER, backend, reload, shows
from tests.wire import HELLO, until


def test_the_old_chain_serves_until_the_new_one_has_opened(
    running: Daemon, keeper: type[Keeper]
) -> None:
    reload(running, backend(save_process="HeadersParser|Header|Keeper", save_workers_size=2))
    until(lambda: keeper.did.count("close") == 1)
    assert keeper.did == ["open", "open", "open", "close"]
    assert send(running) == (250, send_text(keeper, running))
    assert keeper.envelopes[-1].delivery_header != b""


def send_text(keeper: type[Keeper], running: Daemon) -> bytes:
    """The reply to the mail that was just kept."""
    return f"2.0.0 OK: queued as {keeper.envelopes[-1].queued_id}".encode()


def test_a_mail_in_the_hands_of_the_old_chain_is_answered_by_it(
    running: Daemon, keeper: type[Keeper]
) -> None:
    with connect(running) as wire:
        wire.begin()
        wire.send(b"Subject: hang\r\n\r\n.\r\n")
        assert keeper.entered.wait(30)
        reload(running, backend(save_batch_size=7))
        assert send(running)[0] == 250
        keeper.release.set()
        assert wire.reply().startswith("250 ")
    until(lambda: keeper.did.count("close") == 1)


def test_a_chain_that_does_not_open_leaves_the_old_one(
    running: Daemon, keeper: type[Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Keeper) -> None:
        raise OSError("no database")

    monkeypatch.setattr(keeper, "open", refuse)
    new = backend(save_workers_size=2)
    new = new.model_copy(update={"allowed_hosts": ("other.example",)})
    report = running.reload_config(new)
    assert report.failures == ("Keeper: OSError: no database",)
    assert running.config.backend_config.save_workers_size == 1
    assert send(running, to="to@other.example")[0] == 250


def test_checks_are_turned_on_and_off(running: Daemon, keeper: type[Keeper]) -> None:
    for process, code in (("Keeper", 550), ("", 250), ("Keeper", 550)):
        reload(running, backend(validate_process=process))
        assert send(running, to="nobody@example.com")[0] == code
    assert len(keeper.kept) == 1


# --- Key by key -----------------------------------------------------------------------------------


class Recorder(Processor):
    """What a worker is given: the sizes of batches, the mails at a time, its own key."""

    stores = True
    batches: ClassVar[list[int]]
    most: ClassVar[int]
    at_work: ClassVar[int]
    release: ClassVar[threading.Event]

    class Options(pydantic.BaseModel):
        said_text: str = "kept"

    options: Options

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        self.batches.append(len(envelopes))
        if any(envelope.subject == "hang" for envelope in envelopes):
            self.release.wait(30)
        text = self.options.said_text
        return [Reply.ok(text) if text else None] * len(envelopes)

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        for check in checks:
            if check.recipient.user == "hang":
                self.release.wait(30)
        return [
            Reply(451, "4.2.1", "not now") if c.recipient.user == "no" else None for c in checks
        ]


class Side(Processor):
    """An async stage, which counts how many mails it has side by side."""

    stores = True

    async def save(self, envelope: Envelope) -> None:  # type: ignore[override]
        Recorder.at_work += 1
        Recorder.most = max(Recorder.most, Recorder.at_work)
        await asyncio.sleep(0.01)
        Recorder.at_work -= 1


def recording(**keys: Any) -> dict[str, Any]:
    """A config whose mails a recorder has."""
    return config(**{"save_process": "HeadersParser|Recorder", **keys})


@pytest.fixture
def recorder(make: Make) -> Iterator[Daemon]:
    Recorder.batches, Recorder.most, Recorder.at_work = [], 0, 0
    Recorder.release = threading.Event()
    daemon = make(recording())
    daemon.add_processor("Recorder", Recorder)
    daemon.add_processor("Side", Side)
    with daemon:
        yield daemon
        Recorder.release.set()


def crowd(daemon: Daemon, count: int) -> None:
    """Mails that wait behind one that hangs, until it is released; all of them are taken."""
    with ExitStack() as open_:
        wires = [open_.enter_context(connect(daemon)) for _ in range(count + 1)]
        for wire in wires:
            wire.begin()
        done = len(Recorder.batches)
        wires[0].send(b"Subject: hang\r\n\r\n.\r\n")
        until(lambda: len(Recorder.batches) == done + 1)
        for wire in wires[1:]:
            wire.send(MAIL + b"\r\n.\r\n")
        until(lambda: daemon.stats()["queue_depth"] == count)
        Recorder.release.set()
        assert [wire.reply()[:4] for wire in wires] == ["250 "] * len(wires)
    Recorder.release.clear()


@shows("at once", "backend_config.save_batch_size")
def test_the_size_of_batches_changes(recorder: Daemon) -> None:
    crowd(recorder, 6)
    assert Recorder.batches == [1, 6]
    reload(recorder, from_mapping(recording(save_batch_size=2)))
    crowd(recorder, 6)
    assert Recorder.batches == [1, 6, 1, 2, 2, 2]


@shows("at once", "backend_config.save_concurrency")
def test_the_mails_at_a_time_of_an_async_stage_change(recorder: Daemon) -> None:
    for concurrency in (3, 1):
        keys = {"save_process": "HeadersParser|Recorder|Side", "said_text": ""}
        reload(recorder, from_mapping(recording(save_concurrency=concurrency, **keys)))
        Recorder.most = 0
        crowd(recorder, 6)
        assert Recorder.most == concurrency


@shows("at once", "backend_config.gw_save_timeout")
def test_the_time_for_a_save_changes(recorder: Daemon) -> None:
    with connect(recorder) as busy:
        busy.begin()
        reload(recorder, from_mapping(recording(gw_save_timeout="200ms")))
        assert busy.ask(b"Subject: hang\r\n\r\n.\r\n").startswith("451 4.3.0 ")


@shows("at once", "backend_config.gw_val_rcpt_timeout")
def test_the_time_for_a_check_changes(make: Make, recorder: Daemon) -> None:
    reload(recorder, from_mapping(recording(validate_process="Recorder")))
    with connect(recorder) as busy:
        busy.send(HELLO + SENDER)
        assert [busy.reply()[:3] for _ in range(2)] == ["250"] * 2
        keys = {"validate_process": "Recorder", "gw_val_rcpt_timeout": "200ms"}
        reload(recorder, from_mapping(recording(**keys)))
        assert busy.ask(b"RCPT TO:<hang@example.com>\r\n").startswith("451 4.4.3 ")


@shows("at once", "backend_config.save_process", "backend_config.*")
def test_a_chain_and_the_keys_of_its_processors_change(recorder: Daemon) -> None:
    """For a mail that was begun before."""
    for keys, text in (
        ({}, "kept"),
        ({"said_text": "stored"}, "stored"),
        ({"save_process": "Keeper"}, "OK: queued as "),
        ({"said_text": "had"}, "had"),
    ):
        with connect(recorder) as busy:
            busy.begin()
            reload(recorder, from_mapping(recording(**keys)))
            assert busy.ask(MAIL + b"\r\n.\r\n").startswith(f"250 2.0.0 {text}")


@shows("at once", "backend_config.processors")
def test_the_keys_of_a_stage_of_its_own_change(recorder: Daemon) -> None:
    for keys in ({"said_text": "one"}, {"said_text": "two"}):
        reload(recorder, from_mapping(recording(processors={"recorder": keys})))
        with connect(recorder) as wire:
            assert wire.deliver(MAIL).startswith(f"250 2.0.0 {keys['said_text']}")


def test_no_mail_goes_to_the_old_chain_once_a_reload_is_over(recorder: Daemon) -> None:
    """Not to a worker either that has been waiting for one since before."""
    with connect(recorder) as wire:
        assert wire.ask(HELLO).startswith("250 ")
        for number in range(50):
            new = recording(said_text=f"chain {number}", save_workers_size=number % 4 + 1)
            reload(recorder, from_mapping(new))
            wire.begin_again()
            assert wire.ask(MAIL + b"\r\n.\r\n") == f"250 2.0.0 chain {number}"


@shows("at once", "backend_config.validate_process")
def test_whether_recipients_are_checked_changes(recorder: Daemon) -> None:
    """But a transaction that began without a check has none."""
    refused = b"RCPT TO:<no@example.com>\r\n"
    with connect(recorder) as busy, connect(recorder) as idle:
        busy.send(HELLO + SENDER)
        assert [busy.reply()[:3] for _ in range(2)] == ["250"] * 2
        reload(recorder, from_mapping(recording(validate_process="Recorder")))
        assert busy.ask(refused).startswith("250 ")
        assert busy.ask(b"RSET\r\n").startswith("250 ")
        assert busy.ask(SENDER).startswith("250 ")
        idle.send(HELLO + SENDER)
        assert [idle.reply()[:3] for _ in range(2)] == ["250"] * 2
        for wire in (busy, idle):
            assert wire.ask(refused) == "451 4.2.1 not now"
        reload(recorder, from_mapping(recording(validate_process="Keeper")))
        assert busy.ask(refused).startswith("250 ")
        assert busy.ask(b"RCPT TO:<nobody@example.com>\r\n") == "550 5.1.1 who?"
        reload(recorder, from_mapping(recording()))
        assert busy.ask(b"RCPT TO:<nobody@example.com>\r\n").startswith("250 ")


@shows("at once", "backend_config.save_workers_size", "backend_config.validate_workers_size")
def test_the_number_of_workers_changes(recorder: Daemon) -> None:
    for number in (3, 1, 2):
        keys = {"save_workers_size": number, "validate_workers_size": number + 1}
        reload(recorder, from_mapping(recording(validate_process="Recorder", **keys)))
        stats = recorder.stats()
        assert (stats["save_workers"], stats["validate_workers"]) == (number, number + 1)
        until(partial(has_workers, save=number, validate=number + 1))


def has_workers(**wanted: int) -> bool:
    """Whether so many threads of each kind live."""
    names = [thread.name for thread in threading.enumerate()]
    return all(
        sum(name.startswith(f"guerrilla-{kind}-") for name in names) == count
        for kind, count in wanted.items()
    )


@shows("at once", "backend_config.log_received_mails")
def test_whether_mails_are_logged_changes(
    running: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    def logged() -> int:
        said = [r.getMessage() for r in caplog.records if r.name == "guerrilla.debugger"]
        return sum("mail from <from@example.org>" in line for line in said)

    for is_on, count in ((False, 0), (True, 1), (False, 1)):
        new = backend(save_process="HeadersParser|Debugger|Keeper", log_received_mails=is_on)
        with caplog.at_level(logging.INFO):
            reload(running, new)
            assert send(running)[0] == 250
        assert logged() == count


@shows("at once", "backend_config.primary_mail_host")
def test_the_host_of_delivery_headers_changes(running: Daemon, keeper: type[Keeper]) -> None:
    for host in ("one.example", "two.example"):
        new = backend(save_process="Header|Keeper", primary_mail_host=host)
        with connect(running) as busy:
            busy.begin()
            reload(running, new)
            assert busy.ask(MAIL + b"\r\n.\r\n").startswith("250 ")
        assert f"Delivered-To: to@{host}\r\n".encode() in keeper.envelopes[-1].delivery_header_for(
            0
        )


@shows("at once", "backend_config.import")
def test_modules_are_imported_once(
    running: Daemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A new one is; one that was imported stays as it was, and the report warns of that."""
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "reload_module.py"
    source = (
        "import guerrilla\n"
        "@guerrilla.processor('ReloadModule', stores=True)\n"
        "def answer(envelope):\n    return guerrilla.Reply.ok('first')\n"
    )
    module.write_text(source)
    reload(running, backend(**{"import": ["reload_module"], "save_process": "ReloadModule"}))
    assert send(running) == (250, b"2.0.0 first")
    assert running.warnings() == []
    module.write_text(source.replace("first", "another"))
    chain = "HeadersParser|ReloadModule"
    with caplog.at_level(logging.WARNING):
        reload(running, backend(**{"import": ["reload_module"], "save_process": chain}))
    assert send(running) == (250, b"2.0.0 first")
    (warning,) = running.warnings()
    assert warning.startswith(f"backend_config.import: reload_module: {module} has changed since ")
    assert warning in caplog.messages


def test_a_module_of_a_package_that_changed_is_told_by_the_place_of_its_backend(
    running: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "reload_package"
    package.mkdir()
    (package / "__init__.py").write_text("import reload_package.inner\n")
    inner = package / "inner.py"
    inner.write_text("")
    own = {"save_process": "Keeper", "import": ["reload_package"]}
    raw = {**config(), "backends": {"own": own}}
    reload(running, from_mapping(raw))
    assert running.warnings() == []
    inner.write_text("x = 1\n")
    report = running.reload_config(from_mapping(raw))
    assert report.ok
    (warning,) = report.warnings
    assert warning.startswith(f"backends.own.import: reload_package.inner: {inner} has changed ")


def test_a_module_that_fails_on_import_leaves_the_old_chain(
    running: Daemon, keeper: type[Keeper], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = running.config
    sources = {
        "ZeroDivisionError": "1 / 0",
        "SystemExit": "raise SystemExit(3)",
        "SyntaxError": "(",
    }
    for reason, source in sources.items():
        (tmp_path / f"broken_{reason}.py").write_text(source)
        new = backend(**{"import": [f"broken_{reason}"], "save_process": "Keeper"})
        with pytest.raises(ConfigError) as caught:
            running.reload_config(new)
        (problem,) = caught.value.problems
        assert problem.startswith(f"backend_config.import: broken_{reason}: ")
        assert reason in problem
        assert running.config == before
    assert send(running) == (250, send_text(keeper, running))
    assert keeper.did == ["open"]
