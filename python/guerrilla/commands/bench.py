"""`guerrillad bench`: how much mail a server takes, and how long it takes for each."""

from __future__ import annotations

import argparse
import math
import os
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Final

from guerrilla._core import Address, Load
from guerrilla.bench.bar import watching
from guerrilla.bench.mails import MailsError, Sizes, header, parse_sizes
from guerrilla.bench.plot import check_plot, write_plot
from guerrilla.bench.receiver import Receiver, receiving
from guerrilla.bench.report import Asked, has_failed, summary, table
from guerrilla.bench.target import Target, have_descriptors, resolve
from guerrilla.commands.common import CommandError, add_command, as_json, duration
from guerrilla.config import machine_name, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from guerrilla._core import LoadFigures, LoadSettings
    from guerrilla.commands.common import Subparsers
    from guerrilla.config import ListenAddress

MESSAGES: Final = 10_000
DURATION: Final = 30.0
"""What ends a load of which nothing else is said; one of them alone has the other's limit below."""
RECIPIENT: Final = "bench@example.com"
SENDER: Final = "bench@example.org"
MAX_MESSAGES: Final = 100_000_000
MAX_DURATION: Final = 86_400.0
LONG: Final = 600.0
"""Seconds for `--messages` alone."""
MAX_CONNECTIONS: Final = 50_000
MAX_RATE: Final = 1_000_000.0
MAX_THREADS: Final = 64
MAX_PROCESSES: Final = 256
MAX_TIMEOUT: Final = 600.0

