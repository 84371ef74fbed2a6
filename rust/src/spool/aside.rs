//! Messages that are set aside: failed ones, which can be replayed, and damaged ones, for a person to see.
//!
//! `NAME.eml` is the message as it came, `NAME.json` all else. Both are synced before the row goes, so an
//! end in between leaves a message in both places, and the next attempt writes the same files again.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::faults::Point;
use super::folder::{self, Folder};
use super::lease::Held;
use super::writer::{Job, Why};
use super::{Shared, clock};
use crate::log::Level;

/// What is written of a message that is set aside.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) queued_id: String,
    pub(super) id: i64,
    pub(super) backend: String,
    pub(super) received_ms: i64,
    pub(super) set_aside_ms: i64,
    pub(super) size: u64,
    pub(super) attempts: u32,
    pub(super) reason: String,
    /// The envelope, where it is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<Box<RawValue>>,
    /// And where it is not, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record_hex: Option<String>,
    /// Whether it cannot be read, and this is what its name tells.
    #[serde(skip)]
    pub(super) is_damaged: bool,
}

impl Note {
    /// What stands there, or of one that cannot be read what its name tells; `None` where it is gone.
    pub(super) fn find(path: &Path) -> Option<Self> {
        match Self::read(path) {
            Ok(note) => Some(note),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Self::unreadable(path, &error)),
        }
    }

    fn unreadable(path: &Path, error: &io::Error) -> Self {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let found = fs::metadata(path.with_extension("eml")).ok();
        let written = found.as_ref().and_then(|found| found.modified().ok()).map_or(0, clock::ms);
        Self {
            queued_id: name.split('-').next().unwrap_or_default().to_owned(),
            id: 0,
            backend: String::new(),
            received_ms: written,
            set_aside_ms: written,
            size: found.map_or(0, |found| found.len()),
            attempts: 0,
            reason: format!("{}: {error}: its message is in the .eml beside it", path.display()),
            record: None,
            record_hex: None,
            is_damaged: true,
        }
    }

    pub(super) fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
    }

    pub(super) fn record(&self) -> Vec<u8> {
        match (&self.record, &self.record_hex) {
            (Some(record), _) => record.get().as_bytes().to_vec(),
            (None, Some(hex)) => from_hex(hex),
            (None, None) => Vec::new(),
        }
    }

    fn set_record(&mut self, record: &[u8]) {
        let json = std::str::from_utf8(record).ok();
        self.record = json.and_then(|text| RawValue::from_string(text.to_owned()).ok());
        // White space around it would not come back.
        if self.record.as_ref().is_none_or(|raw| raw.get().as_bytes() != record) {
            self.record = None;
            self.record_hex = Some(hex(record));
        }
    }
}

fn hex(octets: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect()
}

fn from_hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// What the row still has.
struct Content {
    record: Vec<u8>,
    body: Option<Vec<u8>>,
    size: i64,
}

impl Shared {
    /// Sets a message aside, and has its row deleted. Where that fails it is tried again later.
    pub(super) fn set_aside(&self, held: Arc<Held>, reason: &str, why: Why) {
        let folder = match why {
            Why::Damaged => self.folder.damaged(),
            Why::Done | Why::Failed => self.folder.failed(),
        };
        match self.write_aside(&held, reason, &folder) {
            Ok(Some(path)) => {
                if why == Why::Failed {
                    self.figures.failed_files.add();
                }
                self.report_aside(&held, reason, why, &path);
                self.send(Job::Delete { held, why });
            }
            Ok(None) => self.lanes.forget(&held.backend, held.id, held.generation),
            Err(error) => {
                let path = folder.display();
                self.quiet.fault(
                    "aside",
                    Level::Error,
                    format_args!(
                        "{path}: {} cannot be written there: {error}: it is tried again; check its disk",
                        held.queued_id
                    ),
                );
                let next_ms = clock::now_ms().saturating_add(60_000);
                let (attempts, reason) = (held.attempts.saturating_add(1), reason.to_owned());
                self.send(Job::Defer { held, attempts, next_ms, reason });
            }
        }
    }

    fn report_aside(&self, held: &Held, reason: &str, why: Why, path: &Path) {
        let (id, path) = (&held.queued_id, path.display());
        if why == Why::Damaged {
            let text = format_args!(
                "{path}: {id} is damaged and was set aside: {reason}: what is left of it is there; \
                 check the disk"
            );
            self.quiet.fault("damaged", Level::Error, text);
        } else {
            let text = format_args!("{path}: {id} failed and was set aside: {reason}");
            self.quiet.fault("failed", Level::Warning, text);
        }
    }

