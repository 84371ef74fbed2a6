"""Chains and daemons that store in MariaDB and PostgreSQL: what a sender and an owner are told."""

from __future__ import annotations

import json
import re
import smtplib
import time
from pathlib import Path

import pytest

from guerrilla._core import Envelope, Reply
from guerrilla.cli import main
from guerrilla.engine.chain import build
from guerrilla.engine.registry import Registry
from guerrilla.errors import ConfigError, StartError
from tests.running import RunningDaemon
from tests.services.base import free_port
from tests.services.mariadb import MariaDB
from tests.services.sql import PASSWORD, Place

CHAIN = "HeadersParser|Hasher|Header|SQL"
LISTEN = 'listen_interface = "127.0.0.1:0"'
DATA = b"Subject: hello\r\n\r\nbody\r\n"


def keys(place: Place, **more: object) -> dict[str, object]:
    """Of `backend_config`."""
    dsn = {"sql_driver": place.driver, "sql_dsn": place.dsn()}
    return {"primary_mail_host": "mx.example.com", **dsn, **more}


def config(place: Place, folder: Path, chain: str = CHAIN, **more: object) -> Path:
    """A config file that stores there."""
    backend = {"save_process": chain, "save_workers_size": 2, **keys(place, **more)}
    server = {"listen_interface": "127.0.0.1:0", "host_name": "mx.example.com"}
    whole = {"allowed_hosts": ["example.com"], "servers": [server], "backend_config": backend}
    path = folder / "guerrilla.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


def envelope(data: bytes = DATA, *recipients: str) -> Envelope:
    return Envelope.create(
        data, mail_from="a@example.org", rcpt_to=recipients or ("b@example.com",)
    )


def test_chain_hashes_heads_and_stores(place: Place) -> None:
    one = envelope(DATA, "b@example.com", "c@example.com")
    with build(CHAIN, "save", keys(place), Registry()) as chain:
        chain.run([one])
    found = place.rows()
    assert [row["hash"] for row in found] == one.hashes
    assert [row["mail"] for row in found] == [one.bytes_for(0), one.bytes_for(1)]
    assert [b"Delivered-To: b@mx" in row["mail"] for row in found] == [True, False]
    assert [b"Delivered-To: c@mx" in row["mail"] for row in found] == [False, True]


def test_poison_in_a_batch_fails_alone(place: Place) -> None:
    good, poison, other = envelope(), envelope(), envelope()
    poison.hashes[:] = ["\ud800"]
    with build("SQL", "save", keys(place), Registry()) as chain:
        chain.run([good, poison, other])
    assert (good.answered, other.answered) == (None, None)
    assert isinstance(poison.answered, Reply)
    assert poison.answered.code == 451
    assert place.count() == 2


def test_mail_over_max_allowed_packet_is_552_and_only_that(mariadb: MariaDB) -> None:
    place = mariadb.fresh()
    small, large, other = envelope(), envelope(b"x" * 200_000), envelope()
    values = keys(place, sql_dsn=place.dsn(maxAllowedPacket="100000"))
    with build("MySQL", "save", values, Registry()) as chain:
        chain.run([small, large, other])
    assert large.answered == Reply(552, "5.3.4", "Message size exceeds what the storage takes")
    assert (small.answered, other.answered) == (None, None)
    assert place.count() == 2


def test_lost_server_is_451_for_the_batch_and_nothing_after(mortal: Place) -> None:
    batch = [envelope(), envelope()]
    with build("SQL", "save", keys(mortal), Registry()) as chain:
        mortal.server.kill()
        chain.run(batch)
        mortal.server.start()
        limit = time.monotonic() + 20
        while True:  # A connection that failed is not tried again at once.
            later = envelope()
            chain.run([later])
            if later.answered is None:
                break
            assert time.monotonic() < limit, later.answered
    assert [str(one.answered)[:9] for one in batch] == ["451 4.3.0"] * 2
    assert mortal.count() == 1


def test_start_names_the_key_and_hides_the_password(place: Place) -> None:
    wrong = place.dsn().replace("mail:", "mail:x", 1)
    chain = build("SQL", "save", keys(place, sql_dsn=wrong), Registry())
    with pytest.raises(ConfigError) as error:
        chain.open()
    assert str(error.value).startswith("backend_config.sql_dsn: ")
    assert "refuses the user or password" in str(error.value)
    assert PASSWORD not in str(error.value)


def test_a_server_that_is_away_is_no_fault_of_the_config(place: Place) -> None:
    away = place.dsn().replace(str(place.server.port), str(free_port()), 1)
    chain = build("SQL", "save", keys(place, sql_dsn=away), Registry())
    with pytest.raises(StartError, match=r"^backend_config.sql_dsn: .*(refused|reach|connect)"):
        chain.open()


def test_check_connects_and_tells(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config(place, tmp_path)
    assert main(["check", "-c", str(file), "--connect"]) == 0
    assert PASSWORD not in capsys.readouterr().out
    place.query("ALTER TABLE new_mail DROP COLUMN hash")
    assert main(["check", "-c", str(file), "--connect"]) == 1
    said = capsys.readouterr()
    assert "backend_config.mail_table: the table new_mail in " in said.err
    assert "has no column hash" in said.err
    file = config(place, tmp_path, sql_insert="INSERT INTO nowhere (a) VALUES")
    assert main(["check", "-c", str(file), "--connect"]) == 1
    assert "backend_config.sql_insert: " in capsys.readouterr().err


def test_daemon_says_where_and_stores_there(place: Place, tmp_path: Path) -> None:
    text = config(place, tmp_path).read_text()
    with RunningDaemon(tmp_path, config=as_toml(text)) as daemon:
        (line,) = [line for line in daemon.printed if line.startswith("  stored in")]
        assert place.database in line
        assert "***" in line
        assert "p@ss" not in line
        assert str(tmp_path) not in line
        with smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client:
            client.sendmail("a@example.org", ["b@example.com"], DATA)
    (row,) = place.rows()
    assert row["mail"].endswith(DATA)


def as_toml(text: str) -> str:
    """The config of `config` as TOML, whose strings are those of JSON."""
    whole = json.loads(text)
    lines = [f"allowed_hosts = {json.dumps(whole['allowed_hosts'])}", "[[servers]]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in whole["servers"][0].items()]
    lines.append("[backend_config]")
    backend = whole["backend_config"].items()
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in backend)])


def test_example_of_the_page_runs(place: Place, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "processors" / "sql.md").read_text("utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page[page.index("\n## Example") :], re.DOTALL)
    driver = "MySQL" if place.driver == "mysql" else '"postgresql"'
    (text,) = [block for block in blocks if driver in block]
    dsn = json.dumps(place.dsn())
    text = re.sub(r"(?m)^sql_dsn = .*$", lambda _: f"sql_dsn = {dsn}", text)
    with (
        RunningDaemon(tmp_path, config=f"{text}\n[[servers]]\n{LISTEN}\n") as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        client.sendmail("a@example.org", ["b@example.com"], DATA)
    (row,) = place.rows()
    assert row["subject"] == "hello"


def test_mail_commands_say_that_they_read_sqlite_alone(
    mariadb: MariaDB, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = mariadb.fresh()
    file = config(place, tmp_path, "MySQL")
    assert main(["mail", "list", "-c", str(file)]) == 1
    assert "sql_driver 'mysql': only 'sqlite' can be read" in capsys.readouterr().err
