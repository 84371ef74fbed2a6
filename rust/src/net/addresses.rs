//! What is known of client addresses, bounded: a table that forgets, and takes no more than so many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Addresses below which nothing is looked through for those that can be forgotten.
pub(super) const FEW: usize = 1_024;
/// A full table is looked through no more often: in a flood every connection would pay for all the others.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of one address.
pub(super) trait Entry {
    /// Of an address that was not known.
    fn new(now: Instant) -> Self;
    /// Whether it can be forgotten.
    fn is_over(&self, now: Instant) -> bool;
}

/// What is known of each address.
#[derive(Debug)]
pub(super) struct Addresses<E> {
    entries: HashMap<IpAddr, E>,
    most: usize,
    /// When the table is this large, it is looked through.
    sweep_at: usize,
    swept: Option<Instant>,
}

impl<E: Entry> Addresses<E> {
    /// A table of at most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), most, sweep_at: FEW.min(most), swept: None }
    }

    /// What is known of this one, from now on; none where the table is full and it is not in it.
    pub(super) fn entry(&mut self, ip: IpAddr, now: Instant) -> Option<&mut E> {
        self.make_room(now);
        if self.entries.len() >= self.most && !self.entries.contains_key(&ip) {
            return None;
        }
        Some(self.entries.entry(ip).or_insert_with(|| E::new(now)))
    }

    /// What is known of this one.
    pub(super) fn get_mut(&mut self, ip: IpAddr) -> Option<&mut E> {
        self.entries.get_mut(&ip)
    }

    /// Forgets this one.
    pub(super) fn remove(&mut self, ip: IpAddr) {
        self.entries.remove(&ip);
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets what can be forgotten, once in as many new addresses as there are.
    fn make_room(&mut self, now: Instant) {
        let is_full = self.entries.len() >= self.most;
        let rests = is_full && self.swept.is_some_and(|at| now.duration_since(at) < PAUSE);
        if self.entries.len() >= self.sweep_at && !rests {
            self.entries.retain(|_, entry| !entry.is_over(now));
            self.sweep_at = (2 * self.entries.len()).max(FEW).min(self.most);
            self.swept = Some(now);
        }
    }
}

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
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static LOOKED: Cell<usize> = const { Cell::new(0) };
    }

    struct Old(Instant);

    impl Entry for Old {
        fn new(now: Instant) -> Self {
            Self(now)
        }

        fn is_over(&self, now: Instant) -> bool {
            LOOKED.set(LOOKED.get() + 1);
            now.duration_since(self.0) >= Duration::from_mins(1)
        }
    }

    #[test]
    fn a_full_table_is_not_looked_through_for_each_that_comes() {
        let (mut table, start) = (Addresses::<Old>::new(4), Instant::now());
        let ip = |number: u32| IpAddr::V4(number.into());
        (0..4).for_each(|number| assert!(table.entry(ip(number), start).is_some()));
        LOOKED.set(0);
        (4..1_000).for_each(|number| assert!(table.entry(ip(number), start).is_none()));
        assert_eq!(LOOKED.get(), 4);
        // Those in it are still known, and once they are over there is room.
        assert!(table.entry(ip(3), start).is_some());
        assert!(table.entry(ip(9), start + Duration::from_mins(1)).is_some());
        assert_eq!(table.len(), 1);
    }

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
