"""Logging in at a daemon that runs: who may, what that allows, and what becomes of failures."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import smtplib
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from guerrilla._core import Credentials, Reply, Transaction
from guerrilla.cli import main
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.reply import AUTHENTICATED
from guerrilla.testing import GuerrillaServer
from tests.certificates import self_signed
from tests.daemons import Keeper, Make, Until, config, connect, where
from tests.passwords import SECRET, quick_argon2, quick_bcrypt, write_users
from tests.reloads import changed, reload, shows
from tests.running import RunningDaemon
from tests.wire import HELLO, Wire

EXAMPLE = Path(__file__).parent.parent / "examples" / "auth.toml"

OPEN: dict[str, Any] = {"allow_plaintext": True, "failure_delay": 0, "max_failures": 0}
"""AUTH of a server on this machine, whose clients make mistakes on purpose."""


def plain(user: str, password: str, acts_as: str = "") -> bytes:
    return base64.b64encode(f"{acts_as}\0{user}\0{password}".encode())


def log_in(wire: Wire, user: str, password: str = SECRET, acts_as: str = "") -> str:
    return wire.ask(b"AUTH PLAIN %s\r\n" % plain(user, password, acts_as))


def logged_in(daemon: Daemon, user: str, password: str = SECRET) -> str:
    """What a client of its own hears."""
    with connect(daemon) as wire:
        wire.ask(HELLO)
        return log_in(wire, user, password)


def closed(auth_process: str = "AuthFile", **backend: Any) -> dict[str, Any]:
    """The config of a closed intake."""
    raw = config(auth_process=auth_process, **backend)
    raw["servers"][0]["auth"] = {**OPEN, "required": True, "relay": True}
    return raw


@pytest.fixture
def users(tmp_path: Path) -> Path:
    other = quick_argon2("caf\u00e9 au lait")
    return write_users(tmp_path / "users", f"alice:{quick_bcrypt()}", f"b\u00f6b:{other}")


# A closed intake


def test_only_who_has_logged_in_sends_and_then_to_anybody(
    make: Make, keeper: type[Keeper], users: Path
) -> None:
    with make(closed(auth_file=str(users))) as daemon, connect(daemon) as wire:
        wire.send(HELLO)
        assert any(line[4:].startswith("AUTH ") for line in wire.lines())
        assert wire.ask(b"MAIL FROM:<a@example.org>\r\n").startswith("530 5.7.0 ")
        assert log_in(wire, "alice", "wrong").startswith("535 5.7.8 ")
        assert log_in(wire, "mallory").startswith("535 5.7.8 ")
        assert log_in(wire, "alice", acts_as="b\u00f6b").startswith("535 5.7.8 ")
        assert wire.ask(b"MAIL FROM:<a@example.org>\r\n").startswith("530 5.7.0 ")
        assert log_in(wire, "alice") == "235 2.7.0 Authentication successful"
        assert wire.ask(b"MAIL FROM:<a@example.org>\r\n").startswith("250 ")
        assert wire.ask(b"RCPT TO:<b@elsewhere.example>\r\n").startswith("250 ")
        assert wire.ask(b"DATA\r\n").startswith("354 ")
        assert wire.ask(b"Subject: hello\r\n\r\nbody\r\n.\r\n").startswith("250 ")
    (envelope,) = keeper.envelopes
    assert envelope.auth == "alice"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_smtplib_logs_in_by_either_mechanism(
    mechanism: str, make: Make, keeper: type[Keeper], users: Path
) -> None:
    with make(closed(auth_file=str(users))) as daemon, smtplib.SMTP(*where(daemon)) as client:
        client.ehlo()
        client.user, client.password = "alice", SECRET
        asked = client.auth_plain if mechanism == "PLAIN" else client.auth_login
        assert client.auth(mechanism, asked)[0] == 235
        client.sendmail("a@example.org", ["b@elsewhere.example"], "Subject: hello\r\n\r\nbody\r\n")
    assert [envelope.auth for envelope in keeper.envelopes] == ["alice"]


def test_names_and_passwords_are_of_any_script(make: Make, users: Path) -> None:
    with make(closed(auth_file=str(users))) as daemon:
        assert logged_in(daemon, "b\u00f6b", "caf\u00e9 au lait").startswith("235 ")
        assert logged_in(daemon, "bo\u0308b", "cafe\u0301 au lait").startswith("235 ")
        assert logged_in(daemon, "b\u00f6b", "cafe au lait").startswith("535 ")


def test_it_is_offered_within_tls_alone(make: Make, users: Path, tmp_path: Path) -> None:
    pair = self_signed(tmp_path, "localhost", "mx.example.com")
    raw = closed(auth_file=str(users))
    raw["servers"][0] |= {"auth": {"required": True}, "tls": pair.section()}
    trusting = ssl.create_default_context(cafile=pair.certificate)
    with make(raw) as daemon:
        _, port = where(daemon)
        with smtplib.SMTP("localhost", port, timeout=30) as client:
            client.ehlo()
            assert not client.has_extn("auth")
            assert client.docmd("AUTH", f"PLAIN {plain('alice', SECRET).decode()}")[0] == 538
            client.starttls(context=trusting)
            assert client.login("alice", SECRET)[0] == 235
            client.sendmail("a@example.org", ["b@example.com"], "Subject: hello\r\n\r\nbody\r\n")


def test_the_example_is_what_its_commands_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is stored, logged and counted has nobody's password."""
    monkeypatch.chdir(tmp_path)
    text = EXAMPLE.read_text(encoding="utf-8")
    cert, password, _, send = re.findall(r"^#   guerrillad (.*)$", text, re.MULTILINE)
    assert main(shlex.split(cert)) == 0
    command = [sys.executable, "-m", "guerrilla", *shlex.split(password)]
    subprocess.run(command, input=SECRET, text=True, check=True, timeout=60)
    text = text.replace("127.0.0.1:2525", "127.0.0.1:0").replace('"info"', '"debug"')
    trusted = tomllib.loads(text)["servers"][0]["tls"]["public_key_file"]
    with RunningDaemon(tmp_path, config=text, options=["-v"]) as daemon:
        with smtplib.SMTP("localhost", daemon.port, timeout=30) as client:
            client.starttls(context=ssl.create_default_context(cafile=trusted))
            with pytest.raises(smtplib.SMTPSenderRefused):
                client.sendmail("a@example.com", ["b@example.org"], "Subject: no\r\n\r\n")
            client.rset()
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                client.login("alice", f"not {SECRET}")
            assert refused.value.smtp_code == 535
            client.login("alice", SECRET)
            client.sendmail("a@example.com", ["b@example.org"], "Subject: hello\r\n\r\nbody\r\n")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SECRET.encode())))
        assert main(shlex.split(send.replace(":2525", f":{daemon.port}"))) == 0
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SECRET.encode())))
        shown = daemon.printed[-2].partition(" -m guerrilla ")[2].replace("NAME", "alice")
        assert main(shlex.split(shown)) == 0
        capsys.readouterr()
        socket = f"{daemon.config_file}.sock"
        assert main(["stats", "--json", "--socket", socket]) == 0
        stats = json.loads(capsys.readouterr().out)
        assert main(["status", "--json", "--socket", socket]) == 0
        status = json.loads(capsys.readouterr().out)
        rows = daemon.rows()
    test_message = "A test message of guerrillad send"
    assert [row["subject"] for row in rows] == ["hello", test_message, test_message]
    (stage,) = [stage for stage in stats["stages"] if stage["task"] == "authenticate"]
    assert (stage["stage"], stage["errors"]) == ("AuthFile", 0)
    assert stage["count"] >= 2
    assert stats["authenticate_workers"] == 2
    assert status["backends"]["default"]["auth_process"] == "AuthFile"
    for out in (daemon.log_text(), json.dumps([stats, status]), repr(rows)):
        for form in (SECRET, plain("alice", SECRET).decode(), SECRET.encode().hex()):
            assert form not in out
        assert base64.b64encode(SECRET.encode()).decode() not in out


