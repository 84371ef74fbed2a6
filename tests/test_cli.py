"""The command line: what each command prints, its exit status, and its errors."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pty
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from guerrilla import __version__
from guerrilla._core import Envelope
from guerrilla.cli import main
from guerrilla.store import rows_of, sqlite
from tests.running import RunningDaemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLES = Path(__file__).parent.parent / "examples"
PLAIN = b"Subject: hello\r\n\r\nbody\r\n"


def until(condition: Callable[[], bool]) -> None:
    """Waits for another process or thread; fails instead of hanging."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that no config of the machine is found, and no signal handler outlives its test."""
    monkeypatch.chdir(tmp_path)
    numbers = (*(getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "QUIT", "HUP", "USR1")),)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def store(*envelopes: Envelope, database: str = "mail.db", table: str = "new_mail") -> None:
    opened = sqlite.connect(database, table)
    for one in envelopes:
        opened.insert(rows_of(one, "mx.example.com"))
    opened.close()


def envelope(data: bytes = PLAIN, *recipients: str, **more: Any) -> Envelope:
    return Envelope.create(
        data, mail_from="from@example.org", rcpt_to=recipients or ("to@example.com",), **more
    )


# All commands.


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"guerrillad {__version__} (")


@pytest.mark.parametrize(
    "command",
    ["", "serve", "version", "send", "mail", "mail list", "mail show", "mail export", "mail purge"],
)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: guerrillad {command}".rstrip())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mail"],
        ["nonsense"],
        ["mail", "list", "--limit", "0"],
        ["mail", "list", "--table", "a b"],
        ["mail", "purge"],
        ["mail", "purge", "--older-than", "soon"],
        ["mail", "show", "1", "--raw", "--json"],
        ["mail", "export", "out", "--since", "yore"],
        ["send", "file.eml"],
        ["send", "--to", "no address"],
        ["send", "--to", "a@example.com\r\nDATA"],
        ["send", "--to", "a@example.com", "--server", "nonsense"],
    ],
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "usage: guerrillad" in error
    assert "Traceback" not in error


