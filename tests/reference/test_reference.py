"""The sample, the schema and `docs/config.md` say what the models say, all of it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guerrilla.cli import main
from guerrilla.config import (
    AppConfig,
    BackendConfig,
    Section,
    ServerConfig,
    from_mapping,
    load,
    loads,
    unbuilt,
)
from guerrilla.config.section import key_of, section_in
from guerrilla.config.unbuilt import unbuilt_keys
from guerrilla.config.writing import readable
from guerrilla.engine.registry import Registry
from guerrilla.processors import TABLE
from guerrilla.reference.keys import EXAMPLES, groups, options_of
from guerrilla.reference.page import page
from guerrilla.reference.sample import sample
from guerrilla.reference.schema import schema
from guerrilla.running.startup import config_problems
from tests.configs import backend, server, tls
from tests.reference.validator import errors

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "config.md"
WRITE = "GUERRILLA_WRITE_TABLES"
"""A set variable has the page written anew."""

_COMMENTED = re.compile(r"^#(?=[a-z_\[])", re.MULTILINE)


def model_keys(section: type[Section], path: str = "") -> Iterator[str]:
    """The path of every key, from the models themselves."""
    for field, info in section.model_fields.items():
        where = f"{path}{key_of(section, field)}"
        inner = section_in(info.annotation)
        if inner is None or (inner is BackendConfig and field == "backends"):
            yield where
        else:
            many = "[]" if "tuple" in str(info.annotation) else ""
            yield from model_keys(inner, f"{where}{many}.")


def processor_keys() -> set[str]:
    fields = (name for reader in TABLE.names for name in options_of(reader).model_fields)
    return {f"backend_config.{name}" for name in fields}


EVERY = {*model_keys(AppConfig), *processor_keys()}


# The keys


def test_no_key_is_forgotten_and_none_told_twice() -> None:
    paths = [key.path for group in groups() for key in group.keys]
    assert len(paths) == len(set(paths))
    assert set(paths) == EVERY
    assert {"servers[].tls.certificates[].public_key_file", "spool.max_age"} <= EVERY
    assert {"backend_config.import", "backend_config.sql_dsn", "backends"} <= EVERY


def test_every_key_has_a_meaning() -> None:
    keys = [key for group in groups() for key in group.keys]
    assert [key.path for key in keys if not key.meaning.endswith((".", "off.", "`"))] == []
    assert [key.path for key in keys if not key.kind] == []


def test_the_unbuilt_are_those_that_a_start_refuses() -> None:
    told = {key.path for group in groups() for key in group.keys if not key.is_built}
    told |= {group.path for group in groups() if not group.is_built}
    assert told == set(unbuilt_keys())
    refused = {
        line.partition(": ")[0].replace("servers[0]", "servers[]")
        for line in unbuilt(from_mapping(ALL_UNBUILT))
    }
    assert refused == told


ALL_UNBUILT = {
    "processes": 2, "control_socket": "/s", "watch_config": True, "log_format": "json",
    "spool": {"path": "/s"}, "backends": {"hot": {}},
    "metrics": {"listen_interface": ":1"},
    "dashboard": {"tick_interval": 1},
    **server(
        log_file="a", protocol="lmtp", extensions={"DSN": True}, backend="hot",
        auth={"required": True, "relay": True, "allow_plaintext": True},
    ),
}  # fmt: skip


def test_secrets_are_marked_in_all_three() -> None:
    marked = {key.path for group in groups() for key in group.keys if key.is_secret}
    assert "backend_config.sql_dsn" in marked
    names = {path.removeprefix("backend_config.") for path in marked}
    rows = [line for line in page().splitlines() if "never shown" in line]
    assert {row.split("`")[1] for row in rows} == names
    properties = schema()["$defs"]["BackendConfig"]["properties"]
    assert {name for name, value in properties.items() if "writeOnly" in value} == names
    text = re.sub(r"\n# ", " ", sample())
    assert set(re.findall(r"never shown\.\n#?(\w+) = ", text)) == names


# The sample


def test_the_sample_is_the_config_without_a_file() -> None:
    config = loads(sample(), format="toml")
    assert config == AppConfig.default()
    assert config.warnings() == []


def test_the_sample_without_its_marks_has_every_key_and_loads() -> None:
    """So an example is never one that is refused."""
    text = _COMMENTED.sub("", sample())
    config = loads(text, format="toml")
    assert config.pid_file == "guerrilla.pid"
    assert config.servers[0].tls.certificates
    written = set(paths_in(tomllib.loads(text)))
    assert {path for path in EVERY if path not in written} == set()
    assert config_problems(config, Registry(), None, None) == unbuilt(config)


def paths_in(value: Any, path: str = "") -> Iterator[str]:
    for name, item in value.items():
        where = f"{path}{name}"
        if isinstance(item, dict) and item:
            yield from paths_in(item, f"{where}.")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            yield from paths_in(item[0], f"{where}[].")
        else:
            yield where


def test_only_what_has_no_default_needs_an_example() -> None:
    without = {key.path for group in groups() for key in group.keys if key.initial is None}
    assert without == set(EXAMPLES)


def test_the_lines_of_the_sample_are_short() -> None:
    assert max(map(len, sample().splitlines())) <= 100
    assert "\n\n\n" not in sample()


# The schema


def test_the_schema_takes_what_loads() -> None:
    examples = [load(path) for path in (ROOT / "examples").glob("*.toml")]
    seed = ROOT / "tests" / "data" / "goguerrilla.conf.json"
    for raw in (
        {},
        json.loads(seed.read_text(encoding="utf-8")),
        tomllib.loads(sample()),
        tomllib.loads(_COMMENTED.sub("", sample())),
        ALL_UNBUILT,
        {"user": 8, "group": "mail"},
        server(timeout="1m", max_size="1 MiB", extensions={"DSN": False}),
        *(readable(config) for config in [AppConfig.default(), *examples]),
        *(json.loads(config.model_dump_json(by_alias=True)) for config in examples),
    ):
        assert errors(schema(), raw) == []
        from_mapping(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {"max_clients": 1},
        {"log_level": "loud"},
        {"user": -1},
        {"processes": -1},
        {"processes": "2"},
        {"servers": [{}]},
        server(max_clients=0),
        server(ipv6_prefix=129),
        server(timeout=-1),
        server(timeout=0),
        server(max_size=True),
        server(extensions={"DSN": "no"}),
        tls(watch=1),
        tls(certificates=[{"private_key_file": "k"}]),
        backend(save_workers_size=0),
        backend(log_received_mails="yes"),
        backend(**{"import": "a"}),
        backend(sql_max_open_conns=-1),
        {"dashboard": {"unique_helo_ratio": 2}},
    ],
)
def test_the_schema_refuses_what_does_not_load(raw: dict[str, Any]) -> None:
    assert len(errors(schema(), raw)) >= 1


def test_the_schema_knows_every_key() -> None:
    found = schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    names = set(found["$defs"]["BackendConfig"]["properties"])
    own = {key_of(BackendConfig, field) for field in BackendConfig.model_fields}
    assert names == own | {path.rpartition(".")[2] for path in processor_keys()}
    text = json.dumps(found)
    assert '"ge"' not in text
    assert "Not built yet. Not built yet." not in text
    unbuilt_ones = [key for key in found["properties"] if key in unbuilt_keys()]
    for key in unbuilt_ones:
        assert found["properties"][key]["description"].endswith("Not built yet."), key
    assert {"metrics", "dashboard"} <= set(unbuilt_ones)
    assert set(found["$defs"]["ServerConfig"]["properties"]) == set(ServerConfig.model_fields)


# The page and the command


def test_the_page_is_made_from_the_models() -> None:
    if os.environ.get(WRITE):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), f"set {WRITE}=1 to write it anew"


def test_the_page_has_a_row_for_every_key() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", page(), re.MULTILINE)
    assert len(rows) == len(EVERY)
    assert set(rows) == {path.rpartition(".")[2] for path in EVERY}
    for line in page().splitlines():
        if line.startswith("| `"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_the_defaults_of_the_page_are_those_of_the_models() -> None:
    """Read back as TOML, in a config of nothing else."""
    for group in groups():
        keys = {key.name: key.default for key in group.keys if key.default is not None}
        if group.path in ("", "backend_config"):
            config = from_mapping(keys if not group.path else {group.path: keys})
            plain = AppConfig.default() if not group.path else from_mapping({group.path: {}})
            for name in keys if not group.readers else ():
                field = "import_" if name == "import" else name
                mine, other = (
                    getattr(one.backend_config if group.path else one, field)
                    for one in (config, plain)
                )
                assert mine == other, name


def test_the_command_writes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--sample"]) == 0
    assert capsys.readouterr().out == sample()
    assert main(["config", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
