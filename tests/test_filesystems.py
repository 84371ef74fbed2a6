"""What a spool's folder is on: the start and `check` warn of what does not keep what was synced."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from guerrilla.config import AppConfig, from_mapping
from guerrilla.running import filesystems
from guerrilla.running.filesystems import filesystem_type, spool_warnings


def config(path: str) -> AppConfig:
    return from_mapping({"spool": {"path": path}})


@pytest.mark.parametrize("place", ["/", "/proc", "/sys", "/dev", "/dev/shm", "/tmp"])
def test_the_type_is_what_the_system_says(place: str) -> None:
    command = ["stat", "-f", "-c", "%t", place]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert filesystem_type(place) == int(told, 16)


def test_a_folder_that_is_not_there_yet_is_where_it_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = filesystem_type(str(tmp_path))
    assert here is not None
    assert filesystem_type(str(tmp_path / "a" / "b")) == here
    assert filesystem_type("/proc/nothing/of/that") == filesystem_type("/proc")
    monkeypatch.chdir(tmp_path)
    assert filesystem_type("spool") == here


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (0xEF53, None),  # ext4
        (0x58465342, None),  # XFS
        (0x9123683E, None),  # Btrfs
        (0x794C7630, None),  # overlayfs
        (None, None),
        (
            0x01021994,
            (
                "is in memory (tmpfs): a reboot loses it, with mail that was answered 250; "
                "name a folder on a disk"
            ),
        ),
        (0x6969, "is on NFS, whose locks and syncs cannot be relied on; name a folder on a local"),
        (0xFF534D42, "is on CIFS, "),
        (0xFE534D42, "is on SMB, "),
        (0x01021997, "is on 9p, "),
        (0x65735546, "is on FUSE, "),
    ],
)
def test_what_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, kind: int | None, line: str | None
) -> None:
    monkeypatch.setattr(filesystems, "filesystem_type", lambda _: kind)
    found = list(spool_warnings(config("/srv/spool")))
    if line is None:
        assert found == []
    else:
        (warning,) = found
        assert warning.startswith(f"spool.path: /srv/spool {line}")


def test_without_a_spool_there_is_nothing_to_warn_of() -> None:
    assert list(spool_warnings(AppConfig.default())) == []
