"""`watch_config`: changes as editors, Kubernetes and people make them, each told once."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla.running.configwatch import ConfigWatch, trail

Until = Callable[[Callable[[], object]], None]


class Watched:
    """A config file, a watch on it, and what it was each time that the watch told of a change."""

    def __init__(self, path: Path, interval: float = 0.5) -> None:
        self.path = path
        self.told: list[str] = []
        self.watch = ConfigWatch(path, self._changed, settle=0.02, interval=interval)

    def _changed(self) -> None:
        self.told.append(self.path.read_text(encoding="utf-8"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "guerrilla.toml"
    found.write_text("one", encoding="utf-8")
    return found


@pytest.fixture
def watched(path: Path) -> Iterator[Watched]:
    """With its thread."""
    found = Watched(path)
    found.watch.start()
    yield found
    found.watch.stop()


def replace(path: Path, text: str) -> None:
    """As editors do."""
    new = path.with_name(f".{path.name}.swp")
    new.write_text(text, encoding="utf-8")
    new.rename(path)


# Each way of changing, with the thread


def test_written_in_place(watched: Watched, until: Until) -> None:
    watched.path.write_text("two", encoding="utf-8")
    until(lambda: watched.told == ["two"])
    watched.path.write_text("three", encoding="utf-8")
    until(lambda: watched.told == ["two", "three"])


def test_replaced_by_a_rename(watched: Watched, until: Until) -> None:
    wanted: list[str] = []
    for text in ("two", "three", "four"):
        wanted.append(text)
        replace(watched.path, text)
        until(lambda: watched.told == wanted)


def test_moved_away_and_written_anew(watched: Watched, until: Until) -> None:
    """As vim does with a backup."""
    watched.path.rename(watched.path.with_suffix(".toml~"))
    watched.path.write_text("two", encoding="utf-8")
    until(lambda: watched.told == ["two"])


def test_what_cannot_be_taken_over_yet_is_told_of_again(path: Path, until: Until) -> None:
    told: list[str] = []

    def changed() -> bool:
        told.append(path.read_text(encoding="utf-8"))
        return len(told) > 2

    watch = ConfigWatch(path, changed, settle=0.02, interval=0.05, again=0.1)
    watch.start()
    try:
        path.write_text("two", encoding="utf-8")
        until(lambda: told == ["two"] * 3)
        path.write_text("three", encoding="utf-8")
        until(lambda: told == ["two"] * 3 + ["three"])
    finally:
        watch.stop()


def test_what_was_there_before_the_watch_is_told_of_where_it_may_not_be_in_force(
    path: Path, until: Until
) -> None:
    """As behind an upgrade, while which nobody obeys a change."""
    told: list[str] = []

    def changed() -> None:
        told.append(path.read_text(encoding="utf-8"))

    watch = ConfigWatch(path, changed, settle=0.02, interval=0.05, known=False)
    watch.start()
    try:
        until(lambda: told == ["one"])
        path.write_text("two", encoding="utf-8")
        until(lambda: told == ["one", "two"])
    finally:
        watch.stop()


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A folder as Kubernetes mounts a ConfigMap."""
    folder = tmp_path / "mount"
    (folder / "..first").mkdir(parents=True)
    (folder / "..first" / "g.toml").write_text("one", encoding="utf-8")
    (folder / "..data").symlink_to("..first")
    (folder / "g.toml").symlink_to("..data/g.toml")
    return folder


def swap(folder: Path, name: str, text: str) -> None:
    """As Kubernetes updates it."""
    old = os.readlink(folder / "..data")
    (folder / name).mkdir()
    (folder / name / "g.toml").write_text(text, encoding="utf-8")
    (folder / "..data_tmp").symlink_to(name)
    (folder / "..data_tmp").rename(folder / "..data")
    shutil.rmtree(folder / old)


def test_a_swap_of_links(mounted: Path, until: Until) -> None:
    watched = Watched(mounted / "g.toml")
    watched.watch.start()
    wanted: list[str] = []
    for text in ("two", "three", "four"):
        wanted.append(text)
        swap(mounted, f"..{text}", text)
        until(lambda: watched.told == wanted)
    watched.watch.stop()


