"""Mails come in while the web server is killed at random: what was answered 250 is there."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ledger import KILLS, MAILS, audit, deliver, killer, make_mails
from tests.running import RunningDaemon
from tests.services.webhook import Receiver
from tests.webhook.helpers import CHAIN

WORKERS = 2
REQUESTS = 8


def of_json(stored: bytes) -> bytes:
    return base64.b64decode(json.loads(stored)["raw"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("count", "keys", "mail_of", "known"),
    [
        pytest.param(MAILS, {"http_format": "raw"}, bytes, REQUESTS, id="raw"),
        pytest.param(500, {"http_json_raw": "always"}, of_json, REQUESTS, id="json"),
        pytest.param(
            1_000, {"http_batch": "batch", "http_json_raw": "always"}, of_json, 64, id="batch"
        ),
    ],
)
def test_a_server_that_is_killed_under_load(
    count: int,
    keys: dict[str, str],
    mail_of: Callable[[bytes], bytes],
    known: int,
    tmp_path: Path,
) -> None:
    """Three times. `known`: mails of a worker of which nobody knows then whether they are saved."""
    folder = tmp_path / "receiver"
    folder.mkdir()
    receiver = Receiver(folder, "secret")
    options = {
        **keys,
        "http_url": receiver.url,
        "http_secret": "secret",
        "http_repeat": True,
        "http_concurrency": REQUESTS,
        "save_workers_size": WORKERS,
    }
    backend = "\n".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
    daemon_folder = tmp_path / "daemon"
    daemon_folder.mkdir()
    with (
        receiver,
        RunningDaemon(
            daemon_folder, chain=CHAIN, server="max_clients = 200", backend=backend
        ) as daemon,
    ):
        disturb = killer(count, receiver.kill, receiver.start)
        ledger = deliver(daemon.port, make_mails(count), disturb=disturb)
        assert ledger.dropped == ledger.unanswered.total() == 0
        copies = audit(ledger, map(mail_of, receiver.stored()))
    assert copies <= KILLS * WORKERS * known
    assert "Traceback" not in daemon.log_text()
