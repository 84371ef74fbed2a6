"""Aliases: two stages of one processor in one chain, each with options of its own."""

from __future__ import annotations

import json
import os
import smtplib
from pathlib import Path
from typing import Any, ClassVar

import apsw
import pydantic
import pytest

from guerrilla._core import Envelope
from guerrilla.config import Stage, chain_stages, from_mapping, loads
from guerrilla.config.writing import toml
from guerrilla.engine.base import Processor
from guerrilla.engine.chain import build
from guerrilla.engine.registry import DECORATED, Registry
from guerrilla.errors import ConfigError
from guerrilla.reply import Outcome
from guerrilla.running.checking import effective
from guerrilla.running.startup import config_problems
from guerrilla.testing import make_envelope, run_chain
from tests.chains import Mail
from tests.configs import backend, problem_of
from tests.running import RunningDaemon


class Post(Processor):
    """Of a test: keeps what it was told."""

    stores = True
    seen: ClassVar[list[tuple[str, str, int]]] = []

    class Options(pydantic.BaseModel):
        post_place: str = "here"
        post_password: str = ""
        post_limit: int = 3

        @pydantic.field_validator("post_place")
        @classmethod
        def _known(cls, place: str) -> str:
            if place == "nowhere":
                raise ValueError("nowhere is no place")
            return place

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._own = options

    def save(self, envelope: Envelope) -> Outcome:
        own = self._own
        self.seen.append((own.post_place, own.post_password, own.post_limit))
        return None


class Wanting(Post):
    """Of a test: one key has no default."""

    class Options(Post.Options):
        wanted: str


class Refusing(Processor):
    """Of a test: fails."""

    def save(self, envelope: Envelope) -> Outcome:
        raise RuntimeError("no")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(Post, "seen", [])
    registry = Registry(DECORATED)
    registry.add("Post", Post)
    registry.add("Wanting", Wanting)
    registry.add("Refusing", Refusing)
    return registry


def problems(registry: Registry, raw: dict[str, Any]) -> list[str]:
    return config_problems(from_mapping(raw), registry, None, None)


# What a chain says


def test_a_stage_is_a_processor_and_its_alias() -> None:
    assert chain_stages("Post | Redis:hot|Redis : Cold") == [
        Stage("Post", "Post"),
        Stage("Redis:hot", "Redis", "hot"),
        Stage("Redis : Cold", "Redis", "Cold"),
    ]
    assert [stage.table for stage in chain_stages("Post|Redis:Hot")] == ["post", "hot"]


@pytest.mark.parametrize("name", ["Post:", ":hot", ":", "Post:a:b", "Post: "])
def test_half_a_name_is_refused(name: str) -> None:
    problem = problem_of(backend(save_process=f"Hasher|{name}"))
    assert problem.startswith("backend_config.save_process: the stage ")
    assert "expected NAME:ALIAS" in problem


# What each stage reads


def test_each_has_its_own_options_over_those_of_the_backend(registry: Registry, mail: Mail) -> None:
    raw = backend(
        save_process="Post:hot|post:COLD|Post",
        post_limit=5,
        processors={"hot": {"Post_Place": "ram"}, "Cold": {"post_place": "disk", "post_limit": 9}},
    )
    assert problems(registry, raw) == []
    values = from_mapping(raw).backend_config.values()
    with build("Post:hot|post:COLD|Post", "save", values, registry) as chain:
        assert [name for name, _ in chain.stages] == ["Post:hot", "post:COLD", "Post"]
        chain.run([mail()])
    assert Post.seen == [("ram", "", 5), ("disk", "", 9), ("here", "", 5)]


def test_a_plain_name_has_a_table_too_and_its_aliases_do_not_read_it(registry: Registry) -> None:
    values = {"post_limit": 1, "processors": {"post": {"post_limit": 2}}}
    chain = build("POST|Post:other", "save", values, registry)
    limits = [processor.options.model_dump()["post_limit"] for _, processor in chain.stages]
    assert limits == [2, 1]


def test_one_alias_may_stand_in_both_chains(registry: Registry) -> None:
    raw = backend(
        save_process="SQL:hot", validate_process="SQL:hot", processors={"hot": {"sql_dsn": "a.db"}}
    )
    assert problems(registry, raw) == []
    assert from_mapping(raw).warnings() == []


def test_the_name_of_the_stage_is_in_the_log(
    registry: Registry, mail: Mail, caplog: pytest.LogCaptureFixture
) -> None:
    with build("Refusing:odd", "save", {}, registry) as chain:
        chain.run([mail()])
    assert "Refusing:odd" in caplog.text


