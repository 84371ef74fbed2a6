"""What `redis_interface` and the keys beside it may say."""

from __future__ import annotations

from typing import Any

import pytest

from guerrilla.engine.chain import read_options
from guerrilla.errors import ConfigError
from guerrilla.processors.redis import Redis
from guerrilla.redisstore.place import RedisOptions, RedisPlace, parse_interface


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:6379", "127.0.0.1", 6379),
        (" redis.example.com:7000 ", "redis.example.com", 7000),
        ("redis.example.com", "redis.example.com", 6379),
        (":7000", "127.0.0.1", 7000),
        ("[::1]:7000", "::1", 7000),
        ("[::1]", "::1", 6379),
    ],
)
def test_an_address(text: str, host: str, port: int) -> None:
    assert parse_interface(text) == RedisPlace(host=host, port=port)


@pytest.mark.parametrize("text", ["unix:/run/redis.sock", "unix:///run/redis.sock"])
def test_a_socket(text: str) -> None:
    assert parse_interface(text) == RedisPlace(path="/run/redis.sock")
    assert str(parse_interface(text)) == "unix:/run/redis.sock"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("redis://h", RedisPlace(host="h", tls=False)),
        ("rediss://h:1/", RedisPlace(host="h", port=1, tls=True)),
        ("redis://[::1]:1/2", RedisPlace(host="::1", port=1, database=2, tls=False)),
        (
            "redis://u%40:p%2F@h/3",
            RedisPlace(host="h", username="u@", password="p/", database=3, tls=False),
        ),
        ("redis://:p@q@h", RedisPlace(host="h", password="p@q", tls=False)),
        ("redis://u@h", RedisPlace(host="h", username="u", tls=False)),
    ],
)
def test_a_url(text: str, place: RedisPlace) -> None:
    assert parse_interface(text) == place
    assert "p" not in repr(place).replace("port", "").replace("path", "").replace("RedisPlace", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b:1",
        "h:0",
        "h:65536",
        "h:x",
        "h:1:2",
        "h:1/0",
        "[::1",
        "[]:1",
        "[::1]7000",
        "::1",
        "u@h:1",
        "unix:redis.sock",
        "unix:",
        "http://h:1",
        "redis://h/x",
        "redis://h/-1",
        "redis://h?db=1",
        "redis://",
        "redis://h:x",
        "redis://h/\u0663",
        "h:" + "9" * 5_000,
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        parse_interface(text)


def test_keys_and_url_are_put_together() -> None:
    place = RedisOptions(
        redis_interface="rediss://h:1/2", redis_username="u", redis_password="p", redis_database=2
    ).place()
    assert place == RedisPlace(host="h", port=1, username="u", password="p", database=2, tls=True)
    assert RedisOptions(redis_interface="redis://h:1").place().database == 0
    assert RedisOptions().place() == RedisPlace(
        host="127.0.0.1", username="", password="", database=0, tls=False
    )


@pytest.mark.parametrize(
    ("keys", "start"),
    [
        ({"redis_interface": "h:x"}, "backend_config.redis_interface: expected an address"),
        ({"redis_expire_seconds": -1}, "backend_config.redis_expire_seconds: "),
        ({"redis_expire_seconds": 2**62}, "backend_config.redis_expire_seconds: "),
        ({"redis_expire_seconds": "soon"}, "backend_config.redis_expire_seconds: "),
        ({"redis_database": -1}, "backend_config.redis_database: "),
        ({"redis_tls": "maybe"}, "backend_config.redis_tls: "),
        ({"redis_timeout": 0}, "backend_config.redis_timeout: "),
        ({"redis_timeout": "long"}, "backend_config.redis_timeout: "),
        ({"redis_password": 12}, "backend_config.redis_password: "),
        ({"redis_interface": "redis://:hidden@h", "redis_password": "hidden2"}, "redis_password: "),
        ({"redis_interface": "redis://h/1", "redis_database": 2}, "redis_database: "),
        ({"redis_interface": "redis://h/1", "redis_tls": True}, "redis_tls: "),
        ({"redis_interface": "unix:/s", "redis_tls": True}, "redis_tls: "),
        ({"redis_tls_private_key_file": "k"}, "redis_tls_private_key_file and "),
        ({"redis_interface": "http://u:hidden@h"}, "backend_config.redis_interface: expected"),
    ],
)
def test_options_that_cannot_be_name_their_key(keys: dict[str, Any], start: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_options("Redis", Redis, keys)
    (problem,) = raised.value.problems
    assert start in problem
    assert problem.startswith("backend_config.")
    assert "hidden" not in problem
    assert "\n" not in problem


def test_the_password_is_in_no_repr() -> None:
    options = RedisOptions(redis_password="hidden")
    assert "hidden" not in repr(options)
    assert "hidden" not in repr(options.place())


def test_options_of_go_guerrilla_are_taken() -> None:
    options = read_options(
        "Redis", Redis, {"redis_interface": "127.0.0.1:6379", "redis_expire_seconds": 7200}
    )
    assert isinstance(options, RedisOptions)
    assert (options.redis_expire_seconds, options.redis_timeout) == (7200, 5.0)
