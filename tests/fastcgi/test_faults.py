"""The FastCGI stage before servers that fail, in every way that a test could think of."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guerrilla.errors import Unavailable
from guerrilla.processors.fastcgi import FastCGI
from guerrilla.testing import make_envelope, run_chain
from tests.fastcgi.helpers import SAVE, UNRULY, VALIDATE, Mailbox, ask, opened, options
from tests.fastcgi.peers import (
    PATIENCE,
    STDOUT,
    Behaviour,
    Peer,
    answer,
    end,
    record,
    request_on,
    says,
    says_and_waits,
)
from tests.services.phpfpm import PhpFpm

SAVED = answer(b"SAVED")
PASSED = answer(b"PASSED")
LARGE = b"Subject: large\r\n\r\n" + b"x" * (30 << 20)


def stage_at(peer: Peer, **keys: object) -> FastCGI:
    scripts = {"fcgi_script_filename_save": SAVE, "fcgi_script_filename_validate": VALIDATE}
    stage = FastCGI(FastCGI.Options.model_validate({**scripts, **peer.keys, **keys}))
    stage.open()
    return stage


def save(stage: FastCGI, message: bytes | None = None) -> str:
    """What becomes of a mail: `saved`, a reply, or `unavailable: …`."""
    try:
        outcome: Any = stage.save(make_envelope(message))
    except Unavailable as error:
        return f"unavailable: {error}"
    return "saved" if outcome is None else f"{outcome.code} {outcome.enhanced}"


# --- Servers that fail ---------------------------------------------------------------------------


def a_byte_at_a_time(connection: socket.socket) -> None:
    request_on(connection)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for code in SAVED:
        connection.sendall(bytes((code,)))


def closes_at_once(connection: socket.socket) -> None:
    connection.recv(8)


@pytest.mark.parametrize(
    ("behaviour", "fate"),
    [
        pytest.param(says(SAVED), "saved", id="saves"),
        pytest.param(a_byte_at_a_time, "saved", id="a byte at a time"),
        pytest.param(says(SAVED + b"more"), "saved", id="more after it"),
        pytest.param(says(answer(b"SAVED", b"")), "451 4.3.0", id="no header"),
        pytest.param(says(end()), "451 4.3.0", id="nothing"),
        pytest.param(says(SAVED[:-1]), "451 4.3.0", id="not to its end"),
        pytest.param(says(b""), "451 4.3.0", id="closes"),
        pytest.param(closes_at_once, "451 4.3.0", id="closes before it has read"),
        pytest.param(says(record(STDOUT, b"X: y\r\n\r\nSAVED")), "451 4.3.0", id="no end"),
        pytest.param(says(b"HTTP/1.1 400 \r\n\r\n"), "not FastCGI", id="HTTP"),
        pytest.param(says(b"\xff" * 100_000), "not FastCGI", id="garbage"),
        pytest.param(says(end(2)), "it is overloaded", id="overloaded"),
        pytest.param(says_and_waits(b""), "no answer in time", id="silence"),
        pytest.param(says_and_waits(SAVED[:-1]), "no answer in time", id="half an answer"),
    ],
)
def test_what_a_server_does_with_a_mail(behaviour: Behaviour, fate: str) -> None:
    with Peer(behaviour, says(SAVED)) as peer:
        stage = stage_at(peer, fcgi_timeout=4)
        first = save(stage)
        assert fate in first
        assert first == fate or first.startswith("unavailable: FastCGI server 127.0.0.1:")
        if first == "saved":
            _wait_for_the_end(stage)
        # Whatever it was, the next mail has a new connection.
        assert save(stage) == "saved"
        stage.close()
        assert peer.connections == 2


def test_a_server_that_babbles_without_end_is_left_in_time() -> None:
    def babbles(connection: socket.socket) -> None:
        request_on(connection)
        while True:
            connection.sendall(record(STDOUT, b"x" * 60_000))

    with Peer(babbles) as peer:
        stage = stage_at(peer, fcgi_timeout=0.3)
        began = time.monotonic()
        assert "no answer in time" in save(stage)
        assert time.monotonic() - began < 5
        stage.close()


def test_a_server_that_stops_reading_is_left_in_time() -> None:
    over = threading.Event()
    with Peer(lambda _: over.wait(PATIENCE)) as peer:
        stage = stage_at(peer, fcgi_timeout=0.3)
        assert "no answer in time" in save(stage, LARGE)
        stage.close()
        over.set()


def test_saved_before_the_mail_was_heard_is_not_believed() -> None:
    over = threading.Event()

    def saves_before_it_has_read(connection: socket.socket) -> None:
        connection.recv(8)
        connection.sendall(SAVED)
        over.wait(PATIENCE)

    with Peer(saves_before_it_has_read, says(SAVED)) as peer:
        stage = stage_at(peer)
        assert save(stage, LARGE) == "451 4.3.0"
        over.set()
        assert save(stage) == "saved"
        stage.close()


def test_both_may_talk_at_once() -> None:
    """A server that writes more than a socket holds before it reads."""

    def talks_first(connection: socket.socket) -> None:
        connection.recv(8)
        connection.sendall(record(STDOUT, b"X: " + b"y" * 60_000) * 400)
        request_on(connection)
        connection.sendall(end())

    with Peer(talks_first) as peer:
        stage = stage_at(peer)
        assert save(stage, LARGE) == "451 4.3.0"  # and not: no answer in time
        stage.close()


# --- Kept connections ----------------------------------------------------------------------------


def test_one_connection_serves_many_mails() -> None:
    with Peer(says(*[SAVED, PASSED] * 20)) as peer:
        stage = stage_at(peer)
        for _ in range(20):
            assert save(stage) == "saved"
            assert ask(stage, "to") is None
        stage.close()
        assert peer.connections == 1


def test_one_that_was_closed_meanwhile_costs_no_mail() -> None:
    """Each connection serves one mail, and closes: seen before the next is sent."""
    with Peer(says(SAVED)) as peer:
        stage = stage_at(peer)
        for number in range(1, 20):
            assert save(stage) == "saved"
            assert peer.connections == number
            _wait_for_the_end(stage)
        stage.close()


def _wait_for_the_end(stage: FastCGI) -> None:
    connection: Any = stage._kept.get()
    connection._poll.poll(10_000)


def closes_at_the_second(connection: socket.socket) -> None:
    """Saves one mail, and closes when it has heard the second: it may have been saved or not."""
    request_on(connection)
    connection.sendall(SAVED)
    request_on(connection)


@pytest.mark.parametrize(
    ("repeat", "fate", "connections"), [(False, "451 4.3.0", 1), (True, "saved", 2)]
)
def test_a_mail_is_posted_again_only_where_that_is_wanted(
    repeat: bool, fate: str, connections: int
) -> None:
    with Peer(closes_at_the_second, says(SAVED)) as peer:
        stage = stage_at(peer, fcgi_repeat=repeat)
        assert save(stage) == "saved"
        assert save(stage) == fate
        stage.close()
        assert peer.connections == connections


def test_a_mail_is_posted_again_once() -> None:
    with Peer(closes_at_the_second, says(b"")) as peer:
        stage = stage_at(peer, fcgi_repeat=True)
        assert save(stage) == "saved"
        assert save(stage) == "451 4.3.0"
        stage.close()
        assert peer.connections == 2


def test_a_mail_that_had_a_word_of_an_answer_is_not_posted_again() -> None:
    def begins_to_answer(connection: socket.socket) -> None:
        request_on(connection)
        connection.sendall(SAVED)
        request_on(connection)
        connection.sendall(SAVED[:5])

    with Peer(begins_to_answer, says(SAVED)) as peer:
        stage = stage_at(peer, fcgi_repeat=True)
        assert save(stage) == "saved"
        assert save(stage) == "451 4.3.0"
        stage.close()
        assert peer.connections == 1


def test_a_recipient_is_asked_about_again() -> None:
    with Peer(closes_at_the_second, says(PASSED)) as peer:
        stage = stage_at(peer)
        assert save(stage) == "saved"
        assert ask(stage, "to") is None
        stage.close()
        assert peer.connections == 2


# --- PHP-FPM that comes and goes -----------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_server_that_was_restarted_costs_nothing_after(
    tcp: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough that a busy machine asks again within it.
    monkeypatch.setattr("guerrilla.kept.FIRST_DELAY", 3.0)
    box = Mailbox(tmp_path / "mail")
    with PhpFpm(tmp_path, tcp=tcp, environment=box.environment) as php:
        stage = opened(php)
        for end_it in (php.stop, php.kill):
            assert save(stage) == "saved"
            end_it()
            assert save(stage).startswith("unavailable: FastCGI server ")
            assert "tried again in " in save(stage)
            php.start()
            while (fate := save(stage)) != "saved":  # so long it does not even try
                assert "tried again in " in fate
        # Restarted between two mails: nobody hears of it.
        php.stop()
        php.start()
        assert save(stage) == "saved"
        stage.close()
        assert len(box.mails()) == 5


def test_a_server_that_hangs_is_left_in_time_and_found_again(tmp_path: Path) -> None:
    box = Mailbox(tmp_path / "mail")
    with PhpFpm(tmp_path, environment=box.environment) as php:
        stage = opened(php, fcgi_timeout=4)
        assert save(stage) == "saved"
        php.pause()
        assert save(stage).endswith("no answer in time")
        php.resume()
        assert save(stage) == "saved"
        stage.close()


@pytest.mark.parametrize("repeat", [True, False])
def test_processes_that_end_after_some_requests(repeat: bool, tmp_path: Path) -> None:
    """`pm.max_requests`: with `fcgi_repeat` no mail hears of it, without it at most one a time."""
    box = Mailbox(tmp_path / "mail")
    recycling = ["pm.max_requests = 10"]
    with PhpFpm(tmp_path, environment=box.environment, children=1, pool=recycling) as php:
        mails = [make_envelope() for _ in range(100)]
        replies = run_chain("FastCGI", mails, options=options(php, fcgi_repeat=repeat))
    stored = box.mails()
    accepted = {
        mail.queued_id for mail, reply in zip(mails, replies, strict=True) if reply.code == 250
    }
    assert accepted <= set(stored)
    assert {reply.code for reply in replies} <= {250, 451}
    refused = len(mails) - len(accepted)
    assert refused == 0 if repeat else refused <= 10


def test_a_pool_without_a_free_process_is_451_in_time(tmp_path: Path) -> None:
    """Each connection that is kept has a process of the pool."""
    box = Mailbox(tmp_path / "mail")
    with PhpFpm(tmp_path, environment=box.environment, children=1) as php:
        first, second = opened(php), opened(php, fcgi_timeout=4)
        assert save(first) == "saved"
        assert save(second).endswith("no answer in time")
        first.close()
        assert save(second) == "saved"
        second.close()


def test_a_folder_that_cannot_be_written_is_451(tmp_path: Path) -> None:
    """By the example's script; by root as well, who may write nearly everywhere."""
    for folder in ("/proc", "/nowhere"):
        place = tmp_path / folder.strip("/")
        place.mkdir()
        with PhpFpm(place, environment={"MAIL_FOLDER": folder}) as php:
            stage = opened(php)
            assert save(stage) == "451 4.3.0"
            stage.close()


