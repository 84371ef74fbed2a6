"""docs/scaling.md: the queue right of 250 is one that works."""

from __future__ import annotations

import re
import smtplib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guerrilla._core import Envelope
from tests.running import RunningDaemon
from tests.services.redis import DURABLE, RedisServer

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def until(done: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


def mails(server: RedisServer) -> list[Envelope]:
    rows: Any = server.ask("XRANGE", "mails", "-", "+")
    return [Envelope.from_bytes(fields[b"envelope"]) for _, fields in rows]


def test_the_queue_of_the_page_takes_what_the_spool_has(
    own_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """Also when it was away: its senders had their 250 before."""
    server = own_redis(settings=DURABLE)
    config = block("toml")
    for old, new in {
        "127.0.0.1:2525": "127.0.0.1:0",
        "/var/lib/guerrilla/spool": str(tmp_path / "spool"),
        "queue.example.com:6379": server.address,
    }.items():
        assert config.count(old) == 1
        config = config.replace(old, new)
    config = f"log_level = 'error'\n{config}"
    (tmp_path / "stream.py").write_text(block("python"), encoding="utf-8")
    with RunningDaemon(tmp_path, config=config) as daemon:

        def send(subject: str) -> None:
            with smtplib.SMTP("127.0.0.1", daemon.port, timeout=20) as client:
                text = f"Subject: {subject}\r\n\r\nhello\r\n".encode()
                client.sendmail("a@example.org", ["b@example.com"], text)

        send("first")
        until(lambda: len(mails(server)) == 1)
        server.stop()
        send("second")
        server.start()
        until(lambda: any(one.subject == "second" for one in mails(server)))
    assert [one.subject for one in mails(server)] == ["first", "second"]
    assert {one.rcpt_to[0].user for one in mails(server)} == {"b"}
