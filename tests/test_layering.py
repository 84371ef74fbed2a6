"""Who may know whom: the protocol knows no I/O, and only the boundary knows Python."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "rust" / "src"
BOUNDARY = SOURCES / "python"

_COMMENT = re.compile(r"//[^\n]*")
_IDENTIFIER = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]*\b")


def names_in(path: Path) -> set[str]:
    """Every identifier of a Rust source, comments left out."""
    return set(_IDENTIFIER.findall(_COMMENT.sub("", path.read_text(encoding="utf-8"))))


def room(name: str) -> list[Path]:
    """The sources of a room; there have to be some."""
    found = sorted((SOURCES / name).rglob("*.rs"))
    assert found, f"nothing in {name}"
    return found


@pytest.mark.parametrize("name", ["smtp", "mail", "bench/client"])
def test_the_protocol_knows_no_io(name: str) -> None:
    forbidden = {"tokio", "rustls", "pyo3", "mio", "socket2"}
    offenders = {str(path.relative_to(ROOT)): names_in(path) & forbidden for path in room(name)}
    assert {path: names for path, names in offenders.items() if names} == {}


@pytest.mark.parametrize("name", ["smtp", "mail", "bench/client"])
def test_the_protocol_knows_no_socket_and_no_clock(name: str) -> None:
    # `std::net` has addresses too, which are values.
    forbidden = {"TcpStream", "TcpListener", "UdpSocket", "UnixStream", "Instant", "sleep"}
    # Tests may look at the clock: some show that time is linear.
    sources = [
        path for path in room(name) if path.name != "tests.rs" and path.parent.name != "tests"
    ]
    offenders = {str(path.relative_to(ROOT)): names_in(path) & forbidden for path in sources}
    assert {path: names for path, names in offenders.items() if names} == {}


def test_only_the_boundary_imports_pyo3() -> None:
    users = [path for path in SOURCES.rglob("*.rs") if "pyo3" in names_in(path)]
    assert any(path.is_relative_to(BOUNDARY) for path in users)
    assert [path for path in users if not path.is_relative_to(BOUNDARY)] == []


def test_pyo3_is_behind_the_feature() -> None:
    """Without it nothing links libpython, so that `cargo test` needs none."""
    assert "pyo3" not in dependencies()
    assert {"tokio", "memchr"} <= dependencies()
    assert "pyo3" in dependencies("--features", "python")


def dependencies(*options: str) -> set[str]:
    """The crates that a build links, by `cargo tree`."""
    command = ["cargo", "tree", "--locked", "--edges", "normal,build", "--prefix", "none"]
    done = subprocess.run(
        [*command, "--format", "{p}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    return {line.split()[0] for line in done.stdout.splitlines() if line.strip()}


def test_the_feature_is_not_on_by_default() -> None:
    done = subprocess.run(
        ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    [package] = json.loads(done.stdout)["packages"]
    assert package["features"] == {"default": [], "python": ["dep:pyo3"]}
