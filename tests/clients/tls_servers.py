"""Daemons in processes of their own whose servers speak TLS, with a stage that sees the outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.certificates import Pair
from tests.clients.witnesses import BACKEND, CHAIN, send_witness
from tests.daemons import where
from tests.running import RunningDaemon

Server = tuple[str, int]
"""Address and port."""

STARTTLS: Final = "start_tls_on = true"
IMPLICIT: Final = "tls_always_on = true"
WAYS: Final = ("starttls", "tls")
"""The two ways into TLS: the servers of `both_ways`, in this order."""


def tls_daemon(folder: Path, *sections: str) -> RunningDaemon:
    """A daemon with a server for each `tls` section, a text of TOML each.

    The first is on 127.0.0.1, the second on 127.0.0.2 and so on. It stores into the database of its
    folder, as `RunningDaemon` does.
    """
    lines = ['allowed_hosts = ["."]', 'log_level = "info"']
    for number, section in enumerate(sections, 1):
        lines += ["[[servers]]", f'listen_interface = "127.0.0.{number}:0"']
        lines += ['host_name = "mx.example.com"', "[servers.tls]", section]
    lines += ["[backend_config]", BACKEND, f'save_process = "{CHAIN}"', 'sql_driver = "sqlite"']
    lines += [f"sql_dsn = '{folder / 'mail.db'}'"]
    return RunningDaemon(send_witness(folder), config="\n".join(lines))


def both_ways(folder: Path, pair: Pair, more: str = "") -> RunningDaemon:
    """A daemon with STARTTLS, and required, at its first server, and implicit TLS at its second."""
    section = f"{pair.toml()}{more}"
    return tls_daemon(folder, f"{STARTTLS}\nrequired = true\n{section}", f"{IMPLICIT}\n{section}")


def on_way(daemon: RunningDaemon, way: str) -> Server:
    """Address and port of the server of `both_ways` for this way."""
    return where(daemon, WAYS.index(way))
