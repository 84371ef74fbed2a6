//! What was saved just now is given out without being read; and how much waits in the WAL.

use rusqlite::ffi::{SQLITE_IOERR_FSYNC, SQLITE_OK};

use super::vfs::{Call, fail, mend};
use super::*;

/// Has the disk give nothing, until what it had is given back.
fn read_by(bench: &Bench, reader: Connection) -> Connection {
    std::mem::replace(&mut *bench.spool.shared.reader.lock().unwrap(), reader)
}

fn blind(bench: &Bench) -> Connection {
    read_by(bench, Connection::open_in_memory().unwrap())
}

fn insert(bench: &Bench, count: usize) -> Vec<String> {
    let large = vec![b'x'; LARGEST_INLINE];
    let names: Vec<String> = (0..count).map(|number| format!("{number:03}")).collect();
    for name in &names {
        assert_eq!(bench.insert("a", &[(name, &large)]), [Ok(())]);
    }
    names
}

fn names(found: &[Leased]) -> Vec<String> {
    found.iter().map(|leased| leased.queued_id.clone()).collect()
}

fn wal(bench: &Bench) -> u64 {
    std::fs::metadata(bench.spool.path().join("spool.db-wal")).unwrap().len()
}

#[test]
fn a_message_is_given_out_as_it_came_once_and_read_from_then_on() {
    let mut bench = Bench::new();
    let reader = blind(&bench);
    assert_eq!(bench.insert("a", &[("1", b"one")]), [Ok(())]);
    let found = bench.receive("a", 1);
    assert_eq!((found[0].queued_id.as_str(), octets(&found[0])), ("1", b"one".to_vec()));
    assert_eq!((found[0].attempts, found[0].record.as_slice()), (0, &b"{\"a\": 1}"[..]));
    found[0].lease.settle(Settled::Deferred("later".to_owned()));
    bench.wait_for("spool_retries", 1);
    drop(read_by(&bench, reader));
    assert_eq!(bench.spool.retry(None).unwrap(), 1);
    let found = bench.receive("a", 1);
    assert_eq!((found[0].attempts, octets(&found[0])), (1, b"one".to_vec()));
    assert_eq!(found[0].record, b"{\"a\": 1}");
    found[0].lease.disarm();
    drop(found);
    assert_eq!(bench.insert("a", &[("2", b"two")]), [Ok(())]);
    bench.reopen();
    // First what is due, then what has never been tried.
    let mut found = bench.receive("a", 9);
    found.extend(bench.receive("a", 9));
    assert_eq!(found.iter().map(octets).collect::<Vec<_>>(), [b"one", b"two"]);
    done(&found);
    bench.wait_for("spool_depth", 0);
}

#[test]
fn what_a_command_drops_is_not_kept_either() {
    let bench = Bench::new();
    assert_eq!(bench.insert("a", &[("1", b"one"), ("2", b"two")]), [Ok(()); 2]);
    assert_eq!(bench.spool.drop_messages(Some(&["1".to_owned()]), false).unwrap(), 1);
    let found = bench.receive("a", 9);
    assert_eq!(found.iter().map(octets).collect::<Vec<_>>(), [b"two"]);
}

#[test]
fn what_is_kept_is_bounded_and_does_not_wait_for_what_cannot_be_read() {
    let bench = Bench::new();
    let inserted = insert(&bench, 20);
    let reader = blind(&bench);
    let found = bench.receive("a", 99);
    assert_eq!(names(&found), inserted[..15]);
    drop(read_by(&bench, reader));
    let later = bench.receive("a", 99);
    assert_eq!(names(&later), inserted[15..]);
    done(&found);
    done(&later);
    bench.wait_for("spool_depth", 0);
    // There is room again.
    drop(blind(&bench));
    assert_eq!(bench.insert("a", &[("new", b"new")]), [Ok(())]);
    assert_eq!(names(&bench.receive("a", 1)), ["new"]);
}

#[test]
fn what_is_kept_counts_in_a_batch_too() {
    let bench = Bench::new();
    let inserted = insert(&bench, 80);
    let found = bench.receive("a", 99);
    // 16 MiB, with their envelopes.
    assert_eq!(names(&found), inserted[..63]);
    assert_eq!(names(&bench.receive("a", 99)), inserted[63..]);
}