def test_a_link_to_elsewhere(tmp_path: Path, path: Path, until: Until) -> None:
    link = tmp_path / "etc" / "g.toml"
    link.parent.mkdir()
    link.symlink_to(path)
    watched = Watched(link)
    watched.watch.start()
    replace(path, "two")
    until(lambda: watched.told == ["two"])
    other = tmp_path / "other.toml"
    other.write_text("three", encoding="utf-8")
    new = tmp_path / "etc" / "new"
    new.symlink_to(other)
    new.rename(link)
    until(lambda: watched.told == ["two", "three"])
    # It is the other one that counts now.
    replace(other, "four")
    until(lambda: watched.told == ["two", "three", "four"])
    watched.watch.stop()


def test_another_folder_in_the_place_of_its_own(tmp_path: Path, until: Until) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "g.toml").write_text("one", encoding="utf-8")
    watched = Watched(folder / "g.toml")
    watched.watch.start()
    folder.rename(tmp_path / "old")
    folder.mkdir()
    (folder / "g.toml").write_text("two", encoding="utf-8")
    until(lambda: watched.told == ["two"])
    replace(folder / "g.toml", "three")
    until(lambda: watched.told == ["two", "three"])
    watched.watch.stop()


def test_a_file_that_is_not_there_yet(tmp_path: Path, until: Until) -> None:
    watched = Watched(tmp_path / "later" / "g.toml")
    watched.watch.start()
    watched.path.parent.mkdir()
    watched.path.write_text("one", encoding="utf-8")
    until(lambda: watched.told == ["one"])
    watched.watch.stop()


def until_told(told: threading.Event, change: Callable[[str], None]) -> None:
    """Changes until that is told; the first ones may come before anybody listens."""
    told.clear()
    for number in range(20):
        change(f"new {number}")
        if told.wait(0.5):
            return
    pytest.fail("no change was told")


def test_an_event_is_enough(tmp_path: Path, path: Path) -> None:
    """Behind a link too, and behind one that has come to lead elsewhere."""
    told = threading.Event()
    link, other = tmp_path / "etc" / "g.toml", tmp_path / "other" / "g.toml"
    for folder in (link.parent, other.parent):
        folder.mkdir()
    link.symlink_to(path)

    def lead_elsewhere(text: str) -> None:
        replace(other, text)
        new = link.with_name("new")
        new.symlink_to(other)
        new.rename(link)

    watch = ConfigWatch(link, told.set, settle=0.02, interval=3600)
    watch.start()
    until_told(told, lambda text: replace(path, text))
    until_told(told, lead_elsewhere)
    until_told(told, lambda text: replace(other, f"at last {text}"))
    watch.stop()


