"""`guerrillad mail`: reads and trims the SQL store."""

from __future__ import annotations

import argparse
import base64
import datetime as dt
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guerrilla._core import Envelope
from guerrilla.commands.common import (
    CommandError,
    add_command,
    add_config,
    as_json,
    column,
    duration,
    find_store,
    shown,
    table_name,
    write_message,
)
from guerrilla.store.reader import Reader, StoredMail, purge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from guerrilla.commands.common import StorePlace, Subparsers

_ID_HELP: Final = "mail_id, queued_id (the ID in the server's 250 reply) or hash"
_DATE: Final = "%Y-%m-%d %H:%M:%S"
_UNSAFE_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9@._+=-]+")
_MAX_NAME_PART: Final = 100


def add(commands: Subparsers) -> None:
    """Adds `mail` and its own commands."""
    parser = commands.add_parser(
        "mail",
        help="read and trim the mails that the SQL stage has stored",
        description="Read and trim the mails that the SQL stage has stored. "
        "Works beside a running daemon.",
    )
    own: Subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_list(own)
    _add_show(own)
    _add_export(own)
    _add_purge(own)


def _add_list(commands: Subparsers) -> None:
    parser = _add(commands, "list", list_mails, "list the mails, newest first")
    parser.add_argument("--limit", metavar="N", type=_count, help="that many at most")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_show(commands: Subparsers) -> None:
    more = (
        "On a terminal control characters are escaped; into a file or pipe the message goes\n"
        "byte for byte. An ID with several recipients shows the first one's copy."
    )
    parser = _add(commands, "show", show, "write one message to standard output", more)
    parser.add_argument("id", metavar="ID", help=_ID_HELP)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--headers", action="store_true", help="the header section alone")
    form.add_argument("--raw", action="store_true", help="byte for byte, on a terminal too")
    form.add_argument("--json", action="store_true", help="one JSON object, the message in base64")


def _add_export(commands: Subparsers) -> None:
    more = (
        "Files are named QUEUED_ID-RECIPIENT.eml and readable by their owner only. A file that is\n"
        "there is never overwritten; one with the same content counts as exported."
    )
    parser = _add(commands, "export", export, "write mails as .eml files", more)
    parser.add_argument("folder", metavar="DIR", help="where to; made if it is missing")
    parser.add_argument("ids", metavar="ID", nargs="*", help=f"{_ID_HELP}; all mails without one")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        type=_since,
        help="only mails received since then: 2026-01-31, '2026-01-31 12:00:00' (UTC), or 7d ago",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object: how many, where to")


def _add_purge(commands: Subparsers) -> None:
    parser = _add(commands, "purge", purge_mails, "delete old mails for good, without asking")
    parser.add_argument(
        "--older-than",
        metavar="D",
        type=duration,
        required=True,
        help="age by time of receipt: 30d, 2w, 36h, 90m",
    )
    parser.add_argument("--dry-run", action="store_true", help="only count them")
    parser.add_argument("--json", action="store_true", help="one JSON object: how many, how old")


