//! Large bodies in files: one thread that makes, writes, maps and closes them, so that nobody else waits
//! for a disk.
//!
//! A body hands over its buffer together with its file and has both back once they are written, so at
//! most one buffer of each body is here, and the queue is as fair as it is short. The files have no name:
//! they are gone with the process, however it ends.
//!
//! `unsafe` is needed here to map a file. What is mapped never changes: nobody else can
//! open a file without a name, and it is mapped once it is written and its descriptor closed. The map
//! lives in the [`SpillFile`], in the `Body`, so a slice of it lives no longer. A file of the spool has a
//! name, in a folder of mode 0700, and is never written once it is given out. A disk that does not give
//! back what it has taken ends the process by a signal: its senders have no 250 then and send again.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memmap2::Mmap;
use tokio::sync::oneshot;

use super::budget::Chunk;
use crate::log::{Level, Log};
use crate::shared::Part;
use crate::stats::Stats;

/// What a body that goes to a file keeps as its buffer: a read of the socket fits behind another one.
pub(super) const CHUNK: usize = 128 << 10;
/// How long the end of a core waits for a disk.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// Where files go by default: `/tmp` is often memory.
const FOLDER: &str = "/var/tmp";
/// The part of a map that is made present before others look at it: the header section is there.
const PRESENT: usize = 1 << 20;
/// The smallest page there is.
const PAGE: usize = 4 << 10;

/// The thread for files, started with the first one.
pub struct Spiller {
    size: AtomicUsize,
    folder: Option<PathBuf>,
    thread: Mutex<Thread>,
    report: Arc<Report>,
}

enum Thread {
    None,
    Running { jobs: Sender<Job>, handle: JoinHandle<()>, ended: Receiver<()> },
    Ended,
}

enum Job {
    Write {
        file: SpillFile,
        chunk: Chunk,
        last: bool,
        done: oneshot::Sender<Written>,
    },
    /// Closing a large file takes its time.
    Drop(Option<File>, Option<Mmap>),
}

/// What comes back: the buffer, or a file that is mapped.
pub(super) struct Written {
    pub(super) file: SpillFile,
    pub(super) chunk: Option<Chunk>,
}

impl Spiller {
    /// For bodies of more than `size` octets; none when that is 0. The files are in `folder`, else in
    /// `$TMPDIR`, else in `/var/tmp`, else where the system has such files.
    pub fn new(
        size: u64,
        folder: Option<PathBuf>,
        stats: &Part<Stats>,
        log: &Arc<Log>,
    ) -> Option<Arc<Self>> {
        (size > 0).then(|| {
            let report = Report {
                stats: stats.clone(),
                log: Arc::clone(log),
                failure_logged: Mutex::default(),
            };
            Arc::new(Self {
                size: AtomicUsize::new(usize::try_from(size).unwrap_or(usize::MAX)),
                folder,
                thread: Mutex::new(Thread::None),
                report: Arc::new(report),
            })
        })
    }

