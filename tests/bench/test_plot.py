"""The pictures of `guerrillad bench --plot`."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from guerrilla.bench import plot
from guerrilla.bench.plot import write_plot
from tests.bench.peers import Bench, serving, session

SVG = "{http://www.w3.org/2000/svg}"


def told(**more: Any) -> dict[str, Any]:
    latency = {
        "count": 100, "mean": 2e-3, "min": 1e-3, "p50": 2e-3, "p90": 3e-3, "p99": 4e-3,
        "p99_9": 5e-3, "max": 6e-3,
        "buckets": [(1e-3, 1.01e-3, 10), (2e-3, 2.02e-3, 80), (5.9e-3, 6e-3, 10)],
    }  # fmt: skip
    return {
        "target": "127.0.0.1:25",
        "loop": "closed",
        "seconds": 2.0,
        "messages": {"accepted": 100},
        "messages_per_second": 50.0,
        "latency": {"from_dot": latency},
        "timeline": {"seconds": 0.5, "accepted": [20, 30, 25, 25], "other": [0, 1, 0, 0]},
        **more,
    }


def texts(path: Path) -> list[str]:
    tree = ET.fromstring(path.read_text(encoding="utf-8"))
    assert tree.tag == f"{SVG}svg"
    return [element.text or "" for element in tree.iter(f"{SVG}text")]


def test_a_picture_of_a_load(tmp_path: Path, bench: Bench) -> None:
    file = tmp_path / "bench.svg"
    with serving(session({})) as address:
        status, out, _ = bench("--target", address, "--messages", 50, "--plot", file)
    assert status == 0
    assert "50 accepted" in out
    found = texts(file)
    assert found[0] == f"guerrillad bench: {address}"
    assert any("50 accepted" in text for text in found)
    assert {"p50", "p90", "p99", "p99.9"} <= {text.split()[0] for text in found if text}
    bars = list(ET.fromstring(file.read_text(encoding="utf-8")).iter(f"{SVG}rect"))
    assert len(bars) > 1


def test_its_axes(tmp_path: Path) -> None:
    file = tmp_path / "bench.svg"
    write_plot(str(file), told(target="<&>"))
    found = texts(file)
    assert found[0] == "guerrillad bench: <&>"
    assert {"1 ms", "2 ms", "5 ms"} <= set(found)
    assert {"0", "0.5", "1", "1.5", "2"} <= set(found)
    assert "those that were not accepted in red" in " ".join(found)


@pytest.mark.parametrize(
    "more",
    [
        {"latency": {"from_dot": {"count": 0, "buckets": []}}},
        {"timeline": {"seconds": 0.05, "accepted": [], "other": []}},
        {"timeline": {"seconds": 0.05, "accepted": [0], "other": [1]}},
        {
            "latency": {
                "from_dot": {
                    **dict.fromkeys(("mean", "min", "p50", "p90", "p99", "p99_9", "max"), 0.0),
                    "count": 1,
                    "buckets": [(0.0, 0.0, 1)],
                }
            }
        },
    ],
)
def test_a_picture_of_nothing_and_of_next_to_nothing(more: dict[str, Any], tmp_path: Path) -> None:
    for name in ("bench.svg", "bench.png"):
        write_plot(str(tmp_path / name), told(**more))
        assert (tmp_path / name).stat().st_size > 0


def test_the_same_as_png(tmp_path: Path) -> None:
    file = tmp_path / "bench.PNG"
    write_plot(str(file), told())
    octets = file.read_bytes()
    assert octets.startswith(b"\x89PNG\r\n")
    assert struct.unpack(">II", octets[16:24]) == (2 * plot.WIDTH, 2 * plot.HEIGHT)


def test_png_without_its_extra(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        return None if name == "PIL" else importlib.util.find_spec(name)

    monkeypatch.setattr(plot, "find_spec", without)
    said = "guerrillad: --plot: PNG needs the extra plot: pip install 'guerrilla[plot]'; or .svg\n"
    assert bench("--plot", "bench.png") == (1, "", said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bench.jpg", "--plot: bench.jpg: expected a name that ends with .svg or .png"),
        ("no/bench.svg", "--plot: no/bench.svg: there is no such folder"),
    ],
)
def test_where_no_picture_can_be(name: str, said: str, bench: Bench) -> None:
    assert bench("--plot", name) == (1, "", f"guerrillad: {said}\n")
