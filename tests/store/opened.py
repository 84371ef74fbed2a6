"""Stores on database servers that a test opens: closed when it ends, however it does."""

from __future__ import annotations

from typing import Any

import pytest

from guerrilla.store import Store, StoreError, Target, drivers, server
from guerrilla.store.dialects import Dialect
from tests.services.sql import PASSWORD, USER, Place
from tests.store.mails import TABLE, envelope, rows

OPEN: list[Store] = []
"""What the test has opened; a fixture closes it."""


def connect(place: Place, lifetime: float = 0.0, **parameters: str) -> Store:
    """Opens the store; the parameters are those of its DSN."""
    return connect_to(place, place.dsn(**parameters), lifetime)


def connect_to(place: Place, dsn: str, lifetime: float = 0.0) -> Store:
    """Opens the store of a DSN."""
    OPEN.append(drivers.connect(place.driver, dsn, Target(TABLE), lifetime))
    return OPEN[-1]


def insert(store: Store) -> None:
    """Stores one mail."""
    store.insert(rows(envelope()))


def link(store: Store) -> Any:
    """Its connection."""
    assert isinstance(store, server.ServerStore)
    return store._kept.get()


def dialect(place: Place) -> Dialect:
    """Of its database."""
    return drivers.find(place.driver).dialect()


def refused(place: Place, dsn: str) -> StoreError:
    """The error of a start."""
    with pytest.raises(StoreError) as error:
        connect_to(place, dsn)
    assert "\n" not in str(error.value)
    assert PASSWORD not in str(error.value)
    return error.value


def limited(place: Place, *rights: str) -> str:
    """The DSN of a user of that name's own, who has these rights on the table alone."""
    name = f"limited_{place.database}"
    if place.driver == "mysql":
        place.query(f"CREATE USER {name} IDENTIFIED BY 'x'")
        # Without any right on the database it could not even be chosen.
        place.query(f"GRANT CREATE TEMPORARY TABLES ON {place.database}.* TO {name}")
        for right in rights:
            place.query(f"GRANT {right} ON {TABLE} TO {name}")
    else:
        place.query(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        place.query("REVOKE CREATE ON SCHEMA public FROM public")
        for right in rights:
            place.query(f"GRANT {right} ON {TABLE} TO {name}")
    who, _, where = place.dsn().rpartition("@")
    return f"{who.removesuffix(who[who.index(USER + ':') :])}{name}:x@{where}"
