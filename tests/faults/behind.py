"""Servers that mails are stored into, each behind a proxy, and daemons that use them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from tests.fastcgi.helpers import Mailbox, options
from tests.faults.proxy import Proxy
from tests.ledger import Ledger, Mail, mixed_mails, token_of
from tests.services.phpfpm import PhpFpm
from tests.services.redis import DURABLE, RedisServer
from tests.services.sql import SQLServer

WORKERS: Final = 3
ANSWERS: Final = "3s"
"""How long the daemon waits for an answer of the server: more than a slow connection takes."""

_TOP: Final = """\
allowed_hosts = ["."]
log_level = "info"
[[servers]]
listen_interface = "127.0.0.1:0"
host_name = "mx.example.com"
"""


class Server(Protocol):
    """As `tests.services.base.Service`."""

    def start(self) -> None:
        """Until it is ready."""

    def stop(self) -> None:
        """As its owner would."""

    def pause(self) -> None:
        """It answers nothing."""

    def resume(self) -> None:
        """Undoes `pause`."""


@dataclass
class Behind:
    """A server behind a proxy."""

    name: str
    server: Server
    proxy: Proxy
    stage: str
    """The end of a `save_process`."""
    keys: dict[str, Any]
    """Of `backend_config`."""
    stored: Callable[[], Iterable[bytes]]
    """Every mail that it holds."""
    _sent: int = 0

    def mails(self, count: int) -> list[Mail]:
        """Mails of all sizes that it has not been sent before."""
        self._sent += count
        return mixed_mails(count, first=self._sent - count)

    def stored_of(self, ledger: Ledger) -> Iterator[bytes]:
        """What it holds of the mails of a ledger."""
        return (mail for mail in self.stored() if token_of(mail) in ledger.messages)

    def config(self, chain: str = "HeadersParser|Hasher|Header", **more: Any) -> str:
        """Of a daemon that stores into it behind this chain; with more keys of `backend_config`."""
        process = {"save_process": f"{chain}|{self.stage}", "save_workers_size": WORKERS}
        keys = {**process, **self.keys, **more}
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        return "\n".join([_TOP, "[backend_config]", *lines, ""])


@contextlib.contextmanager
def redis_behind(folder: Path) -> Iterator[Behind]:
    """A Redis that keeps what it has answered."""
    with RedisServer(folder, settings=DURABLE) as server, Proxy(server.port) as proxy:
        keys = {"redis_interface": f"127.0.0.1:{proxy.port}", "redis_timeout": ANSWERS}
        yield Behind("Redis", server, proxy, "Redis", keys, lambda: server.values().values())


@contextlib.contextmanager
def php_behind(folder: Path) -> Iterator[Behind]:
    """PHP-FPM with the example's script."""
    box = Mailbox(folder / "mail")
    # Some for connections that were given up and still have a process.
    php = PhpFpm(folder, tcp=True, environment=box.environment, children=3 * WORKERS)
    port = int(php.address.rpartition(":")[2])
    with php, Proxy(port) as proxy:
        address = f"127.0.0.1:{proxy.port}"
        keys = options(php, fcgi_connection_address=address, fcgi_timeout=ANSWERS)
        yield Behind("PHP-FPM", php, proxy, "FastCGI", keys, lambda: box.mails().values())


@contextlib.contextmanager
def table_behind(name: str, server: SQLServer, *, answers: str = ANSWERS) -> Iterator[Behind]:
    """A fresh table of a database that runs already, and runs when it is left."""
    place = server.fresh()
    with Proxy(server.port) as proxy:
        dsn = place.dsn(readTimeout=answers).replace(f":{server.port}/", f":{proxy.port}/")
        dsn = dsn.replace(f":{server.port})", f":{proxy.port})")
        keys = {"sql_driver": place.driver, "sql_dsn": dsn}
        try:
            yield Behind(name, server, proxy, "SQL", keys, lambda: _mails(place.rows()))
        finally:
            server.resume()


def _mails(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    return (bytes(row["mail"]) for row in rows)