# The file


def test_who_is_put_into_the_file_can_log_in_and_who_is_taken_out_cannot(
    make: Make, users: Path
) -> None:
    with make(closed(auth_file=str(users))) as daemon, connect(daemon) as stays:
        stays.ask(HELLO)
        assert log_in(stays, "alice").startswith("235 ")
        assert logged_in(daemon, "carol").startswith("535 ")
        write_users(users, f"carol:{quick_bcrypt()}")
        assert logged_in(daemon, "carol").startswith("235 ")
        assert logged_in(daemon, "alice").startswith("535 ")
        write_users(users, f"carol:{quick_bcrypt()}", "dave:hunter2")
        assert logged_in(daemon, "carol").startswith("235 ")
        write_users(users)
        assert logged_in(daemon, "carol").startswith("454 4.7.0 ")
        # Who has logged in stays so.
        assert stays.ask(b"MAIL FROM:<a@example.org>\r\n").startswith("250 ")


# Failures


class Door(Processor):
    """Does what the name of the user says."""

    release: ClassVar[threading.Event]
    hanging: ClassVar[threading.Semaphore]

    def authenticate(self, transaction: Transaction, credentials: Credentials) -> Reply | None:
        match credentials.username:
            case "hang":
                self.hanging.release()
                self.release.wait(60)
            case "raise":
                raise ValueError(f"library says: {credentials!r} {credentials.password}")
            case "exit":
                raise SystemExit(credentials.password)
            case "full":
                return Reply(454, "4.7.0", "Come back")
            case "pass":
                return None
        return AUTHENTICATED


