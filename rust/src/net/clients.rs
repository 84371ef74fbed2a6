//! How many connections one client address has and opens.
//!
//! An address is known only while it has a connection, or has opened one in the last minute and there is
//! a limit for that. Postfix counts the same in its `anvil` service.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::addresses::{Addresses, Entry, masked};
use crate::config::AddressLimits;

/// What a rate counts over.
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses that are known at most: 40 MB. A flood from more of them in a minute is one that no limit an
/// address can stop; `max_clients` still does.
const MOST: usize = 1 << 19;

/// Why an address gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has `max_connections_per_ip`.
    TooMany,
    /// It has opened `max_connection_rate_per_ip` in this minute.
    TooFast,
}

/// The addresses that one server knows.
#[derive(Debug)]
pub(super) struct Clients(Mutex<Addresses<Connections>>);

impl Default for Clients {
    fn default() -> Self {
        Self(Mutex::new(Addresses::new(MOST)))
    }
}

#[derive(Debug)]
struct Connections {
    open: u32,
    /// Connections since `since`.
    opened: u32,
    since: Instant,
}

impl Connections {
    fn is_past(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WINDOW
    }
}

impl Entry for Connections {
    fn new(now: Instant) -> Self {
        Self { open: 0, opened: 0, since: now }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.open == 0 && self.is_past(now)
    }
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, Addresses<Connections>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection from `ip` until the seat is dropped; none where there is no limit.
    pub(super) fn admit(
        self: &Arc<Self>,
        ip: IpAddr,
        limits: &AddressLimits,
    ) -> Result<Option<Seat>, Refusal> {
        self.admit_at(ip, limits, Instant::now())
    }

    fn admit_at(
        self: &Arc<Self>,
        ip: IpAddr,
        limits: &AddressLimits,
        now: Instant,
    ) -> Result<Option<Seat>, Refusal> {
        if !limits.are_set() {
            return Ok(None);
        }
        let ip = masked(ip, limits.ipv6_prefix);
        let mut table = self.lock();
        let Some(entry) = table.entry(ip, now) else { return Ok(None) };
        if entry.is_past(now) {
            (entry.opened, entry.since) = (0, now);
        }
        if limits.connections > 0 && entry.open >= limits.connections {
            return Err(Refusal::TooMany);
        }
        if limits.rate > 0 && entry.opened >= limits.rate {
            return Err(Refusal::TooFast);
        }
        entry.open += 1;
        entry.opened += 1;
        drop(table);
        Ok(Some(Seat { clients: Arc::clone(self), ip, rated: limits.rate > 0 }))
    }
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Arc<Clients>,
    ip: IpAddr,
    rated: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.clients.lock();
        if let Some(entry) = table.get_mut(self.ip) {
            entry.open = entry.open.saturating_sub(1);
            if entry.open == 0 && !self.rated {
                table.remove(self.ip);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::net::addresses::FEW;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const MANY: AddressLimits = AddressLimits { connections: 2, rate: 0, ipv6_prefix: 64 };
    const FAST: AddressLimits = AddressLimits { connections: 0, rate: 2, ipv6_prefix: 64 };

    fn seat(clients: &Arc<Clients>, from: &str, limits: &AddressLimits) -> Result<Seat, Refusal> {
        clients.admit(ip(from), limits).map(Option::unwrap)
    }

    #[test]
    fn an_address_has_so_many_connections_and_gets_a_new_one_for_each_that_ends() {
        let clients = Arc::new(Clients::default());
        let first = seat(&clients, "192.0.2.1", &MANY).unwrap();
        let _second = seat(&clients, "::ffff:192.0.2.1", &MANY).unwrap();
        assert_eq!(seat(&clients, "192.0.2.1", &MANY).unwrap_err(), Refusal::TooMany);
        let _other = seat(&clients, "192.0.2.2", &MANY).unwrap();
        drop(first);
        let _third = seat(&clients, "192.0.2.1", &MANY).unwrap();
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let clients = Arc::new(Clients::default());
        let _seats =
            ["2001:db8::1", "2001:db8::ffff:1"].map(|from| seat(&clients, from, &MANY).unwrap());
        assert_eq!(seat(&clients, "2001:db8::2", &MANY).unwrap_err(), Refusal::TooMany);
        assert!(seat(&clients, "2001:db8:0:1::1", &MANY).is_ok());
    }

    #[test]
    fn a_rate_counts_over_a_minute_and_refusals_do_not_lengthen_it() {
        let clients = Arc::new(Clients::default());
        let start = Instant::now();
        let at = |seconds| {
            let now = start + Duration::from_secs(seconds);
            clients.admit_at(ip("192.0.2.1"), &FAST, now).map(drop)
        };
        assert_eq!([at(0), at(10)], [Ok(()), Ok(())]);
        assert_eq!([at(11), at(59)], [Err(Refusal::TooFast), Err(Refusal::TooFast)]);
        assert_eq!([at(60), at(61)], [Ok(()), Ok(())]);
        assert_eq!(at(62), Err(Refusal::TooFast));
    }

    #[test]
    fn nothing_is_known_of_addresses_that_are_gone() {
        let clients = Arc::new(Clients::default());
        drop(seat(&clients, "192.0.2.1", &MANY).unwrap());
        assert!(clients.lock().len() == 0);
        let now = Instant::now();
        for number in 0..3 * u32::try_from(FEW).unwrap() {
            let from = IpAddr::V4(number.into());
            // A new address every 100 ms: 600 in a minute.
            let now = now + Duration::from_millis(100) * number;
            clients.admit_at(from, &FAST, now).unwrap();
            assert!(clients.lock().len() <= 2 * FEW);
        }
        let none = AddressLimits::default();
        assert!(clients.admit(ip("192.0.2.9"), &none).unwrap().is_none());
    }
}
