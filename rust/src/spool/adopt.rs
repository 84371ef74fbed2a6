//! Taking over the folders of processes that are gone.
//!
//! A page of messages is committed here, with a mark up to which id that was done, and only then deleted
//! there: an end in between leaves them in both, and the mark says that they are not to be taken again.
//!
//! What cannot be read stays where it is, and its folder with it. The mark passes over it, so the commit
//! that does that notes the gap, with a mark of its own: should it be read one day, it is taken then.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, Row};

use super::folder::{self, Folder};
use super::gaps::Marks;
use super::salvage::{self, Piece};
use super::writer::{Adopted, InFile, Job, Retry};
use super::{Incoming, OpenError, Refusal, Shared, aside, clock, database, files, last, replay};
use crate::log::Level;

/// How often it looks for folders.
const EVERY: Duration = Duration::from_secs(5);
/// How long nobody may have had one: a process that has died has a successor, which takes up its folder by
/// itself once it has started.
const LEFT: Duration = Duration::from_secs(15);
/// How often it looks again at one where something had to stay.
const AGAIN: Duration = Duration::from_mins(1);
/// Messages of one page.
const PAGE: i64 = 200;
/// How long a page may take to be committed, on a disk that hardly answers.
const PATIENCE: Duration = Duration::from_mins(5);

const SELECTS: [&str; 2] = [
    "SELECT msg.id, received_ms, size, crc, msg.backend, queued_id, env, file, body,
      attempts, next_ms, error FROM msg LEFT JOIN retry ON retry.id = msg.id",
    // Where the attempts of one cannot be read it has none, and is still a message.
    "SELECT msg.id, received_ms, size, crc, msg.backend, queued_id, env, file, body,
      NULL, NULL, NULL FROM msg",
];

/// A message of another folder.
struct Foreign {
    received_ms: i64,
    crc: i64,
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

/// What became of the messages of a folder.
#[derive(Default)]
struct Taken {
    moved: u64,
    /// What cannot be read, in words.
    lost: Vec<String>,
    /// Whether a row names a body that is not there: what is there and unnamed may be it.
    misses: bool,
}

/// A folder that is taken over.
struct Source<'a> {
    folder: &'a Folder,
    connection: &'a Connection,
    marks: Marks,
    taken: Taken,
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
            if path == self.folder.path() || is_empty || self.is_closing() || self.was_left(&path) {
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

    /// Whether it was looked at not long ago, and something had to stay there.
    fn was_left(&self, path: &Path) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.get(path).is_some_and(|at| at.elapsed() < AGAIN)
    }

    pub(super) fn adopt_one(&self, path: &Path) -> Result<(), String> {
        let text = |error: OpenError| error.to_string();
        let Some(other) = Folder::try_take(path).map_err(text)? else { return Ok(()) };
        let file = |error: io::Error| format!("{}: {error}", path.display());
        let connection = database::open(&other.database()).map_err(text)?;
        replay::finish(&connection, &other).map_err(|error| in_database(&other, &error))?;
        let taken = self.take_messages(&other, &connection)?;
        // Whatever has gone wrong: what still has a row is not deleted with its folder.
        let is_empty = taken.lost.is_empty() && database::is_empty(&connection).unwrap_or(false);
        drop(connection);
        if taken.moved > 0 {
            let text = format_args!("{}: {} mails were taken over", path.display(), taken.moved);
            self.quiet.say(Level::Info, text);
        }
        let pairs = self.lock_pairs();
        aside::take_over(&other.failed(), &self.folder, &self.folder.failed()).map_err(file)?;
        aside::take_over(&other.damaged(), &self.folder, &self.folder.damaged()).map_err(file)?;
        drop(pairs);
        self.count_failed_files();
        if !is_empty {
            self.leave(&other, &taken.lost);
            return Ok(());
        }
        if taken.misses {
            files::keep_all(&other, &self.folder).map_err(file)?;
        }
        discard(&other).map_err(file)?;
        self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        Ok(())
    }

