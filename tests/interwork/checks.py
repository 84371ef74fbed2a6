"""What is the same whoever sends: one mail, and what the daemon has to make of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from tests.clients.witnesses import BACKEND, CHAIN, send_witness, witnessed
from tests.running import RunningDaemon
from tests.services.submitted import Sender, Submitted

Sending = Callable[[RunningDaemon], AbstractContextManager[Sender]]
"""Makes a sender whose mails go to this daemon's first server."""

STARTTLS: Final = """\
tls = { start_tls_on = true, required = true, private_key_file = '%s', public_key_file = '%s' }
"""
"""For a server; with the paths of a key and of its certificate."""

SERVERS: Final = {"smtp": "", "lmtp": 'protocol = "lmtp"\n'}
"""Lines of a server's config, by what it speaks."""

_UTF8: Final = Submitted(
    "From: Jörg <jörg@bücher.example>\r\nSubject: Grüße, 世界\r\n\r\nsüß\r\n".encode(),
    "<jörg@bücher.example>",
    ("<δοκιμή@例え.example>",),
    "BODY=8BITMIME SMTPUTF8",
)
_NOTIFIED: Final = Submitted(
    b"Subject: notify\r\n\r\nbody\r\n",
    recipients=(
        "<one@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first+2Bone@example.net",
        "<two@example.com> NOTIFY=NEVER",
    ),
    parameters="RET=HDRS ENVID=QQ+2B314159",
)
_FATES: Final = '''\
"""What becomes of a mail is said by the names of its recipients."""

import guerrilla
from guerrilla import Envelope, Replies, Reply

SAID = {
    "full": Reply(452, "4.2.2", "Mailbox full"),
    "gone": Reply(550, "5.1.1", "No such user"),
}


@guerrilla.processor("Fates")
def fates(envelope: Envelope) -> Replies:
    """One reply a recipient."""
    return Replies(SAID.get(to.user, Reply(250, "2.0.0", "Stored")) for to in envelope.rcpt_to)
'''


def check_utf8(tmp_path: Path, protocol: str, sending: Sending) -> None:
    """Addresses and header fields in UTF-8 arrive as such."""
    seen = _one_mail(tmp_path, protocol, sending, _UTF8)
    assert seen["mail_from"] == "jörg@bücher.example"
    assert [to for to, _ in seen["rcpt_to"]] == ["δοκιμή@例え.example"]
    assert "SMTPUTF8" in seen["parameters"]
    assert seen["subject"] == "Grüße, 世界"


def check_notifications(tmp_path: Path, protocol: str, sending: Sending) -> None:
    """What the sender's own client asked of notifications is on the envelope."""
    seen = _one_mail(tmp_path, protocol, sending, _NOTIFIED)
    found = {key: seen["parameters"].get(key) for key in ("RET", "ENVID")}
    assert found == {"RET": "HDRS", "ENVID": "QQ+2B314159"}
    (one, first), (two, second) = seen["rcpt_to"]
    assert (one, first["ORCPT"]) == ("one@example.com", "rfc822;first+2Bone@example.net")
    assert sorted(first["NOTIFY"].split(",")) == ["DELAY", "SUCCESS"]
    assert (two, second["NOTIFY"]) == ("two@example.com", "NEVER")


def check_fates(tmp_path: Path, sending: Sending) -> None:
    """By LMTP a sender hears of each recipient what became of it."""
    (tmp_path / "fates.py").write_text(_FATES, encoding="utf-8")
    names = ("good", "full", "gone")
    recipients = tuple(f"<{name}@example.com>" for name in names)
    with (
        RunningDaemon(
            tmp_path, chain="Fates", server=SERVERS["lmtp"], backend='import = ["fates"]'
        ) as daemon,
        sending(daemon) as sender,
    ):
        # From nobody, who gets no notification.
        mail = Submitted(b"Subject: fates\r\n\r\nbody\r\n", "<>", recipients)
        sender.submit([mail])
        sender.release(3)
        found = {one.recipient: one for one in sender.outcomes()}
    good, full, gone = (found[f"{name}@example.com"] for name in names)
    assert [one.status for one in (good, full, gone)] == ["sent", "deferred", "bounced"]
    assert "250 2.0.0 Stored" in good.said
    assert "452 4.2.2 Mailbox full" in full.said
    assert "550 5.1.1 No such user" in gone.said


def _one_mail(tmp_path: Path, protocol: str, sending: Sending, mail: Submitted) -> dict[str, Any]:
    """What a stage saw of a mail that was sent, and is stored for each recipient."""
    daemon = RunningDaemon(
        send_witness(tmp_path / "daemon"), chain=CHAIN, backend=BACKEND, server=SERVERS[protocol]
    )
    with daemon, sending(daemon) as sender:
        [copy] = sender.copies(sender.submit([mail]))
        sender.release(len(mail.recipients))
        failed = [one.line for one in sender.outcomes() if one.status != "sent"]
        assert not failed, failed
        rows = daemon.rows()
    assert len(rows) == len(mail.recipients)
    assert all(row["mail"].endswith(copy) and copy.endswith(mail.message) for row in rows)
    [seen] = witnessed(daemon.folder)
    return seen
