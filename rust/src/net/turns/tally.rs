//! What an I/O thread did in a time, and how long a nap its connections bear by that.

use std::time::Duration;

/// Time is counted in windows, each with naps or without any.
pub(super) const WINDOW: Duration = Duration::from_millis(5);
/// A nap is so small a part of the time from one read of a connection to its next, in the mean of those that are read
/// several times in a window. Connections that come for one mail each count as many: who opens them may open more.
pub(super) const SHARE: u32 = 3;
/// Those do not count where they have less than one of so many reads, and are not fast themselves: all others are as slow
/// as a window is long.
const FEW: u64 = 4;
/// A connection is fast that is read so many times in a window.
const FAST: u64 = 8;
/// A thread that waits for less than one part in so many of its time has turns that are large without a nap, and a nap would
/// be lost.
const IDLE: u32 = 16;
/// Octets that may come during a nap: more would not be in the processor's cache any more when they are read.
pub(super) const WAITING: u64 = 128 << 10;

/// What was done in a window, or in several.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) reads: u64,
    /// Those of connections that were read in the same window before.
    pub(super) rereads: u64,
    /// How many those were, in each window.
    pub(super) connections: u64,
    pub(super) replies: u64,
    pub(super) octets: u64,
    pub(super) time: Duration,
    /// How much of it the thread had nothing to do.
    pub(super) idle: Duration,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.rereads += other.rereads;
        self.connections += other.connections;
        self.replies += other.replies;
        self.octets += other.octets;
        self.time += other.time;
        self.idle += other.idle;
    }

    pub(super) fn fade(&mut self) {
        *self = Self {
            reads: self.reads / 2,
            rereads: self.rereads / 2,
            connections: self.connections / 2,
            replies: self.replies / 2,
            octets: self.octets / 2,
            time: self.time / 2,
            idle: self.idle / 2,
        };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.time.is_zero()
    }

    fn nanoseconds(&self) -> u64 {
        u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX)
    }

    fn a_second(&self, count: u64) -> u64 {
        count.saturating_mul(1_000_000_000) / self.nanoseconds().max(1)
    }

    pub(super) fn replies_a_second(&self) -> u64 {
        self.a_second(self.replies)
    }

    /// What a turn hears and answers, whichever is less: many replies to one read have no use for a longer turn.
    pub(super) fn load_a_second(&self) -> u64 {
        self.a_second(self.replies.min(self.reads))
    }

    /// From one read of a connection to its next, in the mean of those that are read several times in a window.
    fn between(&self) -> Duration {
        let reads = self.rereads + self.connections;
        if FEW * reads < self.reads && reads <= FAST * self.connections {
            return WINDOW;
        }
        // Some windows are longer than that, and naps then shorter than they could be.
        let window = u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(window.saturating_mul(self.connections) / reads.max(1))
    }

    /// The time in which so many octets come.
    pub(super) fn time_of(&self, octets: u64) -> Duration {
        Duration::from_nanos(self.nanoseconds().saturating_mul(octets) / self.octets.max(1))
    }

    /// How long a nap may be, by these windows without any.
    pub(super) fn bears(&self) -> Duration {
        if self.idle < self.time / IDLE {
            return Duration::ZERO;
        }
        (self.between() / SHARE).min(self.time_of(WAITING))
    }
}
