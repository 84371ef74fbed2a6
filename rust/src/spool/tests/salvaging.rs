//! Folders of others, and lists, of which something cannot be read.

use std::fs;
use std::os::unix::fs::FileExt;

use super::*;
use crate::spool::faults::Point;

const PAGE: usize = 4096;

/// The folder of a process that is gone, with these mails.
fn left_behind(bench: &Bench, mails: &[(String, Vec<u8>)]) -> PathBuf {
    let other = open(bench.settings(), &bench.log);
    for (name, body) in mails {
        other.insert(bench.mail("a", name, body));
    }
    for _ in mails {
        assert_eq!(bench.settled.recv_timeout(SOON).unwrap().1, Ok(()));
    }
    let path = other.path().to_owned();
    other.close();
    path
}

fn mails(mails: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    mails.iter().map(|(name, body)| ((*name).to_owned(), body.to_vec())).collect()
}

/// Some of which a page has three or so, each with its name in it.
fn many() -> Vec<(String, Vec<u8>)> {
    let mail = |number: usize| (format!("{number:02}"), format!("<{number:02}>").repeat(250));
    (0..60).map(mail).map(|(name, body)| (name, body.into_bytes())).collect()
}

/// Damages the page that has these octets.
fn damage(database: &std::path::Path, wanted: &[u8]) {
    let octets = fs::read(database).unwrap();
    let at = octets.windows(wanted.len()).position(|window| window == wanted).unwrap();
    let file = fs::File::options().write(true).open(database).unwrap();
    file.write_all_at(&[0xff; PAGE], (at / PAGE * PAGE) as u64).unwrap();
}

fn listed(bench: &Bench) -> Vec<String> {
    bench.spool.list(0, 999, false).unwrap().into_iter().map(|one| one.queued_id).collect()
}

#[test]
fn a_row_with_odd_values_is_taken_over_and_no_other_waits_for_it() {
    let bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    let all = [("1", &b"1"[..]), ("2", b"2"), ("3", b"3"), ("4", &large), ("5", b"5")];
    let path = left_behind(&bench, &mails(&all));
    let rows = Connection::open(path.join("spool.db")).unwrap();
    rows.execute_batch(
        "UPDATE msg SET queued_id = CAST(x'31ff' AS TEXT) WHERE queued_id = '1';
         UPDATE msg SET crc = 1 << 40 WHERE queued_id = '2';
         INSERT INTO retry SELECT id, backend, 1 << 40, 5, CAST(x'ff' AS TEXT) FROM msg
           WHERE queued_id = '3';
         UPDATE msg SET file = CAST(x'2e2eff2f00' AS TEXT) WHERE queued_id = '4';",
    )
    .unwrap();
    drop(rows);
    bench.spool.shared.adopt();
    assert!(!path.exists(), "{:?}", bench.lines());
    let found = bench.receive("a", 9);
    let names: Vec<&str> = found.iter().map(|one| one.queued_id.as_str()).collect();
    assert_eq!(names, ["3", "5"]);
    assert_eq!(found[0].attempts, u32::MAX >> 1);
    // As those of this process: what is left of them is there, also a body that none names now.
    bench.wait_for("spool_damaged", 3);
    let ids: Vec<String> =
        bench.spool.list(0, 9, true).unwrap().into_iter().map(|one| one.queued_id).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.contains(&"2".to_owned()) && ids.contains(&"4".to_owned()), "{ids:?}");
    let damaged = fs::read_dir(bench.spool.path().join("damaged")).unwrap();
    assert!(damaged.into_iter().any(|one| fs::read(one.unwrap().path()).unwrap() == large));
}

#[test]
fn a_damaged_page_keeps_what_it_has_and_nothing_else_of_a_folder() {
    let bench = Bench::new();
    let all = many();
    let path = left_behind(&bench, &all);
    let database = path.join("spool.db");
    let before = fs::read(&database).unwrap();
    damage(&database, &all[30].1);
    bench.spool.shared.adopt();
    let names = listed(&bench);
    let lost: Vec<&String> =
        all.iter().map(|(name, _)| name).filter(|name| !names.contains(name)).collect();
    assert!((1..5).contains(&lost.len()) && lost.contains(&&all[30].0), "{lost:?}");
    assert_eq!(names.len() + lost.len(), 60);
    let said = |lines: Vec<String>| lines.iter().filter(|line| line.contains("stay there")).count();
    assert_eq!(said(bench.lines()), 1);
    // Again: nothing comes twice, nothing goes, nothing is said.
    bench.spool.shared.adopt();
    bench.spool.shared.adopt_one(&path).unwrap();
    assert_eq!((listed(&bench), said(bench.lines())), (names, 0));
    assert!(database.exists());
    // Somebody has repaired it, from a copy of before: only what was lost comes.
    for name in ["spool.db-wal", "spool.db-shm"] {
        folder::remove(&path.join(name)).unwrap();
    }
    fs::write(&database, before).unwrap();
    bench.spool.shared.adopt_one(&path).unwrap();
    assert!(!path.exists());
    let mut names = listed(&bench);
    names.sort();
    assert!(names.iter().eq(all.iter().map(|(name, _)| name)), "{names:?}");
    assert_eq!(bench.receive("a", 99).len(), 60);
}

