"""Private PHP-FPMs, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fastcgi.helpers import Mailbox
from tests.services.phpfpm import PhpFpm


@pytest.fixture(scope="session")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Mailbox:
    """Of `unix_php` and `tcp_php`."""
    return Mailbox(tmp_path_factory.mktemp("fastcgi") / "mail")


@pytest.fixture(scope="session")
def unix_php(mailbox: Mailbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhpFpm]:
    """PHP-FPM on a unix socket, for all tests that do not break it."""
    folder = tmp_path_factory.mktemp("fpm")
    values = {"memory_limit": "256M"}
    with PhpFpm(folder, environment=mailbox.environment, values=values) as php:
        yield php


@pytest.fixture(scope="session")
def tcp_php(mailbox: Mailbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhpFpm]:
    """The same on a port."""
    folder = tmp_path_factory.mktemp("fpm")
    with PhpFpm(folder, tcp=True, environment=mailbox.environment) as php:
        yield php
