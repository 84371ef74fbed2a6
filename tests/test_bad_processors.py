"""Processors that fail in every way there is: one mail suffers, the next hundred are saved."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from tests.running import RunningDaemon
from tests.wire import HELLO, TRANSACTION, Wire, until

UNRULY = Path(__file__).parent / "data" / "unruly.py"
AT_MOST = 15.0
"""Seconds within which a limit of one second has taken effect, on a busy machine too."""

BLAME = re.compile(r"^\S+ (?:WARNING|ERROR|CRITICAL) .*$", re.MULTILINE)
IDS = re.compile(r"\b[0-9a-z]{26}\b")
QUEUED = re.compile(r"queued as (\S+)")


SHORT = "4s"
"""A time limit where something is to take longer: on a busy machine, too, enough for the rest."""


def serve(
    folder: Path,
    chain: str = "HeadersParser|Unruly|SQL",
    workers: int = 1,
    more: str = "",
    *,
    save_timeout: str = "20s",
    check_timeout: str = "20s",
) -> RunningDaemon:
    """A daemon with the unruly module beside its config."""
    shutil.copy(UNRULY, folder)
    return RunningDaemon(
        folder,
        chain=chain,
        backend=f"""\
import = ["unruly"]
gw_save_timeout = "{save_timeout}"
gw_val_rcpt_timeout = "{check_timeout}"
save_workers_size = {workers}
{more}""",
    )


def mail(subject: str) -> bytes:
    return f"Subject: {subject}\r\n\r\nbody".encode()


def save(port: int, count: int = 100) -> list[str]:
    """Sends that many mails on one connection, which all must be taken; their ids."""
    ids = []
    with Wire(port) as client:
        for _ in range(count):
            reply = client.deliver(mail("good"))
            found = QUEUED.search(reply)
            assert found is not None, reply
            ids.append(found[1])
    return ids


def check_one_victim(
    daemon: RunningDaemon, subject: str, others: int = 100, awaited: str = ""
) -> list[str]:
    """Sends the bad mail and then good ones; the errors that were logged meanwhile."""
    before = len(daemon.log_text())
    began = time.monotonic()
    with Wire(daemon.port) as client:
        assert client.deliver(mail(subject)).startswith("451 4.3.0 ")
        assert client.ask(b"NOOP\r\n").startswith("250 ")
    assert time.monotonic() - began < AT_MOST
    before_them = len(daemon.rows())
    saved = save(daemon.port, others)
    assert len(daemon.rows()) == before_them + others
    assert all(row["subject"] == "good" for row in daemon.rows())
    until(lambda: awaited in daemon.log_text()[before:])
    # Beside the line that each mail has.
    lines = daemon.log_text()[before:].splitlines(keepends=True)
    log = "".join(line for line in lines if " guerrilla.mail " not in line)
    assert not any(queued_id in log for queued_id in saved)
    return BLAME.findall(log)


EXCEPTIONS = ["raise", "recursion", "memory", "354", "line ends"]
NONSENSE = ["int", "text", "true", "list", "tuple", "replies"]
EXITS = ["exit", "interrupt", "panic"]


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_mail_harms_no_other(tmp_path: Path, workers: int) -> None:
    with serve(tmp_path, workers=workers) as daemon:
        for kind in [*EXCEPTIONS, *NONSENSE]:
            (line,) = check_one_victim(daemon, kind, 20)
            assert IDS.search(line), line
        for kind in EXITS:
            lines = check_one_victim(daemon, kind, awaited=" died of ")
            assert len([line for line in lines if IDS.search(line)]) == 1, lines
            # The worker ended, and says of what.
            assert len([line for line in lines if " died of " in line]) == 1, lines
        tracebacks = daemon.log_text().count("Traceback (most recent call last)")
    assert tracebacks == len([*EXCEPTIONS, *EXITS])


@pytest.mark.parametrize("workers", [1, 2])
def test_one_mail_that_hangs_for_ever_harms_no_other(tmp_path: Path, workers: int) -> None:
    with serve(tmp_path, workers=workers, save_timeout=SHORT) as daemon:
        for _ in range(2):
            before = len(daemon.log_text())
            check_one_victim(daemon, "hang")
            # The others may have been saved before somebody looks.
            until(lambda b=before: " ERROR " in daemon.log_text()[b:])  # type: ignore[misc]
            lines = BLAME.findall(daemon.log_text()[before:])
            (line,) = (line for line in lines if " ERROR " in line)
            assert " hangs for " in line
            assert IDS.search(line), line
        # Where it hangs is in the log.
        assert daemon.log_text().count("time.sleep(3_600)") == 2


@pytest.mark.parametrize("subject", ["never", "stubborn", "exit"])
def test_one_bad_mail_of_an_async_stage_harms_no_other(tmp_path: Path, subject: str) -> None:
    with serve(tmp_path, chain="HeadersParser|UnrulyAsync|SQL", save_timeout=SHORT) as daemon:
        assert len(check_one_victim(daemon, subject)) >= 1


def test_a_bad_batch_harms_no_other(tmp_path: Path) -> None:
    with serve(tmp_path, chain="HeadersParser|UnrulyBatch|SQL") as daemon:
        for kind in ["too few", "too many", "nothing", "generator", "strange", "raise"]:
            assert len(check_one_victim(daemon, kind, 20)) == 1


def test_too_many_that_hang_close_the_intake_and_it_says_so(tmp_path: Path) -> None:
    with serve(tmp_path, save_timeout="3s") as daemon:
        for hung in range(1 + 4):
            with Wire(daemon.port) as client:
                assert client.deliver(mail("hang")).startswith("451 4.3.0 ")
            until(lambda n=hung: daemon.log_text().count(" hangs for ") > n)  # type: ignore[misc]
        until(lambda: "too many workers hang" in daemon.log_text())
        with Wire(daemon.port) as client:
            client.ask(HELLO)
            client.send(TRANSACTION)
            replies = [client.reply() for _ in range(3)]
        assert replies[2].startswith("451 4.3.2 ")
        assert daemon.rows() == []


# --- Time and storing -----------------------------------------------------------------------------


def test_a_mail_whose_time_is_up_before_it_is_stored_is_not_stored(tmp_path: Path) -> None:
    with serve(tmp_path, save_timeout=SHORT) as daemon:
        with Wire(daemon.port) as client:
            assert client.deliver(mail("slow")).startswith("451 4.3.0 ")
        # The slow stage has come to its end, and the mail goes no further.
        until(lambda: "not saved, its sender is answered or gone" in daemon.log_text())
        save(daemon.port)
        assert {row["subject"] for row in daemon.rows()} == {"good"}


def test_a_mail_that_is_being_stored_is_answered_by_what_becomes_of_it(tmp_path: Path) -> None:
    with serve(tmp_path, chain="HeadersParser|SlowStore|SQL", save_timeout=SHORT) as daemon:
        with Wire(daemon.port) as client:
            assert client.deliver(mail("slow store")).startswith("250 2.0.0 ")
        assert [row["subject"] for row in daemon.rows()] == ["slow store"]


def test_a_sender_that_resets_before_its_mail_is_stored_will_send_it_again(tmp_path: Path) -> None:
    with serve(tmp_path, save_timeout="20s") as daemon:
        client = Wire(daemon.port).begin()
        client.send(mail("slow") + b"\r\n.\r\n")
        until(lambda: "a slow one" in daemon.log_text())
        client.reset()
        until(lambda: "not saved, its sender is answered or gone" in daemon.log_text())
        save(daemon.port)
        assert {row["subject"] for row in daemon.rows()} == {"good"}


def test_a_sender_that_only_stops_sending_waits_for_its_answer(tmp_path: Path) -> None:
    with serve(tmp_path, save_timeout="20s") as daemon:
        with Wire(daemon.port).begin() as client:
            client.send(mail("slow") + b"\r\n.\r\n")
            until(lambda: "a slow one" in daemon.log_text())
            client.finish_sending()
            assert client.reply().startswith("250 2.0.0 ")
        assert [row["subject"] for row in daemon.rows()] == ["slow"]


# --- Recipients -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "user", "reply"),
    [
        ("UnrulyCheck", "raise", "451 4.3.0 "),
        ("UnrulyCheck", "int", "451 4.3.0 "),
        ("UnrulyCheck", "exit", "451 4.3.0 "),
        ("UnrulyCheck", "hang", "451 4.4.3 "),
        ("UnrulyAsyncCheck", "never", "451 4."),
    ],
)
def test_one_bad_check_harms_no_other(tmp_path: Path, chain: str, user: str, reply: str) -> None:
    more = f'validate_process = "{chain}"'
    with serve(tmp_path, chain="HeadersParser|SQL", more=more, check_timeout=SHORT) as daemon:
        with Wire(daemon.port) as client:
            client.ask(HELLO)
            client.ask(b"MAIL FROM:<from@example.org>\r\n")
            assert client.ask(f"RCPT TO:<{user}@example.com>\r\n".encode()).startswith(reply)
            # The session goes on, with another recipient.
            assert client.ask(b"RCPT TO:<to@example.com>\r\n").startswith("250 2.1.5 ")
            assert client.ask(b"DATA\r\n").startswith("354 ")
            assert client.ask(mail("good") + b"\r\n.\r\n").startswith("250 2.0.0 ")
        save(daemon.port)
        assert len(daemon.rows()) == 101
        lines = BLAME.findall(daemon.log_text())
        assert len([line for line in lines if f"recipient {user}@example.com" in line]) == 1, lines
