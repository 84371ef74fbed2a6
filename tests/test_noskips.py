"""A skipped test fails the session, so that none is skipped unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, text: str) -> tuple[int, str]:
    test = folder / "test_it.py"
    test.write_text(text, encoding="utf-8")
    plugins = ["-p", "no:guerrilla", "-p", "no:randomly", "-p", "tests.noskips"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "-c", "/dev/null", str(test)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_skipped_test_fails_the_session(tmp_path: Path) -> None:
    code, told = run(tmp_path, "import pytest\ndef test_it(): pytest.skip('no server')\n")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "test_it: Skipped: no server" in told


def test_a_session_without_skips_passes(tmp_path: Path) -> None:
    assert run(tmp_path, "def test_it(): pass\n")[0] == pytest.ExitCode.OK
