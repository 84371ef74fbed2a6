"""`guerrillad mail`: what it prints, its exit status, and its errors."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guerrilla.cli import main
from tests.commands.mails import PLAIN, envelope, store

if TYPE_CHECKING:
    pass


def config(**backend: str) -> str:
    values = {"save_process": "HeadersParser|SQL", "sql_driver": "sqlite", "sql_dsn": "mail.db"}
    return json.dumps({"backend_config": values | backend})


@pytest.mark.parametrize(
    "name", ["goguerrilla.conf.json", "guerrilla.json", "guerrilla.toml", "else.json"]
)
def test_database_of_the_config(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    store(envelope(), table="mails")
    toml = '[backend_config]\nsave_process = "SQL"\nsql_dsn = "mail.db"\nmail_table = "mails"\n'
    text = toml if name.endswith("toml") else config(mail_table="mails")
    Path(name).write_text(text, encoding="utf-8")
    arguments = ["-c", name] if name == "else.json" else []
    assert main(["mail", "list", *arguments]) == 0
    assert "hello" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, "no config file here"),
        (
            config(save_process="HeadersParser|Debugger"),
            "backend_config.save_process: no SQL stage",
        ),
        (config(sql_driver="mysql"), "sql_driver 'mysql': only 'sqlite' can be read"),
        (config(sql_dsn=""), "sql_dsn: expected the path of the database file"),
        (config(sql_dsn="mail:secret@tcp(127.0.0.1)/mail"), "got the address of a database server"),
        (config(mail_table="a b"), "backend_config.mail_table: 'a b' cannot name a table"),
        (config(), "mail.db: no such database file"),
        ("nonsense", "guerrilla.json: "),
    ],
)
def test_no_database(text: str | None, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    if text is not None:
        Path("guerrilla.json").write_text(text, encoding="utf-8")
    for command in (["list"], ["show", "1"], ["export", "out"], ["purge", "--older-than", "1d"]):
        assert main(["mail", *command]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("guerrillad: ")
        assert error in line
        assert "secret" not in line
    assert not Path("mail.db").exists()


def test_mails_of_any_script(capsys: pytest.CaptureFixture[str]) -> None:
    message = "Subject: Grüße an 用户 😀\r\n\r\nü\r\n".encode()
    store(envelope(message, "用户@例え.jp"))
    assert main(["mail", "list", "--db", "mail.db"]) == 0
    assert "用户@例え.jp" in (listed := capsys.readouterr().out)
    assert listed.endswith("  Grüße an 用户 😀\n")
    assert main(["mail", "list", "--db", "mail.db", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isascii()
    assert (json.loads(line)["to"], json.loads(line)["subject"]) == (
        "用户@例え.jp",
        "Grüße an 用户 😀",
    )
    assert main(["mail", "export", "out", "--db", "mail.db"]) == 0
    (file,) = Path("out").iterdir()
    assert file.name.isascii()
    assert file.read_bytes().endswith(message)
    ascii_only = subprocess.run(
        [sys.executable, "-m", "guerrilla", "mail", "list", "--db", "mail.db"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    assert rb"\u7528\u6237@\u4f8b\u3048.jp" in ascii_only.stdout


def backends(default: str, **others: dict[str, str]) -> str:
    main = {"save_process": default, "sql_dsn": "main.db"}
    return json.dumps({"backend_config": main, "backends": others})


@pytest.mark.parametrize(
    ("text", "arguments", "subject"),
    [
        (backends("SQL", hot={"save_process": "SQL", "sql_dsn": "hot.db"}), [], "main"),
        (
            backends("SQL", hot={"save_process": "SQL", "sql_dsn": "hot.db"}),
            ["--backend", "HOT"],
            "hot",
        ),
        (
            backends("SQL", hot={"save_process": "SQL", "sql_dsn": "hot.db"}),
            ["--backend", "default"],
            "main",
        ),
        # The first store that can be read, wherever it is.
        (backends("Debugger", hot={"save_process": "SQL", "sql_dsn": "hot.db"}), [], "hot"),
        (backends("MySQL", hot={"save_process": "SQL", "sql_dsn": "hot.db"}), [], "hot"),
        (
            json.dumps(
                {
                    "backend_config": {
                        "save_process": "MySQL:far|SQL:near",
                        "processors": {"near": {"sql_dsn": "hot.db"}},
                    }
                }
            ),
            [],
            "hot",
        ),
    ],
)
def test_database_of_a_backend(
    text: str, arguments: list[str], subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("guerrilla.json").write_text(text, encoding="utf-8")
    for name in ("main", "hot"):
        store(envelope(f"Subject: {name}\r\n\r\n".encode()), database=f"{name}.db")
    assert main(["mail", "list", "--json", *arguments]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["subject"] == subject


@pytest.mark.parametrize(
    ("text", "arguments", "error"),
    [
        (
            backends("SQL", hot={"save_process": "HeadersParser|GuerrillaDbRedis"}),
            ["--backend", "hot"],
            "backends.hot.save_process: GuerrillaDbRedis keeps its mails in Redis",
        ),
        (
            backends("SQL", hot={"save_process": "MySQL"}),
            ["--backend", "hot"],
            "backends.hot.sql_driver 'mysql': only 'sqlite' can be read (MySQL)",
        ),
        (
            backends("SQL", hot={"save_process": "Debugger"}),
            ["--backend", "cold"],
            "--backend: expected one of default, hot, got 'cold'",
        ),
        (
            backends("Debugger", hot={"save_process": "Debugger"}),
            [],
            "backend_config.save_process and backends.hot.save_process: no SQL stage",
        ),
    ],
)
def test_no_database_of_a_backend(
    text: str, arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("guerrilla.json").write_text(text, encoding="utf-8")
    assert main(["mail", "list", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"guerrillad: guerrilla.json: {error}")


# mail list.


# mail list.


def test_list_is_newest_first(capsys: pytest.CaptureFixture[str]) -> None:
    store(
        envelope(b"Subject: one\r\n\r\n", received_at=60.0),
        envelope(b"Subject: two\r\n\r\n", "a@example.com", received_at=120.0),
    )
    assert main(["mail", "list", "--db", "mail.db"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "RECEIVED", "(UTC)", "SIZE", "FROM", "TO", "SUBJECT"]
    assert [line.split() for line in lines] == [
        ["2", "1970-01-01", "00:02:00", "16", "from@example.org", "a@example.com", "two"],
        ["1", "1970-01-01", "00:01:00", "16", "from@example.org", "to@example.com", "one"],
    ]
    assert main(["mail", "list", "--db", "mail.db", "--limit", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    one = envelope(b"Subject: \x1b[2J\x7f\r\n\r\n", received_at=60.0)
    store(one)
    assert main(["mail", "list", "--db", "mail.db", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {
        "mail_id": 1,
        "queued_id": one.queued_id,
        "date": "1970-01-01 00:01:00",
        "from": "from@example.org",
        "to": "to@example.com",
        "subject": one.subject,
        "size": one.size,
        "hash": "",
    }


def test_list_gives_a_terminal_no_controls(capsys: pytest.CaptureFixture[str]) -> None:
    store(envelope("Subject: a\x1b[2Jb\u202ec\x9bd ü\r\n\r\n".encode()))
    assert main(["mail", "list", "--db", "mail.db"]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert line.endswith(r"a\x1b[2Jb\u202ec\x9bd ü")


# mail show.


def test_show_gives_every_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    data = b"Subject: x\r\n\r\n" + bytes(range(256))
    one = envelope(data)
    one.compute_hashes()
    store(one)
    for name in ("1", one.queued_id, one.hashes[0]):
        for option in ([], ["--raw"]):
            assert main(["mail", "show", "--db", "mail.db", name, *option]) == 0
            assert capfdbinary.readouterr().out == data


def test_show_headers(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    store(envelope())
    assert main(["mail", "show", "--db", "mail.db", "1", "--headers"]) == 0
    assert capfdbinary.readouterr().out == b"Subject: hello\r\n\r\n"


def test_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    store(envelope())
    assert main(["mail", "show", "--db", "mail.db", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert base64.b64decode(shown["message"]) == PLAIN
    assert shown["headers"] == [["Subject", "hello"]]
    assert shown["mail_id"] == 1


def test_show_names_the_other_copies(capfd: pytest.CaptureFixture[str]) -> None:
    one = envelope(PLAIN, "a@example.com", "b@example.com", "c@example.com")
    store(one)
    assert main(["mail", "show", "--db", "mail.db", one.queued_id]) == 0
    said = capfd.readouterr()
    assert said.out.encode() == PLAIN
    assert said.err == "guerrillad: the copies for other recipients are 2, 3\n"


def test_show_gives_a_terminal_no_controls() -> None:
    store(envelope(b"Subject: x\r\n\r\nred \x1b[31m\ttab \xff\r\n"))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "guerrilla", "mail", "show", "--db", "mail.db", "1"]
    status = subprocess.run(command, stdout=theirs, check=False).returncode
    os.close(theirs)
    text = b""
    # At its end a terminal gives EIO.
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 4096):
            text += piece
    os.close(ours)
    assert status == 0
    assert b"red \\x1b[31m\ttab \\xff\r\n" in text
    assert b"\x1b" not in text


def test_show_of_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    store()
    assert main(["mail", "show", "--db", "mail.db", "7"]) == 1
    assert capsys.readouterr().err == (
        "guerrillad: no mail '7': expected a mail_id, a queued_id or a hash\n"
    )


# mail export.


def test_export_writes_a_file_a_mail(capsys: pytest.CaptureFixture[str]) -> None:
    one = envelope(PLAIN, "a@example.com", "b@example.com")
    store(one, envelope(b"Subject: other\r\n\r\n"))
    before = os.umask(0)
    assert main(["mail", "export", "--db", "mail.db", "out/deep"]) == 0
    os.umask(before)
    assert capsys.readouterr().out == "exported 3 to out/deep\n"
    files = sorted(Path("out/deep").iterdir())
    assert len(files) == 3
    assert Path(f"out/deep/{one.queued_id}-a@example.com.eml").read_bytes() == PLAIN
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_export_of_some(capsys: pytest.CaptureFixture[str]) -> None:
    old, new = envelope(received_at=60.0), envelope()
    store(old, new)
    base = ["mail", "export", "--db", "mail.db"]
    assert main([*base, "ids", old.queued_id, "1"]) == 0
    assert [file.name for file in Path("ids").iterdir()] == [f"{old.queued_id}-to@example.com.eml"]
    for since in ("1d", "2000-01-01", "2000-01-01 12:00:00", "2000-01-01T12:00:00+02:00"):
        assert main([*base, f"since-{since}", "--since", since]) == 0
        names = [file.name for file in Path(f"since-{since}").iterdir()]
        assert names == [f"{new.queued_id}-to@example.com.eml"]
    capsys.readouterr()
    assert main([*base, "missing", old.queued_id, "99"]) == 1
    assert "no mail '99'" in capsys.readouterr().err
    assert list(Path("missing").iterdir()) == []


def test_export_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    store(envelope(PLAIN, "a@example.com", "b@example.com"))
    base = ["mail", "export", "--db", "mail.db", "out", "--json"]
    counts = {"exported": 2, "already_there": 0, "not_overwritten": 0, "folder": "out"}
    assert main(base) == 0
    assert json.loads(capsys.readouterr().out) == counts
    assert main(base) == 0
    assert json.loads(capsys.readouterr().out) == counts | {"exported": 0, "already_there": 2}


def test_export_never_overwrites(capsys: pytest.CaptureFixture[str]) -> None:
    one = envelope()
    store(one)
    base = ["mail", "export", "--db", "mail.db", "out"]
    assert main(base) == 0
    assert main(base) == 0
    assert capsys.readouterr().out.endswith("exported 0 to out, 1 were there\n")
    file = Path(f"out/{one.queued_id}-to@example.com.eml")
    file.write_bytes(b"mine")
    assert main(base) == 0
    other = Path(f"out/{one.queued_id}-to@example.com-1.eml")
    assert other.read_bytes() == PLAIN
    other.write_bytes(b"mine too")
    assert main(base) == 1
    assert "is another file: not overwritten" in capsys.readouterr().err
    assert (file.read_bytes(), other.read_bytes()) == (b"mine", b"mine too")


def test_export_names_are_safe() -> None:
    one = envelope(PLAIN, '"../../x y"@example.com', '"../../x_y"@example.com')
    store(one)
    assert main(["mail", "export", "--db", "mail.db", "out/in"]) == 0
    files = [file.relative_to("out") for file in Path("out").rglob("*") if file.is_file()]
    assert len(files) == 2
    assert {file.parent for file in files} == {Path("in")}
    assert all(" " not in file.name and file.name.endswith(".eml") for file in files)


# mail purge.


def test_purge(capsys: pytest.CaptureFixture[str]) -> None:
    store(envelope(received_at=60.0), envelope(received_at=90.0), envelope())
    base = ["mail", "purge", "--db", "mail.db", "--older-than", "30d"]
    assert main([*base, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("2 mails would be purged: received before 2")
    assert main(base) == 0
    assert capsys.readouterr().out.startswith("2 mails purged: ")
    assert main(base) == 0
    assert capsys.readouterr().out.startswith("0 mails purged: ")
    assert main(["mail", "list", "--db", "mail.db"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_purge_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    store(envelope(received_at=60.0), envelope())
    base = ["mail", "purge", "--db", "mail.db", "--older-than", "30d", "--json"]
    for options, key in ((["--dry-run"], "would_be_purged"), ([], "purged")):
        assert main([*base, *options]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said.pop("older_than").startswith("2")
        assert said == {key: 1, "dry_run": bool(options)}
