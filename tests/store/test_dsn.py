"""Where a database server is: DSNs as Go writes them, URLs, and what is wrong with one."""

from __future__ import annotations

from typing import Any

import pytest

from guerrilla.config import mask_value
from guerrilla.store import StoreError, Target, drivers
from guerrilla.store.dsn import MySQLAddress, parse_mysql
from guerrilla.store.postgresqldsn import parse_postgresql
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL
from tests.services.sql import PASSWORD
from tests.store.mails import TABLE


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        (
            "user:password@tcp(127.0.0.1:3306)/db?readTimeout=10s&writeTimeout=500ms",
            {"user": "user", "database": "db", "read": 10.0, "write": 0.5},
        ),
        ("/db", {"user": "", "database": "db"}),
        ("u@/db", {"user": "u", "database": "db"}),
        ("u@tcp/db", {"user": "u", "database": "db"}),
        ("u@tcp(db.example.com)/db", {"user": "u", "host": "db.example.com", "database": "db"}),
        ("u@tcp([::1]:3307)/db", {"user": "u", "host": "::1", "port": 3307, "database": "db"}),
        ("u@tcp([fe80::1%eth0])/db", {"user": "u", "host": "fe80::1%eth0", "database": "db"}),
        ("u@unix(/run/a b.sock)/db", {"user": "u", "socket": "/run/a b.sock", "database": "db"}),
        ("u@unix/db", {"user": "u", "socket": "/tmp/mysql.sock", "database": "db"}),
        ("u@/a%2Fb", {"user": "u", "database": "a/b"}),
        ("u@/db?tls=skip-verify", {"user": "u", "database": "db", "tls": "skip-verify"}),
        (
            "u@/db?ssl_ca=/etc/a.pem&ssl-cert=/b&sslKey=/c&timeout=3",
            {
                "user": "u",
                "database": "db",
                "tls": "true",
                "connect": 3.0,
                "ca": "/etc/a.pem",
                "cert": "/b",
                "key": "/c",
            },
        ),
        (
            "u@/db?charset=utf8mb4&parseTime=true&loc=US%2FPacific&maxAllowedPacket=65536",
            {"user": "u", "database": "db", "max_packet": 65_536},
        ),
        (
            "mysql://us%3Aer@db.example.com:3307/d%2Fb?tls=true",
            {
                "user": "us:er",
                "host": "db.example.com",
                "port": 3307,
                "database": "d/b",
                "tls": "true",
            },
        ),
        ("mariadb://u@[::1]/db", {"user": "u", "host": "::1", "database": "db"}),
        (
            "mysql://u@/db?unix_socket=/run/m.sock",
            {"user": "u", "database": "db", "socket": "/run/m.sock"},
        ),
    ],
)
def test_address_of_mysql(dsn: str, expected: dict[str, Any]) -> None:
    found = parse_mysql(dsn)
    wanted = MySQLAddress(password=found.password, **expected)
    assert found == wanted


