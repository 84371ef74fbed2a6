//! Ids, order, leases and times.

use super::*;

#[test]
fn ids_go_up_over_restarts_and_are_never_used_again() {
    let mut bench = Bench::new();
    let mut latest = 0;
    for round in 0..3 {
        let names: Vec<String> = (0..5).map(|number| format!("{round} {number}")).collect();
        for name in &names {
            assert_eq!(bench.insert("a", &[(name, b"1")]), [Ok(())]);
        }
        let found = bench.receive("a", 9);
        let ids: Vec<i64> = found.iter().map(|leased| leased.id).collect();
        assert!(ids.is_sorted() && ids[0] > latest, "{ids:?} behind {latest}");
        assert!(found.iter().map(|leased| &leased.queued_id).eq(&names));
        latest = *ids.last().unwrap();
        // The newest row goes: SQLite alone would use its id again.
        done(&found);
        bench.wait_for("spool_depth", 0);
        drop(found);
        bench.reopen();
    }
}

#[test]
fn a_backlog_is_given_out_in_order_and_each_once() {
    let mut bench = Bench::new();
    let count = 3 * lanes::PAGE + 7;
    for number in 0..count {
        let backend = if number % 3 == 0 { "b" } else { "a" };
        bench.spool.insert(bench.mail(backend, &format!("{number:05}"), b"1"));
    }
    for _ in 0..count {
        assert_eq!(bench.settled.recv_timeout(SOON).unwrap().1, Ok(()));
    }
    for _ in 0..2 {
        let mut seen = Vec::new();
        for backend in ["b", "a"] {
            let mut of_it = Vec::new();
            let mut kept = Vec::new();
            let waiting = bench.spool.waiting();
            let waiting = waiting.iter().find(|one| one.0 == backend).unwrap().1;
            while (of_it.len() as u64) < waiting {
                let found = bench.receive(backend, 100);
                of_it.extend(found.iter().map(|leased| leased.queued_id.clone()));
                kept.extend(found);
            }
            assert!(of_it.is_sorted(), "{backend}");
            assert!(bench.spool.receive(backend, 9, Duration::ZERO, &|| true).unwrap().is_empty());
            seen.extend(of_it);
            // Nobody says anything: they come again with the next start.
            for leased in &kept {
                leased.lease.disarm();
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
        bench.reopen();
    }
}

#[test]
fn a_second_word_of_a_lease_counts_only_where_it_is_a_late_success() {
    let bench = Bench::new();
    assert_eq!(bench.insert("a", &[("late", b"1"), ("twice", b"1"), ("no", b"1")]), [Ok(()); 3]);
    let found = bench.receive("a", 3);
    let lease = |name: &str| &found.iter().find(|one| one.queued_id == name).unwrap().lease;
    let deferred = || Settled::Deferred("given up".to_owned());
    lease("late").settle(deferred());
    lease("twice").settle(Settled::Done);
    lease("twice").settle(Settled::Done);
    lease("twice").settle(deferred());
    lease("no").settle(deferred());
    lease("no").settle(Settled::Failed("550".to_owned()));
    bench.wait_for("spool_deferred", 2);
    assert_eq!(bench.figure("spool_depth"), 2);
    lease("late").settle(Settled::Done);
    // Which is counted last.
    bench.wait_for("spool_done", 2);
    assert_eq!((bench.figure("spool_depth"), bench.figure("spool_deferred")), (1, 1));
    assert_eq!(bench.figure("spool_failed"), 0);
    assert_eq!(bench.figure("spool_retries"), 2);
}

#[test]
fn a_success_of_one_that_was_given_up_ends_the_attempt_of_another() {
    let bench = Bench::new();
    assert_eq!(bench.insert("a", &[("one", b"1")]), [Ok(())]);
    let first = bench.receive("a", 1).pop().unwrap();
    first.lease.settle(Settled::Deferred("given up".to_owned()));
    bench.wait_for("spool_deferred", 1);
    assert_eq!(bench.spool.retry(None).unwrap(), 1);
    let second = bench.receive("a", 1).pop().unwrap();
    assert_eq!((second.id, second.attempts), (first.id, 1));
    first.lease.settle(Settled::Done);
    bench.wait_for("spool_depth", 0);
    second.lease.settle(Settled::Deferred("not again".to_owned()));
    assert_eq!(bench.insert("a", &[("two", b"1")]), [Ok(())]);
    assert_eq!((bench.figure("spool_deferred"), bench.figure("spool_depth")), (0, 1));
}

#[test]
fn what_is_dropped_without_a_word_waits_and_says_so() {
    let mut bench = Bench::new();
    assert_eq!(bench.insert("a", &[("one", b"1")]), [Ok(())]);
    let before = SystemTime::now();
    drop(bench.receive("a", 1));
    bench.wait_for("spool_deferred", 1);
    bench.reopen();
    let [entry] = &bench.spool.list(0, 9, false).unwrap()[..] else { panic!("not one") };
    assert_eq!((entry.attempts, entry.state), (1, State::Deferred));
    assert_eq!(entry.error.as_deref(), Some("dropped without an answer"));
    let wait = entry.next_at.unwrap().duration_since(before).unwrap();
    assert!((3_900..=60_000).contains(&wait.as_millis()), "{wait:?}");
    assert!(bench.rest("a").is_empty());
}

#[test]
fn a_message_that_is_too_old_fails_with_its_next_attempt() {
    let bench = Bench::with(|settings| settings.max_age = Duration::from_nanos(1));
    assert_eq!(bench.insert("a", &[("one", b"1")]), [Ok(())]);
    let inserted = clock::now_ms();
    bench.wait(|| clock::now_ms() > inserted);
    bench.receive("a", 1)[0].lease.settle(Settled::Deferred("451 later".to_owned()));
    bench.wait_for("spool_failed", 1);
    let [entry] = &bench.spool.list(0, 9, true).unwrap()[..] else { panic!("not one") };
    assert_eq!((entry.state, entry.attempts), (State::Failed, 1));
    assert!(entry.error.as_ref().unwrap().ends_with("at last: 451 later"));
}

#[test]
fn a_batch_has_sixteen_mebibytes_at_most_beyond_its_first() {
    let bench = Bench::new();
    let huge = vec![1; 17 << 20];
    let large = vec![1; 6 << 20];
    for (name, body) in [("1", &huge), ("2", &large), ("3", &large), ("4", &large)] {
        assert_eq!(bench.insert("a", &[(name, body)]), [Ok(())]);
    }
    let sizes: Vec<usize> = (0..3)
        .map(|_| {
            let found = bench.receive("a", 9);
            let count = found.len();
            done(&found);
            count
        })
        .collect();
    assert_eq!(sizes, [1, 2, 1]);
}

#[test]
fn who_waits_is_woken_by_what_comes_and_by_the_end() {
    let bench = Bench::new();
    let receive = |spool: &Arc<Spool>| {
        let spool = Arc::clone(spool);
        std::thread::spawn(move || spool.receive("a", 9, SOON, &|| true).map(|found| found.len()))
    };
    let waiting = receive(&bench.spool);
    assert_eq!(bench.insert("b", &[("other", b"1")]), [Ok(())]);
    assert_eq!(bench.insert("a", &[("one", b"1")]), [Ok(())]);
    assert_eq!(waiting.join().unwrap(), Some(1));
    bench.wait_for("spool_deferred", 1);
    let waiting = receive(&bench.spool);
    bench.spool.stop_giving();
    assert_eq!(waiting.join().unwrap(), None);
    // What is not wanted is not taken.
    assert_eq!(bench.insert("a", &[("two", b"1")]), [Ok(())]);
    bench.spool.close();
    assert_eq!(bench.insert("a", &[("three", b"1")]), [Err(Refusal::Broken)]);
}
