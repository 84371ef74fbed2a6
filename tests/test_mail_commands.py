"""`guerrillad mail` beside the daemon that fills the database."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from guerrilla.cli import main
from tests.corpora import as_sent, corpus
from tests.running import RunningDaemon


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A running daemon that has stored the corpus."""
    with RunningDaemon(tmp_path) as daemon:
        send(daemon, [path.read_bytes() for path in corpus()])
        yield daemon


def send(daemon: RunningDaemon, raws: list[bytes]) -> None:
    """Sends each to `NUMBER@example.com`."""
    with smtplib.SMTP("127.0.0.1", daemon.port, "client.example.org", timeout=30) as client:
        for number, raw in enumerate(raws):
            client.sendmail("from@example.org", f"{number}@example.com", as_sent(raw))


def run(daemon: RunningDaemon, command: str, *more: str) -> int:
    return main(["mail", command, "-c", str(daemon.config_file), *more])


def test_list(filled: RunningDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    rows = filled.rows()[::-1]
    assert len(rows) == len(corpus())
    assert run(filled, "list", "--json") == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    same = ("mail_id", "queued_id", "date", "from", "subject", "hash")
    for one, row in zip(listed, rows, strict=True):
        other = {"to": row["recipient"], "size": len(row["mail"])}
        assert one == {name: row[name] for name in same} | other
    assert run(filled, "list") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [int(line.split()[0]) for line in lines] == [row["mail_id"] for row in rows]
    assert all(line.isprintable() for line in lines)


def test_show(filled: RunningDaemon, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for row in filled.rows():
        assert run(filled, "show", row["queued_id"]) == 0
        assert capfdbinary.readouterr().out == row["mail"]


def test_export(filled: RunningDaemon, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(filled, "export", str(out)) == 0
    files = {path.name.partition("-")[2]: path.read_bytes() for path in out.iterdir()}
    assert len(files) == len(corpus())
    for number, path in enumerate(corpus()):
        exported = files[f"{number}@example.com.eml"]
        assert exported.endswith(b"\r\n" + as_sent(path.read_bytes())), path.name
        assert exported.startswith(f"Delivered-To: {number}@".encode())
    assert sorted(files.values()) == sorted(row["mail"] for row in filled.rows())


def test_purge(filled: RunningDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(filled, "purge", "--older-than", "1d") == 0
    assert capsys.readouterr().out.startswith("0 mails purged: ")
    connection = apsw.Connection(str(filled.db))
    connection.set_busy_timeout(5_000)
    connection.execute("UPDATE new_mail SET date = '2020-01-01 00:00:00' WHERE mail_id % 2 = 0")
    connection.close()
    before = filled.rows()
    assert run(filled, "purge", "--older-than", "1d") == 0
    assert capsys.readouterr().out.startswith(f"{len(before) // 2} mails purged: ")
    assert filled.rows() == [row for row in before if row["mail_id"] % 2]
    send(filled, [b"Subject: still there\r\n\r\n"])
    assert filled.rows()[-1]["subject"] == "still there"
