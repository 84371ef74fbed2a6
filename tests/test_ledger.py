"""The senders that keep count, and what their audit finds."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.ledger import Ledger, Mail, audit, deliver, killer, make_mails, token_of
from tests.running import RunningDaemon

MAILS = [Mail(str(number), b"X-Ledger: %d\r\n\r\nhello\r\n" % number) for number in range(3)]
HEADER = b"Received: by mx\r\n"


def ledger() -> Ledger:
    """Two of three were accepted, one of them after a 4xx."""
    made = Ledger(MAILS)
    made.accepted.update(["0", "1"])
    made.deferred.update(["1", "2"])
    return made


def stored(*numbers: int) -> list[bytes]:
    return [HEADER + MAILS[number].message for number in numbers]


def test_what_agrees_is_found_to_agree() -> None:
    assert audit(ledger(), stored(0, 1)) == 0
    assert audit(ledger(), stored(0, 1, 1, 2)) == 1


@pytest.mark.parametrize(
    ("found", "error"),
    [
        pytest.param(stored(0), r"1 answered 250 and not stored: \['1'\]", id="lost"),
        pytest.param([*stored(0, 1), stored(0)[0][:-3] + b"\n"], "altered: 0", id="altered"),
        pytest.param(stored(0, 0, 1), "0: stored 2 times, 1 attempts", id="copy"),
        pytest.param([*stored(0, 1), b"X-Ledger: 9\r\n\r\n"], "never sent: 9", id="never sent"),
        pytest.param([*stored(0, 1), b"Subject: hello\r\n\r\n"], "no mail of ours", id="foreign"),
    ],
)
def test_what_disagrees_is_named(found: list[bytes], error: str) -> None:
    with pytest.raises(AssertionError, match=error):
        audit(ledger(), found)


def test_too_many_copies_and_other_answers_are_named() -> None:
    with pytest.raises(AssertionError, match="1 copies, at most 0"):
        audit(ledger(), stored(0, 1, 1), most_copies=0)
    other = ledger()
    other.other.append("554 5.0.0 no")
    with pytest.raises(AssertionError, match="554"):
        audit(other, stored(0, 1))


@pytest.mark.parametrize("whole", [False, True])
def test_unanswered_is_only_what_was_sent_whole(whole: bool) -> None:
    """The first connection is reset within the message, or behind its final dot."""
    lines = b"x" * 998 + b"\r\n"
    mail = Mail("1", b"X-Ledger: 1\r\n\r\n" + lines * 24_000)  # more than any buffer takes
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(answer_the_second, listener, whole=whole)
        sent = deliver(listener.getsockname()[1], [mail])
        serving.result()
    assert (sent.delivered, sent.dropped, sent.lost_answers) == (1, int(not whole), int(whole))
    assert (sent.opened, sent.unopened) == (2, 0)


@pytest.mark.parametrize(
    "greeting", [None, b"", b"421 4.3.2 not now\r\n", b"220 here\r\n500 no\r\n"]
)
def test_connections_that_do_not_open_are_counted(greeting: bytes | None, tmp_path: Path) -> None:
    """Nobody listens, or the first client is sent away, before the daemon is there."""
    with RunningDaemon(tmp_path) as daemon, socket.create_server(("127.0.0.1", 0)) as listener:
        places = iter([listener.getsockname()[1]])
        if greeting is None:
            listener.close()
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(deliver, lambda: next(places, daemon.port), make_mails(1))
            if greeting is not None:
                client, _ = listener.accept()
                with client:
                    client.sendall(greeting)
                    _ = greeting and client.recv(4_096)
            sent = sending.result()
    assert (sent.opened, sent.unopened, sent.dropped) == (1, 1, 0)


def answer_the_second(listener: socket.socket, *, whole: bool) -> None:
    """A receiver that resets its first client."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    for number in range(2):
        client, _ = listener.accept()
        with client, client.makefile("rb") as lines:
            client.sendall(b"220 here\r\n")
            for replies, commands in ((b"250 hello\r\n", 1), (b"250 a\r\n250 b\r\n354 c\r\n", 3)):
                for _ in range(commands):
                    lines.readline()
                client.sendall(replies)
            while (whole or number) and lines.readline() != b".\r\n":
                pass
            if number:
                client.sendall(b"250 2.0.0 OK\r\n")
            else:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_table_that_goes_and_comes_back(tmp_path: Path) -> None:
    """The folder of SQLite's file is renamed, and back, three times while mail comes in."""
    mails = make_mails(600)
    folder, aside = tmp_path / "daemon", tmp_path / "aside"
    folder.mkdir()
    with RunningDaemon(folder, backend="save_workers_size = 2") as daemon:
        disturb = killer(600, lambda: folder.rename(aside), lambda: aside.rename(folder))
        sent = deliver(daemon.port, mails, connections=20, disturb=disturb)
        assert sent.refusals >= 30
        assert sent.dropped == sent.unanswered.total() == 0
        rows = [row["mail"] for row in daemon.rows()]
    # What was committed in the moment in which its file went is answered 451, and comes again.
    assert audit(sent, rows) <= 3 * 20
    assert {token_of(row) for row in rows} == {mail.token for mail in mails}
