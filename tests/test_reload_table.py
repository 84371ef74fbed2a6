"""`docs/reload.md` says of every key when it takes effect; tests of running daemons show it."""

from __future__ import annotations

from typing import Final

from guerrilla.config import AppConfig, BackendConfig, ServerConfig, TLSConfig
from guerrilla.config.app import SpoolConfig
from guerrilla.config.section import Section, key_of
from guerrilla.config.server import AuthConfig
from guerrilla.config.unbuilt import unbuilt_keys
from tests import (  # they say what they show when they are loaded
    test_auth_daemon,
    test_backends,
    test_breaker,
    test_reload,
    test_reload_backend,
    test_reload_process,
    test_reload_sessions,
    test_reload_tls,
    test_spooled_reload,
    test_validate_cache,
)
from tests.reloads import SHOWN, TABLE

MODULES: Final = (
    test_auth_daemon,
    test_backends,
    test_breaker,
    test_reload,
    test_reload_backend,
    test_reload_process,
    test_reload_sessions,
    test_reload_tls,
    test_spooled_reload,
    test_validate_cache,
)

LATER: Final = "not built yet"
SECTIONS: Final[dict[str, type[Section]]] = {
    "": AppConfig,
    "servers[].": ServerConfig,
    "servers[].auth.": AuthConfig,
    "servers[].tls.": TLSConfig,
    "backend_config.": BackendConfig,
    "spool.": SpoolConfig,
}

UNPROBED: Final = {
    "servers[].min_data_rate": "what it does is seen only after the first minute of a DATA",
}
"""Keys of the table that no test of a running daemon can show, each with the reason."""


def keys() -> set[str]:
    """Every key of every model; of sections that have rows of their own those alone."""
    found = {
        f"{path}{key_of(section, field)}"
        for path, section in SECTIONS.items()
        for field in section.model_fields
    }
    return found - {"servers", "servers[].auth", "servers[].tls", "backend_config", "spool"}


def test_every_key_has_a_row_and_every_row_a_key() -> None:
    """And two rows for what a key of a model cannot say: a list, and keys of processors."""
    assert set(TABLE) == keys() | {"servers[]", "backend_config.*"}


def test_what_is_not_built_has_no_effect_yet() -> None:
    """Whoever builds one says when it takes effect."""
    later = {key for key, when in TABLE.items() if when == LATER}
    assert later == {
        key.partition(".auth.")[0] + (".auth" if ".auth." in key else "") for key in unbuilt_keys()
    }


def test_every_row_is_shown_by_a_daemon_that_runs() -> None:
    """Just as the row says; a key that nothing can show has its reason."""
    assert all(module.__doc__ for module in MODULES)
    built = {key: when for key, when in TABLE.items() if when != LATER}
    assert {key: when for key, when in built.items() if key not in UNPROBED} == SHOWN
