"""Envelopes that came from no socket."""

from __future__ import annotations

from email.message import Message
from email.policy import SMTP
from typing import TYPE_CHECKING, Any

from guerrilla._core import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guerrilla._core import Address

__all__ = ["make_envelope"]


def make_envelope(
    message: bytes | str | Message | None = None,
    *,
    subject: str = "hello",
    body: str = "body\n",
    headers: Mapping[str, str] | None = None,
    mail_from: str | Address | None = "from@example.org",
    rcpt_to: Sequence[str | Address] = ("to@example.com",),
    **transaction: Any,
) -> Envelope:
    r"""An envelope as a client on this machine would have sent it.

    Args:
        message: the whole message: octets as they are, a text (UTF-8, line ends made CRLF), or one
            of Python's `email`. Without it, one is made of the arguments up to `headers`.
        subject: of the message that is made.
        body: its text; `\n` becomes CRLF.
        headers: more fields of its header, in order.
        mail_from: the reverse-path; None or an empty text is the null path.
        rcpt_to: the forward-paths.
        transaction: what else `Envelope.create` takes: `helo`, `protocol`, `remote_ip`,
            `remote_port`, `server`, `host_name`, `tls`, `auth`, `parameters`, `queued_id`,
            `received_at`.

    Raises:
        ValueError: an address that is none.
        TypeError: an argument that `Envelope.create` does not take.
    """
    if message is None:
        fields = {"Subject": subject, **(headers or {})}
        head = "".join(f"{name}: {value}\n" for name, value in fields.items())
        message = f"{head}\n{body}"
    return Envelope.create(_octets(message), mail_from=mail_from, rcpt_to=rcpt_to, **transaction)


def _octets(message: bytes | str | Message) -> bytes:
    if isinstance(message, bytes):
        return message
    if isinstance(message, Message):
        return message.as_bytes(policy=SMTP)
    return "\r\n".join(message.replace("\r\n", "\n").split("\n")).encode()
