//! What a person asks of a spool: all in pages, so that nothing waits long for it.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Row};

use super::aside::{self, Note};
use super::salvage::{self, Piece};
use super::writer::{Edit, Job};
use super::{Octets, Shared, Spool, clock};
use crate::log::Level;

/// Rows that are looked at in one transaction.
const PAGE: i64 = 10_000;
/// The same where only some are wanted, which are mostly the next ones.
const SEARCHED: i64 = 1_000;
/// Messages that are changed in one commit: whoever waits for the next one waits for them.
const EDITS: usize = 500;
/// How long a change may take, on a disk that hardly answers.
pub(super) const PATIENCE: Duration = Duration::from_mins(5);

const LIST: [&str; 2] = [
    "SELECT msg.id, queued_id, msg.backend, received_ms, size, env, attempts, next_ms, error
      FROM msg LEFT JOIN retry ON retry.id = msg.id",
    // Where its attempts cannot be read.
    "SELECT msg.id, queued_id, msg.backend, received_ms, size, env, NULL, NULL, NULL FROM msg",
];

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for its turn.
    Ready,
    /// It waits for its time.
    Deferred,
    /// Somebody works on it.
    InWork,
    /// It was refused for good.
    Failed,
    /// It is not what was saved.
    Damaged,
}

impl State {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Deferred => "deferred",
            Self::InWork => "in work",
            Self::Failed => "failed",
            Self::Damaged => "damaged",
        }
    }
}

/// A message as a list shows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What a list goes on behind: of a failed or damaged one its place in that list.
    pub id: i64,
    /// See [`Incoming::queued_id`].
    pub queued_id: String,
    /// Who saves it.
    pub backend: String,
    /// When it came.
    pub received_at: SystemTime,
    /// Octets of the message.
    pub size: u64,
    /// Attempts that failed.
    pub attempts: u32,
    /// When it is tried again.
    pub next_at: Option<SystemTime>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Where it is.
    pub state: State,
    /// Its envelope.
    pub record: Vec<u8>,
}

impl Spool {
    /// At most `max` messages behind `after` in the order of their ids; or of those that were set aside. What
    /// cannot be read is in the list as damaged.
    pub fn list(&self, after: i64, max: usize, failed: bool) -> io::Result<Vec<Entry>> {
        if failed {
            return self.shared.list_aside(after, max);
        }
        let Some(from) = after.checked_add(1) else { return Ok(Vec::new()) };
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let reader = self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let page = salvage::page(&reader, &LIST, from, max, |row| self.shared.entry(row))
            .map_err(|error| self.shared.cannot_read(&error))?;
        Ok(page.into_iter().map(entry_of).collect())
    }

    /// A message: waiting, failed or damaged.
    pub fn show(&self, queued_id: &str) -> io::Result<Option<(Entry, Octets)>> {
        let wanted = HashSet::from([queued_id.to_owned()]);
        let mut id = None;
        self.shared.each_id(Some(&wanted), |found| {
            id = found.first().copied();
            Ok(id.is_none())
        })?;
        let Some(id) = id else { return self.shared.show_aside(queued_id) };
        self.shared.show(id)
    }

    /// Has deferred messages tried now: those, or all. How many.
    pub fn retry(&self, queued_ids: Option<&[String]>) -> io::Result<u64> {
        self.shared.edit(queued_ids, Edit::Retry)
    }

    /// Deletes messages that nobody works on, or those that were set aside: those, or all. How many.
    pub fn drop_messages(&self, queued_ids: Option<&[String]>, failed: bool) -> io::Result<u64> {
        if !failed {
            return self.shared.edit(queued_ids, Edit::Drop);
        }
        let _asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for folder in [self.shared.folder.failed(), self.shared.folder.damaged()] {
            for (path, note) in wanted_notes(&folder, queued_ids)? {
                self.shared.remove_aside(&path)?;
                let text = format_args!("{}: dropped by a command", note.queued_id);
                self.shared.quiet.say(Level::Info, text);
                count += 1;
            }
        }
        self.shared.count_failed_files();
        Ok(count)
    }
}

impl Shared {
    pub(super) fn cannot_read(&self, error: &rusqlite::Error) -> io::Error {
        let path = self.folder.database();
        io::Error::other(format!("{}: {error}: check its disk", path.display()))
    }

