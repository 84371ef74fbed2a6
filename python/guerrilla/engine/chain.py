"""The chain: stages of one worker, asked in order.

A chain has its own instance of each processor, opened and closed together. It knows neither
sockets nor SMTP: envelopes come from anywhere.
"""

from __future__ import annotations

import inspect
import logging
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Generic, Self

import pydantic

from guerrilla.config import SPOOL, Stage, chain_stages, mask_text, mask_value, stage_of
from guerrilla.engine.base import (
    OF_MAILS,
    PROCESS,
    Processor,
    TaskName,
    implements,
    is_async,
    takes_batches,
)
from guerrilla.engine.plan import ChainSettings, plan
from guerrilla.engine.stages import Loop, Pulse
from guerrilla.engine.tasks import LATER, Item
from guerrilla.errors import ConfigError, GuerrillaError, StartError, shown
from guerrilla.reply import NOT_AUTHENTICATED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from guerrilla.engine.registry import Registry
    from guerrilla.engine.stages import Segment
    from guerrilla.reply import Reply

__all__ = ["Chain", "ChainSettings", "Processor", "build", "option_keys"]

log = logging.getLogger("guerrilla.chain")

_NAMED_KEY: Final = re.compile(r"^backend_config\.(?=(?P<key>\w+))")
"""How an error of `Processor.open` names a key: the processor knows no alias of its own."""


class AwayError(StartError):
    """A stage could not be opened since something that it needs is away: it may be there later."""


