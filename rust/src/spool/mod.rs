//! The spool: messages that were answered 250 and are still to be worked on, in `SQLite` and files.
//!
//! ```text
//! insert ──► inbox ──► writer: everything that waits in one commit ──► settle: 250
//!    └► files: bodies over 256 KiB ──┘  ▲                    │ ids
//!                                       │                    ▼
//!             settle ◄── lease ◄── receive ◄── reader ◄── lanes: one a backend
//! ```
//!
//! One thread writes the database, so that a sync is shared by all who wait for one; a second one writes
//! files. Whoever receives reads by a connection of its own, but for what was saved just now, which is still
//! in memory. A message is answered once its commit is synced, and deleted by the commit behind the one that
//! worked on it: what is lost in between is only that it was done, so it may be worked on again.
//!
//! | room | what lives there |
//! |---|---|
//! | `folder`, `disk` | the folder of a process: lock, modes, names, syncs, free room |
//! | `database` | the schema, and what SQLite must be |
//! | `writer`, `batch`, `statements` | the thread that commits, one commit, and what it says to the database |
//! | `stuck` | what cannot be changed since it is damaged |
//! | `suspects` | commits that failed, and may be on the disk all the same |
//! | `files` | the thread of bodies in files |
//! | `lanes` | which ids wait for which backend |
//! | `pages`, `dispatch`, `lease` | reading what is given out, past what is damaged; what becomes of it |
//! | `aside` | messages that failed or are damaged |
//! | `adopt`, `gaps` | the folders of processes that are gone; what of them is here already |
//! | `salvage` | reading rows where some are damaged |
//! | `commands`, `replay` | what a person asks: list, show, retry, drop; and replay |
//! | `room` | limits |
//! | `last` | which id was committed last, to miss those that are missing |
//! | `clock`, `quiet`, `error`, `faults` | times, log lines, why it cannot be opened, failures on purpose |

mod adopt;
mod aside;
mod batch;
mod clock;
mod commands;
mod database;
mod disk;
mod dispatch;
mod error;
mod faults;
mod figures;
mod files;
mod folder;
mod gaps;
mod lanes;
mod last;
mod lease;
mod pages;
mod quiet;
mod replay;
mod room;
mod salvage;
mod statements;
mod stuck;
mod suspects;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;

pub use self::commands::{Entry, State};
pub use self::error::OpenError;
use self::figures::Figures;
use self::files::FileJob;
use self::folder::Folder;
use self::lanes::Lanes;
pub use self::lease::{Lease, Leased, Settled};
use self::quiet::Quiet;
use self::room::Room;
use self::writer::Job;
use crate::log::Log;
use crate::queue::Queue;

/// A message over this is a file: the writer never carries 50 MiB.
pub const LARGEST_INLINE: usize = 256 << 10;

/// Where a spool is, and how much it may hold.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The folder with the folders of all processes.
    pub folder: PathBuf,
    /// Octets of envelopes and messages; 0: no limit.
    pub max_bytes: u64,
    /// Octets that the disk has to have left; 0: no limit.
    pub min_free: u64,
    /// How old a message may be before an attempt that fails was the last one; zero: no limit.
    pub max_age: Duration,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room: 452 4.3.1.
    Full,
    /// It cannot be saved now: 451 4.3.0.
    Broken,
}

/// A message that is to be saved.
pub trait Incoming: Send {
    /// Who saves it later.
    fn backend(&self) -> &str;
    /// Its id, in the answer and in the log.
    fn queued_id(&self) -> &str;
    /// When it came.
    fn received_at(&self) -> SystemTime;
    /// Its envelope.
    fn record(&self) -> &[u8];
    /// The message.
    fn octets(&self) -> &[u8];
    /// Whether it is still to be saved: who sent it may have been told meanwhile that it is not.
    fn is_wanted(&self) -> bool {
        true
    }
    /// What is committed with it and names it, where it may be inserted more than once: it is refused where
    /// that is there.
    fn mark(&self) -> Option<&str> {
        None
    }
    /// It is saved, and stays so when the power goes now; or it is not there.
    fn settle(self: Box<Self>, outcome: Result<(), Refusal>);
}

