"""The daemon: started and stopped, over real sockets."""

from __future__ import annotations

import logging
import smtplib
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import guerrilla
from guerrilla._core import Check, Envelope
from guerrilla.config import AppConfig, from_mapping
from guerrilla.daemon import Daemon
from guerrilla.reply import Outcome, Reply
from tests.daemons import Keeper, Make, Until, config, send, where


def test_it_serves_and_stops(make: Make, keeper: type[Keeper]) -> None:
    daemon = make(config(save_workers_size=2))
    daemon.start()
    assert where(daemon)[1] > 0
    code, text = send(daemon)
    assert code == 250
    assert text.startswith(b"2.0.0 OK: queued as ")
    assert keeper.kept == [b"Subject: hello\r\n\r\nbody\r\n"]
    assert daemon.warnings() == []
    assert not daemon.wait(0)
    assert daemon.shutdown()
    assert daemon.wait(0)
    assert keeper.did == ["open", "open", "close", "close"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where(daemon), timeout=5)


def test_it_is_a_context_manager(make: Make, keeper: type[Keeper]) -> None:
    with make() as daemon:
        assert send(daemon)[0] == 250
    assert daemon.wait(0)
    assert len(keeper.kept) == 1


def test_it_counts(make: Make) -> None:
    daemon = make()
    assert daemon.stats() == {}
    daemon.start()
    send(daemon)
    stats = daemon.stats()
    assert stats["save_workers"] == 1
    assert stats["save_workers_abandoned"] == 0
    assert [stage["stage"] for stage in stats.pop("stages")] == ["HeadersParser", "Keeper"]
    assert stats.pop("backends")["default"].items() <= stats.items()
    assert all(isinstance(value, int) for value in stats.values())


def test_recipients_are_checked_where_a_chain_says_so(make: Make) -> None:
    with make(config(validate_process="Keeper")) as daemon:
        assert send(daemon, to="nobody@example.com") == (550, b"5.1.1 who?")
        assert send(daemon)[0] == 250


@pytest.mark.parametrize("kind", ["raise", "nonsense", "exit", "hang"])
def test_one_bad_mail_harms_no_other(make: Make, keeper: type[Keeper], kind: str) -> None:
    # The second worker serves while the first one hangs.
    timeout = "3s" if kind == "hang" else "30s"
    with make(config(save_workers_size=2, gw_save_timeout=timeout)) as daemon:
        code, text = send(daemon, kind)
        assert (code, text[:5]) == (451, b"4.3.0")
        assert [send(daemon)[0] for _ in range(100)] == [250] * 100
        assert len(keeper.kept) == 100
        keeper.release.set()


def test_a_worker_that_hangs_gets_a_successor(
    make: Make, keeper: type[Keeper], until: Until
) -> None:
    with make(config(gw_save_timeout="200ms")) as daemon:
        assert send(daemon, "hang")[0] == 451
        until(lambda: daemon.stats()["save_workers_replaced"] == 1)
        assert daemon.stats()["save_workers_abandoned"] == 1
        until(lambda: send(daemon)[0] == 250)  # It is counted before it has begun.
        keeper.release.set()
        until(lambda: daemon.stats()["save_workers_abandoned"] == 0)


def test_a_stop_lets_a_mail_finish(make: Make, keeper: type[Keeper]) -> None:
    daemon = make()
    daemon.start()
    answers: list[tuple[int, bytes]] = []
    sender = threading.Thread(target=lambda: answers.append(send(daemon, "hang")))
    sender.start()
    assert keeper.entered.wait(10)
    results: list[bool] = []
    stopper = threading.Thread(target=lambda: results.append(daemon.shutdown()))
    stopper.start()
    assert not daemon.wait(0.2)
    keeper.release.set()
    stopper.join(10)
    sender.join(10)
    assert results == [True]
    assert answers[0][0] == 250
    assert len(keeper.kept) == 1


def test_a_stop_takes_no_longer_than_its_timeout(make: Make, keeper: type[Keeper]) -> None:
    daemon = make()
    daemon.start()
    sender = threading.Thread(target=_send_and_forget, args=(daemon,))
    sender.start()
    assert keeper.entered.wait(10)
    begun = time.monotonic()
    assert not daemon.shutdown(0.3)
    assert time.monotonic() - begun < 5
    keeper.release.set()
    sender.join(10)


def _send_and_forget(daemon: Daemon) -> None:
    try:
        send(daemon, "hang")
    except (smtplib.SMTPException, OSError):
        return


def test_a_stop_before_the_start_does_nothing(make: Make) -> None:
    daemon = make()
    assert daemon.shutdown()
    assert not daemon.wait(0)
    daemon.start()
    assert send(daemon)[0] == 250


def test_a_daemon_that_runs_is_not_started_again(make: Make, keeper: type[Keeper]) -> None:
    daemon = make()
    daemon.start()
    with pytest.raises(RuntimeError, match="runs already"):
        daemon.start()
    with pytest.raises(RuntimeError, match="before start"):
        daemon.add_processor("Other", keeper)


def test_a_chain_that_stores_nothing_is_warned_of(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with make(config(save_process="Debugger")) as daemon:
        (warning,) = daemon.warnings()
        assert "stores nothing" in warning
    assert "stores nothing" in caplog.text


def test_a_processor_of_ones_own_beside_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "daemon_shout.py").write_text(
        "import guerrilla\n"
        "@guerrilla.processor('DaemonShout', stores=True)\n"
        "def shout(envelope):\n"
        "    return guerrilla.Reply.ok(envelope.subject.upper())\n"
    )
    path = tmp_path / "guerrilla.toml"
    path.write_text(
        'log_file = "off"\nallowed_hosts = ["."]\n'
        '[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
        '[backend_config]\nimport = ["daemon_shout"]\nsave_process = "DaemonShout"\n'
    )
    with guerrilla.Daemon.from_file(path) as daemon:
        assert send(daemon) == (250, b"2.0.0 HELLO")


def test_a_backend_of_ones_own_stands_in_place_of_the_chains() -> None:
    done: list[str] = []

    class Own:
        def open(self) -> None:
            done.append("open")

        def close(self) -> None:
            done.append("close")

        def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
            done.extend(envelope.subject for envelope in envelopes)
            return [None] * len(envelopes)

        def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
            return [Reply.reject() if c.recipient.user == "nobody" else None for c in checks]

    raw = config(save_process="Nonesuch", any_key_of_ones_own=1)
    with Daemon(from_mapping(raw), backend=Own) as daemon:
        assert daemon.warnings() == []
        assert send(daemon)[0] == 250
        assert send(daemon, to="nobody@example.com")[0] == 550
    assert done == ["open", "open", "hello", "close", "close"]


def test_the_defaults_need_no_config() -> None:
    daemon = Daemon()
    assert daemon.config == AppConfig.default()
    assert daemon.addresses == []


# Logs


def test_the_log_of_the_core_comes_through(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with make(log_file=str(path), log_level="debug") as daemon:
        send(daemon)
        path.rename(tmp_path / "a.log.1")
        daemon.reopen_logs()
        send(daemon)
    assert "guerrilla.daemon started" in (tmp_path / "a.log.1").read_text()
    assert "guerrilla.daemon stopped" in path.read_text()
    assert not [
        handler
        for handler in logging.getLogger("guerrilla").handlers
        if isinstance(handler, logging.FileHandler)
    ]
