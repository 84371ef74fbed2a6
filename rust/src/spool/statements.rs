//! What the writer says to the database.

use rusqlite::{Connection, OptionalExtension, Statement};

use super::batch::Saved;
use super::dispatch::LARGEST;
use super::{clock, salvage};

/// Pages in the WAL that are worth a checkpoint: with those of one commit that is what `journal_size_limit`
/// leaves of it. A page that was written again meanwhile, as most are where the store follows, is written to
/// the database once.
const CHECKPOINT: i64 = 3_000;

/// Prepared once for as long as the connection is good.
pub(super) struct Statements<'connection> {
    pub(super) begin: Statement<'connection>,
    pub(super) commit: Statement<'connection>,
    log: Statement<'connection>,
    checkpoint: Statement<'connection>,
    pub(super) insert: Statement<'connection>,
    pub(super) delete: Statement<'connection>,
    time: Statement<'connection>,
    delete_retry: Statement<'connection>,
    pub(super) defer: Statement<'connection>,
    pub(super) retry_now: Statement<'connection>,
    pub(super) row: Statement<'connection>,
    pub(super) lane: Statement<'connection>,
    pub(super) meta: Statement<'connection>,
    forget: Statement<'connection>,
    mark: Statement<'connection>,
    adopted: Statement<'connection>,
}

impl<'connection> Statements<'connection> {
    pub(super) fn prepare(connection: &'connection Connection) -> rusqlite::Result<Self> {
        // Each of its commits looks itself: see `checkpoint`.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        Ok(Self {
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            log: connection.prepare("PRAGMA wal_checkpoint(NOOP)")?,
            checkpoint: connection.prepare("PRAGMA wal_checkpoint(PASSIVE)")?,
            insert: connection.prepare(
                "INSERT INTO msg(id, received_ms, size, crc, backend, queued_id, env, file, body)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?,
            delete: connection.prepare("DELETE FROM msg WHERE id = ?1")?,
            time: connection.prepare("SELECT next_ms FROM retry WHERE id = ?1")?,
            delete_retry: connection.prepare("DELETE FROM retry WHERE id = ?1")?,
            // Only of a message that is still there: another worker may have done it.
            defer: connection.prepare(
                "INSERT INTO retry SELECT ?1, ?2, ?3, ?4, ?5
                 WHERE EXISTS(SELECT 1 FROM msg WHERE id = ?1)
                 ON CONFLICT DO UPDATE SET attempts = excluded.attempts,
                   next_ms = excluded.next_ms, error = excluded.error",
            )?,
            retry_now: connection.prepare("UPDATE retry SET next_ms = ?2 WHERE id = ?1")?,
            row: connection.prepare(ROW)?,
            lane: connection.prepare(
                "INSERT INTO lane VALUES(?1, ?2, ?3) ON CONFLICT DO UPDATE
                 SET depth = depth + excluded.depth, octets = octets + excluded.octets",
            )?,
            meta: connection.prepare(
                "INSERT INTO meta VALUES(?1, ?2) ON CONFLICT DO UPDATE SET v = excluded.v",
            )?,
            forget: connection.prepare("DELETE FROM meta WHERE k = ?1")?,
            mark: connection.prepare("SELECT v FROM meta WHERE k = ?1")?,
            adopted: connection.prepare("INSERT INTO adopted VALUES(?1, ?2)")?,
        })
    }
}

impl Statements<'_> {
    /// Writes what is in the WAL to the database, once that is enough to be worth it. Where somebody reads, a
    /// part of it may stay: then each commit tries it, until all is written and the WAL begins anew.
    pub(super) fn checkpoint(&mut self) -> rusqlite::Result<()> {
        let pages = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (log, written) = self.log.query_row([], pages)?;
        if log < CHECKPOINT || written >= log {
            return Ok(());
        }
        self.checkpoint.query_row([], |_| Ok(()))
    }

    /// A message is not deferred any more; what its time was.
    pub(super) fn forget_time(&mut self, id: i64) -> rusqlite::Result<Option<i64>> {
        // Not by RETURNING, for which SQLite makes a table each time: nearly none has one.
        let time = self.time.query_row([id], |row| row.get(0)).optional()?;
        if time.is_some() {
            self.delete_retry.execute([id])?;
        }
        Ok(time)
    }

    /// Up to which id another folder was taken over, or that a message is there; 0 where nothing says so.
    pub(super) fn mark(&mut self, key: &str) -> rusqlite::Result<i64> {
        Ok(self.mark.query_row([key], |row| row.get(0)).optional()?.unwrap_or(0))
    }

    pub(super) fn forget(&mut self, mark: &str) -> rusqlite::Result<()> {
        self.forget.execute([mark]).map(drop)
    }

    /// Of a message, and what it brings with it.
    pub(super) fn insert_row(&mut self, id: i64, saved: &Saved, size: u64) -> rusqlite::Result<()> {
        let Saved { entry, file, adopted } = saved;
        let (record, octets) = (entry.record(), entry.octets());
        let crc = match (file, adopted) {
            // Not made anew: it may say that something is damaged.
            (_, Some(adopted)) => adopted.crc,
            (Some(file), None) => i64::from(file.crc),
            (None, None) => i64::from(checksum(record, octets)),
        };
        let received_ms = clock::ms(entry.received_at());
        self.insert.execute((
            id,
            received_ms,
            i64::try_from(size).unwrap_or(i64::MAX),
            crc,
            entry.backend(),
            entry.queued_id(),
            record,
            file.as_ref().map(|file| &file.name),
            file.is_none().then_some(octets),
        ))?;
        if let Some(mark) = entry.mark() {
            self.meta.execute((mark, id))?;
        }
        let Some(adopted) = adopted else { return Ok(()) };
        for (key, mark) in &adopted.gaps {
            self.meta.execute((key, mark))?;
        }
        self.meta.execute((&adopted.key, adopted.id))?;
        self.adopted.execute((received_ms, id))?;
        if let Some(retry) = &adopted.retry {
            let row = (id, entry.backend(), retry.attempts, retry.next_ms, &retry.reason);
            self.defer.execute(row)?;
        }
        Ok(())
    }
}

/// What counts a row.
pub(super) struct Row {
    pub(super) backend: String,
    pub(super) octets: u64,
    pub(super) file: Option<String>,
    pub(super) queued_id: String,
}

/// Deletes a message, with all that counts it.
pub(super) fn erase(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let row = connection.query_row(ROW, [id], Row::of).optional()?;
    if let Some(row) = row {
        connection.execute("DELETE FROM msg WHERE id = ?1", [id])?;
        connection.execute(
            "UPDATE lane SET depth = depth - 1, octets = octets - ?2 WHERE backend = ?1",
            (row.backend, i64::try_from(row.octets).unwrap_or(i64::MAX)),
        )?;
    }
    connection.execute("DELETE FROM retry WHERE id = ?1", [id])?;
    Ok(())
}

const ROW: &str = "SELECT msg.backend, size + length(env), file, queued_id, next_ms
  FROM msg LEFT JOIN retry ON retry.id = msg.id WHERE msg.id = ?1";

impl Row {
    pub(super) fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            backend: salvage::text(row, 0)?,
            octets: salvage::integer(row, 1)?.unwrap_or(0).unsigned_abs().min(LARGEST),
            file: salvage::optional_text(row, 2)?,
            queued_id: salvage::text(row, 3)?,
        })
    }
}

/// Of the envelope, and then of the message.
pub(super) fn checksum(record: &[u8], octets: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(record);
    sum.update(octets);
    sum.finalize()
}
