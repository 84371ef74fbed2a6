//! Rows that cannot be changed: the pages on which they, or their neighbours, are do not hold together any more.
//!
//! Nothing else is wrong then: what was to be committed with them is, and the spool goes on. They stay as they
//! are for a person to look at.

use rusqlite::Connection;

use super::Shared;
use super::batch::{Batch, Effect};
use super::error::advice_for_database;
use super::lease::Held;
use super::writer::{Job, Writer};
use crate::log::Level;

impl Writer {
    /// After an error: has all but that row done anew, where it is one. The transaction is rolled back
    /// before: half of a change may be in it.
    pub(super) fn without_stuck(
        &mut self,
        connection: &Connection,
        mut batch: Batch,
        error: &rusqlite::Error,
    ) -> Result<(), Batch> {
        if !connection.is_autocommit() {
            return Err(batch);
        }
        let Some(effect) = batch.take_stuck(error) else { return Err(batch) };
        self.shared.leave_stuck(effect, error);
        // Ids that were reserved in it are not: the next one does that anew.
        self.reserved = self.next - 1;
        let later = std::mem::replace(&mut self.waiting, batch.into_jobs().collect());
        self.waiting.extend(later);
        Ok(())
    }
}

impl Shared {
    fn leave_stuck(&self, effect: Effect, error: &rusqlite::Error) {
        match effect {
            Effect::Deleted { held, .. } => {
                self.lanes.forget(&held.backend, held.id, held.generation);
                self.report_stuck(&held, "is done with and cannot be deleted", error);
            }
            Effect::Deferred { job: Job::Defer { held, next_ms, .. }, .. } => {
                // In memory alone.
                self.lanes.deferred(&held.backend, held.id, Some(held.generation), next_ms);
                self.report_stuck(&held, "is to be tried again, and that cannot be noted", error);
            }
            // Who asked is told that it was not done.
            _ => {}
        }
    }

    fn report_stuck(&self, held: &Held, what: &str, error: &rusqlite::Error) {
        self.quiet.fault(
            "stuck",
            Level::Error,
            format_args!(
                "{}: {} {what}: {error}: it stays there, and comes again with the next start; {}",
                self.folder.database().display(),
                held.queued_id,
                advice_for_database(error)
            ),
        );
    }
}
