"""What the children of a parent start with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from guerrilla._core import SharedMemory
from guerrilla.errors import StartError
from guerrilla.processes.channel import VERSION, pack
from guerrilla.processes.place import by_interface

if TYPE_CHECKING:
    from guerrilla.processes.parent import Parent


def told(parent: Parent) -> dict[str, Any]:
    """What a child is told of the config."""
    file = parent.config_file
    return {
        "version": VERSION,
        "config": pack(parent.config),
        "config_file": None if file is None else os.fspath(file),
        "resolved": by_interface(parent.servers),
    }


def starting(parent: Parent, number: int) -> tuple[dict[str, Any], list[int]]:
    """Arguments of `start`, and the descriptors that go with them; with what is in force now.

    Args:
        parent: which holds what keeps that from changing.
        number: of the child.
    """
    sockets = [] if parent.sockets is None else parent.sockets.for_child(number)
    memory = [] if parent.memory is None else [parent.memory.fileno()]
    arguments = {
        **told(parent),
        "number": number,
        "processes": parent.processes,
        "addresses": [address for address, _ in sockets],
        "ours": [] if parent.sockets is None else parent.sockets.ours(),
        "has_memory": bool(memory),
        "hold": parent.before is not None and parent.before.is_open,
    }
    return arguments, [*memory, *(descriptor for _, descriptor in sockets)]


def make_memory(processes: int) -> SharedMemory:
    """What all processes have in common.

    Raises:
        StartError: the system gives none.
    """
    try:
        return SharedMemory.create(processes)
    except (OSError, ValueError) as error:
        raise StartError(f"the memory of all processes cannot be made: {error}") from error