class Chain(Generic[Item]):
    """The stages of one worker, in order, for one task.

    A context manager: `open` and `close`. Not for several threads at once.

    Args:
        stages: name and processor of each stage, in order.
        task: "save" and "spooled" for envelopes, "validate" for checks, "authenticate" for logins.
        settings: limits.
        values: the keys of its backend, for errors that name one; empty where it has none.
    """

    def __init__(
        self,
        stages: Sequence[tuple[str, Processor]],
        task: TaskName,
        settings: ChainSettings | None = None,
        values: Mapping[str, object] | None = None,
    ) -> None:
        """Plans the segments; opens nothing."""
        self.stages = tuple(stages)
        self.task = task
        self.settings = settings or ChainSettings()
        self.pulse = Pulse()
        self.opening = ""
        """The stage that is being opened; empty before and after."""
        self._values = values or {}
        self._stack = ExitStack()
        self._loop: Loop | None = None
        self._segments: list[Segment[Item]] = []

    @property
    def stores(self) -> bool:
        """Whether any stage saves mails durably."""
        return any(processor.stores for _, processor in self.stages)

    def warnings(self) -> list[str]:
        """What is allowed but hardly meant: a chain that stores nothing, stages without a task."""
        found = []
        if self.task in OF_MAILS and not self.stores:
            where = f" right of {SPOOL}" if self.task == "spooled" else ""
            found.append(f"save_process stores nothing{where}: mail is accepted and discarded")
        found += [
            f"{PROCESS[self.task]}: {name} does nothing there, it has no {self.task} method"
            for name, processor in self.stages
            if not implements(processor, self.task)
        ]
        return found

    def open(self) -> None:
        """Opens the stages in order.

        Raises:
            ConfigError: a stage cannot be opened with this config.
            AwayError: one could not be opened now.
            StartError: one failed in another way. Those opened before it are closed again.
        """
        with ExitStack() as stack:
            self._open_loop(stack)
            for name, processor in self.stages:
                self.opening = name
                self._open_stage(name, processor)
                stack.callback(self._close_stage, name, processor)
            self._segments = plan(self.stages, self.task, self.settings, self.pulse, self._loop)
            self._stack = stack.pop_all()
        self.opening = ""

    def attempt(self) -> Iterator[str]:
        """Opens every stage, whatever became of those before it, and closes them again.

        Yields:
            A line for each problem, as it is found.
        """
        with ExitStack() as stack:
            self._open_loop(stack)
            for name, processor in self.stages:
                self.opening = name
                try:
                    self._open_stage(name, processor)
                except (ConfigError, StartError) as error:
                    yield from error.problems
                except BaseException as error:  # noqa: BLE001 - an exit too: code of others
                    yield f"{name}: {type(error).__name__}: {error}"
                else:
                    stack.callback(self._close_stage, name, processor)
            self.opening = ""

    def close(self) -> None:
        """Closes the stages, the last first. What one raises is logged and stops no other."""
        self._stack.close()

    def __enter__(self) -> Self:
        """Opens."""
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes."""
        self.close()

    def run(self, items: Sequence[Item]) -> None:
        """Takes a batch through the stages and answers each of its items.

        Where its worker was abandoned meanwhile, nothing more of it is begun: others have it.

        Reaching the end is acceptance of a mail and of a recipient, and the refusal of a login:
        nobody has said who that is. Only a `BaseException` gets out; then some items may be
        unanswered.
        """
        for segment in self._segments:
            if self.pulse.abandoned:
                return
            items = segment.run(items)
            if not items:
                return
        for item in items:
            item.answer(self._end)

    @property
    def _end(self) -> Reply | None:
        if self.task != "authenticate":
            return None
        # Without stages, it is what a reload has left to logins that had begun.
        return NOT_AUTHENTICATED if self.stages else LATER[self.task]

    def most(self, size: int) -> int:
        """How many items a worker should take at once, of at most `size`.

        One login where each is asked about by itself: a hash of a password takes a tenth of a
        second, and behind another in a batch it would wait beside a worker with nothing to do.
        """
        if self.task != "authenticate":
            return size
        gains = any(takes_batches(one, self.task) or is_async(one) for _, one in self.stages)
        return size if gains else 1

    def failed(self, items: int) -> bool | None:
        """Whether the last batch, of so many items, failed for a passing reason.

        A mail is saved, or at least refused, by the last stage that stores, a recipient by any: one
        of the batch is enough for False. None where neither is so and no stage failed, as when
        all were refused before.
        """
        failed, through = self.pulse.watch.take()
        if self.task == "validate":
            return failed >= items
        return False if through else True if failed else None

    def _call(self, function: Callable[[], Any]) -> None:
        """Calls `open` or `close`, which may be async."""
        if inspect.iscoroutinefunction(function) and self._loop is not None:
            self._loop.run(function())
        else:
            function()

    def _open_stage(self, name: str, processor: Processor) -> None:
        try:
            self._call(processor.open)
        except ConfigError as error:
            raise ConfigError(self._placed(name, error.problems)) from error
        except StartError as error:
            raise AwayError(self._placed(name, error.problems)) from error
        except GuerrillaError as error:
            raise AwayError([f"{name}: {error}"]) from error
        except OSError as error:
            raise AwayError([f"{name}: {type(error).__name__}: {error}"]) from error
        except Exception as error:
            raise StartError([f"{name}: {type(error).__name__}: {error}"]) from error

    def _placed(self, name: str, problems: Iterable[str]) -> list[str]:
        """Problems of a stage, by the table where it has the option, or should have it."""
        stage = stage_of(name)
        own = stage.own_options(self._values)

        def place(found: re.Match[str]) -> str:
            key = found["key"].lower()
            inherits = key not in own and (not stage.alias or key in self._values)
            return found[0] if inherits else f"{found[0]}processors.{stage.table}."

        return [_NAMED_KEY.sub(place, line, count=1) for line in problems]

    def _close_stage(self, name: str, processor: Processor) -> None:
        try:
            self._call(processor.close)
        except Exception:
            log.exception("%s: closing failed", name)

    def _open_loop(self, stack: ExitStack) -> None:
        if any(is_async(processor) for _, processor in self.stages):
            self._loop = Loop(self.settings.concurrency)
            stack.callback(self._close_loop)

    def _close_loop(self) -> None:
        if self._loop is not None:
            self._loop.close()
            self._loop = None


def build(
    names: str,
    task: TaskName,
    values: Mapping[str, object],
    registry: Registry,
    settings: ChainSettings | None = None,
    *,
    where: str = "backend_config",
) -> Chain[Any]:
    """Makes the chain a config names, with an instance of each processor; nothing is opened.

    Args:
        names: `save_process`, `validate_process` or `auth_process`.
        task: which of them.
        values: the keys of the backend, lower case; each stage takes its own.
        registry: knows the names.
        settings: limits.
        where: the path of the backend, which problems name.

    Raises:
        ConfigError: every name and every value that is wrong.
    """
    problems: list[str] = []
    stages: list[tuple[str, Processor]] = []
    tables = _Tables(values)
    for stage in chain_stages(names):
        name = stage.name
        try:
            found = registry.find(stage.processor)
            tables.take(stage, found)
        except ConfigError as error:
            problems += [f"{where}.{PROCESS[task]}: {p}" for p in error.problems]
            continue
        if task == "authenticate" and not implements(found, task):
            # Its owner thinks that it looks at clients, and it would pass on all of them.
            what = f"{name} checks no credentials: it has no authenticate method"
            problems.append(f"{where}.{PROCESS[task]}: {what}")
            continue
        try:
            stages.append((name, found(read_options(name, found, values, where=where))))
        except ConfigError as error:
            problems += error.problems
        except GuerrillaError as error:
            problems.append(f"{name}: {error}")
        except Exception as error:
            log.debug("making %s failed", name, exc_info=True)
            problems.append(f"{name}: {type(error).__name__}: {error}")
    if not problems and task in OF_MAILS:
        problems = _misplaced(stages, where)
    if problems:
        raise ConfigError(problems)
    return Chain(part_of(stages, task), task, settings, values)


def part_of(
    stages: Sequence[tuple[str, Processor]], task: TaskName
) -> Sequence[tuple[str, Processor]]:
    """What of a chain a task is about: of `save_process` the side of the spool.

    Left of it, and with it, is what comes before the answer. What is spooled goes through the rest,
    and through all where a reload has taken the spool out of the chain meanwhile.
    """
    spool = next((at for at, (name, _) in enumerate(stages) if name == SPOOL), None)
    if spool is None or task not in OF_MAILS:
        return stages
    return stages[: spool + 1] if task == "save" else stages[spool + 1 :]


def _misplaced(stages: Sequence[tuple[str, Processor]], where: str) -> list[str]:
    """Stages that miss something before them, one line each."""
    found = []
    for index, (name, processor) in enumerate(stages):
        if reason := processor.misplaced([before for _, before in stages[:index]]):
            found.append(f"{where}.save_process: {name} {reason}")
    return found


class _Tables:
    """Whose options the tables below `processors` are, in one chain."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values
        self._owners: dict[str, tuple[str, type[Processor]]] = {}

    def take(self, stage: Stage, processor: type[Processor]) -> None:
        """Gives a stage its table.

        Raises:
            ConfigError: a stage of another processor has it.
        """
        if not stage.alias and not stage.own_options(self._values):
            return
        name, owner = self._owners.setdefault(stage.table, (stage.name, processor))
        if owner is not processor:
            raise ConfigError(
                f"{name} and {stage.name} share the alias {stage.table!r} and are different "
                "processors: give one of them another"
            )


