"""`guerrillad serve`: what it prints, the signals it obeys, and configs it cannot serve."""

from __future__ import annotations

import base64
import ctypes
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guerrilla import __version__
from guerrilla.cli import main
from guerrilla.commands import common
from guerrilla.commands.serve import describe
from tests.certificates import self_signed
from tests.daemons import Make, config
from tests.running import RunningDaemon
from tests.wire import Wire

Until = Callable[[Callable[[], object]], None]

EXAMPLES = Path(__file__).parents[2] / "examples"


def program_line(line: str) -> str:
    """The program of the banner's `try`."""
    return line.removeprefix("  try").strip().partition(" send ")[0]


@pytest.mark.parametrize(
    ("started", "path", "program"),
    [
        ("{here}/bin/guerrillad", "{here}/bin", "guerrillad"),
        ("bin/guerrillad", "/nowhere", "bin/guerrillad"),
        ("{here}/bin/guerrillad", "/nowhere", "bin/guerrillad"),
        ("{here}/bin/guerrillad", "{here}/other", "bin/guerrillad"),
        ("guerrillad", "/nowhere", "./guerrillad"),
        ("/guerrillad", "/nowhere", "/guerrillad"),
        ("a b/guerrillad", "/nowhere", "'a b/guerrillad'"),
        ("-c", "/nowhere", "guerrillad"),
    ],
)
def test_the_program_as_it_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: str, path: str, program: str
) -> None:
    for folder in ("bin", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "guerrillad").touch(0o755)
    monkeypatch.setattr(sys, "argv", [started.format(here=tmp_path)])
    monkeypatch.setenv("PATH", path.format(here=tmp_path))
    assert common.program() == program


def test_quick_start_as_a_newcomer_sees_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / "quickstart.toml").read_text(encoding="utf-8")
    with RunningDaemon(tmp_path, config=text.replace(":2525", ":0")) as daemon:
        (address,) = daemon.addresses
        program = program_line(daemon.printed[-2])
        assert daemon.printed == [
            f"guerrilla {__version__}",
            f"  listening  {address}",
            "  hosts      any",
            "  chain      HeadersParser|Hasher|Header|SQL",
            f"  stored in  {tmp_path / 'mail.db'}, table new_mail",
            f"  try        {program} send --to you@example.com --server {address}",
            "  stop       Ctrl-C",
        ]
        assert program.endswith(" -m guerrilla")
        # As it is pasted into a shell there.
        pasted = daemon.printed[-2].removeprefix("  try")
        sent = subprocess.check_output(["/bin/sh", "-c", pasted], cwd=tmp_path, text=True)
        assert sent.startswith("test message: 250 2.0.0 OK: queued as ")
        assert main(["mail", "list"]) == 0
        assert "A test message of guerrillad send" in capsys.readouterr().out
        assert main(["mail", "show", sent.split()[-1], "--json"]) == 0
        message = base64.b64decode(json.loads(capsys.readouterr().out)["message"])
        assert message.startswith(b"Delivered-To: you@")
        assert message.endswith(b"\r\n\r\nIt arrived.\r\n")
        daemon.stop(signal.SIGINT)
    assert not Path("mail.db-wal").exists()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("protocol = 'lmtp'", "--lmtp --server 127.0.0.1:"),
        (
            "tls = {{ tls_always_on = true, {} }}",
            "--tls implicit --ca 'a b.crt' --server localhost:",
        ),
        ("tls = {{ start_tls_on = true, {} }}", "--server 127.0.0.1:"),
        (
            "tls = {{ start_tls_on = true, required = true, {} }}",
            "--tls starttls --ca 'a b.crt' --server localhost:",
        ),
    ],
)
def test_the_line_to_try_it_with_is_of_the_first_server(
    tmp_path: Path, keys: str, words: str
) -> None:
    """As it is pasted into a shell there."""
    self_signed(tmp_path, "localhost", stem="a b")
    files = "private_key_file = 'a b.key', public_key_file = 'a b.crt'"
    text = (EXAMPLES / "quickstart.toml").read_text(encoding="utf-8")
    text = text.replace('127.0.0.1:2525"', f'127.0.0.1:0"\n{keys.format(files)}')
    with RunningDaemon(tmp_path, config=text) as daemon:
        pasted = daemon.printed[-2].removeprefix("  try")
        assert pasted.partition("you@example.com ")[2].startswith(words)
        sent = subprocess.check_output(["/bin/sh", "-c", pasted], cwd=tmp_path, text=True)
    assert "250 2.0.0 OK: queued as " in sent


