//! The folder of one process: its lock, its modes, its names, and what makes a change of it last.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::error::OpenError;
use super::faults::{Faults, Point};

/// Mode of folders: mails are nobody else's.
const FOLDER_MODE: u32 = 0o700;
/// Mode of files.
const FILE_MODE: u32 = 0o600;

/// A folder that is ours as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: Mutex<Option<File>>,
    /// Folders of bodies whose names were synced since it is ours.
    shelves: Mutex<HashSet<PathBuf>>,
    pub(super) faults: Faults,
}

impl Folder {
    /// The first folder in `root` that nobody has: `0` where there is one process.
    pub(super) fn take(root: &Path) -> Result<Self, OpenError> {
        make_root(root).map_err(OpenError::file(root, "cannot be made"))?;
        for number in 0_u32.. {
            if let Some(folder) = Self::try_take(&root.join(number.to_string()))? {
                return Ok(folder);
            }
        }
        Err(OpenError::Held(root.to_owned()))
    }

    /// That folder, made where it is missing; `None` where another process has it.
    pub(super) fn try_take(path: &Path) -> Result<Option<Self>, OpenError> {
        loop {
            make(path).map_err(OpenError::file(path, "cannot be made"))?;
            let name = path.join("spool.lock");
            let lock = match create(&name) {
                // Who took over its mails has removed it since it was made.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => continue,
                lock => lock.map_err(OpenError::file(&name, "cannot be opened"))?,
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(OpenError::File { path: name, what: "cannot be locked", error });
                }
            }
            // The same since it was opened.
            if is_still(&lock, &name) {
                let folder = Self {
                    path: path.to_owned(),
                    lock: Mutex::new(Some(lock)),
                    shelves: Mutex::default(),
                    faults: Faults::default(),
                };
                folder.complete().map_err(OpenError::file(path, "cannot be prepared"))?;
                return Ok(Some(folder));
            }
        }
    }

    /// Makes what is missing. All names are synced, also of what is there: who made it may have died before
    /// it did that, and with the power they would be gone, and all below them.
    fn complete(&self) -> io::Result<()> {
        let mode = fs::metadata(&self.path)?.permissions().mode() & 0o777;
        if mode != FOLDER_MODE {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(FOLDER_MODE))?;
        }
        for name in ["bodies", "bodies/new", "failed", "damaged"] {
            make(&self.path.join(name))?;
        }
        let above = self.path.parent().unwrap_or(Path::new(""));
        for folder in [above, self.path.as_path(), self.path.join("bodies").as_path()] {
            self.sync(folder)?;
        }
        Ok(())
    }

    /// Makes the folder of a body where there is none. Its name is synced once, whoever made it.
    pub(super) fn make_shelf(&self, place: &Path) -> io::Result<()> {
        make(place)?;
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        if !shelves.contains(place) {
            place.parent().map_or(Ok(()), |bodies| self.sync(bodies))?;
            shelves.insert(place.to_owned());
        }
        Ok(())
    }

    /// Another process may have it.
    pub(super) fn release(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("spool.db")
    }

    pub(super) fn last_id(&self) -> PathBuf {
        self.path.join("spool.last")
    }

    pub(super) fn new_bodies(&self) -> PathBuf {
        self.path.join("bodies/new")
    }

    /// Where a body is: 256 folders, so that none has too many.
    pub(super) fn body(&self, name: &str) -> PathBuf {
        let number = crc32fast::hash(name.as_bytes()) & 0xff;
        self.path.join(format!("bodies/{number:02x}/{name}"))
    }

    pub(super) fn failed(&self) -> PathBuf {
        self.path.join("failed")
    }

    pub(super) fn damaged(&self) -> PathBuf {
        self.path.join("damaged")
    }

    /// Renames, and makes that last: both folders are synced.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shift(from, to)?;
        for folder in [to.parent(), from.parent()].into_iter().flatten() {
            self.sync(folder)?;
        }
        Ok(())
    }

    /// Renames, also to where another file system is. Who asks syncs the folders.
    pub(super) fn shift(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.faults.at(Point::Rename).and_then(|()| fs::rename(from, to)) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.copy(from, to)?;
                to.parent().map_or(Ok(()), |folder| self.sync(folder))?;
                remove(from)
            }
            done => done,
        }
    }

    /// Gives a file a second name: that takes no room, and no time. Where it can have none, as on another
    /// file system, it is copied, whole or not at all. `false` where there is no such file; one that has
    /// the name already is taken for it. Who asks syncs the folder.
    pub(super) fn link(&self, from: &Path, to: &Path) -> io::Result<bool> {
        match self.faults.at(Point::Link).and_then(|()| fs::hard_link(from, to)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(_) => self.copy(from, to),
        }
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<bool> {
        let mut source = match File::open(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            source => source?,
        };
        let begun = to.with_added_extension("new");
        let copied = self.fill(&mut source, &begun).and_then(|()| fs::rename(&begun, to));
        if copied.is_err() {
            let _ = remove(&begun);
        }
        copied.map(|()| true)
    }

    fn fill(&self, source: &mut File, path: &Path) -> io::Result<()> {
        remove(path)?;
        let mut file = create(path)?;
        self.faults.at(Point::Write)?;
        io::copy(source, &mut file)?;
        self.faults.at(Point::Sync)?;
        file.sync_all()
    }

    /// Makes names in a folder last.
    pub(super) fn sync(&self, folder: &Path) -> io::Result<()> {
        self.faults.at(Point::SyncFolder)?;
        sync_folder(folder)
    }
}

/// Makes a folder where there is none. Who asks syncs its name, also where it was there.
fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Ok(()) => {
            give_to_owner(path);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the folder of all processes, and what is missing above it: the name of each is synced, or all that
/// is below it would be gone with the power.
fn make_root(root: &Path) -> io::Result<()> {
    if root.as_os_str().is_empty() || root.is_dir() {
        return Ok(());
    }
    let above = root.parent().unwrap_or(Path::new(""));
    make_root(above)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(above)
}

/// Opens a file to write, made where there is none.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    give_to_owner(path);
    Ok(file)
}

/// What root makes, by a command while no daemon runs, has to stay that of the daemon's user.
fn give_to_owner(path: &Path) {
    let owner = path.parent().and_then(|parent| fs::metadata(parent).ok());
    if let (Some(owner), Ok(own)) = (owner, fs::metadata(path))
        && own.uid() == 0
        && owner.uid() != 0
    {
        let _ = std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()));
    }
}

fn is_still(lock: &File, name: &Path) -> bool {
    match (lock.metadata(), fs::metadata(name)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let here = path.as_os_str().is_empty();
    File::open(if here { Path::new(".") } else { path })?.sync_all()
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The folders of all processes in `root`, by their numbers.
pub(super) fn numbered(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(root)?
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
