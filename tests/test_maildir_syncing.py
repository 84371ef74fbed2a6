"""Syncing many files at the same time."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guerrilla.maildir.syncing import THREADS, Syncer


@pytest.fixture
def syncer() -> Iterator[Syncer]:
    one = Syncer()
    yield one
    threads = list(one._threads)
    one.close()
    one.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    opened = [os.open(tmp_path / str(n), os.O_CREAT | os.O_WRONLY) for n in range(100)]
    yield opened
    for descriptor in opened:
        os.close(descriptor)


def test_each_is_synced_once(
    syncer: Syncer, files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for count in (0, 1, 2, 100, 3):
        synced.clear()
        assert syncer.sync(files[:count]) == [None] * count
        assert sorted(synced) == files[:count]


def test_they_wait_at_the_same_time(
    syncer: Syncer, files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not end if fewer than all threads waited at once."""
    barrier = threading.Barrier(THREADS, timeout=30)
    monkeypatch.setattr(os, "fsync", lambda _: barrier.wait())
    assert syncer.sync(files[:THREADS]) == [None] * THREADS
    assert len(syncer._threads) == THREADS - 1


def test_one_file_needs_no_thread(syncer: Syncer, files: list[int]) -> None:
    assert syncer.sync(files[:1]) == [None]
    assert syncer._threads == []


def test_each_error_is_of_its_file(syncer: Syncer, files: list[int]) -> None:
    found = syncer.sync([files[0], 1_000_000, files[1], 1_000_001])
    assert [error and error.errno for error in found] == [None, errno.EBADF, None, errno.EBADF]
    assert syncer.sync(files) == [None] * 100
