//! Pages of the database that are damaged, and reads that fail.

use std::fs;
use std::path::Path;

use super::*;

const PAGE_SIZE: usize = 4_096;

/// Turns the header of the page that has these octets; the same again mends it.
fn turn(database: &Path, wanted: &[u8]) {
    let mut octets = fs::read(database).unwrap();
    let at = octets.windows(wanted.len()).position(|window| window == wanted).unwrap();
    let page = at / PAGE_SIZE * PAGE_SIZE;
    octets[page..page + 8].iter_mut().for_each(|octet| *octet ^= 0xff);
    fs::write(database, octets).unwrap();
}

/// Saves so many that a page has only a few of them.
fn filled(count: usize) -> Bench {
    let bench = Bench::new();
    for number in 0..count {
        bench.spool.insert(bench.mail("a", &format!("mail-{number:04}"), &[b'x'; 200]));
    }
    for _ in 0..count {
        assert_eq!(bench.settled.recv_timeout(SOON).unwrap().1, Ok(()));
    }
    bench
}

/// All that can be had now.
fn all(bench: &Bench) -> Vec<Leased> {
    let mut found = Vec::new();
    loop {
        let some = bench.spool.receive("a", 64, Duration::ZERO, &|| true).unwrap();
        if some.is_empty() {
            return found;
        }
        found.extend(some);
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

#[test]
fn damaged_pages_hold_up_what_is_on_them_and_nothing_else() {
    let mut bench = filled(600);
    bench.spool.close();
    let database = bench.spool.path().join("spool.db");
    let damaged: [&[u8]; 2] = [b"mail-0200", b"mail-0400"];
    for wanted in &damaged {
        turn(&database, wanted);
    }
    bench.reopen();
    let found = all(&bench);
    let ids: Vec<i64> = found.iter().map(|leased| leased.id).collect();
    assert!(ids.is_sorted());
    let missing: Vec<(i64, i64)> =
        ids.windows(2).map(|two| (two[0] + 1, two[1] - 1)).filter(|gap| gap.0 <= gap.1).collect();
    assert_eq!(missing.len(), 2, "{missing:?}");
    let lines = bench.lines();
    for (first, last) in missing {
        assert!(last - first < 40, "{first} to {last}");
        let text = format!("spool.db: mails with the ids {first} to {last} cannot be read: ");
        assert!(lines.iter().any(|line| line.contains(&text)), "{text}: {lines:?}");
    }
    let left = 600 - found.len();
    // Neighbours of such a page cannot all be deleted: SQLite would have to write to it as well.
    done(&found);
    drop(found);
    bench.wait_for("spool_leased", 0);
    assert!(bench.figure("spool_depth") > count(left));
    assert!(bench.lines().iter().any(|line| line.contains("cannot be deleted")));
    assert_eq!(bench.insert("a", &[("after", b"1")]), [Ok(())]);
    assert_eq!(bench.rest("a"), ["after"]);
    assert_eq!((bench.figure("spool_broken"), bench.figure("spool_refused")), (0, 0));
    bench.spool.close();
    for wanted in &damaged {
        turn(&database, wanted);
    }
    bench.reopen();
    let found = all(&bench);
    let depth = bench.figure("spool_depth");
    assert_eq!(count(found.len()), depth - bench.figure("spool_deferred"));
    assert!(damaged.iter().all(|name| found.iter().any(|one| one.queued_id.as_bytes() == *name)));
}

#[test]
fn where_nothing_can_be_read_it_is_tried_again_and_all_comes_in_the_end() {
    let mut bench = filled(5);
    bench.reopen();
    let none = Connection::open_in_memory().unwrap();
    let reader = std::mem::replace(&mut *bench.spool.shared.reader.lock().unwrap(), none);
    assert!(all(&bench).is_empty());
    assert!(bench.lines().iter().any(|line| line.contains("spool.db: cannot be read: ")));
    *bench.spool.shared.reader.lock().unwrap() = reader;
    assert_eq!(bench.receive("a", 9).len(), 5);
}

#[test]
fn an_end_that_is_damaged_holds_up_nothing_before_it() {
    let mut bench = filled(300);
    bench.spool.close();
    let database = bench.spool.path().join("spool.db");
    turn(&database, b"mail-0299");
    bench.reopen();
    let found = all(&bench);
    assert!((260..300).contains(&found.len()), "{}", found.len());
    assert!(bench.lines().iter().any(|line| line.contains("spool.db: cannot be read: ")));
    for leased in &found {
        leased.lease.disarm();
    }
}
