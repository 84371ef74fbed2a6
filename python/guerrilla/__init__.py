"""guerrilla: receives mail by SMTP and hands it to Python.

The parts load when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from guerrilla._core import (
    Address,
    Check,
    Credentials,
    Envelope,
    Header,
    Login,
    Part,
    Parts,
    Reply,
    TLSInfo,
    Transaction,
    __version__,
)

if TYPE_CHECKING:
    from guerrilla.config import AppConfig, BackendConfig, ServerConfig, TLSConfig
    from guerrilla.daemon import Daemon
    from guerrilla.engine.backend import Backend
    from guerrilla.engine.base import Processor
    from guerrilla.engine.registry import authenticator, processor, validator
    from guerrilla.errors import (
        ConfigError,
        DeliveryError,
        GuerrillaError,
        NoSuchUser,
        QuotaExceeded,
        StartError,
        StorageError,
        StorageNotAvailable,
        StorageTimeout,
        StorageTooBusy,
        Unavailable,
        UserSuspended,
    )
    from guerrilla.events import (
        Change,
        ConfigChange,
        ConnectionEvent,
        Event,
        EventBus,
        MailEvent,
        ServerChange,
    )
    from guerrilla.reply import AUTHENTICATED, TAKEN, Outcome, Replies, fold
    from guerrilla.stream import Envelopes, Stream

__all__ = [
    "AUTHENTICATED",
    "TAKEN",
    "Address",
    "AppConfig",
    "Backend",
    "BackendConfig",
    "Change",
    "Check",
    "ConfigChange",
    "ConfigError",
    "ConnectionEvent",
    "Credentials",
    "Daemon",
    "DeliveryError",
    "Envelope",
    "Envelopes",
    "Event",
    "EventBus",
    "GuerrillaError",
    "Header",
    "Login",
    "MailEvent",
    "NoSuchUser",
    "Outcome",
    "Part",
    "Parts",
    "Processor",
    "QuotaExceeded",
    "Replies",
    "Reply",
    "ServerChange",
    "ServerConfig",
    "StartError",
    "StorageError",
    "StorageNotAvailable",
    "StorageTimeout",
    "StorageTooBusy",
    "Stream",
    "TLSConfig",
    "TLSInfo",
    "Transaction",
    "Unavailable",
    "UserSuspended",
    "__version__",
    "authenticator",
    "fold",
    "processor",
    "validator",
]

_LAZY = {
    name: module
    for module, names in {
        "engine.backend": ("Backend",),
        "engine.base": ("Processor",),
        "config": ("AppConfig", "BackendConfig", "ServerConfig", "TLSConfig"),
        "daemon": ("Daemon",),
        "errors": (
            "ConfigError",
            "DeliveryError",
            "GuerrillaError",
            "NoSuchUser",
            "QuotaExceeded",
            "StartError",
            "StorageError",
            "StorageNotAvailable",
            "StorageTimeout",
            "StorageTooBusy",
            "Unavailable",
            "UserSuspended",
        ),
        "events": (
            "Change",
            "ConfigChange",
            "ConnectionEvent",
            "Event",
            "EventBus",
            "MailEvent",
            "ServerChange",
        ),
        "engine.registry": ("authenticator", "processor", "validator"),
        "reply": ("AUTHENTICATED", "TAKEN", "Outcome", "Replies", "fold"),
        "stream": ("Envelopes", "Stream"),
    }.items()
    for name in names
}
"""The module of each name that loads on first use."""

# A library is silent until its user, or a daemon, says where its records go.
logging.getLogger(__name__).addHandler(logging.NullHandler())


if not TYPE_CHECKING:  # to a type checker a name that is not above is an error

    def __getattr__(name: str) -> Any:
        module = _LAZY.get(name)
        if module is None:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        found = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
