//! The database: how it is opened, what it must be, and what it says of itself at the start.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::error::OpenError;
use super::{folder, salvage};

/// The oldest `SQLite` that is trusted: those before it can lose committed data when a write meets a
/// checkpoint ("WAL-reset bug").
const OLDEST: i32 = 3_051_003;
/// `user_version`: a change of the schema raises it.
const SCHEMA_VERSION: i64 = 1;
/// Ids reserved at once: what a commit does not have to write, and a restart skips.
pub(super) const BLOCK: i64 = 10_000;

/// `body` is last: what is read without it does not touch its pages. No state is in `msg`, since an UPDATE
/// would write the whole row with its body again. `lane` has sums, and `msg_file` the few that have a file,
/// so that a start reads no message.
const SCHEMA: &str = "
CREATE TABLE msg(id INTEGER PRIMARY KEY, received_ms INTEGER NOT NULL, size INTEGER NOT NULL,
  crc INTEGER NOT NULL, backend TEXT NOT NULL, queued_id TEXT NOT NULL, env BLOB NOT NULL, file TEXT,
  body BLOB, CHECK((body IS NULL) <> (file IS NULL))) STRICT;
CREATE INDEX msg_file ON msg(file) WHERE file IS NOT NULL;
CREATE TABLE retry(id INTEGER PRIMARY KEY, backend TEXT NOT NULL, attempts INTEGER NOT NULL,
  next_ms INTEGER NOT NULL, error TEXT) STRICT;
CREATE TABLE lane(backend TEXT PRIMARY KEY, depth INTEGER NOT NULL, octets INTEGER NOT NULL)
  STRICT, WITHOUT ROWID;
CREATE TABLE meta(k TEXT PRIMARY KEY, v INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('last', 0), ('reserved', 0), ('identity', random());
";

/// Times of messages that were taken over, which are older than their ids say. An older version ignores it.
const ADOPTED: &str = "CREATE TABLE IF NOT EXISTS adopted(received_ms INTEGER, id INTEGER,
  PRIMARY KEY(received_ms, id)) STRICT, WITHOUT ROWID";

/// The connection that writes; the database is made where there is none.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let version = rusqlite::version_number();
    if version < OLDEST {
        let text = format!(
            "SQLite {} can lose committed mails: link 3.51.3 or later",
            rusqlite::version()
        );
        return Err(OpenError::guard(path, text));
    }
    // SQLite would make it readable for all; its other files have the mode of this one.
    if !path.exists() {
        // Not otherwise: to close a file drops the locks that this process has on it, those of an open
        // connection too.
        folder::create(path).map_err(OpenError::file(path, "cannot be opened"))?;
    }
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .and_then(|connection| prepare(&connection).map(|()| connection))
        .map_err(OpenError::database(path))?;
    guard(path, &connection)?;
    Ok(connection)
}

/// The connection that reads: its transactions are short, since an open one keeps the WAL growing.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, OpenError> {
    let connection =
        connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(OpenError::database(path))?;
    let pragmas = "PRAGMA busy_timeout=5000; PRAGMA cache_size=-8192;";
    connection.execute_batch(pragmas).map_err(OpenError::database(path))?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    #[cfg(test)]
    super::tests::vfs::register();
    Connection::open_with_flags(path, flags)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
         PRAGMA journal_size_limit=16777216;
         PRAGMA cache_size=-65536; PRAGMA busy_timeout=5000;",
    )?;
    // What an earlier process left in the log may be in memory alone, where its sync failed: the system
    // shows it, and never writes it. Behind such a gap no commit would last, so nothing is written there.
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    let made: bool =
        connection.query_row("SELECT EXISTS(SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
    if !made {
        let version = format!("PRAGMA user_version={SCHEMA_VERSION};");
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} {version} COMMIT;"))?;
    }
    Ok(())
}

