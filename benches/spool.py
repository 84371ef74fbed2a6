"""What the spool costs: mail that is synced to the disk before its 250, beside mail that is not.

    make bench-spool [ARGS="--rounds 3 --connections 100 --seconds 3 --json FILE"]

Each chain takes mails of 4 KiB over kept connections, from Postfix's smtp-source, in turns. `null`
does nothing and keeps nothing; `250` spools without any worker; `Python, 250` has a stage before
it, so that each mail goes through a worker first. Behind `250` is the same stage that keeps
nothing: it works while mail comes in, as it would. The target is a share of the rate of `null`,
since load, daemon and disk are those of the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from measuring import Figure, table
from postfix import BenchError, find_postfix
from processors import Send, by_postfix, by_python, syncs_a_second
from receivers import SILENT, guerrillad, machine, raise_file_limit

CHAINS: Final = {
    "null": "Debugger",
    "250": "250|Debugger",
    "Python, 250": "Debugger|250|Debugger",
}
WARM: Final = 20
"""Messages a connection before the measured ones."""
MUST: Final = 0.5
"""Of the rate of the null chain, with a sync before each 250."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run. Times are CPU µs a message; the rate is messages a second."""

    chain: str
    rate: float
    server_us: float


def measure(chain: str, send: Send, connections: int, seconds: float, folder: Path) -> Sample:
    """One run of about so many seconds, with a daemon and a spool of its own."""
    spool = f'[spool]\npath = "{folder}/spool"\nmin_free = 0'
    keys = f'save_process = "{CHAINS[chain]}"\nlog_received_mails = false\n'
    with guerrillad(folder, log=SILENT, backend=keys + spool) as receiver:
        warm = WARM * connections
        rate = warm / send(receiver.port, connections, warm)
        messages = max(connections, round(rate * seconds))
        before = receiver.cpu_ns()
        took = send(receiver.port, connections, messages)
        used = (receiver.cpu_ns() - before) / 1_000
    return Sample(chain, messages / took, used / messages)


def figures(samples: list[Sample], syncs: float) -> list[Figure]:
    """The medians of all rounds."""
    rates = {
        chain: statistics.median(one.rate for one in samples if one.chain == chain)
        for chain in CHAINS
    }
    spent = {
        chain: statistics.median(one.server_us for one in samples if one.chain == chain)
        for chain in CHAINS
    }
    found = [Figure("4 KiB more in a file, and synced", "a second", syncs)]
    for chain in CHAINS:
        found.append(Figure(chain, "messages/s", rates[chain]))
        found.append(Figure(chain, "server µs a message", spent[chain]))
    return found + [
        Figure(f"{chain} / null", "of the rate", rates[chain] / rates["null"], MUST)
        for chain in ("250", "Python, 250")
    ]


def main() -> int:
    """Measures and prints; 1 when it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run, about")
    parser.add_argument(
        "--folder", type=Path, help="where the spools are; by default a temporary one"
    )
    parser.add_argument("--client", choices=["postfix", "python"], default="postfix")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample goes there too")
    args = parser.parse_args()
    raise_file_limit()
    samples: list[Sample] = []
    try:
        send = by_postfix(find_postfix()) if args.client == "postfix" else by_python
        for _ in range(args.rounds):
            for chain in CHAINS:
                with tempfile.TemporaryDirectory(prefix="spool-", dir=args.folder) as path:
                    found = measure(chain, send, args.connections, args.seconds, Path(path))
                    samples.append(found)
        with tempfile.TemporaryDirectory(prefix="spool-", dir=args.folder) as path:
            syncs = syncs_a_second(Path(path))
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        print(f"spool.py: {error}", file=sys.stderr)
        return 1
    print("\n".join([machine(), "", *table(figures(samples, syncs))]))
    if args.json:
        rows = [dataclasses.asdict(sample) for sample in samples]
        told = {"machine": machine(), "syncs_a_second": syncs, "samples": rows}
        args.json.write_text(json.dumps(told, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
