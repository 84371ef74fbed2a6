use std::time::{Duration, Instant};

use super::super::Turns;

pub(super) const MICROSECOND: Duration = Duration::from_micros(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// What senders do, in turns of a thread that works for some time in each.
pub(super) struct Load {
    pub(super) turns: Turns,
    pub(super) now: Instant,
    replies: f64,
    /// Read several times in each window, and once.
    pub(super) connections: u64,
    pub(super) once: u64,
    /// Replies to each read.
    pub(super) replies_a_read: u64,
    /// Whether the thread waits in a turn, but for its nap, or works.
    pub(super) waits: bool,
}

impl Load {
    /// Of a hundred connections, unless it is said otherwise.
    pub(super) fn new() -> Self {
        Self {
            turns: Turns::default(),
            now: Instant::now(),
            replies: 0.0,
            connections: 100,
            once: 0,
            replies_a_read: 1,
            waits: true,
        }
    }

    /// Turns for so long, in each of which `replies` are written of so many octets, after the time that it takes
    /// with a nap; gives the replies a second, and how much of the time was napped.
    pub(super) fn run(
        &mut self,
        time: Duration,
        octets: u64,
        turn: impl Fn(Duration) -> (Duration, f64),
    ) -> (f64, f64) {
        let began = self.now;
        let (mut answered, mut napped) = (0, Duration::ZERO);
        while self.now - began < time {
            let nap = self.turns.end_turn(self.now);
            let (took, replies) = turn(nap);
            let begins = if self.waits { self.now + took } else { self.now + nap };
            self.turns.begin_turn(begins);
            self.now += took;
            self.replies += replies;
            while self.replies >= 1.0 {
                self.replies -= 1.0;
                answered += 1;
                self.turns.window.replies += 1;
                self.turns.window.octets += octets;
            }
            let window = &mut self.turns.window;
            window.connections = self.connections;
            window.reads = window.replies / self.replies_a_read;
            window.rereads = window.reads.saturating_sub(self.connections + self.once);
            napped += nap;
        }
        let time = (self.now - began).as_secs_f64();
        (f64::from(answered) / time, napped.as_secs_f64() / time)
    }
}

/// So many replies a second, whatever this thread does: others have to be waited for as well.
pub(super) fn busy(rate: f64) -> impl Fn(Duration) -> (Duration, f64) {
    move |nap| {
        let took = nap + 30 * MICROSECOND;
        (took, rate * took.as_secs_f64())
    }
}

/// So many connections, of which each sends its next command so many µs after its reply.
pub(super) fn waiting(connections: u32, between: u32) -> impl Fn(Duration) -> (Duration, f64) {
    move |nap| (nap + between * MICROSECOND, f64::from(connections))
}
