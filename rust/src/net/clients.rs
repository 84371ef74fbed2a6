//! How many connections one client address has and opens, in all processes.
//!
//! An address is known only while it has a connection, or has opened one in the last minute and there is
//! a limit for that. Postfix counts the same in its `anvil` service.

use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::masked;
use crate::config::AddressLimits;
use crate::shared::{Key, Keys, Kind, Tenant, now};

/// Why an address gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has `max_connections_per_ip`.
    TooMany,
    /// It has opened `max_connection_rate_per_ip` in this minute.
    TooFast,
}

/// The addresses that are clients of one server.
#[derive(Debug)]
pub(super) struct Clients {
    tenant: Arc<Tenant>,
    keys: Keys,
}

impl Clients {
    pub(super) fn new(tenant: &Arc<Tenant>, server: &str) -> Self {
        Self { tenant: Arc::clone(tenant), keys: tenant.keys(Kind::Address, server) }
    }

    /// Counts a connection from `ip` until the seat is dropped; none where there is no limit.
    pub(super) fn admit(
        self: &Arc<Self>,
        ip: IpAddr,
        limits: &AddressLimits,
    ) -> Result<Option<Seat>, Refusal> {
        if !limits.are_set() {
            return Ok(None);
        }
        self.admit_at(ip, limits, now())
    }

    fn admit_at(
        self: &Arc<Self>,
        ip: IpAddr,
        limits: &AddressLimits,
        now: u64,
    ) -> Result<Option<Seat>, Refusal> {
        let key = self.keys.address(masked(ip, limits.ipv6_prefix));
        let Some(all) = self.tenant.open(key, now) else { return Ok(None) };
        let is_over = |count, limit| limit > 0 && count > u64::from(limit);
        let refusal = if is_over(all.held, limits.connections) {
            Refusal::TooMany
        } else if is_over(all.recent, limits.rate) {
            Refusal::TooFast
        } else {
            return Ok(Some(Seat { clients: Arc::clone(self), key, rated: limits.rate > 0 }));
        };
        self.tenant.take_back(key, now);
        Err(refusal)
    }
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Arc<Clients>,
    key: Key,
    rated: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.clients.tenant.close(self.key, self.rated);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const MANY: AddressLimits = AddressLimits { connections: 2, rate: 0, ipv6_prefix: 64 };
    const FAST: AddressLimits = AddressLimits { connections: 0, rate: 2, ipv6_prefix: 64 };

    fn clients() -> Arc<Clients> {
        Arc::new(Clients::new(&Arc::new(Tenant::alone().unwrap()), "test"))
    }

    fn seat(clients: &Arc<Clients>, from: &str, limits: &AddressLimits) -> Result<Seat, Refusal> {
        clients.admit(ip(from), limits).map(Option::unwrap)
    }

    #[test]
    fn an_address_has_so_many_connections_and_gets_a_new_one_for_each_that_ends() {
        let clients = clients();
        let first = seat(&clients, "192.0.2.1", &MANY).unwrap();
        let _second = seat(&clients, "::ffff:192.0.2.1", &MANY).unwrap();
        assert_eq!(seat(&clients, "192.0.2.1", &MANY).unwrap_err(), Refusal::TooMany);
        let _other = seat(&clients, "192.0.2.2", &MANY).unwrap();
        drop(first);
        let _third = seat(&clients, "192.0.2.1", &MANY).unwrap();
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let clients = clients();
        let _seats =
            ["2001:db8::1", "2001:db8::ffff:1"].map(|from| seat(&clients, from, &MANY).unwrap());
        assert_eq!(seat(&clients, "2001:db8::2", &MANY).unwrap_err(), Refusal::TooMany);
        assert!(seat(&clients, "2001:db8:0:1::1", &MANY).is_ok());
    }

    #[test]
    fn a_rate_counts_over_a_minute_and_refusals_do_not_lengthen_it() {
        let clients = clients();
        let start = now();
        let at = |seconds: u64| {
            let now = start + 1_000 * seconds;
            clients.admit_at(ip("192.0.2.1"), &FAST, now).map(drop)
        };
        assert_eq!([at(0), at(10)], [Ok(()), Ok(())]);
        assert_eq!([at(11), at(59)], [Err(Refusal::TooFast), Err(Refusal::TooFast)]);
        assert_eq!([at(60), at(61)], [Ok(()), Ok(())]);
        assert_eq!(at(62), Err(Refusal::TooFast));
    }

    #[test]
    fn where_there_is_no_limit_nothing_is_counted() {
        let none = AddressLimits::default();
        assert!(clients().admit(ip("192.0.2.9"), &none).unwrap().is_none());
    }

    #[test]
    fn servers_and_their_addresses_are_counted_apart() {
        let tenant = Arc::new(Tenant::alone().unwrap());
        let [one, other] = ["one", "other"].map(|name| Arc::new(Clients::new(&tenant, name)));
        let _seats = [(); 2].map(|()| seat(&one, "192.0.2.1", &MANY).unwrap());
        assert_eq!(seat(&one, "192.0.2.1", &MANY).unwrap_err(), Refusal::TooMany);
        assert!(seat(&other, "192.0.2.1", &MANY).is_ok());
    }
}
