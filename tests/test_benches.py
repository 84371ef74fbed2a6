"""The scenarios of the edge work, in small: what they then print are no figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EDGE = Path(__file__).parent.parent / "benches" / "edge.py"


def test_the_edge_is_measured_in_small(tmp_path: Path) -> None:
    """All but `good`, which needs Postfix; its hostile load is tested with the hostile clients."""
    told = tmp_path / "figures.json"
    command = [sys.executable, str(EDGE), "--scenario", "idle,refused,tls", "--rounds", "1"]
    command += ["--scale", "0.004", "--json", str(told)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr.count("edge.py")) == (0, 0), done.stderr
    figures = {one["title"]: one["value"] for one in json.loads(told.read_text())["figures"]}
    assert all(value > 0 for value in figures.values()), figures
    assert "refused: max_connections_per_ip" in figures
    assert "TLS / plain" in figures
    # A handshake is what makes the difference, on any machine.
    assert figures["EHLO, STARTTLS (P-256), EHLO, QUIT"] > 1.5 * figures["EHLO, QUIT"]
