"""Where a MySQL server is: the DSN as Go writes it, or a URL.

    user:password@tcp(127.0.0.1:3306)/mail?readTimeout=10s&writeTimeout=10s
    user:password@unix(/run/mysqld/mysqld.sock)/mail
    mysql://user:password@127.0.0.1/mail?tls=true&ssl_ca=/etc/ssl/mail-ca.pem

In Go's form a password stands as it is, whatever is in it; in a URL it is percent-encoded. Errors
never repeat the DSN.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from guerrilla.store.schema import StoreError
from guerrilla.units import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONNECT_LIMIT: Final = 5.0
"""Seconds to connect, where the DSN says nothing."""
ANSWER_LIMIT: Final = 20.0
"""Seconds for each answer of the server: less than `gw_save_timeout`, whose default is 30."""

_PORT: Final = 3306
_LEAST_PACKET: Final = 65_536
"""Bytes: the texts beside a message alone can need a third of it."""
_GO: Final = re.compile(
    r"(?:(?P<who>.*)@)?(?P<net>tcp|unix|[A-Za-z0-9]+(?=\()|)(?:\((?P<address>[^()]*)\))?"
    r"/(?P<database>[^/?]*)(?:\?(?P<parameters>.*))?",
    re.DOTALL,
)
_URL: Final = re.compile(r"[a-z][a-z0-9+]*://")
_HOST: Final = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_TLS: Final = ("true", "false", "skip-verify", "preferred")

_IGNORED: Final = frozenset(
    {
        "allowallfiles",
        "allowcleartextpasswords",
        "allowfallbacktoplaintext",
        "allownativepasswords",
        "allowoldpasswords",
        "charset",
        "checkconnliveness",
        "clientfoundrows",
        "collation",
        "columnswithalias",
        "compress",
        "connectionattributes",
        "interpolateparams",
        "loc",
        "multistatements",
        "parsetime",
        "rejectreadonly",
        "timetruncate",
    }
)
"""Parameters of Go's driver that change nothing here: text is utf8mb4 and times are UTC anyway."""


