"""`guerrillad processors`: everything that a chain can name, and why something cannot be used."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest

from guerrilla import processors
from guerrilla._core import Address, Transaction
from guerrilla.cli import main
from guerrilla.engine.base import Processor
from guerrilla.engine.installed import ENTRY_POINTS
from guerrilla.engine.registry import DECORATED
from guerrilla.processors import TABLE
from guerrilla.reply import Reply


class Shade(Enum):
    LIGHT = "light"
    DARK = "dark"


class Handle:
    """Something that JSON has no form for."""

    def __str__(self) -> str:
        return "a handle"


class Rich(Processor):
    """Has options of every kind.

    More of it.
    """

    stores = True

    class Options(Processor.Options):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

        rich_mode: Literal["a", "b"] = "a"
        """How it works."""
        rich_shade: Shade = Shade.DARK
        rich_size: int = pydantic.Field(ge=1, le=9)
        rich_password: str = "hunter2"
        rich_handle: Handle = Handle()
        rich_list: list[int] = pydantic.Field(default_factory=lambda: [1, 2])
        rich_other: int = pydantic.Field(7, alias="Rich_Spelt")
        primary_mail_host: str = ""

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        return None


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores what an import changes."""
    monkeypatch.setattr(DECORATED, "_classes", {})
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def objects(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, dict[str, Any]]]:
    """Runs the command with `--json`; what it prints, by name."""

    def run(*arguments: str, status: int = 0) -> dict[str, dict[str, Any]]:
        assert main(["processors", "--json", *arguments]) == status
        lines = capsys.readouterr().out.splitlines()
        return {found["name"]: found for found in map(json.loads, lines)}

    return run


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes packages offer processors: name → target."""

    def make(**targets: str) -> None:
        points = [
            importlib.metadata.EntryPoint(name, target, ENTRY_POINTS)
            for name, target in targets.items()
        ]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points)

    return make


Objects = Callable[..., dict[str, dict[str, Any]]]


def test_every_built_in_one_is_listed(objects: Objects) -> None:
    found = objects()
    assert {name for name, one in found.items() if one["origin"] == "built-in"} == set(TABLE.names)
    assert [name for name, one in found.items() if "problem" in one] == []
    sql = found["SQL"]
    assert sql["stores"]
    assert sql["module"] == "guerrilla.processors.sql"
    assert sql["chains"] == ["save_process", "validate_process"]
    assert found["Hasher"]["options"] == []
    assert not found["Header"]["stores"]
    [table] = [option for option in sql["options"] if option["key"] == "mail_table"]
    assert (table["takes"], table["default"], table["required"]) == ("text", "new_mail", False)
    assert table["meaning"]


def test_one_is_found_in_any_case(objects: Objects) -> None:
    assert list(objects("hASHER")) == ["Hasher"]


def test_an_unknown_one_is_an_error_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["processors", "Hashre"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "guerrillad: unknown processor 'Hashre'; did you mean 'Hasher'?\n"


def test_options_of_every_kind(objects: Objects) -> None:
    DECORATED.add("Rich", Rich)
    one = objects("Rich")["Rich"]
    assert (one["origin"], one["module"], one["stores"]) == ("module", __name__, True)
    assert one["chains"] == ["validate_process"]
    assert one["meaning"] == "Has options of every kind."
    told = {key["key"]: (key["takes"], key["default"], key["required"]) for key in one["options"]}
    assert told == {
        "rich_mode": ("a, b", "a", False),
        "rich_shade": ("light, dark", "dark", False),
        "rich_size": ("integer from 1 to 9", None, True),
        "rich_password": ("text", "***", False),
        "rich_handle": ("value", "a handle", False),
        "rich_list": ("list: integer of at least 0", [1, 2], False),
        "Rich_Spelt": ("integer of at least 0", 7, False),
        "primary_mail_host": ("text", None, False),
    }
    assert one["options"][0]["meaning"] == "How it works."
    assert [key["key"] for key in one["options"] if key["secret"]] == ["rich_password"]


def test_the_text_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    DECORATED.add("Rich", Rich)
    assert main(["processors", "rich"]) == 0
    assert capsys.readouterr().out == (
        f"Rich  (module {__name__}; stores; validate_process)\n"
        "  Has options of every kind.\n"
        '  rich_mode  (a, b; default "a")\n'
        "      How it works.\n"
        '  rich_shade  (light, dark; default "dark")\n'
        "  rich_size  (integer from 1 to 9; required)\n"
        '  rich_password  (text; default "***")\n'
        '  rich_handle  (value; default "a handle")\n'
        "  rich_list  (list: integer of at least 0; default [1, 2])\n"
        "  Rich_Spelt  (integer of at least 0; default 7)\n"
        "  primary_mail_host  (text)\n"
    )


def test_the_whole_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A block for each, none wider than a terminal that is not small."""
    assert main(["processors"]) == 0
    text = capsys.readouterr().out
    blocks = text.split("\n\n")
    assert [block.split()[0] for block in blocks] == sorted(TABLE.names, key=str.casefold)
    assert max(map(len, text.splitlines())) <= 100


