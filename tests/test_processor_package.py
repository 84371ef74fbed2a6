"""Processors of installed packages: the example in a daemon, and packages that fail."""

from __future__ import annotations

import json
import os
import shutil
import smtplib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.running import DaemonError, RunningDaemon

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "processor-package"
MESSAGE = b"Subject: into a file\r\n\r\nHello.\r\n"

FILES = [
    "processor-package/README.md",
    "processor-package/guerrilla.toml",
    "processor-package/guerrilla_eml_folder.py",
    "processor-package/pyproject.toml",
    "processor-package/test_eml_folder.py",
]
"""Each has a part in what follows."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed into, as pip does it, from nowhere else."""
    folder = tmp_path_factory.mktemp("installed")
    source = tmp_path_factory.mktemp("source") / "package"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    run([*pip, "--no-build-isolation", "--target", str(folder), str(source)])
    return folder


def run(command: Sequence[str], path: Path | None = None, status: int = 0) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(path), timeout=50
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment(path: Path | None) -> dict[str, str]:
    """That of the tests, with the packages of a folder."""
    more = {} if path is None else {"PYTHONPATH": os.fspath(path)}
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **more}


def guerrillad(*arguments: str, path: Path, status: int = 0) -> str:
    return run([sys.executable, "-m", "guerrilla", *arguments], path, status)


def package(folder: Path, name: str, source: str, processor: str = "Odd") -> Path:
    """Installs a package that offers one processor, by what of it Python looks at."""
    info = folder / f"{name}-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(f"[guerrilla.processors]\n{processor} = {name}:Odd\n")
    (folder / f"{name}.py").write_text(source)
    return folder


def on_a_free_port(config: str) -> str:
    return config.replace("127.0.0.1:2525", "127.0.0.1:0")


def sent(port: int, *recipients: str, times: int = 1) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        for _ in range(times):
            assert client.sendmail("from@example.org", recipients, MESSAGE) == {}


# The example


def test_all_its_files_are_here() -> None:
    found = (path for path in EXAMPLE.rglob("*") if "__pycache__" not in path.parts)
    assert sorted(f"processor-package/{path.relative_to(EXAMPLE)}" for path in found) == FILES


def test_it_is_listed_with_its_package(installed: Path) -> None:
    found = json.loads(guerrillad("processors", "--json", "emlfolder", path=installed))
    assert found["name"] == "EmlFolder"
    assert (found["origin"], found["package"], found["version"]) == (
        "package",
        "guerrilla-eml-folder",
        "1.0.0",
    )
    assert found["stores"]
    options = {key["key"]: (key["takes"], key["required"]) for key in found["options"]}
    assert options == {
        "eml_folder": ("text", True),
        "eml_mode": ("integer from 0 to 511", False),
    }
    assert all(key["meaning"] for key in found["options"])


def test_it_stores_what_a_daemon_receives(installed: Path, tmp_path: Path) -> None:
    """By its own config: with the folder on the disk when the sender hears 250."""
    config = on_a_free_port((EXAMPLE / "guerrilla.toml").read_text(encoding="utf-8"))
    with RunningDaemon(tmp_path, config=config, environment=environment(installed)) as daemon:
        sent(daemon.port, "a@example.com", "hidden@example.com")
        [file] = (tmp_path / "mails").iterdir()
        stored = file.read_bytes()
    assert stored.endswith(b"\r\n" + MESSAGE)
    assert b"hidden@example.com" not in stored
    assert file.stem.encode() in stored


def test_a_key_of_it_that_is_misspelt_is_told(installed: Path, tmp_path: Path) -> None:
    config = (EXAMPLE / "guerrilla.toml").read_text(encoding="utf-8")
    file = tmp_path / "guerrilla.toml"
    file.write_text(config.replace("eml_folder =", 'eml_folder = "a"\neml_folders ='))
    told = guerrillad("check", "-c", str(file), path=installed, status=1)
    assert "backend_config.eml_folders: unknown key; did you mean 'eml_folder'?" in told


def test_its_own_tests_pass(installed: Path, tmp_path: Path) -> None:
    """With what is installed, outside this tree."""
    shutil.copy(EXAMPLE / "test_eml_folder.py", tmp_path)
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    told = run([*pytest_, "--rootdir", str(tmp_path), str(tmp_path)], installed)
    assert "5 passed" in told


# Packages that fail


