"""A server: one listener with its settings."""

import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from guerrilla.config.fields import (
    ITEMS,
    LOG_LEVELS,
    TABLE,
    Count,
    Flag,
    Host,
    LogLevel,
    MaybeText,
    Mode,
    Network,
    Positive,
    PositiveSeconds,
    Text,
    nearest,
    one_of,
    whole,
)
from guerrilla.config.listen import ListenAddress, parse_listen_interface
from guerrilla.config.section import Section
from guerrilla.config.tls import TLSConfig
from guerrilla.errors import ConfigError, expected
from guerrilla.units import Bytes, Seconds

DEFAULT_LISTEN_INTERFACE = "127.0.0.1:2525"

EXTENSIONS = (
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "ENHANCEDSTATUSCODES",
    "HELP",
    "SMTPUTF8",
    "CHUNKING",
    "BINARYMIME",
    "DSN",
    "LIMITS",
)
"""What `extensions` can turn on or off; STARTTLS, AUTH and XCLIENT have keys of their own."""


def machine_name() -> str:
    """The machine's host name, or `localhost` where it has none."""
    return socket.gethostname() or "localhost"


def _listen_interface(value: object) -> str:
    if not isinstance(value, str):
        raise expected("a text such as '127.0.0.1:2525'", value)
    parse_listen_interface(value)
    return value


def _host_name(value: object) -> object:
    # Go-Guerrilla's files say "" for the default.
    return machine_name() if value == "" else value


def _extensions(value: dict[str, bool]) -> dict[str, bool]:
    for name in value:
        if name.upper() not in EXTENSIONS:
            message = f"unknown extension {name[:60]!r}{nearest(name, EXTENSIONS)}"
            raise ValueError(message)
    return {name.upper(): is_on for name, is_on in value.items()}


class AuthConfig(Section):
    """AUTH of a server (RFC 4954): `servers[].auth`."""

    required: Flag = False
    """Answers `530 5.7.0` to MAIL before AUTH."""

    relay: Flag = False
    """Takes mail for any host from a client that has authenticated."""

    allow_plaintext: Flag = False
    """Takes AUTH outside TLS; passwords then cross the network in the clear."""

    failure_delay: Seconds = 1.0
    """Time before the answer to a login that failed; twice as long with each further one of the
    connection, up to 16 s. 0: none."""

    max_failures: Count = 10
    """Failed logins of a connection, or of one client address in ten minutes, after which the next
    gets `421 4.7.0`. 0: no limit."""


def server_name(listen_interface: str, ordinal: int) -> str:
    """See `ServerConfig.name`."""
    return listen_interface if ordinal == 1 else f"{listen_interface}#{ordinal}"


def ordinals(listen_interfaces: Iterable[str]) -> Iterator[int]:
    """For each, how many of the same there are up to it."""
    seen: Counter[str] = Counter()
    for one in listen_interfaces:
        seen[one] += 1
        yield seen[one]


