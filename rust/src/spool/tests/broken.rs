//! Disks that fail: no 250 that is not true, nothing lost of what was told before, and all well afterwards.

use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_WRITE};

use super::vfs::{Call, fail, mend};
use super::*;
use crate::spool::faults::Point;
use crate::spool::writer::Adopted;

const ENOSPC: i32 = libc::ENOSPC;
const EIO: i32 = libc::EIO;

#[test]
fn a_commit_that_fails_is_a_451_until_the_disk_is_well_again() {
    let faults = [
        (Call::Sync, 0, SQLITE_IOERR_FSYNC),
        (Call::Write, 0, SQLITE_FULL),
        (Call::Write, 2, SQLITE_IOERR_WRITE),
        (Call::Write, 5, SQLITE_FULL),
    ];
    for (call, after, code) in faults {
        let mut bench = Bench::new();
        assert_eq!(bench.insert("a", &[("before", b"1"), ("worked on", b"1")]), [Ok(()); 2]);
        let leased = bench.receive("a", 2);
        let wal = bench.spool.path().join("spool.db-wal");
        fail(&wal, call, after, code);
        // One after the other until there was one too many: each is saved, or refused.
        let large = vec![1; 9_000];
        let mut names: Vec<String> = Vec::new();
        loop {
            let name = format!("try {}", names.len());
            let told = bench.insert("a", &[(&name, &large)]);
            names.push(name);
            if told == [Err(Refusal::Broken)] {
                break;
            }
            assert_eq!(told, [Ok(())]);
            assert!(names.len() < 9, "{call:?} {after}: nothing failed");
        }
        names.pop();
        assert_eq!(bench.spool.has_room(1), Err(Refusal::Broken));
        assert_eq!(bench.insert("a", &[("meanwhile", b"1")]), [Err(Refusal::Broken)]);
        assert_eq!(bench.figure("spool_broken"), 1);
        // What was worked on meanwhile is remembered.
        leased.iter().find(|one| one.queued_id == "worked on").unwrap().lease.settle(Settled::Done);
        mend(&wal);
        bench.wait_for("spool_broken", 0);
        bench.wait_for("spool_done", 1);
        assert_eq!(bench.insert("a", &[("after", b"1")]), [Ok(())]);
        drop(leased);
        bench.reopen();
        names.extend(["after".to_owned()]);
        // The lease that was dropped is a deferral.
        assert_eq!(
            bench.figure("spool_deferred") + bench.rest("a").len() as u64,
            names.len() as u64 + 1
        );
        let lines = bench.lines();
        assert!(
            lines.iter().any(|line| line.contains("spool.db: cannot be written: ")),
            "{lines:?}"
        );
    }
}

#[test]
fn a_commit_that_reaches_the_disk_although_it_failed_is_undone() {
    let mut bench = Bench::new();
    assert_eq!(bench.insert("a", &[("before", b"1"), ("worked on", b"1")]), [Ok(()); 2]);
    let leased = bench.receive("a", 2).pop().unwrap();
    assert_eq!(leased.queued_id, "worked on");
    // Where nobody reads meanwhile, the reopen finds all that was written, whether it was synced or not.
    let none = Connection::open_in_memory().unwrap();
    drop(std::mem::replace(&mut *bench.spool.shared.reader.lock().unwrap(), none));
    let wal = bench.spool.path().join("spool.db-wal");
    fail(&wal, Call::Sync, 0, SQLITE_IOERR_FSYNC);
    leased.lease.settle(Settled::Done);
    assert_eq!(bench.insert("a", &[("refused", b"1")]), [Err(Refusal::Broken)]);
    mend(&wal);
    bench.wait_for("spool_broken", 0);
    assert_eq!(bench.insert("a", &[("after", b"1")]), [Ok(())]);
    bench.wait_for("spool_depth", 2);
    assert_eq!(bench.figure("spool_octets"), 18);
    bench.reopen();
    bench.wait_for("spool_depth", 2);
    assert_eq!(bench.spool.waiting(), [("a".to_owned(), 2)]);
    let names: Vec<String> =
        bench.spool.list(0, 9, false).unwrap().into_iter().map(|one| one.queued_id).collect();
    assert_eq!(names, ["before", "after"]);
}

#[test]
fn a_body_stays_as_long_as_its_row_may_be_there_although_it_was_refused() {
    let large = vec![1; LARGEST_INLINE + 1];
    let mut bench = Bench::new();
    assert_eq!(bench.insert("a", &[("before", b"1")]), [Ok(())]);
    let wal = bench.spool.path().join("spool.db-wal");
    fail(&wal, Call::Sync, 0, SQLITE_IOERR_FSYNC);
    assert_eq!(bench.insert("a", &[("refused", &large)]), [Err(Refusal::Broken)]);
    let paths = bench.body_paths();
    assert_eq!(paths.len(), 1);
    // What is done with it would be done before anything behind it.
    assert_eq!(bench.insert("a", &[("meanwhile", &large)]), [Err(Refusal::Broken)]);
    assert!(paths[0].exists());
    mend(&wal);
    bench.wait_for("spool_broken", 0);
    bench.wait(|| bench.bodies() == 0);
    bench.reopen();
    assert_eq!(bench.figure("spool_depth"), 1);
    assert_eq!(bench.figure("spool_damaged"), 0);
}