    fn entry(&self, row: &Row<'_>) -> rusqlite::Result<Entry> {
        let (id, backend) = (row.get(0)?, salvage::text(row, 2)?);
        let next_ms = salvage::integer(row, 7)?;
        let state = if self.lanes.leased(&backend, id) {
            State::InWork
        } else if next_ms.is_some_and(|at| at > clock::now_ms()) {
            State::Deferred
        } else {
            State::Ready
        };
        Ok(Entry {
            id,
            queued_id: salvage::text(row, 1)?,
            backend,
            received_at: clock::time(salvage::integer(row, 3)?.unwrap_or(0)),
            size: salvage::integer(row, 4)?.unwrap_or(0).unsigned_abs(),
            attempts: salvage::count(row, 6)?.unwrap_or(0),
            next_at: next_ms.map(clock::time),
            error: salvage::optional_text(row, 8)?,
            state,
            record: salvage::octets(row, 5)?,
        })
    }

    fn show(&self, id: i64) -> io::Result<Option<(Entry, Octets)>> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = reader
            .query_row(&format!("{} WHERE msg.id = ?1", LIST[0]), [id], |row| self.entry(row))
            .optional()
            .map_err(|error| self.cannot_read(&error))?;
        let content = reader
            .query_row("SELECT file, body FROM msg WHERE id = ?1", [id], |row| {
                Ok((salvage::optional_text(row, 0)?, salvage::octets(row, 1)?))
            })
            .optional()
            .map_err(|error| self.cannot_read(&error))?;
        drop(reader);
        let (Some(entry), Some((file, body))) = (entry, content) else { return Ok(None) };
        let octets = match file {
            Some(name) => Octets::File(open(&self.folder.body(&name))?),
            None => Octets::Memory(body),
        };
        Ok(Some((entry, octets)))
    }

    /// Ids of messages, in pages, as long as `take` wants more.
    ///
    /// Who names messages names those behind the ones named before, as all of a list, some at a time: the
    /// search begins where the last one ended, and ends with the last that is wanted.
    fn each_id(
        &self,
        wanted: Option<&HashSet<String>>,
        mut take: impl FnMut(&[i64]) -> io::Result<bool>,
    ) -> io::Result<()> {
        let Some(wanted) = wanted else {
            return self.search(0, i64::MAX, PAGE, |_| true, take);
        };
        let (begin, mut left) = (self.searched.load(Ordering::Relaxed), wanted.len());
        for (after, end) in [(begin, i64::MAX), (0, begin)] {
            let mut goes_on = left > 0;
            if !goes_on {
                break;
            }
            self.search(
                after,
                end,
                SEARCHED,
                |name| wanted.contains(name),
                |ids| {
                    left = left.saturating_sub(ids.len());
                    self.searched.store(ids.last().copied().unwrap_or(0), Ordering::Relaxed);
                    goes_on = take(ids)? && left > 0;
                    Ok(goes_on)
                },
            )?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Ids behind `after`, up to `end`, of which the names are wanted.
    fn search(
        &self,
        after: i64,
        end: i64,
        size: i64,
        is_wanted: impl Fn(&String) -> bool,
        mut take: impl FnMut(&[i64]) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut cursor = after;
        while cursor < end {
            let page = self.page(cursor, size).map_err(|error| self.cannot_read(&error))?;
            let Some(last) = page.last() else { break };
            cursor = last.last();
            let found = page.iter().filter_map(|piece| match piece {
                Piece::Row(id, name) => Some(*id).filter(|id| *id <= end && is_wanted(name)),
                // Nobody knows what it is called, and nothing can be done with it.
                Piece::Lost(..) => None,
            });
            let ids: Vec<i64> = found.collect();
            if !ids.is_empty() && !take(&ids)? {
                break;
            }
        }
        Ok(())
    }

    fn page(&self, cursor: i64, size: i64) -> rusqlite::Result<Vec<Piece<String>>> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let select = ["SELECT msg.id, queued_id FROM msg"];
        let from = cursor.saturating_add(1);
        salvage::page(&reader, &select, from, size, |row| salvage::text(row, 1))
    }

    fn edit(&self, queued_ids: Option<&[String]>, edit: Edit) -> io::Result<u64> {
        let wanted: Option<HashSet<String>> = queued_ids.map(|ids| ids.iter().cloned().collect());
        let mut count = 0;
        self.each_id(wanted.as_ref(), |ids| {
            for some in ids.chunks(EDITS) {
                let (done, answer) = channel();
                self.send(Job::Edit { ids: some.to_vec(), edit, done });
                count += answer.recv_timeout(PATIENCE).map_err(|error| {
                    let text = match error {
                        RecvTimeoutError::Timeout => "it takes too long: see the log",
                        RecvTimeoutError::Disconnected => "it could not be written, see the log",
                    };
                    let path = self.folder.path().display();
                    io::Error::other(format!("{path}: cannot be changed: {text}"))
                })?;
            }
            Ok(true)
        })?;
        Ok(count)
    }

    fn list_aside(&self, after: i64, max: usize) -> io::Result<Vec<Entry>> {
        let skipped = usize::try_from(after).unwrap_or(0);
        let failed = aside::names(&self.folder.failed())?.into_iter();
        let damaged = aside::names(&self.folder.damaged())?.into_iter();
        let all = failed.map(|path| (path, State::Failed));
        let all = all.chain(damaged.map(|path| (path, State::Damaged)));
        let found = all.enumerate().skip(skipped).filter_map(|(index, (path, state))| {
            let place = i64::try_from(index + 1).unwrap_or(i64::MAX);
            Some(entry_aside(place, Note::find(&path)?, state))
        });
        Ok(found.take(max).collect())
    }

    fn show_aside(&self, queued_id: &str) -> io::Result<Option<(Entry, Octets)>> {
        let wanted = [queued_id.to_owned()];
        let folders =
            [(self.folder.failed(), State::Failed), (self.folder.damaged(), State::Damaged)];
        for (folder, state) in folders {
            if let Some((path, note)) = wanted_notes(&folder, Some(&wanted))?.into_iter().next() {
                let octets = match open(&path.with_extension("eml")) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        Octets::Memory(Vec::new())
                    }
                    file => Octets::File(file?),
                };
                return Ok(Some((entry_aside(0, note, state), octets)));
            }
        }
        Ok(None)
    }

    pub(super) fn count_failed_files(&self) {
        let count = aside::names(&self.folder.failed()).map_or(0, |names| names.len() as u64);
        self.figures.failed_files.take();
        self.figures.failed_files.add_many(count);
    }
}

