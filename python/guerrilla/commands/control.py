"""`guerrillad reload | upgrade | reopen-logs | stop | status | stats`: asks a running daemon."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from guerrilla.commands.common import (
    CommandError,
    add_command,
    add_config,
    elapsed,
    find_config,
    no_config,
    shown,
)
from guerrilla.config import AppConfig, load
from guerrilla.config.parsing import guess_format, parse
from guerrilla.control.client import NobodyThereError, ask
from guerrilla.control.server import control_path
from guerrilla.engine.backends import DEFAULT
from guerrilla.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from guerrilla.commands.common import Subparsers

_MORE: Final = """\
The daemon is asked over its control socket: control_socket of the config, the pid file with .sock
appended, or the config file with .sock appended, at the first of these where one answers. Where it
was started with another pid file (serve -p, or the config before it was edited), or in another
folder, say where its socket is with --socket.
"""

_TABLES: Final = ("backends", "stages")
"""What of `stats` is no number."""

_PLACES: Final = ("control_socket", "pid_file")


def add(commands: Subparsers) -> None:
    """Adds the commands."""
    _add(commands, "reload", reload, "make a running daemon read its config again")
    _add(
        commands,
        "upgrade",
        upgrade,
        "have a running daemon start its program anew, which takes over without a gap",
    )
    _add(commands, "reopen-logs", reopen_logs, "make a running daemon open its logs anew")
    _add(commands, "stop", stop, "stop a running daemon gracefully, and wait until it has stopped")
    for name, run, help_ in (
        ("status", status, "show what a running daemon does"),
        ("stats", stats, "show all counters of a running daemon"),
    ):
        parser = _add(commands, name, run, help_)
        parser.add_argument("--json", action="store_true", help="one JSON object")


def add_socket(parser: argparse.ArgumentParser) -> None:
    """Adds `-c` and `--socket`: which daemon is asked."""
    add_config(parser)
    parser.add_argument(
        "--socket", metavar="FILE", help="its control socket (default: as its config has it)"
    )


def _add(
    commands: Subparsers, name: str, run: Callable[[argparse.Namespace], int], help_: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, run, help_=help_, more=_MORE)
    add_socket(parser)
    return parser


def reload(args: argparse.Namespace) -> int:
    """`reload`: a line for each thing that changed; 1 with every failure."""
    answer = ask_one(args, "reload")
    result = answer.get("result") or {}
    for change in result.get("changes", []):
        print(shown(str(change)))
    for warning in result.get("warnings", []):
        print(f"guerrillad: warning: {shown(str(warning))}", file=sys.stderr)
    return _end(answer, "reloaded")


def upgrade(args: argparse.Namespace) -> int:
    """`upgrade`: returns when the new program serves, or has failed."""
    answer = ask_one(args, "upgrade")
    new = answer.get("result") or {}
    return _end(answer, f"process {new.get('pid')} ({new.get('version')}) has taken over")


def reopen_logs(args: argparse.Namespace) -> int:
    """`reopen-logs`."""
    return _end(ask_one(args, "reopen-logs"), "logs are open anew")


def stop(args: argparse.Namespace) -> int:
    """`stop`: returns when the daemon has stopped."""
    return _end(ask_one(args, "stop"), "stopped")


def status(args: argparse.Namespace) -> int:
    """`status`: for a person, or as JSON."""
    found = asked(args, "status")
    if args.json:
        print(json.dumps(found))
    else:
        for line in describe(found):
            print(shown(line))
    return 0


def stats(args: argparse.Namespace) -> int:
    """`stats`: a name and a number a line, or as JSON."""
    found = asked(args, "stats")
    if args.json:
        print(json.dumps(found))
    else:
        lines = dict(_figures(found))
        width = max(map(len, lines), default=0)
        for name, value in lines.items():
            print(shown(f"{name:<{width}}  {value}"))
    return 0


def _figures(found: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """A name and a number each; of a stage without its histogram."""
    yield from ((name, value) for name, value in found.items() if name not in _TABLES)
    for backend, figures in found.get("backends", {}).items():
        yield from ((f"backends.{backend}.{name}", value) for name, value in figures.items())
    for stage in found.get("stages", []):
        place = ".".join(str(stage.get(key)) for key in ("backend", "task", "stage"))
        for key in ("count", "errors", "calls", "seconds"):
            yield f"stages.{place}.{key}", stage.get(key)


def asked(args: argparse.Namespace, command: str) -> Mapping[str, Any]:
    """The result of a question.

    Raises:
        ControlError: no daemon answers.
        CommandError: what it says against it.
    """
    answer = ask_one(args, command)
    if not answer["ok"]:
        raise CommandError("\n".join(shown(str(line)) for line in answer.get("errors", ["failed"])))
    found: Mapping[str, Any] = answer["result"]
    return found


def ask_one(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """Asks the daemon that the command line means, at the first place where one answers.

    Raises:
        ControlError: none does, or not as it should.
        CommandError: no config file, or one whose daemon has no control socket.
        ConfigError: a config file that does not even tell where the socket is.
    """
    places = [args.socket] if args.socket is not None else sockets_of(args.config)
    for place in places:
        with suppress(NobodyThereError):
            return ask(place, command)
    looked = looked_at(places)
    hint = (
        ""
        if args.socket is not None
        else " (one that was started with another pid_file is found by --socket PIDFILE.sock)"
    )
    raise NobodyThereError(f"no daemon answers at {looked}: is it running?{hint}")


def looked_at(places: Sequence[str]) -> str:
    """Where nobody answers, for a person."""
    return " nor at ".join(os.path.abspath(place) for place in places)


def sockets_of(config: str | None) -> list[str]:
    """Where the daemon of a config file may be asked, the likeliest place first.

    One that was started before the file named a pid file has its socket beside the config file.

    Raises:
        CommandError: no config file, or one whose daemon has no control socket.
        ConfigError: a config file that does not even tell where the socket is.
    """
    path = find_config(config)
    if path is None:
        msg = f"{no_config()}: name one with -c, or the daemon's control socket with --socket"
        raise CommandError(msg)
    found = sockets_by(path)
    if not found:
        msg = f"{path}: control_socket is off: only signals reach its daemon"
        raise CommandError(msg)
    return found


def sockets_by(path: Path) -> list[str]:
    """The same by the path of a config file; empty where its daemon has none.

    Raises:
        ConfigError: a config file that does not even tell where the socket is.
    """
    named = _places(path)
    found = control_path(named, path)
    if found is None:
        return []
    without = named.model_copy(update={"control_socket": None})
    beside = [control_path(without, path), control_path(AppConfig.default(), path)]
    return list(dict.fromkeys([found, *(place for place in beside if place is not None)]))


def _places(path: Path) -> AppConfig:
    """The config, or what of one that does not load says where the socket is.

    A daemon has to be told to stop, and to say what is wrong, whatever its file has become.
    """
    try:
        return load(path)
    except ConfigError:
        try:
            text = path.read_text(encoding="utf-8-sig")
            raw = parse(text, guess_format(text), str(path))
        except (OSError, ValueError):
            raw = {}
            if not path.exists():
                raise
        return _what_loads({key.casefold(): value for key, value in raw.items()})


def _what_loads(values: Mapping[str, object]) -> AppConfig:
    """A config of those of `_PLACES` that are good."""
    known: dict[str, object] = {}
    for key in _PLACES:
        with suppress(ValueError):
            AppConfig.model_validate({key: values.get(key)})
            known[key] = values.get(key)
    return AppConfig.model_validate(known)


def describe(found: Mapping[str, Any]) -> list[str]:
    """The answer to `status`, a line a thing; what a daemon does not tell is left out."""
    started = f", up {elapsed(found['uptime'])}" if "uptime" in found else ""
    lines = [f"guerrilla {found.get('version', '')}, process {found.get('pid', '?')}{started}"]
    for server in found.get("servers", []):
        where = ", ".join(server.get("addresses", [])) or server.get("name", "")
        lines.append(f"  server     {where}: {_state(server)}")
    lines += [
        f"  {key:<10} {found[key]}" for key in ("chain", "backend", "reloads") if key in found
    ]
    lines += [f"  process    {_process(one)}" for one in found.get("processes", [])]
    lines += _sessions(found.get("stats", {}))
    lines += _spool(found.get("stats", {}))
    lines += [
        f"  backend    {name}: {backend.get('save_process', '')}"
        for name, backend in found.get("backends", {}).items()
        if name != DEFAULT
    ]
    lines += [
        f"  breaker    {name}: open"
        for name, figures in found.get("stats", {}).get("backends", {}).items()
        if figures.get("breaker_open")
    ]
    lines += [f"  stage      {_stage(one)}" for one in found.get("stats", {}).get("stages", [])]
    lines += [f"  warning    {warning}" for warning in found.get("warnings", [])]
    return lines


def _sessions(figures: Mapping[str, int]) -> list[str]:
    """How many there are in each state that has any."""
    counts = {
        name.removeprefix("sessions_"): count
        for name, count in figures.items()
        if name.startswith("sessions_") and count
    }
    text = ", ".join(f"{count} {state}" for state, count in counts.items())
    return [f"  sessions   {text}"] if text else []


def _spool(figures: Mapping[str, int]) -> list[str]:
    """What waits in the spool, where there is one, and what somebody has to look at."""
    if "spool_depth" not in figures:
        return []
    text = f"{figures['spool_depth']} waiting"
    if figures["spool_depth"]:
        text += f", the oldest {elapsed(figures['spool_age_ms'] / 1000)}"
    if figures["spool_failed_files"]:
        text += f", {figures['spool_failed_files']} failed"
    if figures["spool_broken"]:
        text += ", its disk cannot be written"
    return [f"  spool      {text}"]


def _state(server: Mapping[str, Any]) -> str:
    if not server.get("is_enabled"):
        return "disabled"
    most = f" of {server['max_clients']}" if "max_clients" in server else ""
    return f"{server.get('clients', 0)}{most} clients"


def _process(process: Mapping[str, Any]) -> str:
    """What one of several does."""
    words = [f"{process['number']}: {process['state']}"]
    if process.get("served_by") is not None:
        words.append(f"process {process['served_by']} serves meanwhile")
    if process["pid"] is not None:
        words.append(f"pid {process['pid']}, up {elapsed(process['uptime'])}")
        words.append(f"{process['clients']} clients, {process['messages']} messages")
        words.append(f"{process['memory'] / 2**20:.0f} MiB")
    if process["starts"] > 1:
        words.append(f"started {process['starts']} times")
    return ", ".join(words)


def _stage(stage: Mapping[str, Any]) -> str:
    """How many items, and the mean time of a call."""
    mean = 1000 * stage["seconds"] / stage["calls"] if stage["calls"] else 0.0
    what = f"{stage['count']} items, {stage['errors']} errors, {mean:.3g} ms a call"
    return f"{stage['backend']} {stage['task']} {stage['stage']}: {what}"


def _end(answer: Mapping[str, Any], done: str) -> int:
    for error in answer.get("errors", []):
        print(f"guerrillad: {shown(str(error))}", file=sys.stderr)
    if answer["ok"]:
        print(done)
    return 0 if answer["ok"] else 1
