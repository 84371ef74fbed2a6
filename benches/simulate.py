"""Arrivals, batches and a slow store, simulated: what a daemon would come to that is not there.

    python benches/simulate.py --confirm                  # against what was measured
    python benches/simulate.py --rate 2000 --sync-ms 5    # mails that come by chance
    python benches/simulate.py --rate 200 --burst 5000 --every 10 --store sqlite --queue 500
    python benches/simulate.py --connections 20 --processes 4 --stages-us 400    # at full speed

What is not said is as it was measured on the machine of benches/scaling.json. Without --rate and
--burst each connection sends mail after mail. A machine of its own for the client: --client-us 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from confirming import compare, null, of_store, python, spooled
from measured import FILE, Measured
from setups import Load, Result, Setup, Store
from simulation import MOST_ARRIVALS, run

ERROR: Final = 0.35
"""The simulation is as far from what was measured, at most; a test holds it to that."""
AVERAGE: Final = 0.15
"""The same of all points together."""
STORES: Final = {
    "none": "",
    "sqlite": "SQL, SQLite",
    "mariadb": "SQL, MariaDB",
    "postgresql": "SQL, PostgreSQL",
    "redis": "Redis, appendfsync",
    "spool": "250",
}
SECONDS: Final = 10.0
MOST_SECONDS: Final = 3_600.0
MOST_CLOSED: Final = 30.0
"""Of connections that send as fast as they can."""
HEAD: Final = (
    "mails/s",
    "batch",
    "waiting",
    "most",
    "median",
    "p90",
    "p99",
    "421",
    "452",
    "451",
    "cores",
)


# --- Tables ---------------------------------------------------------------------------------------


def comparison(told: Measured) -> list[str]:
    """Every point that was measured beside what is simulated."""
    found = compare(told)
    lines = [f"{'messages/s':<64}{'measured':>10}{'simulated':>11}{'error':>8}"]
    for one in found:
        error = one.said or f"{one.error:+.0%}"
        lines.append(f"{one.what:<64}{one.measured:>10,.0f}{one.simulated:>11,.0f}{error:>8}")
    told_of = [abs(one.error) for one in found if not one.said]
    worst, mean = max(told_of), sum(told_of) / len(told_of)
    return [
        *lines,
        "",
        f"error of {len(told_of)} points: {mean:.0%} on average, {worst:.0%} at most",
    ]


def rows(title: str, results: Sequence[tuple[str, Result]]) -> list[str]:
    """A line each."""
    form = "{:<26}" + "{:>9}{:>7}" + "{:>9}" * 5 + "{:>8}" * 3 + "{:>7}"
    lines = [form.format(title, *HEAD)]
    for name, one in results:
        quantiles = [lasting(one.quantile(part)) for part in (0.5, 0.9, 0.99)]
        refused = [f"{count:,}" for count in one.refused.values()]
        waiting = f"{one.waiting:,.0f}", f"{one.most_waiting:,}"
        cores = f"{one.computed / one.seconds:.2f}"
        cells = (f"{one.rate:,.0f}", f"{one.mean_batch:.1f}", *waiting, *quantiles, *refused, cores)
        lines.append(form.format(name, *cells))
    return lines


def lasting(seconds: float) -> str:
    """With a unit that fits."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def slower(told: Measured) -> list[str]:
    """A store that takes longer and longer, under mails that come by chance."""
    base = dataclasses.replace(null(told), client=0.0)
    found = []
    for ms in (0.1, 1.0, 5.0, 20.0, 100.0):
        store = Store(wait_batch=ms * 1e3, wait_mail=20.0)
        setup = dataclasses.replace(base, store=store, connections=20_000, queue=10_000)
        found.append((f"{ms:g} ms a batch", run(setup, Load(rate=2_000.0), 10.0)))
    return rows("2,000 mails/s, one worker", found)


def bursts(told: Measured) -> list[str]:
    """Bursts that go into the queue, or do not."""
    base = dataclasses.replace(null(told), client=0.0)
    store = Store(wait_batch=20_000.0, wait_mail=500.0)
    load = Load(rate=200.0, burst=10_000, every=20.0)
    found = []
    for queue, workers in ((20_000, 1), (2_000, 1), (2_000, 4)):
        setup = dataclasses.replace(
            base, store=store, connections=20_000, queue=queue, workers=workers, timeout=5.0
        )
        name = f"queue {queue:,}, {workers} worker{'s' * (workers > 1)}"
        found.append((name, run(setup, load, 60.0)))
    with_spool = dataclasses.replace(spooled(base), connections=20_000, timeout=5.0)
    found.append(("250 first: a spool", run(with_spool, load, 60.0)))
    return rows("10,000 at once each 20 s", found)


