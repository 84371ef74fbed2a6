//! The turns of an I/O thread, and its naps between them.
//!
//! A thread that waits for the first octets to come is woken for one connection, and soon waits again. Under load it
//! naps instead, so that one turn has all that came meanwhile, as network cards moderate their interrupts: fewer
//! switches of threads, nobody who has to wake it, and workers that are called once for several messages.
//!
//! A nap costs time, for each reply as much as is left of it. Senders that are busy anyhow do not notice; those that
//! wait for their replies send less. So a nap is a small part of what a connection takes from one read to its next. That
//! is a mean, and some may wait among many that do not: so naps become shorter, down to none, where they cost too much of
//! the rate.

mod tally;
#[cfg(test)]
pub(super) mod tests;

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use tally::{SHARE, Tally, WAITING, WINDOW};
use tokio::runtime::{Builder, Runtime};

// The figures are those that gained most in `make bench` on two cores.

/// The longest nap. A reply waits for two at most: for its command to be heard, and for the answer of a worker.
const LONGEST: Duration = Duration::from_micros(500);
/// A shorter one costs more of the rate than it saves of the CPU: a reply waits for it, and a turn is hardly larger.
const SHORTEST: Duration = Duration::from_micros(250);
/// By so much the system makes each longer than it was asked to (`PR_SET_TIMERSLACK` in prctl(2)).
const SLACK: Duration = Duration::from_micros(50);
/// Reads and replies a second under which a turn finds too little even behind a nap; a load has ended where they are a third
/// less.
const LOAD: u64 = 10_000;
/// Naps are judged after so many cycles; where there are none, and where the judgement is clear, after a short one.
const TRIAL: u32 = 2;
/// Windows in which senders get used to naps, or to none: they say nothing about either, unless naps leave no load at all.
const SETTLING: u32 = 4;
/// Times the nap before, where that was good.
const LONGER: u32 = 3;
/// Naps that cost one of so many replies, or more, are too long. That has to show twice, since rates vary by themselves;
/// and it is so much, since a sender on the same machine becomes slower by itself where it has more connections open.
const LOST: u64 = 4;
/// Where they cost one of so many, once is enough.
const CLEARLY_LOST: u64 = 3;
/// Trials before a longer nap where that was too long: once, and again and again. Without any nap, half a second and 15.
const SHORTEST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 128;
/// What was counted before so long without load tells nothing about what comes.
const GAP: Duration = Duration::from_secs(1);
/// It is judged then, where there were naps for at least so long: the last window is not a whole one.
const LEAST: Duration = Duration::from_millis(40);

thread_local! {
    static TURNS: RefCell<Turns> = RefCell::new(Turns::default());
}

/// A runtime of one thread that naps under load.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .on_thread_park(end_turn)
        .on_thread_unpark(begin_turn)
        .build()
}

/// So many replies were written, on this thread.
pub(super) fn replied(replies: u64) {
    TURNS.with_borrow_mut(|turns| turns.window.replies += replies);
}

/// The window in which a connection was last read, and whether that was more than once. The window's number comes again after
/// five minutes: then a read may count for the wrong one.
#[derive(Debug, Default)]
pub(super) struct Heard {
    window: u16,
    again: bool,
}

impl Heard {
    /// So many octets were read, on this thread.
    pub(super) fn octets(&mut self, octets: usize) {
        TURNS.with_borrow_mut(|turns| {
            let window = &mut turns.window;
            window.octets += octets as u64;
            window.reads += 1;
            if self.window != turns.window_number {
                *self = Self { window: turns.window_number, again: false };
                return;
            }
            window.rereads += 1;
            if !self.again {
                self.again = true;
                window.connections += 1;
            }
        });
    }
}

/// The thread has something to do again.
fn begin_turn() {
    TURNS.with_borrow_mut(|turns| turns.begin_turn(Instant::now()));
}

