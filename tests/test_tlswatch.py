"""Files of TLS that change while the daemon runs: noticed, taken over, told once."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from guerrilla.config import from_mapping
from guerrilla.running.tlswatch import TLSWatch, make_watch, reload_tls
from tests.configs import KEY_FILES, server, tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from guerrilla._core import Core


class Watched:
    """Two files, a watch on them, and how often it wanted a reload."""

    def __init__(self, folder: Path) -> None:
        self.key, self.chain = folder / "key.pem", folder / "chain.pem"
        self.key.write_text("key 1")
        self.chain.write_text("chain 1")
        self.reloads = 0
        self.watch = TLSWatch([str(self.key), str(self.chain)], self._reload, 60)

    def _reload(self) -> None:
        self.reloads += 1

    def looks(self, times: int = 1) -> int:
        """Reloads so far, after so many looks."""
        for _ in range(times):
            self.watch.look()
        return self.reloads


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_nothing_changed_is_no_reload(watched: Watched) -> None:
    assert watched.looks(3) == 0


def test_a_change_is_taken_over_when_two_looks_agree(watched: Watched) -> None:
    watched.key.write_text("key 22")
    assert watched.looks() == 0
    watched.chain.write_text("chain 22")  # the other half comes a look later
    assert watched.looks() == 0
    assert watched.looks() == 1
    assert watched.looks(3) == 1


def test_a_file_of_the_same_size_and_time_is_another_file(watched: Watched) -> None:
    """As `mv` of a pair that a tool gave the old times."""
    before = watched.key.stat()
    fresh = watched.key.with_suffix(".new")
    fresh.write_text("key 2")
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.replace(watched.key)
    assert watched.looks(2) == 1


def test_a_file_that_may_now_be_read_is_a_change(watched: Watched) -> None:
    before = watched.key.stat().st_ctime_ns
    # Inodes are stamped with a clock that ticks a few hundred times a second.
    while watched.key.stat().st_ctime_ns == before:
        watched.key.chmod(0o640)
    assert watched.looks(2) == 1


def test_a_file_that_is_gone_for_a_moment_ends_nothing(watched: Watched) -> None:
    away = watched.key.with_suffix(".away")
    watched.key.rename(away)
    watched.looks()
    away.rename(watched.key)
    reloads = watched.looks(2)
    watched.key.write_text("key 333")
    assert watched.looks(2) == reloads + 1


def test_a_file_that_is_gone_for_good_is_one_reload(watched: Watched) -> None:
    """Which says what is missing; and one more when it is there again."""
    watched.chain.unlink()
    assert watched.looks(5) == 1
    watched.chain.write_text("chain 2")
    assert watched.looks(5) == 2


def test_a_swapped_link_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes publishes a secret: `..data` is a link to a folder, swapped at once."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tls.key").write_text(f"key {version}")
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "tls.key").symlink_to("..data/tls.key")
    reloads: list[None] = []
    watch = TLSWatch([str(tmp_path / "tls.key")], lambda: reloads.append(None), 60)
    (tmp_path / "..tmp").symlink_to("2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    watch.look()
    watch.look()
    assert len(reloads) == 1


def test_what_changes_during_a_reload_is_reloaded_again(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("1")
    texts = iter(("333", "4444"))
    reloads: list[str] = []

    def reload() -> None:
        reloads.append(file.read_text())
        if text := next(texts, None):
            file.write_text(text)

    watch = TLSWatch([str(file)], reload, 60)
    file.write_text("22")
    for _ in range(9):
        watch.look()
    assert reloads == ["22", "333", "4444"]


def test_the_thread_goes_on_after_an_error_and_ends_when_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key.pem"

    def write(text: str) -> None:
        # Whole at once: a look in the middle of it would find two changes.
        fresh = tmp_path / "fresh"
        fresh.write_text(text)
        fresh.rename(file)

    write("1")
    called = [threading.Event(), threading.Event()]
    pending = list(called)

    def reload() -> None:
        pending.pop(0).set()
        raise RuntimeError

    watch = TLSWatch([str(file)], reload, interval=0.01)
    watch.start()
    with caplog.at_level(logging.ERROR, "guerrilla.tls"):
        write("22")
        assert called[0].wait(10)
        write("333")
        assert called[1].wait(10)
        watch.stop()
    assert not watch._thread.is_alive()
    assert len(caplog.records) == 2


# Which files


def test_the_files_of_servers_that_want_it_are_watched(tmp_path: Path) -> None:
    names = ["k", "c", "r", "k1", "c1"]
    files = {name: str(tmp_path / name) for name in names}
    raw = tls(
        start_tls_on=True,
        watch=True,
        private_key_file=files["k"],
        public_key_file=files["c"],
        root_cas_file=files["r"],
        certificates=[{"private_key_file": files["k1"], "public_key_file": files["c1"]}],
    )
    raw["servers"].append({"listen_interface": ":26", "tls": {"watch": True, **KEY_FILES}})
    reloads: list[None] = []
    watch = make_watch(from_mapping(raw), lambda: reloads.append(None))
    assert watch is not None
    for count, name in enumerate(names, 1):
        (tmp_path / name).write_text("new")
        watch.look()
        watch.look()
        assert len(reloads) == count, name


@pytest.mark.parametrize(
    "raw",
    [
        {},
        tls(start_tls_on=True, **KEY_FILES),
        tls(watch=True, **KEY_FILES),
        server(is_enabled=False, tls={"tls_always_on": True, "watch": True, **KEY_FILES}),
    ],
)
def test_nothing_is_watched_where_nobody_wants_it(raw: dict[str, object]) -> None:
    assert make_watch(from_mapping(raw), lambda: None) is None


# What came of it


class Reloading:
    """As much of a core as a reload needs."""

    def __init__(self, *results: tuple[str, str | None]) -> None:
        self._results = list(results)

    def reload_tls(self) -> list[tuple[str, str | None]]:
        return self._results


Logged = list[tuple[int, str]]


@pytest.fixture
def reloaded(caplog: pytest.LogCaptureFixture) -> Callable[..., tuple[list[str], Logged]]:
    """What a reload with such results says and logs."""
    config = from_mapping(
        {"servers": [{"listen_interface": ":25"}, {"listen_interface": "127.0.0.1:465"}]}
    )

    def run(*results: tuple[str, str | None]) -> tuple[list[str], Logged]:
        with caplog.at_level(logging.DEBUG, "guerrilla.tls"):
            problems = reload_tls(config, cast("Core", Reloading(*results)))
        return problems, [(record.levelno, record.getMessage()) for record in caplog.records]

    return run


def test_a_reload_without_a_change_says_nothing(
    reloaded: Callable[..., tuple[list[str], Logged]],
) -> None:
    assert reloaded() == ([], [])


def test_what_is_taken_over_is_logged_once_a_server(
    reloaded: Callable[..., tuple[list[str], Logged]],
) -> None:
    """However many addresses it has."""
    problems, logged = reloaded((":25", None), (":25", None), ("127.0.0.1:465", None))
    assert problems == []
    assert [level for level, _ in logged] == [logging.INFO, logging.INFO]
    assert logged[0][1].startswith("servers[0].tls: ")
    assert logged[1][1].startswith("servers[1].tls: ")


@pytest.mark.parametrize("prefix", ["", ":25: "])
def test_what_cannot_be_taken_over_is_told_by_its_key(
    reloaded: Callable[..., tuple[list[str], Logged]], prefix: str
) -> None:
    """And that the old one stays; each once."""
    reason = f"{prefix}tls.private_key_file: k: no key\n{prefix}tls.public_key_file: c: gone"
    problems, logged = reloaded((":25", reason), (":25", reason), ("127.0.0.1:465", "broken"))
    assert problems == [
        "servers[0].tls.private_key_file: k: no key",
        "servers[0].tls.public_key_file: c: gone",
        "servers[1].tls: broken",
    ]
    assert [level for level, _ in logged] == [logging.ERROR] * 3
    assert all(line.endswith("; what was loaded before stays in use") for _, line in logged)
