//! The turns of an I/O thread, and its naps between them.
//!
//! A thread that waits for the first octets to come is woken for one connection, and soon waits again. Under load it
//! naps instead, so that one turn has all that came meanwhile, as network cards moderate their interrupts: fewer
//! switches of threads, nobody who has to wake it, and workers that are called once for several messages.
//!
//! A nap costs time, for each reply as much as is left of it. Senders that are busy anyhow do not notice, and those
//! that wait for their replies send less. Which they are shows in the rate alone: so some of the time goes without
//! naps, and they become shorter, down to none, where more is answered then.

#[cfg(test)]
pub(super) mod tests;

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

// The figures are those that gained most in `make bench` on two cores.

/// The longest nap. A reply waits for two at most: for its command to be heard, and for the answer of a worker.
const LONGEST: Duration = Duration::from_micros(300);
/// A shorter one costs as much as it saves.
const SHORTEST: Duration = Duration::from_micros(100);
/// Replies a second under which a turn finds too little even behind a nap.
const LOAD: u64 = 10_000;
/// A nap is so small a part of the time from one reply of a connection to its next, in the mean.
const SHARE: u32 = 4;
/// A turn of so many replies is large enough without a nap: so are those of a thread that is never idle.
const MANY: u64 = 32;
/// Octets that may come during a nap: more would not be in the processor's cache any more when they are read.
const WAITING: u64 = 128 << 10;
/// Time is counted in windows, each with naps or without any.
const WINDOW: Duration = Duration::from_millis(5);
/// Naps are judged after so many cycles; where there are none, and where the judgement is clear, after a short one.
const TRIAL: u32 = 2;
/// Windows in which senders get used to naps, or to none: they say nothing about either.
const SETTLING: u32 = 4;
/// Times the nap before, where that was good.
const LONGER: u32 = 3;
/// Naps that cost one of so many replies, or more, are too long. That has to show twice, since rates vary by themselves;
/// and it is so much, since a sender on the same machine becomes slower by itself where it has more connections open.
const LOST: u64 = 3;
/// Unless they cost one of so many.
const CLEARLY_LOST: u64 = 2;
/// Trials before a longer nap where that was too long, once and again and again: without any, a third of a second and ten.
const SHORTEST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 128;
/// What was counted before such a gap tells nothing about what comes.
const GAP: Duration = Duration::from_secs(1);

thread_local! {
    static TURNS: RefCell<Turns> = RefCell::new(Turns::default());
}

/// A runtime of one thread that naps under load.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().on_thread_park(end).build()
}

/// So many replies were written, on this thread.
pub(super) fn replied(replies: u64) {
    TURNS.with_borrow_mut(|turns| turns.window.replies += replies);
}

/// The window in which a connection was last heard. The number of a window comes again after five minutes: then one
/// connection is not counted, once.
#[derive(Debug, Default)]
pub(super) struct Heard(u16);

impl Heard {
    /// So many octets were read, on this thread.
    pub(super) fn octets(&mut self, octets: usize) {
        TURNS.with_borrow_mut(|turns| {
            turns.window.octets += octets as u64;
            if self.0 != turns.number {
                self.0 = turns.number;
                turns.window.connections += 1;
            }
        });
    }
}

/// The thread has nothing more to do.
fn end() {
    let nap = TURNS.with_borrow_mut(|turns| turns.end(Instant::now()));
    if !nap.is_zero() {
        // Not a wait of the runtime's: that would end with the first octets that come.
        std::thread::sleep(nap);
    }
}

/// What was done in some time.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    turns: u64,
    connections: u64,
    replies: u64,
    octets: u64,
    time: Duration,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.turns += other.turns;
        self.connections += other.connections;
        self.replies += other.replies;
        self.octets += other.octets;
        self.time += other.time;
    }

    fn fade(&mut self) {
        *self = Self {
            turns: self.turns / 2,
            connections: self.connections / 2,
            replies: self.replies / 2,
            octets: self.octets / 2,
            time: self.time / 2,
        };
    }

    fn nanoseconds(&self) -> u64 {
        u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX)
    }

    fn replies_a_second(&self) -> u64 {
        self.replies.saturating_mul(1_000_000_000) / self.nanoseconds().max(1)
    }

    /// From one reply of a connection to its next, in the mean.
    fn between(&self) -> Duration {
        Duration::from_nanos(
            self.nanoseconds().saturating_mul(self.connections) / self.replies.max(1),
        )
    }

    /// The time in which so many octets come.
    fn time_of(&self, octets: u64) -> Duration {
        Duration::from_nanos(self.nanoseconds().saturating_mul(octets) / self.octets.max(1))
    }
}

/// The windows of a cycle, of which the first are without naps.
#[derive(Clone, Copy, Debug)]
struct Cycle {
    awake: u32,
    windows: u32,
}