#[test]
fn a_folder_of_which_nothing_can_be_read_is_left_as_it_is() {
    let bench = Bench::new();
    let path = left_behind(&bench, &mails(&[("one", b"the only one")]));
    damage(&path.join("spool.db"), b"the only one");
    bench.spool.shared.adopt();
    assert!(path.join("spool.db").exists());
    assert!(bench.lines().iter().any(|line| line.contains("what is behind id 0")));
    assert_eq!(bench.figure("spool_depth"), 0);
}

#[test]
fn a_list_passes_over_what_cannot_be_read_and_says_so() {
    let mut bench = Bench::new();
    for (name, body) in many() {
        bench.spool.insert(bench.mail("a", &name, &body));
    }
    for _ in 0..60 {
        assert_eq!(bench.settled.recv_timeout(SOON).unwrap().1, Ok(()));
    }
    bench.spool.close();
    let database = bench.spool.path().join("spool.db");
    let rows = Connection::open(&database).unwrap();
    rows.execute_batch("UPDATE msg SET queued_id = CAST(x'30ff' AS TEXT) WHERE queued_id = '00'")
        .unwrap();
    drop(rows);
    damage(&database, &many()[30].1);
    bench.reopen();
    let all = bench.spool.list(0, 99, false).unwrap();
    assert_eq!(
        (all[0].queued_id.as_str(), all.last().unwrap().queued_id.as_str()),
        ("0\u{fffd}", "59")
    );
    let lost: Vec<&Entry> = all.iter().filter(|one| one.state == State::Damaged).collect();
    assert_eq!(lost.len(), 1);
    assert!(lost[0].error.as_ref().unwrap().contains("malformed"), "{:?}", lost[0].error);
    assert!((57..61).contains(&all.len()));
    let (mut after, mut seen) = (0, 0);
    loop {
        let page = bench.spool.list(after, 7, false).unwrap();
        seen += page.len();
        // Only the last one has fewer: so who asks sees the end.
        match page.last() {
            Some(entry) if page.len() == 7 => after = entry.id,
            _ => break,
        }
    }
    assert_eq!(seen, all.len());
    // What is behind it is found by its name.
    assert_eq!(bench.spool.show("59").unwrap().unwrap().0.queued_id, "59");
    assert!(bench.spool.show("30").unwrap().is_none());
}

#[test]
fn a_body_whose_name_is_damaged_is_not_taken_for_a_leftover() {
    let mut bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("one", &large)]), [Ok(())]);
    bench.spool.close();
    let rows = Connection::open(bench.spool.path().join("spool.db")).unwrap();
    rows.execute_batch("UPDATE msg SET file = 'q' || substr(file, 2)").unwrap();
    drop(rows);
    bench.reopen();
    let kept = fs::read_dir(bench.spool.path().join("damaged")).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read(kept.path()).unwrap(), large);
}

#[test]
fn what_a_cut_wal_leaves_is_kept_by_the_start_that_can() {
    let mut bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    assert_eq!(bench.insert("a", &[("one", &large)]), [Ok(())]);
    bench.spool.close();
    let path = bench.spool.path().to_owned();
    let rows = Connection::open(path.join("spool.db")).unwrap();
    rows.execute_batch("DELETE FROM msg; DELETE FROM lane; UPDATE meta SET v = 0 WHERE k = 'last'")
        .unwrap();
    drop(rows);
    let body = bench.body_paths().pop().unwrap();
    let name = body.file_name().unwrap().to_str().unwrap();
    // Its place is taken: the first start cannot.
    let place = path.join("damaged").join(format!("{name}.eml"));
    fs::create_dir(&place).unwrap();
    let folder = Folder::take(path.parent().unwrap()).unwrap();
    let settings = Settings { folder: bench.root.path().join("spool"), ..bench.settings() };
    assert!(Spool::open_in(folder, settings, Arc::clone(&bench.log), false).is_err());
    fs::remove_dir(&place).unwrap();
    bench.reopen();
    assert_eq!(fs::read(&place).unwrap(), large);
    assert!(bench.lines().iter().any(|line| line.contains("are missing")));
}

