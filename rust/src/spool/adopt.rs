//! Taking over the folders of processes that are gone.
//!
//! A page of messages is committed here, with a mark up to which id that was done, and only then deleted
//! there: an end in between leaves them in both, and the mark says that they are not to be taken again.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, Row};

use super::folder::{self, Folder};
use super::writer::{Adopted, InFile, Job, Retry};
use super::{Incoming, OpenError, Refusal, Shared, aside, clock, database, files, last};
use crate::log::Level;

/// How often it looks for folders.
const EVERY: Duration = Duration::from_secs(5);
/// How long nobody may have had one: a process that has died has a successor, which takes up its folder by
/// itself once it has started.
const LEFT: Duration = Duration::from_secs(15);
/// Messages of one page.
const PAGE: i64 = 200;
/// How long a page may take to be committed, on a disk that hardly answers.
const PATIENCE: Duration = Duration::from_mins(5);

const SELECT: &str =
    "SELECT msg.id, received_ms, size, crc, msg.backend, queued_id, env, file, body,
  attempts, next_ms, error FROM msg LEFT JOIN retry ON retry.id = msg.id
  WHERE msg.id > ?1 ORDER BY msg.id LIMIT ?2";

/// A message of another folder.
struct Foreign {
    id: i64,
    received_ms: i64,
    crc: u32,
    size: u64,
    backend: String,
    queued_id: String,
    record: Vec<u8>,
    file: Option<String>,
    body: Vec<u8>,
    retry: Option<Retry>,
    settled: Sender<Result<(), Refusal>>,
}

impl Incoming for Foreign {
    fn backend(&self) -> &str {
        &self.backend
    }

    fn queued_id(&self) -> &str {
        &self.queued_id
    }

    fn received_at(&self) -> SystemTime {
        clock::time(self.received_ms)
    }

    fn record(&self) -> &[u8] {
        &self.record
    }

    fn octets(&self) -> &[u8] {
        &self.body
    }

    fn settle(self: Box<Self>, outcome: Result<(), Refusal>) {
        let _ = self.settled.send(outcome);
    }
}

/// Folders that nobody had when it was looked, with the first of those times in a row.
#[derive(Default)]
pub(super) struct Free(HashMap<PathBuf, Instant>);

impl Free {
    /// Looks at one; whether it is left, and not only waits for the successor of a process.
    fn is_left(&mut self, path: &Path, now: Instant) -> bool {
        if !folder::is_free(path) {
            self.0.remove(path);
            return false;
        }
        let since = *self.0.entry(path.to_owned()).or_insert(now);
        now.saturating_duration_since(since) >= LEFT
    }
}

/// Until it is closed.
pub(super) fn run(shared: &Shared) {
    let mut free = Free::default();
    loop {
        shared.adopt_left(&mut free, Instant::now());
        // Nothing is ever put in: it waits, or it is closed.
        if shared.adopting.receive(1, EVERY).is_none() {
            return;
        }
    }
}

impl Shared {
    /// Takes over every folder that nobody has.
    pub(super) fn adopt(&self) {
        self.adopt_where(|_| true);
    }

    /// The same with every folder that nobody has had for a while.
    pub(super) fn adopt_left(&self, free: &mut Free, now: Instant) {
        // What is gone is to be forgotten: another process may make one of that name.
        free.0.retain(|path, _| path.exists());
        self.adopt_where(|path| free.is_left(path, now));
    }

    /// Where it fails, it is tried again with the next round.
    fn adopt_where(&self, mut is_meant: impl FnMut(&Path) -> bool) {
        let Some(root) = self.folder.path().parent() else { return };
        for path in folder::numbered(root).unwrap_or_default() {
            // One without a database has nothing, or its process has only begun.
            let is_empty = !path.join("spool.db").exists();
            if path == self.folder.path() || is_empty || self.is_closing() {
                continue;
            }
            if !is_meant(&path) {
                continue;
            }
            if let Err(text) = self.adopt_one(&path)
                && !self.is_closing()
            {
                let text = format_args!("{text}: its mails are not taken over yet");
                self.quiet.fault("adopt", Level::Error, text);
            }
        }
    }

    fn adopt_one(&self, path: &Path) -> Result<(), String> {
        let text = |error: OpenError| error.to_string();
        let Some(other) = Folder::try_take(path).map_err(text)? else { return Ok(()) };
        let file = |error: io::Error| format!("{}: {error}", path.display());
        let connection = database::open(&other.database()).map_err(text)?;
        let moved = self.take_messages(&other, &connection)?;
        drop(connection);
        if moved > 0 {
            let text = format_args!("{}: {moved} mails were taken over", path.display());
            self.quiet.say(Level::Info, text);
        }
        aside::take_over(&other.failed(), &self.folder.failed()).map_err(file)?;
        aside::take_over(&other.damaged(), &self.folder.damaged()).map_err(file)?;
        self.count_failed_files();
        discard(&other).map_err(file)
    }