/// As a list shows it. Of what cannot be read it has the place, and why.
fn entry_of(piece: Piece<Entry>) -> Entry {
    let (ids, error) = match piece {
        Piece::Row(_, entry) => return entry,
        Piece::Lost(ids, error) => (ids, error),
    };
    Entry {
        id: *ids.end(),
        queued_id: format!("row-{}", ids.start()),
        backend: String::new(),
        received_at: SystemTime::now(),
        size: 0,
        attempts: 0,
        next_at: None,
        error: Some(format!("{} cannot be read: check the disk", salvage::in_words(&ids, &error))),
        state: State::Damaged,
        record: Vec::new(),
    }
}

fn entry_aside(place: i64, note: Note, state: State) -> Entry {
    Entry {
        id: place,
        record: note.record(),
        queued_id: note.queued_id,
        backend: note.backend,
        received_at: clock::time(note.received_ms),
        size: note.size,
        attempts: note.attempts,
        next_at: None,
        state: if note.is_damaged { State::Damaged } else { state },
        error: Some(note.reason),
    }
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    File::open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

pub(super) fn wanted_notes(
    folder: &Path,
    queued_ids: Option<&[String]>,
) -> io::Result<Vec<(PathBuf, Note)>> {
    let mut found = Vec::new();
    let named: Option<HashSet<String>> =
        queued_ids.map(|ids| ids.iter().map(|id| aside::safe(id)).collect());
    for path in aside::names(folder)? {
        // Not each is read: there may be many, of which only some are asked about.
        if named.as_ref().is_some_and(|names| !aside::is_of(&path, names)) {
            continue;
        }
        let Some(note) = Note::find(&path) else { continue };
        if queued_ids.is_none_or(|ids| ids.contains(&note.queued_id)) {
            found.push((path, note));
        }
    }
    Ok(found)
}
