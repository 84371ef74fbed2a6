"""Maildirs on real file systems: full, over quota, of other users, read by Dovecot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guerrilla._core import Address, make_check
from guerrilla.maildir import quota
from guerrilla.processors.maildir import MailDir
from tests.badmails import BAD
from tests.maildirs import DATA, envelope, files, nothing_left, read_back, replies, stage
from tests.services import dovecot

ROOT = Path(__file__).parent.parent
IS_ROOT = os.geteuid() == 0
ALICE = Address("alice", "example.com")


@pytest.fixture
def shared() -> Iterator[Path]:
    with dovecot.shared_folder() as folder:
        yield folder


# What others read


def test_dovecot_reads_what_was_stored(shared: Path) -> None:
    mine = dovecot.reader_id()
    one = stage(shared, f"alice={mine}:{mine}")
    one.open()
    mails = [envelope(data=DATA.replace(b"hello", b"mail %d" % n)) for n in range(3)]
    assert one.save_batch(mails) == [None] * 3
    found = dovecot.fetch(shared / "alice")
    texts = sorted(mail["text"].encode() for mail in found)
    assert texts == sorted(mail.bytes_for(0) for mail in mails)
    assert {mail["mailbox"] for mail in found} == {"INBOX"}
    assert {int(mail["size.physical"]) for mail in found} == {len(text) for text in texts}


@pytest.mark.parametrize("kind", BAD)
def test_every_kind_of_message_is_stored_byte_for_byte(tmp_path: Path, kind: str) -> None:
    one = stage(tmp_path)
    one.open()
    mail = envelope(data=BAD[kind])
    assert one.save_batch([mail]) == [None]
    assert read_back(tmp_path / "alice") == [mail.bytes_for(0)]
    assert read_back(tmp_path / "alice")[0].endswith(BAD[kind])


@pytest.mark.parametrize("kind", sorted(BAD.keys() - {"NUL", "empty"}))
def test_dovecot_reads_every_kind(shared: Path, kind: str) -> None:
    """But for NUL, in whose place it shows another character, as IMAP can say none."""
    mine = dovecot.reader_id()
    one = stage(shared, f"alice={mine}:{mine}")
    one.open()
    mail = envelope(data=BAD[kind])
    assert one.save_batch([mail]) == [None]
    (found,) = dovecot.fetch(shared / "alice")
    assert int(found["size.physical"]) == len(mail.bytes_for(0))
    if kind != "no UTF-8":  # JSON has no way to say it.
        assert found["text"].encode() == mail.bytes_for(0)


# Whose files they are


@pytest.mark.parametrize("keep", [True, False])
def test_files_become_the_users(tmp_path: Path, keep: bool) -> None:
    """As root those of any user; else those of one's own, which anybody can give."""
    uid, gid = (4711, 4712) if IS_ROOT else (os.geteuid(), os.getegid())
    one = stage(tmp_path, "alice=-1:-1" if keep else f"alice={uid}:{gid}")
    one.open()
    assert one.save_batch([envelope()]) == [None]
    (path,) = files(tmp_path / "alice")
    mine = (os.geteuid(), os.getegid()) if keep else (uid, gid)
    for place in (path, path.parent, tmp_path / "alice", tmp_path / "alice" / "tmp"):
        assert (place.stat().st_uid, place.stat().st_gid) == mine


AS_NOBODY = """
import os, sys
sys.path[:0] = ["python", "."]
from pathlib import Path
from tests.maildirs import envelope, files, nothing_left, replies, stage
folder = Path(sys.argv[1])
if os.geteuid() == 0:  # Only now: this Python may be in a folder of root's.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


def as_nobody(code: str, folder: Path) -> str:
    """What Python code prints that runs as another user than root, with that `folder`."""
    folder.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY + code, os.fspath(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_who_is_not_root_cannot_start_with_the_ids_of_another(shared: Path) -> None:
    """The error says which entry, and what to do."""
    code = """
