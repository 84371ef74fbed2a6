"""Runs `guerrillad`. Where it takes another's place, files in the working directory say what else.

`crash`, `hang`: so it does at once. `dies-ready`, `dies-go`, `dies-took`: it ends at once when it
has said that it is ready, when it is let go, and when pid file and control socket are its own.
`hang-go`, `hang-took`: it hangs there. `limit`, `limit-taken`: seconds that any gives the one after
it to be ready, and to serve then.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

if "GUERRILLA_UPGRADE" in os.environ:
    if Path("crash").exists():
        sys.exit("crashed")
    if Path("hang").exists():
        Path("hangs.new").write_text(str(os.getpid()))
        Path("hangs.new").rename("hangs")
        time.sleep(600)

from guerrilla.cli import main  # a crash comes before
from guerrilla.processes import handover, upgrade

run = upgrade.Upgrade.run
ready = handover.Predecessor.ready
took = handover.Predecessor.took


def limited(self: upgrade.Upgrade) -> dict[str, Any]:
    limit = Path("limit")
    upgrade.READY_LIMIT = float(limit.read_text()) if limit.exists() else 60.0
    taken = Path("limit-taken")
    upgrade.TAKEN_LIMIT = float(taken.read_text()) if taken.exists() else 30.0
    return run(self)


def dying(self: handover.Predecessor) -> list[str]:
    if Path("dies-ready").exists():
        self._wire.send({"event": "ready"})
        os._exit(9)
    files = ready(self)
    if Path("dies-go").exists():
        os._exit(9)
    if Path("hang-go").exists():
        time.sleep(600)
    return files


def dying_late(self: handover.Predecessor, *_: object, **__: object) -> None:
    if Path("dies-took").exists():
        os._exit(9)
    if Path("hang-took").exists():
        time.sleep(600)
    took(self, *_, **__)  # type: ignore[arg-type]


upgrade.Upgrade.run = limited  # type: ignore[method-assign]
handover.Predecessor.took = dying_late  # type: ignore[method-assign]
handover.Predecessor.ready = dying  # type: ignore[method-assign]
sys.exit(main())
