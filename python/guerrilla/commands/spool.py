"""`guerrillad spool`: what waits in the spool, what has failed, and what becomes of it."""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from guerrilla.commands.common import (
    CommandError,
    add_command,
    as_json,
    column,
    elapsed,
    shown,
    write_message,
)
from guerrilla.commands.control import add_socket
from guerrilla.commands.progress import progress
from guerrilla.commands.spoolplace import opened
from guerrilla.control.spool import MAX_ENTRIES
from guerrilla.errors import GuerrillaError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from guerrilla.commands.common import Subparsers
    from guerrilla.commands.spoolplace import Ask

_MORE: Final = """\
A daemon that runs is asked over its control socket. Where none runs, the folders of spool.path are
opened instead, under their locks; as root, as the user whose they are.
"""

_STEP: Final = 200
"""Messages in a request: few enough to see how far it is."""

_REPLAY_STEP: Final = 20
"""The same where each has a sync of its own."""

_ANY: Final = frozenset({"ready", "deferred", "in work", "failed", "damaged"})

_NOTHING: Final[tuple[object, ...]] = (None, "", [], {})
"""Values of a record that say nothing."""

_HEAD: Final = (
    f"{'ID':26}  {'AGE':>7}  {'SIZE':>9}  {'TRIES':>5}  {'NEXT':>7}  {'STATE':8}  "
    f"{'FROM':28}  {'TO':28}  ERROR"
)


def add(commands: Subparsers) -> None:
    """Adds `spool` and its own commands."""
    what = "look after the messages in the spool, and after those that have failed"
    parser = commands.add_parser(
        "spool",
        help=what,
        description=f"{what[0].upper()}{what[1:]}. Works with a running daemon and without.",
    )
    own: Subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_list(own)
    _add_show(own)
    _add_some(own, "retry", retry, "make messages due now that wait for their next try")
    _add_drop(own)
    _add_some(own, "replay", replay, "put messages that have failed back into the spool")