def _add(
    commands: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_: str,
    more: str = "",
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, run, help_=help_, more=more)
    add_config(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--db", metavar="FILE", help="database file (default: as in the config)")
    where.add_argument(
        "--backend",
        metavar="NAME",
        help="backend of the config that stored them (default: the first with an SQLite store)",
    )
    parser.add_argument(
        "--table", metavar="NAME", type=table_name, help="table (default: as in the config)"
    )
    return parser


def list_mails(args: argparse.Namespace) -> int:
    """`mail list`: a line a mail, newest first."""
    with _reader(args) as reader:
        if not args.json:
            print(f"{'ID':>7}  {'RECEIVED (UTC)':19}  {'SIZE':>9}  {'FROM':28}  {'TO':28}  SUBJECT")
        for mail in reader.newest(args.limit):
            print(as_json(_summary(mail)) if args.json else _line(mail))
    return 0


def show(args: argparse.Namespace) -> int:
    """`mail show`: one message."""
    with _reader(args) as reader:
        mail, *others = _find(reader, args.id)
        data = reader.message(mail)
    if args.json:
        header = Envelope.create(data).header
        body = base64.b64encode(data).decode("ascii")
        print(as_json({**_summary(mail), "headers": header.items(), "message": body}))
        return 0
    if args.headers:
        data = bytes(Envelope.create(data).header_data)
    write_message(data, raw=args.raw)
    if others:
        ids = ", ".join(str(other.mail_id) for other in others)
        print(f"guerrillad: the copies for other recipients are {ids}", file=sys.stderr)
    return 0


def export(args: argparse.Namespace) -> int:
    """`mail export`: a file a mail; 1 when one could not be written for another in its place."""
    written = there = failed = 0
    taken: set[Path] = set()
    folder = Path(args.folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _reader(args) as reader:
        for mail in _chosen(reader, args.ids, args.since or ""):
            match _write(folder, mail, reader.message(mail), taken):
                case True:
                    written += 1
                case False:
                    there += 1
                case Path() as path:
                    failed += 1
                    print(f"guerrillad: {path} is another file: not overwritten", file=sys.stderr)
    if args.json:
        counts = {"exported": written, "already_there": there, "not_overwritten": failed}
        print(as_json({**counts, "folder": args.folder}))
    else:
        print(f"exported {written} to {args.folder}" + (f", {there} were there" if there else ""))
    return 1 if failed else 0


def purge_mails(args: argparse.Namespace) -> int:
    """`mail purge`: deletes, and says how many."""
    place = _place(args)
    before = time.strftime(_DATE, time.gmtime(time.time() - args.older_than))
    count = purge(place.path, place.table, before, dry_run=args.dry_run)
    if args.json:
        key = "would_be_purged" if args.dry_run else "purged"
        print(as_json({key: count, "older_than": before, "dry_run": args.dry_run}))
        return 0
    mails = "1 mail" if count == 1 else f"{count} mails"
    done = "would be purged" if args.dry_run else "purged"
    print(f"{mails} {done}: received before {before} UTC")
    return 0


def _place(args: argparse.Namespace) -> StorePlace:
    return find_store(args.config, args.db, args.table, args.backend)


def _reader(args: argparse.Namespace) -> Reader:
    return Reader(*_place(args))


def _find(reader: Reader, name: str) -> list[StoredMail]:
    found = reader.find(name)
    if not found:
        msg = f"no mail {name!r}: expected a mail_id, a queued_id or a hash"
        raise CommandError(msg)
    return found


def _chosen(reader: Reader, ids: list[str], since: str) -> Iterable[StoredMail]:
    if not ids:
        return reader.oldest(since)
    # Each is looked for before the first is written.
    found = [mail for name in ids for mail in _find(reader, name)]
    return [mail for mail in dict.fromkeys(found) if mail.date >= since]


def _write(folder: Path, mail: StoredMail, data: bytes, taken: set[Path]) -> bool | Path:
    """Writes one; False when it is there already, the path when that is another file.

    `taken` has the files of other mails of this run.
    """
    stem = f"{mail.queued_id or mail.mail_id}-{mail.recipient}"
    stem = _UNSAFE_IN_NAMES.sub("_", stem)[:_MAX_NAME_PART].lstrip(".-")
    # The second name is for recipients that differ only in what a file name cannot hold.
    paths = (folder / f"{stem}.eml", folder / f"{stem}-{mail.mail_id}.eml")
    for path in paths:
        if path in taken:
            continue
        try:
            _write_new(path, data)
        except FileExistsError:
            if not _holds(path, data):
                continue
            written = False
        else:
            written = True
        taken.add(path)
        return written
    return paths[-1]


def _write_new(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
    except BaseException:
        path.unlink()
        raise


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _summary(mail: StoredMail) -> dict[str, Any]:
    return {
        "mail_id": mail.mail_id,
        "queued_id": mail.queued_id,
        "date": mail.date,
        "from": mail.sender,
        "to": mail.recipient,
        "subject": mail.subject,
        "size": mail.size,
        "hash": mail.hash,
    }


def _line(mail: StoredMail) -> str:
    sender = column(mail.sender or "<>", 28)
    recipient = column(mail.recipient, 28)
    return (
        f"{mail.mail_id:>7}  {mail.date:19}  {mail.size:>9}  {sender:28}  {recipient:28}  "
        f"{shown(mail.subject)}"
    ).rstrip()


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        msg = f"expected a number of at least 1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _since(text: str) -> str:
    """A date, or a time ago, as the `date` column has it."""
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError:
        return time.strftime(_DATE, time.gmtime(time.time() - duration(text)))
    if when.tzinfo is not None:
        when = when.astimezone(dt.UTC)
    return when.strftime(_DATE)
