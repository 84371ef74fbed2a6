"""`guerrillad spool`: of a daemon that runs, and of one that has stopped."""

from __future__ import annotations

import base64
import json
import os
import pty
import pwd
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from guerrilla.cli import main
from guerrilla.commands import spool
from guerrilla.commands.common import CommandError
from guerrilla.control.server import TIMEOUT
from tests.running import RunningDaemon
from tests.spools import Asked, deliver, kept, spooling
from tests.wire import until

COMMANDS = ("list", "show ID", "retry --all", "drop --all --yes", "replay --all")
CONFIG = "guerrilla.toml"

Say = Callable[..., list[str]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with spooling(tmp_path) as running:
        yield running


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command; what it printed, a line each. Its status has to be 0, or as given."""

    def run(command: str, *, status: int = 0) -> list[str]:
        capsys.readouterr()
        assert main(["spool", *command.split(), "-c", CONFIG]) == status
        found = capsys.readouterr()
        assert (found.out if status else found.err) == ""
        return (found.err if status else found.out).splitlines()

    return run


@pytest.fixture(params=["running", "stopped"])
def messages(request: pytest.FixtureRequest, daemon: RunningDaemon) -> tuple[str, str]:
    """The ids of one that waits for its next try, and of one that has failed."""
    later, never = deliver(daemon, "later", "never")
    with Asked(daemon) as ask:
        until(lambda: ask.states() == {later: "deferred", never: "failed"})
    if request.param == "stopped":
        daemon.stop()
    return later, never


@contextmanager
def going(daemon: RunningDaemon) -> Iterator[None]:
    """The daemon, or one in its place where it has stopped."""
    if daemon.process.returncode is None:
        yield
        return
    with RunningDaemon(daemon.folder, config=daemon.config_file.read_text()):
        yield


def entries(say: Say, options: str = "") -> list[dict[str, object]]:
    return [json.loads(line) for line in say(f"list --json {options}")]


def test_list(say: Say, messages: tuple[str, str]) -> None:
    later, never = messages
    head, line = say("list")
    assert re.sub(" +", " ", head) == "ID AGE SIZE TRIES NEXT STATE FROM TO ERROR"
    plain = re.sub(" +", " ", line)
    assert re.match(
        rf"{later} \d+s \d+ [1-9] (\d+s|now) deferred from@example.org to@example.com .*not now",
        plain,
    )
    assert line.index("from@") == head.index("FROM")
    assert line.index("to@") == head.index("TO")
    assert line.index("deferred") == head.index("STATE")
    _, line = say("list --failed")
    assert line.startswith(never)
    assert " failed " in line
    (entry,) = entries(say)
    assert (entry["id"], entry["state"], entry["to"]) == (later, "deferred", ["to@example.com"])
    assert [entry["id"] for entry in entries(say, "--failed")] == [never]
    assert [entry["id"] for entry in entries(say, "--backend default")] == [later]
    assert entries(say, "--backend other") == []


def test_show_tells_all_that_is_known(say: Say, messages: tuple[str, str]) -> None:
    for one, state, error in zip(
        messages, ("deferred", "failed"), ("not now", "not at all"), strict=True
    ):
        found = dict(line.split(maxsplit=1) for line in say(f"show {one}"))
        assert (found["id"], found["state"], found["backend"]) == (one, state, "default")
        assert found["mail_from"] == "from@example.org"
        assert found["rcpt_to"] == "to@example.com"
        assert found["helo"] == "client.example.org"
        assert error in found["error"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, \d+s ago", found["received"])
        (text,) = say(f"show {one} --json")
        record = json.loads(text)["record"]
        assert record["rcpt_to"][0]["host"] == "example.com"


def test_show_writes_a_message_byte_for_byte(
    daemon: RunningDaemon, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Those that are in files as well, with controls, by a daemon and without one."""
    bodies = [b"a\x1b\xff\x00b\r\n..dots", (b"\x80" * 900 + b"\r\n") * 700]
    ids = [deliver(daemon, "later", body=body)[0] for body in bodies]
    for _ in range(2):
        for one, body in zip(ids, bodies, strict=True):
            capfdbinary.readouterr()
            assert main(["spool", "show", "--message", one, "-c", CONFIG]) == 0
            sent = b"Subject: later\r\n\r\n" + body.replace(b"\r\n.", b"\r\n") + b"\r\n"
            assert capfdbinary.readouterr().out == sent
        daemon.stop()


def test_retry(say: Say, messages: tuple[str, str], daemon: RunningDaemon, tmp_path: Path) -> None:
    later, never = messages
    assert say(f"retry {never}", status=1) == [
        f"guerrillad: {never}: has failed: `spool replay` puts it back"
    ]
    (tmp_path / "open").touch()
    assert say(f"retry {later}") == ["1 message due now"]
    with going(daemon):
        until(lambda: kept(tmp_path) == [later])


def test_retry_of_all(
    say: Say, messages: tuple[str, str], daemon: RunningDaemon, tmp_path: Path
) -> None:
    (tmp_path / "open").touch()
    assert say("retry --all --json") == ['{"retried": 1}']
    with going(daemon):
        until(lambda: kept(tmp_path) == [messages[0]])


def test_drop(say: Say, messages: tuple[str, str]) -> None:
    later, never = messages
    for words, what in ((f"{later} {never}", "2 messages"), ("--all", "1 message")):
        assert say(f"drop {words}", status=1) == [
            f"guerrillad: {what} would be deleted for good: say --yes where that is meant"
        ]
    assert say(f"drop --yes {later} {'a' * 26}", status=1) == [
        f"guerrillad: {'a' * 26}: no such message in the spool"
    ]
    assert [entry["id"] for entry in entries(say)] == [later]  # nothing was done
    assert say(f"drop --yes {never} {later} {later}") == ["2 messages dropped"]
    assert entries(say) == entries(say, "--failed") == []
    assert say("drop --all") == ["0 messages dropped"]


@pytest.mark.usefixtures("messages")
def test_drop_of_all(say: Say) -> None:
    assert say("drop --yes --all --backend other --json") == ['{"dropped": 0}']
    assert say("drop --yes --all --json") == ['{"dropped": 1}']
    assert (len(entries(say)), len(entries(say, "--failed"))) == (0, 1)
    assert say("drop --yes --all --failed --json") == ['{"dropped": 1}']
    assert entries(say, "--failed") == []


def test_drop_at_a_terminal(daemon: RunningDaemon, say: Say) -> None:
    (later,) = deliver(daemon, "later")
    with Asked(daemon) as ask:
        until(lambda: ask.states() == {later: "deferred"})
    for answer, left in ((b"no\n", 1), (b"\n", 1), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        command = [sys.executable, "-m", "guerrilla", "spool", "drop", later, "-c", CONFIG]
        done = subprocess.run(
            command, stdin=theirs, capture_output=True, text=True, check=False, timeout=50
        )
        os.close(theirs)
        os.close(ours)
        assert done.stderr.startswith("delete 1 message for good? [y/N] ")
        assert (done.returncode, len(entries(say))) == (left, left)
        assert done.stderr.endswith("guerrillad: nothing was deleted\n") == bool(left)


def test_what_somebody_works_on_is_not_dropped(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (hang,) = deliver(daemon, "hang")
    with Asked(daemon) as ask:
        until(lambda: ask.states() == {hang: "in work"})
    capsys.readouterr()
    assert main(["spool", "drop", "--yes", hang, "-c", CONFIG]) == 1
    found = capsys.readouterr()
    assert found.out == "0 messages dropped\n"
    assert found.err == "guerrillad: 1 message not dropped: in work, or gone meanwhile\n"
    (tmp_path / "open").touch()
    until(lambda: kept(tmp_path) == [hang])


def test_what_is_damaged_can_only_be_looked_at_and_dropped(
    daemon: RunningDaemon, say: Say, tmp_path: Path
) -> None:
    (large,) = deliver(daemon, "later", body=b"x" * 300_000)
    with Asked(daemon) as ask:
        # A stop before its first try would leave it due, and not waiting for the next one.
        until(lambda: ask.states() == {large: "deferred"})
    daemon.stop()
    (body,) = (path for path in (tmp_path / "spool/0/bodies").rglob("*") if path.is_file())
    octets = bytearray(body.read_bytes())
    octets[1000] ^= 1
    body.write_bytes(octets)
    assert say(f"retry {large}") == ["1 message due now"]
    with going(daemon):
        until(
            lambda: (
                [entry["state"] for entry in entries(say, "--failed")] == ["damaged"]
                and entries(say) == []
            )
        )
        for command in ("retry", "replay"):
            assert say(f"{command} {large}", status=1) == [
                f"guerrillad: {large}: is damaged, so it cannot be tried again"
            ]
        assert say("replay --all") == ["0 messages in the spool again"]
        found = dict(line.split(maxsplit=1) for line in say(f"show {large}"))
        assert (found["state"], found["rcpt_to"]) == ("damaged", "to@example.com")
        assert say(f"drop --yes {large}") == ["1 message dropped"]
        assert entries(say, "--failed") == []


def test_replay(say: Say, messages: tuple[str, str], daemon: RunningDaemon, tmp_path: Path) -> None:
    later, never = messages
    assert say(f"replay {never} {later}", status=1) == [
        f"guerrillad: {later}: has not failed, so there is nothing to replay"
    ]
    assert say("replay --all --backend other") == ["0 messages in the spool again"]
    assert "first received" not in "\n".join(say(f"show {never}"))
    came = json.loads(say(f"show {never} --json")[0])["received_at"]
    (tmp_path / "open").touch()
    assert say("replay --all") == ["1 message in the spool again"]
    if daemon.process.returncode is not None:  # else it may have been kept by now
        first = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(came))
        assert f"first received     {first}" in say(f"show {never}")
    with going(daemon):
        until(lambda: never in kept(tmp_path))
        assert entries(say, "--failed") == []


def test_replay_says_what_is_not_back(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (never,) = deliver(daemon, "never")
    with Asked(daemon) as ask:
        until(lambda: ask.states() == {never: "failed"})
    # As where another command takes one between the question and the deed.
    monkeypatch.setattr(spool, "_chosen", lambda *_, **__: {never: True, "a" * 26: True})
    capsys.readouterr()
    assert main(["spool", "replay", "--all", "-c", CONFIG]) == 1
    found = capsys.readouterr()
    assert found.out == "1 message in the spool again\n"
    assert found.err == "guerrillad: 1 message not put back: gone meanwhile, or see the log\n"


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_one_whose_note_cannot_be_read_stops_no_others(
    state: str, daemon: RunningDaemon, say: Say, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad, fine = deliver(daemon, "never", "never")
    with Asked(daemon) as ask:
        until(lambda: ask.states() == {bad: "failed", fine: "failed"})
    note = tmp_path / f"spool/0/failed/{bad}.json"
    note.write_text("{")
    odd = note.with_name("a note.json")
    odd.write_text("{")
    if state == "stopped":
        daemon.stop()
    assert {one["id"]: one["state"] for one in entries(say, "--failed")} == {
        bad: "damaged",
        fine: "failed",
        "a note": "damaged",
    }
    found = dict(line.split(maxsplit=1) for line in say(f"show {bad}"))
    assert (found["state"], int(found["size"]) > 0) == ("damaged", True)
    assert found["error"].startswith(f"{note}: ")
    (tmp_path / "open").touch()
    assert say("replay --all") == ["1 message in the spool again"]
    assert say("drop --all --failed --yes") == ["1 message dropped"]
    assert [one["id"] for one in entries(say, "--failed")] == ["a note"]


def test_what_was_done_before_an_error_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(_: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(len(arguments["ids"]))
        if len(asked) == 3:
            raise CommandError("the spool is full")
        return {"count": len(arguments["ids"])}

    monkeypatch.setattr(spool, "opened", lambda _: nullcontext(ask))
    monkeypatch.setattr(spool, "_chosen", lambda *_, **__: {str(one): True for one in range(50)})
    assert main(["spool", "replay", "--all"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "guerrillad: stopped while replaying, at least 40 of 50 messages done",
        "guerrillad: the spool is full",
    ]


def test_nothing_that_a_socket_says_moves_the_cursor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may ask one that the daemon's user has made."""
    bad = "\x1b[2J"
    entry: dict[str, Any] = {
        "id": bad,
        "state": bad,
        "size": bad,
        "attempts": bad,
        "backend": bad,
        "from": bad,
    }
    entry |= {"error": bad, "to": [bad], "recipients": 1, "received_at": 0, "next_at": None}
    record = json.dumps({bad: bad}).encode()
    answers = {
        "spool-list": {"entries": [entry], "next": None},
        "spool-show": {"entry": entry, "record_size": len(record)},
        "spool-read": {"data": base64.b64encode(record).decode(), "next": None},
    }
    monkeypatch.setattr(spool, "opened", lambda _: nullcontext(lambda name, _: answers[name]))
    for command in ("list", "show a"):
        assert main(["spool", *command.split()]) == 0
        said = capsys.readouterr().out
        assert r"\x1b[2J" in said
        assert said.replace("\n", "").isprintable()


@pytest.mark.timeout(400)
def test_many_are_done_in_pages(daemon: RunningDaemon, say: Say, tmp_path: Path) -> None:
    ids = deliver(daemon, *["later"] * 1_100)
    assert [entry["id"] for entry in entries(say)] == ids
    daemon.stop()
    assert [entry["id"] for entry in entries(say)] == ids
    assert say("drop --all --yes") == ["1100 messages dropped"]
    assert entries(say) == []


def test_a_list_may_be_read_as_slowly_as_one_likes(daemon: RunningDaemon) -> None:
    """The daemon hangs up where nothing is asked for ten seconds, and a pipe is soon full."""
    ids = deliver(daemon, *["later"] * 600)
    command = [sys.executable, "-m", "guerrilla", "spool", "list", "--json", "-c", CONFIG]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, bufsize=0) as listing:
        assert listing.stdout is not None
        first = listing.stdout.readline()
        time.sleep(TIMEOUT + 1)
        rest, error = listing.communicate(timeout=50)
    assert (listing.returncode, error) == (0, b"")
    assert [json.loads(line)["id"] for line in (first + rest).splitlines()] == ids


@pytest.mark.parametrize("name", ["retry", "drop", "replay"])
def test_messages_have_to_be_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["a", "--all"]):
        with pytest.raises(SystemExit) as ended:
            main(["spool", name, *words])
        assert ended.value.code == 1
        assert capsys.readouterr().err == (
            f"guerrillad spool {name}: name messages, or all with --all; "
            f"see guerrillad spool {name} --help\n"
        )


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("drop --yes --failed", "--failed"),
        ("drop --yes --backend default", "--backend"),
        ("retry --backend default", "--backend"),
        ("replay --backend default", "--backend"),
    ],
)
def test_what_is_said_of_all_is_not_said_of_some(
    words: str, option: str, daemon: RunningDaemon, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restriction that is passed over would delete what it was to spare."""
    (later,) = deliver(daemon, "later")
    with pytest.raises(SystemExit) as ended:
        main(["spool", *words.split(), later, "-c", CONFIG])
    assert ended.value.code == 1
    assert f"{option} goes with --all: a message is found wherever it is" in capsys.readouterr().err
    assert [entry["id"] for entry in entries(say)] == [later]


# Where there is no spool, or none to be had


def test_a_daemon_without_a_spool(say: Say, tmp_path: Path) -> None:
    with RunningDaemon(tmp_path):
        for command in COMMANDS:
            assert say(command, status=1) == ["guerrillad: this daemon has no spool"]
    for command in COMMANDS:
        assert say(command, status=1) == [
            f"guerrillad: {CONFIG}: spool is not set, so there is no spool"
        ]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_config(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spool", *command.split()]) == 1
    error = capsys.readouterr().err
    assert error.endswith(": name one with -c, or the daemon's control socket with --socket\n")
    assert main(["spool", *command.split(), "--socket", "gone.sock"]) == 1
    error = capsys.readouterr().err
    path = Path("gone.sock").absolute()
    assert error == f"guerrillad: no daemon answers at {path}: is it running?\n"


def test_a_spool_that_is_not_there_yet(say: Say) -> None:
    """Looking for it does not make it."""
    Path(CONFIG).write_text('spool = { path = "spool" }', encoding="utf-8")
    where = Path(f"{CONFIG}.sock").absolute()
    assert say("list", status=1) == [
        f"guerrillad: spool: there is no spool yet, and no daemon answers at {where}"
    ]
    Path(CONFIG).write_text('spool = { path = "spool" }\ncontrol_socket = "off"', encoding="utf-8")
    assert say("list", status=1) == [
        "guerrillad: spool: there is no spool yet, and its control_socket is off"
    ]
    assert not Path("spool").exists()


def test_a_process_that_cannot_be_asked(say: Say, tmp_path: Path) -> None:
    with spooling(tmp_path, top='control_socket = "off"') as daemon:
        deliver(daemon, "later")
        for command in ("list", "retry --all", "drop --all --yes"):
            (error,) = say(command, status=1)
            assert error == (
                f"guerrillad: {tmp_path}/spool: a process has it, and its control_socket is off: "
                "stop it, or say where its socket is with --socket"
            )
    assert len(entries(say)) == 1


def test_what_a_start_would_have_logged_is_said(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """That mails are missing is said once, so a command that comes first is not to keep it."""
    (later,) = deliver(daemon, "later")
    daemon.stop()
    last = tmp_path / "spool/0/spool.last"
    last.write_text(f"{int(last.read_text()) + 3:020}\n")
    damaged = tmp_path / "spool/7"
    damaged.mkdir()
    (damaged / "spool.db").write_bytes(b"no database, and long enough to be read as one" * 99)
    said = []
    for _ in range(2):
        capsys.readouterr()
        assert main(["spool", "list", "--json", "-c", CONFIG]) == 0
        found = capsys.readouterr()
        assert json.loads(found.out)["id"] == later
        said.append(found.err)
    assert re.search(r"^guerrillad: .*up to 3 mails were committed and are missing", said[0])
    assert "are missing" not in said[1]
    for text in said:
        assert f"{damaged}/spool.db: " in text
        assert "its mails are not taken over yet" in text


def test_what_a_start_would_have_logged_is_said_where_it_fails(
    daemon: RunningDaemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    deliver(daemon, "later")
    daemon.stop()
    last = tmp_path / "spool/0/spool.last"
    last.write_text(f"{int(last.read_text()) + 1:020}\n")
    shelf = tmp_path / "spool/0/bodies/aa"
    shelf.touch()  # No folder, so it cannot be tidied.
    capsys.readouterr()
    assert main(["spool", "list", "-c", CONFIG]) == 1
    error = capsys.readouterr().err
    assert "are missing" in error
    assert "cannot be tidied" in error


@pytest.mark.parametrize("owned", [".", "0"])
def test_root_becomes_who_owns_it(owned: str, daemon: RunningDaemon, tmp_path: Path) -> None:
    """What it makes there would else be closed to the daemon. Not root, we own it all.

    The folder above those of processes may be root's.
    """
    (never,) = deliver(daemon, "never", body=b"x" * 300_000)
    with Asked(daemon) as ask:
        until(lambda: ask.states() == {never: "failed"})
    daemon.stop()
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    folder = tmp_path / "spool" / owned
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    if owned == "0":
        folder.parent.chmod(0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 1:
            parent.chmod(parent.stat().st_mode | 0o711)
    done = subprocess.run(
        [sys.executable, "-m", "guerrilla", "spool", "replay", never, "-c", CONFIG],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 message in the spool again\n", "")
    owners = {path.stat().st_uid for path in (folder, *folder.rglob("*"))}
    assert owners == {owner.pw_uid}


def test_a_folder_that_its_owner_may_not_enter(daemon: RunningDaemon, tmp_path: Path) -> None:
    """As of a unit with DynamicUser, whose folders systemd shows to it alone."""
    daemon.stop()
    folder = tmp_path / "spool"
    uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, -1)
    (tmp_path if os.geteuid() == 0 else folder).chmod(0o700 if os.geteuid() == 0 else 0)
    done = subprocess.run(
        [sys.executable, "-m", "guerrilla", "spool", "list", "-c", CONFIG],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    folder.chmod(0o700)
    assert done.returncode == 1
    assert f"(this is done as user {uid}, whose it is: of a unit see docs/deploy.md)" in done.stderr
