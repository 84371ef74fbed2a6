"""Mails come in while PHP-FPM is killed at random: what was answered 250 is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fastcgi.helpers import Mailbox, options
from tests.ledger import MAILS, audit, deliver, killer, make_mails
from tests.running import RunningDaemon
from tests.services.phpfpm import PhpFpm

WORKERS = 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("count", "tcp", "repeat"),
    [pytest.param(MAILS, False, True, id="unix"), pytest.param(500, True, False, id="tcp")],
)
def test_php_that_is_killed_under_load(count: int, tcp: bool, repeat: bool, tmp_path: Path) -> None:
    """Three times; over tcp without posting again what may have been saved."""
    box = Mailbox(tmp_path / "mail")
    mails = make_mails(count)
    # Its processes also end by themselves, so that connections end at every moment.
    pool = ["pm.max_requests = 100"]
    php = PhpFpm(tmp_path, tcp=tcp, environment=box.environment, children=WORKERS + 1, pool=pool)
    keys = options(php, fcgi_repeat=repeat, save_workers_size=WORKERS)
    backend = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    daemon_folder = tmp_path / "daemon"
    daemon_folder.mkdir()
    with (
        php,
        RunningDaemon(
            daemon_folder,
            chain="HeadersParser|Header|FastCGI",
            server="max_clients = 200",
            backend=backend,
        ) as daemon,
    ):
        ledger = deliver(daemon.port, mails, disturb=killer(count, php.kill, php.start))
        assert ledger.dropped == ledger.unanswered.total() == 0
        copies = audit(ledger, box.mails().values())
    # A script that was killed after its rename, or an answer that was lost: one a worker and kill,
    # and without repetition one for each process that has ended.
    ends = count // 100 + WORKERS
    assert copies <= 3 * WORKERS + (0 if repeat else ends)
    assert "Traceback" not in daemon.log_text()
