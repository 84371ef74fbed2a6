//! How many logins of one client address have failed of late, in all processes.
//!
//! An address is known for as long as its failures count, ten minutes from the first of them, and only where
//! there is a limit for them.

use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::masked;
use crate::shared::{Keys, Kind, Tenant, now};

/// The addresses whose logins failed at one server.
#[derive(Debug)]
pub(super) struct Logins {
    tenant: Arc<Tenant>,
    keys: Keys,
}

impl Logins {
    pub(super) fn new(tenant: &Arc<Tenant>, server: &str) -> Self {
        Self { tenant: Arc::clone(tenant), keys: tenant.keys(Kind::Login, server) }
    }

    /// Failures of this address that still count.
    pub(super) fn failures(&self, ip: IpAddr, ipv6_prefix: u8) -> u32 {
        self.failures_at(ip, ipv6_prefix, now())
    }

    fn failures_at(&self, ip: IpAddr, ipv6_prefix: u8, now: u64) -> u32 {
        let count = self.tenant.recent(self.keys.address(masked(ip, ipv6_prefix)), now);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Counts one.
    pub(super) fn fail(&self, ip: IpAddr, ipv6_prefix: u8) {
        self.fail_at(ip, ipv6_prefix, now());
    }

    fn fail_at(&self, ip: IpAddr, ipv6_prefix: u8, now: u64) {
        self.tenant.count(self.keys.address(masked(ip, ipv6_prefix)), now);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_network_count_for_ten_minutes() {
        let logins = Logins::new(&Arc::new(Tenant::alone().unwrap()), "test");
        let start = now();
        let ip = |text: &str| text.parse().unwrap();
        let fail =
            |from: &str, minutes: u64| logins.fail_at(ip(from), 64, start + 60_000 * minutes);
        let count =
            |from: &str, minutes: u64| logins.failures_at(ip(from), 64, start + 60_000 * minutes);
        fail("2001:db8::1", 0);
        fail("2001:db8::2", 9);
        assert_eq!([count("2001:db8::3", 9), count("2001:db8::3", 10)], [2, 0]);
        assert_eq!([count("2001:db8:0:1::1", 9), count("192.0.2.1", 9)], [0, 0]);
        fail("2001:db8::1", 10);
        assert_eq!(count("2001:db8::3", 10), 1);
    }
}
