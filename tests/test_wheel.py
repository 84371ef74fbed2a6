"""The wheel works where nothing else of ours is: no source tree, no Rust."""

from __future__ import annotations

import os
import re
import smtplib
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.running import RunningDaemon

ROOT = Path(__file__).parent.parent
MESSAGE = b"Subject: through the wheel\r\n\r\nHello.\r\n"

# The core may have to be linked anew, and packages come over the network.
# Two builds at a time would take the core from each other.
pytestmark = [pytest.mark.timeout(600), pytest.mark.alone]

BARE_PATH = "/usr/bin:/bin"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, as `make wheel` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    maturin = [sys.executable, "-m", "maturin"]
    run([*maturin, "build", "--release", "--locked", "--out", str(folder)], cwd=ROOT)
    run([*maturin, "sdist", "--out", str(folder)], cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The one wheel."""
    [found] = dist.glob("*.whl")
    return found


def test_tags(wheel: Path) -> None:
    assert re.fullmatch(r"guerrilla-[\d.]+-cp311-abi3-manylinux_2_\d+_\w+\.whl", wheel.name)


def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        points = archive.read(entry_points).decode().replace(" ", "")
    assert "guerrillad=guerrilla.cli:main" in points
    assert "[pytest11]\nguerrilla=guerrilla.testing.plugin" in points
    assert {"guerrilla/_core.abi3.so", "guerrilla/_core.pyi", "guerrilla/py.typed"} <= set(names)
    packages = {name.split("/")[0] for name in names}
    assert [name for name in packages if not name.startswith("guerrilla")] == []
    assert [name for name in names if "__pycache__" in name or name.endswith(".db")] == []


def test_what_is_in_the_sdist(dist: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "LICENSE"}
    assert {*wanted, "rust/src/lib.rs", "python/guerrilla/__init__.py"} <= names
    unwanted = r"\.so$|^(target|build|dist|fuzz|\.venv)/|__pycache__|mail\.db|^tests/corpus/"
    assert [name for name in names if re.search(unwanted, name)] == []


def test_it_serves_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = {"PATH": BARE_PATH, "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    python = str(empty_environment(tmp_path / "venv", wheel))
    found = run([python, "-c", "import shutil; print(shutil.which('cargo'))"], env=environment)
    assert found.strip() == "None"
    folder = tmp_path / "daemon"
    folder.mkdir()
    guerrillad = str(Path(python).with_name("guerrillad"))
    with RunningDaemon(folder, command=[guerrillad], environment=environment) as daemon:
        with smtplib.SMTP("127.0.0.1", daemon.port, timeout=20) as client:
            client.sendmail("a@example.org", ["b@example.com"], MESSAGE)
        [row] = daemon.rows()
        assert row["mail"].endswith(b"\r\n" + MESSAGE)
    listed = [guerrillad, "mail", "list", "-c", str(daemon.config_file)]
    assert "through the wheel" in run(listed, env=environment, cwd=folder)
    assert run([guerrillad, "version"], env=environment).startswith("guerrillad ")


def empty_environment(folder: Path, wheel: Path) -> Path:
    """Makes a virtual environment with the locked dependencies and the wheel; gives its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    locked = str(ROOT / "requirements" / "runtime.txt")
    run([*install, "--only-binary", ":all:", "--require-hashes", "-r", locked])
    run([*install, "--no-deps", str(wheel)])
    run([str(python), "-m", "pip", "check"])
    return python


def run(command: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Runs to the end and gives the output; it has to succeed."""
    done = subprocess.run(
        command,
        env=env if env is not None else dict(os.environ),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
