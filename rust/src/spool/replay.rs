//! Failed messages that come back, each once.
//!
//! Its files go once its row is committed. Whoever gives up waiting for that, or dies before the files are
//! gone, leaves both; so the row is committed with a mark of that very failure. Where the mark is there, the
//! message is not inserted again, and its files go.

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::aside::{self, Note};
use super::commands::{PATIENCE, open, wanted_notes};
use super::folder::Folder;
use super::writer::Job;
use super::{Incoming, Refusal, Shared, Spool, database};
use crate::log::Level;

impl Spool {
    /// Puts failed messages back: those, or all. Their age begins anew. How many.
    pub fn replay(&self, queued_ids: Option<&[String]>) -> io::Result<u64> {
        let _asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut marks = Vec::new();
        let notes = wanted_notes(&self.shared.folder.failed(), queued_ids)?;
        let replayed = notes.into_iter().try_for_each(|(path, note)| {
            let (mark, queued_id) = (mark_of(&path, &note), note.queued_id.clone());
            if !self.replay_one(&path, note, &mark, PATIENCE)? {
                return Ok(());
            }
            self.shared.remove_aside(&path)?;
            let text = format_args!("{queued_id}: in the spool again by a command");
            self.shared.quiet.say(Level::Info, text);
            marks.push(mark);
            Ok(())
        });
        let count = marks.len() as u64;
        // Where this does not come through, the next start does it.
        self.shared.send(Job::Forget { marks });
        self.shared.count_failed_files();
        replayed.map(|()| count)
    }

    /// `false` where it cannot be, whatever the spool does: the others are not to wait for it.
    pub(super) fn replay_one(
        &self,
        path: &Path,
        note: Note,
        mark: &str,
        patience: Duration,
    ) -> io::Result<bool> {
        if note.is_damaged {
            return Ok(self.shared.not_replayed(note.reason));
        }
        if self.shared.has_mark(mark)? {
            return Ok(true);
        }
        let eml = path.with_extension("eml");
        let body = match open(&eml).and_then(|file| crate::buffer::Body::stored(&file)) {
            Ok(body) => body,
            Err(error) => return Ok(self.shared.not_replayed(error)),
        };
        let (settled, outcome) = channel();
        let (record, mark) = (note.record(), mark.to_owned());
        self.insert(Box::new(Replayed { note, record, body, mark: mark.clone(), settled }));
        let text = match outcome.recv_timeout(patience) {
            Ok(Ok(())) => return Ok(true),
            // The one that was given up was faster.
            Ok(Err(_)) if self.shared.has_mark(&mark)? => return Ok(true),
            Ok(Err(Refusal::Full)) => "the spool is full: make room, or raise spool.max_bytes",
            Ok(Err(Refusal::Broken)) => "the spool cannot be written: see the log",
            Err(_) => "it takes too long: see the log, and try again: it will not be there twice",
        };
        Err(io::Error::other(format!("{}: cannot be put back: {text}", eml.display())))
    }
}

impl Shared {
    fn not_replayed(&self, reason: impl std::fmt::Display) -> bool {
        let text = format_args!("{reason}: it cannot be put back");
        self.quiet.fault("replay", Level::Error, text);
        false
    }

    fn has_mark(&self, mark: &str) -> io::Result<bool> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let found = database::meta(&reader, mark).map_err(|error| self.cannot_read(&error))?;
        Ok(found != 0)
    }
}

/// Of one failure of one message: ids are never used again.
pub(super) fn mark_of(path: &Path, note: &Note) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    format!("replayed {} {} {stem}", note.id, note.set_aside_ms)
}

/// At the start: removes the files of messages that are in the spool again, and then their marks.
pub(super) fn finish(connection: &Connection, folder: &Folder) -> rusqlite::Result<()> {
    // `!` is what comes behind a space.
    let mut select =
        connection.prepare("SELECT k FROM meta WHERE k > 'replayed ' AND k < 'replayed!'")?;
    let marks: Vec<String> = select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for mark in marks {
        let stem = mark.rsplit(' ').next().unwrap_or_default();
        let path = folder.failed().join(format!("{stem}.json"));
        // It may have failed again since. Where the note is gone, its message may be left.
        let is_it = Note::find(&path).is_none_or(|note| mark_of(&path, &note) == mark);
        if !is_it || aside::remove(folder, &path).is_ok() {
            connection.execute("DELETE FROM meta WHERE k = ?1", [&mark])?;
        }
    }
    Ok(())
}

/// A failed message that comes back.
struct Replayed {
    note: Note,
    record: Vec<u8>,
    body: crate::buffer::Body,
    mark: String,
    settled: Sender<Result<(), Refusal>>,
}

impl Incoming for Replayed {
    fn backend(&self) -> &str {
        &self.note.backend
    }

    fn queued_id(&self) -> &str {
        &self.note.queued_id
    }

    fn received_at(&self) -> SystemTime {
        SystemTime::now()
    }

    fn record(&self) -> &[u8] {
        &self.record
    }

    fn octets(&self) -> &[u8] {
        self.body.as_slice()
    }

    fn mark(&self) -> Option<&str> {
        Some(&self.mark)
    }

    fn settle(self: Box<Self>, outcome: Result<(), Refusal>) {
        let _ = self.settled.send(outcome);
    }
}
