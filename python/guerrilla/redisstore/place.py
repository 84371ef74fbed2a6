"""Where a Redis is and what it stores: the options of the processors that use one.

Needs no package of others: options are read where no Redis is used, too.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

import pydantic

from guerrilla.config.masking import mask_text
from guerrilla.engine.base import Processor
from guerrilla.errors import expected
from guerrilla.units import MAX_SECONDS, Seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["TOO_LONG", "Entry", "RedisOptions", "RedisPlace", "parse_interface"]

DEFAULT_PORT: Final = 6379
TOO_LONG: Final = "longer than its proto-max-bulk-len"
"""Why an entry was not sent."""
_FORMS: Final = (
    "an address such as '127.0.0.1:6379', 'unix:/run/redis.sock', 'redis://host:6379/0' or "
    "'rediss://host:6379/0'"
)


_Value = TypeVar("_Value", str, int, bool)


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """Where it is, and how to log in."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    """Of a unix socket; then there is no host."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int | None = None
    tls: bool | None = None
    """The last four are None where a URL says nothing about them."""

    def __str__(self) -> str:
        """For errors and logs: without its password."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_interface(text: str) -> RedisPlace:
    """Reads a `redis_interface`.

    Raises:
        ValueError: it is none of the known forms.
    """
    plain = text.strip()
    given = mask_text(text)  # for errors, which end in logs
    if plain.startswith("unix:"):
        path = plain.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path.startswith("/"):
            raise expected("the path of a socket such as 'unix:/run/redis.sock'", given)
        return RedisPlace(path=path)
    if "://" in plain:
        return _parse_url(plain, given)
    host, port = _host_and_port(plain, given)
    return RedisPlace(host=host, port=port)


def _parse_url(plain: str, given: str) -> RedisPlace:
    url = urllib.parse.urlsplit(plain)
    user, _, address = url.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    database = url.path.strip("/")
    is_number = database.isascii() and database.isdigit()
    if url.scheme not in {"redis", "rediss"} or url.query or url.fragment:
        raise expected(_FORMS, given)
    if database and not is_number:
        raise expected("a URL that ends in the number of a database", given)
    host, port = _host_and_port(address, given)
    return RedisPlace(
        host=host,
        port=port,
        username=urllib.parse.unquote(name) or None,
        password=urllib.parse.unquote(password) if colon else None,
        database=int(database) if database else None,
        tls=url.scheme == "rediss",
    )


def _host_and_port(address: str, given: str) -> tuple[str, int]:
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        good = bool(host and bracket) and (not rest or rest.startswith(":"))
        port = rest[1:]
    else:
        host, _, port = address.partition(":")
        good = bool(address) and not any(sign in host for sign in "/ @")
        host = host or "127.0.0.1"
    number = port or str(DEFAULT_PORT)
    if not good or not (number.isascii() and number.isdigit() and 0 < int(number[:6]) < 1 << 16):
        raise expected(_FORMS, given)
    return host, int(number)


class Entry(NamedTuple):
    """A mail to be stored: under all of its keys or none."""

    keys: Sequence[bytes]
    form: Callable[[int], bytes]
    """What is stored under the key of this number; made when it is sent, and not kept."""
    size: int
    """About as many octets as the largest form has, at most."""


class RedisOptions(Processor.Options):
    """Keys of `backend_config` about Redis."""

    model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

    redis_interface: str = f"127.0.0.1:{DEFAULT_PORT}"
    """Where Redis is: `host:port`, `unix:/path`, or a URL as `redis://user:password@host:port/0`,
    with TLS `rediss://…`."""
    redis_expire_seconds: int = pydantic.Field(0, ge=0, le=MAX_SECONDS)
    """After how many seconds Redis forgets a mail. 0: never."""
    redis_username: str = ""
    """The user to log in as, where Redis has several."""
    redis_password: str = pydantic.Field("", repr=False)
    """The password to log in with."""
    redis_database: int = pydantic.Field(0, ge=0, le=(1 << 31) - 1)
    """The number of the database."""
    redis_tls: bool = False
    """Whether to speak TLS, as a URL with `rediss` does."""
    redis_tls_root_cas_file: str = ""
    """PEM file of the authorities that the certificate of Redis is checked by; by default those of
    the machine."""
    redis_tls_private_key_file: str = ""
    """PEM file of the private key to log in with, where Redis asks for a certificate."""
    redis_tls_public_key_file: str = ""
    """PEM file of the certificate that belongs to it."""
    redis_timeout: Seconds = pydantic.Field(5.0, gt=0)
    """Longest wait for a connection, for 1 MiB to be taken, and for an answer. A batch has
    `gw_save_timeout` in all."""
    gw_save_timeout: Seconds = pydantic.Field(30.0, gt=0)
    """Longest time that a batch may take."""

    @pydantic.field_validator("redis_interface")
    @classmethod
    def _interface(cls, text: str) -> str:
        parse_interface(text)
        return text

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> Self:
        self.place()
        if bool(self.redis_tls_private_key_file) != bool(self.redis_tls_public_key_file):
            raise ValueError(
                "redis_tls_private_key_file and redis_tls_public_key_file: expected both or none"
            )
        return self

    def place(self) -> RedisPlace:
        """What `redis_interface` and the keys beside it say together.

        Raises:
            ValueError: they say different things.
        """
        place = parse_interface(self.redis_interface)
        place = replace(
            place,
            username=_one("redis_username", self.redis_username, place.username),
            password=_one("redis_password", self.redis_password, place.password),
            database=_one("redis_database", self.redis_database, place.database),
            tls=_one("redis_tls", self.redis_tls, place.tls),
        )
        if place.tls and place.path:
            raise ValueError("redis_tls: expected false, since redis_interface is a unix socket")
        return place


def _one(key: str, value: _Value, said: _Value | None) -> _Value:
    """What a key and the URL say, unless they differ; an empty value of the key says nothing."""
    if said is None or value == said:
        return value
    if value:
        raise ValueError(f"{key}: redis_interface says something else; say it in one of the two")
    return said
