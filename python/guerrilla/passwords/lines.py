"""The lines of a file of passwords: `USER:HASH`, as Apache's `htpasswd` writes them."""

from __future__ import annotations

from typing import Final

from guerrilla.passwords.hashes import HashError, check, prepared

__all__ = ["LinesError", "check_user", "parse", "replaced"]

MOST_PROBLEMS: Final = 5


class LinesError(HashError):
    """A file that cannot be used; a line for each problem, with its number and no hash."""

    def __init__(self, problems: list[str]) -> None:
        """Takes all of them, and tells the first ones."""
        more = len(problems) - MOST_PROBLEMS
        self.problems = problems[:MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        super().__init__("; ".join(self.problems))


def parse(octets: bytes) -> dict[str, str]:
    """Reads a file: hashes by user, exact in case; the user in NFC.

    Empty lines, and those that begin with `#`, say nothing.

    Raises:
        LinesError: every line that is wrong.
    """
    users: dict[str, str] = {}
    numbers: dict[str, int] = {}
    problems: list[str] = []
    for number, line in enumerate(octets.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            user, hashed = _read(line)
        except HashError as error:
            problems.append(f"line {number}: {error}")
            continue
        if user in users:
            problems.append(f"line {number}: the user of line {numbers[user]} once more")
            continue
        users[user], numbers[user] = hashed, number
    if problems:
        raise LinesError(problems)
    return users


def replaced(octets: bytes, user: str, hashed: str) -> tuple[bytes, bool]:
    """A file with another hash for a user, or with one more user at its end.

    Args:
        octets: of the file; all other lines stay as they are.
        user: as `check_user` gives it.
        hashed: the new hash.

    Returns:
        The file, and whether the user was there.
    """
    fresh = f"{user}:{hashed}".encode()
    lines = octets.split(b"\n")
    for index, line in enumerate(lines):
        name = line.removeprefix(b"\xef\xbb\xbf" if index == 0 else b"").partition(b":")[0]
        if not name.startswith(b"#") and prepared(name.decode("utf-8", "replace")) == user:
            lines[index] = fresh
            return b"\n".join(lines), True
    end = b"" if not octets or octets.endswith(b"\n") else b"\n"
    return octets + end + fresh + b"\n", False


def check_user(name: str) -> str:
    """The name of a user as it is compared: in NFC.

    Raises:
        HashError: it cannot stand in such a file.
    """
    if not name:
        raise HashError("there is no user before the colon")
    if not name.isprintable() or ":" in name or name != name.strip() or name.startswith("#"):
        raise HashError(
            "a user has printable characters, but no colon, no blank at either end, "
            "and no # at the beginning"
        )
    return prepared(name)


def _read(line: bytes) -> tuple[str, str]:
    try:
        text = line.rstrip(b" \t\r").decode("utf-8")
    except UnicodeDecodeError:
        raise HashError("it is not UTF-8") from None
    name, colon, hashed = text.partition(":")
    if not colon:
        raise HashError("expected USER:HASH")
    user = check_user(name)
    check(hashed)
    return user, hashed
