"""Users who put symbolic links in place of their maildirs, and root who must not follow them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from guerrilla.errors import StartError
from guerrilla.maildir.folder import remove_stale
from guerrilla.maildir.users import Owner
from guerrilla.processors.maildir import MailDir
from tests.maildirs import DATA, envelope, files, nothing_left, replies, stage

IS_ROOT = os.geteuid() == 0


def test_a_link_leads_nowhere(tmp_path: Path) -> None:
    """Who may write in his home puts a symbolic link in place of a folder of his maildir."""
    trap = tmp_path / "trap"
    trap.mkdir()
    one = stage(tmp_path)
    one.open()
    for place in ("tmp", "new"):
        (tmp_path / "alice" / place).rename(tmp_path / "away")
        (tmp_path / "alice" / place).symlink_to(trap)
        assert replies(one.save_batch([envelope()])) == ["451 4.3.0"]
        (tmp_path / "alice" / place).unlink()
        (tmp_path / "away").rename(tmp_path / "alice" / place)
    assert list(trap.iterdir()) == []
    assert nothing_left(tmp_path / "alice")


def test_root_writes_in_no_folder_of_another_user(tmp_path: Path) -> None:
    """Whoever is not root cannot be led where he could not write anyway."""
    one = stage(tmp_path, "alice=4711:4711" if IS_ROOT else "alice=-1:-1")
    one.open()
    other = tmp_path / "bob"
    shutil.copytree(tmp_path / "alice", other)
    (tmp_path / "alice").rename(tmp_path / "away")
    (tmp_path / "alice").symlink_to(other)
    found = replies(one.save_batch([envelope()]))
    assert found == (["451 4.3.0"] if IS_ROOT else ["None"])
    assert len(files(other)) == (0 if IS_ROOT else 1)
    if IS_ROOT:
        with pytest.raises(StartError, match="it is of user id 0, expected 4711"):
            stage(tmp_path, "alice=4711:4711").open()


@pytest.mark.parametrize("link", ["alice/Maildir", "alice"])
def test_a_start_makes_nothing_where_a_link_leads(tmp_path: Path, link: str) -> None:
    """Root would make folders for a user wherever that user's link points."""
    owner = "4711:4711" if IS_ROOT else "-1:-1"
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(other)
    options = {"maildir_path": f"{tmp_path}/[user]/Maildir", "maildir_user_map": f"alice={owner}"}
    one = MailDir(MailDir.Options.model_validate(options))
    if not IS_ROOT:  # Who cannot write there anyway may follow it.
        one.open()
        return
    with pytest.raises(StartError, match="it is of user id 0, expected 4711"):
        one.open()
    assert list(other.iterdir()) == []
    os.chown(other, 4711, 4711)
    one.open()
    assert one.save_batch([envelope()]) == [None]


def test_stale_files_are_removed_from_no_folder_of_another(tmp_path: Path) -> None:
    """The maildir may have become a link since it was looked at."""
    (tmp_path / "other" / "tmp").mkdir(parents=True)
    (tmp_path / "other" / "new").mkdir()
    old = tmp_path / "other" / "tmp" / "old"
    old.write_bytes(DATA)
    os.utime(old, (0, 0))
    if IS_ROOT:
        (tmp_path / "alice").symlink_to(tmp_path / "other")
        with pytest.raises(PermissionError):
            remove_stale(str(tmp_path / "alice"), Owner(4711, 4711))
        assert old.exists()
    assert remove_stale(str(tmp_path / "other"), Owner(-1, -1)) == 1
