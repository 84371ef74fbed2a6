//! Which address of a client is counted.

use std::net::{IpAddr, Ipv6Addr};

/// The address that is counted: of IPv6 only the network, since a client has all the addresses in it.
pub(super) fn masked(ip: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn of_ipv6_it_is_the_network_that_is_counted() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (prefix, expected) in [(128, "2001:db8::1"), (1, "::"), (32, "2001:db8::")] {
            assert_eq!(masked(ip("2001:db8::1"), prefix), ip(expected));
        }
        assert_eq!(masked(ip("192.0.2.1"), 1), ip("192.0.2.1"));
        assert_eq!(masked(ip("::ffff:192.0.2.1"), 64), ip("192.0.2.1"));
    }
}
