//! Giving messages out: which ones is the lanes' business, what they are is read from the database.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension, Row, Statement};

use super::error::advice_for_database;
use super::files::FileJob;
use super::lanes::{Fresh, Turn};
use super::lease::{Held, Lease, Leased};
use super::{Octets, Shared, salvage};
use crate::log::Level;

/// Octets that are given out together, beyond the first message.
const LARGEST_BATCH: u64 = 16 << 20;
/// No message is larger, whatever its row says: sums of sizes cannot overflow.
pub(super) const LARGEST: u64 = 1 << 40;

const ONE: &str = "SELECT queued_id, received_ms, size, crc, env, file, body,
  (SELECT attempts FROM retry WHERE retry.id = msg.id) FROM msg WHERE id = ?1";

/// A row, before its file is opened.
struct Stored {
    held: Held,
    /// It is what was saved: it was not read.
    is_kept: bool,
    record: Vec<u8>,
    body: Option<Vec<u8>>,
    size: i64,
    crc: i64,
    /// What nobody has saved like that.
    odd: Option<&'static str>,
}

/// Why a message is not given out.
enum Fault {
    /// What it says is not what was saved.
    Damaged(String),
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

    pub(super) fn report_read(&self, error: &rusqlite::Error) {
        let advice = advice_for_database(error);
        self.report_unread(&self.folder.database(), &format_args!("{error}"), advice);
    }

    fn report_unread(&self, path: &Path, error: &dyn std::fmt::Display, advice: &str) {
        self.quiet.fault(
            "read",
            Level::Error,
            format_args!(
                "{}: cannot be read: {error}: what waits there is not given out; {advice}",
                path.display()
            ),
        );
    }

    /// Reads messages; what is too much for one batch goes back, in its order.
    fn read(self: &Arc<Self>, backend: &str, ids: &[(i64, u64)]) -> Vec<Leased> {
        let (rows, looked) = self.rows(&Arc::from(backend), ids);
        for &(id, generation) in ids.iter().skip(looked).rev() {
            self.lanes.give_back(backend, id, generation);
        }
        // Only now, when nobody waits for the connection, and the log of the database may begin anew.
        rows.into_iter().filter_map(|row| self.open_row(row)).collect()
    }

    /// The rows of one batch, and how many of the ids were looked at. What was committed just now is here.
    fn rows(&self, backend: &Arc<str>, ids: &[(i64, u64)]) -> (Vec<Stored>, usize) {
        let mut rows = Vec::with_capacity(ids.len());
        let mut kept = self.lanes.kept(backend, ids);
        if kept.len() == ids.len() {
            let fresh = ids.iter().filter_map(|of @ (id, _)| Some((of, kept.remove(id)?)));
            rows.extend(fresh.map(|(of, fresh)| Stored::kept(fresh, backend, *of)));
            return (rows, ids.len());
        }
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        // One transaction: a read lock less for each message.
        let together = reader.execute_batch("BEGIN").is_ok();
        let mut select = reader.prepare(ONE);
        let looked = self.rows_of(&mut select, backend, ids, kept, &mut rows);
        drop(select);
        // Where one of them is damaged SQLite may refuse to commit, even what was only read.
        if together && reader.execute_batch("COMMIT").is_err() {
            let _ = reader.execute_batch("ROLLBACK");
        }
        (rows, looked)
    }

    fn rows_of(
        &self,
        select: &mut rusqlite::Result<Statement<'_>>,
        backend: &Arc<str>,
        ids: &[(i64, u64)],
        mut kept: HashMap<i64, Fresh>,
        rows: &mut Vec<Stored>,
    ) -> usize {
        let mut octets = 0;
        for (index, &(id, generation)) in ids.iter().enumerate() {
            let found = match (kept.remove(&id), &mut *select) {
                (Some(fresh), _) => Ok(Some(Stored::kept(fresh, backend, (id, generation)))),
                (None, Ok(select)) => select
                    .query_row([id], |row| Stored::of(row, backend, id, generation))
                    .optional(),
                (None, Err(error)) => {
                    self.put_off_row(backend, id, generation, error);
                    continue;
                }
            };
            match found {
                // The sender of the first one may be alone with it: it goes, however large it is.
                Ok(Some(row)) if !rows.is_empty() && octets + row.held.octets > LARGEST_BATCH => {
                    return index;
                }
                Ok(Some(row)) => {
                    octets += row.held.octets;
                    rows.push(row);
                }
                Ok(None) => self.lanes.forget(backend, id, generation),
                Err(error) => self.put_off_row(backend, id, generation, &error),
            }
        }
        ids.len()
    }

    fn put_off_row(&self, backend: &str, id: i64, generation: u64, error: &rusqlite::Error) {
        self.report_read(error);
        self.put_off(backend, id, generation);
    }

    fn put_off(&self, backend: &str, id: i64, generation: u64) {
        // In memory alone: the next start tries at once.
        let next_ms = super::clock::now_ms().saturating_add(5_000);
        self.lanes.deferred(backend, id, Some(generation), next_ms);
    }