def test_without_events_a_look_finds_it(
    path: Path, until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the system has no watch left."""

    def refuse(*_: object, **__: object) -> Any:
        raise OSError(errno.ENOSPC, "no watch left")

    monkeypatch.setattr("watchfiles.watch", refuse)
    watched = Watched(path)
    watched.watch._interval = 0.01
    watched.watch.start()
    replace(path, "two")
    until(lambda: watched.told == ["two"])
    replace(path, "three")
    until(lambda: watched.told == ["two", "three"])
    watched.watch.stop()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        f"{path} is looked at every 0.01 s: [Errno 28] no watch left"
    ]


def test_what_is_called_may_fail_or_stop_the_watch(
    path: Path, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def changed() -> None:
        calls.append(path.read_text(encoding="utf-8"))
        if len(calls) == 1:
            raise LookupError("oh")
        watch.stop()  # As a reload that turns `watch_config` off.

    watch = ConfigWatch(path, changed, settle=0.02)
    watch.start()
    replace(path, "two")
    until(lambda: calls == ["two"])
    replace(path, "three")
    until(lambda: not watch._thread.is_alive())
    assert calls == ["two", "three"]
    assert "LookupError: oh" in caplog.text
    assert caplog.text.count("could not be taken over") == 1
    watch.stop()


def test_a_stop_is_prompt_and_leaves_no_thread(watched: Watched, until: Until) -> None:
    watched.watch.stop()
    until(lambda: not watched.watch._thread.is_alive())
    replace(watched.path, "two")
    assert watched.told == []


def test_a_stop_does_not_wait_for_a_call_that_waits_for_it(path: Path) -> None:
    """As a reload for the daemon's lock, which a stop holds."""
    entered, release = threading.Event(), threading.Event()

    def changed() -> None:
        entered.set()
        release.wait(30)

    watch = ConfigWatch(path, changed, settle=0.02)
    watch.start()
    until_told(entered, lambda text: replace(path, text))
    watch.stop()
    assert watch._thread.is_alive()
    release.set()
    watch._thread.join(10)
    assert not watch._thread.is_alive()


# What counts as a change, look by look


@pytest.fixture
def still(path: Path) -> Watched:
    """Without its thread."""
    return Watched(path)


def test_a_change_is_told_once(still: Watched) -> None:
    still.watch.look()
    assert still.told == []
    replace(still.path, "two")
    for _ in range(3):
        still.watch.look()
    assert still.told == ["two"]


def test_a_file_that_is_gone_or_empty_for_a_moment_is_no_change(still: Watched) -> None:
    def look() -> None:
        still.watch.look()
        assert still.told == []

    still.path.write_text("", encoding="utf-8")
    look()
    still.path.write_text(" \n", encoding="utf-8")
    look()
    still.path.unlink()
    look()
    still.path.mkdir()
    look()
    still.path.rmdir()
    os.mkfifo(still.path)  # Reading it would wait for a writer.
    look()
    still.path.unlink()
    still.path.write_text("one", encoding="utf-8")
    still.watch.look()
    assert still.told == []
    still.path.write_text("two", encoding="utf-8")
    still.watch.look()
    assert still.told == ["two"]


def test_the_same_content_is_no_change(still: Watched) -> None:
    replace(still.path, "one")
    still.watch.look()
    os.utime(still.path)
    still.watch.look()
    assert still.told == []


def test_it_waits_for_the_end_of_a_change(still: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in pieces, and replaced while it is looked at."""
    pieces = iter(["t", "tw", "two"])
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if (piece := next(pieces, None)) is not None:
            replace(still.path, piece)
        return False

    monkeypatch.setattr(still.watch._end, "wait", wait)
    replace(still.path, "")
    replace(still.path, "begun")
    still.watch.look()
    assert still.told == ["two"]
    assert waits == [0.02] * 4


def test_a_change_that_is_taken_back_is_none(
    still: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(still.watch._end, "wait", lambda _: replace(still.path, "one"))
    replace(still.path, "two")
    still.watch.look()
    assert still.told == []


def test_without_an_event_a_file_that_looks_the_same_is_not_read(
    still: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(still.path, "two")
    still.watch.look(happened=False)
    assert still.told == ["two"]
    with monkeypatch.context() as patch:
        patch.setattr("guerrilla.running.configwatch._digest", None)
        still.watch.look(happened=False)
    monkeypatch.setattr("guerrilla.running.configwatch._digest", None)
    with pytest.raises(TypeError):
        still.watch.look()


def test_the_end_in_the_middle_of_a_change(still: Watched) -> None:
    ended = threading.Thread(target=still.watch._end.set)
    ended.start()
    ended.join()
    replace(still.path, "two")
    still.watch.look()
    assert still.told == []


# The way to a file


def test_the_trail_has_every_link(mounted: Path) -> None:
    real = Path(os.path.realpath(mounted))
    assert trail(str(real / "g.toml")) == (
        (str(real), "g.toml"),
        (str(real), "..data"),
        (str(real / "..first"), "g.toml"),
    )


def test_the_trail_goes_as_far_as_there_is_something(tmp_path: Path) -> None:
    real = Path(os.path.realpath(tmp_path))
    assert trail(str(real / "a" / "b")) == ((str(real), "a"),)
    (real / "loop").symlink_to("loop")
    assert len(trail(str(real / "loop"))) == 40
    assert trail(str(real / "." / "a" / ".." / "b")) == ((str(real), "a"),)
    (real / "d").mkdir()
    assert trail(f"{real}/./d/../b") == ((str(real), "b"),)
    (real / "d" / "up").symlink_to("../f")
    (real / "f").touch()
    assert trail(str(real / "d" / "up")) == ((str(real / "d"), "up"), (str(real), "f"))
    assert trail(str(real / "f" / "g")) == ((str(real / "f"), "g"),)
