//! Giving messages out: which ones is the lanes' business, what they are is read from the database.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Row, Statement};

use super::files::FileJob;
use super::lanes::{PAGE, Turn};
use super::lease::{Held, Lease, Leased};
use super::{Octets, Shared};
use crate::log::Level;

/// Octets that are given out together, beyond the first message.
const LARGEST_BATCH: u64 = 16 << 20;
/// Rows that are looked at in one transaction, whosever they are.
const ROWS: usize = 10 * PAGE;

const ONE: &str = "SELECT queued_id, received_ms, size, crc, env, file, body,
  (SELECT attempts FROM retry WHERE retry.id = msg.id) FROM msg WHERE id = ?1";
const MANY: &str = "SELECT id, backend = ?2, EXISTS(SELECT 1 FROM retry WHERE retry.id = msg.id)
  FROM msg WHERE id > ?1 ORDER BY id LIMIT ?3";

/// What a read has found.
enum Found {
    Message(Leased),
    /// There is no such row any more.
    Gone,
    /// What it says is not what was saved.
    Damaged(Arc<Held>, String),
    /// It cannot be read now.
    Later(String),
}

impl Shared {
    pub(super) fn receive(
        self: &Arc<Self>,
        backend: &str,
        max: usize,
        timeout: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Option<Vec<Leased>> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match self.lanes.take(backend, max, deadline, wanted) {
                Turn::Stopped => return None,
                Turn::Nothing => return Some(Vec::new()),
                Turn::Load(cursor) => self.load(backend, cursor),
                Turn::Ids(ids) => {
                    let messages = self.read(backend, &ids);
                    if !messages.is_empty() {
                        return Some(messages);
                    }
                }
            }
        }
    }

    /// Reads the next page of ids.
    fn load(&self, backend: &str, cursor: i64) {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let page = page(&reader, backend, cursor);
        drop(reader);
        match page {
            Ok((ids, cursor, ended)) => self.lanes.loaded(backend, &ids, cursor, ended),
            Err(error) => {
                self.report_read(&error);
                // Not at once again: whoever asks would do nothing else.
                std::thread::sleep(Duration::from_millis(100));
                self.lanes.loaded(backend, &[], cursor, false);
            }
        }
    }

    fn report_read(&self, error: &dyn std::fmt::Display) {
        let path = self.folder.database();
        self.quiet.fault(
            "read",
            Level::Error,
            format_args!(
                "{}: cannot be read: {error}: what waits there is not given out; check its disk",
                path.display()
            ),
        );
    }

    /// Reads messages; what is too much for one batch goes back, in its order.
    fn read(self: &Arc<Self>, backend: &str, ids: &[(i64, u64)]) -> Vec<Leased> {
        let mut messages = Vec::with_capacity(ids.len());
        let name: Arc<str> = Arc::from(backend);
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        // One transaction: a read lock less for each message.
        let together = reader.execute_batch("BEGIN").is_ok();
        let taken = match reader.prepare(ONE) {
            Ok(mut select) => self.read_each(&mut select, &name, ids, &mut messages),
            Err(error) => {
                for &(id, lease) in ids {
                    self.put_off(&name, id, lease, &error);
                }
                ids.len()
            }
        };
        if together {
            let _ = reader.execute_batch("COMMIT");
        }
        drop(reader);
        for &(id, generation) in ids.iter().skip(taken).rev() {
            self.lanes.give_back(backend, id, generation);
        }
        messages
    }

    /// How many of the ids it has looked at.
    fn read_each(
        self: &Arc<Self>,
        select: &mut Statement<'_>,
        backend: &Arc<str>,
        ids: &[(i64, u64)],
        messages: &mut Vec<Leased>,
    ) -> usize {
        let mut octets = 0;
        for (index, &(id, generation)) in ids.iter().enumerate() {
            let found = select
                .query_row([id], |row| self.take_row(row, Arc::clone(backend), id, generation))
                .optional();
            match found.map(|found| found.unwrap_or(Found::Gone)) {
                // The sender of the first one may be alone with it: it goes, however large it is.
                Ok(Found::Message(message))
                    if !messages.is_empty() && octets + message.lease.octets() > LARGEST_BATCH =>
                {
                    message.lease.disarm();
                    return index;
                }
                Ok(Found::Message(message)) => {
                    octets += message.lease.octets();
                    messages.push(message);
                }
                Ok(Found::Gone) => self.lanes.forget(backend, id, generation),
                Ok(Found::Damaged(held, reason)) => {
                    self.files.push(FileJob::Damage { held, reason });
                }
                Ok(Found::Later(error)) => self.put_off(backend, id, generation, &error),
                Err(error) => self.put_off(backend, id, generation, &error),
            }
        }
        ids.len()
    }

    fn put_off(&self, backend: &Arc<str>, id: i64, generation: u64, error: &dyn std::fmt::Display) {
        self.report_read(error);
        // In memory alone: the next start tries at once.
        let next_ms = super::clock::now_ms().saturating_add(5_000);
        self.lanes.deferred(backend, id, Some(generation), next_ms);
    }

    fn take_row(
        self: &Arc<Self>,
        row: &Row<'_>,
        backend: Arc<str>,
        id: i64,
        generation: u64,
    ) -> rusqlite::Result<Found> {
        let record: Vec<u8> = row.get(4)?;
        let (size, crc): (i64, i64) = (row.get(2)?, row.get(3)?);
        let held = Held {
            id,
            generation,
            backend,
            queued_id: row.get(0)?,
            received_ms: row.get(1)?,
            attempts: row.get::<_, Option<u32>>(7)?.unwrap_or(0),
            octets: size.unsigned_abs() + record.len() as u64,
            file: row.get(5)?,
        };
        let mut sum = crc32fast::Hasher::new();
        sum.update(&record);
        let octets = match &held.file {
            None => {
                let body: Vec<u8> = row.get(6)?;
                sum.update(&body);
                Octets::Memory(body)
            }
            Some(name) => match open(&self.folder.body(name), &mut sum) {
                Ok(file) => Octets::File(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let reason = format!("its file {name} is missing");
                    return Ok(Found::Damaged(Arc::new(held), reason));
                }
                Err(error) => return Ok(Found::Later(format!("{name}: {error}"))),
            },
        };
        if i64::from(sum.finalize()) != crc {
            let reason = "its checksum is not that of what was saved".to_owned();
            return Ok(Found::Damaged(Arc::new(held), reason));
        }
        let (queued_id, attempts) = (held.queued_id.clone(), held.attempts);
        let lease = Lease::new(self, held);
        Ok(Found::Message(Leased { id, queued_id, attempts, record, octets, lease }))
    }
}

/// Ids of a backend behind `cursor`; up to where was looked; whether that is the end.
fn page(
    reader: &Connection,
    backend: &str,
    cursor: i64,
) -> rusqlite::Result<(Vec<i64>, i64, bool)> {
    let mut select = reader.prepare(MANY)?;
    let limit = i64::try_from(ROWS).unwrap_or(i64::MAX);
    let mut rows = select.query((cursor, backend, limit))?;
    let (mut ids, mut cursor, mut seen) = (Vec::new(), cursor, 0);
    while ids.len() < PAGE
        && let Some(row) = rows.next()?
    {
        cursor = row.get(0)?;
        seen += 1;
        let (ours, deferred): (bool, bool) = (row.get(1)?, row.get(2)?);
        if ours && !deferred {
            ids.push(cursor);
        }
    }
    let ended = ids.len() < PAGE && seen < ROWS;
    Ok((ids, cursor, ended))
}

/// Opens a body, and reads it once for its checksum.
fn open(path: &std::path::Path, sum: &mut crc32fast::Hasher) -> io::Result<File> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            file.rewind()?;
            return Ok(file);
        }
        sum.update(chunk.get(..count).unwrap_or_default());
    }
}
