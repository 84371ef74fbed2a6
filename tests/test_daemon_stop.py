"""A stop that is asked for twice, by a signal handler, or in the middle of a start or a stop."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guerrilla.config import AppConfig
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.reply import Outcome
from guerrilla.running.tlswatch import TLSWatch
from tests.daemons import Keeper, Make, Until, config, problems, send, where
from tests.wire import Wire

OnRecord = Callable[[str, Callable[[], object]], None]


@pytest.fixture
def on_record() -> Iterator[OnRecord]:
    """Does something once, in the thread that logs a message, while it logs it."""
    handlers: list[logging.Handler] = []
    logger = logging.getLogger("guerrilla")

    def add(message: str, act: Callable[[], object]) -> None:
        class Once(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage() == message:
                    logger.removeHandler(self)
                    act()

        handlers.append(Once())
        logger.addHandler(handlers[-1])

    yield add
    for handler in handlers:
        logger.removeHandler(handler)


@pytest.fixture
def handled() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Sets what the signal USR2 does."""
    before = signal.getsignal(signal.SIGUSR2)

    def handle(act: Callable[[], object]) -> None:
        signal.signal(signal.SIGUSR2, lambda *_: act())

    yield handle
    signal.signal(signal.SIGUSR2, before)


Handled = Callable[[Callable[[], object]], None]


def raise_signal() -> None:
    signal.raise_signal(signal.SIGUSR2)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "guerrilla" in thread.name]


def test_a_signal_handler_in_the_middle_of_a_stop_does_not_wait_for_it(
    make: Make, on_record: OnRecord, handled: Handled
) -> None:
    daemon = make()
    answers: list[bool] = []
    handled(lambda: answers.append(daemon.shutdown()))
    on_record("stopping", raise_signal)
    daemon.start()
    assert daemon.shutdown()
    assert answers == [False]
    assert daemon.wait(0)


def test_a_signal_handler_in_the_middle_of_a_start_makes_it_end_with_a_stop(
    make: Make, keeper: type[Keeper], handled: Handled
) -> None:
    class Early(Processor):
        """It is made in the thread of the start too."""

        def __init__(self, options: Processor.Options) -> None:
            super().__init__(options)
            if threading.current_thread() is threading.main_thread():
                raise_signal()

        def save(self, envelope: object) -> Outcome:
            return None

    daemon = make(config(save_process="Early|Keeper"))
    daemon.add_processor("Early", Early)
    answers: list[bool] = []
    handled(lambda: answers.append(daemon.shutdown()))
    daemon.start()
    assert set(answers) == {False}
    assert daemon.wait(0)
    assert daemon.shutdown()
    assert keeper.did == ["open", "close"]


def test_a_start_from_a_signal_handler_in_the_middle_of_a_stop_is_an_error(
    make: Make, on_record: OnRecord, handled: Handled
) -> None:
    daemon = make()
    handled(daemon.start)
    on_record("stopping", raise_signal)
    daemon.start()
    with pytest.raises(RuntimeError, match="runs already"):
        daemon.shutdown()
    assert daemon.wait(0)


def interrupt() -> None:
    raise KeyboardInterrupt


def run_until_interrupted(daemon: Daemon, on_record: OnRecord) -> None:
    with daemon:
        on_record("stopping", interrupt)


def test_a_stop_that_is_interrupted_leaves_nothing_open(
    make: Make, on_record: OnRecord, tmp_path: Path, until: Until
) -> None:
    path = tmp_path / "guerrilla.pid"
    daemon = make(pid_file=str(path))
    with pytest.raises(KeyboardInterrupt):
        run_until_interrupted(daemon, on_record)
    assert daemon.wait(0)
    assert not path.exists()
    until(lambda: threads() == [])
    assert not daemon.shutdown(), "it did not end by itself"


def test_a_second_stop_waits_no_longer_than_its_own_timeout(
    make: Make, keeper: type[Keeper]
) -> None:
    daemon = make()
    daemon.start()
    sender = threading.Thread(target=send, args=(daemon, "hang"))
    sender.start()
    assert keeper.entered.wait(10)
    results: list[bool] = []
    stopping = threading.Event()
    daemon.on_stop = stopping.set
    first = threading.Thread(target=lambda: results.append(daemon.shutdown()))
    first.start()
    assert stopping.wait(10)
    assert not daemon.wait(0.1)
    assert not daemon.shutdown(0.05)
    assert results == []
    keeper.release.set()
    first.join(10)
    sender.join(10)
    assert results == [True]
    assert daemon.shutdown(0)


def test_a_worker_that_stores_is_not_given_up_because_its_sender_goes(
    make: Make, keeper: type[Keeper], until: Until
) -> None:
    daemon = make()
    daemon.start()
    client = Wire(where(daemon)[1]).begin()
    client.send(b"Subject: hang\r\n\r\nbody\r\n.\r\n")
    assert keeper.entered.wait(10)
    client.reset()
    until(lambda: daemon.stats()["connections_open"] == 0)
    parts = daemon._parts
    assert parts is not None
    (worker,) = parts.pools[0]._workers
    assert worker.batch
    assert not worker.is_forsaken()
    keeper.release.set()
    until(lambda: worker.batch is None)
    assert len(keeper.kept) == 1


def test_the_watch_on_tls_files_lives_between_start_and_stop(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []

    class Watch:
        def start(self) -> None:
            did.append("start")

        def stop(self) -> None:
            did.append("stop")

    def make_watch(config: AppConfig, reload: Callable[[], object]) -> Watch:
        assert reload == daemon.reload_tls
        did.append("make")
        return Watch()

    monkeypatch.setattr("guerrilla.running.parts.make_watch", make_watch)
    daemon = make()
    assert daemon.reload_tls() == []
    with daemon:
        assert did == ["make", "start"]
    assert did == ["make", "start", "stop"]


def test_a_start_that_fails_watches_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = {thread.name for thread in threading.enumerate()}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        raw = config()
        raw["servers"][0]["listen_interface"] = f"127.0.0.1:{taken.getsockname()[1]}"
        watched = TLSWatch(["nowhere"], lambda: None, 60)
        monkeypatch.setattr("guerrilla.running.parts.make_watch", lambda *_: watched)
        problems(make(raw))
    assert "guerrilla-tls" not in {thread.name for thread in threading.enumerate()} - threads
