"""`examples/logrotate`, run by logrotate while mail comes: no line of the log is lost."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

from tests.running import RunningDaemon
from tests.wire import Wire, until

EXAMPLE = Path(__file__).parent.parent / "examples" / "logrotate/guerrilla"
ROTATIONS = 5
LOGS = ("main", "own")

CONFIG = """
allowed_hosts = ["."]
log_level = "info"
log_file = "{folder}/log/main.log"
pid_file = "{folder}/run/guerrilla.pid"
[[servers]]
listen_interface = "127.0.0.1:0"
[[servers]]
listen_interface = "127.0.0.2:0"
log_file = "{folder}/log/own.log"
[backend_config]
save_process = "HeadersParser|SQL"
sql_dsn = "{folder}/mail.db"
"""


def rotate(folder: Path) -> None:
    """Runs logrotate with the example, whose folders are the daemon's."""
    config = EXAMPLE.read_text(encoding="utf-8")
    for ours, theirs in (("log", "/var/log/guerrilla/"), ("run", "/run/guerrilla/")):
        assert theirs in config
        config = config.replace(theirs, f"{folder}/{ours}/")
    file = folder / "logrotate.conf"
    file.write_text(config, encoding="utf-8")
    file.chmod(0o644)
    program = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program is not None, "sh scripts/test-tools.sh installs it"
    done = subprocess.run(
        [program, "--force", "--state", str(folder / "state"), str(file)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def lines(folder: Path, name: str) -> list[str]:
    """The lines of messages in a log and all that became of it, oldest first."""
    logs = folder / "log"
    text = b""
    for file in [*sorted(logs.glob(f"{name}.log.*"), key=_age), logs / f"{name}.log"]:
        octets = file.read_bytes()
        text += gzip.decompress(octets) if file.suffix == ".gz" else octets
    return [line for line in text.decode().splitlines() if " guerrilla.mail " in line]


def _age(file: Path) -> int:
    found = re.search(r"\.log\.(\d+)", file.name)
    assert found is not None
    return -int(found[1])


def test_logrotate_loses_no_line(tmp_path: Path) -> None:
    for name in ("log", "run"):
        (tmp_path / name).mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    sent: dict[str, list[str]] = {name: [] for name in LOGS}
    enough = threading.Event()

    def send(address: str, name: str) -> None:
        with Wire(address) as client:
            reply = client.begin().ask(b"Subject: a\r\n\r\n.\r\n")
            while not enough.is_set():
                sent[name].append(reply.rpartition(" ")[2])
                reply = client.begin_again().ask(b"Subject: a\r\n\r\n.\r\n")
            sent[name].append(reply.rpartition(" ")[2])

    with RunningDaemon(tmp_path, config=CONFIG.format(folder=tmp_path)) as daemon:
        senders = [
            threading.Thread(target=send, args=(address, name), daemon=True)
            for address, name in zip(daemon.addresses, LOGS, strict=True)
        ]
        for sender in senders:
            sender.start()
        files = [tmp_path / "log" / f"{name}.log" for name in LOGS]
        for _ in range(ROTATIONS):
            before = {name: len(sent[name]) for name in LOGS}
            until(lambda b=before: all(len(sent[name]) > b[name] + 20 for name in LOGS))  # type: ignore[misc]
            # The first time: an empty one would not be rotated. Later: the new ones are written to.
            until(lambda: all(file.stat().st_size > 0 for file in files))
            rotate(tmp_path)
        until(lambda: all(file.stat().st_size > 0 for file in files))
        enough.set()
        for sender in senders:
            sender.join(30)
        daemon.stop()
    for name in LOGS:
        found = [line.split()[3] for line in lines(tmp_path, name)]
        assert len(sent[name]) > ROTATIONS * 20
        assert found == sent[name]
        assert (tmp_path / "log" / f"{name}.log.{ROTATIONS}.gz").exists()