def test_no_line_to_try_it_with_where_a_proxy_has_to_be_between(make: Make) -> None:
    raw = config()
    raw["servers"][0]["proxy_protocol"] = True
    with make(raw) as daemon:
        assert not [line for line in describe(daemon) if line.startswith("  try ")]


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


def test_second_signal_stops_it_at_once(tmp_path: Path, until: Until) -> None:
    (tmp_path / "stuck.py").write_text(STUCK, encoding="utf-8")
    daemon = RunningDaemon(tmp_path, chain="Stuck|SQL", backend='import = ["stuck"]')
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: "SIGTERM: stopping" in daemon.log_text())
    daemon.process.send_signal(signal.SIGTERM)
    status = daemon.process.wait(30)
    daemon.kill()
    assert status == 1
    assert "guerrillad: stopped at once" in daemon.log_text()


def test_hangup_reads_the_config_again(tmp_path: Path, until: Until) -> None:
    with RunningDaemon(tmp_path) as daemon:
        text = daemon.config_file.read_text()

        def reload(new: str, line: str) -> None:
            daemon.config_file.write_text(new)
            daemon.process.send_signal(signal.SIGHUP)
            until(lambda: line in daemon.log_text())

        reload(text.replace("mx.", "two."), "host_name mx.example.com -> two.example.com")
        with Wire(daemon.port) as wire:
            assert wire.greeting.startswith("220 two.example.com ")
        reload(text.replace("host_name", "hostname_"), "nothing of the config was applied")
        reload(text.replace("mx.", "three."), "-> three.example.com")
        with Wire(daemon.port) as wire:
            assert wire.deliver(b"Subject: behind it").startswith("250 ")


def test_hangup_keeps_what_the_command_line_says(tmp_path: Path, until: Until) -> None:
    command = (sys.executable, "-m", "guerrilla")
    with RunningDaemon(tmp_path, command=command, options=("-v", "-p", "own.pid")) as daemon:
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "reloaded: " in daemon.log_text())
        assert (tmp_path / "own.pid").read_text() == f"{daemon.pid}\n"
        with Wire(daemon.port):
            until(lambda: " connected" in daemon.log_text())


def test_hangup_without_a_config_file_is_told(tmp_path: Path, until: Until) -> None:
    command = [sys.executable, "-m", "guerrilla", "serve"]
    log = tmp_path / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("  stop"):
                    break
            process.send_signal(signal.SIGHUP)
            until(lambda: "SIGHUP: reload_config_file needs a path" in log.read_text())
        finally:
            process.terminate()
        assert process.wait(30) == 0


def test_usr1_reopens_the_log(tmp_path: Path, until: Until) -> None:
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
            ["backend_config.sql_dsn: expected user:password@tcp(127.0.0.1:3306)/database, got ''"],
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


def test_a_signal_that_another_thread_gets_stops_it_too(tmp_path: Path, until: Until) -> None:
    """The kernel gives it to any thread, when the main one has just been given another."""
    with RunningDaemon(tmp_path) as daemon:
        tasks = Path(f"/proc/{daemon.pid}/task").iterdir()
        others = {int(task.name) for task in tasks} - {daemon.pid}
        # The main thread has nothing more to do then.
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "SIGHUP: " in daemon.log_text())
        assert ctypes.CDLL(None).tgkill(daemon.pid, max(others), signal.SIGTERM) == 0
        assert daemon.process.wait(20) == 0
        assert "SIGTERM: stopping" in daemon.log_text()