class Confined(PhpFpm):
    """One whose mail folder has room for little, in the way that this machine allows.

    As root it is a small file system that only PHP-FPM sees; else no file of its may be large.
    """

    def command(self) -> Sequence[str]:
        folder = self.folder / "mail"
        mount = 'mount -t tmpfs -o size=256k none "$0" && exec "$@"'
        small = ["unshare", "-m", "sh", "-c", mount, str(folder)]
        can = subprocess.run([*small, "true"], capture_output=True, check=False).returncode == 0
        return [*(small if can else ["prlimit", "--fsize=100000"]), *super().command()]

    def mails(self) -> list[Path]:
        """What PHP-FPM sees."""
        assert self.process is not None
        return list(Path(f"/proc/{self.process.pid}/root{self.folder / 'mail'}").iterdir())


def test_a_disk_that_is_full_is_451_and_what_was_saved_is_whole(tmp_path: Path) -> None:
    box = Mailbox(tmp_path / "mail")
    php = Confined(tmp_path, environment=box.environment)
    with php:
        stage = opened(php)
        small, large = b"Subject: small\r\n\r\n", b"Subject: large\r\n\r\n" + b"x" * 300_000
        fates = [save(stage, mail) for mail in (small, large, small, large, small)]
        assert fates == ["saved", "451 4.3.0", "saved", "451 4.3.0", "saved"]
        stage.close()
        mails = [path for path in php.mails() if path.suffix == ".eml"]
        assert [path.read_bytes() for path in mails] == [small] * 3


def test_a_list_that_is_away_refuses_nobody(tmp_path: Path) -> None:
    with PhpFpm(tmp_path, environment={"RECIPIENTS": "/nowhere"}) as php:
        stage = opened(php)
        reply: Any = ask(stage, "to")
        stage.close()
    assert (reply.code, reply.text) == (451, "Recipients cannot be looked up now")


def test_a_script_past_the_limit_fails_its_batch_at_once(unix_php: PhpFpm) -> None:
    """The others would each wait as long."""
    subjects = ["good", "sleeps", "good", "sleeps", "sleeps"]
    mails = [make_envelope(subject=subject) for subject in subjects]
    keys = {"fcgi_script_filename_save": UNRULY, "fcgi_timeout": 4}
    began = time.monotonic()
    replies = run_chain("HeadersParser|FastCGI", mails, options=options(unix_php, **keys))
    assert [reply.code for reply in replies] == [250, 451, 451, 451, 451]
    assert time.monotonic() - began < 8
