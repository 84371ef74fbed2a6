//! What was set aside, while several look after it, and where it is damaged.

use std::fs;

use super::super::faults::Point;
use super::*;

/// A bench with messages that have failed.
fn failed(names: &[&str]) -> Bench {
    let bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    for name in names {
        assert_eq!(bench.insert("a", &[(name, &large)]), [Ok(())]);
        fail_next(&bench);
    }
    bench.wait_for("spool_failed", names.len() as u64);
    // The files that their rows had go behind that: no fault of a test is to meet them.
    bench.wait(|| bench.bodies() == 0);
    bench
}

fn fail_next(bench: &Bench) {
    bench.receive("a", 1)[0].lease.settle(Settled::Failed("550".to_owned()));
}

/// Waits for what must not happen, for a moment.
fn see_if(condition: impl Fn() -> bool) -> bool {
    let until = std::time::Instant::now() + Duration::from_millis(500);
    while !condition() && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    condition()
}

fn of_failed(bench: &Bench) -> Vec<(String, State, u64)> {
    let found = bench.spool.list(0, 9, true).unwrap();
    found.into_iter().map(|one| (one.queued_id, one.state, one.size)).collect()
}

#[test]
fn a_message_that_fails_again_at_once_is_not_removed_with_the_old_files() {
    let bench = failed(&["one"]);
    let (release, until) = channel();
    bench.spool.shared.folder.faults.hold(Point::UnlinkMessage, until);
    std::thread::scope(|scope| {
        let replayed = scope.spawn(|| bench.spool.replay(None).unwrap());
        fail_next(&bench);
        see_if(|| bench.figure("spool_failed") == 2);
        drop(release);
        assert_eq!(replayed.join().unwrap(), 1);
    });
    bench.wait_for("spool_failed", 2);
    let size = LARGEST_INLINE + 1;
    assert_eq!(of_failed(&bench), [("one".to_owned(), State::Failed, size as u64)]);
    let (_, found) = bench.spool.show("one").unwrap().unwrap();
    assert!(matches!(found, Octets::File(file) if file.metadata().unwrap().len() == size as u64));
    assert_eq!(bench.spool.replay(None).unwrap(), 1);
}

#[test]
fn what_is_being_replayed_is_not_dropped_as_failed_nor_replayed_twice() {
    let bench = failed(&["one"]);
    let (release, until) = channel();
    bench.spool.shared.folder.faults.hold(Point::Unlink, until);
    std::thread::scope(|scope| {
        let replayed = scope.spawn(|| bench.spool.replay(None).unwrap());
        bench.wait_for("spool_depth", 1);
        let dropped = scope.spawn(|| bench.spool.drop_messages(None, true).unwrap());
        let again = scope.spawn(|| bench.spool.replay(None).unwrap());
        see_if(|| dropped.is_finished() && again.is_finished());
        drop(release);
        let counts = [replayed, dropped, again].map(|one| one.join().unwrap());
        assert_eq!(counts, [1, 0, 0]);
    });
    assert_eq!((bench.figure("spool_depth"), bench.figure("spool_failed_files")), (1, 0));
}

#[test]
fn one_that_cannot_be_read_stops_no_others() {
    let bench = failed(&["bad", "fine", "gone"]);
    let folder = bench.spool.path().join("failed");
    fs::write(folder.join("bad.json"), b"{").unwrap();
    fs::remove_file(folder.join("gone.eml")).unwrap();
    let size = (LARGEST_INLINE + 1) as u64;
    let entry = |name: &str, state| (name.to_owned(), state, size);
    let (bad, good) = (entry("bad", State::Damaged), entry("fine", State::Failed));
    assert_eq!(of_failed(&bench), [bad.clone(), good, entry("gone", State::Failed)]);
    let reason = bench.spool.list(0, 1, true).unwrap()[0].error.clone().unwrap();
    assert!(reason.ends_with(": its message is in the .eml beside it"), "{reason}");
    let (_, message) = bench.spool.show("bad").unwrap().unwrap();
    assert!(matches!(message, Octets::File(file) if file.metadata().unwrap().len() == size));
    bench.lines();
    assert_eq!(bench.spool.replay(None).unwrap(), 1);
    let lines = bench.lines();
    let told = |line: &String| line.contains("bad.json") && line.contains("cannot be put back");
    assert!(lines.iter().any(told), "{lines:?}");
    assert_eq!(bench.spool.replay(Some(&["gone".to_owned()])).unwrap(), 0);
    assert_eq!(bench.figure("spool_depth"), 1);
    assert_eq!(of_failed(&bench), [bad, entry("gone", State::Failed)]);
    assert_eq!(bench.spool.drop_messages(Some(&["bad".to_owned()]), true).unwrap(), 1);
    assert_eq!(bench.spool.drop_messages(None, true).unwrap(), 1);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}
