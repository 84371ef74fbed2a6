//! Who is given what, and when: the lanes by themselves; and what is not to be saved any more.

use super::super::lanes::{Lanes, Turn};
use super::super::writer::Adopted;
use std::time::Instant;

use super::*;

fn take(lanes: &Lanes, patience: Duration) -> Turn {
    lanes.take("b", 9, Instant::now().checked_add(patience), &|| true)
}

fn ids(turn: Turn) -> Vec<i64> {
    let Turn::Ids(ids) = turn else { return Vec::new() };
    ids.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn a_patience_shorter_than_the_shortest_wait_is_one_too() {
    let lanes = Lanes::default();
    lanes.deferred("b", 1, None, clock::now_ms() + 60_000);
    for micros in [0, 1, 300, 700, 999] {
        assert_eq!(take(&lanes, Duration::from_micros(micros)), Turn::Nothing);
    }
}

#[test]
fn what_was_put_off_before_the_clock_stepped_back_does_not_wait_behind_others() {
    let lanes = Lanes::default();
    let now = clock::now_ms();
    lanes.deferred("b", 1, None, now + 60_000);
    lanes.deferred("b", 2, None, now + 86_400_000);
    assert_eq!(ids(take(&lanes, Duration::ZERO)), [2]);
    assert_eq!(ids(take(&lanes, Duration::ZERO)), [] as [i64; 0]);
}

#[test]
fn what_could_not_be_read_is_read_again_less_and_less_often() {
    let lanes = Lanes::default();
    lanes.found("b", 9, 9);
    assert_eq!(take(&lanes, Duration::ZERO), Turn::Load(0));
    for millis in [100, 200, 400] {
        let before = Instant::now();
        lanes.not_loaded("b");
        assert_eq!(take(&lanes, Duration::ZERO), Turn::Nothing);
        // What is due needs no reading.
        lanes.deferred("b", millis, None, 0);
        assert_eq!(ids(take(&lanes, Duration::ZERO)), [millis]);
        assert_eq!(take(&lanes, SOON), Turn::Load(0));
        assert!(before.elapsed() >= Duration::from_millis(millis.unsigned_abs()));
    }
    lanes.loaded("b", &[1], 1, false);
    assert_eq!(ids(take(&lanes, Duration::ZERO)), [1]);
    assert_eq!(take(&lanes, Duration::ZERO), Turn::Load(1));
}

#[test]
fn no_more_is_given_out_than_can_be_held_until_some_of_it_is_answered() {
    let lanes = Lanes::default();
    let mut given = Vec::new();
    for id in 1..=20_000 {
        lanes.saved("b", id, 1, None);
        if id % 500 == 0 {
            given.extend(ids(lanes.take("b", 500, Some(Instant::now()), &|| true)));
        }
    }
    let most = given.len();
    assert!((8_192..8_192 + 500).contains(&most), "{most}");
    assert_eq!(lanes.take("b", 9, Some(Instant::now()), &|| true), Turn::Nothing);
    for id in &given[..given.len() - 8_191] {
        lanes.deleted("b", *id, 1, None);
    }
    assert_eq!(ids(lanes.take("b", 1, Some(Instant::now()), &|| true)).len(), 1);
}

/// A message whose sender has been told that it is not saved.
struct Late(Sender<Result<(), Refusal>>, Vec<u8>);

impl Incoming for Late {
    fn backend(&self) -> &'static str {
        "b"
    }

    fn queued_id(&self) -> &'static str {
        "late"
    }

    fn received_at(&self) -> SystemTime {
        SystemTime::now()
    }

    fn record(&self) -> &[u8] {
        b"{}"
    }

    fn octets(&self) -> &[u8] {
        &self.1
    }

    fn is_wanted(&self) -> bool {
        false
    }

    fn settle(self: Box<Self>, outcome: Result<(), Refusal>) {
        self.0.send(outcome).unwrap();
    }
}

#[test]
fn what_nobody_waits_for_is_not_saved() {
    let bench = Bench::new();
    for size in [1, LARGEST_INLINE + 1] {
        let (sender, told) = channel();
        bench.spool.insert(Box::new(Late(sender, vec![b'x'; size])));
        assert_eq!(told.recv_timeout(SOON), Ok(Err(Refusal::Broken)));
    }
    assert_eq!(bench.figure("spool_depth"), 0);
    assert_eq!(bench.insert("b", &[("next", b"x")]), [Ok(())]);
}

#[test]
fn what_comes_behind_a_gap_is_not_taken_over() {
    let bench = Bench::new();
    let taken = |id: i64, after: i64| {
        let key = "adopted 7".to_owned();
        let adopted = Adopted { key, id, after, gaps: Vec::new(), crc: 0, retry: None };
        let entry = bench.mail("b", &format!("mail {id}"), b"x");
        bench.spool.shared.send(Job::Insert { entry, file: None, adopted: Some(adopted) });
        bench.settled.recv_timeout(SOON).unwrap().1
    };
    assert_eq!(taken(3, 0), Ok(()));
    // 5 was refused: what comes behind it waits for it, and a second 3 is none too many.
    assert_eq!(taken(8, 5), Err(Refusal::Broken));
    assert_eq!(taken(3, 0), Err(Refusal::Broken));
    assert_eq!((taken(5, 3), taken(8, 5)), (Ok(()), Ok(())));
    assert_eq!(bench.figure("spool_depth"), 3);
}
