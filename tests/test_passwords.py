"""Hashes of passwords, and the file that has them: what is taken, and what is refused and how."""

from __future__ import annotations

import builtins
import logging
import os
import shutil
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import pytest

from guerrilla.passwords import hashes
from guerrilla.passwords.file import PasswordFile, Users, shared
from guerrilla.passwords.hashes import HashError, check, make, verify
from guerrilla.passwords.lines import LinesError, check_user, parse, replaced
from tests.passwords import SECRET, quick_argon2, quick_bcrypt, write_users

COMPOSED = unicodedata.normalize("NFC", "caf\u00e9")
DECOMPOSED = unicodedata.normalize("NFD", "caf\u00e9")

OTHERS = {
    "{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=": "a scheme in braces",
    "{BLF-CRYPT}$2y$05$.": "take it off before",
    "$apr1$GnvT7Bcc$iLrwL5mh0YAD0NNVc6gcr1": "MD5",
    "$1$GnvT7Bcc$iLrwL5mh0YAD0NNVc6gcr1": "MD5",
    "$5$rounds=5000$saltsalt$xCgd": "SHA-2",
    "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2": "SHA-2",
    "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC": "yescrypt",
    "$argon2d$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$PNPL1cFBdhI": "argon2d",
    "$argon2id$v=19$m=8,t=1$c2FsdHNhbHQ$PNPL1cFBdhI": "a damaged one",
    "$argon2id$v=19$m=8,t=1,p=1$c2Fs$PNPL1cFBdhI": "a damaged one",
    "$2x$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234": "unknown kind",
    "$2y$99$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234": "unknown kind",
    "$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ0123": "a damaged one",
    "rEK1ecacw.7.c": "in the clear",
    "hunter2": "in the clear",
    "": "in the clear",
}


# Hashes


@pytest.mark.parametrize(
    "made",
    [quick_argon2(), quick_bcrypt(), quick_bcrypt(kind="2a")],
    ids=["argon2id", "bcrypt 2y", "bcrypt 2a"],
)
def test_a_password_is_right_or_wrong(made: str) -> None:
    check(made)
    assert verify(made, SECRET)
    for wrong in ("", SECRET[:-1], f"{SECRET}x", SECRET.upper(), f"{SECRET}\0", "\ud800"):
        assert not verify(made, wrong)


def test_ours_is_argon2id_with_what_its_library_recommends() -> None:
    made = make(DECOMPOSED)
    assert made.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    check(made)
    assert verify(made, COMPOSED)
    assert make(SECRET) != make(SECRET)


@pytest.mark.parametrize(("hashed", "why"), OTHERS.items())
def test_what_is_no_hash_of_ours_is_refused_without_being_told(hashed: str, why: str) -> None:
    with pytest.raises(HashError) as caught:
        check(hashed)
    assert why in str(caught.value)
    assert "guerrillad password" in str(caught.value)
    assert hashed == "" or hashed not in str(caught.value)


def test_of_a_password_that_bcrypt_does_not_read_whole_nothing_is_right() -> None:
    long = "x" * 72
    made = quick_bcrypt(long)
    assert verify(made, long)
    assert not verify(made, f"{long}y")
    assert not verify(made, f"{long}{'y' * 5_000}")
    umlauts = "\u00fc" * 36
    assert verify(quick_bcrypt(umlauts), umlauts)
    assert not verify(quick_bcrypt(umlauts), f"{umlauts}\u00fc")
    assert verify(quick_argon2(long * 3), long * 3)


def test_a_hash_that_cannot_be_checked_is_no_wrong_password() -> None:
    """A digit too many, which no form shows: nobody may be told that the password is wrong."""
    made = f"{quick_argon2()}AA"
    check(made)
    with pytest.raises(HashError, match="argon2 cannot check a password"):
        verify(made, SECRET)