@pytest.fixture
def door() -> Iterator[type[Door]]:
    Door.release, Door.hanging = threading.Event(), threading.Semaphore(0)
    yield Door
    Door.release.set()


def with_door(make: Make, door: type[Door], **backend: Any) -> Daemon:
    daemon = make(closed("Door", **backend))
    daemon.add_processor("Door", door)
    return daemon


def test_what_a_stage_does_is_what_the_client_hears(
    make: Make, door: type[Door], until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    with with_door(make, door) as daemon:
        for user, reply in (
            ("raise", "454 4.7.0 Temporary authentication failure"),
            ("exit", "454 4.7.0 Temporary authentication failure"),
            ("full", "454 4.7.0 Come back"),
            ("pass", "535 5.7.8 Authentication credentials invalid"),
            ("joe", "235 2.7.0 Authentication successful"),
        ):
            assert logged_in(daemon, user) == reply
        until(lambda: daemon.stats()["authenticate_workers_replaced"] == 1)
    assert SECRET not in caplog.text
    assert "ValueError with a secret in it" in caplog.text


def test_one_that_hangs_is_454_and_its_worker_is_replaced(
    make: Make, door: type[Door], until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """Mail goes on meanwhile, from who has logged in before and where nobody has to."""
    with with_door(make, door, gw_auth_timeout=2, auth_workers_size=1) as daemon:
        with connect(daemon) as before:
            before.ask(HELLO)
            assert log_in(before, "joe").startswith("235 ")
            assert logged_in(daemon, "hang") == "454 4.7.0 Temporary authentication failure"
            until(lambda: daemon.stats()["authenticate_workers_abandoned"] == 1)
            assert before.ask(b"MAIL FROM:<a@example.org>\r\n").startswith("250 ")
            assert logged_in(daemon, "joe").startswith("235 ")
            # Over so many nobody can log in, and mail is taken all the same.
            for hung in range(2, 6):
                assert logged_in(daemon, "hang").startswith("454 4.7.0 ")
                until(lambda n=hung: daemon.stats()["authenticate_workers_abandoned"] == n)  # type: ignore[misc]
            until(lambda: "no login is taken" in caplog.text)
            assert logged_in(daemon, "joe").startswith("454 4.7.0 ")
            assert before.ask(b"RCPT TO:<b@example.com>\r\n").startswith("250 ")
            assert before.ask(b"DATA\r\n").startswith("354 ")
            assert before.ask(b"Subject: hello\r\n\r\n.\r\n").startswith("250 ")
        door.release.set()
        until(lambda: "login is taken again" in caplog.text)
        assert logged_in(daemon, "joe").startswith("235 ")
    assert SECRET not in caplog.text


@pytest.mark.parametrize("cost", [4, 6])
def test_a_hundred_at_a_time(cost: int, make: Make, tmp_path: Path) -> None:
    """Half of them with a wrong password; each hears of its own."""
    hashes = [f"user{index}:{quick_bcrypt(f'secret{index}', cost=cost)}" for index in range(100)]
    path = write_users(tmp_path / "users", *hashes)

    def one(index: int) -> str:
        wrong = "x" * (index % 2)
        return logged_in(daemon, f"user{index}", f"secret{index}{wrong}")[:3]

    with make(closed(auth_file=str(path), gw_auth_timeout=60)) as daemon:
        with ThreadPoolExecutor(100) as pool:
            codes = list(pool.map(one, range(100)))
        (stage,) = [one for one in daemon.stats()["stages"] if one["task"] == "authenticate"]
    assert codes == ["235", "535"] * 50
    assert (stage["count"], stage["errors"], stage["calls"]) == (100, 0, 100)


def test_workers_check_side_by_side(make: Make, door: type[Door]) -> None:
    """So a login that takes long keeps no other waiting, as long as there is another worker."""
    with with_door(make, door, auth_workers_size=2) as daemon, connect(daemon) as slow:
        slow.ask(HELLO)
        slow.send(b"AUTH PLAIN %s\r\n" % plain("hang", SECRET))
        assert door.hanging.acquire(timeout=30)
        assert logged_in(daemon, "joe").startswith("235 ")
        door.release.set()
        assert slow.reply().startswith("235 ")


# Reloads


@contextmanager
def reloading(make: Make, door: type[Door]) -> Iterator[Daemon]:
    raw = config()
    raw["servers"][0]["auth"] = OPEN
    daemon = make(raw)
    daemon.add_processor("Door", door)
    with daemon:
        yield daemon


def with_auth(**backend: Any) -> Any:
    def edit(raw: dict[str, Any]) -> None:
        raw["servers"][0]["auth"] = OPEN
        raw["backend_config"] |= backend

    return changed(edit)


@shows("at once", "backend_config.auth_process")
def test_auth_is_turned_on_and_off(make: Make, door: type[Door], users: Path) -> None:
    """For sessions that are open too; one that has logged in stays so."""
    with reloading(make, door) as daemon, connect(daemon) as wire:
        wire.ask(HELLO)
        assert log_in(wire, "joe").startswith("500 ")
        reload(daemon, with_auth(auth_process="Door"))
        assert log_in(wire, "pass").startswith("535 ")
        reload(daemon, with_auth(auth_process="AuthFile|Door", auth_file=str(users)))
        assert log_in(wire, "alice", "wrong").startswith("535 ")
        assert log_in(wire, "joe").startswith("235 ")
        reload(daemon, with_auth())
        assert logged_in(daemon, "joe").startswith("500 ")
        assert wire.ask(b"MAIL FROM:<a@example.org>\r\n").startswith("250 ")


def test_a_login_that_had_begun_is_answered(make: Make, door: type[Door]) -> None:
    """By the chain that has it, also where the new config has none."""
    with reloading(make, door) as daemon, connect(daemon) as wire:
        reload(daemon, with_auth(auth_process="Door"))
        wire.ask(HELLO)
        wire.send(b"AUTH PLAIN %s\r\n" % plain("hang", SECRET))
        assert door.hanging.acquire(timeout=30)
        reload(daemon, with_auth())
        door.release.set()
        assert wire.reply().startswith("235 ")


def test_a_chain_that_does_not_open_leaves_the_old_one(
    make: Make, door: type[Door], users: Path
) -> None:
    with reloading(make, door) as daemon:
        reload(daemon, with_auth(auth_process="AuthFile", auth_file=str(users)))
        bad = write_users(users.with_name("bad"), "alice:hunter2")
        report = daemon.reload_config(with_auth(auth_process="AuthFile", auth_file=str(bad)))
        (failure,) = report.failures
        assert failure.startswith(f"backend_config.auth_file: {bad}: line 1: ")
        assert logged_in(daemon, "alice").startswith("235 ")


@shows("at once", "backend_config.auth_workers_size")
def test_more_workers(make: Make, door: type[Door], until: Until) -> None:
    with reloading(make, door) as daemon:
        for size in (1, 3):
            reload(daemon, with_auth(auth_process="Door", auth_workers_size=size))
            assert daemon.stats()["authenticate_workers"] == size


@shows("at once", "backend_config.gw_auth_timeout")
def test_another_time_limit(make: Make, door: type[Door]) -> None:
    """For the next login of a session that is open."""
    with reloading(make, door) as daemon, connect(daemon) as wire:
        reload(daemon, with_auth(auth_process="Door", gw_auth_timeout=60))
        wire.ask(HELLO)
        assert log_in(wire, "pass").startswith("535 ")
        shorter = {"gw_auth_timeout": 0.1, "gw_val_rcpt_timeout": 600}
        reload(daemon, with_auth(auth_process="Door", **shorter))
        assert log_in(wire, "hang").startswith("454 4.7.0 ")
        door.release.set()  # else the stop would wait for it


# The server for tests of others


def test_a_server_for_tests_lets_its_users_in() -> None:
    required = {"auth": {"required": True}}
    with (
        GuerrillaServer(users={"joe": SECRET}, server=required) as server,
        smtplib.SMTP(server.host, server.port, timeout=30) as client,
    ):
        with pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail("a@example.org", ["b@example.com"], "Subject: no\r\n\r\n")
        client.rset()
        client.login("joe", SECRET)
        client.sendmail("a@example.org", ["b@example.com"], "Subject: hello\r\n\r\n")
        assert [envelope.auth for envelope in server.wait_for(1)] == ["joe"]
    with (
        GuerrillaServer(users={}) as server,
        smtplib.SMTP(server.host, server.port, timeout=30) as client,
        pytest.raises(smtplib.SMTPAuthenticationError),
    ):
        client.login("joe", SECRET)
