"""What all commands have in common: version, help, wrong arguments, errors."""

from __future__ import annotations

import subprocess
import sys
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
