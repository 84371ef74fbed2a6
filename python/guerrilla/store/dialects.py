"""What each database's SQL says about the table of mails.

Each dialect has the type of every column it can make, so that `create_table` makes a table of any
list of them. What it gives is what a store executes and what `guerrillad schema` prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from guerrilla.store.schema import COLUMNS, KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEXT: Final = "VARCHAR(255) NOT NULL DEFAULT ''"


def _types(**types: str) -> dict[str, str]:
    """Text for every column that is not named."""
    text = ("to", "from", "subject", "body", "hash", "content_type", "return_path", "message_id")
    return dict.fromkeys((*text, "reply_to", "sender", "charset"), _TEXT) | types


class Dialect:
    """What the databases have in common. Columns are always given by their plain names."""

    name: ClassVar[str]
    quote: ClassVar[str] = '"'
    mail_id: ClassVar[str]
    """Type of the primary key."""
    types: ClassVar[Mapping[str, str]]
    options: ClassVar[str] = ""
    """What follows the closing parenthesis."""
    must_quote: ClassVar[frozenset[str]] = frozenset({"date", "to", "from"})

    def quoted(self, name: str) -> str:
        """A name of ours, or one that was checked, as SQL."""
        return f"{self.quote}{name}{self.quote}"

    def create_table(self, table: str, columns: Sequence[str] = COLUMNS) -> str:
        """The DDL that makes the table where there is none.

        Args:
            table: a name that was checked (`check_table_name`).
            columns: of `schema.FIELDS`; with both of `KEY` in it, the table has that key.
        """
        lines = [f"mail_id {self.mail_id}"]
        for column in columns:
            name = self.quoted(column) if column in self.must_quote else column
            lines.append(f"{name} {self.types[column]}")
        lines += self.keys(columns)
        body = ",\n    ".join(lines)
        return f"CREATE TABLE IF NOT EXISTS {self.quoted(table)} (\n    {body}\n){self.options}"

    def keys(self, columns: Sequence[str]) -> list[str]:
        """The keys beside `mail_id`, as lines of the DDL."""
        return [f"UNIQUE ({', '.join(KEY)})"] if set(KEY) <= set(columns) else []

    def insert_head(self, table: str, columns: Sequence[str]) -> str:
        """The INSERT up to the first row."""
        names = ", ".join(self.quoted(column) for column in columns)
        # The table's name was checked, the columns are ours.
        return f"INSERT INTO {self.quoted(table)} ({names}) VALUES "  # noqa: S608

    def skip_repeats(self) -> str:
        """What passes a row over whose `KEY` is there; any other conflict has to be an error."""
        return f" ON CONFLICT ({', '.join(KEY)}) DO NOTHING"

    def insert_nothing(self, table: str, columns: Sequence[str]) -> str:
        """An INSERT of no row, which fails where one row would for want of a right or a column."""
        names = ", ".join(self.quoted(column) for column in columns)
        nulls = ", ".join(["NULL"] * len(columns))
        return f"INSERT INTO {self.quoted(table)} ({names}) SELECT {nulls} WHERE 1 = 0"


class SQLiteDialect(Dialect):
    """SQLite's SQL. `AUTOINCREMENT`: a purged `mail_id` never means another mail later."""

    name = "SQLite"
    mail_id = "INTEGER PRIMARY KEY AUTOINCREMENT"
    types = _types(
        queued_id="VARCHAR(255) NOT NULL",
        recipient="VARCHAR(255) NOT NULL",
        date="DATETIME NOT NULL",
        spam_score="FLOAT NOT NULL DEFAULT 0",
        has_attach="INTEGER NOT NULL DEFAULT 0",
        ip_addr="BLOB NOT NULL",
        is_tls="INTEGER NOT NULL DEFAULT 0",
        mail="BLOB NOT NULL",
    )

    def insert_head(self, table: str, columns: Sequence[str]) -> str:
        """As for all.

        `OR ABORT` overrules an existing table's own `ON CONFLICT IGNORE` or `REPLACE`, by which
        this mail, or the one it meets, would vanish.
        """
        return super().insert_head(table, columns).replace("INSERT", "INSERT OR ABORT", 1)


class MySQLDialect(Dialect):
    """MySQL's and MariaDB's SQL. The key has at most 2,040 of the 3,072 bytes that InnoDB takes."""

    name = "MySQL"
    quote = "`"
    mail_id = "BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY"
    types = _types(
        queued_id="VARCHAR(255) COLLATE utf8mb4_bin NOT NULL",
        recipient="VARCHAR(255) COLLATE utf8mb4_bin NOT NULL",
        date="DATETIME NOT NULL",
        spam_score="FLOAT NOT NULL DEFAULT 0",
        has_attach="TINYINT NOT NULL DEFAULT 0",
        ip_addr="VARBINARY(16) NOT NULL",
        is_tls="TINYINT NOT NULL DEFAULT 0",
        mail="LONGBLOB NOT NULL",
    )
    options = " ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4"

    def keys(self, columns: Sequence[str]) -> list[str]:
        """A name, so that it can be found."""
        return [line.replace("UNIQUE", "UNIQUE KEY by_envelope") for line in super().keys(columns)]

    def skip_repeats(self) -> str:
        """`ON DUPLICATE KEY` means any unique key: NULL makes a conflict of another an error."""
        same = " AND ".join(f"{name} = VALUES({name})" for name in KEY)
        first = KEY[0]
        return f" ON DUPLICATE KEY UPDATE {first} = IF({same}, {first}, NULL)"

    def insert_nothing(self, table: str, columns: Sequence[str]) -> str:
        """As for all; a WHERE needs a FROM."""
        return super().insert_nothing(table, columns).replace(" WHERE", " FROM DUAL WHERE")


class PostgreSQLDialect(Dialect):
    """PostgreSQL's SQL."""

    name = "PostgreSQL"
    mail_id = "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"
    types = _types(
        queued_id='VARCHAR(255) COLLATE "C" NOT NULL',
        recipient='VARCHAR(255) COLLATE "C" NOT NULL',
        date="TIMESTAMP NOT NULL",
        spam_score="REAL NOT NULL DEFAULT 0",
        has_attach="SMALLINT NOT NULL DEFAULT 0",
        ip_addr="BYTEA NOT NULL",
        is_tls="SMALLINT NOT NULL DEFAULT 0",
        mail="BYTEA NOT NULL",
    )
