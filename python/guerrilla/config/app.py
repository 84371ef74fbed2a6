"""The whole config: `AppConfig`."""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from guerrilla.config.backend import BackendConfig
from guerrilla.config.fields import (
    EMPTY_IS_NONE,
    ITEMS,
    LOG_LEVELS,
    TABLE,
    AllowedHost,
    Count,
    Flag,
    LogLevel,
    MaybeText,
    PositiveSeconds,
    Text,
    nearest,
    one_of,
)
from guerrilla.config.listen import ListenAddress, parse_listen_interface
from guerrilla.config.oddities import server_oddities
from guerrilla.config.section import Section
from guerrilla.config.server import (
    DEFAULT_LISTEN_INTERFACE,
    ServerConfig,
    machine_name,
    ordinals,
)
from guerrilla.errors import ConfigError, expected
from guerrilla.units import Bytes, Seconds, parse_bytes

MIN_MEMORY: Final = 64 * 2**10
"""Octets: the first step of a body buffer. With less, no message could ever be taken."""


def _memory(value: object) -> int:
    size = parse_bytes(value)
    if size < MIN_MEMORY:
        raise expected("a size of at least 64 KiB", value)
    return size


def _numbered(servers: tuple[ServerConfig, ...]) -> tuple[ServerConfig, ...]:
    numbers = ordinals(server.listen_interface for server in servers)
    return tuple(map(ServerConfig.numbered, servers, numbers))


def _listen(value: object) -> str:
    if not isinstance(value, str):
        raise expected("a text such as '127.0.0.1:8081'", value)
    parse_listen_interface(value)
    return value


def _account(value: object) -> object:
    is_id = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return str(value) if is_id else value


def _ratio(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise expected("a number from 0 to 1", value)
    return float(value)


def _log_file(value: object) -> object:
    # An empty string is how Go-Guerrilla's files say "the default".
    return "stderr" if value == "" else value


def _default_server(value: object) -> object:
    return (
        (ServerConfig(listen_interface=DEFAULT_LISTEN_INTERFACE),) if value in ([], ()) else value
    )


def _default_hosts(value: object) -> object:
    return (machine_name(),) if value in ([], ()) else value


def _lower_names(value: dict[str, BackendConfig]) -> dict[str, BackendConfig]:
    names = [name.lower() for name in value]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"there are two of the name {twice!r}, which match in any case")
    return dict(zip(names, value.values(), strict=True))


def _default_backend() -> BackendConfig:
    """The backend where there is no `backend_config` at all."""
    return BackendConfig(log_received_mails=True)


Account = Annotated[
    MaybeText,
    BeforeValidator(_account),
    WithJsonSchema({"type": ["string", "integer", "null"], "minimum": 0}),
]
"""A user or group by name or number, or not set."""


class SpoolConfig(Section):
    """The spool on disk: `spool`."""

    path: Text
    """Its folder, on a local file system."""

    max_bytes: Bytes = 10 * 2**30
    """Bytes it may hold, of which each of several processes has its part; over it, mail is answered
    `452 4.3.1`. 0: no limit."""

    min_free: Bytes = 2**30
    """Bytes of the disk it leaves free; below it, mail is answered `452 4.3.1`."""

    max_age: PositiveSeconds = 5 * 86_400.0
    """How long a message is tried again (RFC 5321 §4.5.4.1: at least 4 to 5 days)."""


class DashboardConfig(Section):
    """The live page: `dashboard`."""

    is_enabled: Flag = True
    """Whether the page is served."""

    listen_interface: Annotated[str, BeforeValidator(_listen)] = "127.0.0.1:8081"
    """Where it is served."""

    tick_interval: PositiveSeconds = 5.0
    """Time between two figures of the page."""

    max_window: PositiveSeconds = 24 * 3600.0
    """How far back the page looks."""

    ranking_aggregation_interval: PositiveSeconds = 6 * 3600.0
    """The time that one step of the rankings sums up."""

    unique_helo_ratio: Annotated[float, BeforeValidator(_ratio), Field(ge=0, le=1)] = 0.8
    """Share of HELO names seen once, over which they are no longer collected."""


class MetricsConfig(Section):
    """Figures for a monitoring system: `metrics`."""

    listen_interface: Annotated[str, BeforeValidator(_listen)]
    """Where they are served."""


