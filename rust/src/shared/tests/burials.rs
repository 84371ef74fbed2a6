//! What is left of a process that is gone.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use super::sequence::PATIENCE;
use super::*;

fn figure(memory: &Memory, place: Option<usize>, name: &str) -> u64 {
    let figures = memory.snapshot(place).unwrap();
    figures.into_iter().find(|(known, _)| known == name).map_or(0, |(_, value)| value)
}

/// What is still there of a process that was killed: its tenant never left.
fn killed(tenant: Tenant) {
    std::mem::forget(tenant);
}

#[test]
fn counters_stay_and_all_else_is_given_back() {
    let mut tenants = processes(2);
    let (gone, here) = (tenants.remove(0), tenants.remove(0));
    let memory = Arc::clone(&here.memory);
    let (key, at) = (key(&gone, "192.0.2.1"), now());
    gone.stats().messages_accepted.add_many(5);
    gone.stats().connections_open.add_many(2);
    gone.stats().spilled_octets.add_many(7);
    gone.replies().count(b"250 OK\r\n");
    here.stats().messages_accepted.add_many(1);
    here.stats().connections_open.add();
    assert_eq!(gone.open(key, at), Some(Sum { held: 1, recent: 1 }));
    assert_eq!(here.open(key, at), Some(Sum { held: 2, recent: 2 }));
    killed(gone);
    assert!(memory.claim(0).is_err());
    assert_eq!(figure(&memory, None, "connections_open"), 3);

    memory.bury(0).unwrap();
    assert_eq!(figure(&memory, None, "messages_accepted"), 6);
    assert_eq!(figure(&memory, None, "replies_250"), 1);
    assert_eq!(figure(&memory, None, "connections_open"), 1);
    assert_eq!(figure(&memory, None, "spilled_octets"), 0);
    assert_eq!(figure(&memory, Some(0), "messages_accepted"), 0);
    assert_eq!(here.recent(key, at), 1);

    let next = memory.claim(0).unwrap();
    next.stats().messages_accepted.add();
    assert_eq!(next.open(key, at), Some(Sum { held: 2, recent: 2 }));
    assert_eq!(figure(&memory, None, "messages_accepted"), 7);
    // Twice is as good as once.
    killed(next);
    memory.bury(0).unwrap();
    memory.bury(0).unwrap();
    assert_eq!(figure(&memory, None, "messages_accepted"), 7);
}

#[test]
fn where_pages_cannot_be_given_back_they_are_cleared() {
    let tenants = processes(2);
    let at = now();
    for kind in Kind::ALL {
        let key = tenants[0].keys(kind, "test").server();
        tenants[0].open(key, at);
        assert_eq!(tenants[1].sum(key, at).held, 1);
    }
    tenants[1].memory.clear_tables(0);
    for kind in Kind::ALL {
        let key = tenants[0].keys(kind, "test").server();
        assert_eq!(tenants[1].sum(key, at), Sum { held: 0, recent: 0 });
    }
}

#[test]
fn whoever_adds_up_while_one_is_buried_loses_nothing_and_finds_nothing_twice() {
    let tenants = processes(1);
    let (memory, stats) = (&tenants[0].memory, tenants[0].stats());
    let (ended, counted) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                counted.fetch_add(1, Ordering::SeqCst);
                stats.messages_received.add();
            }
        });
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                memory.bury(0).unwrap();
            }
        });
        let mut before = 0;
        let looks = (0..3_000).map(|_| figure(memory, None, "messages_received"));
        let odd = looks.into_iter().find_map(|sum| {
            let most = counted.load(Ordering::SeqCst);
            let odd = (sum < before || sum > most).then_some((before, sum, most));
            before = sum;
            odd
        });
        ended.store(true, Ordering::SeqCst);
        assert_eq!(odd, None);
    });
    assert_eq!(figure(memory, None, "messages_received"), counted.into_inner());
}

#[test]
fn a_burial_that_was_left_in_the_middle_is_not_waited_for() {
    let tenants = processes(1);
    tenants[0].stats().messages_received.add();
    let memory = &tenants[0].memory;
    let _ = std::panic::catch_unwind(|| memory.header().burials.write(|| panic!("killed")));
    assert_eq!(memory.header().burials.read(PATIENCE, || ()), None);
    assert_eq!(figure(memory, None, "messages_received"), 1);
    memory.bury(0).unwrap();
    assert!(memory.header().burials.read(PATIENCE, || ()).is_some());
    assert_eq!(figure(memory, None, "messages_received"), 1);
}
