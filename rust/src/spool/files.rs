//! The thread of bodies in files: nobody else waits for them.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::folder::Folder;
use super::lease::Held;
use super::writer::{InFile, Job, Why};
use super::{Incoming, Refusal, Shared, folder, salvage, statements};
use crate::log::Level;
use crate::queued_id::Generator;

/// What the thread is asked for.
pub(super) enum FileJob {
    /// A body is written, and then its row.
    Store(Box<dyn Incoming>),
    /// A body whose row is gone.
    Remove(String),
    /// A message is set aside: it was refused for good.
    Fail { held: Arc<Held>, reason: String },
    /// A message is set aside: it is not what was saved.
    Damage { held: Arc<Held>, reason: String },
}

/// Until it is closed.
pub(super) fn run(shared: &Shared) {
    let names = Generator::default();
    while let Some(jobs) = shared.files.receive(16, Duration::from_secs(1)) {
        let (bodies, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(FileJob::is_body);
        for job in bodies {
            work(shared, job, &names);
        }
        for job in others {
            // Somebody waits for these, and for nothing else: a backlog that is refused makes many.
            while let Some(body) = shared.files.remove(FileJob::is_body) {
                work(shared, body, &names);
            }
            work(shared, job, &names);
        }
    }
}

impl FileJob {
    fn is_body(&self) -> bool {
        matches!(self, Self::Store(_))
    }
}

fn work(shared: &Shared, job: FileJob, names: &Generator) {
    match job {
        FileJob::Store(entry) => store(shared, entry, names),
        FileJob::Remove(name) => remove(shared, &name),
        FileJob::Fail { held, reason } => shared.set_aside(held, &reason, Why::Failed),
        FileJob::Damage { held, reason } => shared.set_aside(held, &reason, Why::Damaged),
    }
}

fn store(shared: &Shared, entry: Box<dyn Incoming>, names: &Generator) {
    let octets = (entry.octets().len() + entry.record().len()) as u64;
    let wanted = if entry.is_wanted() { Ok(()) } else { Err(Refusal::Broken) };
    if let Err(refusal) = wanted.and_then(|()| shared.room.has(octets)) {
        return shared.refuse(Job::Insert { entry, file: None, adopted: None }, refusal);
    }
    let name = names.next(SystemTime::now());
    match write(shared, &name, entry.octets()) {
        Ok(()) => {
            shared.look(octets);
            let crc = statements::checksum(entry.record(), entry.octets());
            let file =
                Some(InFile { name: name.to_string(), crc, size: entry.octets().len() as u64 });
            shared.send(Job::Insert { entry, file, adopted: None });
        }
        Err(error) => {
            report(shared, &name, "cannot be written", &error);
            remove(shared, &name);
            let full =
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let refusal = if full { Refusal::Full } else { Refusal::Broken };
            shared.refuse(Job::Insert { entry, file: None, adopted: None }, refusal);
        }
    }
}

/// Writes a body; once this returns it is there, whatever happens.
fn write(shared: &Shared, name: &str, octets: &[u8]) -> io::Result<()> {
    let faults = &shared.folder.faults;
    let path = shared.folder.new_bodies().join(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    faults.at(super::faults::Point::Write)?;
    file.write_all(octets)?;
    faults.at(super::faults::Point::Sync)?;
    file.sync_data()?;
    drop(file);
    let place = shared.folder.body(name);
    if let Some(shelf) = place.parent() {
        shared.folder.make_shelf(shelf)?;
    }
    shared.folder.rename(&path, &place)
}

fn remove(shared: &Shared, name: &str) {
    let gone = shared.folder.faults.at(super::faults::Point::Unlink).and_then(|()| {
        folder::remove(&shared.folder.new_bodies().join(name))?;
        folder::remove(&shared.folder.body(name))
    });
    if let Err(error) = gone {
        report(shared, name, "cannot be removed; the next start tries again", &error);
    }
}

fn report(shared: &Shared, name: &str, what: &str, error: &io::Error) {
    let path = shared.folder.body(name);
    let text = format_args!("{}: {what}: {error}: check its disk", path.display());
    shared.quiet.fault("file", Level::Error, text);
}

/// At the start: removes bodies that no row names, left by an end between the two. Where rows are missing
/// they may be all that is left of a mail, and are set aside.
pub(super) fn tidy(shared: &Shared, misses: bool) -> io::Result<()> {
    for entry in fs::read_dir(shared.folder.new_bodies())? {
        folder::remove(&entry?.path())?;
    }
    let reader = shared.reader.lock().unwrap_or_else(PoisonError::into_inner);
    let named = named(&reader)?;
    drop(reader);
    let (mut found, mut others) = (0, Vec::new());
    each_body(&shared.folder, |path, name| {
        if named.contains(name) {
            found += 1;
        } else {
            others.push((path.to_owned(), name.to_owned()));
        }
        Ok(())
    })?;
    // Where a name is damaged, its body is one that none names.
    let misses = misses || found < named.len();
    others.iter().try_for_each(|(path, name)| {
        if misses { keep(path, name, &shared.folder) } else { folder::remove(path) }
    })
}

/// Sets aside the bodies that no row of that folder names: rows are missing there.
pub(super) fn keep_unnamed(from: &Folder, rows: &Connection, to: &Folder) -> io::Result<()> {
    let named = named(rows)?;
    each_body(from, |path, name| if named.contains(name) { Ok(()) } else { keep(path, name, to) })
}

/// Sets aside all bodies of that folder: its rows are gone, and one of them named another.
pub(super) fn keep_all(from: &Folder, to: &Folder) -> io::Result<()> {
    each_body(from, |path, name| keep(path, name, to))
}

fn keep(path: &Path, name: &str, folder: &Folder) -> io::Result<()> {
    folder.rename(path, &folder.damaged().join(format!("{name}.eml")))
}

fn each_body(
    folder: &Folder,
    mut look: impl FnMut(&Path, &str) -> io::Result<()>,
) -> io::Result<()> {
    for shelf in fs::read_dir(folder.path().join("bodies"))? {
        let shelf = shelf?;
        if shelf.file_name() == "new" {
            continue;
        }
        for entry in fs::read_dir(shelf.path())? {
            let entry = entry?;
            look(&entry.path(), entry.file_name().to_str().unwrap_or_default())?;
        }
    }
    Ok(())
}

fn named(rows: &Connection) -> io::Result<HashSet<String>> {
    let read = |rows: &Connection| -> rusqlite::Result<HashSet<String>> {
        let mut select = rows.prepare("SELECT file FROM msg WHERE file IS NOT NULL")?;
        select.query_map([], |row| salvage::text(row, 0))?.collect()
    };
    read(rows).map_err(io::Error::other)
}
