"""What the stage in witness.py saw in a daemon under test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

BACKEND: Final = 'import = ["witness"]'
"""For `backend_config`: loads the stage."""

CHAIN: Final = "HeadersParser|Hasher|Header|Witness|SQL"
"""A `save_process` with it; it comes before SQL, so that what is stored has been seen."""

_SOURCE: Final = Path(__file__).parent / "witness.py"


def send_witness(folder: Path) -> Path:
    """Puts the stage where the daemon in this folder finds it; the folder."""
    folder.mkdir(exist_ok=True)
    shutil.copy(_SOURCE, folder)
    return folder


def witnessed(folder: Path) -> list[dict[str, Any]]:
    """What it saw, a mail each, oldest first."""
    text = (folder / "witnessed.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
