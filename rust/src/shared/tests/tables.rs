//! Clients of several processes.

use std::hint::spin_loop;
use std::sync::atomic::AtomicU64;
use std::thread;

use super::table::WAYS;
use super::*;

const MINUTE: u64 = 60_000;

/// Keys that are all in the same set.
fn neighbours(number: usize) -> Vec<Key> {
    (1..=number as u64).map(|hash| Key { kind: Kind::Address, hash }).collect()
}

#[test]
fn all_processes_count_as_one() {
    let tenants = processes(3);
    let (key, other) = (key(&tenants[0], "192.0.2.1"), key(&tenants[2], "192.0.2.2"));
    let held: Vec<_> = tenants.iter().map(|one| one.open(key, MINUTE).unwrap().held).collect();
    assert_eq!(held, [1, 2, 3]);
    assert_eq!(tenants[2].open(other, MINUTE).unwrap().held, 1);
    tenants[1].close(key, true);
    assert_eq!(tenants[0].sum(key, MINUTE), Sum { held: 2, recent: 3 });
    tenants[0].close(key, false);
    assert_eq!(tenants[1].sum(key, MINUTE), Sum { held: 1, recent: 2 });
    // Each has its own window.
    tenants[0].open(key, MINUTE + 9);
    assert_eq!(tenants[1].recent(key, 2 * MINUTE), 1);
    assert_eq!(tenants[1].recent(key, 2 * MINUTE + 9), 0);
}

#[test]
fn what_is_refused_was_never_there() {
    let tenants = processes(2);
    let key = key(&tenants[0], "2001:db8::1");
    tenants[0].open(key, MINUTE);
    assert_eq!(tenants[1].open(key, MINUTE).unwrap(), Sum { held: 2, recent: 2 });
    tenants[1].take_back(key, MINUTE);
    assert_eq!(tenants[0].sum(key, MINUTE), Sum { held: 1, recent: 1 });
    let table = tenants[1].table(Kind::Address);
    assert!(table.find(key).is_none());
    // What is not there cannot be given back.
    tenants[1].take_back(key, MINUTE);
    tenants[1].close(key, false);
    assert_eq!(tenants[0].sum(key, MINUTE), Sum { held: 1, recent: 1 });
}

#[test]
fn one_that_comes_in_the_middle_of_another_is_seen_by_it_or_sees_it() {
    let tenants = processes(2);
    let key = key(&tenants[0], "192.0.2.1");
    let mut second = None;
    let first = tenants[0].open_while(key, MINUTE, || second = tenants[1].open(key, MINUTE));
    let let_in = [first, second].iter().filter(|sum| sum.unwrap().held <= 1).count();
    assert!(let_in <= 1, "{first:?} {second:?}");
}

/// Lets two threads go on together, as nearly at once as there is.
#[derive(Default)]
struct Start(AtomicU64);

impl Start {
    fn wait(&self) {
        let turn = self.0.fetch_add(1, Ordering::SeqCst) / 2 + 1;
        for waited in 0_u32.. {
            if self.0.load(Ordering::SeqCst) >= 2 * turn {
                return;
            }
            // The other may have no core of its own.
            if waited < 1_000 { spin_loop() } else { thread::yield_now() }
        }
    }
}

#[test]
fn of_two_that_come_at_once_at_most_one_is_let_in() {
    const ROUNDS: usize = 500;
    const CLIENTS: usize = 64;
    let tenants = processes(2);
    let start = Start::default();
    let keys: Vec<Key> = (0..CLIENTS).map(|n| key(&tenants[0], &format!("192.0.2.{n}"))).collect();
    let come = |tenant: &Tenant| {
        let mut came: Vec<[bool; CLIENTS]> = Vec::new();
        for _ in 0..ROUNDS {
            start.wait();
            let is_in = |at: usize| tenant.open(keys[at], MINUTE).unwrap().held <= 1;
            let is_in = std::array::from_fn(is_in);
            start.wait();
            for (key, is_in) in keys.iter().zip(is_in) {
                if is_in { tenant.close(*key, false) } else { tenant.take_back(*key, MINUTE) }
            }
            came.push(is_in);
        }
        came
    };
    let [one, two] = thread::scope(|scope| {
        let [one, two] = [0, 1].map(|place| {
            scope.spawn({
                let (come, tenants) = (&come, &tenants);
                move || come(&tenants[place])
            })
        });
        [one, two].map(|thread| thread.join().unwrap().concat())
    });
    let both = one.iter().zip(&two).filter(|(one, two)| **one && **two).count();
    let neither = one.iter().zip(&two).filter(|(one, two)| !**one && !**two).count();
    assert_eq!(both, 0);
    // That must not be the rule.
    assert!(neither < ROUNDS * CLIENTS / 2, "{neither}");
    for key in &keys {
        assert_eq!(tenants[0].sum(*key, MINUTE), Sum { held: 0, recent: 0 });
    }
}

