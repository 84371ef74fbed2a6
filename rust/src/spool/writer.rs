//! The thread that commits: everything that waits goes into one transaction, and while that is synced the
//! next one gathers. No timer holds anything back.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::batch::Batch;
use super::error::OpenError;
use super::files::FileJob;
use super::lease::Held;
use super::statements::Statements;
use super::suspects::Suspects;
use super::{Incoming, Refusal, Shared, clock, database, last};
use crate::log::Level;

/// Messages of one commit.
const LARGEST_BATCH: usize = 256;
/// Octets of one commit.
const LARGEST_OCTETS: usize = 4 << 20;
/// The file of an empty database may be as large.
const LARGEST_EMPTY: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };
/// How often it looks at what nobody tells it.
const TICK: Duration = Duration::from_secs(1);

/// What a commit is asked for.
pub(super) enum Job {
    /// A message, whose octets may be in a file, and which may have been another folder's.
    Insert { entry: Box<dyn Incoming>, file: Option<InFile>, adopted: Option<Adopted> },
    /// A message whose row goes.
    Delete { held: Arc<Held>, why: Why },
    /// A message that is tried again later.
    Defer { held: Arc<Held>, attempts: u32, next_ms: i64, reason: String },
    /// What a command asks for; it is told how many there were.
    Edit { ids: Vec<i64>, edit: Edit, done: Sender<u64> },
    /// Marks of messages (see [`Incoming::mark`]) that nobody will try to save again.
    Forget { marks: Vec<String> },
}

/// A body in a file.
pub(super) struct InFile {
    pub(super) name: String,
    /// Of the envelope and the message.
    pub(super) crc: u32,
    pub(super) size: u64,
}

/// What a message has of the folder that it was in before.
pub(super) struct Adopted {
    /// Names that folder in `meta`, or a gap of it, where its highest id is kept.
    pub(super) key: String,
    pub(super) id: i64,
    /// The id before it: where that was not taken over, this one is not either. Else the mark would pass
    /// over it, and it would be deleted there.
    pub(super) after: i64,
    /// Gaps that the mark passes over with this one.
    pub(super) gaps: Vec<(String, i64)>,
    /// As the row has it, whatever that is.
    pub(super) crc: i64,
    pub(super) retry: Option<Retry>,
}

/// A row of `retry`.
pub(super) struct Retry {
    pub(super) attempts: u32,
    pub(super) next_ms: i64,
    pub(super) reason: Option<String>,
}

/// What a command does to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// Deferred ones are due now.
    Retry,
    /// They are deleted.
    Drop,
}

/// Why a row goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Done,
    Failed,
    Damaged,
}

impl Job {
    /// Nothing comes of it.
    pub(super) fn refuse(self, refusal: Refusal) {
        if let Self::Insert { entry, .. } = self {
            entry.settle(Err(refusal));
        }
    }

    fn octets(&self) -> usize {
        match self {
            Self::Insert { entry, file: None, .. } => entry.octets().len() + entry.record().len(),
            Self::Insert { entry, file: Some(_), .. } => entry.record().len(),
            Self::Delete { .. } | Self::Defer { .. } | Self::Edit { .. } | Self::Forget { .. } => 0,
        }
    }
}

/// The thread's own.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) waiting: VecDeque<Job>,
    /// The next id.
    pub(super) next: i64,
    /// Ids up to here are ours.
    pub(super) reserved: i64,
    /// The last one committed.
    pub(super) last: i64,
    /// Whether others before that are missing.
    pub(super) misses: bool,
    /// Of commits that failed.
    suspects: Suspects,
    /// Time and id of the first message that was taken over and may still be there.
    pub(super) adopted: (i64, i64),
    /// When it broke last.
    broke: Option<Instant>,
    /// The id that `spool.last` has.
    told: i64,
    ticked: Option<Instant>,
}

/// How serving a connection ended.
enum End {
    Closed,
    Broken(rusqlite::Error),
}

impl Writer {
    /// Reads what there is, and reserves the first ids.
    pub(super) fn begin(shared: Arc<Shared>, connection: &Connection) -> rusqlite::Result<Self> {
        database::prepare_adopted(connection)?;
        let (last, misses) = last::find(connection, &shared.folder, &shared.quiet)?;
        let first = database::meta(connection, "reserved")?.max(last) + 1;
        let reserved = first + database::BLOCK - 1;
        database::set_meta(connection, "reserved", reserved)?;
        shared.recount(connection)?;
        for deferred in database::deferred(connection)? {
            shared.lanes.deferred(&deferred.backend, deferred.id, None, deferred.next_ms);
        }
        Ok(Self {
            shared,
            waiting: VecDeque::new(),
            next: first,
            reserved,
            last,
            misses,
            suspects: Suspects::default(),
            adopted: (i64::MIN, i64::MIN),
            broke: None,
            told: 0,
            ticked: None,
        })
    }

