"""The backend: its chains, workers, and the keys of its processors."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from guerrilla.config.chains import (
    SPOOL,
    Stage,
    alias_oddities,
    chain_names,
    chain_stages,
    spool_problems,
)
from guerrilla.config.fields import (
    ITEMS,
    TABLE,
    Count,
    Flag,
    Host,
    Positive,
    PositiveSeconds,
    Text,
    nearest,
)
from guerrilla.config.section import Section, key_of
from guerrilla.config.server import machine_name
from guerrilla.errors import ConfigError, expected
from guerrilla.units import Seconds

if TYPE_CHECKING:
    from guerrilla.config.app import AppConfig

DEFAULT_SAVE_PROCESS = "HeadersParser|Header|Debugger"


def _chain(value: object) -> str:
    if not isinstance(value, str):
        raise expected("a chain such as 'HeadersParser|Header|SQL'", value)
    try:
        chain_names(value)
    except ConfigError as error:
        # A plain ValueError: the problem lines of a ConfigError are taken to begin with a key.
        raise ValueError(str(error)) from None
    return value


def _stores_somewhere(value: str) -> str:
    if not chain_names(value):
        raise expected("a chain of at least one stage", value)
    return value


def _primary_mail_host(value: object) -> object:
    return machine_name() if value == "" else value


def _processors(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        alias.lower(): {key.lower(): item for key, item in options.items()}
        for alias, options in value.items()
    }


def backend_values(given: Mapping[str, object]) -> dict[str, object]:
    """The keys of a backend as `BackendConfig.values` gives them, from any case and unchecked."""
    values = {key.lower(): value for key, value in given.items()}
    tables = values.get("processors")
    if isinstance(tables, Mapping):
        values["processors"] = _processors(dict(tables))
    return values


Chain = Annotated[str, BeforeValidator(_chain)]


class BackendConfig(Section):
    """The backend: `backend_config`, or one of `backends`.

    Keys that are not listed here belong to processors and stay in `options`, lower-cased.
    """

    model_config = ConfigDict(extra="allow")

    save_process: Annotated[Chain, AfterValidator(_stores_somewhere)] = DEFAULT_SAVE_PROCESS
    """The chain that saves a message: names of processors, split at `|`, in any case."""

    validate_process: Chain = ""
    """The chain that is asked at each RCPT. Empty: every recipient at an allowed host is taken."""

    save_workers_size: Positive = 1
    """Threads that run `save_process`, each with its own instances of the processors."""

    gw_save_timeout: PositiveSeconds = 30.0
    """Time from the final dot until a message that is not saved is answered `451 4.3.0`."""

    gw_val_rcpt_timeout: PositiveSeconds = 5.0
    """Time until a recipient that is not validated is answered `451 4.4.3`."""

    log_received_mails: Flag = False
    """Whether Debugger logs sender, recipients and headers. True where there is no
    `backend_config` at all."""

    primary_mail_host: Annotated[Host, BeforeValidator(_primary_mail_host)] = Field(
        default_factory=machine_name
    )
    """The host that delivery headers and SQL rows name. Default: the machine's name."""

    import_: Annotated[tuple[Text, ...], ITEMS] = Field(
        default=(), validation_alias="import", serialization_alias="import"
    )
    """Modules to import for their processors, on PYTHONPATH or beside the config file."""

    save_batch_size: Positive = 64
    """Messages that a worker takes at a time, at most; it never waits for more."""

    save_concurrency: Positive = 64
    """Messages of a batch that an async stage works on at a time."""

    validate_workers_size: Positive = 1
    """Threads that run `validate_process`."""

    validate_cache_ttl: Seconds = 0.0
    """How long an answer of `validate_process` is kept, for the recipient whoever asks: not for a
    chain that looks at more than the recipient. Only 2xx and 5xx are kept, 65,536 at most, until a
    reload changes the backend. 0: not at all."""

    breaker_failures: Count = 0
    """Batches that failed in a row, after which the backend is asked no more for `breaker_reset`
    and `451 4.3.0` is the answer to RCPT at once. One fails where no mail of it was saved because
    stages raised something, were unavailable, hung, or a stage that stores answered 451; one of
    recipients where none had an answer. 0: never."""

    breaker_reset: PositiveSeconds = 10.0
    """Time after which one transaction is let in to try it again: its success lets in all, its
    failure none for as long again."""

    auth_process: Chain = ""
    """The chain that checks who a client of AUTH is. Empty: AUTH is not offered. Who all its stages
    pass on is refused, `535 5.7.8`."""

    auth_workers_size: Positive = 2
    """Threads that run `auth_process`."""

    gw_auth_timeout: PositiveSeconds = 10.0
    """Time until a login that is not checked is answered `454 4.7.0`."""

    processors: Annotated[
        dict[str, Annotated[dict[str, Any], TABLE]], AfterValidator(_processors), TABLE
    ] = Field(default_factory=dict)
    """Options for single stages, over those of the backend, in a table each: `processors.hot` for
    the stage `Redis:hot`, `processors.redis` for `Redis`."""

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are not the backend's own: those of processors."""
        return {key.lower(): value for key, value in (self.model_extra or {}).items()}

    def values(self) -> dict[str, Any]:
        """Every key with its value, the backend's own and those of processors, by config name."""
        own = {key_of(type(self), field): getattr(self, field) for field in type(self).model_fields}
        return self.options | own

    @property
    def stages(self) -> list[Stage]:
        """Those of all its chains."""
        return [stage for chain in self._chains for stage in chain_stages(chain)]

    @property
    def spools(self) -> Literal["never", "later", "at once"]:
        """When its mails go to the spool: at once where no stage comes before."""
        names = chain_names(self.save_process)
        if SPOOL not in names:
            return "never"
        return "at once" if names[0] == SPOOL else "later"

    def chain(self, task: Literal["save", "spooled", "validate", "authenticate"]) -> str:
        """The chain for a task."""
        return {
            "save": self.save_process,
            "spooled": self.save_process,
            "validate": self.validate_process,
            "authenticate": self.auth_process,
        }[task]

    @property
    def _chains(self) -> tuple[str, ...]:
        return self.save_process, self.validate_process, self.auth_process

    def spool_problems(self, *, has_spool: bool) -> Iterator[str]:
        """What is wrong with its spool, one line each which begins with the key.

        Args:
            has_spool: whether the config has the section `spool`.
        """
        keys = ("save_process", "validate_process", "auth_process")
        chains = dict(zip(keys, self._chains, strict=True))
        return spool_problems(chains, has_spool=has_spool)

    def oddities(self) -> list[str]:
        """What works and is hardly meant, one line each which begins with the key."""
        return list(alias_oddities(self._chains, self.processors))

    def unknown_keys(self, known: Collection[str]) -> list[str]:
        """The keys that neither the backend nor any processor reads.

        Args:
            known: the keys that processors read, in any case.
        """
        folded = {key.casefold() for key in known}
        return [key for key in self.options if key.casefold() not in folded]


