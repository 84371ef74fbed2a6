"""Daemons whose servers speak TLS, with a stage that sees what was agreed on."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

from tests.certificates import Pair
from tests.running import RunningDaemon
from tests.witnesses import BACKEND, CHAIN, send_witness

STARTTLS: Final = "start_tls_on = true"
IMPLICIT: Final = "tls_always_on = true"


def tls_daemon(folder: Path, *sections: str) -> RunningDaemon:
    """A daemon with a server on 127.0.0.1 for each `tls` section, a text of TOML each.

    It stores into the database of its folder, as `RunningDaemon` does.
    """
    lines = ['allowed_hosts = ["."]', 'log_level = "info"']
    for section in sections:
        lines += ["[[servers]]", 'listen_interface = "127.0.0.1:0"', 'host_name = "mx.example.com"']
        lines += ["[servers.tls]", section]
    lines += ["[backend_config]", BACKEND, f'save_process = "{CHAIN}"', 'sql_driver = "sqlite"']
    lines += [f"sql_dsn = '{folder / 'mail.db'}'"]
    return RunningDaemon(send_witness(folder), config="\n".join(lines))


def both_ways(folder: Path, pair: Pair, more: str = "") -> RunningDaemon:
    """A daemon with STARTTLS, and required, at its first server, and implicit TLS at its second."""
    section = f"{pair.toml()}{more}"
    return tls_daemon(folder, f"{STARTTLS}\nrequired = true\n{section}", f"{IMPLICIT}\n{section}")


def ports(daemon: RunningDaemon) -> list[int]:
    """The ports of its servers, in their order."""
    return [int(address.rpartition(":")[2]) for address in daemon.addresses]


def trusting(pair: Pair, client: Pair | None = None) -> ssl.SSLContext:
    """What a Python client needs that trusts this certificate alone, and may show one itself."""
    context = ssl.create_default_context(cafile=os.fspath(pair.certificate))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context