BROKEN = [
    ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    ("import package_nowhere", "ModuleNotFoundError: No module named 'package_nowhere'"),
    ("raise SystemExit(3)", "SystemExit: 3"),
    ("def", "SyntaxError: "),
    ("Other = 1", "AttributeError: "),
    ("Odd = 1", "it is no subclass of Processor"),
]


def config_of(chain: str) -> str:
    return (
        'allowed_hosts = ["."]\n[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
        f'[backend_config]\nsave_process = "{chain}"\nsql_dsn = "mail.db"\n'
    )


@pytest.mark.parametrize(("source", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_one_that_fails_is_told_by_package_entry_point_and_reason(
    tmp_path: Path, source: str, reason: str
) -> None:
    path = package(tmp_path, "broken_one", source)
    (tmp_path / "a.toml").write_text(config_of("Odd|SQL"))
    told = guerrillad("check", "-c", str(tmp_path / "a.toml"), path=path, status=1)
    assert (
        "backend_config.save_process: processor Odd cannot be loaded from broken_one:Odd of the "
        f"package broken_one 2.5: {reason}"
    ) in told


def test_a_daemon_does_not_start_with_one_that_fails(tmp_path: Path) -> None:
    path = package(tmp_path, "broken_one", "raise RuntimeError('no licence')")
    with pytest.raises(DaemonError) as caught:
        RunningDaemon(tmp_path, config=config_of("Odd|SQL"), environment=environment(path))
    assert "broken_one:Odd of the package broken_one 2.5: RuntimeError: no licence" in str(
        caught.value
    )


def test_one_that_no_chain_names_does_no_harm(tmp_path: Path) -> None:
    path = package(tmp_path, "broken_one", "raise RuntimeError('no licence')")
    config = config_of("HeadersParser|SQL")
    with RunningDaemon(tmp_path, config=config, environment=environment(path)) as daemon:
        sent(daemon.port, "a@example.com")
        assert len(daemon.rows()) == 1


def test_a_reload_to_one_that_fails_keeps_the_old_chain(tmp_path: Path) -> None:
    """And says so to who asked; with the reason gone, the next reload takes it."""
    path = package(tmp_path, "broken_one", "raise RuntimeError('no licence')")
    config = config_of("HeadersParser|SQL")
    with RunningDaemon(tmp_path, config=config, environment=environment(path)) as daemon:
        file = daemon.config_file
        file.write_text(config_of("Odd|SQL"))
        told = guerrillad("-c", str(file), "reload", path=path, status=1)
        assert "of the package broken_one 2.5: RuntimeError: no licence" in told
        sent(daemon.port, "a@example.com")
        assert [row["recipient"] for row in daemon.rows()] == ["a@example.com"]
        (tmp_path / "broken_one.py").write_text(
            "import guerrilla\n\n\nclass Odd(guerrilla.Processor):\n"
            "    def save(self, envelope):\n"
            "        return guerrilla.Reply.reject('5.7.1', 'odd')\n"
        )
        guerrillad("-c", str(file), "reload", path=path)
        # The old worker, which waits for a mail, may still take one.
        with pytest.raises(smtplib.SMTPDataError, match="odd"):
            sent(daemon.port, "b@example.com", times=2)


def test_two_packages_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which one is meant, nobody can tell."""
    for name in ("one_of_them", "other"):
        package(tmp_path, name, "import guerrilla\nclass Odd(guerrilla.Processor): pass\n")
    (tmp_path / "a.toml").write_text(config_of("Odd|SQL"))
    told = guerrillad("check", "-c", str(tmp_path / "a.toml"), path=tmp_path, status=1)
    assert "processor Odd is offered by more than one package" in told
    assert "one_of_them:Odd of the package one_of_them 2.5" in told
    assert "other:Odd of the package other 2.5" in told


def test_a_package_does_not_take_the_name_of_a_built_in_one(tmp_path: Path) -> None:
    """Only code that a program or a config asks for may; who wonders is told so."""
    path = package(tmp_path, "broken_one", "raise RuntimeError('no licence')", "SQL")
    found = json.loads(guerrillad("processors", "--json", "SQL", path=path))
    assert found["module"] == "guerrilla.processors.sql"
    assert found["unused"] == ["broken_one 2.5"]
    told = guerrillad("processors", "SQL", path=path)
    assert "The package broken_one 2.5 offers one of this name too, which is not used." in told
