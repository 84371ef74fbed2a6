"""AuthFile: who is let in, how long that takes, and what it remembers."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from guerrilla._core import Credentials, Reply, make_login
from guerrilla.engine.chain import build
from guerrilla.engine.registry import DECORATED, Registry
from guerrilla.errors import ConfigError
from guerrilla.passwords import hashes
from guerrilla.processors import authfile
from guerrilla.processors.authfile import AuthFile
from guerrilla.reply import AUTHENTICATED, LOG_IN_LATER, NOT_AUTHENTICATED
from guerrilla.testing import run_authenticate
from tests.passwords import SECRET, quick_argon2, quick_bcrypt, write_users


@pytest.fixture
def users(tmp_path: Path) -> Path:
    other = quick_argon2("caf\u00e9")
    return write_users(tmp_path / "users", f"alice:{quick_bcrypt()}", f"b\u00f6b:{other}")


def told(path: Path, user: str, password: str, chain: str = "AuthFile", **more: Any) -> Reply:
    return run_authenticate(chain, user, password, options={"auth_file": str(path)}, **more)


class Counting:
    """What passwords were checked against."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.against: list[str] = []
        monkeypatch.setattr(authfile, "verify", self)

    def __call__(self, hashed: str, password: str) -> bool:
        self.against.append(hashed)
        return hashes.verify(hashed, password)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def opened(path: Path, **options: Any) -> AuthFile:
    stage = AuthFile(AuthFile.Options.model_validate({"auth_file": str(path), **options}))
    stage.open()
    return stage


def asked(stage: AuthFile, user: str = "alice", password: str = SECRET) -> Reply | None:
    login = make_login(Credentials(user, password))
    return stage.authenticate(login.transaction, login.credentials)


# Who is let in


@pytest.mark.parametrize(
    ("user", "password", "reply"),
    [
        ("alice", SECRET, AUTHENTICATED),
        ("b\u00f6b", "caf\u00e9", AUTHENTICATED),
        ("bo\u0308b", "cafe\u0301", AUTHENTICATED),
        ("b\u00f6b", "cafe", NOT_AUTHENTICATED),
        ("alice", "caf\u00e9", NOT_AUTHENTICATED),
        ("Alice", SECRET, NOT_AUTHENTICATED),
        ("alice ", SECRET, NOT_AUTHENTICATED),
        ("carol", SECRET, NOT_AUTHENTICATED),
        ("alice", f"{SECRET} ", NOT_AUTHENTICATED),
    ],
)
def test_only_a_user_of_the_file_with_its_password(
    users: Path, user: str, password: str, reply: Reply
) -> None:
    assert told(users, user, password) == reply


def test_nobody_acts_as_another(users: Path) -> None:
    assert told(users, "alice", SECRET, authorization_identity="alice") == AUTHENTICATED
    assert told(users, "alice", SECRET, authorization_identity="b\u00f6b") == NOT_AUTHENTICATED


def test_who_is_not_in_it_is_passed_on_and_who_is_in_it_not(users: Path, tmp_path: Path) -> None:
    other = write_users(tmp_path / "other", f"alice:{quick_bcrypt('x')}", f"ann:{quick_bcrypt()}")
    options = {"auth_file": str(users), "processors": {"more": {"auth_file": str(other)}}}
    chain = "AuthFile|AuthFile:more"
    assert run_authenticate(chain, "ann", SECRET, options=options) == AUTHENTICATED
    assert run_authenticate(chain, "alice", SECRET, options=options) == AUTHENTICATED
    assert run_authenticate(chain, "alice", "x", options=options) == NOT_AUTHENTICATED


def test_somebody_unknown_costs_one_hash_as_a_wrong_password_does(
    users: Path, counting: Counting
) -> None:
    stage = opened(users)
    known = list(stage._users().hashes.values())
    assert asked(stage, "alice", "wrong") == NOT_AUTHENTICATED
    assert counting.against == known[:1]
    for name in ("carol", "dave", "carol"):
        assert asked(stage, name, SECRET) is None
    assert len(counting.against) == 4
    assert set(counting.against) <= set(known)
    assert counting.against[1] == counting.against[3]


def test_nobody_is_let_in_by_the_hash_of_somebody_else(tmp_path: Path) -> None:
    """Against which the password of somebody unknown is checked, for the time that it takes."""
    path = write_users(tmp_path / "users", f"alice:{quick_bcrypt()}")
    for name in ("bob", "carol", ""):
        assert told(path, name, SECRET) == NOT_AUTHENTICATED


# What it remembers


