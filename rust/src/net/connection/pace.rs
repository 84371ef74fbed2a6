//! The time a peer has: for a command, for the next octets of a message, for a message in all.

use std::time::Duration;

use tokio::time::Instant;

use super::Connection;
use crate::config::ServerConfig;
use crate::log::Level;
use crate::smtp::{Reply, Step};

/// A slow sender has this long before its mean rate is looked at.
const RATE_GRACE: Duration = Duration::from_mins(1);

/// How a message comes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) began: Instant,
    pub(super) octets: u64,
}

impl Data {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), octets: 0 }
    }

    /// Over `data_timeout`, or a mean rate under `min_data_rate` after the first minute.
    fn is_too_slow(&self, elapsed: Duration, config: &ServerConfig) -> bool {
        let limit = config.data_timeout;
        let least = config.min_data_rate.saturating_mul(elapsed.as_secs());
        (!limit.is_zero() && elapsed >= limit) || (elapsed > RATE_GRACE && self.octets < least)
    }
}

impl Connection {
    pub(super) fn after_data_read(&mut self, octets: usize) {
        if !self.session.in_message() {
            self.data = None;
            return;
        }
        // A chunk that is dropped has no body, but the same time.
        let data = self.data.get_or_insert_with(|| Box::new(Data::begin()));
        data.octets += octets as u64;
        if self.session.in_data() {
            self.deadline = self.next_deadline();
        }
    }

    /// When the peer must have sent its next command, or more of its message.
    pub(super) fn next_deadline(&self) -> Instant {
        let next = Instant::now() + self.config.timeout;
        match &self.data {
            Some(data) if !self.config.data_timeout.is_zero() => {
                next.min(data.began + self.config.data_timeout)
            }
            _ => next,
        }
    }

    /// Looked at behind each read: octets that keep coming keep the deadline from firing.
    pub(super) fn is_too_slow(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data.is_too_slow(data.began.elapsed(), &self.config))
    }

    pub(super) fn time_out(&mut self, why: &str) -> Step {
        self.shared.stats.timeouts.add();
        self.log(Level::Info, format_args!("timeout: {why}"));
        self.session.end(&Reply::timed_out());
        Step::Close
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::sync::Arc;

    use tokio::net::UnixStream;

    use super::*;
    use crate::backends::{Asking, Limits};
    use crate::config::{CoreConfig, ListenAddress};
    use crate::delivery::Client;
    use crate::net::live::{Admitted, Place};
    use crate::net::stream::Stream;
    use crate::server::Server;

    fn config() -> ServerConfig {
        let backend = Arc::new(Asking::new("", Limits::default()));
        ServerConfig {
            max_clients: 1,
            data_timeout: Duration::from_mins(10),
            min_data_rate: 100,
            ..ServerConfig::open("", ListenAddress::Unix("x".into()), backend)
        }
    }

    #[test]
    fn a_message_is_too_slow_by_its_whole_time_and_by_its_mean_rate() {
        let mut config = config();
        let too_slow = |octets, seconds, config: &ServerConfig| {
            let data = Data { began: Instant::now(), octets };
            data.is_too_slow(Duration::from_secs(seconds), config)
        };
        assert!(!too_slow(0, 60, &config));
        assert!(too_slow(6_099, 61, &config));
        assert!(!too_slow(6_100, 61, &config));
        assert!(!too_slow(u64::MAX, 599, &config));
        assert!(too_slow(u64::MAX, 600, &config));
        (config.data_timeout, config.min_data_rate) = (Duration::ZERO, 0);
        assert!(!too_slow(0, 1_000_000, &config));
    }

    /// One that is not greeted yet, with its core and its client; to be made within a runtime.
    pub(in crate::net::connection) fn connection() -> (Connection, Server, UnixStream) {
        let core = Server::new(CoreConfig {
            servers: Vec::new(),
            max_memory: 1 << 20,
            spill_size: 0,
            backends: Vec::new(),
            log_level: 0,
        })
        .unwrap();
        let shared = Arc::clone(core.shared());
        let (stream, client) = UnixStream::pair().unwrap();
        let place = Place::take(Admitted::to(config(), &shared).unwrap(), &shared);
        let (stream, of) = (Stream::Unix(stream), Client::default());
        (Connection::new(stream, of, Arc::new(config()), shared, place), core, client)
    }

    /// Whether a client that has said this, some minutes ago, and then that, is too slow.
    fn is_too_slow(first: &[u8], minutes: u64, then: &[u8]) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let (mut connection, _core, _client) = connection();
        connection.consume(b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n");
        connection.consume(first);
        if let Some(data) = &mut connection.data {
            data.began -= Duration::from_secs(60 * minutes + 1);
        }
        connection.consume(then);
        connection.is_too_slow()
    }

    #[test]
    fn between_chunks_a_message_gets_slower_as_within_one() {
        let chunk = [&b"BDAT 12100\r\n"[..], &[b'x'; 12_100]].concat();
        for (first, minutes, then, expected) in [
            (&b"DATA\r\n"[..], 1, &b"x"[..], true),
            (b"BDAT 9\r\n", 1, b"x", true),
            (b"BDAT 1\r\nx", 0, b"NOOP\r\n", false),
            (b"BDAT 1\r\nx", 1, b"N", true),
            (b"BDAT 1\r\nx", 1, b"NOOP\r\n", true),
            (b"BDAT 1\r\nx", 1, b"BDAT 1\r\nx", true),
            // So many that the mean is good, and then not any more.
            (&chunk, 2, b"NOOP\r\n", false),
            (&chunk, 3, b"NOOP\r\n", true),
            (b"BDAT 1\r\nx", 1, &chunk, false),
            // One that is dropped: nobody is mailed to in the second transaction.
            (b"RSET\r\nBDAT 9\r\n", 1, b"x", true),
            // The message has ended.
            (b"BDAT 1\r\nx", 1, b"BDAT 1 LAST\r\nx", false),
            (b"BDAT 1\r\nx", 1, b"RSET\r\n", false),
            (b"BDAT 1\r\nx", 1, b"EHLO a\r\n", false),
            (b"RSET\r\nBDAT 1\r\n", 1, b"x", false),
        ] {
            let shown = (first.escape_ascii().to_string(), then.escape_ascii().to_string());
            let shown = (shown.0.get(..20).unwrap_or(&shown.0), &shown.1);
            assert_eq!(is_too_slow(first, minutes, then), expected, "{shown:?} by {minutes}");
        }
    }
}
