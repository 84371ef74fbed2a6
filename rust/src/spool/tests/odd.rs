//! Rows in which there is what nobody wrote: each is set aside, and stops no others.

use std::cell::RefCell;
use std::fs;

use super::*;

/// Changes rows while nobody has them.
fn change(bench: &mut Bench, sql: &str) {
    bench.spool.close();
    Connection::open(bench.spool.path().join("spool.db")).unwrap().execute_batch(sql).unwrap();
    bench.reopen();
}

#[test]
fn odd_rows_are_set_aside_and_the_others_go_on() {
    let mut bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    for name in ["id", "crc", "one", "negative", "largest", "least", "two", "short"] {
        assert_eq!(bench.insert("a", &[(name, b"1")]), [Ok(())]);
    }
    for name in ["file", "other file"] {
        assert_eq!(bench.insert("a", &[(name, &large)]), [Ok(())]);
    }
    change(
        &mut bench,
        "UPDATE msg SET queued_id = CAST(x'69ff' AS TEXT) WHERE queued_id = 'id';
         UPDATE msg SET crc = crc + (1 << 32) WHERE queued_id = 'crc';
         UPDATE msg SET size = -1 WHERE queued_id = 'negative';
         UPDATE msg SET size = 0x7fffffffffffffff WHERE queued_id IN ('largest', 'file');
         UPDATE msg SET size = -0x7fffffffffffffff - 1 WHERE queued_id IN ('least', 'other file');
         UPDATE msg SET size = 0 WHERE queued_id = 'short';
         UPDATE msg SET received_ms = -0x7fffffffffffffff - 1 WHERE queued_id = 'one';",
    );
    assert_eq!(bench.rest("a"), ["one", "two"]);
    bench.wait_for("spool_damaged", 8);
    assert_eq!((bench.figure("spool_depth"), bench.figure("spool_octets")), (2, 18));
    let mut names: Vec<String> =
        bench.spool.list(0, 99, true).unwrap().into_iter().map(|one| one.queued_id).collect();
    names.sort();
    let expected =
        ["crc", "file", "i\u{fffd}", "largest", "least", "negative", "other file", "short"];
    assert_eq!(names, expected);
    assert_eq!(bench.insert("a", &[("after", b"1")]), [Ok(())]);
    bench.reopen();
    assert_eq!((bench.figure("spool_depth"), bench.figure("spool_octets")), (3, 27));
}

#[test]
fn odd_rows_of_other_tables_hold_up_no_message() {
    let mut bench = Bench::new();
    assert_eq!(bench.insert("a", &[("1", b"1"), ("2", b"2"), ("3", b"3")]), [Ok(()); 3]);
    change(
        &mut bench,
        "INSERT INTO retry SELECT id, CAST(x'ff' AS TEXT), 1 << 40, 0, NULL FROM msg
           WHERE queued_id = '1';
         INSERT INTO retry SELECT id, 'a', -1, 0, NULL FROM msg WHERE queued_id = '2';
         INSERT INTO lane VALUES(CAST(x'ff' AS TEXT), 0, 0);",
    );
    let mut found = bench.receive("a", 9);
    found.extend(bench.receive("a", 9));
    found.sort_by_key(|leased| leased.id);
    let attempts: Vec<u32> = found.iter().map(|leased| leased.attempts).collect();
    assert_eq!(attempts, [u32::MAX >> 1, 0, 0]);
    drop(found);
    bench.wait_for("spool_deferred", 3);
    assert_eq!(bench.spool.drop_messages(None, false).unwrap(), 3);
}

#[test]
fn a_message_of_a_backend_that_never_was_waits_and_is_told() {
    let mut bench = Bench::new();
    assert_eq!(bench.insert("a", &[("1", b"1"), ("2", b"2"), ("3", b"3")]), [Ok(()); 3]);
    for name in ["'defbult'", "CAST(x'ff' AS TEXT)"] {
        change(&mut bench, &format!("UPDATE msg SET backend = {name} WHERE queued_id = '2'"));
        let found = bench.receive("a", 9);
        for leased in &found {
            leased.lease.disarm();
        }
        assert_eq!(found.len(), 2, "{name}");
        let lines = bench.lines();
        assert!(lines.iter().any(|line| line.contains("which nobody has")), "{lines:?}");
    }
}

#[test]
fn a_row_that_cannot_be_deleted_stops_nobody() {
    let mut bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("large", &large)]), [Ok(())]);
    assert_eq!(bench.insert("a", &[("small", b"1")]), [Ok(())]);
    bench.spool.close();
    // The name of its file, in the table and not in the index of it: SQLite deletes no row of which it does
    // not find the key.
    let database = bench.spool.path().join("spool.db");
    let name = bench.body_paths()[0].file_name().unwrap().to_owned();
    let mut octets = fs::read(&database).unwrap();
    let name = name.as_encoded_bytes();
    let at = octets.windows(name.len()).position(|window| window == name).unwrap();
    octets[at] ^= 0x80;
    fs::write(&database, octets).unwrap();
    for _ in 0..2 {
        bench.reopen();
        let found = bench.receive("a", 9);
        assert_eq!(found.last().unwrap().queued_id, "small");
        for leased in &found {
            leased.lease.disarm();
        }
        let lines = RefCell::new(Vec::new());
        bench.wait(|| {
            lines.borrow_mut().extend(bench.lines());
            lines.borrow().iter().any(|line: &String| line.contains("cannot be deleted"))
        });
        let lines = lines.into_inner();
        assert!(lines.iter().any(|line| line.contains("was set aside")), "{lines:?}");
        assert_eq!(bench.insert("b", &[("after", b"1")]), [Ok(())]);
        assert_eq!((bench.figure("spool_broken"), bench.figure("spool_refused")), (0, 0));
        // Its octets are still there, for who looks after it.
        assert_eq!((bench.bodies(), bench.figure("spool_leased")), (1, 1));
    }
}
