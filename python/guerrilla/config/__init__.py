"""The config: models, reading, and what is said about it.

A superset of Go-Guerrilla's JSON; TOML with the same keys is equal. Reading has four steps, a
module each: `parsing` (text to values), `folding` (key names), the models (`app`, `server`, `tls`,
`backend`), and `loading` (every problem as one line).
"""

from typing import Any

from guerrilla.config.app import (
    AppConfig,
    DashboardConfig,
    MetricsConfig,
    SpoolConfig,
)
from guerrilla.config.backend import (
    DEFAULT_SAVE_PROCESS,
    BackendConfig,
    check_processor_keys,
)
from guerrilla.config.chains import SPOOL, Stage, chain_names, chain_stages, stage_of
from guerrilla.config.fields import LogLevel
from guerrilla.config.listen import ListenAddress, parse_address, parse_listen_interface
from guerrilla.config.loading import from_mapping, load, loads
from guerrilla.config.masking import mask_text, mask_value
from guerrilla.config.section import Section
from guerrilla.config.server import (
    DEFAULT_LISTEN_INTERFACE,
    AuthConfig,
    ServerConfig,
    machine_name,
)
from guerrilla.config.tls import CertificateConfig, ClientAuthType, TLSConfig
from guerrilla.config.unbuilt import unbuilt

__all__ = [
    "DEFAULT_LISTEN_INTERFACE",
    "DEFAULT_SAVE_PROCESS",
    "SPOOL",
    "AppConfig",
    "AuthConfig",
    "BackendConfig",
    "CertificateConfig",
    "ClientAuthType",
    "DashboardConfig",
    "ListenAddress",
    "LogLevel",
    "MetricsConfig",
    "Section",
    "ServerConfig",
    "SpoolConfig",
    "Stage",
    "TLSConfig",
    "chain_names",
    "chain_stages",
    "check_processor_keys",
    "from_mapping",
    "load",
    "loads",
    "machine_name",
    "mask_text",
    "mask_value",
    "masked",
    "parse_address",
    "parse_listen_interface",
    "stage_of",
    "unbuilt",
]


def masked(config: Section) -> dict[str, Any]:
    """The effective config or a section of it, by config names, with secrets as `***`.

    Its values are those of JSON, so that it can be printed as JSON or TOML.
    """
    dumped = config.model_dump(mode="json", by_alias=True)
    return {key: mask_value(key, value) for key, value in dumped.items()}
