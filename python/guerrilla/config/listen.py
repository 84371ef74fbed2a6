"""Where a server listens: the syntax of `listen_interface`. Names are resolved later."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal

from guerrilla.config.fields import is_address, is_host
from guerrilla.errors import expected

_FORMS: Final = "'127.0.0.1:2525', ':25', '[::]:25', 'host:25' or 'unix:/path'"
_SYSTEMD: Final = "systemd:"
_MAX_PORT: Final = 65_535
_MAX_UNIX_PATH: Final = 107  # bytes; Linux's sun_path holds 108 with the NUL
_PORT = re.compile(r"[0-9]{1,5}")
_NAME = re.compile(r"[ -9;-~]{1,255}")
"""Of a descriptor that systemd passes: what fdname_is_valid() of systemd takes."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A parsed `listen_interface`.

    Attributes:
        kind: `tcp`, `unix` or `systemd`.
        host: an address without brackets or a host name; empty for all of IPv4 and IPv6.
        port: 0 to 65535; 0 lets the system choose.
        path: of a unix socket; empty for the others.
        name: of sockets that systemd passes, wherever they listen; empty for the others.
    """

    kind: Literal["tcp", "unix", "systemd"]
    host: str = ""
    port: int = 0
    path: str = ""
    name: str = ""

    @property
    def is_of_the_system(self) -> bool:
        """Whether the system chooses the port: another one each time."""
        return self.kind == "tcp" and self.port == 0

    @property
    def is_of_this_machine(self) -> bool:
        """Whether nobody on a network is between."""
        if self.kind == "unix" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """The form that `parse_listen_interface` reads."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "systemd":
            return f"{_SYSTEMD}{self.name}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_interface(text: str) -> ListenAddress:
    """Reads what `parse_address` does, or `systemd:NAME`.

    Raises:
        ValueError: what was expected and what was found.
    """
    prefix, name = text[: len(_SYSTEMD)], text[len(_SYSTEMD) :]
    # Of a host that is called so, with its port, too.
    if prefix.casefold() != _SYSTEMD or name.isdigit():
        return parse_address(text)
    if _NAME.fullmatch(name) is None:
        raise expected("the name of a socket after 'systemd:', at most 255 of ASCII", text)
    return ListenAddress("systemd", name=name)


def parse_address(text: str) -> ListenAddress:
    """Reads `ip:port`, `:25` (all of IPv4 and IPv6), `[::]:25`, `host:25` or `unix:/path`.

    Nothing is looked up. Addresses are brought to their short form, host names to lower case.

    Raises:
        ValueError: what was expected and what was found.
    """
    if text[:5].casefold() == "unix:":
        return _unix(text)
    host, colon, digits = text.rpartition(":")
    if not colon:
        raise expected(_FORMS, text)
    if _PORT.fullmatch(digits) is None or int(digits) > _MAX_PORT:
        raise expected(f"a port from 0 to {_MAX_PORT} after the last colon", text)
    return ListenAddress("tcp", _host(host, text), int(digits))


def _unix(text: str) -> ListenAddress:
    path = text[5:]
    if not path.startswith("/") or "\0" in path:
        raise expected("an absolute path after 'unix:'", text)
    if len(path.encode("utf-8", "surrogateescape")) > _MAX_UNIX_PATH:
        raise expected(f"a socket path of at most {_MAX_UNIX_PATH} bytes", text)
    return ListenAddress("unix", path=path)


def _host(host: str, text: str) -> str:
    if host == "":
        return ""
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise expected("an IPv6 address in the brackets", text) from None
    if ":" in host:
        raise expected("an IPv6 address in brackets, as '[::1]:25'", text)
    if is_address(host):
        return host
    if host.replace(".", "").isdigit():
        raise expected("an IPv4 address before the port", text)
    if not is_host(host):
        raise expected(_FORMS, text)
    return host.lower()