try: stage(folder, "bob=-1:-1,alice=1:1").open()
except Exception as error: print(error)
"""
    assert as_nobody(code, shared) == (
        f"backend_config.maildir_user_map: alice=1:1: {shared}/alice: Operation not permitted: "
        "only root can give files to another user; write alice=-1:-1, or let the daemon run as "
        "root or as that user\n"
    )
    assert not (shared / "alice").exists()
    assert (shared / "bob" / "new").is_dir()


# Full


FILL = """
import json, os, resource, sys
sys.path[:0] = ["python", "."]
from pathlib import Path
from tests.maildirs import DATA, envelope, files, replies, stage
folder, limit, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
one = stage(folder)
one.open()
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
both = ("alice@example.com", "bob@example.com")
mails = [envelope(*both, data=DATA + b"x" * size) for _ in range(64)]
small = envelope(data=b"")
found = replies(one.save_batch(mails))
shown = {user: [p.read_bytes() for p in files(folder / user)] for user in ("alice", "bob")}
saved = [mail for mail, reply in zip(mails, found, strict=True) if reply == "None"]
whole = all(sorted(shown[user]) == sorted(mail.bytes_for(index) for mail in saved)
            for index, user in enumerate(shown))
tmp = len(files(folder / "alice", "tmp")) + len(files(folder / "bob", "tmp"))
for path in files(folder / "alice"):
    path.unlink()
print(json.dumps([found, whole, tmp, replies(one.save_batch([small]))]))
"""


def fill(folder: Path, *command: str, limit: int = 0, size: int) -> tuple[list[str], ...]:
    done = subprocess.run(
        [*command, sys.executable, "-c", FILL, os.fspath(folder), str(limit), str(size)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    replies_, whole, tmp, after = json.loads(done.stdout)
    assert whole, "what was answered 250 is not what is there"
    assert tmp == 0
    return replies_, after


def can_mount(command: list[str]) -> bool:
    whole = [*command, sys.executable, "-c", ""]
    return subprocess.run(whole, capture_output=True, check=False).returncode == 0


def test_a_full_disk_is_452_and_what_was_saved_is_whole(tmp_path: Path) -> None:
    """A small file system of the test's own, as root or as anybody."""
    mount = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'
    command = ["unshare", "-m" if IS_ROOT else "-Urm", "sh", "-c", mount, os.fspath(tmp_path)]
    if not can_mount(command):  # In a container that forbids it: a limit is as hard a stop.
        found, after = fill(tmp_path, limit=50_000, size=60_000)
        assert (set(found), after) == ({"452 4.3.1"}, ["None"])
        return
    found, after = fill(tmp_path, *command, size=60_000)
    assert set(found) == {"None", "452 4.3.1"}
    assert found[:10] == ["None"] * 10
    assert after == ["None"]


def test_a_file_over_the_limit_of_the_process_is_452(tmp_path: Path) -> None:
    found, after = fill(tmp_path, limit=50_000, size=60_000)
    assert (set(found), after) == ({"452 4.3.1"}, ["None"])


def test_a_folder_that_is_read_only_is_451(shared: Path) -> None:
    code = """
one = stage(folder)
one.open()
for place in ("tmp", "new"):
    (folder / "alice" / place).chmod(0o500)
    both = envelope("bob@example.com", "alice@example.com")
    print(replies(one.save_batch([both, envelope("bob@example.com")])))
    (folder / "alice" / place).chmod(0o700)
print(nothing_left(folder / "alice"), len(files(folder / "bob")))
"""
    assert as_nobody(code, shared) == "['451 4.3.0', 'None']\n" * 2 + "True 2\n"


# Quota


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_full_maildir_is_452_until_something_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    usage = quota.Usage(str(tmp_path / "alice"), clock)
    monkeypatch.setattr("guerrilla.maildir.delivery.usage_of", lambda path: usage)
    monkeypatch.setattr("guerrilla.processors.maildir.usage_of", lambda path: usage)
    size = len(envelope().bytes_for(0))
    one = stage(tmp_path, "alice=-1:-1", maildir_quota=3 * size)
    one.open()
    found = one.save_batch([envelope() for _ in range(5)])
    assert replies(found) == ["None"] * 3 + ["452 4.2.2"] * 2
    transaction = make_check("a@example.com").transaction
    assert replies([one.validate(transaction, ALICE)]) == ["452 4.2.2"]
    files(tmp_path / "alice")[0].unlink()
    assert replies(one.save_batch([envelope()])) == ["452 4.2.2"]
    clock.now += quota.FRESH_WHEN_FULL
    assert replies([one.validate(transaction, ALICE)]) == ["None"]
    assert replies(one.save_batch([envelope(), envelope()])) == ["None", "452 4.2.2"]
    assert files(tmp_path / "alice", "tmp") == []


