"""Places in documents that a program fills: between `<!-- NAME -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial


def filled(text: str, places: Mapping[str, Sequence[str]]) -> str:
    """The text with these in their places.

    Raises:
        LookupError: it has no such place.
    """
    for name, lines in places.items():
        pattern = re.compile(
            rf"^<!-- {name} -->\n.*?^<!-- end of {name} -->$", re.MULTILINE | re.DOTALL
        )
        block = "\n".join([f"<!-- {name} -->", "```", *lines, "```", f"<!-- end of {name} -->"])
        # A function, or the backslashes of a line would mean something.
        text, count = pattern.subn(partial(_same, block), text)
        if count != 1:
            raise LookupError(f"there is no place {name!r}, or more than one")
    return text


def _same(block: str, _: re.Match[str]) -> str:
    return block
