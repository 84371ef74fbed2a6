//! Counters, and one snapshot of them.

mod replies;
mod stages;

pub use replies::Replies;
pub use stages::{BOUNDS, StageFigures, Stopwatch};

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter or gauge.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds `count`.
    pub fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes one off, where it is a gauge.
    pub fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes `count` off, where it is a gauge.
    pub fn sub_many(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// Its value, which begins anew.
    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a counter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// How often something has been.
    Count,
    /// How much there is now, of which nothing is left when its process is gone.
    Gauge,
}

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident: $measure:ident,)+) => {
        /// Every counter of a core. Read by [`Stats::snapshot`].
        #[derive(Debug, Default)]
        #[repr(C)]
        pub struct Stats {
            $($(#[$doc])+ pub $name: Counter,)+
        }

        impl Stats {
            /// What it is made of, in order.
            pub(crate) const FORM: &str = concat!($(stringify!($name), ": ", stringify!($measure), ", "),+);

            fn all(&self) -> Vec<(&'static str, Measure, &Counter)> {
                vec![$((stringify!($name), Measure::$measure, &self.$name),)+]
            }
        }
    };
}

impl Stats {
    /// Every counter by its name.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        self.readings().collect()
    }

    /// The same, one by one.
    pub(crate) fn readings(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.all().into_iter().map(|(name, measure, counter)| {
            let value = counter.get();
            // One that went below zero lacks what it began with.
            let below = measure == Measure::Gauge && i64::try_from(value).is_err();
            (name, if below { 0 } else { value })
        })
    }

    /// Takes over what a process that is gone has counted, and leaves zeros there.
    pub(crate) fn absorb(&self, gone: &Self) {
        for ((_, measure, ours), (_, _, theirs)) in self.all().into_iter().zip(gone.all()) {
            let counted = theirs.take();
            if measure == Measure::Count {
                ours.add_many(counted);
            }
        }
    }
}

counters! {
    /// Connections open now. Each is one of the sessions that follow.
    connections_open: Gauge,
    /// Sessions before their greeting: their PROXY header, `greet_delay`.
    sessions_opening: Gauge,
    /// Sessions in a TLS handshake.
    sessions_handshake: Gauge,
    /// Sessions of which a command is awaited, with no transaction open.
    sessions_idle: Gauge,
    /// Sessions of which a command is awaited, with a transaction open.
    sessions_transaction: Gauge,
    /// Sessions whose message comes: from DATA until the final dot.
    sessions_data: Gauge,
    /// Sessions that wait for an answer on a recipient or a whole message.
    sessions_waiting: Gauge,
    /// Sessions that have had their last reply.
    sessions_closing: Gauge,
    /// Connections accepted since the start.
    connections_accepted: Count,
    /// Connections refused with 421 because a server had `max_clients`.
    connections_refused: Count,
    /// Connections refused because their address had its limit.
    connections_limited: Count,
    /// Connections refused for a bad PROXY header, or because they came from no proxy.
    proxies_refused: Count,
    /// Clients refused because they spoke before the greeting.
    early_talkers: Count,
    /// Handshakes that ended well.
    tls_handshakes: Count,
    /// Handshakes that failed.
    tls_failures: Count,
    /// Times that `accept` failed.
    accept_errors: Count,
    /// Sessions ended because the client took too long.
    timeouts: Count,
    /// Tasks that panicked: each is a bug.
    panics: Count,
    /// Messages handed to Python.
    messages_received: Count,
    /// Octets of those messages.
    bytes_received: Count,
    /// Messages answered 2xx.
    messages_accepted: Count,
    /// Messages answered 4xx.
    messages_deferred: Count,
    /// Messages answered 5xx.
    messages_rejected: Count,
    /// Messages whose time was up before any stage began to store them.
    expired_before_commit: Count,
    /// Messages that were saved after their sender had been told 451.
    saved_late: Count,
    /// Messages whose peer was gone before any stage began to store them.
    peer_gone: Count,
    /// Messages that were saved, but whose peer was gone before it could be told.
    answers_lost: Count,
    /// Messages that went to a file.
    spilled: Count,
    /// Messages whose file could not be made, written or read.
    spill_failures: Count,
    /// Octets in files now.
    spilled_octets: Gauge,
    /// Recipient checks handed to Python.
    checks: Count,
    /// Recipient checks that took too long.
    checks_expired: Count,
    /// Credentials handed to Python.
    logins: Count,
    /// Credentials that took too long, or that nobody could check.
    logins_expired: Count,
    /// Credentials that were not good.
    logins_failed: Count,
    /// Logins refused because too many before them had failed.
    logins_limited: Count,
}
