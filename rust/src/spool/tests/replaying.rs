//! Failed messages come back once.

use std::fs;

use super::super::aside::Note;
use super::super::replay::mark_of;
use super::*;
use crate::spool::faults::Point;

/// A message that has failed, and its files.
fn failed(bench: &Bench, backend: &'static str, name: &str, body: &[u8]) -> PathBuf {
    assert_eq!(bench.insert(backend, &[(name, body)]), [Ok(())]);
    let before = bench.figure("spool_failed");
    bench.receive(backend, 1)[0].lease.settle(Settled::Failed("550".to_owned()));
    bench.wait_for("spool_failed", before + 1);
    bench.spool.shared.folder.failed().join(format!("{name}.json"))
}

/// Somebody who does not wait for it.
fn give_up(bench: &Bench, path: &std::path::Path) {
    let note = Note::read(path).unwrap();
    let mark = mark_of(path, &note);
    // On a fast disk it may be there all the same.
    let _ = bench.spool.replay_one(path, note, &mark, Duration::ZERO);
}

fn marks(bench: &Bench) -> i64 {
    let reader = bench.spool.shared.reader.lock().unwrap();
    let marks = "SELECT count(*) FROM meta WHERE k LIKE 'replayed%'";
    reader.query_row(marks, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_replay_that_was_given_up_is_not_done_twice() {
    let bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    for (backend, name, body) in [("a", "small", &b"1"[..]), ("b", "large", &large)] {
        let path = failed(&bench, backend, name, body);
        give_up(&bench, &path);
        give_up(&bench, &path);
        assert!(path.exists());
        assert_eq!(bench.spool.replay(None).unwrap(), 1);
        assert!(!path.exists());
        // What is behind all of them.
        assert_eq!(bench.insert("c", &[("next", body)]), [Ok(())]);
        assert_eq!(bench.spool.waiting().iter().find(|one| one.0 == backend).unwrap().1, 1);
        bench.wait(|| marks(&bench) == 0);
        assert_eq!(octets(&bench.receive(backend, 9)[0]), body);
    }
}

#[test]
fn a_replay_that_the_end_has_cut_short_is_finished_by_the_next_start() {
    let mut bench = Bench::new();
    let path = failed(&bench, "a", "one", b"1");
    bench.spool.shared.folder.faults.plan(Point::Unlink, libc::EIO);
    assert!(bench.spool.replay(None).is_err());
    assert_eq!((path.exists(), bench.figure("spool_depth")), (true, 1));
    bench.reopen();
    assert!(!path.exists() && !path.with_extension("eml").exists());
    assert_eq!(marks(&bench), 0);
    assert_eq!((bench.spool.replay(None).unwrap(), bench.figure("spool_depth")), (0, 1));
}

#[test]
fn a_message_whose_note_alone_is_gone_goes_with_the_next_start() {
    let mut bench = Bench::new();
    let path = failed(&bench, "a", "one", b"1");
    bench.spool.shared.folder.faults.plan(Point::UnlinkMessage, libc::EIO);
    assert!(bench.spool.replay(None).is_err());
    assert!(!path.exists() && path.with_extension("eml").exists());
    bench.reopen();
    assert!(!path.with_extension("eml").exists());
    assert_eq!((marks(&bench), bench.figure("spool_depth")), (0, 1));
}

#[test]
fn a_message_that_fails_again_before_the_end_keeps_its_files() {
    let mut bench = Bench::new();
    let path = failed(&bench, "a", "one", b"1");
    let first = fs::read(&path).unwrap();
    bench.spool.shared.folder.faults.plan(Point::Unlink, libc::EIO);
    assert!(bench.spool.replay(None).is_err());
    assert_eq!(bench.receive("a", 1)[0].queued_id, "one");
    fs::remove_file(&path).unwrap();
    bench.wait_for("spool_deferred", 1);
    assert_eq!(bench.spool.retry(None).unwrap(), 1);
    bench.receive("a", 1)[0].lease.settle(Settled::Failed("550 again".to_owned()));
    bench.wait_for("spool_failed", 2);
    assert_ne!(fs::read(&path).unwrap(), first);
    bench.reopen();
    assert!(path.exists());
    assert_eq!((bench.spool.replay(None).unwrap(), bench.figure("spool_depth")), (1, 1));
}

#[test]
fn a_replay_that_another_process_did_not_finish_is_finished_before_it_is_taken_over() {
    let bench = Bench::new();
    let other = open(bench.settings(), &bench.log);
    let path = other.path().to_owned();
    let other = Bench {
        spool: other,
        root: tempfile::tempdir().unwrap(),
        log: Arc::clone(&bench.log),
        ..Bench::new()
    };
    failed(&other, "a", "one", b"1");
    other.spool.shared.folder.faults.plan(Point::Unlink, libc::EIO);
    assert!(other.spool.replay(None).is_err());
    other.spool.close();
    bench.spool.shared.adopt();
    assert!(!path.exists());
    assert_eq!((bench.spool.replay(None).unwrap(), bench.figure("spool_depth")), (0, 1));
}
