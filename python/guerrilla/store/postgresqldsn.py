"""Where a PostgreSQL server is: a URL, or `host=… dbname=…`, both as libpq and Go have them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from guerrilla.store.dsn import ANSWER_LIMIT, CONNECT_LIMIT
from guerrilla.store.schema import StoreError
from guerrilla.units import parse_seconds

_READ: Final = "readtimeout"
_OURS: Final = (
    _READ,
    "binary_parameters",
    "default_query_exec_mode",
    "description_cache_capacity",
    "disable_prepared_binary_result",
    "pool_health_check_period",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conn_lifetime_jitter",
    "pool_max_conns",
    "pool_min_conns",
    "pool_min_idle_conns",
    "prefer_simple_protocol",
    "statement_cache_capacity",
    "statement_cache_mode",
)
"""What libpq does not know: our time limit, and what of Go's drivers changes nothing here."""

_KEYWORD: Final = re.compile(rf"(?i)(?:^|\s)({'|'.join(_OURS)})\s*=\s*(\S+)")
_UNKNOWN: Final = re.compile(r'invalid (?:URI query parameter|connection option)[^"]*"([^"]*)"')


@dataclasses.dataclass(frozen=True)
class PostgreSQLAddress:
    """A database on a server, how to log in, and how long to wait.

    Attributes:
        parameters: as libpq has them; with the password.
        read: seconds for each answer.
    """

    parameters: dict[str, Any] = dataclasses.field(repr=False)
    read: float = ANSWER_LIMIT

    @property
    def name(self) -> str:
        """Database and server, for errors and logs: without user and password."""
        get = self.parameters.get
        host = str(get("host") or get("hostaddr") or "local")
        where = host if host.startswith("/") else f"{host}:{get('port') or 5432}"
        return f"{where}/{get('dbname') or get('user') or ''}"


def parse_postgresql(dsn: str) -> PostgreSQLAddress:
    """Reads a `sql_dsn` for PostgreSQL; `readTimeout` is ours, all else is libpq's.

    Raises:
        StoreError: it is none, or has a parameter that is not known. It is not repeated.
    """
    wanted = "postgresql://user:password@host/database, or host=… user=… password=… dbname=…"
    if not dsn.strip():
        raise StoreError(f"expected {wanted}, got ''")
    text, ours = _without_ours(dsn)
    try:
        parameters: dict[str, Any] = dict(conninfo_to_dict(text))
    except psycopg.ProgrammingError as error:
        # Its other texts quote what they could not read, which may be a part of the password.
        if found := _UNKNOWN.search(str(error)):
            raise StoreError(f"expected parameters of libpq, found {found[1]!r}") from None
        raise StoreError(f"expected {wanted}, got something else") from None
    parameters.setdefault("connect_timeout", int(CONNECT_LIMIT))
    parameters.setdefault("application_name", "guerrilla")
    parameters["client_encoding"] = "UTF8"
    try:
        read = parse_seconds(ours[_READ]) if _READ in ours else ANSWER_LIMIT
    except ValueError as error:
        raise StoreError(f"readTimeout: {error}") from None
    if not read:
        raise StoreError("expected a time limit over 0 for readTimeout")
    return PostgreSQLAddress(parameters, read)


def _without_ours(dsn: str) -> tuple[str, dict[str, str]]:
    """The DSN without the parameters that libpq does not know, and those, in lower case."""
    ours: dict[str, str] = {}
    if "://" not in dsn.split("=", 1)[0]:
        for found in _KEYWORD.finditer(dsn):
            ours[found[1].lower()] = found[2]
        return _KEYWORD.sub(" ", dsn), ours
    head, mark, query = dsn.partition("?")
    kept = []
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if name.lower() in _OURS:
            ours[name.lower()] = value
        else:
            kept.append(pair)
    return head + mark + "&".join(kept), ours
