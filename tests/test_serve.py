"""`guerrillad` where nobody reads what it prints, or where it is stopped before it has started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn, cast

import pytest

from guerrilla.commands import serve
from guerrilla.daemon import Daemon
from tests.wire import until

PROGRAM = [sys.executable, "-m", "guerrilla"]
TIMEOUT = 30.0


def write(folder: Path, **backend: object) -> Path:
    """A config with a pid file and a log."""
    path = folder / "guerrilla.json"
    keys = {
        "pid_file": str(folder / "guerrilla.pid"),
        "log_file": str(folder / "guerrilla.log"),
        "servers": [{"listen_interface": "127.0.0.1:0"}],
        "backend_config": {"save_process": "HeadersParser", **backend},
    }
    path.write_text(json.dumps(keys))
    return path


def start(config: Path, redirect: str) -> subprocess.Popen[bytes]:
    """Serves in a shell that redirects its output."""
    return subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" serve -c guerrilla.json {redirect}', "sh", *PROGRAM],
        cwd=config.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def log_of(config: Path) -> str:
    path = config.parent / "guerrilla.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("redirect", ["", ">/dev/full", ">&-", ">&- 2>&-"])
def test_it_serves_whether_or_not_anybody_reads_what_it_prints(
    tmp_path: Path, redirect: str
) -> None:
    config = write(tmp_path)
    with start(config, redirect) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `| true` does
        until(lambda: "guerrilla.net listening" in log_of(config))
        # When it looks at signals, which comes after the banner.
        process.send_signal(signal.SIGHUP)
        until(lambda: "SIGHUP: " in log_of(config))
        assert (tmp_path / "guerrilla.pid").exists()
        process.send_signal(signal.SIGTERM)
        status = process.wait(TIMEOUT)
        assert (status, process.stderr.read()) == (0, b"")
    assert "guerrilla.daemon stopped" in log_of(config)
    assert not (tmp_path / "guerrilla.pid").exists()


def test_an_error_after_the_start_stops_it_gracefully(tmp_path: Path) -> None:
    config = write(tmp_path)
    code = (
        "import sys\n"
        "from guerrilla.cli import main\n"
        "from guerrilla.commands import serve\n"
        "def describe(daemon):\n"
        "    raise LookupError('oh')\n"
        "serve.describe = describe\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "-c", os.fspath(config)],
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 1
    assert b"LookupError: oh" in done.stderr
    assert "guerrilla.daemon stopped" in log_of(config)
    assert not (tmp_path / "guerrilla.pid").exists()


@pytest.mark.parametrize(("redirect", "status"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0)])
def test_a_command_without_its_streams(redirect: str, status: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" version {redirect}', "sh", *PROGRAM],
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["import", "open"])
def test_a_signal_ends_a_start_that_hangs(
    tmp_path: Path, number: signal.Signals, where: str
) -> None:
    hang = "open('hanging', 'w').close(); threading.Event().wait()"
    (tmp_path / "hanging.py").write_text(
        "import threading, guerrilla\n"
        f"if {where!r} == 'import': {hang}\n"
        "@guerrilla.processor('Hanging')\n"
        "class Hanging(guerrilla.Processor):\n"
        f"    def open(self): {hang}\n"
        "    def save(self, envelope): return None\n"
    )
    config = write(tmp_path, **{"import": ["hanging"], "save_process": "Hanging"})
    with start(config, "") as process:
        assert process.stderr is not None
        until((tmp_path / "hanging").exists)
        process.send_signal(number)
        status = process.wait(TIMEOUT)
        said = process.stderr.read().decode()
    assert (status, said) == (0, f"guerrillad: {number.name}: stopped before it had started\n")
    assert not (tmp_path / "guerrilla.pid").exists()


def test_a_reload_that_fails_for_any_reason_is_not_the_last() -> None:
    asked: list[int] = []

    class Broken:
        def reload_config_file(self) -> NoReturn:
            asked.append(len(asked))
            raise OSError("no memory")

    reader = serve._Reader(cast("Daemon", Broken()))
    reader.ask()
    until(lambda: asked)
    reader.ask()
    until(lambda: len(asked) == 2)
