//! What was written is not what is read, and what an end at the wrong moment leaves.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};

use rusqlite::ffi::SQLITE_IOERR_FSYNC;

use super::vfs::{Call, fail, mend};
use super::*;

/// Turns one bit of a file.
fn flip(path: &std::path::Path, at: usize) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut octet = [0];
    let at = at as u64;
    file.read_exact_at(&mut octet, at).unwrap();
    // Only that: somebody may have it open.
    file.write_all_at(&[octet[0] ^ 1], at).unwrap();
}

fn find(path: &std::path::Path, wanted: &[u8]) -> usize {
    let octets = fs::read(path).unwrap();
    octets.windows(wanted.len()).position(|window| window == wanted).unwrap()
}

#[test]
fn a_flipped_bit_sets_a_message_aside_and_the_others_go_on() {
    let mut bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("body", b"the body"), ("fine", b"fine")]), [Ok(()); 2]);
    assert_eq!(bench.insert("a", &[("file", &large)]), [Ok(())]);
    assert_eq!(bench.insert("a", &[("missing", &large)]), [Ok(())]);
    bench.spool.close();
    let database = bench.spool.path().join("spool.db");
    flip(&database, find(&database, b"the body"));
    let named = bench.body_paths();
    flip(&named[0], 70_000);
    fs::remove_file(&named[1]).unwrap();
    bench.reopen();
    assert_eq!(bench.rest("a"), ["fine"]);
    bench.wait_for("spool_damaged", 3);
    assert_eq!((bench.figure("spool_depth"), bench.bodies()), (1, 0));
    let found = bench.spool.list(0, 9, true).unwrap();
    let ids: Vec<(&str, State)> =
        found.iter().map(|one| (one.queued_id.as_str(), one.state)).collect();
    let damaged = State::Damaged;
    assert_eq!(ids, [("body", damaged), ("file", damaged), ("missing", damaged)]);
    let (entry, left) = bench.spool.show("file").unwrap().unwrap();
    assert_eq!((entry.record.as_slice(), entry.size), (&b"{\"a\": 1}"[..], large.len() as u64));
    let Octets::File(left) = left else { panic!("not a file") };
    assert_eq!(left.metadata().unwrap().len(), large.len() as u64);
    assert!(bench.lines().iter().any(|line| line.contains("is damaged and was set aside")));
}

#[test]
fn a_flipped_bit_in_an_envelope_is_seen_too() {
    let mut bench = Bench::new();
    assert_eq!(bench.insert("a", &[("one", b"1")]), [Ok(())]);
    bench.spool.close();
    let database = bench.spool.path().join("spool.db");
    flip(&database, find(&database, b"{\"a\": 1}"));
    bench.reopen();
    assert!(bench.rest("a").is_empty());
    bench.wait_for("spool_damaged", 1);
}

#[test]
fn a_wal_that_is_cut_by_a_flipped_bit_is_missed() {
    let mut bench = Bench::new();
    for name in ["1", "2", "3"] {
        assert_eq!(bench.insert("a", &[(name, b"what was saved")]), [Ok(())]);
    }
    // A copy of the folder, as the end of the machine leaves it.
    let (path, copy) = (bench.spool.path().to_owned(), bench.root.path().join("copy"));
    bench.spool.shared.write_last(bench.spool.list(0, 9, false).unwrap()[2].id);
    fs::create_dir_all(copy.join("0")).unwrap();
    for name in ["spool.db", "spool.db-wal", "spool.last"] {
        fs::copy(path.join(name), copy.join("0").join(name)).unwrap();
    }
    let wal = copy.join("0/spool.db-wal");
    let last_copy = fs::read(&wal).unwrap();
    let at = last_copy.windows(14).rposition(|window| window == b"what was saved").unwrap();
    flip(&wal, at);
    let settings = Settings { folder: copy, ..bench.settings() };
    bench.spool.close();
    for lost in [true, false] {
        bench.spool = Spool::open(settings.clone(), Arc::clone(&bench.log)).unwrap();
        let lines = bench.lines();
        assert_eq!(lines.iter().any(|line| line.contains("are missing")), lost, "{lines:?}");
        assert_eq!(bench.spool.waiting(), [("a".to_owned(), 2)]);
        bench.spool.close();
    }
}