#[test]
fn a_body_that_can_have_no_second_name_is_copied_whole_or_not_at_all() {
    let bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE + 1];
    let path = left_behind(&bench, &mails(&[("one", &large)]));
    let faults = &bench.spool.shared.folder.faults;
    faults.plan(Point::Link, libc::EPERM);
    faults.plan(Point::Write, libc::ENOSPC);
    bench.spool.shared.adopt();
    assert_eq!((bench.bodies(), bench.figure("spool_depth")), (0, 0));
    assert!(bench.lines().iter().any(|line| line.contains("are not taken over yet")));
    faults.plan(Point::Link, libc::EXDEV);
    let before = faults.passes(Point::Sync);
    bench.spool.shared.adopt();
    assert_eq!(faults.passes(Point::Sync), before + 1);
    assert!(!path.exists());
    let found = bench.receive("a", 9);
    assert_eq!(octets(&found[0]), large);
    // And when it is set aside.
    faults.plan(Point::Link, libc::EMLINK);
    faults.plan(Point::Write, libc::EIO);
    found[0].lease.settle(Settled::Failed("550".to_owned()));
    bench.wait_for("spool_deferred", 1);
    assert_eq!(fs::read_dir(bench.spool.shared.folder.failed()).unwrap().count(), 0);
    assert_eq!(bench.spool.retry(None).unwrap(), 1);
    faults.plan(Point::Link, libc::EMLINK);
    bench.receive("a", 1)[0].lease.settle(Settled::Failed("550".to_owned()));
    bench.wait_for("spool_failed", 1);
    assert_eq!(fs::read(bench.spool.shared.folder.failed().join("one.eml")).unwrap(), large);
}

#[test]
fn what_was_set_aside_is_taken_over_from_another_file_system_too() {
    let bench = Bench::new();
    let path = left_behind(&bench, &mails(&[("one", b"1")]));
    for (end, content) in [("eml", "the message"), ("json", "{}")] {
        fs::write(path.join("failed").join(format!("one.{end}")), content).unwrap();
    }
    for _ in 0..2 {
        bench.spool.shared.folder.faults.plan(Point::Rename, libc::EXDEV);
    }
    bench.spool.shared.adopt();
    assert!(!path.exists(), "{:?}", bench.lines());
    let failed = bench.spool.shared.folder.failed();
    assert_eq!(fs::read_to_string(failed.join("one.eml")).unwrap(), "the message");
    assert_eq!(fs::read_dir(failed).unwrap().count(), 2);
}

#[test]
fn the_age_is_that_of_the_oldest_wherever_it_came_from() {
    const HOUR: u64 = 3_600_000;
    let mut bench = Bench::new();
    let path = left_behind(&bench, &mails(&[("old", b"1"), ("older", b"1")]));
    let rows = Connection::open(path.join("spool.db")).unwrap();
    rows.execute_batch(
        "UPDATE msg SET received_ms = received_ms - 3600000;
         UPDATE msg SET received_ms = received_ms - 3600000 WHERE queued_id = 'older'",
    )
    .unwrap();
    drop(rows);
    assert_eq!(bench.insert("b", &[("here before", b"1")]), [Ok(())]);
    bench.spool.shared.adopt();
    bench.wait(|| bench.figure("spool_age_ms") >= 2 * HOUR);
    bench.reopen();
    bench.wait(|| bench.figure("spool_age_ms") >= 2 * HOUR);
    let found = bench.receive("a", 9);
    assert_eq!(found[1].queued_id, "older");
    done(&found[1..]);
    bench.wait(|| (HOUR..2 * HOUR).contains(&bench.figure("spool_age_ms")));
    done(&found);
    bench.wait(|| bench.figure("spool_age_ms") < HOUR);
    // What is gone is forgotten by the next start.
    drop(found);
    bench.reopen();
    let rows = Connection::open(bench.spool.path().join("spool.db")).unwrap();
    let left = rows.query_row("SELECT count(*) FROM adopted", [], |row| row.get::<_, i64>(0));
    assert_eq!(left.unwrap(), 0);
}

#[test]
fn a_name_that_was_made_before_is_synced_once_by_each_process() {
    let root = tempfile::tempdir().unwrap();
    drop(Folder::take(root.path()).unwrap());
    // As one leaves it that dies between making a folder and syncing its name.
    let folder = Folder::take(root.path()).unwrap();
    assert_eq!(folder.faults.passes(Point::SyncFolder), 3);
    let place = folder.body("x");
    let shelf = place.parent().unwrap();
    fs::create_dir(shelf).unwrap();
    folder.faults.plan(Point::SyncFolder, libc::EIO);
    assert!(folder.make_shelf(shelf).is_err());
    for _ in 0..3 {
        folder.make_shelf(shelf).unwrap();
    }
    assert_eq!(folder.faults.passes(Point::SyncFolder), 5);
}
