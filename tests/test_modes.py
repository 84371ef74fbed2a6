"""Who may read what the daemon and its commands make, whatever the umask allows."""

from __future__ import annotations

import json
import os
import smtplib
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.running import RunningDaemon

UMASKS = pytest.mark.parametrize("umask", ["000", "022"])

OWNER = 0o600
OWNERS_FOLDER = 0o700


def under(umask: str, *command: str) -> Sequence[str]:
    """A command with that umask, which a process of Python would give all of its threads."""
    return ("sh", "-c", f'umask {umask} && exec "$@"', "sh", *command)


def guerrillad(umask: str) -> Sequence[str]:
    return under(umask, sys.executable, "-m", "guerrilla")


def modes_in(folder: Path) -> dict[str, int]:
    """Of all that is below a folder, by its path there."""
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in found}


def send(daemon: RunningDaemon) -> None:
    with smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client:
        client.sendmail("a@example.com", ["to@example.com"], "Subject: hello\r\n\r\nbody\r\n")


@UMASKS
def test_what_a_daemon_makes(tmp_path: Path, umask: str) -> None:
    """All of it: a new kind of file has to be named here."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    (folder / "users").mkdir(mode=0o755)
    ids = f"{os.geteuid()}:{os.getegid()}"
    backend = (
        f"maildir_path = {json.dumps(f'{folder}/users/[user]/Maildir')}\n"
        f'maildir_user_map = "to={ids}"\n'
    )
    with RunningDaemon(
        folder,
        chain="HeadersParser|Hasher|Header|MailDir|SQL",
        top='log_file = "main.log"\npid_file = "d.pid"\nspill_size = 1',
        server='log_file = "own.log"',
        backend=backend,
        command=guerrillad(umask),
    ) as daemon:
        send(daemon)
        running = modes_in(folder)
    (mail,) = (path for path in running if path.startswith("users/to/Maildir/new/"))
    ours = {
        "mail.db": OWNER,
        "mail.db-wal": OWNER,
        "mail.db-shm": OWNER,
        "d.pid.sock": OWNER,
        "d.pid": 0o644,  # logrotate and others read it
        "main.log": 0o640,
        "own.log": 0o640,
        "users/to": OWNERS_FOLDER,
        "users/to/Maildir": OWNERS_FOLDER,
        **{f"users/to/Maildir/{name}": OWNERS_FOLDER for name in ("tmp", "new", "cur")},
        mail: OWNER,
    }
    made_by_the_test = {"users", "guerrilla.toml", "daemon.log"}
    assert {path: mode for path, mode in running.items() if path not in made_by_the_test} == ours
    assert modes_in(folder)["mail.db"] == OWNER


@UMASKS
def test_what_commands_make(tmp_path: Path, umask: str) -> None:
    folder = tmp_path / "daemon"
    folder.mkdir()
    with RunningDaemon(folder) as daemon:
        send(daemon)
    made = tmp_path / "made"
    made.mkdir()
    config = str(daemon.config_file)
    for command, said in (
        (["cert", "--host", "mx.example.com", "--out", str(made)], ""),
        (["password", "--user", "alice", "--file", str(made / "users")], "correct horse"),
        (["mail", "export", str(made / "mails"), "-c", config], ""),
    ):
        subprocess.run(
            [*guerrillad(umask), *command],
            input=said,
            text=True,
            check=True,
            capture_output=True,
            timeout=60,
        )
    modes = modes_in(made)
    public = {path for path in modes if path.endswith(".crt")}
    assert len(public) == 1
    assert len(modes) == 5
    for path, mode in modes.items():
        is_folder = (made / path).is_dir()
        wanted = 0o644 if path in public else OWNERS_FOLDER if is_folder else OWNER
        assert mode == wanted, path


def test_modes_of_what_is_there_stay(tmp_path: Path) -> None:
    """Its owner has chosen them, and may share a log or a database with a group on purpose."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    with RunningDaemon(folder, top='log_file = "main.log"') as daemon:
        send(daemon)
    paths = {folder / "mail.db": 0o660, folder / "main.log": 0o664}
    for path, mode in paths.items():
        path.chmod(mode)
    with RunningDaemon(folder, top='log_file = "main.log"', command=guerrillad("000")) as daemon:
        send(daemon)
        running = modes_in(folder)
    assert (folder / "mail.db-wal").exists() is False
    assert running["mail.db-wal"] == running["mail.db-shm"] == 0o660
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in paths} == paths
    assert "every user of this machine" not in (folder / "main.log").read_text("utf-8")


def test_a_database_that_everybody_reads_is_warned_of(tmp_path: Path) -> None:
    folder = tmp_path / "daemon"
    folder.mkdir()
    with RunningDaemon(folder):
        pass
    daemon_db = folder / "mail.db"
    daemon_db.chmod(0o644)
    with RunningDaemon(folder) as daemon:
        send(daemon)
    told = f"{daemon_db}: every user of this machine can read or write it (mode 644): chmod o="
    assert daemon.log_text().count(told) == 1
    assert stat.S_IMODE(daemon_db.stat().st_mode) == 0o644
