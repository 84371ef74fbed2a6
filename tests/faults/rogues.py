"""Daemons with a processor that does what it must not, for some mails."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from tests.faults.stores import SQLiteFile
from tests.running import RunningDaemon

MODULE: Final = Path(__file__).parents[1] / "data" / "rogue.py"


class Rogue(SQLiteFile):
    """SQLite behind a processor of `tests/data/rogue.py`.

    Args:
        folder: an empty one.
        chain: `save_process`.
        workers: `save_workers_size`.
        keys: of `backend_config`.
    """

    def __init__(self, folder: Path, chain: str, *, workers: int = 2, **keys: Any) -> None:
        super().__init__(folder)
        self.run = folder / "run"
        self.marks = folder / "marks"
        for made in (self.run, self.marks):
            made.mkdir()
        shutil.copy(MODULE, self.run)
        self._process, self._workers = chain, workers
        self._keys = {"import": ["rogue"], "rogue_marks": os.fspath(self.marks), **keys}

    def config(self, *, top: str = "", server: str = "", backend: str = "") -> str:
        text = super().config(top=top, server=server, backend=backend)
        text = text.replace("save_workers_size = 2", f"save_workers_size = {self._workers}")
        return text.replace(json.dumps(self.chain), json.dumps(self._process))

    def backend(self) -> str:
        lines = [f"{key} = {json.dumps(value)}" for key, value in self._keys.items()]
        return "\n".join([super().backend(), *lines])

    def marked(self, suffix: str = "") -> list[str]:
        """Tokens of mails that something was done for."""
        return sorted(path.stem for path in self.marks.iterdir() if path.suffix == suffix)

    def runs(self, **parts: str) -> RunningDaemon:
        """A daemon with it."""
        return RunningDaemon(self.run, config=self.config(**parts))


def tokens(count: int, of: int) -> list[str]:
    """Some, evenly spread over the first nine tenths."""
    return [f"{(number + 1) * of * 9 // 10 // (count + 1):06d}" for number in range(count)]