    fn take_messages(&self, other: &Folder, connection: &Connection) -> Result<u64, String> {
        let path = other.database();
        let text = |error: rusqlite::Error| format!("{}: {error}", path.display());
        let (_, misses) = last::find(connection, other, &self.quiet).map_err(text)?;
        if misses {
            let file = |error: io::Error| format!("{}: {error}", other.path().display());
            files::keep_unnamed(other, connection, &self.folder).map_err(file)?;
        }
        let key = format!("adopted {}", database::meta(connection, "identity").map_err(text)?);
        let reader = self.reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mark = database::meta(&reader, &key).map_err(text)?;
        drop(reader);
        let (mut cursor, mut after, mut moved) = (0, mark, 0);
        loop {
            let (settle, settled) = channel();
            let page = page(connection, cursor, &settle).map_err(text)?;
            drop(settle);
            let ids: Vec<(i64, Option<String>)> =
                page.iter().map(|one| (one.id, one.file.clone())).collect();
            let Some((latest, _)) = ids.last() else { return Ok(moved) };
            cursor = *latest;
            if self.is_closing() {
                return Err(format!("{}: interrupted", path.display()));
            }
            let mut sent = 0;
            for message in page.into_iter().filter(|message| message.id > mark) {
                let id = message.id;
                self.send_foreign(other, message, &key, after)?;
                after = id;
                sent += 1;
            }
            for _ in 0..sent {
                match settled.recv_timeout(PATIENCE) {
                    Ok(Ok(())) => moved += 1,
                    _ => return Err(format!("{}: cannot be saved here", path.display())),
                }
            }
            delete(other, connection, &ids).map_err(text)?;
        }
    }

    fn send_foreign(
        &self,
        other: &Folder,
        mut message: Foreign,
        key: &str,
        after: i64,
    ) -> Result<(), String> {
        let mut file = None;
        if let Some(name) = &message.file {
            self.take_file(other, name)
                .map_err(|error| format!("{}: {error}", other.body(name).display()))?;
            file = Some(InFile { name: name.clone(), crc: message.crc, size: message.size });
        }
        let retry = message.retry.take();
        let (key, id, crc) = (key.to_owned(), message.id, message.crc);
        let adopted = Adopted { key, id, after, crc, retry };
        self.send(Job::Insert { entry: Box::new(message), file, adopted: Some(adopted) });
        Ok(())
    }

    /// A second name for a body; one that is missing will be found to be damaged.
    fn take_file(&self, other: &Folder, name: &str) -> io::Result<()> {
        let place = self.folder.body(name);
        if let Some(shelf) = place.parent() {
            folder::make(shelf)?;
            match fs::hard_link(other.body(name), &place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => done?,
            }
            self.folder.sync(shelf)?;
        }
        Ok(())
    }
}

fn page(
    connection: &Connection,
    cursor: i64,
    settled: &Sender<Result<(), Refusal>>,
) -> rusqlite::Result<Vec<Foreign>> {
    let mut select = connection.prepare(SELECT)?;
    select.query_map((cursor, PAGE), |row| foreign(row, settled))?.collect()
}

fn foreign(row: &Row<'_>, settled: &Sender<Result<(), Refusal>>) -> rusqlite::Result<Foreign> {
    let size: i64 = row.get(2)?;
    let attempts: Option<u32> = row.get(9)?;
    let retry = match attempts {
        Some(attempts) => {
            Some(Retry { attempts, next_ms: row.get(10)?, reason: row.get::<_, Option<_>>(11)? })
        }
        None => None,
    };
    Ok(Foreign {
        id: row.get(0)?,
        received_ms: row.get(1)?,
        size: size.unsigned_abs(),
        crc: row.get(3)?,
        backend: row.get(4)?,
        queued_id: row.get(5)?,
        record: row.get(6)?,
        file: row.get(7)?,
        body: row.get::<_, Option<_>>(8)?.unwrap_or_default(),
        retry,
        settled: settled.clone(),
    })
}

fn delete(
    other: &Folder,
    connection: &Connection,
    ids: &[(i64, Option<String>)],
) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for (id, _) in ids {
        super::statements::erase(connection, *id)?;
    }
    connection.execute_batch("COMMIT")?;
    for name in ids.iter().filter_map(|(_, file)| file.as_ref()) {
        // Its row is gone: what is left of it goes with the folder.
        let _ = folder::remove(&other.body(name));
    }
    Ok(())
}

/// Removes a folder that has nothing any more; the lock last, since it says that we are here.
fn discard(other: &Folder) -> io::Result<()> {
    // First what would say that the rest is missing.
    for name in ["spool.last", "spool.db", "spool.db-wal", "spool.db-shm"] {
        folder::remove(&other.path().join(name))?;
    }
    fs::remove_dir_all(other.path().join("bodies"))?;
    for name in ["failed", "damaged"] {
        fs::remove_dir_all(other.path().join(name))?;
    }
    folder::remove(&other.path().join("spool.lock"))?;
    fs::remove_dir(other.path())
}
