"""Pipe in a daemon: its example, and mails while its program goes and comes back."""

from __future__ import annotations

import json
import shutil
import smtplib
from pathlib import Path

import pytest

from tests.ledger import MAILS, audit, deliver, killer, make_mails
from tests.pipes import is_gone
from tests.reference.pages import examples
from tests.running import DaemonError, RunningDaemon
from tests.wire import Wire

PLACE = '\n[[servers]]\nlisten_interface = "127.0.0.1:0"\nhost_name = "mx.example.com"\n'


def test_the_example_of_its_page_runs(tmp_path: Path) -> None:
    (text,) = examples("Pipe")
    with (
        RunningDaemon(tmp_path, config=text + PLACE) as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        both = ["a@example.com", "b@example.com"]
        assert client.sendmail("from@example.org", both, "Subject: hello\r\n\r\nbody\r\n") == {}
        (path,) = tmp_path.glob("*.eml")
    stored = path.read_bytes()
    assert stored.startswith(b"Received: from ")
    assert stored.endswith(b"\r\nSubject: hello\r\n\r\nbody\r\n")
    assert b"a@example.com" not in stored
    assert path.stem.encode() in stored


def test_a_program_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    config = '[backend_config]\nsave_process = "Pipe"\npipe_command = "/nowhere/deliver"\n'
    with pytest.raises(DaemonError, match="pipe_command: there is no program /nowhere/deliver"):
        RunningDaemon(tmp_path, config=config + PLACE)


def test_a_stop_leaves_no_program_behind(tmp_path: Path) -> None:
    """The one that runs has the time that a stop has, then it is killed."""
    backend = (
        'pipe_command = ["/bin/sh", "-c", "echo $$$$ > pid; exec sleep 1000"]\n'
        'pipe_timeout = "6s"\n'
    )
    with RunningDaemon(tmp_path, chain="Pipe", backend=backend) as daemon:
        wire = Wire(daemon.port).begin()
        assert wire.ask(b"\r\nbody\r\n.\r\n").startswith("451 4.3.0")
        wire.close()
        pid = int((tmp_path / "pid").read_text(encoding="ascii"))
    assert is_gone(pid)


@pytest.mark.timeout(240)
def test_a_program_that_goes_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    """Its file is renamed three times while 100 connections send.

    One process a mail, which writes where it is looked for: whatever is cut short is seen. And it
    fails where the file is there already.
    """
    for name in ("new", "daemon"):
        (tmp_path / name).mkdir()
    dd = shutil.which("dd")
    assert dd
    program, aside = tmp_path / "keep", tmp_path / "aside"
    program.symlink_to(dd)
    command = [str(program), f"of={tmp_path}/new/${{queue_id}}", "conv=excl", "status=none"]
    backend = f"pipe_command = {json.dumps(command)}\nsave_workers_size = 2\n"
    with RunningDaemon(tmp_path / "daemon", chain="Header|Pipe", backend=backend) as daemon:
        disturb = killer(MAILS, lambda: program.rename(aside), lambda: aside.rename(program))
        sent = deliver(daemon.port, make_mails(), disturb=disturb)
    assert sent.refusals >= 30
    assert sent.dropped == sent.unanswered.total() == 0
    stored = [path.read_bytes() for path in (tmp_path / "new").iterdir()]
    assert audit(sent, stored, most_copies=0) == 0
