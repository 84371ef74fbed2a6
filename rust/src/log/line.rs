//! Lines of the log, in both of its forms: what `guerrilla/logs/form.py` makes of Python's own records.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::message::string;
use super::{Content, Level, Record};
use crate::digits::push_digits;
use crate::mail::delivery_header::civil_from_days;

/// The form of a line: `log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `2026-01-31T12:00:00.123Z INFO guerrilla.net message`; of one of several processes, its number
    /// behind the logger, as `guerrilla.net[1]`.
    Text,
    /// An object with `time`, `level`, `logger` and `message`, and the fields of a message; of one of
    /// several processes with its number as `process`.
    Json,
}

/// Records in a row that have level, logger and server in common.
#[derive(Debug)]
pub struct Batch {
    /// Not empty.
    pub records: Vec<Record>,
    /// A line each, with its end; empty where none were asked for.
    pub lines: String,
}

/// Puts records together, and writes their lines; `process` is the number of this one among several.
pub fn batches(records: Vec<Record>, format: Option<Format>, process: Option<u32>) -> Vec<Batch> {
    let mut found: Vec<Batch> = Vec::new();
    let mut clock = Clock::default();
    for record in records {
        if !found.last().is_some_and(|batch| batch.takes(&record)) {
            found.push(Batch { records: Vec::new(), lines: String::new() });
        }
        if let Some(batch) = found.last_mut() {
            match format {
                Some(Format::Text) => {
                    write_text(&mut batch.lines, &record, &mut clock, process);
                }
                Some(Format::Json) => {
                    write_json(&mut batch.lines, &record, &mut clock, process);
                }
                None => {}
            }
            batch.records.push(record);
        }
    }
    found
}

impl Batch {
    fn takes(&self, record: &Record) -> bool {
        self.records.first().is_some_and(|first| {
            let server = (first.server.as_ref(), record.server.as_ref());
            (first.level, first.logger) == (record.level, record.logger)
                && match server {
                    // The same connection's or listener's, nearly always.
                    (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
                    (one, other) => one.is_none() && other.is_none(),
                }
        })
    }
}

impl Level {
    /// Its name in `logging`.
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}

fn write_text(out: &mut String, record: &Record, clock: &mut Clock, process: Option<u32>) {
    clock.write(out, record.created);
    out.extend([" ", record.level.name(), " guerrilla.", record.logger]);
    if let Some(number) = process {
        let _ = write!(out, "[{number}]");
    }
    out.push(' ');
    match &record.content {
        Content::Text(text) => escape(out, text),
        Content::Message(message) => message.write_line(out),
    }
    out.push('\n');
}

fn write_json(out: &mut String, record: &Record, clock: &mut Clock, process: Option<u32>) {
    out.push_str("{\"time\": \"");
    clock.write(out, record.created);
    out.extend(["\", \"level\": \"", record.level.name()]);
    out.extend(["\", \"logger\": \"guerrilla.", record.logger, "\", "]);
    if let Some(number) = process {
        let _ = write!(out, "\"process\": {number}, ");
    }
    match &record.content {
        Content::Text(text) => {
            out.push_str("\"message\": ");
            string(out, text);
        }
        Content::Message(message) => message.write_members(out),
    }
    out.push_str("}\n");
}

/// Writes times, and keeps the text of the last second: nearly all records share it.
#[derive(Default)]
struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    /// `2026-01-31T12:00:00.123Z`
    fn write(&mut self, out: &mut String, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        if self.text.is_empty() || seconds != self.second {
            let (year, month, day) = civil_from_days(seconds / 86_400);
            let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
            self.second = seconds;
            self.text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.");
        }
        out.push_str(&self.text);
        push_digits(out, since.subsec_millis().into(), 100);
        out.push('Z');
    }
}

/// Escapes what could end a line or move a terminal's cursor.
fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            // The line and the paragraph separator end a line for some; what turns the direction of text
            // shows a line as another.
            '\u{2028}'..='\u{202e}' | '\u{200e}' | '\u{200f}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ if character.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(logger: &'static str, server: Option<&str>, text: &str) -> Record {
        let content = Content::Text(text.to_owned());
        let created = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        Record { level: Level::Info, logger, server: server.map(Arc::from), content, created }
    }

    fn lines(records: Vec<Record>, format: Format) -> Vec<String> {
        batches(records, Some(format), None).into_iter().map(|batch| batch.lines).collect()
    }

    #[test]
    fn records_that_belong_together_are_one_batch() {
        let records = vec![
            record("net", Some("a"), "1"),
            record("net", Some("a"), "2"),
            record("net", Some("b"), "3"),
            record("net", None, "4"),
            record("net", None, "5"),
            record("core", None, "6"),
        ];
        let found = batches(records, None, None);
        let counts: Vec<usize> = found.iter().map(|batch| batch.records.len()).collect();
        assert_eq!(counts, [2, 1, 2, 1]);
        assert!(found.iter().all(|batch| batch.lines.is_empty()));
    }

    #[test]
    fn one_of_several_processes_says_which() {
        let found = |format| {
            let batches = batches(vec![record("net", None, "hi")], Some(format), Some(12));
            batches.into_iter().map(|batch| batch.lines).collect::<String>()
        };
        assert_eq!(found(Format::Text), "2023-11-14T22:13:20.250Z INFO guerrilla.net[12] hi\n");
        assert_eq!(
            found(Format::Json),
            "{\"time\": \"2023-11-14T22:13:20.250Z\", \"level\": \"INFO\", \
              \"logger\": \"guerrilla.net\", \"process\": 12, \"message\": \"hi\"}\n"
        );
    }

    #[test]
    fn a_line_cannot_be_forged() {
        let evil = "a\n2026 INFO b\u{2028}\u{85}\x1b\"\\";
        let (text, json) = (
            lines(vec![record("net", None, evil)], Format::Text),
            lines(vec![record("net", None, evil)], Format::Json),
        );
        assert_eq!(
            text,
            ["2023-11-14T22:13:20.250Z INFO guerrilla.net a\\n2026 INFO b\\u2028\\x85\\x1b\"\\\n"]
        );
        assert_eq!(
            json,
            ["{\"time\": \"2023-11-14T22:13:20.250Z\", \"level\": \"INFO\", \
              \"logger\": \"guerrilla.net\", \
              \"message\": \"a\\u000a2026 INFO b\\u2028\\u0085\\u001b\\\"\\\\\"}\n"]
        );
    }
}
