//! Counters, and one snapshot of them.

mod replies;
mod stages;

pub use replies::Replies;
pub use stages::{BOUNDS, StageFigures, Stopwatch};

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter or gauge.
#[derive(Debug, Default)]
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

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Every counter of a core. Read by [`Stats::snapshot`].
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])+ pub $name: Counter,)+
        }

        impl Stats {
            /// Every counter by its name.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }
    };
}

counters! {
    /// Connections open now. Each is one of the sessions that follow.
    connections_open,
    /// Sessions before their greeting: their PROXY header, `greet_delay`.
    sessions_opening,
    /// Sessions in a TLS handshake.
    sessions_handshake,
    /// Sessions of which a command is awaited, with no transaction open.
    sessions_idle,
    /// Sessions of which a command is awaited, with a transaction open.
    sessions_transaction,
    /// Sessions whose message comes: from DATA until the final dot.
    sessions_data,
    /// Sessions that wait for an answer on a recipient or a whole message.
    sessions_waiting,
    /// Sessions that have had their last reply.
    sessions_closing,
    /// Connections accepted since the start.
    connections_accepted,
    /// Connections refused with 421 because a server had `max_clients`.
    connections_refused,
    /// Connections refused because their address had its limit.
    connections_limited,
    /// Connections refused for a bad PROXY header, or because they came from no proxy.
    proxies_refused,
    /// Clients refused because they spoke before the greeting.
    early_talkers,
    /// Handshakes that ended well.
    tls_handshakes,
    /// Handshakes that failed.
    tls_failures,
    /// Times that `accept` failed.
    accept_errors,
    /// Sessions ended because the client took too long.
    timeouts,
    /// Tasks that panicked: each is a bug.
    panics,
    /// Messages handed to Python.
    messages_received,
    /// Octets of those messages.
    bytes_received,
    /// Messages answered 2xx.
    messages_accepted,
    /// Messages answered 4xx.
    messages_deferred,
    /// Messages answered 5xx.
    messages_rejected,
    /// Messages whose time was up before any stage began to store them.
    expired_before_commit,
    /// Messages that were saved after their sender had been told 451.
    saved_late,
    /// Messages whose peer was gone before any stage began to store them.
    peer_gone,
    /// Messages that were saved, but whose peer was gone before it could be told.
    answers_lost,
    /// Messages that went to a file.
    spilled,
    /// Messages whose file could not be made, written or read.
    spill_failures,
    /// Octets in files now.
    spilled_octets,
    /// Recipient checks handed to Python.
    checks,
    /// Recipient checks that took too long.
    checks_expired,
    /// Credentials handed to Python.
    logins,
    /// Credentials that took too long, or that nobody could check.
    logins_expired,
    /// Credentials that were not good.
    logins_failed,
    /// Logins refused because too many before them had failed.
    logins_limited,
}