@pytest.mark.parametrize(
    ("dsn", "password"),
    [
        ("u:p@:/?#[]@tcp(h)/db", "p@:/?#[]"),
        ("u:a@tcp(x)/y@tcp(h)/db", "a@tcp(x)/y"),
        ("u:http://x@tcp(h)/db", "http://x"),
        ("u:%40@tcp(h)/db", "%40"),
        ("u:é\\'\"@tcp(h)/db?timeout=1s", "é\\'\""),
        ("u:p@tcp(h)/db?loc=a@b/c", "p"),
        ("u:@tcp(h)/db", ""),
        ("mysql://u:%40%2F%23%3F%25%C3%A9@h/db", "@/#?%é"),
    ],
)
def test_password_of_mysql_is_as_written(dsn: str, password: str) -> None:
    found = parse_mysql(dsn)
    assert found.password.decode() == password
    assert found.user == "u"
    assert found.host == "h"
    assert found.database == "db"
    assert repr(found.password) not in repr(found)


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("", r"expected user:password@tcp\(127.0.0.1:3306\)/database, got ''"),
        ("u:secret@h:3306/db", "got something else"),
        ("u:secret@tcp(h:3306)", "got something else"),
        ("u:secret@tcp(h)/", "the name of a database"),
        ("u:secret@tcp(::1)/db", "an IPv6 address stands in brackets"),
        ("u:secret@tcp(h:99999)/db", "a port of 1 to 65535, found 99999"),
        ("u:secret@pipe(x)/db", "expected tcp.* found 'pipe'"),
        ("u:secret@/db?sql_mode=ANSI", "found 'sql_mode'"),
        ("u:secret@/db?readTimeout=soon", "readTimeout: expected a duration"),
        ("u:secret@/db?readTimeout=0", "expected a time limit over 0 for readTimeout"),
        ("u:secret@/db?tls=custom", "expected tls=true, false, .* ssl_ca.* found 'custom'"),
        ("u:secret@/db?ssl_ca=", "a value for ssl_ca"),
        ("u:secret@/db?maxAllowedPacket=1MB", "a number of bytes for maxAllowedPacket"),
        ("u:secret@/db?maxAllowedPacket=64", "at least 65536 for maxAllowedPacket, .* found 64"),
        ("u:secret@/db?tls", "NAME=VALUE"),
        ("mysql://u:secret#1@h/db", "percent-encoded"),
        ("mysql://u:secret@h:port/db", "percent-encoded"),
        ("postgres://u:secret@h/db", "found postgres://"),
    ],
)
def test_address_of_mysql_that_cannot_be(dsn: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as error:
        parse_mysql(dsn)
    assert "secret" not in str(error.value)
    assert error.value.key == "sql_dsn"


@pytest.mark.parametrize(
    ("dsn", "expected", "read"),
    [
        (
            "postgres://u:p%40@h:5433/db?sslmode=disable&connect_timeout=3&readTimeout=7s",
            {
                "user": "u",
                "password": "p@",
                "host": "h",
                "port": "5433",
                "dbname": "db",
                "sslmode": "disable",
                "connect_timeout": "3",
            },
            7.0,
        ),
        (
            "postgresql:///db?host=/run/postgresql&pool_max_conns=4",
            {"host": "/run/postgresql", "dbname": "db"},
            20.0,
        ),
        (
            r"host=h user=u password='it\'s a://b\\' dbname=db binary_parameters=1 readTimeout=.5s",
            {"host": "h", "user": "u", "password": "it's a://b\\", "dbname": "db"},
            0.5,
        ),
    ],
)
def test_address_of_postgresql(dsn: str, expected: dict[str, str], read: float) -> None:
    found = parse_postgresql(dsn)
    always = {"connect_timeout": 5, "application_name": "guerrilla", "client_encoding": "UTF8"}
    assert found.parameters == {**always, **expected}
    assert found.read == read
    assert expected.get("password", "-") not in repr(found)


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("", "got ''"),
        ("mail.db", "got something else"),
        ("postgres://u:sec%ret@h/db", "got something else"),
        ("postgres://u:secret@[h/db", "got something else"),
        ("host=h password=a secret", "got something else"),
        ("postgres://u:secret@h/db?foo=1", "expected parameters of libpq, found 'foo'"),
        ("host=h password=secret foo=1", "expected parameters of libpq, found 'foo'"),
        ("host=h password=secret readTimeout=soon", "readTimeout: expected a duration"),
        ("host=h password=secret readTimeout=0", "a time limit over 0"),
    ],
)
def test_address_of_postgresql_that_cannot_be(dsn: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as error:
        parse_postgresql(dsn)
    assert "secret" not in str(error.value)
    assert "sec%ret" not in str(error.value)


def test_every_way_to_write_it_leads_there(mariadb: MariaDB, postgresql: PostgreSQL) -> None:
    first, second = mariadb.fresh(), postgresql.fresh()
    ways = [
        ("mysql", first.dsn()),
        ("mariadb", mariadb.url(first.database)),
        ("MySQL", f"mail:{PASSWORD}@unix({mariadb.socket})/{first.database}"),
        ("postgres", second.dsn()),
        ("pgx", postgresql.keywords(second.database)),
        ("postgresql", f"{second.dsn()}?sslmode=disable"),
    ]
    for driver, dsn in ways:
        drivers.connect(driver, dsn, Target(TABLE)).close()
        shown = str(mask_value("sql_dsn", dsn))
        assert PASSWORD not in shown
        assert "***" in shown
        for part in ("p@ss", "ss:w", "o'rd", "rd\\", "%(é)", "%25%28"):
            assert part not in shown
