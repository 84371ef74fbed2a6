"""Go-Guerrilla's processors that come later: their keys are known, their names are refused."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

import guerrilla
from guerrilla.base import Processor
from guerrilla.config import LATER_KEYS, from_mapping, load, unbuilt
from guerrilla.config.later import LATER_PROCESSORS
from guerrilla.errors import ConfigError
from guerrilla.processors import TABLE
from guerrilla.registry import DECORATED, Registry
from guerrilla.startup import config_problems
from tests.configs import backend

GO_FILE = Path(__file__).parent / "data" / "goguerrilla.conf.json"

NAMES = [name for later in LATER_PROCESSORS for name in later.names]

KEYS = {
    "redis_interface": "127.0.0.1:6379",
    "redis_expire_seconds": 1,
    "redis_sql_batch_timeout": 3,
    "maildir_path": "~/mail/[user]",
    "maildir_user_map": "alice=1000:1000",
    "wildcard_hosts": "*.example.com",
}


class Mine(Processor):
    """Of a test."""


def problems(registry: Registry | None = None, /, **keys: object) -> list[str]:
    return config_problems(from_mapping(backend(**keys)), registry or Registry(), None, None)


@pytest.mark.parametrize("key", KEYS)
def test_their_keys_are_known_without_them(key: str) -> None:
    assert problems(**{key: KEYS[key]}) == []


def test_their_keys_are_these() -> None:
    assert set(KEYS) == LATER_KEYS


def test_a_misspelt_key_of_theirs_has_the_right_hint() -> None:
    (line,) = problems(redis_expire_second=1)
    assert line.endswith("unknown key; did you mean 'redis_expire_seconds'?")


@pytest.mark.parametrize("task", ["save", "validate"])
@pytest.mark.parametrize("name", [*NAMES, "reDIS", "mysql"])
def test_a_chain_that_names_one_is_refused_in_one_line(name: str, task: str) -> None:
    (line,) = problems(**{f"{task}_process": f"HeadersParser|{name}|Hasher"})
    start = f"backend_config.{task}_process: the processor {name!r} is not built yet; "
    assert line.startswith(start)
    assert len(line) > len(start)


def test_both_chains_are_told_at_once() -> None:
    found = problems(save_process="Redis", validate_process="Wildcard")
    assert [line.partition(":")[0] for line in found] == [
        "backend_config.save_process",
        "backend_config.validate_process",
    ]


def test_an_alias_is_refused_in_one_line() -> None:
    (line,) = problems(save_process="Redis:hot")
    assert line == (
        "backend_config.save_process: the alias in 'Redis:hot' is not built yet; "
        "name the processor alone"
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_of_ones_own_takes_the_name(name: str) -> None:
    registry = Registry()
    registry.add(name, Mine)
    assert problems(registry, save_process=name.upper()) == []


def test_a_decorated_one_takes_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DECORATED, "_classes", {})
    guerrilla.processor("Redis")(Mine)
    assert problems(Registry(DECORATED), save_process="Redis") == []


def test_an_imported_one_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DECORATED, "_classes", {})
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "later_own_maildir.py").write_text(
        "import guerrilla\n@guerrilla.processor('MailDir')\ndef keep(envelope): return None\n",
        encoding="utf-8",
    )
    keys = {"import": ["later_own_maildir"], "save_process": "MailDir"}
    assert problems(Registry(DECORATED), **keys) == []


def test_an_installed_one_takes_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("Compressor", f"{__name__}:Mine", "guerrilla.processors")
    monkeypatch.setattr("guerrilla.registry.importlib.metadata.entry_points", lambda group: [point])
    assert problems(save_process="compressor") == []


def test_what_is_built_is_not_listed() -> None:
    """Whoever builds one deletes its entry."""
    built = {name.casefold() for name in TABLE.names}
    assert built & {name.casefold() for name in NAMES} == set()


def test_a_find_outside_a_chain_is_refused_as_well() -> None:
    with pytest.raises(ConfigError, match="'Redis' is not built yet"):
        Registry().find("Redis")


def test_of_go_guerrillas_own_config_only_what_is_not_built_is_refused() -> None:
    config = load(GO_FILE)
    assert set(KEYS) <= set(config.backend_config.options)
    later = [
        f"backend_config.{task}_process: the processor {name!r} is not built yet"
        for task, name in [
            ("save", "Compressor"),
            ("save", "Redis"),
            ("save", "MySql"),
            ("validate", "Wildcard"),
        ]
    ]
    found = config_problems(config, Registry(), None, None)
    told = unbuilt(config)
    assert found[: len(told)] == told
    assert [line.partition(";")[0] for line in found[len(told) :]] == later