# --- The command ----------------------------------------------------------------------------------


def above(least: float, kind: type[int | float] = float) -> Callable[[str], float]:
    """Reads a number that is not below that; nan and the infinities are none."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{wanted} is expected, not {text!r}") from None
        if not math.isfinite(value) or value < least:
            raise argparse.ArgumentTypeError(
                f"a number of at least {least:g} is expected, not {text}"
            )
        return value

    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--confirm", action="store_true", help="what was measured, simulated")
    load = parser.add_argument_group("who sends")
    load.add_argument(
        "--rate", type=above(0), default=0.0, help="mails a second, by chance (Poisson)"
    )
    load.add_argument("--burst", type=above(0, int), default=0, help="mails at once")
    load.add_argument("--every", type=above(0.001), default=1.0, help="seconds between bursts")
    load.add_argument("--connections", type=above(1, int), default=100,
                      help="at a time: who comes then hears 421")  # fmt: skip
    load.add_argument("--client-us", type=above(0), help="CPU of the client a mail; 0: not here")
    daemon = parser.add_argument_group("who receives")
    daemon.add_argument("--cores", type=above(1, int))
    daemon.add_argument("--processes", type=above(1, int), default=1)
    daemon.add_argument("--workers", type=above(1, int), default=1, help="of each process")
    daemon.add_argument("--batch", type=above(1, int), help="save_batch_size; 64")
    daemon.add_argument("--stages-us", type=above(0), help="CPU of the stages a mail, in Python")
    daemon.add_argument("--parse", action="store_true", help="the measured chain that parses")
    daemon.add_argument(
        "--hash", action="store_true", help="a socket a process, not the freest one"
    )
    daemon.add_argument("--queue", type=above(1, int), default=100_000,
                        help="mails not answered: who brings one more hears 452")  # fmt: skip
    daemon.add_argument("--timeout", type=above(0.001), default=30.0, help="seconds; then 451")
    store = parser.add_argument_group("what stores")
    store.add_argument("--store", choices=STORES, default="none", help="one that was measured")
    store.add_argument("--sync-ms", type=above(0), default=0.0, help="more that each batch waits")
    store.add_argument("--mail-us", type=above(0), default=0.0, help="more that each mail waits")
    store.add_argument("--writers", type=above(0, int), default=0,
                       help="batches that it takes at a time; 0: any")  # fmt: skip
    parser.add_argument("--seconds", type=above(0.01), default=SECONDS, help="that are simulated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="source", type=Path, default=FILE, metavar="FILE")
    return parser


def setup_of(args: argparse.Namespace, told: Measured) -> Setup:
    """The daemon that was asked for."""
    base = null(told)
    store = Store()
    if args.store == "spool":
        base = spooled(base)
        store = base.store
    elif name := STORES[args.store]:
        store = of_store(base, name)
    store = dataclasses.replace(
        store,
        wait_batch=store.wait_batch + args.sync_ms * 1e3,
        wait_mail=store.wait_mail + args.mail_us,
        writers=args.writers or int(args.store == "sqlite"),
    )
    stages = python(told, base).stages if args.parse else base.stages
    return dataclasses.replace(
        base,
        store=store,
        stages=stages if args.stages_us is None else args.stages_us,
        client=base.client if args.client_us is None else args.client_us,
        cores=args.cores or base.cores,
        processes=args.processes,
        workers=args.workers,
        batch=args.batch or base.batch,
        shared=not args.hash,
        connections=args.connections,
        programs=min(args.connections, args.cores or base.cores),
        queue=args.queue,
        timeout=args.timeout,
    )


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Load:
    """Who sends, where that can be simulated in seconds."""
    arrivals = (args.rate + args.burst / args.every) * args.seconds
    load = Load(args.rate, args.burst, args.every)
    most = MOST_CLOSED if load.closed else MOST_SECONDS
    if args.seconds > most or arrivals > MOST_ARRIVALS:
        parser.error(f"{args.seconds:g} s of it are too many: {most:,.0f} s, and "
                     f"{MOST_ARRIVALS:,} mails, are the most")  # fmt: skip
    if args.queue < args.processes:
        parser.error(f"--queue {args.queue}: has to be one a process at least")
    return load


def main() -> int:
    """Simulates and prints; 1 when it cannot be done."""
    parser = _parser()
    args = parser.parse_args()
    load = check(parser, args)
    try:
        told = Measured.read(args.source)
        if args.confirm:
            lines = comparison(told)
        else:
            result = run(setup_of(args, told), load, args.seconds, args.seed)
            lines = rows(f"{args.seconds:g} s", [("", result)])
    except (OSError, ValueError, LookupError) as error:
        print(f"simulate.py: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