def test_a_mail_for_one_who_is_full_reaches_nobody(tmp_path: Path) -> None:
    one = stage(tmp_path, maildir_quota=1000)
    one.open()
    assert one.save_batch([envelope(data=b"x" * 700)]) == [None]
    both = ("bob@example.com", "alice@example.com")
    assert replies(one.save_batch([envelope(*both, data=b"x" * 400)])) == ["452 4.2.2"]
    assert nothing_left(tmp_path / "bob")
    # What was reserved for it is free again.
    assert one.save_batch([envelope("bob@example.com", data=b"x" * 700)]) == [None]


def test_workers_at_the_same_time_keep_to_the_quota(tmp_path: Path) -> None:
    size = len(envelope().bytes_for(0))
    workers = [stage(tmp_path, "alice=-1:-1", maildir_quota=50 * size) for _ in range(4)]
    for worker in workers:
        worker.open()
    batches = [[envelope() for _ in range(40)] for _ in workers]
    with ThreadPoolExecutor(len(workers)) as pool:
        found = list(pool.map(MailDir.save_batch, workers, batches))
    said = [answer for outcomes in found for answer in replies(outcomes)]
    assert set(said) == {"None", "452 4.2.2"}
    assert len(files(tmp_path / "alice")) == said.count("None") <= 50


def test_a_mail_that_fails_takes_no_room(tmp_path: Path) -> None:
    one = stage(tmp_path, maildir_quota=1000)
    one.open()
    (tmp_path / "alice" / "new").rmdir()
    (tmp_path / "alice" / "new").write_bytes(b"")
    for _ in range(5):
        assert replies(one.save_batch([envelope(data=b"x" * 700)])) == ["451 4.3.0"]
    (tmp_path / "alice" / "new").unlink()
    (tmp_path / "alice" / "new").mkdir()
    assert one.save_batch([envelope(data=b"x" * 700)]) == [None]


def test_the_size_that_a_client_tells_is_looked_at(tmp_path: Path) -> None:
    one = stage(tmp_path, maildir_quota=1000)
    one.open()

    class Transaction:
        parameters = {"SIZE": "1001"}  # noqa: RUF012

    assert replies([one.validate(Transaction, ALICE)]) == ["452 4.2.2"]  # type: ignore[arg-type]
    Transaction.parameters = {"SIZE": "1000"}
    assert one.validate(Transaction, ALICE) is None  # type: ignore[arg-type]
    Transaction.parameters = {"SIZE": "\u0664"}
    assert one.validate(Transaction, ALICE) is None  # type: ignore[arg-type]


def test_what_is_counted(tmp_path: Path) -> None:
    one = stage(tmp_path, "alice=-1:-1")
    one.open()
    maildir = tmp_path / "alice"
    assert quota.scan(str(maildir)) == 0
    (maildir / "new" / "1.a.host,S=100").write_bytes(b"x")
    (maildir / "cur" / "2.b.host,S=20,W=21:2,S").write_bytes(b"x")
    (maildir / "cur" / "3.c.host:2,ST").write_bytes(b"xyz")
    (maildir / "tmp" / "4.d.host,S=1000").write_bytes(b"x")
    (maildir / ".Sent" / "cur").mkdir(parents=True)
    (maildir / ".Sent" / "cur" / "5.e.host,S=4000:2,").write_bytes(b"x")
    (maildir / "other" / "cur").mkdir(parents=True)
    (maildir / "other" / "cur" / "6.f.host,S=50000").write_bytes(b"x")
    (maildir / "cur" / "7.g.host,S=many").write_bytes(b"12345678")
    assert quota.scan(str(maildir)) == 100 + 20 + 3 + 4000 + 8


def test_scans_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    scans: list[str] = []

    def scan(path: str) -> int:
        scans.append(path)
        return 0

    monkeypatch.setattr(quota, "scan", scan)
    usage = quota.Usage("there", clock)
    for _ in range(100):
        assert usage.reserve(1, 1000)
        usage.settle(1, stored=True)
    assert len(scans) == 1
    clock.now += quota.FRESH
    assert usage.has_room(1000, 1000)
    assert len(scans) == 2
    for _ in range(100):
        assert not usage.reserve(1001, 1000)
    assert len(scans) == 2
