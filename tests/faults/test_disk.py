"""The disk that forgets and fails, with small programs in front of it: what it leaves is known."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.disk.disk import FULL, READ_ONLY, Disk, Fault
from tests.faults.disk.journal import ProblemError

BEGIN = """
import errno, mmap, os, pathlib, sys

def made(name, data=b"", flags=0):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    if data:
        os.write(fd, data)
    return fd

def sync(name):
    fd = os.open(name, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)

def failing(call, *words):
    try:
        call(*words)
    except OSError as error:
        print(errno.errorcode[error.errno])
    else:
        print("done")

"""


def run(disk: Disk, program: str) -> list[str]:
    """Runs it in the folder of the disk; what it printed. It ends without closing anything."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"{BEGIN}{program}\nsys.stdout.flush()\nos._exit(0)"],
        cwd=disk.folder,
        env=disk.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def left(disk: Disk) -> dict[str, bytes]:
    """The files that are there, by name below the disk."""
    return {
        os.fspath(path.relative_to(disk.folder)): path.read_bytes()
        for path in disk.folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        pytest.param("made('a', b'x')", {}, id="nothing synced"),
        pytest.param("os.fsync(made('a', b'x'))", {}, id="a name without its folder"),
        pytest.param("made('a', b'x'); sync('.')", {"a": b""}, id="a name without its data"),
        pytest.param("os.fsync(made('a', b'x')); sync('.')", {"a": b"x"}, id="both"),
        pytest.param("made('a', b'x', os.O_DSYNC); sync('.')", {"a": b"x"}, id="O_DSYNC"),
        pytest.param("made('a', b'x'); os.sync()", {"a": b"x"}, id="sync"),
        pytest.param(
            "f = made('a', b'x'); os.fdatasync(f); os.write(f, b'y'); sync('.')",
            {"a": b"x"},
            id="written behind the sync",
        ),
        pytest.param(
            "f = made('a'); os.writev(f, [b'12', b'345']); os.pwrite(f, b'9', 1)\n"
            "os.pwritev(f, [b'67'], 3); os.ftruncate(f, 4); os.fsync(os.dup(f)); sync('.')",
            {"a": b"1936"},
            id="each way to write",
        ),
        pytest.param(
            "f = made('a', b'12'); os.close(f); f = os.open('a', os.O_WRONLY | os.O_APPEND)\n"
            "os.write(f, b'3'); os.fsync(f); sync('.'); os.ftruncate(f, 1)",
            {"a": b"123"},
            id="appended, and cut off behind the sync",
        ),
        pytest.param(
            "os.fsync(made('a', b'new')); sync('.'); os.rename('a', 'b')",
            {"a": b"new"},
            id="renamed",
        ),
        pytest.param(
            "os.fsync(made('a', b'new')); os.rename('a', 'b'); sync('.')",
            {"b": b"new"},
            id="renamed and synced",
        ),
        pytest.param(
            "os.mkdir('t'); os.mkdir('n'); sync('.'); os.fsync(made('t/a', b'1'))\n"
            "t, n = os.open('t', os.O_RDONLY), os.open('n', os.O_RDONLY)\n"
            "os.rename('a', 'b', src_dir_fd=t, dst_dir_fd=n); os.fsync(n)",
            {"n/b": b"1"},
            id="into another folder, by descriptors",
        ),
        pytest.param(
            "os.fsync(made('a', b'1')); os.link('a', 'b'); sync('.'); os.unlink('a')",
            {"a": b"1", "b": b"1"},
            id="linked, and unlinked behind the sync",
        ),
        pytest.param(
            "f = os.open('.', os.O_TMPFILE | os.O_RDWR); os.write(f, b'1'); os.fsync(f)\n"
            "os.link(f'/proc/self/fd/{f}', 'a', src_dir_fd=0, follow_symlinks=True); sync('.')",
            {"a": b"1"},
            id="without a name at first",
        ),
        pytest.param("os.makedirs('d/e'); sync('d'); made('d/e/a')", {}, id="folders"),
        pytest.param(
            "os.fsync(made('a', b'1')); sync('.'); os.fsync(made('a', b'2', os.O_TRUNC))",
            {"a": b"2"},
            id="written anew",
        ),
        pytest.param(
            "os.fsync(made('a', b'1')); sync('.'); os.unlink('a'); sync('.'); made('a', b'2')",
            {},
            id="removed, and made anew",
        ),
    ],
)
def test_what_was_synced_is_left(disk: Disk, program: str, wanted: dict[str, bytes]) -> None:
    disk.begin()
    run(disk, program)
    disk.cut(None)
    assert left(disk) == wanted


def test_what_was_there_before_is_left(disk: Disk) -> None:
    (disk.folder / "folder").mkdir()
    (disk.folder / "folder" / "a").write_bytes(b"123")
    disk.begin()
    run(disk, "f = os.open('folder/a', os.O_RDWR); os.write(f, b'9'); os.unlink('folder/a')")
    disk.cut(None)
    assert left(disk) == {"folder/a": b"123"}
    run(disk, "f = os.open('folder/a', os.O_RDWR); os.write(f, b'9'); os.fsync(f)")
    disk.cut(None)
    assert left(disk) == {"folder/a": b"923"}


