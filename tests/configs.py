"""Small configs, and what is wrong with them."""

import json
from typing import Any

import pytest

from guerrilla.config import loads
from guerrilla.errors import ConfigError

KEY_FILES = {"private_key_file": "k", "public_key_file": "c"}


def server(**keys: object) -> dict[str, Any]:
    """A config with one server."""
    return {"servers": [{"listen_interface": "127.0.0.1:25", **keys}]}


def tls(**keys: object) -> dict[str, Any]:
    """A config with one server with this `tls`."""
    return server(tls=keys)


def backend(**keys: object) -> dict[str, Any]:
    """A config with this `backend_config`."""
    return {"backend_config": keys}


def problems_of(raw: object) -> tuple[str, ...]:
    """What is wrong with a config, without the name of its file."""
    with pytest.raises(ConfigError) as caught:
        loads(json.dumps(raw), source="F")
    assert all(
        problem.startswith("F: ") and "\n" not in problem for problem in caught.value.problems
    )
    return tuple(problem.removeprefix("F: ") for problem in caught.value.problems)


def problem_of(raw: object) -> str:
    """The one thing that is wrong with a config, without the name of its file."""
    (problem,) = problems_of(raw)
    return problem