def read_options(
    name: str,
    processor: type[Processor],
    values: Mapping[str, object],
    *,
    where: str = "backend_config",
) -> pydantic.BaseModel:
    """The options of one stage: its own over those of its backend.

    Args:
        name: as its chain has it: `Redis`, `Redis:hot`.
        processor: its class.
        values: the keys of the backend, lower case, those of `processors` too.
        where: the path of the backend, which problems name.

    Raises:
        ConfigError: a value of the wrong type or range, or a missing one; the key is named.
    """
    stage = stage_of(name)
    own = stage.own_options(values)
    mine = {
        key: own[low] if low in own else values[low]
        for key in _spelt(processor)
        if (low := key.lower()) in own or low in values
    }
    try:
        return processor.Options.model_validate(mine)
    except pydantic.ValidationError as error:
        raise ConfigError(
            [_problem(stage, detail, own, where) for detail in error.errors()]
        ) from None


def option_keys(processor: type[Processor]) -> set[str]:
    """The keys of `backend_config` it reads, lower case."""
    return {key.lower() for key in _spelt(processor)}


def _spelt(processor: type[Processor]) -> list[str]:
    """The keys as its `Options` spell them: a field's alias, else its name."""
    fields = processor.Options.model_fields.items()
    aliases = [(field, info.validation_alias) for field, info in fields]
    return [alias if isinstance(alias, str) else field for field, alias in aliases]


def _problem(stage: Stage, detail: Mapping[str, Any], own: Mapping[str, object], where: str) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    cause = detail.get("ctx", {}).get("error")
    given = detail["input"]
    masked = mask_value(path, given)
    text = f"{detail['msg']}, got {shown(masked)}"
    if cause is not None:
        text = str(cause)
        if masked != given:  # The processor wrote the text, and may have quoted the value.
            text = text.replace(shown(given), shown(masked)).replace(str(given), str(masked))
    is_missing = detail["type"] == "missing"
    if is_missing:
        text = "this key is required"
    key = str(detail["loc"][0]).lower() if detail["loc"] else ""
    if key in own or (stage.alias and (is_missing or not key)):
        place = f"{where}.processors.{stage.table}{'.' if path else ''}{path}"
    else:
        place = f"{where}.{path or stage.name}"
    return mask_text(f"{place}: {text} (read by {stage.name})")