def check_processor_keys(
    config: "AppConfig",
    known_keys_by_any_processor: Collection[str],
    *,
    source: str | None = None,
    read_by: Callable[[str], Collection[str] | None] | None = None,
) -> None:
    """Refuses backend keys that nobody reads, unless `ignore_unknown_keys` is on.

    Args:
        config: the config to check.
        known_keys_by_any_processor: what all registered processors read together, in any case.
        source: the file that the problems name, if any.
        read_by: what the processor of that name reads, None where nobody knows it. With it, a table
            of a stage has to have that stage's keys; without it, those of any processor.

    Raises:
        ConfigError: a line each with the path of the key and the nearest known one.
    """
    if config.ignore_unknown_keys:
        return
    prefix = f"{source}: " if source else ""
    backends: Mapping[str, BackendConfig] = {
        "backend_config": config.backend_config,
        **{f"backends.{name}": backend for name, backend in config.backends.items()},
    }
    own = [key_of(BackendConfig, field) for field in BackendConfig.model_fields]
    known = known_keys_by_any_processor
    problems = []
    for path, backend in backends.items():
        problems += [
            f"{path}.{key}: unknown key{nearest(key, [*own, *known])}"
            for key in backend.unknown_keys(known)
        ]
        for table, options in backend.processors.items():
            readers = [stage.processor for stage in backend.stages if stage.table == table]
            found = _unread(options, readers if read_by else [], known, read_by)
            problems += [f"{path}.processors.{table}.{problem}" for problem in found]
    if problems:
        raise ConfigError([f"{prefix}{problem}" for problem in problems])


def _unread(
    options: Mapping[str, object],
    readers: Collection[str],
    known: Collection[str],
    read_by: Callable[[str], Collection[str] | None] | None,
) -> Iterator[str]:
    """The keys of a table that nobody reads: of its readers, or of all where it has none."""
    keys = set(known)
    if readers and read_by is not None:
        found = [read_by(name) for name in readers]
        if None in found:
            return  # A processor that is not there is told elsewhere.
        keys = {key for theirs in found for key in theirs or ()}
    folded = {key.casefold() for key in keys}
    for key in options:
        if key.casefold() in folded:
            continue
        if not readers:
            yield f"{key}: unknown key{nearest(key, keys)}"
        else:
            listed = f"; expected one of {', '.join(sorted(keys))}" if keys else ""
            who = " and ".join(dict.fromkeys(readers))
            yield f"{key}: no key that {who} reads{nearest(key, keys) or listed}"