fn guard(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let journal: String = connection
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .map_err(OpenError::database(path))?;
    if journal != "wal" {
        let text =
            format!("journal_mode is {journal}, not wal: put spool.path on a local file system");
        return Err(OpenError::guard(path, text));
    }
    let synchronous: i64 = connection
        .pragma_query_value(None, "synchronous", |row| row.get(0))
        .map_err(OpenError::database(path))?;
    if synchronous != 2 {
        let text = format!("synchronous is {synchronous}, not FULL: a bug, please report it");
        return Err(OpenError::guard(path, text));
    }
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(OpenError::database(path))?;
    if version != SCHEMA_VERSION {
        let text = format!(
            "of version {version}, where this guerrilla knows {SCHEMA_VERSION}: use the one that made it, \
             or set spool.path to another folder"
        );
        return Err(OpenError::guard(path, text));
    }
    Ok(())
}

/// Messages of one backend.
#[derive(Debug)]
pub(super) struct Sum {
    pub(super) backend: String,
    pub(super) depth: u64,
    pub(super) octets: u64,
}

/// A message that waits for its time.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: i64,
    pub(super) backend: String,
    pub(super) next_ms: i64,
}

pub(super) fn sums(connection: &Connection) -> rusqlite::Result<Vec<Sum>> {
    let mut select =
        connection.prepare("SELECT backend, max(depth, 0), max(octets, 0) FROM lane")?;
    select
        .query_map([], |row| {
            let (depth, octets): (i64, i64) = (row.get(1)?, row.get(2)?);
            let (depth, octets) = (depth.unsigned_abs(), octets.unsigned_abs());
            Ok(Sum { backend: salvage::text(row, 0)?, depth, octets })
        })?
        .collect()
}

pub(super) fn deferred(connection: &Connection) -> rusqlite::Result<Vec<Waiting>> {
    let mut select = connection.prepare("SELECT id, backend, next_ms FROM retry")?;
    select
        .query_map([], |row| {
            let (id, mut backend) = (row.get(0)?, salvage::text(row, 1)?);
            if backend.contains(char::REPLACEMENT_CHARACTER) {
                // Its message says it too, and is not read for that otherwise: there may be many.
                let own = "SELECT backend FROM msg WHERE id = ?1";
                backend = connection
                    .query_row(own, [id], |row| salvage::text(row, 0))
                    .optional()?
                    .unwrap_or(backend);
            }
            Ok(Waiting { id, backend, next_ms: row.get(2)? })
        })?
        .collect()
}

pub(super) fn meta(connection: &Connection, key: &str) -> rusqlite::Result<i64> {
    let value = connection
        .query_row("SELECT v FROM meta WHERE k = ?1", [key], |row| row.get(0))
        .optional()?;
    Ok(value.unwrap_or(0))
}

pub(super) fn set_meta(connection: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO meta VALUES(?1, ?2) ON CONFLICT DO UPDATE SET v = excluded.v",
        (key, value),
    )?;
    Ok(())
}

/// At the start: makes the table of what was taken over, and forgets what is gone of that.
pub(super) fn prepare_adopted(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(ADOPTED)?;
    let gone = "DELETE FROM adopted WHERE NOT EXISTS(SELECT 1 FROM msg WHERE msg.id = adopted.id)";
    match connection.execute_batch(gone) {
        // It only has more rows than it needs.
        Err(error) if salvage::is_damage(&error) => Ok(()),
        done => done,
    }
}

/// When the oldest message came: the first one, or one of those that were taken over. `adopted` is the first
/// of these that may still be there.
pub(super) fn oldest(
    connection: &Connection,
    adopted: &mut (i64, i64),
) -> rusqlite::Result<Option<i64>> {
    let first: Option<i64> = connection
        .query_row("SELECT received_ms FROM msg ORDER BY id LIMIT 1", [], |row| row.get(0))
        .optional()?;
    let other = connection
        .query_row(
            "SELECT received_ms, id FROM adopted WHERE (received_ms, id) >= (?1, ?2)
             AND EXISTS(SELECT 1 FROM msg WHERE msg.id = adopted.id) ORDER BY received_ms, id LIMIT 1",
            *adopted,
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    // Those before it are gone, and a new one that is older says so.
    *adopted = other.unwrap_or((i64::MAX, i64::MAX));
    Ok(first.into_iter().chain(other.map(|(received_ms, _)| received_ms)).min())
}

/// Whether it has no message.
pub(super) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT NOT EXISTS(SELECT 1 FROM msg)", [], |row| row.get(0))
}
