"""The MailDir stage before its first mail: options, paths, folders that are made and tidied."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from guerrilla.engine.chain import build, read_options
from guerrilla.engine.registry import Registry
from guerrilla.errors import ConfigError, StartError
from guerrilla.processors.maildir import MailDir
from tests.maildirs import DATA, envelope, files, stage


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


def test_stale_files_of_tmp_go_at_a_start(tmp_path: Path) -> None:
    alice = tmp_path / "alice"
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