@dataclasses.dataclass(frozen=True)
class MySQLAddress:
    """A database on a server, how to log in, and how long to wait.

    Attributes:
        user: empty for the one that the process runs as.
        password: as bytes of UTF-8, as the server compares it.
        host: a name or an address.
        port: of TCP.
        socket: path of a unix socket; empty for TCP.
        database: its name.
        connect: seconds to connect.
        read: seconds for each answer.
        write: seconds for each write.
        tls: `true`, `false`, `skip-verify`, or `preferred`: where the server has it, unverified.
        ca: PEM file of authorities; empty for those of the system.
        cert: PEM file of a client certificate.
        key: PEM file of its key.
        max_packet: bytes of a statement at most; 0 for what the server says.
    """

    user: str
    password: bytes = dataclasses.field(repr=False)
    host: str = "127.0.0.1"
    port: int = _PORT
    socket: str = ""
    database: str = ""
    connect: float = CONNECT_LIMIT
    read: float = ANSWER_LIMIT
    write: float = ANSWER_LIMIT
    tls: str = "false"
    ca: str = ""
    cert: str = ""
    key: str = ""
    max_packet: int = 0

    @property
    def name(self) -> str:
        """Database and server, for errors and logs: without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.socket or f'{host}:{self.port}'}/{self.database}"


def parse_mysql(dsn: str) -> MySQLAddress:
    """Reads a `sql_dsn` for a MySQL or MariaDB server.

    Raises:
        StoreError: it is none, or has a parameter that is not known.
    """
    if not dsn:
        raise _wrong("user:password@tcp(127.0.0.1:3306)/database, got ''")
    address, parameters = _from_url(dsn) if _URL.match(dsn) else _from_go(dsn)
    for name, value in _pairs(parameters):
        address = _apply(address, name, value)
    if not address.database:
        raise _wrong("the name of a database after the last '/', found none")
    return address


def _wrong(what: str) -> StoreError:
    return StoreError(f"expected {what}")


def _from_go(dsn: str) -> tuple[MySQLAddress, str]:
    found = _GO.fullmatch(dsn)
    if found is None:
        raise _wrong("user:password@tcp(127.0.0.1:3306)/database, got something else")
    user, _, password = (found["who"] or "").partition(":")
    address = MySQLAddress(user, password.encode(), database=unquote(found["database"]))
    where = found["address"] or ""
    match found["net"] or "tcp":
        case "unix":
            path = where or "/tmp/mysql.sock"  # Go's default  # noqa: S108
            return dataclasses.replace(address, socket=path), found["parameters"] or ""
        case "tcp":
            return _at(address, where), found["parameters"] or ""
        case other:
            raise _wrong(f"tcp(HOST:PORT) or unix(PATH), found {other!r}")


def _at(address: MySQLAddress, where: str) -> MySQLAddress:
    """With the host and port of `host`, `host:port`, `[::1]:port` or nothing."""
    found = _HOST.fullmatch(where)
    if found is None:
        raise _wrong(f"HOST or HOST:PORT, found {where!r}: an IPv6 address stands in brackets")
    host = found["host"].strip("[]") or address.host
    port = int(found["port"] or _PORT)
    if not 0 < port < 2**16:
        raise _wrong(f"a port of 1 to 65535, found {port}")
    return dataclasses.replace(address, host=host, port=port)


def _from_url(dsn: str) -> tuple[MySQLAddress, str]:
    try:
        url = urlsplit(dsn)
        address = _of_url(url)
    except ValueError:  # It quotes what it cannot read, which may be a part of the password.
        raise _wrong("a URL whose password is percent-encoded, got something else") from None
    if url.scheme not in {"mysql", "mariadb"}:
        raise _wrong(f"mysql://… or mariadb://…, found {url.scheme}://…")
    return address, url.query


def _of_url(url: SplitResult) -> MySQLAddress:
    return MySQLAddress(
        unquote(url.username or ""),
        unquote(url.password or "").encode(),
        host=url.hostname or "127.0.0.1",
        port=url.port or _PORT,
        database=unquote(url.path.removeprefix("/")),
    )


def _pairs(parameters: str) -> Iterator[tuple[str, str]]:
    for pair in filter(None, parameters.split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise _wrong("NAME=VALUE for each parameter, found one without '='")
        yield unquote(name), unquote(value)


def _apply(address: MySQLAddress, name: str, value: str) -> MySQLAddress:
    """With one parameter; as Go spells them, or with `_` and `-` as MySQL's own programs do."""
    plain = name.lower().replace("_", "").replace("-", "")
    if plain in _IGNORED:
        return address
    if plain not in _PARAMETERS:
        raise _wrong(
            "parameters among timeout, readTimeout, writeTimeout, tls, ssl_ca, ssl_cert, ssl_key, "
            f"maxAllowedPacket and those of Go's driver that change nothing here, found {name!r}"
        )
    field, read = _PARAMETERS[plain]
    change: dict[str, Any] = {field: read(name, value)}
    if field == "ca" and address.tls == "false":
        change["tls"] = "true"
    return dataclasses.replace(address, **change)


def _text(name: str, value: str) -> str:
    if not value:
        raise _wrong(f"a value for {name}, found none")
    return value


def _bytes(name: str, value: str) -> int:
    if not value.isdecimal():
        raise _wrong(f"a number of bytes for {name}, found {value!r}")
    if 0 < int(value) < _LEAST_PACKET:  # Every mail would be too large, and refused for good.
        raise _wrong(f"at least {_LEAST_PACKET} for {name}, or 0 for the server's, found {value}")
    return int(value)


def _limit(name: str, value: str) -> float:
    try:
        seconds = parse_seconds(value if not value.isdecimal() else int(value))
    except ValueError as error:
        raise StoreError(f"{name}: {error}") from None
    if not seconds:
        raise _wrong(f"a time limit over 0 for {name}: a server that hangs would hold a worker")
    return seconds


def _tls(name: str, value: str) -> str:
    known = {"1": "true", "0": "false"}.get(value, value.lower())
    if known not in _TLS:
        raise _wrong(
            f"{name}={', '.join(_TLS)} (an authority of one's own: ssl_ca), found {value!r}"
        )
    return known


_PARAMETERS: Final[Mapping[str, tuple[str, Callable[[str, str], object]]]] = {
    "timeout": ("connect", _limit),
    "connecttimeout": ("connect", _limit),
    "readtimeout": ("read", _limit),
    "writetimeout": ("write", _limit),
    "socket": ("socket", _text),
    "unixsocket": ("socket", _text),
    "maxallowedpacket": ("max_packet", _bytes),
    "tls": ("tls", _tls),
    "sslca": ("ca", _text),
    "sslcert": ("cert", _text),
    "sslkey": ("key", _text),
}
"""The field of each parameter, and what reads it."""