    /// Until it is closed.
    pub(super) fn run(mut self, connection: Connection) {
        let mut connection = Some(connection);
        loop {
            let end = match &connection {
                Some(connection) => self.serve(connection),
                None => return,
            };
            match end {
                End::Closed => {
                    self.tick_last();
                    // The last connection to be closed writes what is in the WAL to the database.
                    if let Some(connection) = connection.take() {
                        let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
                    }
                    return;
                }
                End::Broken(error) => {
                    self.break_down(&error);
                    drop(connection.take());
                    connection = self.reopen();
                }
            }
        }
    }

    fn serve(&mut self, connection: &Connection) -> End {
        let mut statements = match Statements::prepare(connection) {
            Ok(statements) => statements,
            Err(error) => return End::Broken(error),
        };
        loop {
            if !self.gather(TICK) {
                return End::Closed;
            }
            let mut batch = Batch::new(self.cut());
            if !batch.is_empty()
                && let Err(error) = self.commit(connection, &mut statements, &mut batch)
                && let Err(batch) = self.without_stuck(connection, batch, &error)
            {
                self.undo(batch);
                return End::Broken(error);
            }
            // Behind the answers: nobody waits for it. Where it fails all is in the WAL still. A sync that failed
            // is not made good by the next one that does not: nothing more is taken until it could be opened anew.
            if let Err(error) = statements.checkpoint() {
                self.undo(Batch::new(Vec::new()));
                return End::Broken(error);
            }
            self.tick(connection);
        }
    }

    /// Waits for jobs; `false` when there will be none.
    fn gather(&mut self, timeout: Duration) -> bool {
        let room = LARGEST_BATCH.saturating_sub(self.waiting.len());
        let timeout = if self.waiting.is_empty() { timeout } else { Duration::ZERO };
        match self.shared.inbox.receive(room, timeout) {
            Some(jobs) => self.waiting.extend(jobs),
            None if self.waiting.is_empty() => return false,
            None => {}
        }
        true
    }

    /// What goes into one commit.
    fn cut(&mut self) -> Vec<Job> {
        let mut octets = 0;
        let mut count = 0;
        for job in self.waiting.iter().take(LARGEST_BATCH) {
            octets += job.octets();
            if count > 0 && octets > LARGEST_OCTETS {
                break;
            }
            count += 1;
        }
        self.waiting.drain(..count).collect()
    }

    /// A commit failed: its messages are refused, what else it had is done by a later one.
    fn undo(&mut self, batch: Batch) {
        self.shared.room.set_broken(true);
        batch.suspect(&mut self.suspects);
        let later = std::mem::replace(&mut self.waiting, batch.into_undone(&self.shared).into());
        for job in later {
            self.keep(job);
        }
    }

    fn break_down(&mut self, error: &rusqlite::Error) {
        self.shared.room.set_broken(true);
        let path = self.shared.folder.database();
        self.shared.quiet.fault(
            "commit",
            Level::Error,
            format_args!(
                "{}: cannot be written: {error}: mails are refused with 451 until it can be; check its disk",
                path.display()
            ),
        );
    }

    /// Tries each second; meanwhile messages are refused. `None` when it is closed first.
    fn reopen(&mut self) -> Option<Connection> {
        // A disk that takes little and no more must not have it done again and again.
        let before = self.broke.replace(Instant::now());
        if before.is_some_and(|at| at.elapsed() < 10 * TICK) && !self.refuse_for(TICK) {
            return None;
        }
        loop {
            match self.try_reopen() {
                Ok(connection) => {
                    self.shared.room.set_broken(false);
                    let path = self.shared.folder.database();
                    self.shared.quiet.say(
                        Level::Warning,
                        format_args!("{}: can be written again", path.display()),
                    );
                    return Some(connection);
                }
                Err(text) => self.shared.quiet.fault(
                    "reopen",
                    Level::Error,
                    format_args!("{text}: tried again each second"),
                ),
            }
            if !self.refuse_for(TICK) {
                return None;
            }
        }
    }

