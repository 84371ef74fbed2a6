//! What commits that failed may have written all the same, and how that is taken back.

use rusqlite::Connection;

use super::batch::Saved;
use super::{database, statements};

/// Messages that were refused, and the marks that came with them.
#[derive(Default)]
pub(super) struct Suspects {
    ids: Vec<i64>,
    /// With what each was before; none where it was not there.
    marks: Vec<(String, Option<i64>)>,
    /// Bodies in files, which stay as long as their rows may be there: a process that is started meanwhile would
    /// else find a message without its body, as if it had been lost.
    files: Vec<String>,
}

impl Suspects {
    /// In the order in which they were written.
    pub(super) fn add(&mut self, id: i64, saved: &Saved) {
        self.ids.push(id);
        if saved.adopted.is_none() {
            self.files.extend(saved.file.iter().map(|file| file.name.clone()));
        }
        self.marks.extend(saved.entry.mark().map(|mark| (mark.to_owned(), None)));
        if let Some(adopted) = &saved.adopted {
            self.marks.extend(adopted.gaps.iter().map(|(key, _)| (key.clone(), None)));
            self.marks.push((adopted.key.clone(), Some(adopted.after)));
        }
    }

    /// Deletes them; and has the marks as they were, or they would say of a message that it is here.
    pub(super) fn take_back(&self, connection: &Connection) -> rusqlite::Result<()> {
        for id in &self.ids {
            statements::erase(connection, *id)?;
        }
        for (key, before) in self.marks.iter().rev() {
            match before {
                Some(mark) => database::set_meta(connection, key, *mark)?,
                None => drop(connection.execute("DELETE FROM meta WHERE k = ?1", [key])?),
            }
        }
        Ok(())
    }

    /// They are no more; the files that they had.
    pub(super) fn clear(&mut self) -> Vec<String> {
        std::mem::take(self).files
    }
}
