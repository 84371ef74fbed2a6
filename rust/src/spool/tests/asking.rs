//! What commands ask.

use super::*;

fn ids(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.queued_id.as_str()).collect()
}

#[test]
fn a_list_comes_in_pages_and_a_message_by_its_id() {
    let bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    for name in ["1", "2", "3"] {
        assert_eq!(bench.insert("a", &[(name, name.as_bytes())]), [Ok(())]);
    }
    assert_eq!(bench.insert("b", &[("4", &large)]), [Ok(())]);
    let page = bench.spool.list(0, 3, false).unwrap();
    assert_eq!(ids(&page), ["1", "2", "3"]);
    let rest = bench.spool.list(page[2].id, 3, false).unwrap();
    assert_eq!((ids(&rest), rest[0].backend.as_str()), (vec!["4"], "b"));
    assert_eq!(rest[0].state.name(), "ready");
    let leased = bench.receive("a", 1);
    let (entry, found) = bench.spool.show("1").unwrap().unwrap();
    assert_eq!((entry.state, entry.size), (State::InWork, 1));
    assert!(matches!(found, Octets::Memory(octets) if octets == b"1"));
    assert!(matches!(bench.spool.show("4").unwrap().unwrap().1, Octets::File(_)));
    assert!(bench.spool.show("5").unwrap().is_none());
    drop(leased);
}

#[test]
fn what_is_deferred_is_tried_at_once_and_what_is_dropped_is_gone() {
    let bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("1", b"1"), ("2", b"2"), ("3", &large)]), [Ok(()); 3]);
    drop(bench.receive("a", 3));
    bench.wait_for("spool_deferred", 3);
    let some = ["2".to_owned(), "none".to_owned()];
    assert_eq!(bench.spool.retry(Some(&some)).unwrap(), 1);
    let leased = bench.receive("a", 9);
    assert_eq!((leased.len(), leased[0].queued_id.as_str(), leased[0].attempts), (1, "2", 1));
    // What somebody works on is left alone.
    assert_eq!(bench.spool.drop_messages(None, false).unwrap(), 2);
    bench.wait_for("spool_depth", 1);
    assert_eq!((bench.figure("spool_deferred"), bench.figure("spool_octets")), (0, 9));
    leased[0].lease.settle(Settled::Done);
    bench.wait_for("spool_depth", 0);
    assert_eq!(bench.figure("spool_octets"), 0);
    bench.wait(|| bench.bodies() == 0);
}

#[test]
fn a_failed_message_comes_back_as_it_was() {
    let bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("1", b"1"), ("2", &large), ("3", b"")]), [Ok(()); 3]);
    let found = bench.receive("a", 3);
    for one in &found {
        one.lease.settle(Settled::Failed("550 5.7.1 no".to_owned()));
    }
    bench.wait_for("spool_failed", 3);
    drop(found);
    let failed = bench.spool.list(0, 2, true).unwrap();
    assert_eq!(ids(&failed), ["1", "2"]);
    assert_eq!(ids(&bench.spool.list(failed[1].id, 2, true).unwrap()), ["3"]);
    assert_eq!(failed[0].error.as_deref(), Some("550 5.7.1 no"));
    assert_eq!((bench.figure("spool_depth"), bench.figure("spool_failed_files")), (0, 3));
    assert!(matches!(bench.spool.show("2").unwrap().unwrap().1, Octets::File(_)));
    assert_eq!(bench.spool.drop_messages(Some(&["1".to_owned()]), true).unwrap(), 1);
    assert_eq!(bench.spool.replay(None).unwrap(), 2);
    assert_eq!((bench.figure("spool_depth"), bench.figure("spool_failed_files")), (2, 0));
    let mut back = bench.receive("a", 9);
    back.extend(if back.len() < 2 { bench.receive("a", 9) } else { Vec::new() });
    back.sort_by(|one, other| one.queued_id.cmp(&other.queued_id));
    assert_eq!(octets(&back[0]), large);
    assert!(octets(&back[1]).is_empty());
    assert!(back.iter().all(|one| one.record == b"{\"a\": 1}" && one.attempts == 0));
}