def test_the_testing_kit_takes_them(tmp_path: Path) -> None:
    tables = {"Hot": {"SQL_dsn": os.fspath(tmp_path / "a.db")}}
    envelope = make_envelope(b"Subject: a\r\n\r\nb\r\n")
    [reply] = run_chain("SQL:hot", envelope, options={"processors": tables})
    assert reply.code == 250
    assert (tmp_path / "a.db").exists()


# What is wrong


def test_an_unknown_processor_is_told_with_the_nearest_name(registry: Registry) -> None:
    [line] = problems(registry, backend(save_process="Pots:hot", processors={"hot": {"a": 1}}))
    assert line.startswith("backend_config.save_process: unknown processor 'Pots'")
    assert line.endswith("did you mean 'Post'?")


@pytest.mark.parametrize("chain", ["Post:hot|SQL:hot", "post:HOT|SQL:hot"])
def test_one_alias_of_two_processors_is_refused(registry: Registry, chain: str) -> None:
    [line] = problems(registry, backend(save_process=chain, sql_dsn="a.db"))
    assert line.startswith("backend_config.save_process: ")
    assert line.endswith(
        "share the alias 'hot' and are different processors: give one of them another"
    )


def test_an_alias_that_is_another_processors_own_table_is_refused(registry: Registry) -> None:
    """Only where there is such a table: else the two have nothing in common."""
    assert problems(registry, backend(save_process="Post|SQL:post", sql_dsn="a.db")) == []
    tables = {"processors": {"post": {"sql_dsn": "a.db"}}}
    lines = problems(registry, backend(save_process="Post|SQL:post", **tables))
    assert len([line for line in lines if "share the alias 'post'" in line]) == 1


def test_the_same_stage_twice_is_none_of_our_business(registry: Registry) -> None:
    assert problems(registry, backend(save_process="Post:hot|Post:hot")) == []


@pytest.mark.parametrize("where", ["backend_config", "backends.other"])
def test_a_key_that_its_processor_does_not_read_is_refused(registry: Registry, where: str) -> None:
    """Though another processor does; with the nearest of those that it reads."""
    keys = {
        "save_process": "Post:hot|SQL:cold|Hasher:id",
        "sql_dsn": "a.db",
        "processors": {
            "hot": {"post_plaice": "x", "sql_dsn": "b.db"},
            "cold": {"mail_table": "t"},
            "id": {"sql_dsn": "b.db"},
        },
    }
    expected = "expected one of post_limit, post_password, post_place"
    raw = {where: keys} if "." not in where else {"backends": {"other": keys}}
    lines = [line for line in problems(registry, raw) if ".processors." in line]
    assert lines == [
        f"{where}.processors.hot.post_plaice: no key that Post reads; did you mean 'post_place'?",
        f"{where}.processors.hot.sql_dsn: no key that Post reads; {expected}",
        f"{where}.processors.id.sql_dsn: no key that Hasher reads",
    ]


def test_unknown_keys_can_be_ignored(registry: Registry) -> None:
    raw = backend(save_process="Post:hot", processors={"hot": {"zzz": 1}})
    assert len(problems(registry, raw)) == 1
    assert problems(registry, {**raw, "ignore_unknown_keys": True}) == []


def test_a_table_that_no_chain_names_has_known_keys_all_the_same(registry: Registry) -> None:
    raw = backend(save_process="Hasher", processors={"hot": {"post_limit": 1, "post_limits": 1}})
    assert problems(registry, raw) == [
        "backend_config.processors.hot.post_limits: unknown key; did you mean 'post_limit'?"
    ]


def test_a_wrong_option_is_named_with_its_table(registry: Registry) -> None:
    raw = backend(
        save_process="Post:hot|Post|Wanting:cold|Wanting",
        post_limit="some",
        processors={"hot": {"post_limit": "many", "post_place": "nowhere"}},
    )
    lines = problems(registry, raw)
    assert [line.partition(": ")[0] for line in lines] == [
        "backend_config.processors.hot.post_place",
        "backend_config.processors.hot.post_limit",
        "backend_config.post_limit",
        "backend_config.post_limit",
        "backend_config.processors.cold.wanted",
        "backend_config.post_limit",
        "backend_config.wanted",
    ]
    assert lines[0].endswith(": nowhere is no place (read by Post:hot)")
    assert lines[4].endswith("this key is required (read by Wanting:cold)")


def test_a_wrong_secret_is_not_shown(registry: Registry) -> None:
    tables = {"hot": {"post_password": ["hunter2"]}}
    [line] = problems(registry, backend(save_process="Post:hot", processors=tables))
    assert line.startswith("backend_config.processors.hot.post_password: ")
    assert "hunter2" not in line


