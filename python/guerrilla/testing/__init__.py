"""What tests need: envelopes from nowhere, chains without sockets, a server that misbehaves.

`make_envelope`, `run_chain` and `run_authenticate` are for tests of one's own processors,
`GuerrillaServer` and the pytest fixture `guerrilla_server` for those of programs that send mail.
See docs/testing.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guerrilla.testing.chains import Stage, run_authenticate, run_chain
    from guerrilla.testing.envelopes import make_envelope
    from guerrilla.testing.faults import Where
    from guerrilla.testing.server import GuerrillaServer

__all__ = [
    "GuerrillaServer",
    "Stage",
    "Where",
    "make_envelope",
    "run_authenticate",
    "run_chain",
]

_LAZY = {
    "GuerrillaServer": "server",
    "Stage": "chains",
    "Where": "faults",
    "make_envelope": "envelopes",
    "run_authenticate": "chains",
    "run_chain": "chains",
}
"""The module of each name. The pytest plugin lies here: importing it must cost next to nothing."""


if not TYPE_CHECKING:  # to a type checker a name that is not above is an error

    def __getattr__(name: str) -> Any:
        module = _LAZY.get(name)
        if module is None:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