#[test]
fn a_full_set_counts_nobody_else_until_one_is_gone() {
    let tenant = Tenant::alone().unwrap();
    let keys = neighbours(WAYS + 1);
    let (last, first) = keys.split_last().unwrap();
    assert!(first.iter().all(|key| tenant.open(*key, MINUTE).is_some()));
    assert_eq!(tenant.open(*last, MINUTE), None);
    tenant.close(first[3], true);
    // It was there a moment ago, which counts as well.
    assert_eq!(tenant.open(*last, 2 * MINUTE - 1), None);
    assert_eq!(tenant.open(*last, 2 * MINUTE), Some(Sum { held: 1, recent: 1 }));
    // Nobody has moved.
    for key in first.iter().filter(|key| **key != first[3]) {
        assert_eq!(tenant.sum(*key, MINUTE).held, 1);
    }
    tenant.close(first[5], false);
    assert_eq!(tenant.open(first[3], 2 * MINUTE).unwrap().held, 1);
}

#[test]
fn failures_count_for_ten_minutes_and_hold_nothing() {
    let tenants = processes(2);
    let key = tenants[0].keys(Kind::Login, "test").address("192.0.2.1".parse().unwrap());
    tenants[0].count(key, MINUTE);
    tenants[1].count(key, 2 * MINUTE);
    assert_eq!([11, 12].map(|at| tenants[1].recent(key, at * MINUTE)), [1, 0]);
    assert_eq!(tenants[0].recent(key, 10 * MINUTE), 2);
}

#[test]
fn kinds_servers_and_addresses_have_keys_of_their_own() {
    let tenants = processes(2);
    let of = |place: usize, kind, server, ip: &str| {
        tenants[place].keys(kind, server).address(ip.parse().unwrap())
    };
    let one = of(0, Kind::Address, "a", "192.0.2.1");
    assert_eq!(one, of(1, Kind::Address, "a", "192.0.2.1"));
    for other in [
        of(0, Kind::Login, "a", "192.0.2.1"),
        of(0, Kind::Address, "b", "192.0.2.1"),
        of(0, Kind::Address, "a", "192.0.2.2"),
        tenants[0].keys(Kind::Address, "a").server(),
        Tenant::alone().unwrap().keys(Kind::Address, "a").address("192.0.2.1".parse().unwrap()),
    ] {
        assert_ne!(one.hash, other.hash);
    }
    assert!(!format!("{:?}", tenants[0].keys(Kind::Login, "a")).contains("hasher"));
}

#[test]
fn odd_contents_are_only_odd() {
    // SipHash is as good a source of odd words as any.
    let odd = |number: u64| {
        let ip = std::net::Ipv6Addr::from_bits(number.into());
        Tenant::alone().unwrap().keys(Kind::Login, "odd").address(ip.into()).hash
    };
    let tenants = processes(2);
    let words = (0..64).map(odd).chain([u64::MAX, 1, 0]).collect::<Vec<_>>();
    for kind in Kind::ALL {
        let keys: Vec<Key> = words.iter().map(|hash| Key { kind, hash: (*hash).max(1) }).collect();
        for (set, key) in keys.iter().enumerate() {
            let table = tenants[0].table(kind);
            let Some(entry) = table.take(*key, 0) else { continue };
            let other = words[(set * 7 + 3) % words.len()];
            entry.fill(other, words[(set * 11) % words.len()]);
        }
        for now in [0, 1, MINUTE, u64::MAX >> 24, u64::MAX] {
            for key in &keys {
                for tenant in &tenants {
                    let _ = (tenant.open(*key, now), tenant.sum(*key, now));
                    tenant.count(*key, now);
                    tenant.take_back(*key, now);
                    tenant.close(*key, now.is_multiple_of(2));
                }
            }
        }
    }
    // What says that it is to come does not count for ever.
    let key = neighbours(1)[0];
    let entry = tenants[0].table(Kind::Address).take(key, 0).unwrap();
    entry.fill(0, u64::MAX);
    assert_eq!(tenants[1].recent(key, MINUTE), 0);
}