    /// `None` where its row is gone.
    fn write_aside(&self, held: &Held, reason: &str, folder: &Path) -> io::Result<Option<PathBuf>> {
        let Some(content) = self.content(held.id).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let _pair = self.lock_pairs();
        let base = free_name(folder, &held.queued_id, held.id);
        let mut note = Note {
            queued_id: held.queued_id.clone(),
            id: held.id,
            backend: held.backend.to_string(),
            received_ms: held.received_ms,
            set_aside_ms: clock::now_ms(),
            size: content.size.unsigned_abs(),
            attempts: held.attempts.saturating_add(1),
            reason: reason.to_owned(),
            record: None,
            record_hex: None,
            is_damaged: false,
        };
        note.set_record(&content.record);
        let eml = folder.join(format!("{base}.eml"));
        match (&content.body, &held.file) {
            (Some(body), _) => self.write_whole(&eml, body)?,
            (None, Some(name)) => {
                folder::remove(&eml)?;
                // What is left of a damaged one may be its envelope alone.
                self.folder.link(&self.folder.body(name), &eml)?;
            }
            (None, None) => {}
        }
        let mut text = serde_json::to_vec_pretty(&note).map_err(io::Error::other)?;
        text.push(b'\n');
        let json = folder.join(format!("{base}.json"));
        self.write_whole(&json, &text)?;
        self.folder.sync(folder)?;
        Ok(Some(json))
    }

    pub(super) fn lock_pairs(&self) -> MutexGuard<'_, ()> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a message that was set aside.
    pub(super) fn remove_aside(&self, json: &Path) -> io::Result<()> {
        let _pair = self.lock_pairs();
        remove(&self.folder, json)
    }

    fn content(&self, id: i64) -> rusqlite::Result<Option<Content>> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader
            .query_row("SELECT env, body, size FROM msg WHERE id = ?1", [id], |row| {
                Ok(Content { record: row.get(0)?, body: row.get(1)?, size: row.get(2)? })
            })
            .optional()
    }

    /// Writes a file that is there whole or not at all.
    fn write_whole(&self, path: &Path, octets: &[u8]) -> io::Result<()> {
        let begun = path.with_added_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&begun)?;
        self.folder.faults.at(Point::Write)?;
        file.write_all(octets)?;
        self.folder.faults.at(Point::Sync)?;
        file.sync_data()?;
        fs::rename(&begun, path)
    }
}

/// What its files are called: its id, as far as a name can have it.
pub(super) fn safe(queued_id: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    queued_id.chars().map(|one| if plain(one) { one } else { '_' }).take(100).collect()
}

/// Whether a file is called by one of these names, with numbers behind it or without.
pub(super) fn is_of(path: &Path, names: &HashSet<String>) -> bool {
    let mut stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    loop {
        if names.contains(stem) {
            return true;
        }
        let Some((shorter, _)) = stem.rsplit_once('-') else { return false };
        stem = shorter;
    }
}

/// Its id, and where another message of that id is there, a number behind it.
fn free_name(folder: &Path, queued_id: &str, id: i64) -> String {
    let name = safe(queued_id);
    let other = Note::read(&folder.join(format!("{name}.json"))).is_ok_and(|note| note.id != id);
    if other || name.is_empty() { format!("{name}-{id}") } else { name }
}

/// Names of what is set aside in a folder, in order.
pub(super) fn names(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    found.sort();
    Ok(found)
}

/// Removes a message that was set aside: first what names it.
pub(super) fn remove(folder: &Folder, json: &Path) -> io::Result<()> {
    folder.faults.at(Point::Unlink)?;
    folder::remove(json)?;
    folder.faults.at(Point::UnlinkMessage)?;
    folder::remove(&json.with_extension("eml"))?;
    json.parent().map_or(Ok(()), |parent| folder.sync(parent))
}

/// Moves what another process had set aside.
pub(super) fn take_over(from: &Path, folder: &Folder, to: &Path) -> io::Result<()> {
    for json in names(from)? {
        let note = Note::read(&json).ok();
        let stem = json.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let mut base = stem.to_owned();
        if to.join(format!("{base}.json")).exists() {
            // Of another folder, where ids are others.
            base = format!("{stem}-{}", note.map_or(0, |note| note.set_aside_ms));
        }
        let eml = json.with_extension("eml");
        if eml.exists() {
            folder.shift(&eml, &to.join(format!("{base}.eml")))?;
        }
        folder.shift(&json, &to.join(format!("{base}.json")))?;
    }
    for entry in fs::read_dir(from)? {
        // Messages of which nothing else is known.
        let entry = entry?;
        folder.shift(&entry.path(), &to.join(entry.file_name()))?;
    }
    folder.sync(to)
}
