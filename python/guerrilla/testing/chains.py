"""Chains without sockets: what a sender would hear of each mail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from guerrilla._core import Credentials, Envelope, make_login
from guerrilla.config import SPOOL, chain_names
from guerrilla.config.backend import backend_values
from guerrilla.engine.base import Processor, TaskName
from guerrilla.engine.chain import Chain, ChainSettings, build, read_options
from guerrilla.engine.registry import DECORATED, Registry
from guerrilla.reply import LOG_IN_LATER, TRY_LATER, Reply, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


__all__ = ["Stage", "run_authenticate", "run_chain"]

Stage: TypeAlias = "str | Processor | type[Processor] | Callable[..., Any]"
"""A stage of a chain: a name, a processor, its class, or a plain or async function."""


def run_chain(
    chain: str | Iterable[Stage],
    envelopes: Envelope | Iterable[Envelope],
    *,
    options: Mapping[str, object] | None = None,
    save_timeout: float = 30.0,
) -> list[Reply]:
    """Opens a chain, takes the envelopes through it as one batch, closes it.

    It is the engine's own: what a stage raises is logged and becomes a `451`, async stages run
    side by side, a stage that stores is asked after the envelopes are claimed. Only the spool is
    left out: the stages right of `250` are asked at once.

    Args:
        chain: a text as `save_process` has it, or stages in order. A name is a built-in processor
            or one that is registered by decorator or by an installed package.
        envelopes: those of `make_envelope`; each can be answered once.
        options: keys of `backend_config`, for stages that are named or given as a class.
        save_timeout: seconds, as `gw_save_timeout`.

    Returns:
        What the sender of each would hear, in their order. Where a stage gave one reply a
        recipient, it is the one that stands for all; `envelope.answered` has each.

    Raises:
        ConfigError: a name or an option that is wrong.
        StartError: a stage that cannot be opened.
        ValueError: an envelope was answered before.
        TypeError: a stage that is none.
    """
    batch = [envelopes] if isinstance(envelopes, Envelope) else list(envelopes)
    used = [envelope.queued_id for envelope in batch if envelope.expired]
    if used:
        message = f"answered before, so make another one: {', '.join(used)}"
        raise ValueError(message)
    values = backend_values(options or {})
    with _chain(chain, "save", values, ChainSettings(save_timeout=save_timeout)) as running:
        running.run(batch)
    for envelope in batch:
        # As the core does with one that is dropped unanswered, by a stage that said TAKEN.
        envelope.answer(TRY_LATER)
    return [_told(envelope) for envelope in batch]


def run_authenticate(
    chain: str | Iterable[Stage],
    username: str,
    password: str,
    *,
    authorization_identity: str = "",
    remote_ip: str = "127.0.0.1",
    options: Mapping[str, object] | None = None,
    auth_timeout: float = 10.0,
) -> Reply:
    """Opens a chain, asks it who a client is, closes it: what the client would hear.

    Args:
        chain: a text as `auth_process` has it, or stages in order, as for `run_chain`; functions
            take transaction and credentials.
        username: whose password it is.
        password: as the client sent it.
        authorization_identity: whom the client wants to act as; empty for itself.
        remote_ip: where the client is.
        options: keys of `backend_config`, for stages that are named or given as a class.
        auth_timeout: seconds, as `gw_auth_timeout`.

    Raises:
        ConfigError: a name or an option that is wrong.
        StartError: a stage that cannot be opened.
        TypeError: a stage that is none.
    """
    credentials = Credentials(username, password, authorization_identity=authorization_identity)
    login = make_login(credentials, remote_ip=remote_ip)
    values, settings = backend_values(options or {}), ChainSettings(auth_timeout=auth_timeout)
    with _chain(chain, "authenticate", values, settings) as running:
        running.run([login])
    return login.answered or LOG_IN_LATER


def _told(envelope: Envelope) -> Reply:
    """What the sender of an answered envelope hears; no time limit answers one of no socket."""
    verdict = envelope.answered
    if verdict is None:
        return Reply.ok(f"OK: queued as {envelope.queued_id}")
    return verdict if isinstance(verdict, Reply) else fold(verdict)


def _chain(
    chain: str | Iterable[Stage],
    task: TaskName,
    values: Mapping[str, object],
    settings: ChainSettings,
) -> Chain[Any]:
    registry = Registry(DECORATED)
    if isinstance(chain, str):
        # What is spooled goes through all of it: so it is tried as a whole.
        names = [name for name in chain_names(chain) if name != SPOOL]
        return build("|".join(names), task, values, registry, settings)
    return Chain([_stage(stage, task, values, registry) for stage in chain], task, settings)


def _stage(
    stage: Stage, task: TaskName, values: Mapping[str, object], registry: Registry
) -> tuple[str, Processor]:
    """The name and the processor of one stage."""
    if isinstance(stage, Processor):
        return type(stage).__name__, stage
    name = stage if isinstance(stage, str) else getattr(stage, "__name__", type(stage).__name__)
    found: Any = registry.find(stage) if isinstance(stage, str) else stage
    if isinstance(found, type) and issubclass(found, Processor):
        return name, found(read_options(name, found, values))
    if not callable(found):
        message = f"a stage is a name, a processor or a function, not {found!r}"
        raise TypeError(message)
    made = Processor(Processor.Options())
    setattr(made, task, found)
    return name, made