    /// Refuses messages, and keeps what else comes; `false` when it is closed.
    fn refuse_for(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let jobs = self.shared.inbox.receive(LARGEST_BATCH, left);
            let Some(jobs) = jobs else { return false };
            for job in jobs {
                self.keep(job);
            }
            if left.is_zero() {
                return true;
            }
        }
    }

    fn keep(&mut self, job: Job) {
        match job {
            Job::Insert { .. } => self.shared.refuse(job, Refusal::Broken),
            other => self.waiting.push_back(other),
        }
    }

    /// Opens it, and deletes what was refused: its commit may have reached the disk although it failed.
    fn try_reopen(&mut self) -> Result<Connection, String> {
        let path = self.shared.folder.database();
        let connection = self.open_anew(&path).map_err(|error| error.to_string())?;
        self.forget_suspects(&connection)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        for name in self.suspects.clear() {
            self.shared.files.push(FileJob::Remove(name));
        }
        self.shared.recount(&connection).map_err(|error| format!("{}: {error}", path.display()))?;
        for job in std::mem::take(&mut self.waiting) {
            self.keep(job);
        }
        Ok(connection)
    }

    /// Opens it, once nobody has it open. As long as somebody has, `SQLite` passes over what a checkpoint before
    /// has written to the database, and that may be lost: it is only synced once all is written.
    fn open_anew(&self, path: &Path) -> Result<Connection, OpenError> {
        let mut reader = self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner);
        *reader = Connection::open_in_memory().map_err(OpenError::database(path))?;
        let connection = database::open(path);
        // Also where it cannot be written: what waits is still given out.
        match database::open_to_read(path) {
            Ok(opened) => *reader = opened,
            // What keeps it from being written says more.
            Err(error) => return connection.and(Err(error)),
        }
        connection
    }

    fn forget_suspects(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        self.suspects.take_back(connection)?;
        let found = last::go_on_from(connection, self.last)?;
        database::set_meta(connection, "reserved", self.reserved)?;
        // Something that differs, since SQLite does not write what is there already: it shows whether it
        // can write.
        database::set_meta(connection, "reopened", clock::now_ms())?;
        connection.execute_batch("COMMIT")?;
        if found < self.last {
            last::tell_missing(&self.shared.folder, &self.shared.quiet, found, self.last);
        }
        // Nothing that is still in the WAL is left to a sync that failed.
        let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        Ok(())
    }

    /// What is due each second.
    fn tick(&mut self, connection: &Connection) {
        if self.ticked.is_some_and(|at| at.elapsed() < TICK) {
            return;
        }
        self.ticked = Some(Instant::now());
        let oldest = database::oldest(connection, &mut self.adopted).ok().flatten().unwrap_or(0);
        self.shared.figures.oldest_ms.store(oldest, Ordering::Relaxed);
        self.shared.look(0);
        self.tick_last();
        self.shrink(connection);
    }

    fn tick_last(&mut self) {
        if self.last != self.told {
            self.shared.write_last(self.last);
            self.told = self.last;
        }
    }

    /// The file stays as large as it ever was, and its free pages are used again. Only once nothing is
    /// left of a large backlog is it worth the commit that gives them back: it copies what is there, so
    /// that costs next to nothing then (439 MiB: 18 ms, and 0.2 s for the checkpoint), where `auto_vacuum`
    /// would cost each delete something.
    fn shrink(&mut self, connection: &Connection) {
        if self.shared.figures.depth.get() > 0 || !self.waiting.is_empty() {
            return;
        }
        let large = std::fs::metadata(self.shared.folder.database())
            .is_ok_and(|file| file.len() > LARGEST_EMPTY);
        if large {
            // Where it fails nothing is lost, and it is tried again with the next second.
            let _ = connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }
}

impl Shared {
    /// Depth and octets as the database has them: at the start, and where a commit that failed may have
    /// deleted something all the same.
    fn recount(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sums = database::sums(connection)?;
        self.room.set_live(sums.iter().map(|sum| sum.octets).sum());
        self.figures.depth.take();
        self.figures.depth.add_many(sums.iter().map(|sum| sum.depth).sum());
        for sum in sums {
            self.lanes.found(&sum.backend, sum.depth, sum.octets);
        }
        Ok(())
    }

    /// Looks at the disk where it is time for that, and says when it becomes tight.
    pub(super) fn look(&self, written: u64) {
        let path = self.folder.path();
        match self.room.look(path, written) {
            Some(true) => self.quiet.say(
                Level::Error,
                format_args!(
                    "{}: less than spool.min_free is left on its disk: mails are refused with 452 \
                     until there is more",
                    path.display()
                ),
            ),
            Some(false) => self
                .quiet
                .say(Level::Warning, format_args!("{}: its disk has room again", path.display())),
            None => {}
        }
    }
}
