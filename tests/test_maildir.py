"""The MailDir stage: what it makes of mails, and what becomes of those that it cannot store."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla._core import Address, Envelope, make_check
from guerrilla.chain import build, read_options
from guerrilla.errors import ConfigError, StartError
from guerrilla.maildir import delivery, folder
from guerrilla.maildir.syncing import Syncer
from guerrilla.processors.maildir import MailDir
from guerrilla.registry import Registry
from tests.maildirs import (
    DATA,
    contents,
    envelope,
    files,
    nothing_left,
    read_back,
    replies,
    stage,
)

NAME = re.compile(r"[0-9]+\.M[0-9]{6}Q[0-9a-z]{26}_[0-9]+\.[^/:,]+,S=[0-9]+")
LATER = [None, "451 4.3.0"]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[MailDir]:
    one = stage(tmp_path)
    one.open()
    yield one
    one.close()


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    return tmp_path / "alice"


@pytest.fixture
def bob(tmp_path: Path) -> Path:
    return tmp_path / "bob"


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, *, after: int = 0) -> None:
    """Lets a system call of ours fail, but for the first few times."""
    real = getattr(os, name)
    calls = iter(range(after))

    def fail(*args: Any, **keys: Any) -> Any:
        if next(calls, None) is None:
            raise OSError(number, os.strerror(number))
        return real(*args, **keys)

    monkeypatch.setattr(os, name, fail)


def test_it_stores_and_says_so() -> None:
    assert MailDir.stores
    assert MailDir.atomic


def test_every_recipient_has_a_copy_of_its_own(opened: MailDir, alice: Path, bob: Path) -> None:
    one = envelope("Alice@example.com", "bob@example.net")
    assert opened.save_batch([one, envelope()]) == [None, None]
    assert one.bytes_for(1) in read_back(bob)
    assert contents(bob) == [one.bytes_for(1)]
    assert b"Delivered-To: Alice@" in one.bytes_for(0)
    assert one.bytes_for(0) in contents(alice)
    assert b"bob" not in b"".join(contents(alice))
    assert len(read_back(alice)) == 2
    assert files(alice, "tmp", "cur") == []


def test_names_and_modes(opened: MailDir, alice: Path) -> None:
    os.umask(before := os.umask(0))
    one = envelope()
    try:
        os.umask(0)
        opened.save_batch([one])
    finally:
        os.umask(before)
    (path,) = files(alice)
    assert NAME.fullmatch(path.name)
    assert one.queued_id in path.name
    assert path.name.endswith(f",S={path.stat().st_size}")
    assert path.name.startswith(f"{int(one.received_at)}.M")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for place in (alice, alice / "tmp", alice / "new", alice / "cur"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_repeat_changes_nothing(opened: MailDir, alice: Path, bob: Path) -> None:
    one = envelope("alice@example.com", "bob@example.com")
    opened.save_batch([one])
    before = [(path, path.stat().st_ino) for path in (*files(alice), *files(bob))]
    assert opened.save_batch([one, one]) == [None, None]
    assert [(path, path.stat().st_ino) for path in (*files(alice), *files(bob))] == before


def test_a_repeat_by_a_later_life_finds_what_was_read(tmp_path: Path, alice: Path) -> None:
    """As after a crash between the saving and the answer."""
    one = envelope()
    first = stage(tmp_path)
    first.open()
    first.save_batch([one])
    (path,) = files(alice)
    path.rename(alice / "cur" / f"{path.name}:2,S")
    later = stage(tmp_path)
    later.open()
    assert later.save_batch([Envelope.from_bytes(one.to_bytes())]) == [None]
    assert files(alice) == []
    assert later.save_batch([envelope()]) == [None]
    assert len(files(alice)) == 1


def test_one_address_named_twice_is_one_copy(opened: MailDir, alice: Path) -> None:
    one = envelope("alice@example.com", "alice@EXAMPLE.com", "alice@example.net")
    assert opened.save_batch([one]) == [None]
    assert sorted(contents(alice)) == sorted([one.bytes_for(0), one.bytes_for(2)])


def test_who_is_not_in_the_map_is_refused_and_nobody_gets_that_mail(
    opened: MailDir, alice: Path, bob: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    one = envelope("alice@example.com", "carol@example.com")
    found = opened.save_batch([one, envelope("bob@example.com")])
    assert replies(found) == ["550 5.1.1", "None"]
    assert nothing_left(alice)
    assert len(files(bob)) == 1
    assert f"{one.queued_id}: not stored: 'carol' is not in maildir_user_map" in caplog.text


@pytest.mark.parametrize(
    ("user", "reply"),
    [
        ("alice", "None"),
        ("ALICE", "None"),
        ("carol", "550 5.1.1"),
        ("alice+tag", "550 5.1.1"),
        ("", "550 5.1.1"),
        ("../alice", "550 5.1.1"),
        ("..", "550 5.1.1"),
        ("[user]", "550 5.1.1"),
        ("alice\0", "550 5.1.1"),
    ],
)
def test_a_recipient_is_looked_up_and_never_a_path(opened: MailDir, user: str, reply: str) -> None:
    transaction = make_check("a@example.com").transaction
    assert replies([opened.validate(transaction, Address(user, "example.com"))]) == [reply]


def test_a_maildir_that_is_gone_is_451_and_not_made_again(
    opened: MailDir, alice: Path, tmp_path: Path
) -> None:
    """What is gone may be a disk that is not mounted: what is stored below it would be hidden."""
    transaction = make_check("a@example.com").transaction
    alice.rename(tmp_path / "elsewhere")
    recipient = Address("alice", "example.com")
    assert replies([opened.validate(transaction, recipient)]) == ["451 4.3.0"]
    found = opened.save_batch([envelope(), envelope("bob@example.com"), envelope()])
    assert replies(found) == ["451 4.3.0", "None", "451 4.3.0"]
    assert not alice.exists()
    (tmp_path / "elsewhere").rename(alice)
    assert opened.save_batch([envelope()]) == [None]


# What fails


@pytest.mark.parametrize(
    ("number", "reply"),
    [
        (errno.ENOSPC, "452 4.3.1"),
        (errno.EFBIG, "452 4.3.1"),
        (errno.EDQUOT, "452 4.2.2"),
        (errno.EROFS, "451 4.3.0"),
        (errno.EACCES, "451 4.3.0"),
        (errno.EIO, "451 4.3.0"),
        (errno.EMFILE, "451 4.3.0"),
    ],
)
@pytest.mark.parametrize("call", ["open", "writev", "fsync", "rename"])
def test_each_step_that_fails_leaves_nothing(
    opened: MailDir,
    alice: Path,
    bob: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    call: str,
    number: int,
    reply: str,
) -> None:
    """The second recipient's: what the first has is taken back."""
    after = {"open": 4, "writev": 1, "fsync": 1, "rename": 1}[call]
    one = envelope("alice@example.com", "bob@example.com")
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, call, number, after=after)
        assert replies(opened.save_batch([one])) == [reply]
    assert nothing_left(alice, bob)
    assert f"{one.queued_id}: not stored: " in caplog.text
    assert opened.save_batch([one]) == [None]
    assert contents(bob) == [one.bytes_for(1)]


