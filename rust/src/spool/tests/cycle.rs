//! Messages come, are given out, and go.

use super::*;

#[test]
fn a_message_is_given_out_as_it_came_and_is_gone_when_done() {
    let mut bench = Bench::new();
    let large = vec![7; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("one", b"1"), ("two", b""), ("big", &large)]), [Ok(()); 3]);
    assert_eq!(bench.insert("b", &[("other", b"2")]), [Ok(())]);
    let found = bench.receive("a", 9);
    let mut bodies: Vec<(String, Vec<u8>)> =
        found.iter().map(|leased| (leased.queued_id.clone(), octets(leased))).collect();
    bodies.sort();
    assert_eq!(bodies[0], ("big".to_owned(), large));
    assert_eq!(bodies[1..], [("one".to_owned(), b"1".to_vec()), ("two".to_owned(), vec![])]);
    assert!(found.iter().all(|leased| leased.attempts == 0 && leased.record == b"{\"a\": 1}"));
    assert_eq!(bench.spool.waiting(), [("a".to_owned(), 3), ("b".to_owned(), 1)]);
    done(&found);
    bench.wait_for("spool_done", 3);
    assert_eq!((bench.figure("spool_depth"), bench.figure("spool_octets")), (1, 9));
    drop(found);
    bench.reopen();
    assert_eq!(bench.spool.waiting(), [("b".to_owned(), 1)]);
    assert_eq!(bench.rest("a"), [""; 0]);
    assert_eq!(bench.rest("b"), ["other"]);
}
