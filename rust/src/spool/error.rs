//! Why a spool cannot be opened.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a spool cannot be opened: its text names the path, what is wrong, and what to do.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    Held(PathBuf),
    /// A file or folder cannot be made, locked, read or synced.
    File {
        /// Which one.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// The database says no.
    Database {
        /// Its file.
        path: PathBuf,
        /// What `SQLite` says.
        error: rusqlite::Error,
    },
    /// The database is not what may be trusted with mails.
    Guard {
        /// Its file.
        path: PathBuf,
        /// What is wrong, and what to do.
        text: String,
    },
}

impl OpenError {
    pub(super) fn file(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::File { path: path.to_owned(), what, error }
    }

    pub(super) fn database(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        move |error| Self::Database { path: path.to_owned(), error }
    }

    pub(super) fn guard(path: &Path, text: impl Into<String>) -> Self {
        Self::Guard { path: path.to_owned(), text: text.into() }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(path) => write!(
                f,
                "{}: in use by another process: stop it, or ask it by its control socket",
                path.display()
            ),
            Self::File { path, what, error } => {
                write!(f, "{}: {what}: {error}: {}", path.display(), advice_for_file(error))
            }
            Self::Database { path, error } => {
                write!(f, "{}: {error}: {}", path.display(), advice_for_database(error))
            }
            Self::Guard { path, text } => write!(f, "{}: {text}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Held(_) | Self::Guard { .. } => None,
            Self::File { error, .. } => Some(error),
            Self::Database { error, .. } => Some(error),
        }
    }
}

fn advice_for_file(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give it to the user that guerrilla runs as, with mode 0700"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
        io::ErrorKind::ReadOnlyFilesystem => "mount it writable, or set spool.path elsewhere",
        io::ErrorKind::NotFound => "check spool.path",
        _ => "check spool.path and its disk",
    }
}

/// Whether what the database has there is damaged: that is not mended by trying again.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
}

pub(super) fn advice_for_database(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::NotADatabase | Code::DatabaseCorrupt) => {
            "its file is damaged: stop, keep a copy of the folder, try `sqlite3 spool.db .recover`, \
             and move it away to start with an empty one"
        }
        Some(Code::DiskFull) => "make room on that disk",
        Some(Code::CannotOpen | Code::PermissionDenied | Code::ReadOnly) => {
            "give the folder to the user that guerrilla runs as, with mode 0700"
        }
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            "another program has it open: end that one"
        }
        _ => "check its disk; the kernel's log may say more",
    }
}
