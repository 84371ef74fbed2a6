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
}

impl Suspects {
    /// In the order in which they were written.
    pub(super) fn add(&mut self, id: i64, saved: &Saved) {
        self.ids.push(id);
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

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