def _add_list(commands: Subparsers) -> None:
    parser = _add(commands, "list", list_messages, "list the messages, oldest first")
    parser.add_argument("--failed", action="store_true", help="those that have failed instead")
    _add_backend(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_show(commands: Subparsers) -> None:
    more = (
        "On a terminal control characters of a message are escaped; into a file or pipe it goes\n"
        "byte for byte.\n\n"
    )
    parser = _add(commands, "show", show, "show what is known of one message", more)
    parser.add_argument("id", metavar="ID", help="as `spool list` and the 250 reply have it")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--message", action="store_true", help="write the message itself instead")
    form.add_argument("--json", action="store_true", help="one JSON object")


def _add_drop(commands: Subparsers) -> None:
    parser = _add_some(commands, "drop", drop, "delete messages for good")
    parser.add_argument(
        "--failed", action="store_true", help="with --all: those that have failed instead"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask whether it is meant")


def _add_some(
    commands: Subparsers, name: str, run: Callable[[argparse.Namespace], int], help_: str
) -> argparse.ArgumentParser:
    """A command for messages that are named, or for all."""
    parser = _add(commands, name, run, help_)
    parser.add_argument("ids", metavar="ID", nargs="*", help="of `spool list`")
    parser.add_argument("--all", action="store_true", help="all there are now")
    _add_backend(parser, "with --all: ")
    parser.add_argument("--json", action="store_true", help="one JSON object: how many")
    return parser


def _add_backend(parser: argparse.ArgumentParser, when: str = "") -> None:
    parser.add_argument("--backend", metavar="NAME", help=f"{when}only those of that backend")


def _add(
    commands: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_: str,
    more: str = "",
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, run, help_=help_, more=more + _MORE)
    add_socket(parser)
    return parser


def list_messages(args: argparse.Namespace) -> int:
    """`spool list`: a line a message."""
    with opened(args) as ask:
        entries = _entries(ask, failed=args.failed, backend=args.backend)
        first = [*itertools.islice(entries, 1)]  # Before anything is printed: it may be refused.
        if not args.json:
            print(_HEAD)
        now = time.time()
        for entry in itertools.chain(first, entries):
            print(as_json(entry) if args.json else shown(_line(entry, now)))
    return 0


def show(args: argparse.Namespace) -> int:
    """`spool show`: one message, or what is known of it."""
    with opened(args) as ask:
        found = ask("spool-show", {"id": args.id})
        part = "message" if args.message else "record"
        octets = _read(ask, args.id, part, found[f"{part}_size"])
    if args.message:
        write_message(octets)
        return 0
    record = json.loads(octets)
    if args.json:
        print(as_json({**found["entry"], "record": record}))
        return 0
    for name, value in _described(found["entry"], record, time.time()):
        print(shown(f"{name:<18} {value}"))
    return 0


def retry(args: argparse.Namespace) -> int:
    """`spool retry`: due now."""
    ids = _chosen(args, failed=False, states={"deferred"})
    count = _act(args, "spool-retry", ids, "retrying")
    return _say(args, "retried", count, "due now")


def drop(args: argparse.Namespace) -> int:
    """`spool drop`: asks, and deletes; 1 where one is still there, since somebody works on it."""
    ids = _chosen(args, failed=args.failed if args.all else None)
    if ids and not args.yes:
        _confirm(len(ids))
    waiting, failed = ([one for one in ids if ids[one] is state] for state in (False, True))
    count = _act(args, "spool-drop", waiting, "dropping")
    count += _act(args, "spool-drop", failed, "dropping", failed=True)
    _say(args, "dropped", count, "dropped")
    return _rest(len(ids) - count, "not dropped: in work, or gone meanwhile")


def replay(args: argparse.Namespace) -> int:
    """`spool replay`: in the spool again; 1 where one is not."""
    ids = _chosen(args, failed=True, states={"failed"})
    count = _act(args, "spool-replay", ids, "replaying", step=_REPLAY_STEP)
    _say(args, "replayed", count, "in the spool again")
    return _rest(len(ids) - count, "not put back: gone meanwhile, or see the log")


def _rest(count: int, what: str) -> int:
    """The status, by how many are left."""
    if count > 0:
        print(f"guerrillad: {_messages(count)} {what}", file=sys.stderr)
    return 1 if count > 0 else 0


def _entries(ask: Ask, *, failed: bool, backend: str | None) -> Iterator[dict[str, Any]]:
    after: int | None = 0
    while after is not None:
        arguments = {"after": after, "max": MAX_ENTRIES, "failed": failed, "backend": backend}
        page = ask("spool-list", arguments)
        yield from page["entries"]
        after = page["next"]


def _read(ask: Ask, name: str, part: str, size: int) -> bytes:
    """All octets of a message, or of its record."""
    octets = bytearray()
    offset: int | None = 0
    with progress("reading", size) as more:
        while offset is not None:
            chunk = ask("spool-read", {"id": name, "part": part, "offset": offset})
            data = base64.b64decode(chunk["data"])
            octets += data
            more(len(data))
            offset = chunk["next"]
    return bytes(octets)


def _chosen(
    args: argparse.Namespace, *, failed: bool | None, states: Collection[str] = _ANY
) -> dict[str, bool]:
    """The ids of the command line, or of all there are now, with whether each was set aside.

    Each is looked for before anything is done.

    Args:
        args: the command line.
        failed: what they have to be; None: either.
        states: those of all there are that are meant.

    Raises:
        CommandError: one is not there, or not what it has to be; or none was named.
    """
    if bool(args.ids) == args.all:
        args.parser.error("name messages, or all with --all")
    for option in ("failed", "backend"):
        # Left out it would be done to what it was to be kept from.
        if not args.all and vars(args).get(option):
            args.parser.error(f"--{option} goes with --all: a message is found wherever it is")
    with opened(args) as ask:
        if not args.all:
            return {name: _look_for(ask, name, failed=failed) for name in args.ids}
        entries = _entries(ask, failed=bool(failed), backend=args.backend)
        # Of what is damaged it may be only a name for a person.
        named = (one for one in entries if one["id"].isascii() and one["id"].isalnum())
        return {one["id"]: bool(failed) for one in named if one["state"] in states}


def _look_for(ask: Ask, name: str, *, failed: bool | None) -> bool:
    """Whether the message of that id has been set aside."""
    state = ask("spool-show", {"id": name})["entry"]["state"]
    is_aside = state in {"failed", "damaged"}
    if failed is not None and state == "damaged":
        raise CommandError(f"{name}: is damaged, so it cannot be tried again")
    if failed is True and not is_aside:
        raise CommandError(f"{name}: has not failed, so there is nothing to replay")
    if failed is False and is_aside:
        raise CommandError(f"{name}: has failed: `spool replay` puts it back")
    return is_aside


def _confirm(count: int) -> None:
    """Asks whether it is meant.

    Raises:
        CommandError: it is not, or there is nobody to ask.
    """
    what = _messages(count)
    if not sys.stdin.isatty():
        raise CommandError(f"{what} would be deleted for good: say --yes where that is meant")
    print(f"delete {what} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandError("nothing was deleted")


def _act(
    args: argparse.Namespace,
    command: str,
    ids: Collection[str],
    doing: str,
    step: int = _STEP,
    **more: bool,
) -> int:
    """Asks for it, some messages at a time; of how many it was done."""
    names = list(ids)
    if not names:
        return 0
    count = 0
    try:
        with opened(args) as ask, progress(doing, len(names)) as done:
            for start in range(0, len(names), step):
                some = names[start : start + step]
                count += ask(command, {"ids": some, **more})["count"]
                done(len(some))
    except (GuerrillaError, OSError):
        if count > 0:
            what = f"{doing}, at least {count} of {_messages(len(names))} done"
            print(f"guerrillad: stopped while {what}", file=sys.stderr)
        raise
    return count


def _say(args: argparse.Namespace, key: str, count: int, done: str) -> int:
    print(as_json({key: count}) if args.json else f"{_messages(count)} {done}")
    return 0


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _line(entry: Mapping[str, Any], now: float) -> str:
    others = entry["recipients"] - 1
    to = entry["to"][0] if entry["to"] else ""
    if others > 0:
        to = f"{column(to, 22)} +{others}"
    return (
        f"{entry['id']:26}  {_age(entry, now):>7}  {entry['size']:>9}  "
        f"{entry['attempts']:>5}  {_next(entry, now):>7}  {entry['state']:8}  "
        f"{column(entry['from'] or '<>', 28):28}  {column(to, 28):28}  "
        f"{entry['error'] or ''}"
    ).rstrip()


def _age(entry: Mapping[str, Any], now: float) -> str:
    return elapsed(max(0.0, now - entry["received_at"]))


def _next(entry: Mapping[str, Any], now: float) -> str:
    if entry["next_at"] is None:
        return "-"
    return elapsed(entry["next_at"] - now) if entry["next_at"] > now else "now"


def _described(
    entry: Mapping[str, Any], record: Mapping[str, Any], now: float
) -> Iterator[tuple[str, str]]:
    """What is known of a message, a name and a text each; the rest of its record last."""
    yield "id", entry["id"]
    yield "state", entry["state"]
    yield "backend", entry["backend"] or "-"
    yield "received", f"{_moment(entry['received_at'])}, {_age(entry, now)} ago"
    first = record.get("received_at")
    # Its age counts from when it was replayed.
    if isinstance(first, float) and first < entry["received_at"]:
        yield "first received", _moment(first)
    yield "size", str(entry["size"])
    yield "attempts", str(entry["attempts"])
    yield "next try", _next(entry, now)
    yield "error", entry["error"] or "-"
    for name, value in record.items():
        if name not in {"queued_id", "received_at", "size"} and value not in _NOTHING:
            yield from _field(name, value)


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _field(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, list) and value:
        for one in value:
            yield from _field(name, one)
    elif isinstance(value, dict) and {"user", "host"} <= value.keys():
        address = f"{value['user']}@{value['host']}" if value["user"] else "<>"
        yield name, address
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