def test_a_folder_that_cannot_be_synced_takes_its_mails_back(
    opened: MailDir, alice: Path, bob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, second = envelope("alice@example.com", "bob@example.com"), envelope()
    third = envelope("bob@example.com")
    real = os.fsync

    def sync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == f"{alice}/new":
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    found = opened.save_batch([both, second, third])
    assert replies(found) == ["451 4.3.0", "451 4.3.0", "None"]
    assert nothing_left(alice)
    assert contents(bob) == [third.bytes_for(0)]


def test_one_poisoned_mail_fails_alone(
    opened: MailDir, alice: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poison = envelope()
    real = folder.base_name

    def name(given: Envelope, index: int) -> str:
        if given is poison:
            raise ValueError("poison")
        return real(given, index)

    monkeypatch.setattr(delivery, "base_name", name)
    found = opened.save_batch([envelope(), poison, envelope()])
    assert replies(found) == ["None", "451 4.3.0", "None"]
    assert len(files(alice)) == 2
    assert "ValueError: poison" in caplog.text


def test_an_exit_in_the_middle_leaves_nothing(
    opened: MailDir, alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Syncer.sync
    turns = iter([real])

    def sync(self: Syncer, descriptors: Any) -> Any:
        if (turn := next(turns, None)) is None:
            raise SystemExit
        return turn(self, descriptors)

    monkeypatch.setattr(Syncer, "sync", sync)
    with pytest.raises(SystemExit):
        opened.save_batch([envelope()])
    assert nothing_left(alice)


def test_all_copies_are_on_the_disk_before_one_shows(
    opened: MailDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    for name in ("fsync", "rename"):
        real = getattr(os, name)

        def note(*args: Any, name: str = name, real: Any = real, **keys: Any) -> Any:
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
            did.append("sync of a folder" if is_folder else name)
            return real(*args, **keys)

        monkeypatch.setattr(os, name, note)
    both = ("alice@example.com", "bob@example.com")
    opened.save_batch([envelope(*both), envelope(*both), envelope()])
    assert did == ["fsync"] * 5 + ["rename"] * 5 + ["sync of a folder"] * 2


def test_many_recipients_take_few_files_at_a_time(tmp_path: Path) -> None:
    users = [f"user{n}" for n in range(180)]
    one = stage(tmp_path, ",".join(f"{user}=-1:-1" for user in users))
    one.open()
    mails = [envelope(*(f"{user}@example.com" for user in users[:100]))]
    mails += [envelope(f"{user}@example.com") for user in users[100:]]
    most = 0

    class Counted(folder.Folder):
        def write(self, data: Any) -> tuple[str, int]:
            nonlocal most
            most = max(most, len(os.listdir("/proc/self/fd")))
            return super().write(data)

    before = len(os.listdir("/proc/self/fd"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "Folder", Counted)
        assert one.save_batch(mails) == [None] * len(mails)
    assert 200 <= most - before < 200 + 100 + 20
    assert len(os.listdir("/proc/self/fd")) == before
    assert [len(files(tmp_path / user)) for user in users] == [1] * 180


# What cannot be configured


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("maildir_path", "", "expected a path such as '/home/[user]/Maildir' or "),
        ("maildir_path", 7, "expected a path"),
        ("maildir_path", "~bob/Maildir", "got '~bob/Maildir'"),
        ("maildir_path", "a\0b", "expected a path"),
        ("maildir_user_map", "", "expected at least one user"),
        ("maildir_user_map", {"alice": 1}, "expected entries as 'alice=1000:1000'"),
        ("maildir_user_map", "alice=1:1,bob", "(user=uid:gid) with commas between them, got 'bob'"),
        ("maildir_user_map", "alice=1", "got 'alice=1'"),
        ("maildir_user_map", "alice=1:1:1", "got 'alice=1:1:1'"),
        ("maildir_user_map", "alice=1:1;bob=1:1", "got 'alice=1:1;bob=1:1'"),
        ("maildir_user_map", "=1:1", "expected a user that can be the name of a folder"),
        ("maildir_user_map", "..=1:1", "got '..=1:1'"),
        ("maildir_user_map", "a/b=1:1", "got 'a/b=1:1'"),
        ("maildir_user_map", "alice=1:1,ALICE=2:2", "the user 'alice' once, got 'ALICE=2:2'"),
        ("maildir_user_map", "alice=root:mail", "expected ids from 0 to 4294967294, or -1"),
        ("maildir_user_map", "alice=-2:1", "got 'alice=-2:1'"),
        ("maildir_user_map", "alice=4294967295:1", "got 'alice=4294967295:1'"),
        ("maildir_quota", "much", "expected a size"),
        ("maildir_quota", -1, "not negative"),
    ],
)  # fmt: skip
def test_bad_options_name_their_key(key: str, value: object, told: str) -> None:
    good = {"maildir_path": "mail/[user]", "maildir_user_map": "alice=-1:-1"}
    with pytest.raises(ConfigError) as caught:
        read_options("MailDir", MailDir, {**good, key: value})
    (line,) = caught.value.problems
    assert line.startswith(f"backend_config.{key}: ")
    assert told in line


def test_missing_options_are_all_told() -> None:
    with pytest.raises(ConfigError) as caught:
        build("MailDir", "save", {}, Registry())
    assert [line.partition(": ")[0] for line in caught.value.problems] == [
        "backend_config.maildir_path",
        "backend_config.maildir_user_map",
    ]


def test_a_map_may_have_lines_and_blanks(tmp_path: Path) -> None:
    one = stage(tmp_path, "\n  Alice = -1 : -1 ,\n  bob=-1:-1,\n")
    one.open()
    assert one.save_batch([envelope()]) == [None]
    assert (tmp_path / "bob" / "cur").is_dir()


def test_home_is_that_of_the_daemons_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        pw_dir = str(tmp_path)

    monkeypatch.setattr("guerrilla.maildir.users.pwd.getpwuid", lambda uid: Entry)
    one = stage(tmp_path, maildir_path="~/Maildir", maildir_user_map="alice=-1:-1")
    one.open()
    assert one.save_batch([envelope()]) == [None]
    assert len(files(tmp_path / "Maildir")) == 1


def test_a_relative_path_begins_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = stage(tmp_path, maildir_path="[user]/in/Maildir")
    one.open()
    monkeypatch.chdir("/")
    assert one.save_batch([envelope()]) == [None]
    assert len(files(tmp_path / "alice" / "in" / "Maildir")) == 1


def test_a_start_tells_what_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "alice").write_text("no folder", encoding="ascii")
    with pytest.raises(StartError) as caught:
        stage(tmp_path).open()
    assert str(caught.value) == (
        f"backend_config.maildir_path: {tmp_path}/alice: Not a directory (for the user alice)"
    )
    many = ",".join(f"user{n}=-1:-1" for n in range(20))
    with pytest.raises(StartError) as caught:
        stage(tmp_path / "nowhere", many).open()
    assert len(caught.value.problems) == 6
    assert caught.value.problems[0].endswith(
        "/nowhere: No such file or directory (for the user user0)"
    )
    assert caught.value.problems[-1] == "backend_config.maildir_path: 15 more like these"


def test_stale_files_of_tmp_go_at_a_start(tmp_path: Path, alice: Path) -> None:
    stage(tmp_path).open()
    now = time.time()
    for name, age in (("old", 37), ("young", 35), ("read", 37)):
        path = alice / "tmp" / name
        path.write_bytes(DATA)
        os.utime(path, (now if name == "read" else now - age * 3600, now - age * 3600))
    (alice / "tmp" / "folder").mkdir()
    os.utime(alice / "tmp" / "folder", (0, 0))
    stage(tmp_path).open()
    assert [path.name for path in files(alice, "tmp")] == ["folder", "read", "young"]


def test_a_chain_that_has_it(tmp_path: Path, alice: Path) -> None:
    values = {
        "maildir_path": f"{tmp_path}/[user]",
        "maildir_user_map": "alice=-1:-1",
        "primary_mail_host": "mx.example.com",
    }
    one = Envelope.create(DATA, mail_from="a@example.org", rcpt_to=["alice@example.com"])
    with build("HeadersParser|Hasher|Header|MailDir", "save", values, Registry()) as chain:
        assert chain.stores
        chain.run([one])
    assert one.answered is None
    assert not one.answer()
    (stored,) = read_back(alice)
    assert stored.startswith(b"Delivered-To: alice@mx.example.com\r\nReceived: from ")
    assert stored.endswith(DATA)