#[test]
fn the_log_says_what_a_command_did_to_a_message() {
    let bench = Bench::new();
    for name in ["1", "2"] {
        assert_eq!(bench.insert("a", &[(name, b"x")]), [Ok(())]);
        bench.receive("a", 1)[0].lease.settle(Settled::Failed("550".to_owned()));
    }
    assert_eq!(bench.insert("a", &[("3", b"x")]), [Ok(())]);
    bench.wait_for("spool_failed", 2);
    bench.lines();
    assert_eq!(bench.spool.drop_messages(Some(&["1".to_owned()]), true).unwrap(), 1);
    assert_eq!(bench.spool.replay(None).unwrap(), 1);
    assert_eq!(bench.spool.drop_messages(Some(&["3".to_owned()]), false).unwrap(), 1);
    let told = [
        "1: dropped by a command",
        "2: in the spool again by a command",
        "3: dropped by a command",
    ];
    assert_eq!(bench.lines(), told);
}

#[test]
fn two_failed_messages_of_one_id_do_not_take_each_others_place() {
    let bench = Bench::new();
    for body in [b"1", b"2"] {
        assert_eq!(bench.insert("a", &[("../same", body)]), [Ok(())]);
        bench.receive("a", 1)[0].lease.settle(Settled::Failed("550".to_owned()));
    }
    bench.wait_for("spool_failed", 2);
    assert_eq!(ids(&bench.spool.list(0, 9, true).unwrap()), ["../same", "../same"]);
    assert_eq!(bench.spool.replay(None).unwrap(), 2);
}

#[test]
fn messages_are_found_by_their_names_wherever_the_last_search_ended() {
    let bench = Bench::new();
    let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    for name in &names {
        assert_eq!(bench.insert("a", &[(name, b"x")]), [Ok(())]);
    }
    let some =
        |wanted: &[usize]| -> Vec<String> { wanted.iter().map(|&at| names[at].clone()).collect() };
    // Ahead, behind, on both sides, and the very last one again.
    for (wanted, count) in [(vec![30, 31], 2), (vec![2], 1), (vec![1, 39], 2), (vec![39, 30], 0)] {
        assert_eq!(
            bench.spool.drop_messages(Some(&some(&wanted)), false).unwrap(),
            count,
            "{wanted:?}"
        );
    }
    for at in [20, 0, 38, 3] {
        let (entry, _) = bench.spool.show(&names[at]).unwrap().unwrap();
        assert_eq!(entry.queued_id, names[at]);
    }
    assert!(bench.spool.show("39").unwrap().is_none());
    assert_eq!(bench.spool.list(0, 99, false).unwrap().len(), 35);
    assert_eq!(bench.spool.drop_messages(Some(&names), false).unwrap(), 35);
    bench.wait_for("spool_depth", 0);
}

#[test]
fn what_is_set_aside_is_found_by_a_name_that_is_not_its_files() {
    let bench = Bench::new();
    for name in ["../same", "../same", "other-1", "1"] {
        assert_eq!(bench.insert("a", &[(name, b"x")]), [Ok(())]);
        bench.receive("a", 1)[0].lease.settle(Settled::Failed("550".to_owned()));
    }
    bench.wait_for("spool_failed", 4);
    assert_eq!(bench.spool.drop_messages(Some(&["other".to_owned()]), true).unwrap(), 0);
    assert_eq!(bench.spool.drop_messages(Some(&["other-1".to_owned()]), true).unwrap(), 1);
    assert_eq!(bench.spool.replay(Some(&["../same".to_owned()])).unwrap(), 2);
    assert_eq!((bench.figure("spool_depth"), bench.figure("spool_failed_files")), (2, 1));
}
