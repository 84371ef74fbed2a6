#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::super::budget::{FIRST, SMALLEST};
use super::super::{Body, Budget, Fault};
use super::by_hand::ByHand;
use super::*;
use crate::smtp::{BareNewline, DataReader, Ending};

const MIB: usize = 1 << 20;
const READ: usize = 64 << 10;

struct Files {
    stats: Part<Stats>,
    log: Arc<Log>,
    spiller: Arc<Spiller>,
}

fn files(size: usize, folder: Option<&Path>) -> Files {
    let (stats, log) = (Part::default(), Arc::new(Log::new(0)));
    let folder = folder.map(PathBuf::from);
    let spiller = Spiller::new(size as u64, folder, &stats, &log).unwrap();
    Files { stats, log, spiller }
}

/// Octets that are nowhere the same, but for line ends here and there.
fn octets(count: usize) -> Vec<u8> {
    let number = |at: usize| (at as u64 / 7).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let mut octets: Vec<u8> = (0..count).map(|at| number(at)[at % 7] | 0x20).collect();
    for line in octets.chunks_mut(99) {
        if let [.., cr, lf] = line {
            (*cr, *lf) = (b'\r', b'\n');
        }
    }
    octets
}

/// Pushes as a driver does, in reads of `read` octets; waits for the file where it has to.
fn push_all(body: &mut Body, octets: &[u8], read: usize) {
    for piece in octets.chunks(read) {
        push_piece(body, piece, || ());
    }
    body.settle();
    body.finish();
}

/// One read, as [`DataReader::read`] takes it; `then` looks after each push.
fn push_piece(body: &mut Body, piece: &[u8], mut then: impl FnMut()) {
    let mut rest = piece;
    while !rest.is_empty() {
        body.settle();
        body.catch_up();
        let (some, left) = rest.split_at(body.appetite().min(rest.len()));
        assert!(!some.is_empty());
        body.push(some);
        then();
        rest = left;
    }
}

#[test]
fn a_body_is_what_was_pushed_at_every_size_around_the_thresholds() {
    let all = octets(3 * MIB);
    let sizes = [1, 1_000, FIRST, FIRST + 1, CHUNK, CHUNK + SMALLEST, MIB];
    for spill in sizes {
        let files = files(spill, None);
        let budget = Budget::spilling(64 << 20, Some(Arc::clone(&files.spiller)));
        for near in [spill, spill + CHUNK / 2, spill + CHUNK, spill + 3 * CHUNK] {
            for count in [near - 1, near, near + 1] {
                for read in [READ, 5_000] {
                    let sent = all.get(..count).unwrap();
                    let mut body = Body::take(&budget, None, 0).unwrap();
                    push_all(&mut body, sent, read);
                    assert_eq!(body.fault(), None);
                    assert!(body.as_slice() == sent, "{count} octets, over {spill}");
                    assert_eq!(body.is_spilled(), count > spill);
                    let held = if count > spill { SMALLEST } else { body.reserved() };
                    assert_eq!(budget.used(), held as u64);
                    body.release();
                    assert_eq!((budget.used(), budget.retained()), (0, held as u64));
                    drop(body);
                    assert_eq!((budget.used(), budget.retained()), (0, 0));
                }
            }
        }
        files.spiller.close();
        assert_eq!(files.stats.spilled_octets.get(), 0);
        assert_eq!(files.stats.spill_failures.get(), 0);
        assert!(files.stats.spilled.get() > 0);
    }
}

