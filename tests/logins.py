"""Logins from nowhere for tests, and stages whose answers are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from guerrilla._core import Credentials, Login, Reply, Transaction, make_login
from guerrilla.engine.base import Processor
from tests.chains import chain_of

SECRET = "tanst\u00e4\\af'l"
"""A password that a `repr` writes in another way."""


def login(
    username: str = "joe", password: str = SECRET, *, authorization_identity: str = ""
) -> Login:
    credentials = Credentials(username, password, authorization_identity=authorization_identity)
    return make_login(credentials)


class Asked(Processor):
    """A stage whose `authenticate` is given."""

    def __init__(self, given: Callable[[str, str], Any]) -> None:
        super().__init__(self.Options())
        self._given = given
        self.asked: list[str] = []

    def authenticate(self, transaction: Transaction, credentials: Credentials) -> Reply | None:
        self.asked.append(credentials.username)
        found: Reply | None = self._given(credentials.username, credentials.password)
        return found


class Batch(Processor):
    def __init__(self, given: Callable[[Sequence[Login]], Any]) -> None:
        super().__init__(self.Options())
        self._given = given
        self.sizes: list[int] = []

    def authenticate_batch(self, logins: Sequence[Login]) -> Sequence[Reply | None]:
        self.sizes.append(len(logins))
        found: Sequence[Reply | None] = self._given(logins)
        return found


def gives(outcome: object) -> Asked:
    return Asked(lambda _user, _password: outcome)


def throws(error: BaseException) -> Asked:
    def act(user: str, password: str) -> Any:
        raise error

    return Asked(act)


def told(*stages: Processor, **more: str) -> Reply | None:
    """What one client hears."""
    asked = login(**more)
    with chain_of(*stages, task="authenticate") as chain:
        chain.run([asked])
    return asked.answered
