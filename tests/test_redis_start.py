"""The Redis stage at start: the ways to a server, and what keeps it from starting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guerrilla.cli import main
from guerrilla.errors import ConfigError, StartError
from guerrilla.redisstore import messages
from guerrilla.testing import make_envelope
from tests.certificates import Authority
from tests.redises import (
    CHAIN,
    Start,
    codes,
    save,
)
from tests.services.redis import DURABLE, Babbler, RedisServer

# --- The ways there ------------------------------------------------------------------------------


def test_a_unix_socket(empty_redis: RedisServer) -> None:
    assert codes(save(f"unix:{empty_redis.socket}", make_envelope())) == [250]
    assert len(empty_redis.values()) == 1


@pytest.mark.parametrize("url", [False, True])
def test_another_database(empty_redis: RedisServer, url: bool) -> None:
    where = f"redis://{empty_redis.address}/3" if url else empty_redis.address
    options: dict[str, Any] = {} if url else {"redis_database": 3}
    assert codes(save(where, make_envelope(), **options)) == [250]
    assert (len(empty_redis.values(0)), len(empty_redis.values(3))) == (0, 1)


def test_a_password(own_redis: Start) -> None:
    server = own_redis(secret="p@ss/word: 1")
    server.ask("ACL", "SETUSER", "mail", "on", ">other", "~*", "+set", "+setex", "+ping")
    ways: list[tuple[str, dict[str, Any]]] = [
        (server.address, {"redis_password": "p@ss/word: 1"}),
        (f"redis://:p%40ss%2Fword%3A 1@{server.address}", {}),
        (server.address, {"redis_username": "mail", "redis_password": "other"}),
        (f"redis://mail:other@{server.address}/0", {"redis_password": "other"}),
    ]
    for where, options in ways:
        assert codes(save(where, make_envelope(), **options)) == [250]
    assert len(server.values()) == len(ways)


def test_tls(own_redis: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "redis")
    server = own_redis(tls=authority)
    client = authority.issue("/CN=guerrilla")
    files = {
        "redis_tls_root_cas_file": str(authority.certificate),
        "redis_tls_private_key_file": str(client.key),
        "redis_tls_public_key_file": str(client.certificate),
    }
    envelopes = [make_envelope(body="x" * 100_000) for _ in range(20)]
    assert codes(save(server, *envelopes, redis_tls=True, **files)) == [250] * 20
    assert codes(save(f"rediss://{server.address}", make_envelope(), **files)) == [250]
    assert len(server.values()) == 21
    for wrong, kind, words in (
        ({**files, "redis_tls_root_cas_file": ""}, StartError, "certificate verify failed"),
        ({"redis_tls_root_cas_file": files["redis_tls_root_cas_file"]}, StartError, "_interface: "),
        ({**files, "redis_tls_root_cas_file": "/nowhere.crt"}, ConfigError, "No such file"),
    ):
        with pytest.raises(kind, match=words):
            save(server, make_envelope(), redis_tls=True, **wrong)
    with pytest.raises(StartError, match="redis_interface"):
        save(server, make_envelope())


# --- What cannot start ---------------------------------------------------------------------------


def test_nothing_listens_there(tmp_path: Path) -> None:
    with Babbler(b"") as gone:
        where = gone.address
    with pytest.raises(StartError, match=rf"redis_interface: redis {where}: .*refused"):
        save(where, make_envelope())
    with pytest.raises(StartError, match=r"redis_interface: redis unix:.*No such file"):
        save(f"unix:{tmp_path}/none.sock", make_envelope())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "redis_password: .* NOAUTH Authentication required"),
        ({"redis_password": "wrong-secret"}, "redis_password: .* WRONGPASS"),
        (
            {"redis_username": "nobody", "redis_password": "wrong-secret"},
            "redis_username or redis_password: .* WRONGPASS",
        ),
        ({"redis_password": "right", "redis_database": 9}, "redis_interface: .* out of range"),
    ],
)
def test_redis_does_not_let_it_in(own_redis: Start, options: dict[str, Any], words: str) -> None:
    server = own_redis(secret="right")
    with pytest.raises((ConfigError, StartError), match=words) as raised:
        save(server, make_envelope(), **options)
    # What is wrong in a config stops any start; a Redis that is away may come.
    assert isinstance(raised.value, ConfigError) == ("password" in words)
    assert "wrong-secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("hello", [b"+HELLO\r\n", b"220 mx ESMTP\r\n", b"$99\r\n", b":x\r\n", b""])
def test_what_answers_is_no_redis(hello: bytes) -> None:
    with (
        Babbler(b"+OK\r\n", hello=hello) as babbler,
        pytest.raises(StartError, match="redis_interface"),
    ):
        save(babbler, make_envelope(), redis_timeout=0.2)


def test_start_says_what_a_250_is_worth(own_redis: Start, caplog: pytest.LogCaptureFixture) -> None:
    forgetful, hasty = own_redis(), own_redis(settings={"appendonly": "yes"})
    durable = own_redis(settings=DURABLE)
    messages._warned.clear()
    for server in (forgetful, hasty, durable, forgetful, durable):
        save(server, make_envelope())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert forgetful.address in lines[0]
    assert "appendonly is 'no'" in lines[0]
    assert hasty.address in lines[1]
    assert "appendfsync is 'everysec'" in lines[1]


@pytest.mark.parametrize(
    ("settings", "seconds", "is_warned"),
    [
        ({"maxmemory-policy": "allkeys-lru", "maxmemory": "100mb"}, 0, True),
        ({"maxmemory-policy": "volatile-ttl", "maxmemory": "100mb"}, 60, True),
        ({"maxmemory-policy": "volatile-ttl", "maxmemory": "100mb"}, 0, False),
        ({"maxmemory-policy": "noeviction", "maxmemory": "100mb"}, 60, False),
        ({"maxmemory-policy": "allkeys-lru", "maxmemory": "0"}, 60, False),
    ],
)
def test_start_warns_of_a_redis_that_forgets(
    own_redis: Start,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    seconds: int,
    is_warned: bool,
) -> None:
    server = own_redis(settings={**DURABLE, **settings})
    messages._warned.clear()
    for _ in range(2):
        save(server, make_envelope(), redis_expire_seconds=seconds)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == is_warned
    assert all(f"maxmemory-policy is '{settings['maxmemory-policy']}'" in line for line in lines)


@pytest.mark.parametrize(("password", "status"), [("", 0), ("hidden", 1)])
def test_check_tries_it_and_shows_no_password(
    empty_redis: RedisServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    password: str,
    status: int,
) -> None:
    file = tmp_path / "guerrilla.toml"
    file.write_text(
        f'allowed_hosts = ["."]\n[backend_config]\nsave_process = "{CHAIN}"\n'
        f'redis_interface = "redis://:{password}@{empty_redis.address}"\n'
        '[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
    )
    assert main(["check", "--connect", "-c", str(file)]) == status
    captured = capsys.readouterr()
    assert "hidden" not in captured.out + captured.err
    refused = f"backend_config.redis_password: redis {empty_redis.address}: "
    assert (refused in captured.err) is bool(status)
