"""The names that Go-Guerrilla's configs have in their chains, and the one that is to come."""

from __future__ import annotations

from pathlib import Path

import pytest

from guerrilla.config import from_mapping, load, unbuilt
from guerrilla.engine.base import Processor
from guerrilla.engine.registry import Registry
from guerrilla.errors import ConfigError
from guerrilla.processors import TABLE
from guerrilla.running.startup import config_problems
from tests.configs import backend

GO_FILE = Path(__file__).parent / "data" / "goguerrilla.conf.json"
GO_NAMES = (
    *("HeadersParser", "Header", "Debugger", "Hasher", "Compressor", "Redis", "SQL", "MySQL"),
    *("GuerrillaRedisDB", "GuerrillaDbRedis", "MailDir", "FastCGI"),
    *("Wildcard", "WildcardProcessor"),
)


@pytest.mark.parametrize("name", GO_NAMES)
def test_each_is_there_in_any_case(name: str) -> None:
    for spelt in (name, name.upper(), name.lower()):
        assert issubclass(Registry().find(spelt), Processor)
    assert name in TABLE.names


def test_go_guerrillas_own_config_names_nothing_that_is_unknown() -> None:
    config = load(GO_FILE)
    assert unbuilt(config) == []
    assert config_problems(config, Registry(), None, None) == []


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ("save", "250 needs a spool: add the section spool with a path"),
        ("validate", "250 stands for the spool, which is for mails: save_process alone"),
    ],
)
def test_the_spool_is_refused_in_one_line(task: str, problem: str) -> None:
    config = from_mapping(backend(**{f"{task}_process": "HeadersParser|250|Hasher"}))
    (line,) = config_problems(config, Registry(), None, None)
    assert line == f"backend_config.{task}_process: {problem}"


def test_one_of_ones_own_takes_any_name() -> None:
    class Mine(Processor):
        """Of a test."""

    registry = Registry()
    for name in ("250", "Redis"):
        registry.add(name, Mine)
        assert registry.find(name.lower()) is Mine


def test_an_unknown_one_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown processor 'Rediss'; did you mean 'Redis'"):
        Registry().find("Rediss")