#[test]
fn a_wal_that_was_cut_by_a_flipped_bit_is_missed_where_it_is_opened_anew() {
    let mut bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("1", b"what was saved")]), [Ok(())]);
    assert_eq!(bench.insert("a", &[("2", &large)]), [Ok(())]);
    let wal = bench.spool.path().join("spool.db-wal");
    // Nobody reads it there until it is opened anew.
    flip(&wal, find(&wal, b"what was saved"));
    fail(&wal, Call::Sync, 0, SQLITE_IOERR_FSYNC);
    assert_eq!(bench.insert("a", &[("3", b"3")]), [Err(Refusal::Broken)]);
    mend(&wal);
    bench.wait_for("spool_broken", 0);
    let missing = |bench: &Bench| bench.lines().iter().any(|line| line.contains("are missing"));
    assert!(missing(&bench));
    assert_eq!(bench.insert("a", &[("4", &large)]), [Ok(())]);
    let kept = |bench: &Bench| fs::read_dir(bench.spool.path().join("damaged")).unwrap().count();
    for _ in 0..2 {
        bench.reopen();
        // Told once, and the body is there.
        assert!(!missing(&bench));
        assert_eq!((kept(&bench), bench.body_paths().len()), (1, 1));
    }
    assert_eq!(bench.rest("a"), ["4"]);
}

#[test]
fn bodies_without_a_row_go_and_others_stay() {
    let mut bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("one", &large)]), [Ok(())]);
    bench.spool.close();
    let path = bench.spool.path().to_owned();
    // An end between rename and row, one while it was written, one between row and unlink.
    let shelf = bench.body_paths()[0].parent().unwrap().to_owned();
    fs::write(shelf.join("without"), b"1").unwrap();
    fs::write(path.join("bodies/new/half"), b"1").unwrap();
    bench.reopen();
    assert_eq!(bench.bodies(), 1);
    assert_eq!(octets(&bench.receive("a", 1)[0]), large);
}

#[test]
fn what_is_no_database_is_not_opened_and_says_so() {
    let bench = Bench::new();
    bench.spool.close();
    let (settings, log) = (bench.settings(), Arc::clone(&bench.log));
    let path = bench.spool.path().to_owned();
    drop(bench.spool);
    for name in ["spool.db-wal", "spool.db-shm"] {
        folder::remove(&path.join(name)).unwrap();
    }
    fs::write(path.join("spool.db"), b"no database, and long enough to be read as one".repeat(99))
        .unwrap();
    let error = Spool::open(settings.clone(), Arc::clone(&log)).unwrap_err().to_string();
    assert!(error.starts_with(&path.join("spool.db").display().to_string()), "{error}");
    assert!(error.contains("not a database") && error.contains("move it away"), "{error}");
    fs::remove_file(path.join("spool.db")).unwrap();
    let other = rusqlite::Connection::open(path.join("spool.db")).unwrap();
    other.execute_batch("CREATE TABLE a(b); PRAGMA user_version=9;").unwrap();
    drop(other);
    let error = Spool::open(settings, log).unwrap_err().to_string();
    assert!(error.contains("of version 9"), "{error}");
}

#[test]
fn nobody_else_may_read_it() {
    let bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("one", &large), ("two", b"2")]), [Ok(()); 2]);
    let two = bench.receive("a", 2);
    let two = two.iter().find(|leased| leased.queued_id == "two").unwrap();
    two.lease.settle(Settled::Failed("550".to_owned()));
    bench.wait_for("spool_failed", 1);
    bench.spool.shared.write_last(1);
    let mut seen = 0;
    let mut waiting = vec![bench.root.path().join("spool")];
    while let Some(path) = waiting.pop() {
        let found = fs::metadata(&path).unwrap();
        let mode = found.permissions().mode() & 0o777;
        if found.is_dir() {
            assert_eq!(mode, 0o700, "{path:?}");
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{path:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}
