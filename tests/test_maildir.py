"""The MailDir stage: what it makes of mails, and what becomes of those that it cannot store."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla._core import Address, Envelope, make_check
from guerrilla.engine.chain import build
from guerrilla.engine.registry import Registry
from guerrilla.maildir import delivery, folder
from guerrilla.maildir.syncing import Syncer
from guerrilla.processors.maildir import MailDir
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
from tests.wire import descriptors, no_more_than, opened_since

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
            most = max(most, len(opened_since(before)))
            return super().write(data)

    before = descriptors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "Folder", Counted)
        assert one.save_batch(mails) == [None] * len(mails)
    assert 200 <= most < 200 + 100 + 20
    no_more_than(before)
    assert [len(files(tmp_path / user)) for user in users] == [1] * 180


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
