"""Reloads of a daemon within a test, and the table of `docs/reload.md` that they are held to."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from guerrilla.config import AppConfig, from_mapping
from guerrilla.daemon import Daemon
from tests.daemons import Make, config
from tests.wire import HELLO, Wire

# --- The table ------------------------------------------------------------------------------------

_PAGE: Final = Path(__file__).parent.parent / "docs" / "reload.md"
_WHENS: Final = "at once|between transactions|next \\w+|not built yet"
_ROW: Final = re.compile(rf"^\| `([\w.\[\]*]+)` \| ({_WHENS})\b", re.MULTILINE)
TABLE: Final = dict(_ROW.findall(_PAGE.read_text(encoding="utf-8")))
"""When each key takes effect."""

SHOWN: Final[dict[str, str]] = {}
"""When each key was seen to take effect, by the tests that are loaded."""

Test = TypeVar("Test", bound=Callable[..., object])


def shows(when: str, *keys: str) -> Callable[[Test], Test]:
    """Marks a test of a daemon that runs: each of these keys takes effect then, and not before."""
    SHOWN.update(dict.fromkeys(keys, when))
    return lambda test: test


def each(when: str, keys: Iterable[str], prefix: str) -> list[str]:
    """The parameters of a test that is one for each of these keys; marked as by `shows`."""
    found = list(keys)
    shows(when, *(prefix + key for key in found))
    return found


# --- What a client meets --------------------------------------------------------------------------

Probe = Callable[[Wire], bool]
"""Whether a client that has been greeted meets the new value."""

SENDER: Final = b"MAIL FROM:<from@example.org>\r\n"
RECIPIENT: Final = b"RCPT TO:<to@example.com>\r\n"


def ehlo(text: str) -> Probe:
    """The reply to EHLO has a line that begins so."""

    def probe(wire: Wire) -> bool:
        wire.send(HELLO)
        return any(line[4:].startswith(text) for line in wire.lines())

    return probe


def says(*commands: bytes, code: str) -> Probe:
    """The last of these commands is answered so."""

    def probe(wire: Wire) -> bool:
        return [wire.ask(command) for command in commands][-1].startswith(code)

    return probe


def refuses(message: bytes) -> Probe:
    """The message is refused."""
    return lambda wire: not wire.deliver(message).startswith("250 ")


# --- Reloads --------------------------------------------------------------------------------------

MAIL: Final = b"From: from@example.org"


@pytest.fixture
def running(make: Make) -> Iterator[Daemon]:
    """A daemon with one server."""
    with make() as daemon:
        yield daemon


Edit = Callable[[dict[str, Any]], object]


def changed(edit: Edit) -> AppConfig:
    """The config of `running`, edited."""
    raw = config()
    edit(raw)
    return from_mapping(raw)


def server(**keys: Any) -> AppConfig:
    """The same with other keys of its server."""
    return changed(lambda raw: raw["servers"][0].update(keys))


def reload(daemon: Daemon, new: AppConfig) -> None:
    """One that succeeds."""
    assert daemon.reload_config(new).failures == ()
    assert daemon.config == new


def is_closed(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def with_second(port: int, **keys: Any) -> AppConfig:
    second = {"listen_interface": f"127.0.0.1:{port}", "host_name": "mx2.example.com", **keys}
    return changed(lambda raw: raw["servers"].append(second))


def backend(**keys: Any) -> AppConfig:
    """The config of `running` with other keys of its backend."""
    return from_mapping(config(**keys))


def at_top(**keys: Any) -> AppConfig:
    """With other keys at the top."""
    return changed(lambda raw: raw.update(keys))
