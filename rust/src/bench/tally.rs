//! What became of the messages.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::client::{Fault, Heard, Outcome, Stage};
use super::histogram::Histogram;
use super::timeline::Timeline;

/// What ended a connection that a server should have kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nobody listens there.
    Refused,
    /// There is no way there.
    Unreachable,
    /// No port of this machine is free.
    NoPort,
    /// No descriptor is free.
    NoDescriptor,
    /// The connection was reset.
    Reset,
    /// The connection was closed where a reply was due.
    Closed,
    /// Nothing came in time.
    Stalled,
    /// The handshake failed, or the certificate is not taken.
    Tls,
    /// STARTTLS is not offered.
    NoStartTls,
    /// What was said is no SMTP.
    Protocol,
    /// Something else.
    Other,
}

impl Kind {
    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no-port",
            Self::NoDescriptor => "no-descriptor",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Stalled => "stalled",
            Self::Tls => "tls",
            Self::NoStartTls => "no-starttls",
            Self::Protocol => "protocol",
            Self::Other => "other",
        }
    }
}

/// Why a connection is of no use any more.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    text: String,
}

impl Failure {
    pub(super) fn stalled(patience: Duration) -> Self {
        Self { kind: Kind::Stalled, text: format!("nothing within {} s", patience.as_secs_f64()) }
    }

    pub(super) fn closed() -> Self {
        Self { kind: Kind::Closed, text: "the connection was closed".to_owned() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => Kind::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Kind::Reset
            }
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NotFound => {
                Kind::Unreachable
            }
            ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => Kind::NoPort,
            ErrorKind::TimedOut => Kind::Stalled,
            _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                Kind::NoDescriptor
            }
            _ => Kind::Other,
        };
        Self { kind, text: error.to_string() }
    }
}

impl From<rustls::Error> for Failure {
    fn from(error: rustls::Error) -> Self {
        Self { kind: Kind::Tls, text: error.to_string() }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let kind = if fault == Fault::NoStartTls { Kind::NoStartTls } else { Kind::Protocol };
        Self { kind, text: fault.to_string() }
    }
}

/// How often, and what was said the first time.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// How often.
    pub count: u64,
    /// What was said; of a reply that refuses, and of an error.
    pub text: Option<String>,
}

impl Noted {
    fn add(&mut self, count: u64, text: Option<&str>) {
        self.count += count;
        if self.text.is_none() {
            self.text = text.map(str::to_owned);
        }
    }
}

/// What is counted, in one thread.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Messages that were begun.
    pub begun: u64,
    /// Messages that were taken for every recipient.
    pub accepted: u64,
    /// Messages that a reply has refused, for one recipient at least.
    pub refused: u64,
    /// Messages that an error has ended.
    pub failed: u64,
    /// Octets of the accepted ones.
    pub octets: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Replies by where they came, and by code.
    pub replies: BTreeMap<(Stage, u16), Noted>,
    /// Errors by kind, and by where they came.
    pub errors: BTreeMap<(Kind, Stage), Noted>,
    /// From the final dot to its last reply.
    pub replied: Histogram,
    /// From when the message was due to its last reply.
    pub due: Histogram,
    /// When messages ended.
    pub timeline: Timeline,
    /// When the last one did.
    pub last: Option<Instant>,
}

impl Tally {
    pub(super) fn hear(&mut self, heard: &Heard) {
        let noted = self.replies.entry((heard.stage, heard.code)).or_default();
        noted.add(1, heard.text.as_deref());
    }

    pub(super) fn fail(&mut self, stage: Stage, failure: &Failure) {
        self.errors.entry((failure.kind, stage)).or_default().add(1, Some(&failure.text));
    }

    /// A message has ended; without an outcome by an error.
    pub(super) fn end(&mut self, outcome: Option<Outcome>, octets: u64, start: Instant) {
        match outcome {
            Some(Outcome::Accepted) => {
                self.accepted += 1;
                self.octets += octets;
            }
            Some(Outcome::Refused) => self.refused += 1,
            None => self.failed += 1,
        }
        let now = Instant::now();
        self.last = Some(now);
        self.timeline.add(now.duration_since(start), outcome == Some(Outcome::Accepted));
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Self) {
        self.begun += other.begun;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.failed += other.failed;
        self.octets += other.octets;
        self.connections += other.connections;
        for (key, noted) in &other.replies {
            self.replies.entry(*key).or_default().add(noted.count, noted.text.as_deref());
        }
        for (key, noted) in &other.errors {
            self.errors.entry(*key).or_default().add(noted.count, noted.text.as_deref());
        }
        self.replied.merge(&other.replied);
        self.due.merge(&other.due);
        self.timeline.merge(&other.timeline);
        self.last = self.last.max(other.last);
    }
}
