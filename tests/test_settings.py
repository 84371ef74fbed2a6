"""What the core is told, and where in the config its answers belong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from guerrilla._core import Core
from guerrilla.config import AppConfig, from_mapping
from guerrilla.config.app import MIN_MEMORY
from guerrilla.config.tls import TLS12_CIPHERS
from guerrilla.running import opening
from guerrilla.running.settings import core_settings, place, placed
from tests.configs import KEY_FILES, server, tls
from tests.daemons import Make, config, problems

if TYPE_CHECKING:
    from guerrilla._core import CoreSettings, SharedMemory


def settings(raw: dict[str, Any]) -> dict[str, Any]:
    """Those of the only server, at one address."""
    whole = from_mapping(raw)
    made = core_settings(
        whole,
        [(whole.servers[0], "127.0.0.1:25")],
        tasks={"default": ["save", "validate"]},
        log_level=10,
    )
    assert made["spill_size"] == whole.spill_size
    return dict(made["servers"][0])


def test_every_limit_of_a_server_is_told_to_the_core() -> None:
    """By the name of its key, whatever its value."""
    keys: dict[str, Any] = {
        "max_size": 1,
        "timeout": 10.0,
        "max_clients": 3,
        "max_recipients": 4,
        "max_errors": 5,
        "max_idle_commands": 6,
        "max_header_size": 7,
        "max_received_hops": 8,
        "helo_required": False,
        "bare_newline": "keep",
        "data_timeout": 9.0,
        "min_data_rate": 10,
        "proxy_protocol": True,
        "trusted_proxies": ["10.0.0.0/8"],
        "max_messages": 11,
        "max_connections_per_ip": 12,
        "max_connection_rate_per_ip": 13,
        "ipv6_prefix": 48,
        "greet_delay": 1.5,
        "protocol": "lmtp",
        "extensions": {"DSN": False},
        "backend": "default",
    }
    auth: dict[str, Any] = {"required": True, "relay": True, "allow_plaintext": True}
    auth |= {"failure_delay": 3.0, "max_failures": 7}
    made = settings(server(xclient_on=True, unix_mode="0640", auth=auth, **keys))
    assert made == keys | {
        "name": "127.0.0.1:25",
        "address": "127.0.0.1:25",
        "unix_mode": 0o640,
        "host_name": made["host_name"],
        "xclient": True,
        "tls": None,
        "auth": {"offered": False, **auth},
    }


@pytest.mark.parametrize(
    ("processes", "part"), [(1, 64 * 2**20), (4, 16 * 2**20), (10_000, MIN_MEMORY)]
)
def test_each_process_has_its_part_of_the_memory(processes: int, part: int) -> None:
    """Without which each would take all of it; none has less than any mail needs."""
    whole = from_mapping({"max_memory": "64 MiB"})
    made = core_settings(whole, [], tasks={}, log_level=10, processes=processes)
    assert made["max_memory"] == part


def test_tls_is_told_as_it_takes_effect() -> None:
    """Without what is gone, each name once, the pair of the section first."""
    made = settings(
        tls(
            start_tls_on=True,
            tls_always_on=True,
            required=True,
            root_cas_file="r",
            protocols=["tls1.0", "tls1.2"],
            ciphers=[
                "TLS_RSA_WITH_RC4_128_SHA",
                "TLS_AES_256_GCM_SHA384",
                "TLS_AES_128_GCM_SHA256",
                "TLS_AES_256_GCM_SHA384",
            ],
            curves=["P521", "x25519"],
            prefer_server_cipher_suites=True,
            certificates=[{"private_key_file": "k1", "public_key_file": "c1"}],
            **KEY_FILES,
        )
    )
    assert made["tls"] == {
        "start_tls": False,
        "always_on": True,
        "required": True,
        "certificates": [("k", "c"), ("k1", "c1")],
        "root_cas_file": "r",
        "client_auth": "VerifyClientCertIfGiven",
        "protocols": ["tls1.2"],
        "ciphers": ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", *TLS12_CIPHERS],
        "curves": ["X25519"],
        "prefer_server_ciphers": True,
    }


def test_names_that_are_not_given_are_all() -> None:
    """As an empty list."""
    made = settings(tls(start_tls_on=True, **KEY_FILES))["tls"]
    assert (made["start_tls"], made["always_on"], made["required"]) == (True, False, False)
    assert (made["ciphers"], made["curves"]) == ([], [])
    assert made["protocols"] == ["tls1.2", "tls1.3"]
    assert (made["root_cas_file"], made["client_auth"]) == (None, "NoClientCert")


def test_a_section_that_is_off_reads_no_file() -> None:
    """Whatever it names."""
    assert settings(tls(**KEY_FILES))["tls"] is None


# Where it belongs

SERVERS = {
    "servers": [
        {"listen_interface": ":25", "is_enabled": False},
        {"listen_interface": "127.0.0.1:25"},
        {"listen_interface": ":2525"},
        {"listen_interface": "unix:/a"},
        {"listen_interface": "unix:/a: tls"},
    ]
}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("127.0.0.1:25: tls.x: why", ["servers[1].tls.x: why"]),
        (":2525: tls.x: why\n:2525: tls.x: why", ["servers[2].tls.x: why"]),
        ("unix:/a: tls.x: why", ["servers[3].tls.x: why"]),
        ("unix:/a: tls: tls.x: why", ["servers[4].tls.x: why"]),
        (":25: tls.x: why", [":25: tls.x: why"]),
        ("allowed_hosts: bad: why", ["allowed_hosts: bad: why"]),
        (
            ":2525: tls.x: why\n127.0.0.1:25: tls.y: why",
            ["servers[2].tls.x: why", "servers[1].tls.y: why"],
        ),
    ],
)
def test_what_the_core_refuses_is_told_by_its_key(text: str, lines: list[str]) -> None:
    """Once for a server, however many addresses it has."""
    assert placed(from_mapping(SERVERS), text) == lines


def test_a_server_of_the_core_has_a_place() -> None:
    """The name is what is left of one that nobody knows."""
    whole = from_mapping(SERVERS)
    assert place(whole, "unix:/a: tls") == "servers[4]"
    assert place(whole, ":25") == ":25"
    assert place(AppConfig.default(), "127.0.0.1:2525") == "servers[0]"


def refusing(settings: CoreSettings, memory: SharedMemory | None = None) -> Core:
    """A core that cannot use the files of TLS."""
    bad = [one["name"] for one in settings["servers"] if one["tls"] is not None]
    if bad:
        raise ValueError("\n".join(f"{name}: tls.private_key_file: k: no" for name in bad))
    return Core(settings, memory)


def test_tls_and_ports_that_fail_are_told_together(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With keys, each server once."""
    monkeypatch.setattr(opening, "Core", refusing)
    raw = config()
    on = {"tls": {"start_tls_on": True, **KEY_FILES}}
    socket_file = tmp_path / "no" / "folder"
    raw["servers"] = [
        {"listen_interface": f"unix:{socket_file}"},
        {"listen_interface": "localhost:0", **on},
        {"listen_interface": "127.0.0.1:0", **on},
    ]
    found = problems(make(raw))
    assert found[:2] == (
        "servers[1].tls.private_key_file: k: no",
        "servers[2].tls.private_key_file: k: no",
    )
    assert len(found) == 3
    assert found[2].startswith(f"servers[0].listen_interface: unix:{socket_file}: ")