@pytest.mark.parametrize(
    ("module", "package", "hashed"),
    [("bcrypt", "bcrypt", quick_bcrypt()), ("argon2", "argon2-cffi", quick_argon2())],
    ids=["bcrypt", "argon2"],
)
def test_a_library_that_is_missing_is_named(
    module: str, package: str, hashed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    hashes._hasher.cache_clear()
    with pytest.raises(HashError, match=rf"{package} .*pip install 'guerrilla\[auth\]'"):
        check(hashed)


# Lines


def test_comments_blank_lines_and_line_ends_say_nothing() -> None:
    one, other = quick_bcrypt(), quick_argon2()
    text = f"\ufeff# users\r\n\r\nalice:{one}\r\n   \n#bob:x\nBob Smith:{other} \t\n"
    assert parse(text.encode()) == {"alice": one, "Bob Smith": other}
    assert parse(b"") == {}


def test_users_are_exact_but_for_how_their_characters_are_put_together() -> None:
    made = quick_bcrypt()
    found = parse(f"{DECOMPOSED}:{made}\nAlice:{made}\nalice@example.com:{made}\n".encode())
    assert list(found) == [COMPOSED, "Alice", "alice@example.com"]


def test_every_line_that_is_wrong_is_told_by_its_number_without_its_hash() -> None:
    made = quick_bcrypt()
    text = "\n".join(["", "nobody", f"a:{made}", "b:hunter2", f":{made}", f" c:{made}"])
    with pytest.raises(LinesError) as caught:
        parse(text.encode() + b"\nd\xff:x\na:%s" % made.encode())
    assert [line.partition(": ")[0] for line in caught.value.problems] == [
        *("line 2", "line 4", "line 5", "line 6", "line 7", "and 1 more"),
    ]
    assert "expected USER:HASH" in caught.value.problems[0]
    assert "not UTF-8" in caught.value.problems[4]
    for secret in ("hunter2", made, "nobody"):
        assert secret not in str(caught.value)


def test_a_user_stands_there_once() -> None:
    made = quick_bcrypt()
    text = f"{COMPOSED}:{made}\nx:{made}\n{DECOMPOSED}:{made}\n"
    with pytest.raises(LinesError, match=r"^line 3: the user of line 1 once more$"):
        parse(text.encode())


@pytest.mark.parametrize("name", ["", " a", "a ", "a:b", "#a", "a\nb", "a\tb", "a\0", "a\u202eb"])
def test_what_is_no_user(name: str) -> None:
    with pytest.raises(HashError):
        check_user(name)


def test_a_line_is_replaced_or_added_and_all_others_stay() -> None:
    before = f"\ufeff# x\r\n#alice:y\n{DECOMPOSED}:old\r\nbob:z".encode()
    after, was_there = replaced(before, COMPOSED, "new")
    assert was_there
    assert after == f"\ufeff# x\r\n#alice:y\n{COMPOSED}:new\nbob:z".encode()
    assert replaced(before, "alice", "new") == (before + b"\nalice:new\n", False)
    assert replaced(b"", "alice", "new") == (b"alice:new\n", False)
    assert replaced(b"a:b\n", "alice", "new") == (b"a:b\nalice:new\n", False)
    assert replaced("\ufeffalice:a\n".encode(), "alice", "b") == (b"alice:b\n", True)


# What others make


@pytest.mark.parametrize("options", [["-B"], ["-B", "-C", "6"]])
def test_a_file_of_htpasswd(options: list[str], tmp_path: Path) -> None:
    path = tmp_path / "users"
    for index, name in enumerate(["alice", "bob"]):
        subprocess.run(
            ["htpasswd", *options, "-i", *([] if index else ["-c"]), path, name],
            input=SECRET, text=True, check=True, capture_output=True, timeout=30,
        )  # fmt: skip
    users = parse(path.read_bytes())
    assert list(users) == ["alice", "bob"]
    assert all(verify(hashed, SECRET) and not verify(hashed, "x") for hashed in users.values())


@pytest.mark.parametrize("option", ["-m", "-s", "-d", "-p", "-2", "-5"])
def test_what_else_htpasswd_makes_is_refused(option: str, tmp_path: Path) -> None:
    line = subprocess.run(
        ["htpasswd", option, "-i", "-n", "alice"],
        input="hunter2", text=True, check=True, capture_output=True, timeout=30,
    ).stdout  # fmt: skip
    assert line.startswith("alice:")
    with pytest.raises(LinesError) as caught:
        parse(line.encode())
    assert line.strip().partition(":")[2] not in str(caught.value)


@pytest.mark.parametrize("scheme", ["BLF-CRYPT", "ARGON2ID"])
def test_a_hash_of_doveadm_without_its_braces(scheme: str) -> None:
    made = subprocess.run(
        ["doveadm", "-O", "pw", "-s", scheme, "-p", SECRET],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout.strip()  # fmt: skip
    with pytest.raises(LinesError, match="take it off"):
        parse(f"alice:{made}".encode())
    (hashed,) = parse(f"alice:{made.partition('}')[2]}".encode()).values()
    assert verify(hashed, SECRET)
    assert not verify(hashed, "x")


# The file


def test_it_is_read_again_when_it_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = write_users(tmp_path / "users", f"alice:{quick_bcrypt()}")
    file = PasswordFile(str(path))
    file.open()
    assert list(file.users().hashes) == ["alice"]
    assert caplog.text == ""
    write_users(path, f"bob:{quick_bcrypt()}")
    assert list(file.users().hashes) == ["bob"]
    assert list(file.users().hashes) == ["bob"]
    assert [record.getMessage() for record in caplog.records] == [f"{path}: read again, 1 users"]


def test_it_is_read_again_when_it_was_changed_in_its_place(tmp_path: Path) -> None:
    """Also where neither its size nor its time tells."""
    path = tmp_path / "users"
    first, second = quick_bcrypt(), quick_bcrypt("other")
    path.write_text(f"alice:{first}\n")
    when = os.stat(path).st_mtime_ns
    file = PasswordFile(str(path))
    file.open()
    path.write_text(f"alice:{second}\n")
    os.utime(path, ns=(when, when))
    assert file.users().hashes == {"alice": second}


@pytest.mark.parametrize("harm", ["line", "gone", "folder"])
def test_one_that_cannot_be_used_leaves_the_old_users_and_is_told_once(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_users(tmp_path / "users", f"alice:{quick_bcrypt()}")
    file = PasswordFile(str(path))
    file.open()
    if harm == "line":
        write_users(path, f"bob:{quick_bcrypt()}", "carol:hunter2")
    else:
        path.unlink()
    if harm == "folder":
        path.mkdir()
    for _ in range(3):
        assert list(file.users().hashes) == ["alice"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"{path}: ")
    assert record.getMessage().endswith("; what was there before stays")
    assert "hunter2" not in caplog.text
    if path.is_dir():
        path.rmdir()
    write_users(path, f"bob:{quick_bcrypt()}")
    assert list(file.users().hashes) == ["bob"]


def test_opening_one_that_cannot_be_used_is_an_error_each_time(tmp_path: Path) -> None:
    path = write_users(tmp_path / "users", "alice:hunter2")
    file = PasswordFile(str(path))
    for _ in range(2):
        with pytest.raises(LinesError):
            file.open()
    write_users(path, f"alice:{quick_bcrypt()}")
    file.open()
    assert list(file.users().hashes) == ["alice"]


@pytest.mark.parametrize(
    ("mode", "is_told"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)]
)
def test_one_that_everybody_can_read_or_write_is_told(
    mode: int, is_told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_users(tmp_path / "users", f"alice:{quick_bcrypt()}", mode=mode)
    PasswordFile(str(path)).open()
    assert ("chmod o=" in caplog.text) is is_told
    assert len(caplog.records) == is_told


def test_one_file_is_read_once_for_all_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_users(tmp_path / "users", f"alice:{quick_bcrypt()}")
    opened: list[object] = []
    real = builtins.open

    def counting(file: object, *rest: object, **more: object) -> object:
        if file == str(path):
            opened.append(file)
        return real(file, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", counting)
    file = shared(str(path))
    threads = [threading.Thread(target=shared(str(path)).open) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert shared(str(path)) is file


def test_many_users_are_read_in_a_moment(tmp_path: Path) -> None:
    made = [quick_bcrypt(), quick_argon2()]
    lines = [f"user{index}:{made[index % 2]}" for index in range(20_000)]
    path = write_users(tmp_path / "users", *lines)
    file = PasswordFile(str(path))
    file.open()
    assert len(file.users().all) == 20_000


def test_somebody_unknown_is_checked_against_the_same_hash_each_time() -> None:
    """One of the file, and over many names each of them alike."""
    users = Users({}, ("cheap", "dear", "dearer"))
    names = [f"nobody{index}" for index in range(3_000)]
    found = [users.stand_in(name) for name in names]
    assert found == [users.stand_in(name) for name in names]
    for hashed in users.all:
        assert 800 < found.count(hashed) < 1_200


def test_the_tools_are_there() -> None:
    assert shutil.which("htpasswd")
    assert shutil.which("doveadm")
