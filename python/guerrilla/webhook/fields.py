"""An envelope and its header fields, as JSON has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guerrilla._core import Envelope, decode_words

if TYPE_CHECKING:
    from guerrilla._core import TLSInfo

__all__ = ["envelope_fields", "header_fields"]


def envelope_fields(envelope: Envelope) -> dict[str, Any]:
    """Who sent it, to whom and how."""
    sender = envelope.mail_from
    return {
        "queued_id": envelope.queued_id,
        "received_at": envelope.received_at,
        "mail_from": "" if sender.is_null else str(sender),
        "rcpt_to": [str(recipient) for recipient in envelope.rcpt_to],
        "parameters": envelope.parameters,
        "helo": envelope.helo,
        "remote_ip": envelope.remote_ip,
        "remote_port": envelope.remote_port,
        "remote_name": envelope.remote_name,
        "local_ip": envelope.local_ip,
        "local_port": envelope.local_port,
        "host_name": envelope.host_name,
        "server": envelope.server,
        "protocol": protocol(envelope),
        "tls": tls_fields(envelope.tls),
        "auth": envelope.auth,
        "size": envelope.size,
    }


def protocol(envelope: Envelope) -> str:
    """How it came, as `Received` names it: `ESMTPSA`, `UTF8LMTP` (RFC 3848, RFC 6531 §4.3)."""
    start: str = envelope.protocol
    if envelope.smtputf8:
        start = "UTF8LMTP" if start == "LMTP" else "UTF8SMTP"
    # SMTP without extensions has no AUTH, and no name for it.
    has_login = envelope.auth is not None and start != "SMTP"
    return f"{start}{'S' if envelope.tls else ''}{'A' if has_login else ''}"


def tls_fields(tls: TLSInfo | None) -> dict[str, Any] | None:
    """What was negotiated with the client; None without TLS."""
    if tls is None:
        return None
    return {
        "version": tls.version,
        "cipher": tls.cipher,
        "server_name": tls.server_name,
        "client_subject": tls.client_subject,
        "client_verified": tls.client_verified,
    }


def header_fields(envelope: Envelope) -> list[dict[str, str]]:
    """Every field in order, decoded: those that stages have added first."""
    fields = envelope.header.items()
    if added := envelope.added_headers + envelope.delivery_header:
        fields = Envelope.create(added + b"\r\n").header.items() + fields
    return [{"name": name, "value": decode_words(value)} for name, value in fields]
