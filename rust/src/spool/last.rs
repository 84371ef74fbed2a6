//! The id that was committed last, kept outside the database as well: a WAL that is cut where a bit flipped
//! looks as if what is behind it had never been there.

use std::fs;
use std::os::unix::fs::FileExt;

use rusqlite::Connection;

use super::folder::{self, Folder};
use super::quiet::Quiet;
use super::{Shared, database};
use crate::log::Level;

/// Of the database: whether messages were found to be missing whose bodies have not been set aside.
const MISSES: &str = "misses";

/// The last id that was committed, by the database and by the file; and whether messages are missing: it says so
/// where the file is ahead. What is left of those, bodies in files, is not to be removed; once they are set aside,
/// [`set_aside`] has it not said again.
pub(super) fn find(
    connection: &Connection,
    folder: &Folder,
    quiet: &Quiet,
) -> rusqlite::Result<(i64, bool)> {
    let last = database::meta(connection, "last")?;
    let told = fs::read_to_string(folder.last_id()).ok().and_then(|text| text.trim().parse().ok());
    let Some(told) = told.filter(|told| *told > last) else {
        return Ok((last, database::meta(connection, MISSES)? > 0));
    };
    tell_missing(folder, quiet, last, told);
    Ok((told, true))
}

/// The bodies of the missing are set aside, and the last id is this one.
pub(super) fn set_aside(connection: &Connection, last: i64) -> rusqlite::Result<()> {
    database::set_meta(connection, "last", last)?;
    database::set_meta(connection, MISSES, 0)
}

/// Has a database that was opened anew say `last`, up to which messages were committed to it before. Where it has less, the
/// next start sets their bodies aside: now they could not be told from those of messages that are coming in. The last
/// one that it has.
pub(super) fn go_on_from(connection: &Connection, last: i64) -> rusqlite::Result<i64> {
    let found = database::meta(connection, "last")?;
    if found < last {
        database::set_meta(connection, MISSES, 1)?;
    }
    database::set_meta(connection, "last", last)?;
    Ok(found)
}

/// Of a database that has messages up to `last`, and had them up to `told`.
pub(super) fn tell_missing(folder: &Folder, quiet: &Quiet, last: i64, told: i64) {
    quiet.say(
        Level::Critical,
        format_args!(
            "{}: damaged: up to {} mails were committed and are missing (rows {} to {told}): their senders were told 250; \
             keep a copy of the folder and check its disk; the log has them among the last that were queued, and not as done",
            folder.database().display(),
            told - last,
            last + 1
        ),
    );
}

impl Shared {
    /// Writes the id. It is not synced: should the power go, it may be behind, and never ahead.
    pub(super) fn write_last(&self, last: i64) {
        let path = self.folder.last_id();
        let text = format!("{last:020}\n");
        let written = folder::create(&path).and_then(|file| file.write_all_at(text.as_bytes(), 0));
        if let Err(error) = written {
            let text =
                format_args!("{}: cannot be written: {error}: check its disk", path.display());
            self.quiet.fault("last", Level::Warning, text);
        }
    }
}