class AppConfig(Section):
    """The whole config. Every key has a default; `AppConfig.default()` is Go-Guerrilla's."""

    servers: Annotated[
        tuple[Annotated[ServerConfig, TABLE], ...],
        ITEMS,
        BeforeValidator(_default_server),
        AfterValidator(_numbered),
    ] = Field(default=(), validate_default=True)
    """The servers. Default: one on 127.0.0.1:2525."""

    allowed_hosts: Annotated[tuple[AllowedHost, ...], ITEMS, BeforeValidator(_default_hosts)] = (
        Field(default=(), validate_default=True)
    )
    """The hosts for which mail is taken: names, `*.example.com`, address literals, or the single
    entry `.` for any. An internationalised name may have either form, `bücher.example` or
    `xn--bcher-kva.example`. Default: the machine's name."""

    pid_file: MaybeText = None
    """Where the process id is written; removed on exit. Default: nowhere."""

    log_file: Annotated[Text, BeforeValidator(_log_file)] = "stderr"
    """The main log: a path, `stderr`, `stdout` or `off`."""

    log_level: Annotated[LogLevel, one_of(*LOG_LEVELS)] = "debug"
    """The lowest level that is logged: `debug`, `info`, `warning`, `error`, `fatal`, `panic`."""

    backend_config: Annotated[BackendConfig, TABLE] = Field(default_factory=_default_backend)
    """The backend: its chains, and the keys of its processors."""

    max_memory: Annotated[Bytes, BeforeValidator(_memory)] = 256 * 2**20
    """Bytes that all message bodies may take together; each of several processes has its part."""

    spill_size: Bytes = 1_280 * 2**10
    """Bytes of a body, over which it goes to a temporary file; so does one that `max_memory` has no
    room for. The file is in `$TMPDIR`, else in `/var/tmp`. 0: bodies stay in memory."""

    processes: Count = 1
    """Processes that share the ports. 0: one a core."""

    shared_sockets: Flag = False
    """Whether all processes accept from one socket, and not each from one of its own: few
    connections are then spread more evenly."""

    control_socket: MaybeText = None
    """The unix socket that `guerrillad reload`, `status` and `stop` talk to; `off`: none. Default:
    `pid_file`, or else the config file, with `.sock` appended."""

    shutdown_timeout: Seconds = 60.0
    """Time that transactions have to finish at a stop."""

    watch_config: Flag = False
    """Reloads the config file when its content has changed and come to rest, whether it was written
    in place, replaced, or is behind a link that leads elsewhere now."""

    log_format: Annotated[Literal["text", "json"], one_of("text", "json")] = "text"
    """The form of a log line: `text` or `json`."""

    user: Account = None
    """The user to become once the ports are bound, by name or number. Only root can."""

    group: Account = None
    """The group to become then, by name or number. Default: all groups of `user`."""

    spool: Annotated[Annotated[SpoolConfig, TABLE] | None, EMPTY_IS_NONE] = None
    """The spool on disk, for chains with a `250` stage."""

    backends: Annotated[
        dict[str, Annotated[BackendConfig, TABLE]], AfterValidator(_lower_names), TABLE
    ] = Field(default_factory=dict)
    """More backends by name, for `servers[].backend`."""

    dashboard: Annotated[Annotated[DashboardConfig, TABLE] | None, EMPTY_IS_NONE] = None
    """The live page."""

    metrics: Annotated[Annotated[MetricsConfig, TABLE] | None, EMPTY_IS_NONE] = None
    """Figures for a monitoring system."""

    ignore_unknown_keys: Flag = False
    """Ignores keys that nobody knows instead of refusing them."""

    @classmethod
    def default(cls) -> Self:
        """What runs without a config file: Go-Guerrilla's defaults."""
        return cls()

    def warnings(self) -> list[str]:
        """What is odd and yet works, one line each with the path of the key."""
        backends = self._backends_by_path
        return [
            *self._spool_oddities(),
            *(
                f"servers[{index}].{oddity}"
                for index, server in enumerate(self.servers)
                for oddity in server_oddities(server)
            ),
            *(
                f"{path}.{oddity}"
                for path, backend in backends.items()
                for oddity in backend.oddities()
            ),
        ]

    @property
    def _backends_by_path(self) -> dict[str, BackendConfig]:
        backends = {f"backends.{name}": backend for name, backend in self.backends.items()}
        return {"backend_config": self.backend_config, **backends}

    def _spool_oddities(self) -> list[str]:
        if self.spool is None:
            return []
        named = {"default": self.backend_config, **self.backends}
        spooling = {name for name, backend in named.items() if backend.spools != "never"}
        if not spooling:
            what = (
                "no save_process has the stage 250, so only what is left in it is worked on; put "
                "it in, or remove spool once `guerrillad spool list` shows nothing"
            )
            return [f"spool: {what}"]
        return [
            f"spool.max_bytes: is less than max_size of servers[{index}], so that a message of "
            "that size is never taken"
            for index, server in enumerate(self.servers)
            if server.is_enabled
            and server.backend in spooling
            and 0 < self.spool.max_bytes < server.max_size
        ]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        problems = [*self._host_problems(), *self._listen_problems(), *self._backend_problems()]
        if problems:
            raise ConfigError(problems)
        return self

    def _host_problems(self) -> list[str]:
        if "." in self.allowed_hosts and len(self.allowed_hosts) > 1:
            return ["allowed_hosts: '.' takes every host, so it must be the only entry"]
        return []

    def _listen_problems(self) -> list[str]:
        first: dict[ListenAddress, int] = {}
        problems = []
        for index, server in enumerate(self.servers):
            if server.address.is_of_the_system:
                continue
            other = first.setdefault(server.address, index)
            if other != index:
                problems.append(
                    f"servers[{index}].listen_interface: {server.listen_interface!r} is already "
                    f"that of servers[{other}]"
                )
        return problems

    def _backend_problems(self) -> list[str]:
        names = {"default", *self.backends}
        problems = [
            f"servers[{index}].backend: unknown backend {server.backend!r}"
            f"{nearest(server.backend, names)}"
            for index, server in enumerate(self.servers)
            if server.backend not in names
        ]
        if "default" in self.backends:
            problems.append("backends.default: this name stands for backend_config")
        return problems