impl Cycle {
    /// While naps are tried.
    const TRIED: Self = Self { awake: 12, windows: 24 };
    /// Once the longest were found good.
    const GOOD: Self = Self { awake: 8, windows: 128 };

    /// Whether there are naps after so many windows.
    fn naps(self, windows: u32) -> bool {
        windows % self.windows >= self.awake
    }

    fn is_settled(self, windows: u32) -> bool {
        let at = windows % self.windows;
        at.checked_sub(self.awake).unwrap_or(at) >= SETTLING
    }
}

/// How long the naps are, and what that is judged by.
#[derive(Debug, Default)]
struct Turns {
    /// When the window began, whether it has naps, and which it is.
    began: Option<Instant>,
    naps: bool,
    number: u16,
    window: Tally,
    /// Windows of this trial that are over.
    windows: u32,
    /// What was done without naps, and with those that are being tried.
    awake: Tally,
    napping: Tally,
    /// The nap that is being tried; none while it is zero.
    nap: Duration,
    /// How much of it connections bear, by the last window without naps: nothing where there is too little load.
    bearable: Duration,
    /// And how much of that is allowed by the octets that came in the last window.
    allowed: Duration,
    /// It was too long by the last trial.
    is_doubted: bool,
    /// Trials before a longer one is tried.
    rest: u32,
    /// How many that were the last time; twice as many the next time.
    pause: u32,
}

impl Turns {
    /// The nap before the next turn; zero where there is to be none.
    fn end(&mut self, now: Instant) -> Duration {
        self.window.turns += 1;
        self.window.time = now.duration_since(*self.began.get_or_insert(now));
        if self.window.time >= WINDOW {
            self.began = Some(now);
            self.number = self.number.wrapping_add(1);
            let window = std::mem::take(&mut self.window);
            self.close(window);
            self.naps = self.cycle().naps(self.windows) && self.nap.min(self.allowed) >= SHORTEST;
        }
        if self.naps { self.nap.min(self.allowed) } else { Duration::ZERO }
    }

    fn cycle(&self) -> Cycle {
        if self.nap == LONGEST && self.pause == 0 { Cycle::GOOD } else { Cycle::TRIED }
    }

    fn trial_is_over(&self) -> bool {
        let is_clear = self.nap.is_zero() || self.costs(CLEARLY_LOST);
        (is_clear && self.windows.is_multiple_of(Cycle::TRIED.windows))
            || self.windows == TRIAL * self.cycle().windows
    }

    /// A window is over.
    fn close(&mut self, window: Tally) {
        if window.time >= 2 * WINDOW {
            // The thread has waited, or its turns are so long that each hears many.
            (self.bearable, self.allowed) = Default::default();
            if window.time >= GAP {
                (self.windows, self.awake, self.napping) = Default::default();
            }
            return;
        }
        // With naps a load may be less because of them: that is for the judgement.
        if !self.naps {
            let is_loaded = window.replies_a_second() >= LOAD;
            self.bearable = if is_loaded { window.between() / SHARE } else { Duration::ZERO };
        }
        self.allowed = self.bearable.min(window.time_of(WAITING));
        if self.bearable.is_zero() {
            return;
        }
        if self.cycle().is_settled(self.windows) {
            let tally = if self.naps { &mut self.napping } else { &mut self.awake };
            tally.add(window);
        }
        self.windows += 1;
        if self.trial_is_over() {
            self.windows = 0;
            self.judge();
        }
    }

    /// Whether naps cost one of so many replies, or more.
    fn costs(&self, one_of: u64) -> bool {
        let awake = self.awake.replies_a_second();
        self.napping.turns > 0 && self.napping.replies_a_second() <= awake - awake / one_of
    }

    /// Naps were good.
    fn lengthen(&mut self) {
        if self.rest > 0 {
            self.rest -= 1;
        } else if self.nap < LONGEST {
            self.nap = (LONGER * self.nap).clamp(SHORTEST, LONGEST);
        } else {
            self.pause = 0;
        }
    }

    /// The trial is over: naps are made longer or shorter, or stay.
    fn judge(&mut self) {
        let before = self.nap;
        if self.awake.replies >= MANY * self.awake.turns {
            self.nap = Duration::ZERO;
        } else if self.costs(LOST) && !self.is_doubted && !self.costs(CLEARLY_LOST) {
            self.is_doubted = true;
        } else if self.costs(LOST) {
            self.is_doubted = false;
            let shorter = self.nap / 2;
            self.nap = if shorter < SHORTEST { Duration::ZERO } else { shorter };
            self.pause = (2 * self.pause).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            self.rest = self.pause;
        } else {
            self.is_doubted = false;
            self.lengthen();
        }
        self.napping = Tally::default();
        // Its windows are few: what was before the trial counts too, for less.
        if self.nap == before { self.awake.fade() } else { self.awake = Tally::default() }
    }
}
