//! Which ids wait, page by page, and past what is damaged.
//!
//! A page of the database that is damaged holds up the messages on it, and no others: ids behind it are
//! found by their place in the tree. What cannot be read stays where it is, is told once, and is tried again
//! by the next start. An I/O error is not passed over: it may go with its cause, and each look at a bad
//! sector can take a disk seconds. So that is tried again, less and less often.

use std::sync::{Arc, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use super::error::{advice_for_database, is_damage};
use super::lanes::PAGE;
use super::{Shared, salvage};
use crate::log::Level;

/// Rows that are looked at in one transaction, whosever they are.
const ROWS: usize = 10 * PAGE;
/// `>=`, since what is behind a damaged page can only be found from its first id on, not from that page's
/// last one.
const IDS: &str = "SELECT id, backend, EXISTS(SELECT 1 FROM retry WHERE retry.id = msg.id)
  FROM msg WHERE id >= ?1 ORDER BY id LIMIT ?2";

/// Ids of a backend.
struct Page {
    ids: Vec<i64>,
    /// Up to where was looked.
    cursor: i64,
    /// Whether that is the end.
    ended: bool,
    /// One that is of no backend that there is, and its name.
    stray: Option<(i64, String)>,
}

/// Whose ids are wanted, and who else there is.
struct Wanted<'a> {
    backend: &'a str,
    others: Vec<Arc<str>>,
}

impl Shared {
    /// Reads the next page of ids.
    pub(super) fn load(&self, backend: &str, cursor: i64) {
        let wanted = Wanted { backend, others: self.lanes.names() };
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match page(&reader, &wanted, cursor) {
            Err(error) if is_damage(&error) => self.pass(&reader, &wanted, cursor),
            found => found,
        };
        drop(reader);
        match found {
            Ok(Page { ids, cursor, ended, stray }) => {
                self.lanes.loaded(backend, &ids, cursor, ended);
                if let Some((id, name)) = stray {
                    self.report_stray(id, &name);
                }
            }
            Err(error) => {
                self.report_read(&error);
                self.lanes.not_loaded(backend);
            }
        }
    }

    fn report_stray(&self, id: i64, name: &str) {
        let path = self.folder.database();
        self.quiet.fault(
            "stray",
            Level::Error,
            format_args!(
                "{}: the mail with the id {id} is of a backend {name:?}, which nobody has: it stays there and is \
                 not given out; see `guerrillad spool list`, and check its disk",
                path.display()
            ),
        );
    }

    /// Reads behind what is damaged.
    fn pass(
        &self,
        reader: &Connection,
        wanted: &Wanted<'_>,
        cursor: i64,
    ) -> rusqlite::Result<Page> {
        // Once more, from the disk: the copy in memory may be what is damaged.
        reader.execute_batch("PRAGMA shrink_memory")?;
        let error = match page(reader, wanted, cursor) {
            Err(error) if is_damage(&error) => error,
            found => return found,
        };
        let Some(next) = behind(reader, cursor)? else { return Err(error) };
        self.quiet.say(
            Level::Error,
            format_args!(
                "{}: mails with the ids {} to {} cannot be read: {error}: they stay there, and are tried \
                 again by the next start; the others go on; {}",
                self.folder.database().display(),
                cursor.saturating_add(1),
                next.saturating_sub(1),
                advice_for_database(&error)
            ),
        );
        page(reader, wanted, next.saturating_sub(1))
    }
}

/// Ids of a backend behind `cursor`, up to what cannot be read; an error where that is the first row.
fn page(reader: &Connection, wanted: &Wanted<'_>, cursor: i64) -> rusqlite::Result<Page> {
    let mut select = reader.prepare(IDS)?;
    let limit = i64::try_from(ROWS).unwrap_or(i64::MAX);
    let mut rows = select.query((cursor.saturating_add(1), limit))?;
    let mut found = Page { ids: Vec::new(), cursor, ended: false, stray: None };
    let mut seen = 0;
    while found.ids.len() < PAGE {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => {
                found.ended = seen < ROWS;
                break;
            }
            Err(_) if seen > 0 => break,
            Err(error) => return Err(error),
        };
        seen += 1;
        found.cursor = row.get(0)?;
        let backend = row.get_ref(1)?.as_bytes().unwrap_or_default();
        let is_deferred: bool = row.get(2)?;
        if is_deferred {
            // Its time gives it out.
        } else if backend == wanted.backend.as_bytes() {
            found.ids.push(found.cursor);
        } else if !wanted.others.iter().any(|other| other.as_bytes() == backend) {
            found.stray = Some((found.cursor, salvage::text(row, 1)?));
        }
    }
    Ok(found)
}

/// The first id behind `cursor` from which on can be read again.
fn behind(reader: &Connection, cursor: i64) -> rusqlite::Result<Option<i64>> {
    let mut select = reader.prepare(IDS)?;
    salvage::behind(reader, cursor.saturating_add(1), |from| {
        select.query_row((from, 1), |_| Ok(())).optional()
    })
}
