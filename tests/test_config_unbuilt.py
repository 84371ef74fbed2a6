"""Keys that are read and checked, and whose feature comes later."""

from typing import Any

import pytest

from guerrilla.config import from_mapping, unbuilt
from tests.configs import KEY_FILES, backend, server, tls


@pytest.mark.parametrize(
    ("raw", "paths"),
    [
        ({"dashboard": {"tick_interval": 1}}, ["dashboard"]),
        ({"metrics": {"listen_interface": ":1"}}, ["metrics"]),
    ],
)
def test_a_key_whose_feature_comes_later_is_named(raw: dict[str, Any], paths: list[str]) -> None:
    """With what is not built, and what to do."""
    lines = unbuilt(from_mapping(raw))
    assert [line.partition(": ")[0] for line in lines] == paths
    for line in lines:
        assert " is not built yet; " in line
        assert line.endswith("remove the key") or ("remove the key, or set it to " in line)


def test_an_unbuilt_line_says_what_the_default_is() -> None:
    """As a config would write it."""
    raw = {**server(protocol="lmtp"), "metrics": {"listen_interface": ":1"}}
    assert unbuilt(from_mapping(raw)) == ["metrics: metrics is not built yet; remove the key"]


@pytest.mark.parametrize(
    "raw",
    [
        {
            "processes": 4,
            "shared_sockets": True,
            "spill_size": "2 MiB",
            "watch_config": True,
            "log_format": "json",
        },
        {"spool": {}, "backends": {}, "dashboard": {"is_enabled": False}, "metrics": {}},
        {"control_socket": "/s", "user": "", "group": None},
        {"user": "mail", "group": 8},
        {"max_memory": "1 GiB", "shutdown_timeout": 1, "pid_file": "p", "log_file": "off"},
        server(helo_required=False, max_recipients=5, max_errors=1, max_idle_commands=2),
        server(
            max_header_size=1,
            max_received_hops=1,
            bare_newline="reject",
            data_timeout=1,
            min_data_rate=1,
        ),
        server(is_enabled=False, max_size=1, timeout=1, max_clients=1, host_name="a"),
        server(extensions={"DSN": False, "chunking": True}),
        server(auth={"required": False}, extensions={}, protocol="SMTP", backend="default"),
        server(xclient_on=True, proxy_protocol=True, trusted_proxies=["10.0.0.0/8"]),
        server(log_file="a.log", log_level="error"),
        server(max_messages=1, max_connections_per_ip=1, max_connection_rate_per_ip=1),
        server(ipv6_prefix=48, greet_delay="1s"),
        tls(start_tls_on=True, required=True, watch=True, certificates=[KEY_FILES]),
        tls(tls_always_on=True, curves=["P256"], root_cas_file="r", **KEY_FILES),
        backend(
            save_batch_size=1, save_concurrency=2, validate_workers_size=3, processors={"hot": {}}
        ),
        backend(save_workers_size=2, validate_process="SQL", breaker_reset=1, sql_dsn="a.db"),
        backend(**{"import": ["a"], "auth_process": "File", "save_process": "2500|250|SQL:hot"}),
    ],
)
def test_what_is_built_or_not_set_can_start(raw: dict[str, Any]) -> None:
    """A key at its default is not set."""
    assert unbuilt(from_mapping(raw)) == []
