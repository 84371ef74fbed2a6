//! What `SQLite` asks of its files, counted, and failing where a test says so.
//!
//! `unsafe` is needed here: a VFS of `SQLite` is a table of C functions. This one is a copy of the default
//! one, made before any test opens a database, whose `xOpen` exchanges two methods of a file for ours. They
//! call those they stand for, with the file they were given; both tables live as long as the process.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

use rusqlite::ffi::{
    SQLITE_IOERR, SQLITE_OK, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods,
    sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

/// What can be asked of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Call {
    Write,
    Sync,
}

#[derive(Default)]
struct Watched {
    /// Paths of open files and the methods they had, by their addresses.
    open: HashMap<usize, (String, Methods)>,
    /// The methods of each kind of file, and ours in their place.
    kinds: Vec<(Methods, Methods)>,
    /// Syncs of each path.
    syncs: HashMap<String, u64>,
    /// What fails: the path, after how many calls, with which code; each time from then on.
    faults: Vec<(String, Call, u64, c_int)>,
}

type Methods = &'static sqlite3_io_methods;

type Open = unsafe extern "C" fn(
    *mut sqlite3_vfs,
    sqlite3_filename,
    *mut sqlite3_file,
    c_int,
    *mut c_int,
) -> c_int;

static WATCHED: OnceLock<Mutex<Watched>> = OnceLock::new();
static OPEN: OnceLock<Open> = OnceLock::new();

fn watched() -> MutexGuard<'static, Watched> {
    WATCHED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes it the default one.
pub(in crate::spool) fn register() {
    static ONCE: Once = Once::new();
    // SAFETY: see above.
    ONCE.call_once(|| unsafe {
        let found = sqlite3_vfs_find(std::ptr::null());
        let mut ours = *found;
        OPEN.set(ours.xOpen.unwrap()).unwrap();
        ours.xOpen = Some(open);
        ours.zName = c"watched".as_ptr();
        ours.pNext = std::ptr::null_mut();
        assert_eq!(sqlite3_vfs_register(Box::leak(Box::new(ours)), 1), SQLITE_OK);
    });
}

/// How often files of a folder were synced.
pub(in crate::spool) fn syncs(folder: &Path, name: &str) -> u64 {
    let path = folder.join(name);
    watched().syncs.get(path.to_str().unwrap()).copied().unwrap_or(0)
}

/// Lets `calls` more pass, and has all behind them fail.
pub(in crate::spool) fn fail(path: &Path, call: Call, calls: u64, code: c_int) {
    watched().faults.push((path.to_str().unwrap().to_owned(), call, calls, code));
}

/// Nothing fails any more there.
pub(in crate::spool) fn mend(path: &Path) {
    let path = path.to_str().unwrap();
    watched().faults.retain(|(at, ..)| at != path);
}

/// The methods that a file had; or what it fails with.
fn pass(file: *mut sqlite3_file, call: Call) -> Result<Methods, c_int> {
    let mut watched = watched();
    let (path, theirs) = watched.open.get(&(file as usize)).cloned().ok_or(SQLITE_IOERR)?;
    if call == Call::Sync {
        *watched.syncs.entry(path.clone()).or_default() += 1;
    }
    let fault = watched.faults.iter_mut().find(|(at, of, ..)| *of == call && path == *at);
    match fault {
        Some((_, _, 0, code)) => return Err(*code),
        Some((_, _, left, _)) => *left -= 1,
        None => {}
    }
    Ok(theirs)
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: see above.
    unsafe {
        let code = OPEN.get().unwrap()(vfs, name, file, flags, out);
        if code == SQLITE_OK && !name.is_null() {
            let path = CStr::from_ptr(name.cast::<c_char>()).to_str().unwrap().to_owned();
            let theirs: Methods = &*(*file).pMethods;
            let mut watched = watched();
            watched.open.insert(file as usize, (path, theirs));
            (*file).pMethods = watched.ours(theirs);
        }
        code
    }
}

impl Watched {
    /// One table for each kind of file.
    fn ours(&mut self, theirs: Methods) -> Methods {
        if let Some((_, ours)) = self.kinds.iter().find(|(known, _)| std::ptr::eq(*known, theirs)) {
            return ours;
        }
        let mut ours = *theirs;
        ours.xWrite = Some(write);
        ours.xSync = Some(sync);
        let ours: Methods = Box::leak(Box::new(ours));
        self.kinds.push((theirs, ours));
        ours
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    octets: *const c_void,
    count: c_int,
    at: sqlite3_int64,
) -> c_int {
    match pass(file, Call::Write) {
        // SAFETY: see above.
        Ok(theirs) => unsafe { theirs.xWrite.unwrap()(file, octets, count, at) },
        Err(code) => code,
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    match pass(file, Call::Sync) {
        // SAFETY: see above.
        Ok(theirs) => unsafe { theirs.xSync.unwrap()(file, flags) },
        Err(code) => code,
    }
}
