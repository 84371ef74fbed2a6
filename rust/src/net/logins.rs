//! How many logins of one client address have failed of late.
//!
//! An address is known for as long as its failures count, and only where there is a limit for them.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::addresses::{Addresses, Entry, masked};

/// For how long a first failure, and all behind it, count.
const WINDOW: Duration = Duration::from_mins(10);
/// Addresses that are known at most: 5 MB. Guesses from more of them are not what a limit an address can
/// stop; each of their connections still has its own.
const MOST: usize = 1 << 16;

/// The addresses that one server knows.
#[derive(Debug)]
pub(super) struct Logins(Mutex<Addresses<Failures>>);

impl Default for Logins {
    fn default() -> Self {
        Self(Mutex::new(Addresses::new(MOST)))
    }
}

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
}

impl Entry for Failures {
    fn new(now: Instant) -> Self {
        Self { count: 0, since: now }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }
}

impl Logins {
    fn lock(&self) -> MutexGuard<'_, Addresses<Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Failures of this address that still count.
    pub(super) fn failures(&self, ip: IpAddr, ipv6_prefix: u8, now: Instant) -> u32 {
        let mut table = self.lock();
        let known = table.get_mut(masked(ip, ipv6_prefix)).filter(|entry| !entry.is_over(now));
        known.map_or(0, |entry| entry.count)
    }

    /// Counts one.
    pub(super) fn fail(&self, ip: IpAddr, ipv6_prefix: u8, now: Instant) {
        let mut table = self.lock();
        let Some(entry) = table.entry(masked(ip, ipv6_prefix), now) else { return };
        if entry.is_over(now) {
            *entry = Entry::new(now);
        }
        entry.count = entry.count.saturating_add(1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_of_a_network_count_for_ten_minutes() {
        let (logins, start) = (Logins::default(), Instant::now());
        let at = |minutes| start + Duration::from_mins(minutes);
        logins.fail(ip("2001:db8::1"), 64, at(0));
        logins.fail(ip("2001:db8::2"), 64, at(9));
        let count = |from: &str, minutes| logins.failures(ip(from), 64, at(minutes));
        assert_eq!([count("2001:db8::3", 9), count("2001:db8::3", 10)], [2, 0]);
        assert_eq!([count("2001:db8:0:1::1", 9), count("192.0.2.1", 9)], [0, 0]);
        logins.fail(ip("2001:db8::1"), 64, at(10));
        assert_eq!(count("2001:db8::3", 10), 1);
    }

    #[test]
    fn no_flood_of_addresses_makes_it_grow_without_end() {
        let (logins, start) = (Logins::default(), Instant::now());
        for number in 0..u32::try_from(MOST).unwrap() + 9 {
            logins.fail(IpAddr::V4(number.into()), 64, start);
        }
        assert_eq!(logins.lock().len(), MOST);
        // Those that are known still count.
        logins.fail(IpAddr::V4(0.into()), 64, start);
        assert_eq!(logins.failures(IpAddr::V4(0.into()), 64, start), 2);
        logins.fail(ip("2001:db8::1"), 64, start + WINDOW);
        assert_eq!(logins.lock().len(), 1);
    }
}