_INTERRUPTED: Final = 130
"""As a shell reports a program that Ctrl-C ended."""
_LOOK: Final = 0.1
"""Seconds from one look at the figures to the next, and that Ctrl-C takes at most."""
_MORE: Final = """\
examples:
  guerrillad bench                                   a daemon of its own, 10,000 messages of 4 KiB
  guerrillad bench --processes 0 --connections 100 --size 1k-100k --duration 30s
  guerrillad bench --target 127.0.0.1:2525 --rate 500 --duration 1m --plot bench.svg
  guerrillad bench --target 127.0.0.1:2525 --per-connection 1 --tls --json
  guerrillad bench --target unix:/run/guerrilla/lmtp --lmtp --size mails/ --to you@example.com

Without --rate the next message begins when the one before it is answered (a closed loop): the rate
is what the server can do. With it, messages begin when they are due (an open loop), and a latency
counts from then: it has the time in which no connection was free. Exit status 0: everything was
accepted; 1: something was not; 130: Ctrl-C, after the table so far.
"""


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(commands, "bench", run, help_="load a server with mail", more=_MORE)
    _add_target(parser)
    _add_load(parser)
    _add_message(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object in place of a table")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw latencies, and the rate over time, into FILE: .svg, or .png (extra 'plot')",
    )


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        metavar="HOST:PORT",
        type=_server,
        help="server to load, or unix:/PATH (default: a daemon of its own that keeps nothing)",
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=_whole(0, MAX_PROCESSES),
        help="of a daemon of its own; 0: one for each core (default: 1)",
    )
    parser.add_argument(
        "--yes-this-host-is-mine",
        action="store_true",
        help="load a target that is not this machine",
    )
    parser.add_argument("--lmtp", action="store_true", help="speak LMTP")
    parser.add_argument(
        "--tls",
        nargs="?",
        const="starttls",
        choices=("starttls", "implicit"),
        help="within TLS, by STARTTLS or from the first octet on (default: starttls)",
    )
    parser.add_argument(
        "--ca",
        metavar="FILE",
        help="PEM file that the certificate is checked by (default on this machine: unchecked)",
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connections",
        metavar="N",
        type=_whole(1, MAX_CONNECTIONS),
        default=10,
        help="connections at a time (default: 10)",
    )
    parser.add_argument(
        "--per-connection",
        metavar="N",
        type=_whole(0, MAX_MESSAGES),
        default=0,
        help="messages over a connection, then a new one (default: 0, all over the same)",
    )
    parser.add_argument(
        "--messages",
        metavar="N",
        type=_whole(1, MAX_MESSAGES),
        help=f"messages in all (default: {MESSAGES:,}; with --duration, no limit)",
    )
    parser.add_argument(
        "--duration",
        metavar="S",
        type=_duration(MAX_DURATION),
        help=f"no message begins later (default: {DURATION:g}s; with --messages, {LONG:g}s)",
    )
    parser.add_argument(
        "--rate", metavar="R", type=_rate, help="messages a second (default: as many as are taken)"
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=_duration(MAX_TIMEOUT),
        default=30.0,
        help="for a connection, and for each reply (default: 30s)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=_whole(1, MAX_THREADS),
        default=max(1, min(8, (os.cpu_count() or 1) // 2)),
        help="threads that send (default: half of the cores, 8 at most)",
    )


def _add_message(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        metavar="SIZE",
        default="4k",
        help="of a message: 4k, 1k-100k, or a folder of .eml files to send (default: 4k)",
    )
    parser.add_argument(
        "--to",
        metavar="ADDRESS",
        action="append",
        type=_address,
        help=f"recipient of each message; may be given several times (default: {RECIPIENT})",
    )
    parser.add_argument(
        "--from",
        metavar="ADDRESS",
        dest="sender",
        type=_address,
        default=SENDER,
        help=f"reverse-path; '<>' for none (default: {SENDER})",
    )
    parser.add_argument(
        "--pipelining", action="store_true", help="MAIL, RCPT and DATA together, where offered"
    )


def run(args: argparse.Namespace) -> int:
    """Loads the server and prints what became of it; 1 when anything was not accepted.

    Raises:
        CommandError: it cannot be done as it was asked for.
        GuerrillaError: nor for a size, a target, a plot or a daemon of its own.
        OSError: a file cannot be read or written.
    """
    sizes = _sizes(args.size)
    pieces = header(args.sender, args.to[0] if args.to else RECIPIENT, sizes)
    if args.plot is not None:
        check_plot(args.plot)
    target = None if args.target is None else resolve(args.target)
    authorities = _authorities(args, target)
    if target is not None:
        _allow(args, target)
    have_descriptors(args.connections)
    with ExitStack() as opened:
        receiver = None
        if target is None:
            receiver = opened.enter_context(_receiver(args, sizes))
            target = resolve(parse_address(receiver.address))
        settings = _settings(args, target, sizes, pieces, authorities)
        before = receiver.cpu() if receiver is not None else 0.0
        figures = _load(settings)
        cpu = receiver.cpu() - before if receiver is not None else None
    told = summary(_asked(args, target, sizes), figures, cpu)
    print(as_json(told) if args.json else table(told), flush=True)
    if args.plot is not None:
        write_plot(args.plot, told)
    if figures["ended"] == "stopped":
        return _INTERRUPTED
    return 1 if has_failed(told) else 0


def _load(settings: LoadSettings) -> LoadFigures:
    """Runs it to its end, or to Ctrl-C.

    Raises:
        CommandError: the authorities are none: all else has been looked at.
    """
    try:
        load = Load(settings)
    except ValueError as error:
        raise CommandError(str(error).replace("authorities", "--ca", 1)) from error
    try:
        with watching(settings["messages"], settings["duration"]) as show:
            while not load.wait(_LOOK):
                show(load.figures())
    except KeyboardInterrupt:
        pass
    finally:
        load.stop()
    return load.figures()


def _settings(
    args: argparse.Namespace,
    target: Target,
    sizes: Sizes,
    pieces: list[bytes],
    authorities: bytes | None,
) -> LoadSettings:
    messages, seconds = _limits(args)
    return {
        "addresses": list(target.addresses),
        "protocol": "lmtp" if args.lmtp else "smtp",
        "helo": machine_name(),
        "sender": args.sender,
        "recipients": args.to or [RECIPIENT],
        "tls": args.tls,
        "server_name": target.host,
        "authorities": authorities,
        "pipelining": args.pipelining,
        "header": pieces,
        "sizes": (sizes.least, sizes.most),
        "mails": list(sizes.mails),
        "connections": args.connections,
        "per_connection": args.per_connection,
        "messages": messages,
        "rate": args.rate,
        "duration": seconds,
        "timeout": args.timeout,
        "threads": min(args.threads, args.connections),
    }


def _limits(args: argparse.Namespace) -> tuple[int, float]:
    """How many messages, and for how long: something always ends it."""
    if args.messages is not None:
        return args.messages, args.duration or LONG
    if args.duration is not None:
        return MAX_MESSAGES, args.duration
    return MESSAGES, DURATION


def _asked(args: argparse.Namespace, target: Target, sizes: Sizes) -> Asked:
    return Asked(
        target=target.text,
        is_own=args.target is None,
        connections=args.connections,
        size=sizes.text,
        rate=args.rate,
        tls=args.tls,
        lmtp=args.lmtp,
        pipelining=args.pipelining,
        per_connection=args.per_connection,
        processes=1 if args.processes is None else args.processes,
        threads=min(args.threads, args.connections),
    )


def _receiver(args: argparse.Namespace, sizes: Sizes) -> AbstractContextManager[Receiver]:
    return receiving(
        connections=args.connections,
        size=sizes.most,
        tls=args.tls,
        lmtp=args.lmtp,
        processes=1 if args.processes is None else args.processes,
    )


def _sizes(text: str) -> Sizes:
    try:
        return parse_sizes(text)
    except MailsError as error:
        raise CommandError(f"--size: {error}") from error


def _allow(args: argparse.Namespace, target: Target) -> None:
    """Looks whether the target may be loaded.

    Raises:
        CommandError: it is not known to be the user's own.
    """
    if args.processes is not None:
        raise CommandError("--processes: is of a daemon of its own, so it goes without --target")
    if not target.is_local and not args.yes_this_host_is_mine:
        raise CommandError(
            f"--target: {target.text} is not this machine, and for a server of somebody else this "
            "is an attack; if it is yours, add --yes-this-host-is-mine"
        )


def _authorities(args: argparse.Namespace, target: Target | None) -> bytes | None:
    """What a certificate is checked by.

    Raises:
        CommandError: it cannot be, and has to.
    """
    if args.ca is not None:
        if args.tls is None or target is None:
            raise CommandError("--ca: goes with --tls and --target")
        try:
            with open(args.ca, "rb") as file:
                return file.read()
        except OSError as error:
            raise CommandError(f"--ca: {args.ca}: {error.strerror or error}") from error
    if args.tls is not None and target is not None and not target.is_local:
        raise CommandError(
            f"--tls: {target.text} is not this machine: name what its certificate is checked by "
            "with --ca (of all authorities: /etc/ssl/certs/ca-certificates.crt)"
        )
    return None


def _server(text: str) -> ListenAddress:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _address(text: str) -> str:
    try:
        address = Address.parse(text)
    except ValueError as error:
        msg = f"{text!r} is no mail address: {error}"
        raise argparse.ArgumentTypeError(msg) from error
    if not address.user.isascii():
        msg = f"{text!r}: expected an address in ASCII"
        raise argparse.ArgumentTypeError(msg)
    return str(Address(address.user, address.ascii_host)) if address.host else str(address)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        digits = text.replace(",", "").replace("_", "")
        if not (digits.isascii() and digits.isdigit() and least <= int(digits[:12]) <= most):
            msg = f"expected a number from {least:,} to {most:,}, got {text!r}"
            raise argparse.ArgumentTypeError(msg)
        return int(digits)

    return parse


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= MAX_RATE:
        msg = f"expected messages a second, more than 0 and at most {MAX_RATE:,.0f}, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return rate


def _duration(most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        seconds = duration(f"{text}s" if text.replace(".", "", 1).isdigit() else text)
        if not 0 < seconds <= most:
            msg = f"expected a time of more than 0 and at most {most:g} s, got {text!r}"
            raise argparse.ArgumentTypeError(msg)
        return seconds

    return parse
