"""`guerrillad password`: lines for AuthFile, and the file they are put into."""

from __future__ import annotations

import io
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from guerrilla.cli import main
from guerrilla.commands import password
from guerrilla.passwords.hashes import verify
from guerrilla.passwords.lines import parse
from guerrilla.reply import AUTHENTICATED
from guerrilla.testing import run_authenticate
from tests.passwords import SECRET, quick_bcrypt, write_users


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password, "make", quick_bcrypt)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, typed: bytes = b"") -> int:
    """With a standard input that is no terminal."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed or SECRET.encode())))
    return main(["password", *arguments])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("typed", ["{}", "{}\n", "{}\r\n", "{}\nsecond line\n"])
def test_the_line_is_printed(
    typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--user", "alice", typed=typed.format(SECRET).encode()) == 0
    out, err = capsys.readouterr()
    (hashed,) = parse(out.encode()).values()
    assert out.startswith("alice:$2y$")
    assert verify(hashed, SECRET)
    assert SECRET not in out + err


def test_as_a_program_it_makes_argon2id() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "guerrilla", "password", "--user", "b\u00f6b"],
        input="caf\u00e9\n", capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert made.stdout.startswith("b\u00f6b:$argon2id$")
    (hashed,) = parse(made.stdout.encode()).values()
    assert verify(hashed, "caf\u00e9")


def test_a_file_is_made_for_its_owner_alone_and_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "users"
    before = os.umask(0)
    try:
        assert run(monkeypatch, "--user", "alice", "--file", str(path)) == 0
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert run(monkeypatch, "--user", "bob", "--file", str(path), typed=b"x") == 0
    assert run(monkeypatch, "--user", "alice", "--file", str(path), typed=b"new") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: alice added",
        f"{path}: bob added",
        f"{path}: alice changed",
    ]
    assert list(parse(path.read_bytes())) == ["alice", "bob"]
    options = {"auth_file": str(path)}
    assert run_authenticate("AuthFile", "alice", "new", options=options) == AUTHENTICATED
    assert run_authenticate("AuthFile", "bob", "x", options=options) == AUTHENTICATED
    assert os.listdir(tmp_path) == ["users"]


def test_what_else_is_in_a_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, other users, its mode, and the link that leads to it."""
    path = write_users(tmp_path / "users", "# staff", f"bob:{quick_bcrypt()}", mode=0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    bob = parse(path.read_bytes())["bob"]
    assert run(monkeypatch, "--user", "alice", "--file", str(link)) == 0
    assert path.read_text().startswith(f"# staff\nbob:{bob}\nalice:$2y$")
    assert mode(path) == 0o640
    assert link.is_symlink()


def test_where_it_fails_nothing_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_users(tmp_path / "users", "bob:hunter2")
    assert run(monkeypatch, "--user", "alice", "--file", str(path)) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"guerrillad: {path}: line 1: no hash of bcrypt or argon2")
    assert last == "guerrillad: nothing was changed"
    assert "hunter2" not in first
    assert path.read_text() == "bob:hunter2\n"
    missing = tmp_path / "no folder" / "users"
    assert run(monkeypatch, "--user", "alice", "--file", str(missing)) == 1
    err = capsys.readouterr().err
    assert err == f"guerrillad: {missing}: No such file or directory\n"
    good = write_users(tmp_path / "good", f"bob:{quick_bcrypt()}")
    monkeypatch.setattr(os, "replace", _full)
    content = good.read_bytes()
    assert run(monkeypatch, "--user", "alice", "--file", str(good)) == 1
    assert "No space left" in capsys.readouterr().err
    assert good.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["good", "users"]


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("user", "typed", "told"),
    [
        ("a:b", b"x", "--user: a user has printable characters, but no colon"),
        ("", b"x", "--user: there is no user"),
        ("alice", b"\n", "expected a password of at least one character"),
        ("alice", b"a\0b\n", "no NUL in it"),
        ("alice", b"\xff\n", "the password is not UTF-8"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(
    user: str,
    typed: bytes,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "--user", user, typed=typed) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert told in line


def at_a_terminal(*answers: bytes) -> tuple[int, bytes, str]:
    """What becomes of these answers to its questions: the status, the terminal, what is printed."""
    main_end, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "guerrilla", "password", "--user", "alice"],
        stdin=end, stdout=subprocess.PIPE, stderr=end, text=True, start_new_session=True,
    )  # fmt: skip
    os.close(end)
    shown = b""
    for question, answer in zip((b"Password: ", b"The same again: "), answers, strict=False):
        while question not in shown:
            shown += os.read(main_end, 4_096)
        os.write(main_end, answer)
    out, _ = process.communicate(timeout=60)
    try:
        while found := os.read(main_end, 4_096):
            shown += found
    except OSError:
        pass  # The other end is closed: all is read.
    os.close(main_end)
    return process.returncode, shown, out


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([b"\x04"], b"no password was given; nothing was changed"),
        ([SECRET.encode() + b"\n", b"\x04"], b"no password was given; nothing was changed"),
        ([b"\xff\n", b"\xff\n"], b"the password is not UTF-8"),
    ],
)
def test_at_a_terminal_no_answer_is_no_fault_of_ours(answers: list[bytes], told: bytes) -> None:
    status, shown, out = at_a_terminal(*answers)
    assert (status, out) == (1, "")
    assert told in shown
    assert b"error in guerrilla itself" not in shown


@pytest.mark.parametrize(("again", "status"), [(SECRET, 0), ("typo", 1)])
def test_at_a_terminal_it_is_asked_for_twice_and_not_shown(again: str, status: int) -> None:
    returned, shown, out = at_a_terminal(SECRET.encode() + b"\n", again.encode() + b"\n")
    assert returned == status
    assert SECRET.encode() not in shown
    assert out.startswith("alice:$argon2id$") is (status == 0)
    assert (b"these were two passwords" in shown) is (status == 1)