#[test]
fn a_message_that_is_done_by_a_commit_that_failed_and_reached_the_disk_leaves_no_body() {
    let bench = Bench::new();
    let large = vec![1; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("worked on", &large)]), [Ok(())]);
    let leased = bench.receive("a", 1).pop().unwrap();
    let wal = bench.spool.path().join("spool.db-wal");
    fail(&wal, Call::Sync, 0, SQLITE_IOERR_FSYNC);
    leased.lease.settle(Settled::Done);
    bench.wait_for("spool_broken", 1);
    assert_eq!(bench.bodies(), 1);
    mend(&wal);
    bench.wait_for("spool_broken", 0);
    bench.wait(|| bench.bodies() == 0);
    assert_eq!(bench.figure("spool_depth"), 0);
}

#[test]
fn the_marks_of_a_commit_that_failed_are_undone_with_it() {
    let bench = Bench::new();
    let taken = |id: i64, after: i64, gaps: &[(&str, i64)]| {
        let gaps = gaps.iter().map(|(key, mark)| ((*key).to_owned(), *mark)).collect();
        let key = "adopted 7".to_owned();
        let adopted = Adopted { key, id, after, gaps, crc: 0, retry: None };
        let entry = bench.mail("a", &id.to_string(), b"x");
        bench.spool.shared.send(Job::Insert { entry, file: None, adopted: Some(adopted) });
        bench.settled.recv_timeout(SOON).unwrap().1
    };
    assert_eq!(taken(3, 0, &[]), Ok(()));
    let none = Connection::open_in_memory().unwrap();
    drop(std::mem::replace(&mut *bench.spool.shared.reader.lock().unwrap(), none));
    let wal = bench.spool.path().join("spool.db-wal");
    fail(&wal, Call::Sync, 0, SQLITE_IOERR_FSYNC);
    assert_eq!(taken(9, 3, &[("adopted 7 4 8", 3)]), Err(Refusal::Broken));
    mend(&wal);
    bench.wait_for("spool_broken", 0);
    let path = bench.spool.path().join("spool.db");
    *bench.spool.shared.reader.lock().unwrap() = database::open_to_read(&path).unwrap();
    let mark = |key: &str| database::meta(&bench.spool.shared.reader.lock().unwrap(), key).unwrap();
    assert_eq!((mark("adopted 7"), mark("adopted 7 4 8")), (3, 0));
    // Or it would be deleted where it is, and be nowhere.
    assert_eq!(taken(9, 3, &[("adopted 7 4 8", 3)]), Ok(()));
    assert_eq!((mark("adopted 7"), mark("adopted 7 4 8")), (9, 3));
    assert_eq!(bench.figure("spool_depth"), 2);
}

#[test]
fn a_body_that_cannot_be_made_to_last_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let large = vec![1; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("before", &large)]), [Ok(())]);
    for point in [Point::Write, Point::Sync, Point::Rename, Point::SyncFolder] {
        for (code, refusal) in [(ENOSPC, Refusal::Full), (EIO, Refusal::Broken)] {
            bench.spool.shared.folder.faults.plan(point, code);
            assert_eq!(bench.insert("a", &[("refused", &large)]), [Err(refusal)], "{point:?}");
        }
    }
    assert_eq!(bench.insert("a", &[("after", &large)]), [Ok(())]);
    assert_eq!(bench.bodies(), 2);
    assert_eq!(bench.figure("spool_refused"), 8);
    let found = bench.receive("a", 9);
    assert!(found.iter().all(|leased| octets(leased) == large));
    assert_eq!(found.len(), 2);
}

#[test]
fn what_cannot_be_unlinked_goes_with_the_next_start() {
    let mut bench = Bench::new();
    let large = vec![1; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("one", &large)]), [Ok(())]);
    bench.spool.shared.folder.faults.plan(Point::Unlink, EIO);
    bench.receive("a", 1)[0].lease.settle(Settled::Done);
    bench.wait_for("spool_done", 1);
    bench.reopen();
    assert_eq!((bench.bodies(), bench.rest("a").len()), (0, 0));
    assert!(bench.lines().iter().any(|line| line.contains("the next start tries again")));
}

#[test]
fn a_failed_message_that_cannot_be_set_aside_stays() {
    let bench = Bench::new();
    assert_eq!(bench.insert("a", &[("one", b"1")]), [Ok(())]);
    bench.spool.shared.folder.faults.plan(Point::Sync, ENOSPC);
    bench.receive("a", 1)[0].lease.settle(Settled::Failed("550 no".to_owned()));
    bench.wait_for("spool_deferred", 1);
    assert_eq!((bench.figure("spool_failed"), bench.figure("spool_depth")), (0, 1));
}

#[test]
fn every_commit_is_synced_before_it_is_told() {
    let bench = Bench::new();
    let count = || super::vfs::syncs(bench.spool.path(), "spool.db-wal");
    for number in 0..20 {
        let before = count();
        assert_eq!(bench.insert("a", &[(&number.to_string(), b"1")]), [Ok(())]);
        assert!(count() > before, "the {number}th was not synced");
    }
    assert!(bench.figure("spool_commits") >= 20);
}
