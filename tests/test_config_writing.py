"""A config written out is the config that is read from it."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerrilla.config import AppConfig, from_mapping, loads
from guerrilla.config.writing import readable, size_text, time_text, toml
from guerrilla.units import parse_bytes, parse_seconds
from tests.configs import KEY_FILES

_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    _NAMES,
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=5))
def test_what_is_written_is_what_is_read(values: dict[str, Any]) -> None:
    assert tomllib.loads(toml(values)) == values


@given(st.integers(0, 2**63 - 1))
def test_a_size_is_what_its_text_says(size: int) -> None:
    assert parse_bytes(size_text(size)) == size


@given(st.floats(0, 1e9) | st.integers(0, 10**9).map(float))
def test_a_time_is_what_its_text_says(seconds: float) -> None:
    assert parse_seconds(time_text(seconds)) == seconds


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (size_text(0), 0),
        (size_text(10 * 2**20), "10 MiB"),
        (size_text(1536), 1536),
        (size_text(2**40), "1 TiB"),
        (time_text(0), 0),
        (time_text(30), "30s"),
        (time_text(90), "90s"),
        (time_text(600), "10m"),
        (time_text(86_400), "24h"),
        (time_text(0.5), "500ms"),
        (time_text(math.pi), math.pi),
    ],
)
def test_units_are_those_of_a_person(written: object, text: object) -> None:
    assert written == text


def test_what_toml_cannot_hold() -> None:
    values = {"a": None, "b": [1, None], "c": "\ud800\x7f", "d": {"x": None}}
    assert tomllib.loads(toml(values)) == {"b": [1], "c": "\ufffd\x7f", "d": {}}
    assert toml({}) == ""


RICH = {
    "servers": [
        {
            "listen_interface": ":25",
            "timeout": "1m1.5s",
            "max_size": 0,
            "trusted_proxies": [],
            "extensions": {"dsn": False},
            "tls": {"start_tls_on": True, "certificates": [KEY_FILES, KEY_FILES]},
        },
        {"listen_interface": "unix:/run/a b"},
    ],
    "allowed_hosts": ["."],
    "user": 8,
    "spool": {"path": "/s", "max_age": "36h"},
    "backend_config": {
        "import": ["a"],
        "sql_dsn": "mail.db",
        "redis_expire_seconds": 72,
        "processors": {"hot": {"sql_dsn": "b", "deep": {"list": [1, {"a": 1.5}]}}},
    },
    "backends": {"a b": {"save_process": "SQL", "breaker_reset": "1h"}},
}


@pytest.mark.parametrize("raw", [{}, RICH])
def test_a_config_that_is_shown_is_read_as_equal(raw: dict[str, Any]) -> None:
    config = from_mapping(raw)
    assert loads(toml(readable(config)), format="toml") == config


def test_the_text_is_one_for_people() -> None:
    lines = toml(readable(from_mapping(RICH))).splitlines()
    assert {'timeout = "61500ms"', "max_size = 0", 'max_age = "36h"', 'user = "8"'} <= set(lines)
    assert "[[servers.tls.certificates]]" in lines
    assert '[backends."a b"]' in lines
    assert "pid_file" not in " ".join(lines)


def test_secrets_are_masked_unless_asked_for() -> None:
    dsn, token = "u:hidden@tcp(db:3306)/mail", "hidden"
    keys = {"sql_dsn": dsn, "api_token": token, "processors": {"hot": {"password": token}}}
    config = AppConfig.model_validate({"backend_config": keys})
    text = toml(readable(config))
    assert "hidden" not in text
    assert 'sql_dsn = "u:***@tcp(db:3306)/mail"' in text
    assert loads(toml(readable(config, mask=False)), format="toml") == config
