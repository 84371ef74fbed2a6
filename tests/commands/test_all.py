"""What all commands have in common: version, help, wrong arguments, errors."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guerrilla import __version__
from guerrilla.cli import main
from tests.commands.mails import envelope, store

if TYPE_CHECKING:
    pass


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"guerrillad {__version__} (")


@pytest.mark.parametrize(
    "command",
    [
        *(
            "",
            "serve",
            "check",
            "config",
            "processors",
            "version",
            "schema",
            "send",
            "bench",
            "cert",
            "password",
        ),
        *("reload", "upgrade", "reopen-logs", "stop", "status", "stats"),
        *("mail", "mail list", "mail show", "mail export", "mail purge"),
        *("spool", "spool list", "spool show", "spool retry", "spool drop", "spool replay"),
    ],
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
        ["serve", "--nonsense"],
        ["version", "a\nb"],
        ["config"],
        ["config", "--sample", "--schema"],
        ["config", "--sample", "-c", "a.toml"],
        ["config", "--schema", "--socket", "a.sock"],
        ["reload", "now"],
        ["stop", "--json"],
        ["version", "-c", "a.toml"],
        ["schema"],
        ["schema", "--driver", "oracle"],
        ["schema", "--driver", "mysql", "-c", "a.toml"],
        ["schema", "--driver", "mysql", "--table", "a b"],
        ["mail", "list", "--limit", "0"],
        ["mail", "list", "--table", "a b"],
        ["mail", "purge"],
        ["mail", "purge", "--older-than", "soon"],
        ["mail", "show", "1", "--raw", "--json"],
        ["spool"],
        ["spool", "show"],
        ["spool", "show", "1", "--message", "--json"],
        ["spool", "list", "now"],
        ["spool", "drop"],
        ["mail", "export", "out", "--since", "yore"],
        ["cert", "--out", "tls"],
        ["cert", "--host", "mx.example.com"],
        ["cert", "--host", "mx.example.com", "--out", "tls", "--days", "many"],
        ["send", "file.eml"],
        ["send", "--to", "no address"],
        ["send", "--to", "a@example.com\r\nDATA"],
        ["send", "--to", "a@example.com", "--server", "nonsense"],
    ],
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    (error,) = capsys.readouterr().err.splitlines()
    words = 2 if arguments[:1] in (["mail"], ["spool"]) else 1
    command = " ".join(("guerrillad", *arguments[:words]))
    if arguments in ([], ["nonsense"]):
        command = "guerrillad"
    assert error.startswith(f"{command}: ")
    assert error.endswith(f"; see {command} --help")


@pytest.mark.parametrize(
    ("command", "name", "status", "said"),
    [
        ("serve", "SIGINT", 0, "guerrillad: SIGINT: stopped before it had started\n"),
        ("serve", "SIGTERM", 0, "guerrillad: SIGTERM: stopped before it had started\n"),
        ("version", "SIGINT", 130, ""),
        ("version", "SIGTERM", -signal.SIGTERM, ""),
    ],
)
def test_a_signal_while_the_commands_load(
    command: str, name: str, status: int, said: str, tmp_path: Path
) -> None:
    # The working directory comes first on the path of `python -m`.
    (tmp_path / "argparse.py").write_text(
        f"import os, signal, threading\nos.kill(os.getpid(), signal.{name})\n"
        "threading.Event().wait(30)\n",
        encoding="utf-8",
    )
    # Tests that a shell runs in the background have it ignored, and so would the program.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "guerrilla", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


def test_the_entry_loads_nothing_that_takes_long() -> None:
    code = "import sys, guerrilla.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "guerrilla.cli" in loaded
    assert loaded.isdisjoint({"apsw", "argparse", "asyncio", "pydantic", "guerrilla.config"})


@pytest.mark.parametrize("before", [["-c", "serve"], ["--config", "serve"], ["-v", "-cserve"]])
def test_the_config_may_be_named_before_the_command(
    before: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    assert main([*before, "check"]) == 1
    assert capsys.readouterr().err == "guerrillad: serve: no such file\n"
    # A file of that name is not the command, whose signals are its own.
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("command", ["version", "send --to a@example.com", "cert --host a"])
def test_a_command_without_a_config_takes_none(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-c", "a.toml", *command.split(), *(["--out", "t"] if "cert" in command else [])])
    assert ended.value.code == 1
    name = command.split(maxsplit=1)[0]
    assert capsys.readouterr().err == (
        f"guerrillad {name}: it takes no -c; see guerrillad {name} --help\n"
    )


def test_main_puts_signal_handlers_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert main(["version"]) == 0
    assert signal.getsignal(signal.SIGINT) is before


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