/// A message as it is given out.
#[derive(Debug)]
pub enum Octets {
    /// Here.
    Memory(Vec<u8>),
    /// To be mapped by [`Body::stored`](crate::buffer::Body::stored).
    File(File),
}

/// A spool that is open.
pub struct Spool {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    files: JoinHandle<()>,
    adopting: Option<JoinHandle<()>>,
    writer: JoinHandle<()>,
}

/// What the threads have in common.
struct Shared {
    folder: Folder,
    room: Room,
    lanes: Lanes,
    inbox: Queue<Job>,
    files: Queue<FileJob>,
    /// Closed where the thread that adopts is to end; nothing is put in.
    adopting: Queue<()>,
    reader: Mutex<Connection>,
    /// Held while the two files of what is set aside are named and written, moved or removed: half of an old
    /// pair is not to be taken for half of a new one.
    pairs: Mutex<()>,
    /// Held by a command that changes what was set aside: two at a time would both do it.
    asked: Mutex<()>,
    /// Folders of others where something had to stay, and when that was seen.
    left: Mutex<HashMap<PathBuf, Instant>>,
    /// The id that was found last by its name.
    searched: AtomicI64,
    figures: Figures,
    quiet: Quiet,
    closing: AtomicBool,
}

impl Spool {
    /// Takes the first free folder, looks whether all is well, and starts the threads. The folders of
    /// processes that are gone are taken over by and by.
    pub fn open(settings: Settings, log: Arc<Log>) -> Result<Arc<Self>, OpenError> {
        let folder = Folder::take(&settings.folder)?;
        Self::open_in(folder, settings, log, true)
    }

    /// For a command while no daemon runs: all that is in `root`, in one spool, without limits.
    /// [`OpenError::Held`] where a daemon has any of it.
    pub fn open_offline(root: &Path, log: Arc<Log>) -> Result<Arc<Self>, OpenError> {
        let folders = folder::numbered(root).map_err(OpenError::file(root, "cannot be read"))?;
        for path in &folders {
            if Folder::try_take(path)?.is_none() {
                return Err(OpenError::Held(path.clone()));
            }
        }
        let settings = Settings { folder: root.to_owned(), ..Settings::default() };
        let spool = Self::open_in(Folder::take(root)?, settings, log, false)?;
        spool.shared.adopt();
        Ok(spool)
    }

    fn open_in(
        folder: Folder,
        settings: Settings,
        log: Arc<Log>,
        adopts: bool,
    ) -> Result<Arc<Self>, OpenError> {
        let path = folder.database();
        let connection = database::open(&path)?;
        // Only now it has the name of its database.
        folder.sync(folder.path()).map_err(OpenError::file(folder.path(), "cannot be synced"))?;
        let reader = database::open_to_read(&path)?;
        let shared = Arc::new(Shared {
            room: Room::new(settings),
            lanes: Lanes::default(),
            inbox: Queue::default(),
            files: Queue::default(),
            adopting: Queue::default(),
            reader: Mutex::new(reader),
            pairs: Mutex::default(),
            asked: Mutex::default(),
            left: Mutex::default(),
            searched: AtomicI64::new(0),
            figures: Figures::default(),
            quiet: Quiet::new(log),
            closing: AtomicBool::new(false),
            folder,
        });
        let writer = writer::Writer::begin(Arc::clone(&shared), &connection)
            .map_err(OpenError::database(&path))?;
        files::tidy(&shared, writer.misses)
            .map_err(OpenError::file(&shared.folder.path().join("bodies"), "cannot be tidied"))?;
        if writer.misses {
            last::set_aside(&connection, writer.last).map_err(OpenError::database(&path))?;
        }
        replay::finish(&connection, &shared.folder).map_err(OpenError::database(&path))?;
        shared.count_failed_files();
        shared.look(0);
        let cannot = |error| OpenError::File { path, what: "no thread for it", error };
        let threads = start(&shared, writer, connection, adopts).map_err(cannot)?;
        Ok(Arc::new(Self { shared, threads: Mutex::new(Some(threads)) }))
    }

