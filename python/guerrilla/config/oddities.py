"""What of a server works and is hardly meant: the warnings that `AppConfig.warnings` gives."""

import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from guerrilla.config.server import ServerConfig
    from guerrilla.config.tls import TLSConfig

SMTP_PORT: Final = 25
LMTP_NEEDS: Final = ("PIPELINING", "ENHANCEDSTATUSCODES")
"""What a client of LMTP may take for granted."""


def server_oddities(server: "ServerConfig") -> Iterator[str]:
    """One line each: the key within the server, what comes of it, what to do."""
    yield from (f"tls{line}" for line in _tls_oddities(server.tls))
    believing = [key for key in ("xclient_on", "proxy_protocol") if getattr(server, key)]
    if server.unix_mode is not None:
        yield from _mode_oddities(server, server.unix_mode, believing)
    # The peer of a unix socket has no address: the modes of its file say who may connect.
    if believing and server.address.kind != "unix":
        yield from _trust_oddities(server, believing)
    if server.protocol == "lmtp":
        yield from _lmtp_oddities(server)


def _mode_oddities(server: "ServerConfig", mode: str, believing: list[str]) -> Iterator[str]:
    if server.address.kind != "unix":
        yield "unix_mode: has no effect, as the server listens on no unix socket; remove it"
    elif believing and int(mode, 8) & stat.S_IWOTH:
        yield (
            f"unix_mode: with {mode} every user of this machine who gets to the socket can "
            f"pretend, by {' and '.join(believing)}, to be any client; "
            "let only the group of the proxy in"
        )


def _lmtp_oddities(server: "ServerConfig") -> Iterator[str]:
    if server.address.kind == "tcp" and server.address.port == SMTP_PORT:
        yield (
            "protocol: lmtp must not be spoken on port 25, where senders expect smtp "
            "(RFC 2033 section 5); use another port, or a unix socket"
        )
    off = [name for name in LMTP_NEEDS if not server.extensions.get(name, True)]
    if off:
        yield f"extensions: LMTP needs {' and '.join(off)} (RFC 2033 section 5); turn them on"


def auth_oddities(server: "ServerConfig", *, is_checked: bool) -> Iterator[str]:
    """As `server_oddities`, of its keys of AUTH.

    Args:
        server: one that is enabled.
        is_checked: whether its backend checks who a client is.
    """
    auth = server.auth
    # Who a proxy says has logged in there, by XCLIENT LOGIN, has logged in.
    by_proxy = server.xclient_on
    if not is_checked:
        for key in ("relay", "allow_plaintext"):
            if getattr(auth, key) and not (key == "relay" and by_proxy):
                what = f"the backend {server.backend} has no auth_process"
                yield f"auth.{key}: has no effect, as {what}"
        return
    for key in ("required", "relay"):
        if getattr(auth, key) and not by_proxy and not may_offer_auth(server):
            yield (
                f"auth.{key}: nobody can log in, as AUTH is offered within TLS alone and this "
                "server has none; set up tls, or auth.allow_plaintext"
            )
    is_clear = not (server.tls.is_on and (server.tls.tls_always_on or server.tls.required))
    if auth.allow_plaintext and is_clear and not server.address.is_of_this_machine:
        yield (
            "auth.allow_plaintext: passwords can cross the network in the clear; "
            "set up tls and turn it off"
        )


def may_offer_auth(server: "ServerConfig") -> bool:
    """Whether a client can come to see AUTH there, where credentials are checked."""
    return server.tls.is_on or server.auth.allow_plaintext


def _tls_oddities(tls: "TLSConfig") -> Iterator[str]:
    """Each begins with what comes after `tls`."""
    if ignored := tls.ignored():
        yield f": no longer offered and ignored: {', '.join(ignored)}"
    if not tls.is_on:
        return
    if tls.start_tls_on and tls.tls_always_on:
        yield (
            ".start_tls_on: has no effect beside tls_always_on: every connection begins with TLS; "
            "for both, make two servers with a port each"
        )
    asked, given = tls.effective_client_auth_type, tls.client_auth_type
    if given is not None and given != asked:
        yield (
            f".client_auth_type: {given} needs root_cas_file, so no certificate is asked for; "
            "name one, or remove the key"
        )
    if tls.root_cas_file and asked == "NoClientCert":
        yield ".root_cas_file: is not used, since client_auth_type is NoClientCert; remove one"


def _trust_oddities(server: "ServerConfig", believing: list[str]) -> Iterator[str]:
    keys = " and ".join(believing)
    anybody = [network for network in server.trusted_proxies if network.endswith("/0")]
    if anybody:
        yield (
            f"trusted_proxies: with {' and '.join(anybody)} anybody can pretend, by {keys}, to be "
            "any client; name your proxies alone"
        )
    if not server.trusted_proxies:
        result = "nobody can connect" if server.proxy_protocol else "nobody can use XCLIENT"
        yield f"trusted_proxies: is empty, so {result}; name your proxies, or turn off {keys}"
