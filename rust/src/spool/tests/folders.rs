//! More than one process, one after the other, and none.

use std::fs;
use std::time::Instant;

use super::super::adopt::Free;
use super::*;

#[test]
fn each_process_has_a_folder_and_takes_over_those_that_nobody_has() {
    let large = vec![b'x'; LARGEST_INLINE + 1];
    let first = Bench::new();
    let second = open(first.settings(), &first.log);
    assert!(second.path().ends_with("spool/1"), "{second:?}");
    let settled = first.settled;
    for (name, body) in [("a", &b"1"[..]), ("b", &large), ("c", b"3"), ("d", b"4")] {
        second.insert(Box::new(Mail {
            backend: "a",
            queued_id: name.to_owned(),
            octets: body.to_vec(),
            settled: first.settle.clone(),
        }));
        assert_eq!(settled.recv_timeout(SOON).unwrap(), (name.to_owned(), Ok(())));
    }
    let found = second.receive("a", 4, SOON, &|| true).unwrap();
    found[0].lease.settle(Settled::Deferred("451 a".to_owned()));
    found[2].lease.settle(Settled::Failed("550 c".to_owned()));
    found[3].lease.settle(Settled::Done);
    found[1].lease.disarm();
    let bench = Bench { settled, ..first };
    let until = Instant::now() + SOON;
    while second.snapshot().iter().find(|one| one.0 == "spool_failed").unwrap().1 == 0 {
        assert!(Instant::now() < until);
    }
    let path = second.path().to_owned();
    second.close();
    drop((found, second));
    bench.spool.shared.adopt();
    assert!(!path.exists());
    assert_eq!(bench.spool.waiting(), [("a".to_owned(), 2)]);
    assert_eq!(bench.figure("spool_deferred"), 1);
    let [a, b] = &bench.spool.list(0, 9, false).unwrap()[..] else { panic!("not two") };
    assert_eq!((&*a.queued_id, a.attempts, a.error.as_deref()), ("a", 1, Some("451 a")));
    assert_eq!((&*b.queued_id, b.attempts, b.size), ("b", 0, large.len() as u64));
    assert_eq!(octets(&bench.receive("a", 9)[0]), large);
    assert_eq!(bench.spool.list(0, 9, true).unwrap()[0].queued_id, "c");
    assert_eq!((bench.figure("spool_failed_files"), bench.bodies()), (1, 1));
}

#[test]
fn what_was_taken_over_before_an_end_is_not_taken_twice() {
    let bench = Bench::new();
    let root = bench.root.path().join("spool");
    let other = open(bench.settings(), &bench.log);
    for name in ["a", "b"] {
        other.insert(bench.mail("a", name, b"1"));
        assert_eq!(bench.settled.recv_timeout(SOON).unwrap().1, Ok(()));
    }
    let path = other.path().to_owned();
    other.close();
    drop(other);
    let before = fs::read(path.join("spool.db")).unwrap();
    bench.spool.shared.adopt();
    assert!(!path.exists());
    // As it was before the deletion there: it comes once all the same.
    fs::create_dir(root.join("5")).unwrap();
    fs::write(root.join("5/spool.db"), before).unwrap();
    bench.spool.shared.adopt();
    assert!(!root.join("5").exists());
    assert_eq!(bench.rest("a"), ["a", "b"]);
}

#[test]
fn commands_without_a_daemon_see_all_and_with_one_nothing() {
    let bench = Bench::new();
    let root = bench.root.path().join("spool");
    let held = Spool::open_offline(&root, Arc::clone(&bench.log)).unwrap_err();
    assert!(matches!(held, OpenError::Held(_)), "{held}");
    let other = open(bench.settings(), &bench.log);
    other.insert(bench.mail("b", "b", b"1"));
    assert_eq!(bench.settled.recv_timeout(SOON).unwrap().1, Ok(()));
    assert_eq!(bench.insert("a", &[("a", b"1")]), [Ok(())]);
    for spool in [&bench.spool, &other] {
        spool.close();
    }
    let log = Arc::clone(&bench.log);
    drop((bench.spool, other));
    let offline = Spool::open_offline(&root, log).unwrap();
    let names: Vec<String> =
        offline.list(0, 9, false).unwrap().into_iter().map(|one| one.queued_id).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(offline.drop_messages(Some(&["b".to_owned()]), false).unwrap(), 1);
    assert_eq!(offline.waiting(), [("a".to_owned(), 1)]);
    offline.close();
    assert!(Spool::open_offline(&bench.root.path().join("none"), Arc::clone(&bench.log)).is_err());
}

#[test]
fn a_folder_that_nobody_has_any_more_is_noticed() {
    let bench = Bench::new();
    let other = open(bench.settings(), &bench.log);
    other.insert(bench.mail("a", "one", b"1"));
    assert_eq!(bench.settled.recv_timeout(SOON).unwrap().1, Ok(()));
    // Nobody holds the other one when this one looks.
    let path = other.path().to_owned();
    other.close();
    bench.spool.close();
    drop(other);
    let spool = Spool::open(bench.settings(), Arc::clone(&bench.log)).unwrap();
    assert!(spool.path().ends_with("spool/0"));
    let found = spool.receive("a", 1, SOON, &|| true).unwrap();
    assert_eq!(found[0].queued_id, "one");
    // As long as its process might have a successor, and no longer.
    let until = Instant::now() + 3 * SOON;
    while path.exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_folder_waits_for_the_successor_of_its_process() {
    let bench = Bench::new();
    let other = open(bench.settings(), &bench.log);
    other.insert(bench.mail("a", "one", b"1"));
    assert_eq!(bench.settled.recv_timeout(SOON).unwrap().1, Ok(()));
    let path = other.path().to_owned();
    let (mut free, begin) = (Free::default(), Instant::now());
    let mut look =
        |after| bench.spool.shared.adopt_left(&mut free, begin + Duration::from_secs(after));
    // Somebody has it, then nobody for a moment.
    for _ in 0..2 {
        look(0);
    }
    other.close();
    drop(other);
    look(20);
    look(34);
    assert!(path.exists());
    // The successor takes up what was there.
    let successor = open(bench.settings(), &bench.log);
    assert_eq!(successor.path(), path);
    assert_eq!(successor.waiting(), [("a".to_owned(), 1)]);
    look(36);
    successor.close();
    drop(successor);
    // It has died, too: that it was free before counts no more.
    look(40);
    look(54);
    assert!(path.exists());
    assert!(bench.spool.waiting().is_empty());
    // Nobody comes.
    look(55);
    assert!(!path.exists());
    assert_eq!(bench.spool.waiting(), [("a".to_owned(), 1)]);
}