def test_of_one_that_cannot_be_used_the_reason_is_told(
    offer: Callable[..., None], objects: Objects, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the others are listed all the same; asked for alone, it is an error."""
    offer(Gone="command_nowhere:Gone", Odd="guerrilla.reply:fold", Fine=f"{__name__}:Rich")
    found = objects()
    assert set(TABLE.names) < set(found)
    assert found["Gone"]["origin"] == "package"
    assert "ModuleNotFoundError: No module named 'command_nowhere'" in found["Gone"]["problem"]
    assert found["Odd"]["problem"].endswith("it is no subclass of Processor")
    assert found["Fine"]["stores"]
    assert main(["processors", "gone"]) == 1
    assert capsys.readouterr().out.startswith("Gone  (package command_nowhere; cannot be used)\n")


def test_two_packages_of_one_name_are_told(
    monkeypatch: pytest.MonkeyPatch, objects: Objects
) -> None:
    points = [
        importlib.metadata.EntryPoint("Twice", target, ENTRY_POINTS)
        for target in ("one_of_them:A", "another:B")
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points)
    problem = objects("twice", status=1)["Twice"]["problem"]
    assert "more than one package, one_of_them:A and another:B" in problem


def test_a_built_in_one_without_its_driver_does_not_fail_the_rest(
    monkeypatch: pytest.MonkeyPatch, objects: Objects
) -> None:
    table = processors.Table({"Odd": "guerrilla.processors.nowhere:Odd", "Hasher": "x:y"})
    monkeypatch.setattr("guerrilla.engine.registry.TABLE", table)
    DECORATED.add("Rich", Rich)
    found = objects()
    assert "nowhere" in found["Odd"]["problem"]
    assert found["Rich"]["stores"]


def test_those_that_the_config_imports_are_listed(tmp_path: Path, objects: Objects) -> None:
    """Of every backend, one that takes the name of a built-in one too."""
    for name, stage in (("command_one", "Header"), ("command_two", "Shout")):
        source = (
            "import guerrilla\n"
            f"@guerrilla.processor({stage!r}, stores=True)\n"
            'def stage(envelope):\n    """Is of a module."""\n'
        )
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    (tmp_path / "a.toml").write_text(
        '[backend_config]\nimport = ["command_one"]\n[backends.b]\nimport = ["command_two"]\n',
        encoding="utf-8",
    )
    found = objects("-c", "a.toml")
    for name, module in (("Header", "command_one"), ("Shout", "command_two")):
        assert (found[name]["origin"], found[name]["module"]) == ("module", module)
        assert found[name]["meaning"] == "Is of a module."
        assert found[name]["stores"]


def test_a_module_that_fails_does_not_fail_the_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "guerrilla.toml").write_text(
        '[backend_config]\nimport = ["command_missing"]\n', encoding="utf-8"
    )
    assert main(["processors"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("250  (built-in")
    assert told.err.startswith(
        "guerrillad: guerrilla.toml: backend_config.import: command_missing: no module"
    )


def test_a_config_that_cannot_be_read_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["processors", "-c", "nowhere.toml"]) == 1
    assert "nowhere.toml" in capsys.readouterr().err