def test_error_of_the_program_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("oh")

    monkeypatch.setattr("guerrilla.commands.mail.find_store", fail)
    assert main(["mail", "list"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "guerrillad: LookupError: oh",
        (
            "guerrillad: this is an error in guerrilla itself: "
            "run it again with -v and report what it prints"
        ),
    ]
    for arguments in (["-v", "mail", "list"], ["mail", "list", "-v"]):
        assert main(arguments) == 1
        assert "Traceback" in capsys.readouterr().err


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("guerrilla.commands.mail.find_store", interrupt)
    assert main(["mail", "list"]) == 130
    assert capsys.readouterr().err == ""


def test_reader_that_has_seen_enough() -> None:
    store(*(envelope() for _ in range(2000)))
    with subprocess.Popen(
        [sys.executable, "-m", "guerrilla", "mail", "list", "--db", "mail.db"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


# mail: which database.


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
        (config(save_process="HeadersParser|Debugger"), "save_process has no SQL stage"),
        (config(sql_driver="mysql"), "sql_driver 'mysql': only 'sqlite' can be read"),
        (config(sql_dsn=""), "sql_dsn: expected the path of the database file"),
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
    assert not Path("mail.db").exists()


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


# send: against a server that does as it is told.


class Conversation(socketserver.StreamRequestHandler):
    """Answers by the first word of each command; notes what it was given."""

    replies: ClassVar[dict[str, list[str]]] = {}
    given: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        self.say(self.reply("CONNECT", "220 ready"))
        while line := self.rfile.readline():
            self.given.append(line)
            verb = line.split()[0].decode().upper()
            reply = self.reply(verb, "250 2.0.0 OK")
            self.say(reply)
            if reply.startswith("354"):
                while (line := self.rfile.readline()) not in {b".\r\n", b""}:
                    self.given.append(line)
                self.say(self.reply(".", "250 2.0.0 OK: queued as ID"))
            if verb == "QUIT":
                return

    def reply(self, verb: str, default: str) -> str:
        waiting = self.replies.get(verb)
        if waiting:
            return waiting.pop(0)
        return "354 go on" if verb == "DATA" else default

    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@pytest.fixture
def peer() -> Iterator[str]:
    Conversation.replies.clear()
    Conversation.given.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_send_a_test_message(peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "--to", "you@example.com", "--server", peer, "--helo", "me"]) == 0
    assert capsys.readouterr().out == "test message: 250 2.0.0 OK: queued as ID\n"
    assert b"ehlo me\r\n" in Conversation.given
    assert b"rcpt TO:<you@example.com>\r\n" in Conversation.given
    assert b"To: <you@example.com>\r\n" in Conversation.given


def test_send_files_byte_for_byte_but_for_line_ends(
    peer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Conversation.replies["EHLO"] = ["250-x\r\n250-SIZE 100000\r\n250 8BITMIME"]
    Path("a.eml").write_bytes(b"Subject: a\n\n.dot\n\xff\rend")
    stdin = io.TextIOWrapper(io.BytesIO(b"Subject: b\r\n\r\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    arguments = ["--to", "a@example.com", "--to", "b@example.com", "--from", "<>"]
    assert main(["send", *arguments, "--server", peer, "a.eml", "-"]) == 0
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["a.eml", "-"]
    message = Conversation.given[Conversation.given.index(b"data\r\n") + 1 :][:5]
    assert message == [b"Subject: a\r\n", b"\r\n", b"..dot\r\n", b"\xff\r\n", b"end\r\n"]
    assert Conversation.given[1] == b"mail FROM:<> SIZE=26 BODY=8BITMIME\r\n"


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ({"MAIL": ["452 4.3.1 full"]}, ["test message: 452 4.3.1 full"]),
        (
            {"RCPT": ["550 5.1.1 no a", "550 5.1.1 no b"]},
            [
                "test message: a@example.com: 550 5.1.1 no a",
                "test message: b@example.com: 550 5.1.1 no b",
            ],
        ),
        (
            {"RCPT": ["550 5.1.1 no a"]},
            [
                "test message: a@example.com: 550 5.1.1 no a",
                "test message: 250 2.0.0 OK: queued as ID",
            ],
        ),
        ({"DATA": ["554 5.5.1 no"]}, ["test message: 554 5.5.1 no"]),
        ({".": ["451 4.3.0 \x1blater"]}, ["test message: 451 4.3.0 \\x1blater"]),
    ],
)
def test_send_says_what_was_refused(
    peer: str, replies: dict[str, list[str]], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Conversation.replies.update({verb: list(texts) for verb, texts in replies.items()})
    arguments = ["send", "--to", "a@example.com", "--to", "b@example.com", "--server", peer]
    assert main(arguments) == 1
    assert capsys.readouterr().out.splitlines() == said


def test_send_to_a_server_that_turns_away(peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    Conversation.replies["CONNECT"] = ["421 4.7.0 too many"]
    assert main(["send", "--to", "a@example.com", "--server", peer]) == 1
    assert capsys.readouterr().err == f"guerrillad: {peer}: 421 4.7.0 too many\n"


def test_send_over_a_unix_socket(capsys: pytest.CaptureFixture[str]) -> None:
    Conversation.replies.clear()
    path = Path("s.sock").absolute()
    with socketserver.ThreadingUnixStreamServer(os.fspath(path), Conversation) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        status = main(["send", "--to", "a@example.com", "--server", f"unix:{path}"])
        server.shutdown()
        thread.join()
    assert status == 0
    assert "queued as ID" in capsys.readouterr().out


def test_send_without_a_server_or_file(peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{unused.getsockname()[1]}"
        assert main(["send", "--to", "a@example.com", "--server", where]) == 1
    assert capsys.readouterr().err == (
        f"guerrillad: cannot reach {where}: Connection refused (is a server running there?)\n"
    )
    Path("a.eml").write_bytes(PLAIN)
    assert main(["send", "--to", "a@example.com", "--server", peer, "a.eml", "none.eml"]) == 1
    assert capsys.readouterr().err == "guerrillad: none.eml: No such file or directory\n"
    assert Conversation.given == []


# serve.


def test_quick_start_as_a_newcomer_sees_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / "quickstart.toml").read_text(encoding="utf-8")
    with RunningDaemon(tmp_path, config=text.replace(":2525", ":0")) as daemon:
        (address,) = daemon.addresses
        assert daemon.printed == [
            f"guerrilla {__version__}",
            f"  listening  {address}",
            "  hosts      any",
            "  chain      HeadersParser|Hasher|Header|SQL",
            f"  stored in  {tmp_path / 'mail.db'}, table new_mail",
            f"  try        guerrillad send --to you@example.com --server {address}",
            "  stop       Ctrl-C",
        ]
        assert main(["send", "--to", "you@example.com", "--server", address]) == 0
        sent = capsys.readouterr().out
        assert sent.startswith("test message: 250 2.0.0 OK: queued as ")
        assert main(["mail", "list"]) == 0
        assert "A test message of guerrillad send" in capsys.readouterr().out
        assert main(["mail", "show", sent.split()[-1], "--json"]) == 0
        message = base64.b64decode(json.loads(capsys.readouterr().out)["message"])
        assert message.startswith(b"Delivered-To: you@")
        assert message.endswith(b"\r\n\r\nIt arrived.\r\n")
        daemon.stop(signal.SIGINT)
    assert not Path("mail.db-wal").exists()


def test_example_of_a_processor_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(EXAMPLES / "processor.py", tmp_path)
    text = (EXAMPLES / "own-processor.toml").read_text(encoding="utf-8")
    Path("invoice.eml").write_bytes(b"Subject: your INVOICE\r\n\r\n")
    Path("letter.eml").write_bytes(b"Subject: a letter\r\n\r\n")
    with RunningDaemon(tmp_path, config=text.replace(":2525", ":0")) as daemon:
        to = ["--to", "you@example.com", "--server", daemon.addresses[0]]
        assert main(["send", *to, "invoice.eml", "letter.eml"]) == 1
        refused, accepted = capsys.readouterr().out.splitlines()
        assert refused == "invoice.eml: 550 5.7.1 no invoices here"
        assert accepted.startswith("letter.eml: 250 2.0.0 OK: queued as ")
        assert [row["subject"] for row in daemon.rows()] == ["a letter"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_signal_stops_it_gracefully(tmp_path: Path, name: str) -> None:
    with RunningDaemon(tmp_path) as daemon:
        daemon.stop(signal.Signals[name])
        assert f"{name}: stopping" in daemon.log_text()


STUCK = """
import threading, guerrilla

class Stuck(guerrilla.Processor):
    def save(self, envelope): return None
    def close(self): threading.Event().wait()

guerrilla.processor("Stuck")(Stuck)
"""


def test_second_signal_stops_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK, encoding="utf-8")
    daemon = RunningDaemon(tmp_path, chain="Stuck|SQL", backend='import = ["stuck"]')
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: "SIGTERM: stopping" in daemon.log_text())
    daemon.process.send_signal(signal.SIGTERM)
    status = daemon.process.wait(30)
    daemon.kill()
    assert status == 1
    assert "guerrillad: stopped at once" in daemon.log_text()


def test_hangup_warns_and_the_daemon_lives(tmp_path: Path) -> None:
    with RunningDaemon(tmp_path) as daemon:
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "SIGHUP: a running daemon cannot reload" in daemon.log_text())
        assert main(["send", "--to", "a@example.com", "--server", daemon.addresses[0]]) == 0


def test_usr1_reopens_the_log(tmp_path: Path) -> None:
    log = tmp_path / "main.log"
    with RunningDaemon(tmp_path, top=f'log_file = "{log}"') as daemon:
        log.rename(tmp_path / "main.log.1")
        daemon.process.send_signal(signal.SIGUSR1)
        until(log.exists)
        daemon.stop()
    assert "stopped" in log.read_text(encoding="utf-8")


def _command(before: str, *after: str) -> tuple[str, ...]:
    """Runs `guerrillad` in a process of its own, with a line of Python before it."""
    call = f"sys.exit(main([*sys.argv[1:], *{after!r}]))"
    text = f"import sys\n{before}\nfrom guerrilla.cli import main\n{call}"
    return (sys.executable, "-c", text)


def test_pid_file_and_verbose(tmp_path: Path) -> None:
    pid_file = tmp_path / "g.pid"
    command = _command("", "-v", "--pidFile", str(pid_file))
    with RunningDaemon(tmp_path, command=command) as daemon:
        assert pid_file.read_text(encoding="utf-8").strip() == str(daemon.pid)
    assert not pid_file.exists()


def test_no_config_starts_with_the_defaults_and_says_so() -> None:
    before = "import guerrilla.config.app as app; app.DEFAULT_LISTEN_INTERFACE = '127.0.0.1:0'"
    with subprocess.Popen(
        [*_command(before), "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("  stop"):
                process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    assert status == 0
    assert lines[0] == (
        "no config file here (goguerrilla.conf.json, guerrilla.json, guerrilla.toml): "
        "starting with the defaults"
    )
    assert "  chain      HeadersParser|Header|Debugger" in lines
    assert "  warning    save_process stores nothing: mail is accepted and discarded" in lines


def _serve_error(text: str | bytes | None, capsys: pytest.CaptureFixture[str]) -> list[str]:
    if text is not None:
        data = text if isinstance(text, bytes) else text.encode()
        Path("guerrilla.json").write_bytes(data)
    assert main(["serve", "-c", "guerrilla.json"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("guerrillad: ") for line in lines), lines
    return lines


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ["guerrilla.json: no such file"]),
        (b"\xff\xfe", ["guerrilla.json: not UTF-8"]),
        ("{", ["guerrilla.json: "]),
        ('{"log_levle": "info"}', ["log_levle", "log_level"]),
        ('{"servers": [{"listen_interface": 25}]}', ["servers[0].listen_interface", "25"]),
        (
            '{"log_file": "off", "backend_config": {"save_process": "Heder"}}',
            ["save_process", "Heder", "Header"],
        ),
        (
            '{"log_file": "off", "servers": [{"listen_interface": "no.such.name.invalid:2525"}]}',
            ["servers[0].listen_interface", "no.such.name.invalid"],
        ),
        (
            '{"log_file": "off", "backend_config": {"save_process": "SQL", "sql_dsn": "no/x.db"}}',
            ["sql_dsn", "there is no folder"],
        ),
        (
            '{"log_file": "off", "backend_config": {"save_process": "SQL", "sql_driver": "mysql"}}',
            ["sql_driver 'mysql' is not built yet"],
        ),
    ],
)
def test_config_that_cannot_be_served_is_one_clear_line(
    text: str | bytes | None, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = _serve_error(text, capsys)
    for part in parts:
        assert part in line


def test_port_in_use_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        servers = [{"listen_interface": where}]
        (line,) = _serve_error(json.dumps({"log_file": "off", "servers": servers}), capsys)
    assert where in line


def test_every_problem_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _serve_error('{"log_levle": "info", "pid_fiel": "x", "max_memory": 1}', capsys)
    assert len(lines) == 3
