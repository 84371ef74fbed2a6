"""The arguments of a program: a list with macros, never a line for a shell.

A macro of a recipient makes its argument stand once for each recipient, as in Postfix's `pipe(8)`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guerrilla._core import Address
from guerrilla.errors import DeliveryError, expected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from guerrilla._core import Envelope

__all__ = ["MACROS", "NULL_SENDER", "Arguments", "BadArgument", "parse_command"]

NULL_SENDER: Final = "MAILER-DAEMON"
"""What stands for `<>`, as in Postfix."""

_OF_RECIPIENT: Final = ("recipient", "original_recipient", "user", "mailbox", "extension", "domain")
_OF_MAIL: Final = (
    "sender",
    "size",
    "queue_id",
    "client_address",
    "client_port",
    "client_hostname",
    "client_helo",
    "client_protocol",
    "sasl_username",
)
MACROS: Final = (*_OF_RECIPIENT, *_OF_MAIL)
"""Every one, as `${recipient}`."""

_MACRO: Final = re.compile(r"\$(?:(\$)|\{([^{}]*)\}|\(([^()]*)\)|([A-Za-z_]*))")
_FORM: Final = "a program with its arguments, as a list or as 'deliver -f ${sender} ${recipient}'"


class BadArgument(DeliveryError):
    """An address that cannot be an argument: it would be taken for an option, or ends early."""

    code = 553
    enhanced = "5.1.3"
    text = "Bad recipient address syntax"


class _BadSender(BadArgument):
    enhanced = "5.1.7"
    text = "Bad sender address syntax"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a program is started with.

    Attributes:
        program: its name or path.
        templates: the arguments, with macros written `${name}` and dollar signs `$$`.
        fold_user: the local part of recipients becomes lower case.
        fold_host: their host does.
    """

    program: str
    templates: tuple[str, ...]
    fold_user: bool = False
    fold_host: bool = False

    def expand(self, envelope: Envelope, indices: Iterable[int], size: int) -> list[bytes]:
        """The arguments for some recipients of an envelope, but for the program.

        Args:
            envelope: what is given to the program.
            indices: which of `rcpt_to`.
            size: octets of its input.

        Raises:
            BadArgument: an address begins an argument with `-`, or has a NUL in it.
        """
        mail = _values_of_mail(envelope, size)
        people = [self._values_of(envelope.rcpt_to[index]) for index in indices]
        found = []
        for template in self.templates:
            if _names_in(template).isdisjoint(_OF_RECIPIENT):
                found.append(_filled(template, mail, _BadSender))
            else:
                found += [_filled(template, mail | person, BadArgument) for person in people]
        return found

    def _values_of(self, recipient: Address) -> dict[str, str]:
        local = recipient.user.lower() if self.fold_user else recipient.user
        host = recipient.host.lower() if self.fold_host else recipient.host
        user, _, extension = local.partition("+")
        return {
            "recipient": str(Address(local, host)),
            "original_recipient": str(recipient),
            "user": user,
            "mailbox": local,
            "extension": extension,
            "domain": host,
        }


def parse_command(value: object, flags: str = "") -> Arguments:
    """Reads a command: a list of arguments, or a text that is split as a shell would, without one.

    `$name`, `$(name)` and `${name}` are macros, `$$` is a dollar sign.

    Args:
        value: from a config.
        flags: `h` and `u` make host and local part of recipients lower case.

    Raises:
        ValueError: what was expected and what was found.
    """
    items = value
    if isinstance(value, str):
        try:
            items = shlex.split(value)
        except ValueError as error:
            raise expected(f"{_FORM} ({str(error).lower()})", value) from None
    if not isinstance(items, list | tuple) or not items or not items[0]:
        raise expected(_FORM, value)
    for item in items:
        if not isinstance(item, str) or "\0" in item:
            raise expected("an argument that is a text", item)
    program, *templates = map(_normal, items)
    if _names_in(program):
        raise expected("a program without a macro in its name", items[0])
    return Arguments(
        program.replace("$$", "$"), tuple(templates), fold_user="u" in flags, fold_host="h" in flags
    )


def _normal(item: str) -> str:
    """With every macro written `${name}`, which is known.

    Raises:
        ValueError: one that is not.
    """

    def one(match: re.Match[str]) -> str:
        if match[1]:
            return "$$"
        name = _name_of(match)
        if name not in MACROS:
            raise expected("a macro such as ${recipient}, or $$ for a dollar sign", item)
        return f"${{{name}}}"

    return _MACRO.sub(one, item)


def _name_of(match: re.Match[str]) -> str:
    """Of a macro; empty for a dollar sign."""
    return match[2] or match[3] or match[4] or ""


def _names_in(template: str) -> set[str]:
    return set(filter(None, map(_name_of, _MACRO.finditer(template))))


def _filled(template: str, values: Mapping[str, str], error: type[BadArgument]) -> bytes:
    text = _MACRO.sub(lambda match: values.get(_name_of(match), "$"), template)
    is_option = text.startswith("-") and not template.startswith("-")
    if is_option or "\0" in text:
        raise error
    return text.encode("utf-8", "replace")


def _values_of_mail(envelope: Envelope, size: int) -> dict[str, str]:
    secure = "S" if envelope.tls is not None else ""
    return {
        "sender": NULL_SENDER if envelope.mail_from.is_null else str(envelope.mail_from),
        "size": str(size),
        "queue_id": envelope.queued_id,
        "client_address": envelope.remote_ip,
        "client_port": str(envelope.remote_port),
        "client_hostname": envelope.remote_name or "unknown",
        "client_helo": envelope.helo,
        "client_protocol": f"{envelope.protocol}{secure}",
        "sasl_username": envelope.auth or "",
    }
