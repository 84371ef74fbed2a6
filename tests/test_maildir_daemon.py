"""MailDir in a daemon: its example, and 5,000 mails while its folder goes and comes back."""

from __future__ import annotations

import itertools
import json
import smtplib
from pathlib import Path

import pytest

from tests.ledger import MAILS, audit, deliver, killer, make_mails
from tests.maildirs import contents, files
from tests.reference.pages import examples
from tests.running import DaemonError, RunningDaemon
from tests.services import dovecot

PLACE = '\n[[servers]]\nlisten_interface = "127.0.0.1:0"\nhost_name = "mx.example.com"\n'


def test_the_example_of_its_page_runs(tmp_path: Path) -> None:
    (text,) = examples("MailDir")
    (tmp_path / "mail").mkdir()
    with (
        RunningDaemon(tmp_path, config=text + PLACE) as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        everybody = ["Alice@example.com", "carol@example.com", "bob@example.com", "postmaster"]
        refused = client.sendmail("from@example.org", everybody, "Subject: hello\r\n\r\nbody\r\n")
    assert refused == {
        "carol@example.com": (550, b"5.1.1 User unknown in local recipient table"),
    }
    for user, to in (("alice", b"Alice"), ("bob", b"bob"), ("postmaster", b"postmaster")):
        (mail,) = contents(tmp_path / "mail" / user)
        assert mail.startswith(b"Delivered-To: " + to + b"@")
        assert mail.endswith(b"\r\nSubject: hello\r\n\r\nbody\r\n")


def test_the_example_of_wildcard_runs(tmp_path: Path) -> None:
    (text,) = examples("Wildcard")
    with (
        RunningDaemon(tmp_path, config=text + PLACE) as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        both = ["a@sub.Example.com", "a@mx10.example.net"]
        refused = client.sendmail("from@example.org", both, "Subject: hello\r\n\r\nbody\r\n")
        assert [row["recipient"] for row in daemon.rows()] == ["a@sub.Example.com"]
    assert refused == {
        "a@mx10.example.net": (550, b"5.1.2 Host mx10.example.net is not served here"),
    }


def test_a_folder_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    """With the config's key; nothing of it is made."""
    (text,) = examples("MailDir")
    with pytest.raises(DaemonError, match=r"backend_config.maildir_path: .*/mail: No such file"):
        RunningDaemon(tmp_path, config=text + PLACE)
    assert not (tmp_path / "mail").exists()


@pytest.mark.timeout(300)
def test_a_maildir_that_goes_and_comes_back_loses_nothing() -> None:
    """Whole, or its `tmp`, or its `new`: three times while 100 connections send."""
    mails = make_mails()
    mine = dovecot.reader_id()
    with dovecot.shared_folder(in_memory=True) as folder:
        maildir, aside = folder / "to", folder / "aside"
        away = itertools.cycle([maildir, maildir / "tmp", maildir / "new"])
        gone: list[Path] = []

        def take() -> None:
            gone.append(next(away))
            gone[-1].rename(aside)

        backend = (
            f"maildir_path = {json.dumps(f'{folder}/[user]')}\n"
            f'maildir_user_map = "to={mine}:{mine}"\nmaildir_quota = "1 GiB"\n'
            "save_workers_size = 2\n"
        )
        run = folder / "daemon"
        run.mkdir()
        with RunningDaemon(run, chain="Header|MailDir", backend=backend) as daemon:
            disturb = killer(MAILS, take, lambda: aside.rename(gone[-1]))
            sent = deliver(daemon.port, mails, disturb=disturb)
        assert len(gone) == 3
        assert sent.refusals >= 30
        assert sent.dropped == sent.unanswered.total() == 0
        assert files(maildir, "tmp") == []
        stored = contents(maildir)
        assert audit(sent, stored, most_copies=0) == 0
        found = dovecot.fetch(maildir, "size.physical")
        assert sum(int(mail["size.physical"]) for mail in found) == sum(map(len, stored))