#[test]
fn what_is_kept_is_as_large_as_it_is_and_nothing_is_once_none_is_given() {
    let bench = Bench::new();
    let insert = |name: &str| {
        let mut octets = Vec::with_capacity(1 << 20);
        octets.extend_from_slice(b"small");
        let (queued_id, settled) = (name.to_owned(), bench.settle.clone());
        bench.spool.insert(Box::new(Mail { backend: "a", queued_id, octets, settled }));
        assert_eq!(bench.settled.recv_timeout(SOON).unwrap(), (name.to_owned(), Ok(())));
    };
    let ids: Vec<(i64, u64)> = (1..99).map(|id| (id, 0)).collect();
    let kept = || bench.spool.shared.lanes.kept("a", &ids).into_values().collect::<Vec<_>>();
    insert("1");
    let found = kept();
    assert_eq!(found.iter().map(|one| one.body.capacity()).collect::<Vec<_>>(), [5]);
    insert("2");
    bench.spool.stop_giving();
    insert("3");
    assert_eq!(kept().len(), 0);
}

#[test]
fn the_wal_is_written_to_the_database_before_it_is_large() {
    let bench = Bench::new();
    insert(&bench, 160);
    // Of 40 MiB.
    let database = std::fs::metadata(bench.spool.path().join("spool.db")).unwrap().len();
    assert!(wal(&bench) < 17 << 20 && database > 24 << 20, "{database} and {}", wal(&bench));
}

#[test]
fn the_wal_begins_anew_although_somebody_reads_when_it_is_written_to_the_database() {
    let bench = Bench::new();
    let reader = database::open_to_read(&bench.spool.path().join("spool.db")).unwrap();
    for _ in 0..3 {
        // That is behind what was written last, and in the way of all that comes later.
        for _ in 0..36 {
            insert(&bench, 1);
            // Also before it begins anew, and is cut.
            assert!(wal(&bench) < 17 << 20, "{}", wal(&bench));
        }
        reader.execute_batch("BEGIN; SELECT count(*) FROM meta").unwrap();
        insert(&bench, 16);
        reader.execute_batch("COMMIT").unwrap();
    }
}

#[test]
fn the_wal_of_a_folder_that_is_taken_over_is_written_to_its_database_too() {
    let folder = tempfile::tempdir().unwrap();
    let connection = database::open(&folder.path().join("spool.db")).unwrap();
    connection.execute_batch("CREATE TABLE large(octets)").unwrap();
    for _ in 0..160 {
        connection.execute_batch("INSERT INTO large VALUES(randomblob(262144))").unwrap();
    }
    let wal = std::fs::metadata(folder.path().join("spool.db-wal")).unwrap().len();
    assert!(wal < 17 << 20, "{wal}");
}

#[test]
fn a_database_that_cannot_be_synced_takes_no_more_until_it_can() {
    let bench = Bench::new();
    let database = bench.spool.path().join("spool.db");
    fail(&database, Call::Sync, 0, SQLITE_IOERR_FSYNC);
    let large = vec![b'x'; LARGEST_INLINE];
    let mut saved = 0;
    while bench.insert("a", &[(&format!("{saved:03}"), &large)]) == [Ok(())] {
        saved += 1;
        assert!(saved < 99);
    }
    assert_eq!(bench.figure("spool_broken"), 1);
    let lines = bench.lines();
    assert!(lines.iter().any(|line| line.contains("spool.db: cannot be written: ")), "{lines:?}");
    mend(&database);
    bench.wait_for("spool_broken", 0);
    assert_eq!(bench.insert("a", &[("after", b"1")]), [Ok(())]);
    assert_eq!(bench.figure("spool_depth"), saved + 1);
}

#[test]
fn what_was_written_back_and_lost_before_the_sync_that_failed_is_written_back_again() {
    let mut bench = Bench::new();
    let database = bench.spool.path().join("spool.db");
    // Written to the memory of the system, which cannot write it to the disk.
    fail(&database, Call::Write, 0, SQLITE_OK);
    let reader = database::open_to_read(&database).unwrap();
    insert(&bench, 36);
    reader.execute_batch("BEGIN; SELECT count(*) FROM meta").unwrap();
    // A part of it, since somebody reads; that is not synced.
    insert(&bench, 16);
    mend(&database);
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    fail(&database, Call::Sync, 0, SQLITE_IOERR_FSYNC);
    let large = vec![b'x'; LARGEST_INLINE];
    let mut saved = 52;
    while bench.insert("a", &[("more", &large)]) == [Ok(())] {
        saved += 1;
        assert!(saved < 99);
    }
    mend(&database);
    bench.wait_for("spool_broken", 0);
    bench.reopen();
    let mut found = bench.receive("a", 99);
    while found.len() < saved {
        found.extend(bench.receive("a", 99));
    }
    assert!(found.iter().all(|leased| octets(leased) == large));
    assert_eq!(bench.figure("spool_depth"), saved as u64);
}
