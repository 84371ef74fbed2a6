"""What of a config's AUTH stops a start, and what of it works and is hardly meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guerrilla.cli import main
from guerrilla.config import from_mapping
from guerrilla.engine.backend import BackendFactory
from guerrilla.engine.base import Processor
from guerrilla.engine.registry import DECORATED, Registry
from guerrilla.running.parts import Plan
from guerrilla.running.startup import config_problems
from guerrilla.testing import GuerrillaServer
from tests.configs import KEY_FILES
from tests.passwords import quick_bcrypt, write_users


class Door(Processor):
    """Whose outcome does not matter here."""

    def authenticate(self, transaction: object, credentials: object) -> None: ...


def plan(
    *servers: dict[str, Any], factory: BackendFactory | None = None, auth_process: str = "Door"
) -> Plan:
    registry = Registry(DECORATED)
    registry.add("Door", Door)
    config = from_mapping(
        {
            "servers": [
                {"listen_interface": f"127.0.0.1:{2525 + index}", **one}
                for index, one in enumerate(servers)
            ],
            "backend_config": {"save_process": "SQL", "auth_process": auth_process},
            "backends": {"open": {"save_process": "SQL", "sql_dsn": "a.db"}},
        }
    )
    return Plan(config, registry, None, factory)


def warnings(*servers: dict[str, Any], **more: Any) -> list[str]:
    return [line for line in plan(*servers, **more).warnings() if "auth" in line]


def problems(*servers: dict[str, Any], **more: Any) -> list[str]:
    found = plan(*servers, **more)
    told = config_problems(found.config, found.registry, None, found.backend)
    return [line for line in told if ".auth.required: nobody could send" in line]


TLS = {"start_tls_on": True, **KEY_FILES}
IMPLICIT = {"tls_always_on": True, **KEY_FILES}


# What stops a start


def test_required_where_nobody_checks_credentials_stops_the_start() -> None:
    wants = {"auth": {"required": True}, "tls": TLS}
    assert problems(wants) == []
    assert problems(wants, auth_process="") == [
        "servers[0].auth.required: nobody could send, as backend_config has no auth_process"
    ]
    assert problems({}, {**wants, "backend": "open"}) == [
        "servers[1].auth.required: nobody could send, as backends.open has no auth_process"
    ]
    assert problems({**wants, "is_enabled": False}, {}, auth_process="") == []


def test_a_proxy_may_be_who_checks() -> None:
    """By XCLIENT LOGIN, as nginx does it."""
    proxied = {"xclient_on": True, "auth": {"required": True, "relay": True}}
    assert problems(proxied, auth_process="") == []
    assert warnings(proxied, auth_process="") == []
    told = warnings(proxied)
    assert [line.partition(": ")[0] for line in told] == ["backend_config.auth_process"]


def test_a_backend_of_ones_own_may_be_who_checks() -> None:
    wants = {"auth": {"required": True}, "tls": TLS}
    keeper = GuerrillaServer(users={"joe": "x"}).daemon._backend
    assert problems(wants, factory=keeper, auth_process="") == []
    silent = GuerrillaServer().daemon._backend
    assert len(problems(wants, factory=silent, auth_process="")) == 1


# What works and is hardly meant


@pytest.mark.parametrize(
    "server",
    [
        {"tls": TLS},
        {"tls": TLS, "auth": {"required": True, "relay": True}},
        {"tls": IMPLICIT, "listen_interface": ":465", "auth": {"allow_plaintext": True}},
        {"tls": {**TLS, "required": True}, "listen_interface": ":587", "auth": {"relay": True}},
        {"auth": {"required": True, "allow_plaintext": True}},
        {"listen_interface": "[::1]:25", "auth": {"allow_plaintext": True}},
        {"listen_interface": "localhost:25", "auth": {"allow_plaintext": True}},
        {"listen_interface": "unix:/run/a.sock", "auth": {"allow_plaintext": True}},
    ],
)
def test_what_is_meant_is_not_warned_of(server: dict[str, Any]) -> None:
    assert warnings(server) == []


def test_keys_without_effect() -> None:
    told = warnings({"auth": {"relay": True, "allow_plaintext": True}}, auth_process="")
    assert told == [
        f"servers[0].auth.{key}: has no effect, as the backend default has no auth_process"
        for key in ("relay", "allow_plaintext")
    ]
    assert warnings({}, auth_process="") == []


def test_a_server_on_which_nobody_can_log_in() -> None:
    told = warnings({"tls": TLS}, {"auth": {"required": True, "relay": True}})
    assert [line.partition(":")[0] for line in told] == [
        "servers[1].auth.required",
        "servers[1].auth.relay",
    ]
    assert all("AUTH is offered within TLS alone and this server has none" in line for line in told)


def test_a_chain_that_is_never_asked() -> None:
    never = "backend_config.auth_process: is never asked, as no server that names it has TLS or "
    assert warnings({}) == [f"{never}auth.allow_plaintext"]
    assert warnings({}, {"tls": TLS}) == []
    assert warnings({}, {"tls": TLS, "backend": "open"}) == [f"{never}auth.allow_plaintext"]
    assert warnings({}, {"tls": TLS, "is_enabled": False}) == [f"{never}auth.allow_plaintext"]


@pytest.mark.parametrize("interface", [":25", "192.0.2.1:25", "[::]:25", "mx.example.com:25"])
def test_passwords_that_cross_the_network(interface: str) -> None:
    clear = {"listen_interface": interface, "auth": {"allow_plaintext": True}}
    (line,) = warnings(clear)
    assert line.startswith("servers[0].auth.allow_plaintext: passwords can cross the network in ")
    assert len(warnings({**clear, "tls": TLS})) == 1


# The commands


def test_check_looks_at_the_chain_and_opens_it_with_connect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = write_users(tmp_path / "users", "alice:hunter2")
    path = tmp_path / "guerrilla.toml"
    chain = "AuthFile|AuthFile:more"
    keys = f'save_process = "Debugger"\nauth_process = "{chain}"\nauth_file = "{users}"\n'
    path.write_text(f"[backend_config]\n{keys}")
    assert main(["check", "-c", str(path)]) == 0
    told = capsys.readouterr()
    assert "backend_config.auth_process: is never asked" in told.err
    assert "auth_cache_ttl = " in told.out
    assert main(["check", "-c", str(path), "--connect"]) == 1
    told = capsys.readouterr()
    assert f"backend_config.auth_file: {users}: line 1: no hash of bcrypt" in told.err
    assert "hunter2" not in told.err + told.out
    write_users(users, f"alice:{quick_bcrypt()}")
    assert main(["check", "-c", str(path), "--connect"]) == 0
    path.write_text(f"[backend_config]\n{keys}auth_fiel = 1\n")
    assert main(["check", "-c", str(path)]) == 1
    assert "did you mean 'auth_file'?" in capsys.readouterr().err
    path.write_text('[backend_config]\nauth_process = "AuthFle"\n')
    assert main(["check", "-c", str(path)]) == 1
    err = capsys.readouterr().err
    assert (
        "backend_config.auth_process: unknown processor 'AuthFle'; did you mean 'AuthFile'" in err
    )


def test_processors_says_who_checks_credentials(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["processors", "authfile"]) == 0
    assert capsys.readouterr().out.startswith("AuthFile  (built-in; auth_process)\n")
    assert main(["processors", "--json", "AuthFile"]) == 0
    assert '"chains": ["auth_process"]' in capsys.readouterr().out