    /// Octets over which a body goes to a file; 0 where none does.
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    pub(super) fn set_size(&self, size: u64) {
        self.size.store(usize::try_from(size).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Has the chunk written behind what the file has; after the last one the file is mapped. Where
    /// that fails, the receiver has nothing.
    pub(super) fn write(
        &self,
        file: SpillFile,
        chunk: Chunk,
        last: bool,
    ) -> oneshot::Receiver<Written> {
        let (done, receiver) = oneshot::channel();
        self.submit(Job::Write { file, chunk, last, done });
        receiver
    }

    fn submit(&self, job: Job) {
        let mut thread = self.lock();
        if matches!(*thread, Thread::None) {
            match self.start() {
                Ok(started) => *thread = started,
                Err(error) => self.report.failure(None, &error),
            }
        }
        let refused = match &*thread {
            Thread::Running { jobs, .. } => jobs.send(job).err().map(|error| error.0),
            Thread::None | Thread::Ended => Some(job),
        };
        // A file in it comes back here when it is dropped.
        drop(thread);
        if let Some(Job::Write { file, chunk, .. }) = refused {
            file.close();
            drop(chunk);
        }
    }

    fn start(&self) -> io::Result<Thread> {
        let (jobs, queue) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        let mut writer = Writer { folder: self.folder.clone(), report: Arc::clone(&self.report) };
        let handle =
            std::thread::Builder::new().name("guerrilla-spill".to_owned()).spawn(move || {
                let _alive: Sender<()> = alive;
                for job in queue {
                    writer.work(job);
                }
            })?;
        Ok(Thread::Running { jobs, handle, ended })
    }

    /// Ends the thread, once it has done what it has: a disk that hangs is not waited for. No body goes
    /// to a file any more.
    pub fn close(&self) {
        let thread = std::mem::replace(&mut *self.lock(), Thread::Ended);
        if let Thread::Running { jobs, handle, ended } = thread {
            drop(jobs);
            if ended.recv_timeout(LAST_WRITE) == Err(RecvTimeoutError::Disconnected) {
                // A panic of that thread was its end all the same.
                let _ = handle.join();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file without a name.
pub(super) struct SpillFile {
    /// Made with the first chunk, closed when it is mapped.
    file: Option<File>,
    map: Option<Mmap>,
    octets: u64,
    spiller: Arc<Spiller>,
}

impl SpillFile {
    pub(super) fn new(spiller: &Arc<Spiller>) -> Self {
        spiller.report.stats.spilled.add();
        Self { file: None, map: None, octets: 0, spiller: Arc::clone(spiller) }
    }

    /// All of it; nothing until it is mapped.
    pub(super) fn mapped(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    fn append(
        &mut self,
        octets: &[u8],
        create: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(create()?),
        };
        file.write_all(octets)?;
        self.octets += octets.len() as u64;
        self.spiller.report.stats.spilled_octets.add_many(octets.len() as u64);
        Ok(())
    }

    fn map(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            // SAFETY: the file has no name and this is its only descriptor, which is closed here: from
            // now on nobody can change or cut what is mapped.
            let map = unsafe { Mmap::map(&file) }?;
            for page in map.chunks(PAGE).take(PRESENT / PAGE) {
                std::hint::black_box(page.first());
            }
            self.map = Some(map);
        }
        Ok(())
    }

    /// Closes it here and now.
    fn close(mut self) {
        drop((self.file.take(), self.map.take()));
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.spiller.report.stats.spilled_octets.sub_many(self.octets);
        let (file, map) = (self.file.take(), self.map.take());
        if file.is_some() || map.is_some() {
            self.spiller.submit(Job::Drop(file, map));
        }
    }
}

/// A file of the spool, mapped.
pub(super) struct StoredFile(Option<Mmap>);

impl StoredFile {
    pub(super) fn map(file: &File) -> io::Result<Self> {
        // Nothing cannot be mapped.
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the spool writes a body before its row, gives it out by a descriptor that only reads,
        // in a folder that is the daemon's alone, and never writes it again: it is only unlinked, or
        // another one is renamed over it, which leaves what is mapped as it is.
        Ok(Self(Some(unsafe { Mmap::map(file) }?)))
    }

    pub(super) fn mapped(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

/// The thread's own.
struct Writer {
    folder: Option<PathBuf>,
    report: Arc<Report>,
}

impl Writer {
    fn work(&mut self, job: Job) {
        match job {
            // The body is gone.
            Job::Write { file, done, .. } if done.is_closed() => file.close(),
            Job::Write { mut file, mut chunk, last, done } => {
                let written = file.append(chunk.octets(), || self.create());
                match written.and_then(|()| if last { file.map() } else { Ok(()) }) {
                    Ok(()) => {
                        // Now, not when the body has it back: who waits for memory need not wait for
                        // that.
                        chunk.shrink(CHUNK);
                        let chunk = Some(chunk).filter(|_| !last);
                        if let Err(unwanted) = done.send(Written { file, chunk }) {
                            unwanted.file.close();
                        }
                    }
                    Err(error) => {
                        self.report.failure(self.folder.as_deref(), &error);
                        // All is given back before the body hears of it.
                        file.close();
                        drop(chunk);
                        drop(done);
                    }
                }
            }
            Job::Drop(file, map) => drop((file, map)),
        }
    }

    fn create(&mut self) -> io::Result<File> {
        tempfile::tempfile_in(self.folder.get_or_insert_with(default_folder))
    }
}

fn default_folder() -> PathBuf {
    let named = std::env::var_os("TMPDIR").is_some_and(|folder| !folder.is_empty());
    if !named && tempfile::tempfile_in(FOLDER).is_ok() {
        return PathBuf::from(FOLDER);
    }
    std::env::temp_dir()
}

/// Where the thread's doings are counted and logged.
struct Report {
    stats: Part<Stats>,
    log: Arc<Log>,
    failure_logged: Mutex<Option<Instant>>,
}

impl Report {
    /// Logged at most once a second: a full disk must not be filled with lines.
    fn failure(&self, folder: Option<&Path>, error: &io::Error) {
        self.stats.spill_failures.add();
        let mut last = self.failure_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            return;
        }
        *last = Some(Instant::now());
        let all = self.stats.spill_failures.get();
        let folder = folder.unwrap_or(Path::new("")).display();
        self.log.write(
            Level::Error,
            "core",
            format_args!("a message could not be spilled to {folder}: {error} ({all} so far)"),
        );
    }
}

#[cfg(test)]
pub(crate) mod by_hand;
#[cfg(test)]
mod tests;