class ServerConfig(Section):
    """A server: `servers[]`. It needs `listen_interface`; all else has a default.

    Go-Guerrilla leaves a server without `is_enabled` disabled; here it is enabled.
    """

    is_enabled: Flag = True
    """Whether the server listens."""

    listen_interface: Annotated[str, BeforeValidator(_listen_interface)]
    """Where it listens: `ip:port`, `:25` (all of IPv4 and IPv6), `[::]:25`, `host:25`,
    `unix:/path`, or `systemd:NAME`, the sockets that systemd passes by that name. Port 0 lets the
    system choose; but for it, unique among the servers."""

    unix_mode: Mode = None
    """Who may connect to a `unix:` socket: the mode of its file in octal, as `"0660"`. Default:
    what the umask leaves."""

    host_name: Annotated[Host, BeforeValidator(_host_name)] = Field(default_factory=machine_name)
    """What the server calls itself in the greeting and in `Received:`. Default: the machine's."""

    max_size: Bytes = 10 * 2**20
    """Bytes of a message (RFC 1870). 0: no limit; then the disk is one, see `spill_size`."""

    timeout: PositiveSeconds = 30.0
    """Time for a command line, for each pause within DATA or BDAT, and for a TLS handshake."""

    max_clients: Positive = 100
    """Connections at a time; one more gets `421 4.7.0`."""

    log_file: MaybeText = None
    """A log of this server's own: a path, `stderr`, `stdout` or `off`. Default: the main log."""

    log_level: Annotated[LogLevel | None, one_of(*LOG_LEVELS, or_none=True)] = None
    """The lowest level of what is logged of this server. Default: the main `log_level`."""

    xclient_on: Flag = False
    """Offers XCLIENT to `trusted_proxies`."""

    tls: Annotated[TLSConfig, TABLE] = TLSConfig()
    """TLS: certificate, versions, ciphers."""

    protocol: Annotated[Literal["smtp", "lmtp"], one_of("smtp", "lmtp")] = "smtp"
    """The protocol that is spoken: `smtp` or `lmtp` (RFC 2033)."""

    extensions: Annotated[dict[str, Flag], AfterValidator(_extensions), TABLE] = Field(
        default_factory=dict
    )
    """Turns single SMTP extensions on or off, as `{ "CHUNKING": false }`: `PIPELINING`, `SIZE`,
    `8BITMIME`, `ENHANCEDSTATUSCODES`, `HELP`, `SMTPUTF8`, `CHUNKING`, `BINARYMIME` (with CHUNKING
    only), `DSN`, `LIMITS`. All are on by default."""

    bare_newline: Annotated[Literal["fix", "keep", "reject"], one_of("fix", "keep", "reject")] = (
        "fix"
    )
    """What becomes of a CR or LF that is not part of a CRLF in a message: `fix` makes it CRLF,
    `keep` stores it, `reject` answers 554 after the end. It never ends a message."""

    proxy_protocol: Flag = False
    """Expects the PROXY protocol, version 1 or 2, from `trusted_proxies`."""

    trusted_proxies: Annotated[tuple[Network, ...], ITEMS] = ("127.0.0.0/8", "::1/128")
    """Peers whose XCLIENT or PROXY is believed: addresses and networks. The peer of a unix socket
    is always believed."""

    data_timeout: Seconds = 600.0
    """Time for one DATA, or for all BDATs of a message, in all. 0: no limit."""

    min_data_rate: Bytes = 100
    """Bytes a second of DATA or BDAT, on average after the first minute. 0: no limit."""

    helo_required: Flag = True
    """Answers `503 5.5.1` to MAIL before HELO or EHLO (RFC 5321 §4.1.4)."""

    max_recipients: Count = 100
    """Accepted recipients a transaction (RFC 5321 §4.5.3.1.8: at least 100). 0: no limit."""

    max_messages: Count = 0
    """Messages a connection. 0: no limit."""

    max_errors: Count = 5
    """The `500` reply of this number becomes `421` and ends the session. 0: none does."""

    max_idle_commands: Count = 50
    """Commands in a row that bring no mail nearer, after which the next gets `421`. 0: no limit."""

    max_connections_per_ip: Count = 0
    """Connections at a time from one client address. 0: no limit."""

    max_connection_rate_per_ip: Count = 0
    """New connections a minute from one client address. 0: no limit."""

    ipv6_prefix: Annotated[int, whole(1, 128), Field(ge=1, le=128)] = 64
    """Bits of an IPv6 address that count as one client in the limits per address."""

    max_header_size: Bytes = 2**20
    """Bytes of the header section that are parsed; the message is taken whole."""

    max_received_hops: Count = 50
    """`Received:` fields, over which a message is in a loop, `554 5.4.6` (RFC 5321 §6.3).
    0: no limit."""

    greet_delay: Seconds = 0.0
    """Time before the greeting; who talks earlier is refused. Shorter than `timeout`. 0: off."""

    backend: Annotated[Text, AfterValidator(str.lower)] = "default"
    """Which of `backends` saves this server's mail; `default` is `backend_config`."""

    auth: Annotated[AuthConfig, TABLE] = AuthConfig()
    """AUTH: who must, and what it allows."""

    _ordinal: int = PrivateAttr(default=1)

    @property
    def name(self) -> str:
        """What it is matched by in another config, and called in logs and figures.

        `listen_interface`; of several with the same, which only port 0 allows, the second has `#2`
        behind it, and so on.
        """
        return server_name(self.listen_interface, self._ordinal)

    def numbered(self, ordinal: int) -> Self:
        """The same server as the nth with its `listen_interface`."""
        if ordinal == self._ordinal:
            return self
        copy = self.model_copy()
        copy._ordinal = ordinal  # noqa: SLF001  # one of its own
        return copy

    @property
    def address(self) -> ListenAddress:
        """`listen_interface`, parsed."""
        return parse_listen_interface(self.listen_interface)

    @model_validator(mode="after")
    def _greets_in_time(self) -> Self:
        if self.greet_delay and self.greet_delay >= self.timeout:
            message = (
                f"greet_delay: must be shorter than timeout ({self.timeout:g} s), "
                f"got {self.greet_delay:g} s"
            )
            raise ConfigError(message)
        return self
