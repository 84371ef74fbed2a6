"""The Pipe stage before its first mail: options, and what has to be there."""

from __future__ import annotations

import os

import pytest

from guerrilla.engine.chain import build, read_options
from guerrilla.engine.registry import Registry
from guerrilla.errors import ConfigError
from guerrilla.pipe.command import parse_command
from guerrilla.processors.pipe import PATH, Pipe
from tests.pipes import pipe


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pipe_command": ["/nowhere/deliver"]}, "there is no program /nowhere/deliver"),
        ({"pipe_command": "no-such-program x"}, f"there is no program no-such-program in {PATH}"),
        ({"pipe_command": "/etc/passwd"}, "/etc/passwd cannot be executed: chmod +x it"),
        ({"pipe_command": "/etc"}, "there is no program /etc"),
        ({"pipe_directory": "/nowhere"}, "pipe_directory: there is no folder /nowhere"),
        ({"pipe_user": "no-such-user"}, "pipe_user: "),
        ({"pipe_user": "root:no-such-group"}, "pipe_user: "),
    ],
)  # fmt: skip
def test_what_is_not_there_stops_the_start(options: dict[str, object], told: str) -> None:
    stage = Pipe(Pipe.Options.model_validate({"pipe_command": "cat", **options}))
    with pytest.raises(ConfigError) as caught:
        stage.open()
    (line,) = caught.value.problems
    assert line.startswith("backend_config.pipe_")
    assert told in line


def test_who_is_not_root_runs_nothing_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigError, match="only root can run a program as 'nobody'"):
        pipe("cat", pipe_user="nobody").open()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("pipe_command", "", "expected a program with its arguments"),
        ("pipe_command", [], "got a list"),
        ("pipe_command", ["", "x"], "got a list"),
        ("pipe_command", 7, "got 7"),
        ("pipe_command", ["cat", 7], "expected an argument that is a text, got 7"),
        ("pipe_command", ["cat", "a\0b"], "expected an argument that is a text"),
        ("pipe_command", "cat 'x", "(no closing quotation)"),
        ("pipe_command", "cat ${nobody}", "expected a macro such as ${recipient}, or $$"),
        ("pipe_command", "cat 5$", "for a dollar sign, got '5$'"),
        ("pipe_command", "cat ${user", "got '${user'"),
        ("pipe_command", "${user} x", "expected a program without a macro in its name"),
        ("pipe_timeout", 0, "expected a duration over 0"),
        ("pipe_timeout", "soon", "expected a duration"),
        ("pipe_concurrency", 0, "greater than or equal to 1"),
        ("pipe_flags", "FX", "expected letters out of F, R, h and u, got 'FX'"),
        ("pipe_line_ends", "cr", "'crlf' or 'lf'"),
        ("pipe_per_recipient", "maybe", "boolean"),
    ],
)  # fmt: skip
def test_bad_options_name_their_key(key: str, value: object, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options("Pipe", Pipe, {"pipe_command": "cat", key: value})
    (line,) = caught.value.problems
    assert line.startswith(f"backend_config.{key}")
    assert told in line


def test_without_a_command_it_does_not_start() -> None:
    with pytest.raises(ConfigError, match=r"backend_config.pipe_command: expected a program"):
        build("Pipe", "save", {}, Registry())


def test_a_list_and_a_text_are_the_same() -> None:
    text = parse_command("deliver -f '${sender}' \"to $user\" ''")
    assert text == parse_command(["deliver", "-f", "$(sender)", "to ${user}", ""])
