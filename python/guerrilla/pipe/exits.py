"""What an exit status says of a mail: `sysexits.h`, with the codes that Postfix gives them."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import Final

from guerrilla._core import Reply
from guerrilla.reply import TRY_LATER

__all__ = ["REPLIES", "reply_of"]

REPLIES: Final = MappingProxyType(
    {
        os.EX_USAGE: Reply(554, "5.3.0", "Command line usage error"),
        os.EX_DATAERR: Reply(554, "5.6.0", "Data format error"),
        os.EX_NOINPUT: Reply(554, "5.3.0", "Cannot open input"),
        os.EX_NOUSER: Reply(550, "5.1.1", "User unknown"),
        os.EX_NOHOST: Reply(550, "5.1.2", "Host name unknown"),
        os.EX_UNAVAILABLE: Reply(554, "5.3.0", "Service unavailable"),
        os.EX_SOFTWARE: Reply(554, "5.3.0", "Internal software error"),
        os.EX_OSERR: Reply(451, "4.3.0", "System resource problem"),
        os.EX_OSFILE: Reply(554, "5.3.0", "Critical system file missing"),
        os.EX_CANTCREAT: Reply(554, "5.3.0", "Cannot create user output file"),
        os.EX_IOERR: Reply(451, "4.3.0", "Input/output error"),
        os.EX_TEMPFAIL: Reply(451, "4.3.0", "Temporary failure"),
        os.EX_PROTOCOL: Reply(554, "5.5.0", "Remote error in protocol"),
        os.EX_NOPERM: Reply(550, "5.7.0", "Permission denied"),
        os.EX_CONFIG: Reply(554, "5.3.5", "Local configuration error"),
    }
)
"""The answer to each exit status of `sysexits.h` but 0."""


def reply_of(status: int) -> Reply | None:
    """None for 0: the mail is saved.

    A signal, and what no program says on purpose (1, 127), is a failure that may pass: `451`.
    Postfix bounces the latter; a script with an error of its own would lose all mail that way.

    Args:
        status: an exit status; negative for a signal.
    """
    return None if status == 0 else REPLIES.get(status, TRY_LATER)
