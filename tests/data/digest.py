"""A module that a config imports: a processor that answers with what it saw of a message."""

from __future__ import annotations

import hashlib

import guerrilla
from guerrilla import Envelope, Reply


@guerrilla.processor("Digest")
def digest(envelope: Envelope) -> Reply:
    """Answers 250 with size, SHA-256 and octets of the header section."""
    assert envelope.data.readonly
    seen = hashlib.sha256(envelope.data).hexdigest()
    return Reply.ok(f"{envelope.size} {seen} {len(envelope.header_data)}", "2.0.0")