def test_any_part_of_the_rest_may_be_left(disk: Disk) -> None:
    """Pages of a file one by one; names in their order."""
    disk.begin()
    run(disk, "os.fsync(made('a')); sync('.')")
    kept = disk.folder / "a"
    sizes, names = set(), set()
    for seed in range(30):
        disk.begin()
        run(disk, "f = made('a', b'x' * 40960); made('b'); made('c')")
        disk.cut(random.Random(seed))
        pages = [kept.read_bytes()[at : at + 4_096] for at in range(0, 40_960, 4_096)]
        assert set(pages) <= {b"x" * 4_096, bytes(4_096), b""}
        sizes.add(pages.count(b"x" * 4_096))
        names.add("".join(sorted(left(disk))))
        for path in disk.folder.iterdir():
            path.unlink() if path.is_file() else path.rmdir()
        kept.touch()
        (disk.folder / "received").mkdir()
    assert len(sizes) > 5
    assert names == {"a", "ab", "abc"}


def test_what_a_failed_sync_had_to_write_is_never_written(disk: Disk) -> None:
    """As Linux does it: the next sync has nothing of it to write, and succeeds."""
    disk.begin()
    disk.fail(Fault.SYNCING, errno.EIO, times=1)
    program = (
        "f = made('a', b'12'); failing(os.fsync, f); os.write(f, b'3'); os.fsync(f); sync('.')"
    )
    assert run(disk, program) == ["EIO"]
    assert disk.failed == 1
    disk.heal()
    disk.cut(None)
    assert left(disk) == {"a": b"\0\x003"}


@pytest.mark.parametrize(
    ("what", "call", "wanted"),
    [
        (FULL, "os.pwrite, f, b'1', 0", "EIO"),
        (FULL, "made, 'b'", "EIO"),
        (FULL, "os.rename, 'a', 'b'", "done"),
        (FULL, "os.fsync, f", "done"),
        (READ_ONLY, "os.write, f, b'1'", "EIO"),
        (READ_ONLY, "os.mkdir, 'b'", "EIO"),
        (READ_ONLY, "os.unlink, 'a'", "EIO"),
        (READ_ONLY, "os.link, 'a', 'b'", "EIO"),
        (READ_ONLY, "os.truncate, 'a', 0", "EIO"),
        (READ_ONLY, "os.posix_fallocate, f, 0, 10", "EIO"),
        (READ_ONLY, "os.open, 'a', os.O_RDONLY", "done"),
        (Fault.SYNCING, "os.fdatasync, f", "EIO"),
        (Fault.SYNCING, "sync, '.'", "EIO"),
        (Fault.SYNCING, "os.write, f, b'1'", "done"),
    ],
)
def test_what_is_told_fails(disk: Disk, what: Fault, call: str, wanted: str) -> None:
    """From the first opened file on, which is there already."""
    (disk.folder / "a").touch()
    disk.fail(what, errno.EIO, after=1 if what & Fault.OPENING else 0)
    assert run(disk, f"f = os.open('a', os.O_RDWR); failing({call})") == [wanted]
    assert disk.failed == (wanted == "EIO")
    assert (disk.folder / "a").exists() == (call != "os.rename, 'a', 'b'")


def test_a_full_disk_takes_a_part_first(disk: Disk) -> None:
    (disk.folder / "a").touch()
    disk.fail(Fault.WRITING, errno.ENOSPC)
    program = (
        "f = os.open('a', os.O_RDWR); print(os.write(f, b'123456')); failing(os.write, f, b'1')"
    )
    assert run(disk, program) == ["3", "ENOSPC"]
    assert left(disk) == {"a": b"123"}


def test_faults_have_their_time_and_place(disk: Disk) -> None:
    disk.fail(Fault.WRITING, errno.EIO, after=1, times=2, match="-wal")
    program = """
for name in ("a", "a-wal"):
    fd = made(name)
    for _ in range(4):
        failing(os.write, fd, b"x")
"""
    assert run(disk, program) == ["done"] * 5 + ["EIO"] * 2 + ["done"]
    assert disk.failed == 2
    disk.heal()
    assert run(disk, "failing(os.write, made('a-wal'), b'x')") == ["done"]


def test_syncs_take_their_time(disk: Disk) -> None:
    disk.slow(0.2)
    program = """
import time
began = time.monotonic()
os.fsync(made("a"))
print(time.monotonic() - began)
"""
    (taken,) = run(disk, program)
    assert float(taken) >= 0.2


def test_a_disk_may_lie(disk: Disk) -> None:
    disk.begin()
    disk.lie()
    assert run(disk, "failing(os.fsync, made('a', b'1')); failing(sync, '.')") == ["done", "done"]
    disk.heal()
    run(disk, "os.fsync(made('b', b'1')); sync('.')")
    disk.cut(None)
    assert left(disk) == {"a": b"", "b": b"1"}


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("f = os.open('a', os.O_RDWR | os.O_CREAT); os.ftruncate(f, 10); mmap.mmap(f, 10)", "mapp"),
        ("pathlib.Path('a').touch(); os.rename('a', '../a')", "border"),
    ],
)
def test_what_the_model_does_not_know_is_said(disk: Disk, program: str, what: str) -> None:
    disk.begin()
    run(disk, program)
    with pytest.raises(ProblemError, match=what):
        disk.cut(None)


def test_another_folder_is_left_alone(disk: Disk, tmp_path: Path) -> None:
    disk.begin()
    disk.fail(Fault.OPENING | Fault.WRITING | Fault.NAMING | Fault.SYNCING, errno.EIO)
    run(disk, f"os.fsync(made({os.fspath(tmp_path / 'other')!r}, b'1'))")
    assert (tmp_path / "other").read_bytes() == b"1"
    assert disk.failed == 0