    /// Takes other limits.
    pub fn obey(&self, settings: Settings) {
        self.shared.room.obey(settings);
        self.shared.look(0);
    }

    /// Whether a message of `octets` could be taken now.
    pub fn has_room(&self, octets: u64) -> Result<(), Refusal> {
        let room = self.shared.room.has(octets);
        if room.is_err() {
            self.shared.figures.refused.add();
        }
        room
    }

    /// Has a message saved: it is settled by a thread of the spool. Never waits.
    pub fn insert(&self, entry: Box<dyn Incoming>) {
        if self.shared.is_closing() {
            entry.settle(Err(Refusal::Broken));
        } else if entry.octets().len() > LARGEST_INLINE {
            if let Err(FileJob::Store(entry)) = self.shared.files.offer(FileJob::Store(entry)) {
                entry.settle(Err(Refusal::Broken));
            }
        } else {
            self.shared.send(Job::Insert { entry, file: None, adopted: None });
        }
    }

    /// At most `max` messages of a backend, waiting for the first one at most `timeout`; nothing after
    /// that, or where it is not `wanted`. `None` once the spool gives none any more.
    pub fn receive(
        &self,
        backend: &str,
        max: usize,
        timeout: Duration,
        wanted: &dyn Fn() -> bool,
    ) -> Option<Vec<Leased>> {
        self.shared.receive(backend, max, timeout, wanted)
    }

    /// Lets those who wait look whether they are still to.
    pub fn wake_all(&self) {
        self.shared.lanes.wake_all();
    }

    /// Gives no more messages; who waits returns.
    pub fn stop_giving(&self) {
        self.shared.lanes.stop();
    }

    /// Messages of each backend that has any.
    pub fn waiting(&self) -> Vec<(String, u64)> {
        self.shared.lanes.waiting()
    }

    /// Every figure by its name.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        self.shared.snapshot()
    }

    /// The folder of this process.
    pub fn path(&self) -> &Path {
        self.shared.folder.path()
    }

    /// Commits what waits, and ends. What is leased is given out again by the next start.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.stop_giving();
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else { return };
        self.shared.adopting.close();
        if let Some(adopting) = threads.adopting {
            let _ = adopting.join();
        }
        // Then that of the files: what it has written becomes rows of the last commits.
        self.shared.files.close();
        let _ = threads.files.join();
        self.shared.inbox.close();
        let _ = threads.writer.join();
        // A lease that somebody still holds does not keep it.
        self.shared.folder.release();
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("path", &self.path()).finish_non_exhaustive()
    }
}

fn start(
    shared: &Arc<Shared>,
    writer: writer::Writer,
    connection: Connection,
    adopts: bool,
) -> std::io::Result<Threads> {
    let name = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let of_files = Arc::clone(shared);
    let files = name("spool-files").spawn(move || files::run(&of_files))?;
    let started = name("spool").spawn(move || writer.run(connection)).and_then(|writer| {
        let adopt = Arc::clone(shared);
        let adopting = if adopts {
            Some(name("spool-adopt").spawn(move || adopt::run(&adopt))?)
        } else {
            None
        };
        Ok((adopting, writer))
    });
    match started {
        Ok((adopting, writer)) => Ok(Threads { files, adopting, writer }),
        Err(error) => {
            shared.files.close();
            shared.inbox.close();
            Err(error)
        }
    }
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// To the writer; a message that comes too late is refused.
    fn send(&self, job: Job) {
        if let Err(job) = self.inbox.offer(job) {
            job.refuse(Refusal::Broken);
        }
    }
}