def test_a_password_that_was_right_is_hashed_again_only_after_its_time(
    users: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stage = opened(users, auth_cache_ttl=60)
    assert [asked(stage) for _ in range(3)] == [AUTHENTICATED] * 3
    assert len(counting.against) == 1
    assert [asked(stage, password="wrong") for _ in range(3)] == [NOT_AUTHENTICATED] * 3
    assert len(counting.against) == 4
    assert asked(stage, "b\u00f6b", SECRET) == NOT_AUTHENTICATED
    now += 59.9
    assert asked(stage) == AUTHENTICATED
    assert len(counting.against) == 5
    now += 0.1
    assert asked(stage) == AUTHENTICATED
    assert len(counting.against) == 6


def test_nothing_is_remembered_by_default(users: Path, counting: Counting) -> None:
    stage = opened(users)
    assert [asked(stage) for _ in range(3)] == [AUTHENTICATED] * 3
    assert len(counting.against) == 3


def test_another_hash_in_the_file_is_the_end_of_what_is_remembered(users: Path) -> None:
    stage = opened(users, auth_cache_ttl="1h")
    assert asked(stage) == AUTHENTICATED
    write_users(users, f"alice:{quick_bcrypt('new')}")
    assert asked(stage) == NOT_AUTHENTICATED
    assert asked(stage, password="new") == AUTHENTICATED
    write_users(users, f"bob:{quick_bcrypt()}")
    assert asked(stage, password="new") is None


def test_what_is_remembered_has_no_password_in_it(users: Path) -> None:
    stage = opened(users, auth_cache_ttl="1h")
    assert asked(stage) == AUTHENTICATED
    kept = repr(vars(stage)) + repr(vars(stage._remembered))
    assert SECRET not in kept
    ((digest, _),) = stage._remembered._until.values()
    assert len(digest) == 32
    stage.close()
    assert stage._remembered._until == {}


def test_it_remembers_so_many_and_no_more(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authfile, "_LONGEST", 3)
    found = authfile.Remembered(60)
    for index in range(10):
        found.add(f"user{index}", "hash", SECRET)
        assert found.has(f"user{index}", "hash", SECRET)
        assert len(found._until) <= 3


# The file


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "backend_config.auth_file: expected the path of a file with lines USER:HASH"),
        ({"auth_file": " "}, "backend_config.auth_file: expected the path of a file"),
        ({"auth_file": 7}, "got 7"),
        ({"auth_file": "u", "auth_cache_ttl": -1}, "backend_config.auth_cache_ttl: expected"),
    ],
)
def test_options_that_are_none(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("AuthFile", "authenticate", given, Registry(DECORATED))
    (line,) = caught.value.problems
    assert told in line


def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    def problems(**options: Any) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            run_authenticate("AuthFile", "a", "b", options=options)
        return caught.value.problems

    missing = tmp_path / "missing"
    where = "backend_config.auth_file: "
    assert problems(auth_file=str(missing)) == (f"{where}{missing}: No such file or directory",)
    assert problems(auth_file=str(tmp_path)) == (f"{where}{tmp_path}: Is a directory",)
    bad = write_users(tmp_path / "bad", "alice:hunter2", "", "bob")
    first, second = problems(auth_file=str(bad))
    assert first.startswith(f"{where}{bad}: line 1: no hash of bcrypt or argon2")
    assert second == f"{where}{bad}: line 3: expected USER:HASH"
    assert "hunter2" not in first
    empty = write_users(tmp_path / "empty", "# nobody yet")
    (line,) = problems(auth_file=str(empty))
    assert line.endswith(f"no user in it: guerrillad password --user NAME --file {empty}")


def test_an_empty_file_lets_nobody_in_and_refuses_nobody_for_good(
    users: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be about to be written; and who was taken out is out."""
    with build("AuthFile", "authenticate", {"auth_file": str(users)}, Registry(DECORATED)) as chain:
        users.write_text("")
        for user in ("alice", "carol"):
            login = make_login(Credentials(user, SECRET))
            chain.run([login])
            assert login.answered == LOG_IN_LATER
    assert caplog.text.count("so nobody can log in") == 1
    assert SECRET not in caplog.text


def test_a_damaged_hash_is_no_wrong_password(users: Path) -> None:
    write_users(users, f"alice:{quick_argon2()}AA")
    assert told(users, "alice", SECRET) == LOG_IN_LATER


def test_a_password_reaches_no_log(users: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for user in ("alice", "b\u00f6b", "carol"):
        told(users, user, SECRET)
    write_users(users, f"alice:{quick_bcrypt()}", "x")
    assert SECRET not in "".join(repr(vars(record)) for record in caplog.records)


@pytest.mark.parametrize("made", [quick_bcrypt(cost=8), quick_bcrypt(cost=9)], ids=["8", "9"])
def test_an_unknown_user_takes_the_time_of_a_wrong_password(made: str, tmp_path: Path) -> None:
    """By the processor time of this thread, which a busy machine does not stretch."""
    stage = opened(write_users(tmp_path / "users", f"alice:{made}"))

    def cost(user: str) -> float:
        times = []
        for _ in range(5):
            began = time.thread_time()
            asked(stage, user, "wrong")
            times.append(time.thread_time() - began)
        return min(times)

    known, unknown = cost("alice"), cost("carol")
    assert known > 0.005
    assert abs(known - unknown) < known / 2