    /// Remembers a folder where something stays, and says so once.
    fn leave(&self, other: &Folder, lost: &[String]) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.insert(other.path().to_owned(), Instant::now()).is_some() {
            return;
        }
        drop(left);
        let what = if lost.is_empty() {
            "what was taken over cannot be deleted there".to_owned()
        } else {
            format!(
                "{} cannot be read and stay there, all other mails were taken over",
                lost.join(", ")
            )
        };
        let path = other.database();
        self.quiet.say(
            Level::Error,
            format_args!(
                "{}: damaged: {what}: keep a copy of the folder, check its disk, try `sqlite3 spool.db \
                 .recover`, and remove the folder when there is nothing more in it that is wanted",
                path.display()
            ),
        );
    }

    fn take_messages(&self, other: &Folder, connection: &Connection) -> Result<Taken, String> {
        let text = |error: rusqlite::Error| in_database(other, &error);
        let (told, misses) = last::find(connection, other, &self.quiet).map_err(text)?;
        if misses {
            let file = |error: io::Error| format!("{}: {error}", other.path().display());
            files::keep_unnamed(other, connection, &self.folder).map_err(file)?;
            last::set_aside(connection, told).map_err(text)?;
        }
        let identity = database::meta(connection, "identity").map_err(text)?;
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = Marks::read(&reader, identity).map_err(text)?;
        drop(reader);
        let mut source = Source { folder: other, connection, marks, taken: Taken::default() };
        let mut from = Some(1);
        while let Some(at) = from {
            let (settle, settled) = channel();
            let page = salvage::page(connection, &SELECTS, at, PAGE, |row| foreign(row, &settle))
                .map_err(text)?;
            drop(settle);
            let Some(last) = page.last() else { break };
            from = last.last().checked_add(1);
            if self.is_closing() {
                return Err(format!("{}: interrupted", other.database().display()));
            }
            self.take_page(&mut source, page, &settled)?;
        }
        Ok(source.taken)
    }

    fn take_page(
        &self,
        source: &mut Source<'_>,
        page: Vec<Piece<Foreign>>,
        settled: &Receiver<Result<(), Refusal>>,
    ) -> Result<(), String> {
        let (mut rows, mut sent) = (Vec::new(), 0);
        for piece in page {
            match piece {
                Piece::Row(id, message) => {
                    rows.push((id, message.file.clone()));
                    if !source.marks.has(id) {
                        self.send_foreign(source, id, message)?;
                        sent += 1;
                    }
                }
                Piece::Lost(ids, error) => {
                    source.taken.lost.push(salvage::in_words(&ids, &error));
                    source.marks.pass_over(ids);
                }
            }
        }
        for _ in 0..sent {
            match settled.recv_timeout(PATIENCE) {
                Ok(Ok(())) => source.taken.moved += 1,
                _ => {
                    return Err(format!(
                        "{}: cannot be saved here",
                        source.folder.database().display()
                    ));
                }
            }
        }
        delete(source, &rows).map_err(|error| in_database(source.folder, &error))
    }

    fn send_foreign(
        &self,
        source: &mut Source<'_>,
        id: i64,
        mut message: Foreign,
    ) -> Result<(), String> {
        let mut file = None;
        if let Some(name) = &message.file {
            let is_there = self
                .take_file(source.folder, name)
                .map_err(|error| format!("{}: {error}", source.folder.body(name).display()))?;
            if !is_there && !std::mem::replace(&mut source.taken.misses, true) {
                // At once, as far as it can be told: an end would make this be forgotten.
                let _ = files::keep_unnamed(source.folder, source.connection, &self.folder);
            }
            // Its checksum is that of the row.
            file = Some(InFile { name: name.clone(), crc: 0, size: message.size });
        }
        let (crc, retry) = (message.crc, message.retry.take());
        let step = source.marks.step(id);
        let adopted = Adopted { key: step.key, id, after: step.after, gaps: step.gaps, crc, retry };
        self.send(Job::Insert { entry: Box::new(message), file, adopted: Some(adopted) });
        Ok(())
    }

    /// A second name for a body; `false` for one that is missing, which will be found to be damaged.
    fn take_file(&self, other: &Folder, name: &str) -> io::Result<bool> {
        let place = self.folder.body(name);
        let Some(above) = place.parent() else { return Ok(false) };
        self.folder.make_shelf(above)?;
        let is_there = self.folder.link(&other.body(name), &place)?;
        self.folder.sync(above)?;
        Ok(is_there)
    }
}

fn in_database(folder: &Folder, error: &rusqlite::Error) -> String {
    format!("{}: {error}", folder.database().display())
}

fn foreign(row: &Row<'_>, settled: &Sender<Result<(), Refusal>>) -> rusqlite::Result<Foreign> {
    let retry = match salvage::count(row, 9)? {
        Some(attempts) => Some(Retry {
            attempts,
            next_ms: salvage::integer(row, 10)?.unwrap_or(0),
            reason: salvage::optional_text(row, 11)?,
        }),
        None => None,
    };
    Ok(Foreign {
        received_ms: salvage::integer(row, 1)?.unwrap_or(0),
        size: salvage::integer(row, 2)?.unwrap_or(0).unsigned_abs(),
        // None that a message has: it is set aside as a damaged one.
        crc: salvage::integer(row, 3)?.unwrap_or(-1),
        backend: salvage::text(row, 4)?,
        queued_id: salvage::text(row, 5)?,
        record: salvage::octets(row, 6)?,
        file: salvage::optional_text(row, 7)?.map(|name| file_name(&name)),
        body: salvage::octets(row, 8)?,
        retry,
        settled: settled.clone(),
    })
}

/// One that a file can have: what is damaged names none, and no other folder.
fn file_name(name: &str) -> String {
    let name = aside::safe(name);
    if name.is_empty() { "_".to_owned() } else { name }
}

/// Deletes what was taken over, with what counts it; then the bodies, of which the rows are gone.
fn delete(source: &Source<'_>, rows: &[(i64, Option<String>)]) -> rusqlite::Result<()> {
    let gone = match erase(source.connection, rows) {
        Ok(()) => rows.iter().collect(),
        // What a damaged page does not let go stays: the marks say that it was taken.
        Err(error) if salvage::is_damage(&error) => {
            let goes =
                |row: &&(i64, _)| erase(source.connection, std::slice::from_ref(*row)).is_ok();
            rows.iter().filter(goes).collect::<Vec<_>>()
        }
        Err(error) => return Err(error),
    };
    for name in gone.iter().filter_map(|(_, file)| file.as_ref()) {
        // Its row is gone: what is left of it goes with the folder.
        let _ = folder::remove(&source.folder.body(name));
    }
    Ok(())
}

/// In one transaction, or not at all.
fn erase(connection: &Connection, rows: &[(i64, Option<String>)]) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let erased = rows
        .iter()
        .try_for_each(|(id, _)| super::statements::erase(connection, *id))
        .and_then(|()| connection.execute_batch("COMMIT"));
    if erased.is_err() {
        // Where SQLite has rolled back by itself this says so.
        let _ = connection.execute_batch("ROLLBACK");
    }
    erased
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
