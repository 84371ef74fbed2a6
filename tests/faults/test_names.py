"""No name server: nobody asks it for a client, and a store of which the name is gone comes back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.faults.daemons import hang_up, mails_in, stats
from tests.faults.load import CONNECTIONS, sustain
from tests.faults.tally import Tally
from tests.running import RunningDaemon
from tests.services.redis import DURABLE, RedisServer
from tests.wire import until

SOURCE: Final = Path(__file__).parent / "names" / "names.c"
CALLS: Final = "connect,openat"
"""What a resolver does first: it reads how and whom to ask, and asks."""
LOOKS_UP: Final = re.compile(r"connect\(|/etc/(resolv|nsswitch|host|gai)|libnss|libresolv")
TRACED: Final = (
    *("strace", "-D", "-f", "--seccomp-bpf", "-qqq", "--signal=none", "-e", f"trace={CALLS}", "-o"),
)
NOWHERE: Final = "no-such-host.invalid"
LOOKING: Final = """\
import contextlib, socket, threading
with contextlib.suppress(OSError):
    open("/begin")
thread = threading.Thread(target=socket.getaddrinfo, args=("localhost", 25))
thread.start()
thread.join()
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Compiled anew: it is small."""
    path = tmp_path / "names.so"
    words: list[str | Path] = [
        "gcc",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        path,
        SOURCE,
    ]
    subprocess.run(words, check=True, timeout=60)
    return path


def environment(library: Path, away: Path) -> dict[str, str]:
    return {**os.environ, "LD_PRELOAD": os.fspath(library), "NAMES_AWAY": os.fspath(away)}


def test_nobody_looks_up_a_client(tmp_path: Path, tally: Callable[[str, str], Tally]) -> None:
    trace = tmp_path / "trace"
    command = (*TRACED, os.fspath(trace), sys.executable, "-m", "guerrilla")
    with RunningDaemon(tmp_path, command=command) as daemon:
        started = len(trace.read_text().splitlines())
        ledger = sustain(daemon.port, lambda: None, least=1)
        assert stats(daemon)["messages_accepted"] == len(ledger.accepted) > 0
        calls = trace.read_text().splitlines()
    assert found_out(tmp_path)
    assert [call for call in calls[started:] if LOOKS_UP.search(call)] == []
    note = "no name is asked for, by strace"
    row = tally("DNS absent", "SQLite").audit(ledger, mails_in(tmp_path / "mail.db"), note=note)
    assert (row.refused, row.unanswered, row.doubled) == (0, 0, 0)


def found_out(tmp_path: Path) -> bool:
    """Whether it is seen in such a trace that a thread looks up a name which is in a file."""
    trace, program = tmp_path / "looked up", tmp_path / "looks_up.py"
    program.write_text(LOOKING)
    tracer = (word for word in TRACED if word != "-D")  # it ends when all is written then
    subprocess.run([*tracer, trace, sys.executable, program], check=True, timeout=30)
    calls = trace.read_text().splitlines()
    begin = next(at for at, call in enumerate(calls) if "/begin" in call)
    return any(LOOKS_UP.search(call) for call in calls[begin:])


def moved(config: str, database: Path) -> dict[str, str]:
    """Configs that name a host which nobody knows, by the key that does."""
    mysql = config.replace('"sqlite"', '"mysql"')
    dsn = json.dumps(f"me:secret@tcp({NOWHERE}:3306)/mail")
    redis = f'redis_interface = "{NOWHERE}:6379"\n'
    return {
        "listen_interface": config.replace("127.0.0.1:0", f"{NOWHERE}:0"),
        "sql_dsn": mysql.replace(json.dumps(os.fspath(database)), dsn),
        "redis_interface": config.replace("Header|SQL", "Header|Redis") + redis,
    }


def test_a_reload_with_names_that_are_gone_changes_nothing(
    tmp_path: Path, library: Path, tally: Callable[[str, str], Tally]
) -> None:
    away = tmp_path / "away"
    away.touch()
    with RunningDaemon(tmp_path, environment=environment(library, away)) as daemon:
        configs = moved(daemon.config_file.read_text(), daemon.db)

        def disturb() -> None:
            for number, (key, text) in enumerate(configs.items(), 1):
                daemon.config_file.write_text(text)
                hang_up(daemon)
                wait_for(daemon, "reload_failures", number)
                assert f"{key}: " in daemon.log_text()

        ledger = sustain(daemon.port, disturb)
        assert daemon.log_text().count("listening on") == 1
    row = tally("DNS absent: reload", "SQLite").audit(
        ledger, mails_in(tmp_path / "mail.db"), rounds=len(configs)
    )
    assert (row.refused, row.unanswered, row.doubled) == (0, 0, 0)


def wait_for(daemon: RunningDaemon, counter: str, number: int) -> None:
    """Until it has counted so many."""
    until(lambda: stats(daemon)[counter] >= number)


def test_a_store_whose_name_is_gone_comes_back(
    tmp_path: Path,
    library: Path,
    *,
    full: bool,
    tally: Callable[[str, str], Tally],
    own_redis: Callable[..., RedisServer],
) -> None:
    rounds = 5 if full else 1
    server = own_redis(settings=DURABLE)
    away = tmp_path / "away"
    with RunningDaemon(
        tmp_path,
        chain="HeadersParser|Hasher|Header|Compressor|Redis",
        backend=f'redis_interface = "localhost:{server.port}"\nsave_workers_size = 2',
        environment=environment(library, away),
    ) as daemon:

        def disturb() -> None:
            for _ in range(rounds):
                away.touch()
                with server.client() as client:
                    client.client_kill_filter(_type="normal", skipme=True)
                wait_for(daemon, "messages_deferred", stats(daemon)["messages_deferred"] + 10)
                away.unlink()
                wait_for(daemon, "messages_accepted", stats(daemon)["messages_accepted"] + 10)

        ledger = sustain(daemon.port, disturb)
    stored = map(zlib.decompress, server.values().values())
    # Whether Redis had a batch when its connection ended, nobody knows.
    row = tally("DNS absent", "Redis").audit(
        ledger,
        stored,
        rounds=rounds,
        deferred_may_be_stored=True,
        most_copies=CONNECTIONS * rounds,  # Each sender had one mail in hand then.
        note="copies: what Redis had when its connections were cut",
    )
    assert row.refused > 0
    assert {code[:4] for code in ledger.heard} == {"451 "}
