"""The exceptions of guerrilla, and how an error names a bad value.

`GuerrillaError` is the root. What a person has to mend (`ConfigError`, `StartError`) lists every
problem, one line each. What a processor raises says who is to blame: `Unavailable` the store that
all mail of the batch needs, a `DeliveryError` this one mail or recipient.
"""

import json
from collections.abc import Iterable, Mapping
from typing import ClassVar

_SHOWN_LENGTH = 60
"""Characters of a bad value that an error repeats: enough to find it, and still one line."""

_SHOWN_BITS = 256


class GuerrillaError(Exception):
    """The root of every exception that guerrilla raises on purpose."""


class _ProblemsError(GuerrillaError):
    """An error that lists everything that is wrong, so that one round mends it all."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        """Takes one problem, or several: a line each."""
        self.problems: tuple[str, ...] = (
            (problems,) if isinstance(problems, str) else tuple(problems)
        )
        super().__init__(self.problems)

    def __str__(self) -> str:
        """One line a problem."""
        return "\n".join(self.problems)


class ConfigError(_ProblemsError, ValueError):
    """A config that cannot be used.

    Attributes:
        problems: one line each: the file, the path of the key, what was expected, what was found.
    """


class NotNowError(ConfigError):
    """A reload that was refused for the moment: the same config may be obeyed a little later."""


class StartError(_ProblemsError):
    """A daemon that could not start.

    Attributes:
        problems: one line for each part that could not start.
    """


class UpgradeError(GuerrillaError):
    """Another program has not taken over: the one that runs goes on. A line for each reason."""


class Unavailable(GuerrillaError):
    """A store cannot be reached, or cannot say whether it saved: a lost connection, a timeout.

    It concerns the whole batch: each sender gets `451 4.3.0` and tries again later.
    """


class DeliveryError(GuerrillaError):
    """A mail or recipient that is not taken; each kind has its reply (RFC 5321 §4.2, RFC 3463).

    Attributes:
        code: three digits; 4xx asks the sender to try again, 5xx not to.
        enhanced: the enhanced status code, of the same class.
        text: what the reply says when the exception was raised without a text.
    """

    code: ClassVar[int] = 451
    enhanced: ClassVar[str] = "4.3.0"
    text: ClassVar[str] = "Requested action aborted: local error in processing"

    def __str__(self) -> str:
        """The text it was raised with, else the text of its kind."""
        return super().__str__() or self.text


class NoSuchUser(DeliveryError):
    """There is no mailbox of this name: `550 5.1.1`."""

    code = 550
    enhanced = "5.1.1"
    text = "User unknown in local recipient table"


class UserSuspended(DeliveryError):
    """The mailbox exists and takes no mail: `550 5.2.1`."""

    code = 550
    enhanced = "5.2.1"
    text = "User suspended"


class QuotaExceeded(DeliveryError):
    """The mailbox is full: `452 4.2.2`."""

    code = 452
    enhanced = "4.2.2"
    text = "Quota exceeded"


class StorageNotAvailable(DeliveryError):
    """The store is not there for this mail: `451 4.3.0`."""

    code = 451
    enhanced = "4.3.0"
    text = "Storage not available"


class StorageTooBusy(DeliveryError):
    """The store has more to do than it can: `451 4.3.2`."""

    code = 451
    enhanced = "4.3.2"
    text = "Storage too busy"


class StorageTimeout(DeliveryError):
    """The store did not answer in time: `451 4.4.1`."""

    code = 451
    enhanced = "4.4.1"
    text = "Storage timeout"


class StorageError(DeliveryError):
    """The store failed in any other way: `451 4.3.0`."""

    code = 451
    enhanced = "4.3.0"
    text = "Storage error"


def expected(what: str, got: object) -> ValueError:
    """The error for a bad value: `expected WHAT, got VALUE`.

    Args:
        what: the good values, as "an integer of at least 1".
        got: the bad one.
    """
    return ValueError(f"expected {what}, got {shown(got)}")


def shown(value: object) -> str:
    """A value as a config file has it, cut to one short line."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return "a huge integer"  # whose repr may be refused by Python, or take long
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"