    /// Opens a message and looks whether it is what was saved.
    fn open_row(self: &Arc<Self>, mut row: Stored) -> Option<Leased> {
        let opened = self.check(&mut row);
        let Stored { held, record, .. } = row;
        match opened {
            Ok(octets) => {
                let (id, queued_id, attempts) = (held.id, held.queued_id.clone(), held.attempts);
                let lease = Lease::new(self, held);
                Some(Leased { id, queued_id, attempts, record, octets, lease })
            }
            Err(Fault::Damaged(reason)) => {
                self.files.push(FileJob::Damage { held: Arc::new(held), reason });
                None
            }
            Err(Fault::Later(error)) => {
                let path = held.file.as_ref().map(|name| self.folder.body(name));
                self.report_unread(&path.unwrap_or_default(), &error, "check its disk");
                self.put_off(&held.backend, held.id, held.generation);
                None
            }
        }
    }

    fn check(&self, row: &mut Stored) -> Result<Octets, Fault> {
        if row.is_kept {
            return Ok(Octets::Memory(row.body.take().unwrap_or_default()));
        }
        let damaged = |reason: &str| Fault::Damaged(reason.to_owned());
        if let Some(odd) = row.odd {
            return Err(damaged(odd));
        }
        let mut sum = crc32fast::Hasher::new();
        sum.update(&row.record);
        let (octets, size) = match &row.held.file {
            None => {
                let body = row.body.take().unwrap_or_default();
                sum.update(&body);
                let size = body.len() as u64;
                (Octets::Memory(body), size)
            }
            Some(name) => match open(&self.folder.body(name), &mut sum) {
                Ok((file, size)) => (Octets::File(file), size),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Fault::Damaged(format!("its file {name} is missing")));
                }
                Err(error) => return Err(Fault::Later(error.to_string())),
            },
        };
        // What is there is what was counted when it was saved.
        row.held.octets = size.saturating_add(row.record.len() as u64);
        if i64::from(sum.finalize()) != row.crc {
            return Err(damaged("its checksum is not that of what was saved"));
        }
        if u64::try_from(row.size) != Ok(size) {
            return Err(damaged("its size is not that of what was saved"));
        }
        Ok(octets)
    }
}

impl Stored {
    /// Of a message that is here.
    fn kept(fresh: Fresh, backend: &Arc<str>, (id, generation): (i64, u64)) -> Self {
        let octets = fresh.octets();
        let Fresh { queued_id, received_ms, record, body } = fresh;
        let backend = Arc::clone(backend);
        let (attempts, file) = (0, None);
        let held = Held { id, generation, backend, queued_id, received_ms, attempts, octets, file };
        Self { held, is_kept: true, record, body: Some(body), size: 0, crc: 0, odd: None }
    }

    /// Whatever is in it: a row that is not what was saved stops no others.
    fn of(row: &Row<'_>, backend: &Arc<str>, id: i64, generation: u64) -> rusqlite::Result<Self> {
        let number = |at: usize| row.get_ref(at).map(|value| value.as_i64().ok());
        let octets =
            |at: usize| row.get_ref(at).map(|value| value.as_bytes().ok().map(<[u8]>::to_vec));
        let mut odd = None;
        let queued_id = salvage::text(row, 0)?;
        if queued_id.is_empty() || queued_id.contains(char::REPLACEMENT_CHARACTER) {
            odd = Some("its id is not text");
        }
        let mut file = salvage::optional_text(row, 5)?;
        if file.as_ref().is_some_and(|name| !is_name(name)) {
            odd = Some("the name of its file is none");
            file = None;
        }
        let (record, body) = (octets(4)?.unwrap_or_default(), octets(6)?);
        let size = number(2)?.unwrap_or(-1);
        // Until it is opened only its row says how large a file is.
        let counted = match &body {
            Some(body) => body.len() as u64,
            None => u64::try_from(size).ok().filter(|size| *size <= LARGEST).unwrap_or(0),
        };
        let attempts = number(7)?.unwrap_or(0).clamp(0, i64::from(u32::MAX >> 1));
        let held = Held {
            id,
            generation,
            backend: Arc::clone(backend),
            queued_id,
            received_ms: number(1)?.unwrap_or(0),
            attempts: u32::try_from(attempts).unwrap_or(0),
            octets: counted + record.len() as u64,
            file,
        };
        let (is_kept, crc) = (false, number(3)?.unwrap_or(-1));
        Ok(Self { held, is_kept, record, body, size, crc, odd })
    }
}

/// Whether a body can be called so: its name is made of letters and digits.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric())
}

/// Opens a body, and reads it once, for its checksum and its size.
fn open(path: &Path, sum: &mut crc32fast::Hasher) -> io::Result<(File, u64)> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            file.rewind()?;
            return Ok((file, size));
        }
        size += count as u64;
        sum.update(chunk.get(..count).unwrap_or_default());
    }
}