/// The thread has nothing more to do.
fn end_turn() {
    let nap = TURNS.with_borrow_mut(|turns| turns.end_turn(Instant::now()));
    if !nap.is_zero() {
        // Not a wait of the runtime's: that would end with the first octets that come.
        std::thread::sleep(nap.saturating_sub(SLACK));
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
    /// While nothing speaks against the longest.
    const GOOD: Self = Self { awake: 8, windows: 128 };

    /// Whether there are naps after so many windows.
    fn naps(self, windows: u32) -> bool {
        windows % self.windows >= self.awake
    }
}

/// How long the naps are, and what that is judged by.
#[derive(Debug)]
struct Turns {
    /// When the turn ended.
    ended: Option<Instant>,
    /// When the window began, which it is, and whether it has naps.
    began: Option<Instant>,
    window_number: u16,
    is_napping: bool,
    /// Windows since there are naps, or none.
    unchanged: u32,
    window: Tally,
    /// How long there has been no load.
    quiet: Duration,
    /// Windows of this trial that are over.
    windows: u32,
    /// What was done without naps, and with those that are being tried.
    awake: Tally,
    napping: Tally,
    /// The last window of those, where it had too few replies for a load: naps may be the reason.
    suspect: Tally,
    /// The nap that is being tried; none while it is zero.
    nap: Duration,
    /// How much of it is bearable, by the windows without naps: nothing where there is too little load.
    bearable: Duration,
    /// What of that the octets allow which came in the last window.
    allowed: Duration,
    /// It was too long by the last trial.
    is_doubted: bool,
    /// Trials before a longer one is tried.
    rest: u32,
    /// How many that were the last time; twice as many the next time.
    pause: u32,
}

impl Default for Turns {
    /// The longest naps, until they are found to be too long: most senders do not notice them.
    fn default() -> Self {
        Self {
            ended: None,
            began: None,
            window_number: 0,
            is_napping: false,
            unchanged: 0,
            window: Tally::default(),
            quiet: GAP,
            windows: 0,
            awake: Tally::default(),
            napping: Tally::default(),
            suspect: Tally::default(),
            nap: LONGEST,
            bearable: Duration::ZERO,
            allowed: Duration::ZERO,
            is_doubted: false,
            rest: 0,
            pause: 0,
        }
    }
}

impl Turns {
    fn begin_turn(&mut self, now: Instant) {
        if let Some(ended) = self.ended {
            self.window.idle += now.duration_since(ended);
        }
    }

    /// The nap before the next turn; zero where there is to be none.
    fn end_turn(&mut self, now: Instant) -> Duration {
        self.ended = Some(now);
        self.window.time = now.duration_since(*self.began.get_or_insert(now));
        if self.window.time >= WINDOW {
            self.began = Some(now);
            self.window_number = self.window_number.wrapping_add(1);
            let window = std::mem::take(&mut self.window);
            self.close(window);
            self.set_napping(
                self.cycle().naps(self.windows) && self.nap.min(self.allowed) >= SHORTEST,
            );
        }
        if self.is_napping { self.nap.min(self.allowed) } else { Duration::ZERO }
    }

    fn cycle(&self) -> Cycle {
        let is_good = self.nap == LONGEST && self.pause == 0 && !self.is_doubted;
        if is_good { Cycle::GOOD } else { Cycle::TRIED }
    }

    fn trial_is_over(&self) -> bool {
        let is_clear = self.nap.is_zero() || self.costs(CLEARLY_LOST);
        (is_clear && self.windows.is_multiple_of(Cycle::TRIED.windows))
            || self.windows == TRIAL * self.cycle().windows
    }

    fn set_napping(&mut self, is_napping: bool) {
        self.unchanged =
            if self.is_napping == is_napping { self.unchanged.saturating_add(1) } else { 0 };
        self.is_napping = is_napping;
    }

    /// A window is over.
    fn close(&mut self, window: Tally) {
        // By themselves naps cost no more than their share: less than that has another cause, or they are too long.
        let goes_on = self.quiet.is_zero() || !self.suspect.is_empty();
        let least = if goes_on { LOAD - LOAD / u64::from(SHARE) } else { LOAD };
        // A thread that has waited has no load, nor any use for naps where each of its turns is as long as that.
        let is_whole = window.time < 2 * WINDOW;
        if !is_whole || window.load_a_second() < least {
            self.suspect = if is_whole && self.is_napping { window } else { Tally::default() };
            self.be_quiet(window.time);
            return;
        }
        self.quiet = Duration::ZERO;
        if self.unchanged >= SETTLING {
            self.count(window);
        }
        self.allowed = self.bearable.min(window.time_of(WAITING));
        self.windows += 1;
        if self.trial_is_over() {
            self.windows = 0;
            self.judge();
        }
    }

    /// A window shows what is done with naps, or without.
    fn count(&mut self, window: Tally) {
        if self.is_napping {
            self.napping.add(window);
            return;
        }
        self.awake.add(window);
        self.bearable = self.awake.bears();
        // Without naps there is load again.
        self.napping.add(std::mem::take(&mut self.suspect));
    }

    /// There was no load for so long.
    fn be_quiet(&mut self, time: Duration) {
        (self.bearable, self.allowed) = Default::default();
        self.quiet += time;
        if self.quiet >= GAP {
            if self.napping.time >= LEAST && self.costs(LOST) {
                self.compare();
            }
            (self.windows, self.awake, self.napping) = Default::default();
        }
    }

    /// Whether naps cost one of so many replies, or more.
    fn costs(&self, one_of: u64) -> bool {
        let awake = self.awake.replies_a_second();
        !self.napping.is_empty() && self.napping.replies_a_second() <= awake - awake / one_of
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

    /// They were too long.
    fn shorten(&mut self) {
        let shorter = self.nap.min(self.allowed) / 2;
        self.nap = if shorter < SHORTEST { Duration::ZERO } else { shorter };
        self.pause = (2 * self.pause).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.rest = self.pause;
    }

    /// The trial is over: naps are made longer or shorter, or stay.
    fn judge(&mut self) {
        let before = self.nap;
        // Else there is nothing to compare: no nap was bearable, or not for long.
        if !self.awake.is_empty() && (!self.napping.is_empty() || self.nap.is_zero()) {
            self.compare();
        }
        (self.napping, self.suspect) = Default::default();
        // Its windows are few: what was before the trial counts too, for less.
        if self.nap == before { self.awake.fade() } else { self.awake = Tally::default() }
    }

    fn compare(&mut self) {
        let was_doubted = std::mem::take(&mut self.is_doubted);
        if !self.costs(LOST) {
            self.lengthen();
        } else if was_doubted || self.costs(CLEARLY_LOST) {
            self.shorten();
        } else {
            self.is_doubted = true;
        }
    }
}