def test_the_path_of_another_backend_is_named(registry: Registry) -> None:
    values = {"processors": {"hot": {"post_limit": "many"}}}
    with pytest.raises(ConfigError) as caught:
        build("Post:hot|Nobody", "save", values, registry, where="backends.other")
    first, second = caught.value.problems
    assert first.startswith("backends.other.processors.hot.post_limit: ")
    assert second.startswith("backends.other.save_process: unknown processor 'Nobody'")


def test_what_is_hardly_meant_is_warned_of() -> None:
    """A table of no stage, and an alias of no table: one of them may be misspelt."""
    raw: dict[str, Any] = {
        **backend(save_process="SQL:hot|SQL", processors={"hott": {}, "sql": {}}),
        "backends": {"other": {"save_process": "SQL", "processors": {"cold": {}}}},
    }
    assert from_mapping(raw).warnings() == [
        "backend_config.processors.hott: no chain names it, as PROCESSOR:hott",
        "backend_config.processors.hot: no such table: SQL:hot has the backend's options alone",
        "backends.other.processors.cold: no chain names it, as PROCESSOR:cold",
    ]


# What is shown


def test_the_effective_config_has_the_options_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own table, without its secrets; of every backend."""
    monkeypatch.setattr(DECORATED, "_classes", {})
    DECORATED.add("Post", Post)
    keys = {
        "save_process": "Post:hot|Post",
        "post_limit": 7,
        "processors": {"hot": {"post_password": "hunter2", "post_place": "ram"}},
    }
    shown = effective(from_mapping({"backend_config": keys, "backends": {"other": keys}}))
    assert "hunter2" not in json.dumps(shown)
    for backend_ in (shown["backend_config"], shown["backends"]["other"]):
        assert backend_["processors"] == {
            "hot": {"post_password": "***", "post_place": "ram", "post_limit": 7}
        }
        assert (backend_["post_place"], backend_["post_limit"]) == ("here", 7)


def test_what_is_shown_can_be_started() -> None:
    """Read back, it is sound and says the same."""
    keys = {"save_process": "SQL:hot|SQL", "sql_dsn": "a.db", "processors": {"hot": {}}}
    shown = effective(from_mapping(backend(**keys)))
    again = loads(toml(shown), format="toml")
    assert config_problems(again, Registry(), None, None) == []
    assert again.backend_config.processors["hot"]["sql_dsn"] == "a.db"
    assert effective(again) == shown


# A daemon


def test_one_mail_is_stored_by_both(tmp_path: Path) -> None:
    """Into two databases; what one of them lacks, the backend has."""
    tables = "\n".join(
        f'[backend_config.processors.{name}]\nsql_dsn = "{name}.db"' for name in ("hot", "cold")
    )
    config = (
        '[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
        '[backend_config]\nsave_process = "HeadersParser|Hasher|Header|SQL:hot|SQL:cold"\n'
        'mail_table = "kept"\n' + tables
    )
    message = "Subject: twice\r\n\r\nbody\r\n"
    config = 'allowed_hosts = ["."]\n' + config
    with (
        RunningDaemon(tmp_path, config=config) as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        assert client.sendmail("from@example.org", ["to@example.com"], message) == {}
        for name in ("hot", "cold"):
            stored = apsw.Connection(os.fspath(tmp_path / f"{name}.db"))
            rows = stored.execute("SELECT recipient, subject FROM kept").fetchall()
            stored.close()
            assert rows == [("to@example.com", "twice")]


@pytest.mark.parametrize(
    ("chain", "keys", "place"),
    [
        ("SQL", {"sql_dsn": "gone/a.db"}, "backend_config.sql_dsn"),
        (
            "SQL",
            {"sql_dsn": "a.db", "processors": {"SQL": {"SQL_DSN": "gone/a.db"}}},
            "backend_config.processors.sql.sql_dsn",
        ),
        (
            "SQL:hot",
            {"sql_dsn": "a.db", "processors": {"hot": {"sql_dsn": "gone/a.db"}}},
            "backend_config.processors.hot.sql_dsn",
        ),
        # Its own table is where it is to be given, or it has the one of the backend.
        ("SQL:hot", {}, "backend_config.processors.hot.sql_dsn"),
        ("SQL:hot", {"sql_dsn": "gone/a.db"}, "backend_config.sql_dsn"),
        (
            "SQL:hot",
            {"sql_dsn": "a.db", "processors": {"hot": {"sql_driver": "db2"}}},
            "backend_config.processors.hot.sql_driver",
        ),
    ],
)
def test_what_does_not_open_is_named_with_its_table(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chain: str,
    keys: dict[str, Any],
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = from_mapping(backend(save_process=chain, **keys)).backend_config
    with pytest.raises(ConfigError) as caught:
        build(chain, "save", config.values(), Registry(DECORATED)).open()
    (problem,) = caught.value.problems
    assert problem.startswith(f"{place}: "), problem
