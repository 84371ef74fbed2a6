//! How much it holds.

use super::*;

#[test]
fn no_more_than_max_bytes_is_taken_and_more_when_there_is_room_again() {
    // The envelope of each has eight octets.
    let bench = Bench::with(|settings| settings.max_bytes = 36);
    assert_eq!(bench.insert("a", &[("1", b"0123456789"), ("2", b"0123456789")]), [Ok(()); 2]);
    assert_eq!(bench.figure("spool_octets"), 36);
    assert_eq!(bench.spool.has_room(0), Ok(()));
    assert_eq!(bench.spool.has_room(1), Err(Refusal::Full));
    assert_eq!(bench.insert("a", &[("3", b"")]), [Err(Refusal::Full)]);
    assert_eq!(bench.figure("spool_refused"), 2);
    bench.receive("a", 1)[0].lease.settle(Settled::Done);
    bench.wait_for("spool_done", 1);
    assert_eq!(bench.insert("a", &[("4", b"01234567890")]), [Err(Refusal::Full)]);
    assert_eq!(bench.insert("a", &[("5", b"0123456789")]), [Ok(())]);
    bench.spool.obey(Settings { max_bytes: 54, ..bench.settings() });
    assert_eq!(bench.insert("a", &[("6", b"0123456789")]), [Ok(())]);
    let large = vec![1; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("7", &large)]), [Err(Refusal::Full)]);
    assert_eq!(bench.bodies(), 0);
}

#[test]
fn messages_of_one_commit_do_not_pass_together_what_each_could_alone() {
    let bench = Bench::with(|settings| settings.max_bytes = 30);
    let mails: Vec<_> = (0..50).map(|number| bench.mail("a", &number.to_string(), b"01")).collect();
    for mail in mails {
        bench.spool.insert(mail);
    }
    let told: Vec<_> = (0..50).map(|_| bench.settled.recv_timeout(SOON).unwrap().1).collect();
    assert_eq!(told.iter().filter(|outcome| **outcome == Ok(())).count(), 3);
}

#[test]
fn a_disk_with_less_than_min_free_takes_nothing() {
    let bench = Bench::with(|settings| settings.min_free = u64::MAX);
    assert_eq!(bench.spool.has_room(0), Err(Refusal::Full));
    assert_eq!(bench.insert("a", &[("1", b"1")]), [Err(Refusal::Full)]);
    assert!(bench.lines().iter().any(|line| line.contains("spool.min_free")));
    bench.spool.obey(Settings { min_free: 1, ..bench.settings() });
    assert_eq!(bench.insert("a", &[("2", b"1")]), [Ok(())]);
    assert!(bench.lines().iter().any(|line| line.contains("room again")));
}

#[test]
fn the_file_of_a_backlog_that_is_gone_is_small_again() {
    let bench = Bench::new();
    let body = vec![1; 200 << 10];
    for number in 0..10 {
        assert_eq!(bench.insert("a", &[(&number.to_string(), &body)]), [Ok(())]);
    }
    let found = bench.receive("a", 10);
    let size = || std::fs::metadata(bench.spool.path().join("spool.db")).unwrap().len();
    done(&found);
    bench.wait_for("spool_done", 10);
    bench.wait(|| size() < 100 << 10);
    assert_eq!(bench.insert("a", &[("after", b"1")]), [Ok(())]);
    assert_eq!(bench.rest("a"), ["after"]);
}
