"""The backend's keys, chains, and secrets."""

import json

import pytest

from guerrilla.config import (
    BackendConfig,
    chain_names,
    check_processor_keys,
    from_mapping,
    loads,
    masked,
)
from guerrilla.errors import ConfigError
from tests.configs import problems_of

# Backend keys


def test_a_backend_keeps_the_keys_of_processors() -> None:
    """As plain values, lower-cased, beside its own."""
    backend = loads('{"backend_config": {"Sql_DSN": "x", "my": {"A": [1]}}}').backend_config
    assert backend.options == {"sql_dsn": "x", "my": {"A": [1]}}
    assert type(backend.options["my"]) is dict
    assert backend.values()["sql_dsn"] == "x"
    assert backend.values()["save_workers_size"] == 1
    assert backend.values()["import"] == ()
    assert backend.unknown_keys(["SQL_dsn"]) == ["my"]
    assert backend.unknown_keys({"sql_dsn", "my"}) == []


def test_keys_that_no_processor_reads_are_refused() -> None:
    """In every backend and alias, with the nearest of the processors' and the backend's own."""
    config = from_mapping(
        {
            "backend_config": {"sql_dns": "x", "save_proces": "SQL", "sql_driver": "sqlite"},
            "backends": {"hot": {"zzz": 1}},
        }
    )
    with pytest.raises(ConfigError) as caught:
        check_processor_keys(config, ["sql_dsn", "SQL_driver"], source="F")
    assert caught.value.problems == (
        "F: backend_config.sql_dns: unknown key; did you mean 'sql_dsn'?",
        "F: backend_config.save_proces: unknown key; did you mean 'save_process'?",
        "F: backends.hot.zzz: unknown key",
    )
    aliased = from_mapping(
        {"backend_config": {"processors": {"Hot": {"Sql_Dns": "x", "Sql_Dsn": "y"}}}}
    )
    with pytest.raises(ConfigError) as caught:
        check_processor_keys(aliased, ["sql_dsn"])
    assert caught.value.problems == (
        "backend_config.processors.hot.sql_dns: unknown key; did you mean 'sql_dsn'?",
    )


def test_keys_that_some_processor_reads_are_fine() -> None:
    """And all are, where unknown keys are ignored."""
    config = from_mapping({"backend_config": {"sql_driver": "sqlite"}})
    check_processor_keys(config, {"SQL_Driver"})
    ignoring = from_mapping({"backend_config": {"zzz": 1}, "ignore_unknown_keys": True})
    check_processor_keys(ignoring, set())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("  ", []),
        ("SQL", ["SQL"]),
        ("HeadersParser| Header |SQL", ["HeadersParser", "Header", "SQL"]),
        ("250|Redis:hot", ["250", "Redis:hot"]),
    ],
)
def test_a_chain_is_split(text: str, names: list[str]) -> None:
    """Names as written, trimmed."""
    assert chain_names(text) == names


@pytest.mark.parametrize(("text", "stage"), [("A||B", 2), ("|A", 1), ("A|", 2), ("A| |B", 2)])
def test_a_stage_without_a_name_is_refused(text: str, stage: int) -> None:
    """By the function, and by the config with its path."""
    with pytest.raises(ConfigError, match=f"^stage {stage} of the chain .* has no name$"):
        chain_names(text)
    (problem,) = problems_of({"backend_config": {"validate_process": text}})
    assert problem.startswith(f"backend_config.validate_process: stage {stage} of the chain")


# Secrets

SECRETS = {
    "sql_dsn": "mail:s3cr3t@tcp(127.0.0.1:3306)/mail?timeout=1s",
    "other_dsn": "postgres://mail:s3cr3t@db/mail",
    "third_dsn": "host=db password='s3cr3t s3cr3t' user=mail",
    "redis_interface": "redis://:s3cr3t@127.0.0.1:6379",
    "sql_dsn_odd": "mail:s3cr3t@s3cr3t:/s3cr3t@tcp(db)/mail",
    "redis_password": "s3cr3t",
    "Http_Secret": "s3cr3t",
    "api_token": ["s3cr3t"],
    "nested": [{"password": "s3cr3t"}],
    "processors": {"hot": {"sql_dsn": "mail:s3cr3t@unix(/s)/mail"}},
}


def test_secrets_are_in_no_repr() -> None:
    """Neither of the config nor of a section."""
    config = from_mapping({"backend_config": SECRETS})
    for text in (repr(config), str(config), repr(config.backend_config), f"{config.backends}"):
        assert "s3cr3t" not in text
    assert "tcp(127.0.0.1:3306)" in repr(config)


def test_a_masked_config_shows_all_but_secrets() -> None:
    """It is JSON, by the names that a config has."""
    config = from_mapping({"backend_config": {**SECRETS, "import": ["a"]}})
    shown = masked(config)
    assert "s3cr3t" not in json.dumps(shown)
    backend = shown["backend_config"]
    assert backend["sql_dsn"] == "mail:***@tcp(127.0.0.1:3306)/mail?timeout=1s"
    assert backend["other_dsn"] == "postgres://mail:***@db/mail"
    assert backend["import"] == ["a"]
    assert shown["servers"][0]["listen_interface"] == "127.0.0.1:2525"
    assert "s3cr3t" in config.backend_config.options["sql_dsn"]


def test_what_is_no_secret_is_shown() -> None:
    """A path of SQLite and an empty password too."""
    backend = BackendConfig.model_validate({"sql_dsn": "/var/mail.db", "redis_password": ""})
    assert masked(backend)["sql_dsn"] == "/var/mail.db"
    assert masked(backend)["redis_password"] == ""


def test_a_secret_is_in_no_error() -> None:
    """Where a value stands under a wrong key."""
    (problem,) = problems_of({"log_level": "redis://:s3cr3t@db"})
    assert problem.endswith("got 'redis://:***@db'")
