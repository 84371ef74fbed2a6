"""5,000 mails through 100 connections while the database dies three times: none is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ledger import KILLS, MAILS, audit, deliver, killer, make_mails
from tests.running import RunningDaemon

if TYPE_CHECKING:
    from tests.services.sql import Place

WORKERS = 4
BATCH = 64
COPIES = KILLS * WORKERS * BATCH
"""At most: what was committed in the moment of a kill, with the answer lost."""


@pytest.mark.timeout(400)
def test_no_mail_is_lost_when_the_server_is_killed(mortal: Place, tmp_path: Path) -> None:
    mails = make_mails(MAILS)
    dsn = json.dumps(mortal.dsn(readTimeout="5s"))
    whole = (
        'allowed_hosts = ["example.com"]\nlog_level = "error"\n'
        '[[servers]]\nlisten_interface = "127.0.0.1:0"\nhost_name = "mx.example.com"\n'
        "max_clients = 200\n[backend_config]\n"
        'save_process = "HeadersParser|Hasher|Header|SQL"\n'
        f'sql_driver = "{mortal.driver}"\nsql_dsn = {dsn}\n'
        f"save_workers_size = {WORKERS}\nsave_batch_size = {BATCH}\n"
    )
    with RunningDaemon(tmp_path, config=whole) as daemon:
        disturb = killer(MAILS, mortal.server.kill, mortal.server.start)
        sent = deliver(daemon.port, mails, disturb=disturb)
    stored = (bytes(row["mail"]) for row in mortal.query("SELECT mail FROM new_mail"))
    audit(sent, stored, most_copies=COPIES)


@pytest.mark.timeout(400)
def test_no_mail_is_lost_when_the_file_of_sqlite_goes(tmp_path: Path) -> None:
    """There is no server: its folder is taken away and put back."""
    mails = make_mails(MAILS)
    folder, aside = tmp_path / "daemon", tmp_path / "aside"
    folder.mkdir()
    keys = f"save_workers_size = {WORKERS}\nsave_batch_size = {BATCH}"
    with RunningDaemon(folder, server="max_clients = 200", backend=keys) as daemon:
        disturb = killer(MAILS, lambda: folder.rename(aside), lambda: aside.rename(folder))
        sent = deliver(daemon.port, mails, disturb=disturb)
        rows = [row["mail"] for row in daemon.rows()]
    audit(sent, rows, most_copies=COPIES)
