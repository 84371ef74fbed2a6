"""Where the far side is and how it is met: the options of the processor, as one `Peer`."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Annotated, Final, Literal

import pydantic

from guerrilla.config import machine_name, parse_address
from guerrilla.config.fields import Flag, Host, PositiveSeconds, one_of
from guerrilla.engine.base import Processor
from guerrilla.errors import ConfigError, expected
from guerrilla.forward.connection import Peer
from guerrilla.forward.link import checking
from guerrilla.forward.opening import Session
from guerrilla.units import Seconds

if TYPE_CHECKING:
    from guerrilla.config import ListenAddress

__all__ = ["ForwardOptions", "peer_of"]

_FORMS: Final = "'mail.example.com:25', '127.0.0.1:24', '[::1]:25' or 'unix:/path'"

_Protocol = Annotated[Literal["smtp", "lmtp"], one_of("smtp", "lmtp")]
_TLS = Annotated[
    Literal["none", "opportunistic", "required", "implicit"],
    one_of("none", "opportunistic", "required", "implicit"),
]


class ForwardOptions(Processor.Options):
    """Keys of `backend_config` about the next server."""

    model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

    forward_address: str
    """Where mail goes: `host:port`, `[::1]:port` or `unix:/path`. A host is one machine: no MX is
    looked up."""
    forward_protocol: _Protocol = "smtp"
    """What is spoken there. With LMTP each recipient is answered for itself."""
    forward_tls: _TLS = "opportunistic"
    """`opportunistic`: by STARTTLS where it is offered and works, whatever the certificate;
    `required`: by STARTTLS, with a certificate that is checked; `implicit`: the same from the
    first octet; `none`: not at all."""
    forward_tls_name: str = ""
    """Whom the certificate has to be of; by default the host of `forward_address`."""
    forward_ca_file: str = ""
    """PEM file of the authorities that the certificate is checked by; by default those of the
    machine. Of no use where it is not checked."""
    forward_username: str = ""
    """The user to log in as, by AUTH PLAIN or LOGIN. Only with `forward_tls` required or implicit,
    or to this machine itself."""
    forward_password: str = pydantic.Field("", repr=False)
    """The password to log in with."""
    forward_helo: Host = pydantic.Field(default_factory=machine_name)
    """What is said at EHLO. Default: the machine's name."""
    forward_timeout: PositiveSeconds = 20.0
    """Time that connecting may take, and each mail or recipient after it. Best below
    `gw_save_timeout`."""
    gw_save_timeout: Seconds = pydantic.Field(30.0, gt=0)
    """Nothing of a mail is sent any more once twice this time has passed: its sender is told 451
    then."""
    forward_keep: Seconds = 60.0
    """How long a connection that nothing was sent over is used again. 0: each mail has its own."""
    forward_xclient: Flag = False
    """Tells the next server address, name and HELO of each client by XCLIENT, as Postfix and
    guerrilla take it from those whom they trust. Not with `forward_username`."""
    forward_ignored_extensions: tuple[str, ...] = ()
    """Keywords that are not seen in its reply to EHLO, such as `CHUNKING`, for a server that does
    not keep what it promises."""

    @pydantic.field_validator("forward_address")
    @classmethod
    def _address(cls, text: str) -> str:
        _parse(text)
        return text

    @pydantic.field_validator("forward_tls_name")
    @classmethod
    def _name(cls, text: str) -> str:
        if not text.isascii() or not text.isprintable():
            raise expected("a host name", text)
        return text

    @pydantic.field_validator("forward_username")
    @classmethod
    def _hidden(cls, name: str, info: pydantic.ValidationInfo) -> str:
        """A password goes over no line that others read or lead elsewhere."""
        address = info.data.get("forward_address")
        is_open = info.data.get("forward_tls") in {"none", "opportunistic"}
        if name and is_open and address is not None and not _parse(address).is_of_this_machine:
            raise ValueError(
                "needs forward_tls = required or implicit: the password could be read on its way"
            )
        return name

    @pydantic.field_validator("forward_xclient")
    @classmethod
    def _alone(cls, is_on: bool, info: pydantic.ValidationInfo) -> bool:
        if is_on and info.data.get("forward_username"):
            raise ValueError("expected false with forward_username: XCLIENT ends the login")
        return is_on

    @pydantic.field_validator("forward_ignored_extensions", mode="before")
    @classmethod
    def _keywords(cls, value: object) -> object:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise expected("a list of keywords, such as ['CHUNKING']", value)
        return value


def _parse(text: str) -> ListenAddress:
    """Reads a `forward_address`; it is no place to listen, and so needs a host and a port."""
    try:
        address = parse_address(text)
    except ValueError:
        raise expected(_FORMS, text) from None
    if address.kind == "tcp" and not (address.host and address.port):
        raise expected(_FORMS, text)
    return address


def peer_of(options: ForwardOptions) -> Peer:
    """Whom to connect to; reads `forward_ca_file`.

    Raises:
        ConfigError: it cannot be read, or there is no name to check a certificate by.
    """
    address = _parse(options.forward_address)
    name = options.forward_tls_name or address.host
    is_checked = options.forward_tls in {"required", "implicit"}
    if is_checked and not name:
        raise ConfigError(
            "backend_config.forward_tls_name: expected the name that the certificate of "
            f"{address} has, since it has no host"
        )
    session = Session(
        helo=options.forward_helo,
        lmtp=options.forward_protocol == "lmtp",
        username=options.forward_username,
        password=options.forward_password,
        ignored=options.forward_ignored_extensions,
        xclient=options.forward_xclient,
    )
    return Peer(
        address,
        session,
        context=None if options.forward_tls == "none" else _context(options, is_checked),
        name=name,
        implicit=options.forward_tls == "implicit",
        required=is_checked,
    )


def _context(options: ForwardOptions, is_checked: bool) -> ssl.SSLContext:
    if not is_checked:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    file = options.forward_ca_file
    try:
        return checking(file)
    except OSError as error:  # an SSLError is one: the file has no certificate
        msg = f"backend_config.forward_ca_file: {file}: {error.strerror or error}"
        raise ConfigError(msg) from error
