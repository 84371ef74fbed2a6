"""What the chains that are measured store into: private servers, as the tests start them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.services.base import Service
from tests.services.mariadb import MariaDB
from tests.services.phpfpm import PhpFpm
from tests.services.postgresql import PostgreSQL
from tests.services.redis import DURABLE, RedisServer
from tests.services.smtpsink import SmtpSink
from tests.services.sql import SQLServer
from tests.services.webhook import Receiver

RECIPIENT: Final = "b"
"""The user that all loads send to."""
SAVE: Final = Path(__file__).parent.parent / "examples" / "fastcgi" / "save.php"
WAITING: Final = 4
"""Workers for a store that makes each mail wait by itself: they wait at the same time."""

SQL: Final = "HeadersParser|Hasher|Header|SQL"
REDIS: Final = "HeadersParser|Hasher|Header|Compressor|Redis"


@dataclasses.dataclass(frozen=True)
class Store:
    """A chain, and what it stores into.

    Attributes:
        chain: its `save_process`.
        keys: more of `backend_config`.
        services: what runs behind it.
        workers: its `save_workers_size`.
    """

    chain: str
    keys: Mapping[str, object]
    services: tuple[Service, ...] = ()
    workers: int = 1

    def backend(self, batch: int) -> str:
        """Its `backend_config`, as TOML."""
        keys = {
            "save_process": self.chain,
            "save_workers_size": self.workers,
            "save_batch_size": batch,
            **self.keys,
        }
        return "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())


class Places:
    """Folders and servers, each made when it is first asked for; a context manager."""

    def __init__(self, folder: Path) -> None:
        """`folder` is an empty one of its own."""
        self._folder = folder
        self._numbers = itertools.count()
        self._stack = contextlib.ExitStack()
        folder.chmod(0o755)  # PostgreSQL runs as another user where this one is root.

    def __enter__(self) -> Self:
        """Starts nothing."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the servers."""
        self._stack.close()

    def folder(self, name: str) -> Path:
        """An empty folder, another one each time."""
        made = self._folder / f"{name}-{next(self._numbers)}"
        made.mkdir()
        return made

    @cached_property
    def mariadb(self) -> MariaDB:
        """Syncs its log at each commit."""
        return self._stack.enter_context(MariaDB(self.folder("mariadb")))

    @cached_property
    def postgresql(self) -> PostgreSQL:
        """Syncs its log at each commit, as it does by default."""
        return self._stack.enter_context(PostgreSQL(self.folder("postgresql")))

    @cached_property
    def redis(self) -> RedisServer:
        """Keeps everything in memory."""
        return self._stack.enter_context(RedisServer(self.folder("redis")))

    @cached_property
    def durable_redis(self) -> RedisServer:
        """Syncs its log before each answer."""
        server = RedisServer(self.folder("durable-redis"), settings=DURABLE)
        return self._stack.enter_context(server)

    @cached_property
    def sink(self) -> SmtpSink:
        """Takes any mail, and keeps none."""
        return self._stack.enter_context(SmtpSink(self.folder("sink")))

    @cached_property
    def php(self) -> PhpFpm:
        """Runs the script of the example, which syncs both of its files and their folder."""
        environment = {"MAIL_FOLDER": str(self.folder("php-mail"))}
        return self._stack.enter_context(
            PhpFpm(self.folder("php"), children=2 * WAITING, environment=environment)
        )

    @cached_property
    def receiver(self) -> Receiver:
        """The receiver of the example, which syncs a file and its folder before it answers."""
        return self._stack.enter_context(Receiver(self.folder("receiver"), "secret"))


def _sqlite(places: Places) -> Store:
    return Store(SQL, {"sql_driver": "sqlite", "sql_dsn": str(places.folder("sqlite") / "mail.db")})


def _server(server: Callable[[Places], SQLServer], workers: int) -> Callable[[Places], Store]:
    def make(places: Places) -> Store:
        running = server(places)
        dsn = running.fresh().dsn()
        assert isinstance(running, Service)
        return Store(SQL, {"sql_driver": running.driver, "sql_dsn": dsn}, (running,), workers)

    return make


def _redis(places: Places) -> Store:
    return Store(REDIS, {"redis_interface": places.redis.address}, (places.redis,))


def _durable_redis(places: Places) -> Store:
    server = places.durable_redis
    return Store(REDIS, {"redis_interface": server.address}, (server,))


def _redis_and_sql(places: Places) -> Store:
    keys = {
        "redis_interface": places.redis.address,
        "sql_driver": places.mariadb.driver,
        "sql_dsn": places.mariadb.fresh().dsn(),
    }
    return Store("GuerrillaRedisDB", keys, (places.redis, places.mariadb), 2)


def _maildir(places: Places) -> Store:
    keys = {
        "maildir_path": f"{places.folder('maildir')}/[user]",
        "maildir_user_map": f"{RECIPIENT}=-1:-1",
    }
    return Store("HeadersParser|Hasher|Header|MailDir", keys, workers=WAITING)


def _fastcgi(places: Places) -> Store:
    keys = {
        "fcgi_connection_type": places.php.kind,
        "fcgi_connection_address": places.php.address,
        "fcgi_script_filename_save": str(SAVE),
    }
    return Store("HeadersParser|Header|FastCGI", keys, (places.php,), WAITING)


def _http(places: Places, **more: object) -> Store:
    keys = {"http_url": places.receiver.url, "http_secret": "secret", **more}
    return Store("HeadersParser|Header|HTTP", keys, (places.receiver,))


def _http_raw(places: Places) -> Store:
    return _http(places, http_format="raw")


def _pipe(places: Places) -> Store:
    path = f"of={places.folder('pipe')}/${{queue_id}}"
    command = ["dd", path, "bs=64K", "conv=fsync", "status=none"]
    return Store("HeadersParser|Header|Pipe", {"pipe_command": command})


def _forward(places: Places) -> Store:
    return Store("HeadersParser|Header|Forward", places.sink.options, (places.sink,), WAITING)


STORES: Final[Mapping[str, Callable[[Places], Store]]] = {
    "SQL, SQLite": _sqlite,
    "SQL, MariaDB": _server(lambda places: places.mariadb, 2),
    "SQL, PostgreSQL": _server(lambda places: places.postgresql, 2),
    "Redis": _redis,
    "Redis, appendfsync": _durable_redis,
    "GuerrillaRedisDB": _redis_and_sql,
    "MailDir": _maildir,
    "FastCGI": _fastcgi,
    "HTTP": _http,
    "HTTP, raw": _http_raw,
    "Pipe": _pipe,
    "Forward": _forward,
}
"""What is measured, by what the table calls it."""

TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def tree_cpu_ns(pid: int) -> int:
    """CPU time of a process, of those that it has started, and of those that it has waited for."""
    return _clock_ns(pid) + started_cpu_ns(pid)


def started_cpu_ns(pid: int) -> int:
    """The same without the process itself."""
    own = 0
    with contextlib.suppress(FileNotFoundError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        own += sum(int(ticks) for ticks in fields[13:15]) * TICK_NS
    return own + sum(tree_cpu_ns(child) for child in _children(pid))


def _clock_ns(pid: int) -> int:
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:  # it has ended
        return 0


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for tasks in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (tasks / "children").read_text(encoding="ascii").split())
