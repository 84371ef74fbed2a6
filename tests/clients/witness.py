"""A stage that writes down, in witnessed.jsonl, what of a mail's transaction no column holds.

It is loaded by the daemon under test, which runs in a folder of its own.
"""

import json

import guerrilla
from guerrilla import Envelope


@guerrilla.processor("Witness")
def witness(envelope: Envelope) -> None:
    """Writes one line."""
    tls = envelope.tls
    seen = {
        "remote_ip": envelope.remote_ip,
        "remote_port": envelope.remote_port,
        "remote_name": envelope.remote_name,
        "local_ip": envelope.local_ip,
        "local_port": envelope.local_port,
        "helo": envelope.helo,
        "esmtp": envelope.esmtp,
        "protocol": envelope.protocol,
        "auth": envelope.auth,
        "mail_from": str(envelope.mail_from),
        "parameters": envelope.parameters,
        "rcpt_to": [(str(address), address.parameters) for address in envelope.rcpt_to],
        "subject": envelope.subject,
        "tls": tls
        and {
            "version": tls.version,
            "cipher": tls.cipher,
            "server_name": tls.server_name,
            "client_subject": tls.client_subject,
            "client_verified": tls.client_verified,
        },
    }
    with open("witnessed.jsonl", "a", encoding="utf-8") as out:
        out.write(json.dumps(seen) + "\n")