#[test]
fn what_the_budget_cannot_hold_goes_to_a_file_and_leaves_room_for_others() {
    let files = files(1 << 30, None);
    let budget = Budget::spilling(MIB as u64, Some(Arc::clone(&files.spiller)));
    let sent = octets(8 * MIB);
    let mut bodies: Vec<Body> = (0..8).map(|_| Body::take(&budget, None, 0).unwrap()).collect();
    let mut most = 0;
    for piece in sent.chunks(READ) {
        for body in &mut bodies {
            push_piece(body, piece, || most = most.max(budget.used()));
        }
    }
    assert!(most <= MIB as u64, "{most}");
    for body in &mut bodies {
        body.finish();
        assert_eq!(body.fault(), None);
        assert!(body.as_slice() == sent);
    }
    assert_eq!((files.stats.spilled.get(), budget.refused()), (8, 0));
    assert_eq!(budget.used(), 8 * SMALLEST as u64);
    drop(bodies);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_body_that_is_behind_takes_nothing_until_its_file_has_caught_up() {
    let mut hand = ByHand::new(1_000);
    let budget = Budget::spilling(MIB as u64, Some(hand.spiller()));
    let mut body = Body::take(&budget, Some(2_000), 0).unwrap();
    let mut reader = DataReader::new(BareNewline::Fix, 1 << 20);
    let mail = [b"A: b\r\n\r\n".as_slice(), &octets(5_000), b"\r\n.\r\nNOOP\r\n"].concat();
    let mut input = mail.as_slice();
    assert_eq!(reader.read(&mut input, &mut body), Ending::Complete);
    assert_eq!(input, b"NOOP\r\n");
    let mut reader = DataReader::new(BareNewline::Fix, 1 << 20);
    drop(body);

    let mut body = Body::take(&budget, None, 0).unwrap();
    let mut input = mail.get(..3_000).unwrap();
    assert_eq!(reader.read(&mut input, &mut body), Ending::Behind);
    assert!(input.is_empty() && body.is_behind());
    assert_eq!(body.appetite(), 0);
    let mut input = mail.get(3_000..).unwrap();
    let all = input;
    assert_eq!(reader.read(&mut input, &mut body), Ending::Behind);
    assert_eq!(input, all);
    hand.work(); // the one that was dropped
    hand.work();
    body.catch_up();
    assert_eq!(reader.read(&mut input, &mut body), Ending::Complete);
    assert_eq!(input, b"NOOP\r\n");
    assert!(body.as_slice().is_empty(), "no part of it is taken for all of it");
    assert!(
        body.poll_finished(&mut std::task::Context::from_waker(std::task::Waker::noop()))
            .is_pending()
    );
    hand.work();
    body.finish();
    assert!(body.as_slice() == mail.get(..mail.len() - b".\r\nNOOP\r\n".len()).unwrap());
    assert_eq!(body.header_end(), Some(8));
}

#[test]
fn what_the_thread_has_is_counted_until_it_is_written() {
    let mut hand = ByHand::new(MIB as u64);
    let budget = Budget::spilling(8 << 20, Some(hand.spiller()));
    let mut body = Body::take(&budget, None, 0).unwrap();
    body.push(&octets(MIB));
    body.settle();
    assert!(!body.is_spilled());
    let held = budget.used();
    body.push(b"x");
    assert_eq!(budget.used(), held + READ as u64);
    body.settle();
    assert_eq!(budget.used(), held + READ as u64);
    hand.work();
    // Before the body looks.
    assert_eq!(budget.used(), CHUNK as u64);
    assert_eq!(hand.stats().spilled_octets.get(), MIB as u64 + 1);
    body.catch_up();
    assert_eq!(budget.used(), CHUNK as u64);
    body.push(&octets(CHUNK / 2));
    assert!(body.as_slice().is_empty(), "a part is not taken for all of it");
    body.settle();
    assert!(body.is_behind());
    drop(body);
    assert_eq!(budget.used(), (CHUNK - SMALLEST) as u64);
    hand.work();
    assert_eq!(budget.used(), 0);
    assert_eq!(hand.stats().spilled_octets.get(), 0);
}

#[test]
fn octets_that_become_two_each_stay_within_the_share() {
    let files = files(1, None);
    let budget = Budget::spilling(MIB as u64, Some(Arc::clone(&files.spiller)));
    let mut body = Body::take(&budget, Some(1), 0).unwrap();
    let mut reader = DataReader::new(BareNewline::Fix, 1 << 20);
    let newlines = vec![b'\n'; MIB];
    let mut input = newlines.as_slice();
    while reader.read(&mut input, &mut body) == Ending::Behind {
        assert!(budget.used() <= 3 * READ as u64);
        body.catch_up();
        assert_eq!(budget.used(), CHUNK as u64);
    }
    assert_eq!(reader.read(&mut b"\r\n.\r\n".as_slice(), &mut body), Ending::Complete);
    body.finish();
    assert!(body.as_slice() == b"\r\n".repeat(MIB + 1));
}

#[test]
fn over_the_limit_is_over_the_limit_in_a_file_too() {
    let files = files(1_000, None);
    let budget = Budget::spilling(MIB as u64, Some(Arc::clone(&files.spiller)));
    for (more, fault) in [(0, None), (1, Some(Fault::TooLarge))] {
        let mut body = Body::take(&budget, None, 300_000).unwrap();
        push_all(&mut body, &octets(300_000 + more), READ);
        assert_eq!(
            (body.fault(), body.as_slice().len()),
            (fault, if more == 0 { 300_000 } else { 0 })
        );
        drop(body);
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn a_folder_that_is_not_there_costs_the_message_and_nothing_else() {
    let files = files(1_000, Some(Path::new("/nonexistent/folder")));
    let budget = Budget::spilling(MIB as u64, Some(Arc::clone(&files.spiller)));
    for round in 1..=3 {
        let mut body = Body::take(&budget, None, 0).unwrap();
        body.push(&octets(2_000));
        body.settle();
        body.catch_up();
        assert_eq!((body.fault(), body.is_behind()), (Some(Fault::NoStorage), false));
        assert_eq!(budget.used(), 0);
        push_all(&mut body, &octets(MIB), READ);
        assert!(body.as_slice().is_empty());
        assert_eq!(files.stats.spill_failures.get(), round);
    }
    let logged = files.log.receive(9, Duration::ZERO).unwrap();
    let lines: Vec<String> = logged.iter().map(|record| record.content.line()).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("/nonexistent/folder: No such file")));
}

#[test]
fn a_disk_that_is_full_costs_the_message_and_nothing_else() {
    let mut hand = ByHand::new(1_000);
    let budget = Budget::spilling(MIB as u64, Some(hand.spiller()));
    // In its first write, and in its last.
    for good in [0, 1] {
        let mut body = Body::take(&budget, None, 0).unwrap();
        body.push(&octets(2_000));
        body.settle();
        if good == 1 {
            hand.work();
            body.catch_up();
            assert_eq!(body.fault(), None);
            body.push(b"the rest");
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(body.poll_finished(&mut context).is_pending());
        }
        hand.work_on("/dev/full");
        body.finish();
        assert_eq!((body.fault(), budget.used()), (Some(Fault::NoStorage), 0));
        assert_eq!(hand.stats().spilled_octets.get(), 0);
    }
    assert_eq!(hand.stats().spill_failures.get(), 2);
    assert!(hand.logged().iter().all(|line| line.contains("No space left on device")));
}

#[test]
fn the_end_of_the_core_ends_the_thread_and_every_wait_for_it() {
    let mut hand = ByHand::new(1_000);
    let budget = Budget::spilling(MIB as u64, Some(hand.spiller()));
    let begin = || {
        let mut body = Body::take(&budget, None, 0).unwrap();
        body.push(&octets(2_000));
        body.settle();
        body
    };
    let mut before = begin();
    budget.close();
    let mut after = begin();
    after.catch_up();
    assert_eq!(after.fault(), Some(Fault::NoStorage));
    // What it has it still does.
    hand.work();
    before.catch_up();
    assert_eq!(before.fault(), None);
    assert!(!hand.work());
    before.finish();
    assert_eq!(before.fault(), Some(Fault::NoStorage));
    drop((before, after));
    assert_eq!((budget.used(), hand.stats().spilled_octets.get()), (0, 0));
}

#[test]
fn a_body_that_gives_up_waiting_leaves_the_thread_its_share() {
    let mut hand = ByHand::new(1_000);
    let budget = Budget::spilling(MIB as u64, Some(hand.spiller()));
    let mut body = Body::take(&budget, None, 0).unwrap();
    body.push(&octets(2_000));
    body.settle();
    body.give_up();
    assert_eq!((body.fault(), body.is_behind()), (Some(Fault::NoStorage), false));
    assert_eq!(budget.used(), (FIRST - SMALLEST) as u64);
    hand.work();
    assert_eq!((budget.used(), hand.stats().spilled_octets.get()), (0, 0));
}

#[test]
fn a_map_outlives_the_core() {
    let files = files(1_000, None);
    let budget = Budget::spilling(MIB as u64, Some(Arc::clone(&files.spiller)));
    let sent = octets(300_000);
    let mut body = Body::take(&budget, None, 0).unwrap();
    push_all(&mut body, &sent, READ);
    budget.close();
    budget.close();
    assert!(body.as_slice() == sent);
    drop(body);
    assert_eq!(files.stats.spilled_octets.get(), 0);
}
