"""TLS to a database server."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from guerrilla.store.schema import StoreError

if TYPE_CHECKING:
    from guerrilla.store.dsn import MySQLAddress


def client_context(address: MySQLAddress) -> ssl.SSLContext | None:
    """What a connection to the address uses; None where nothing is asked for.

    `tls=true` checks the certificate and its name, by `ssl_ca` or the authorities of the system.

    Raises:
        StoreError: a file cannot be read.
    """
    if address.tls in {"false", "preferred"} and not address.cert:
        return None
    authorities = _readable("ssl_ca", address.ca)
    try:
        context = ssl.create_default_context(cafile=authorities)
    except ssl.SSLError as error:
        raise StoreError(f"ssl_ca {address.ca}: no certificate ({error})") from None
    # Python 3.13 sets it, and MySQL's own generated authorities do not satisfy it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if address.tls != "true":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if address.cert:
        cert = _readable("ssl_cert", address.cert)
        key = _readable("ssl_key", address.key)
        try:
            context.load_cert_chain(str(cert), key)
        except (ssl.SSLError, OSError) as error:
            raise StoreError(f"ssl_cert {address.cert}: no certificate and key ({error})") from None
    return context


def _readable(name: str, path: str) -> str | None:
    if not path:
        return None
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise StoreError(f"{name} {path}: {error.strerror}") from None
