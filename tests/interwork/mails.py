"""The mails that other mail servers send to ours, and what has to become of them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tests import corpora
from tests.ledger import Ledger, Mail, audit
from tests.running import RunningDaemon
from tests.services.submitted import Sender, Submitted

COUNT: Final = 200

_SIZES: Final = (0, 1, 4_095, 4_096, 8_191, 8_192, 8_193, 65_536, 300_000, 1_500_000)
"""Octets of the bodies that no corpus has: around the buffers of senders, and over `spill_size`."""

_QUEUED: Final = re.compile(r"250 2\.0\.0 OK: queued as ([0-9a-z]{26})$")


def mails() -> list[Mail]:
    """As many as `COUNT`, each with a token in its first line.

    Of a folder of one's own (`GUERRILLA_EXTRA_CORPUS`) as many as there is room for; some are made
    here, and the rest are taken evenly from `tests/corpus`.
    """
    paths = corpora.corpus()
    own = [path for path in paths if path.parent.name == "corpus"]
    extra = [path for path in paths if path not in own][: COUNT * 3 // 4]
    messages = [*_made(), *(path.read_bytes() for path in extra)]
    wanted = COUNT - len(messages)
    messages += [own[number * len(own) // wanted].read_bytes() for number in range(wanted)]
    return [
        Mail(f"{number:06d}", b"X-Ledger: %06d\r\n" % number + corpora.as_sent(message))
        for number, message in enumerate(messages)
    ]


def deliver_all(sender: Sender, daemon: RunningDaemon, sent: Sequence[Mail]) -> None:
    """Each mail is stored once, as its sender had it, under the id that the sender was told.

    What a sender does to a message in its own queue is its own affair: it puts its `Received`
    before it, and ends a header section where a line is no field. So what is compared, octet for
    octet, is what the sender itself showed of its queue before it sent anything; and nearly all of
    these copies end with the message that the sender was given, so that the comparison is one with
    the message, too.

    Args:
        sender: it has sent nothing yet.
        daemon: the receiver, which has stored nothing yet.
        sent: the mails.

    Raises:
        AssertionError: it is not so.
    """
    ids = sender.submit([Submitted(mail.message) for mail in sent])
    tokens = {one: mail.token for one, mail in zip(ids, sent, strict=True)}
    copies = dict(zip(tokens.values(), sender.copies(ids), strict=True))
    altered = [mail.token for mail in sent if not copies[mail.token].endswith(mail.message)]
    assert len(altered) <= len(sent) // 10, altered
    sender.release(len(sent))
    outcomes = sender.outcomes()
    assert len(outcomes) == len(sent)
    _audit(daemon, copies, {tokens[one.queue_id]: one.said for one in outcomes})


def _audit(daemon: RunningDaemon, copies: Mapping[str, bytes], said: Mapping[str, str]) -> None:
    """By tokens: what the sender had, and what it was answered."""
    ids = {token: match[1] for token in said if (match := _QUEUED.match(said[token]))}
    assert not [(token, said.get(token)) for token in copies if token not in ids]
    rows = daemon.rows()
    ledger = Ledger([Mail(token, copy) for token, copy in copies.items()])
    ledger.accepted.update(ids.keys())
    assert audit(ledger, [row["mail"] for row in rows]) == 0
    by_id = {row["queued_id"]: row["mail"] for row in rows}
    assert all(by_id[ids[token]].endswith(copy) for token, copy in copies.items())


def _made() -> Iterator[bytes]:
    """Lines of any octets but CR and LF, many of them with dots before all else."""
    chance = random.Random(1)
    octets = bytes(set(range(256)) - {10, 13})
    for size in _SIZES:
        lines, left = [], size
        while left > 0:
            dots = b"." * chance.choice((0, 0, 1, 2))
            line = dots + bytes(chance.choices(octets, k=chance.choice((0, 1, 70, 900))))
            lines.append(line[:left] + b"\r\n")
            left -= len(line) + 2
        head = (
            b"From: a@example.org\r\nTo: b@example.com\r\nMessage-ID: <%d@example.org>\r\n" % size
        )
        yield head + b"Date: Mon, 23 Nov 2026 03:46:14 +0000\r\n\r\n" + b"".join(lines)
