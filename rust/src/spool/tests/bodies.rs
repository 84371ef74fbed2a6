//! Bodies in files as they are given out: who reads one holds up nobody, and what cannot be read now waits.

use std::fs;

use super::*;

static LARGE: [u8; LARGEST_INLINE + 1] = [b'x'; LARGEST_INLINE + 1];

#[test]
fn who_reads_a_large_body_holds_up_no_other_and_no_checkpoint() {
    let bench = Bench::new();
    assert_eq!(bench.insert("a", &[("large", &LARGE)]), [Ok(())]);
    assert_eq!(bench.insert("b", &[("small", b"1")]), [Ok(())]);
    // A pipe takes as long to be read as the test wants.
    let body = bench.body_paths().remove(0);
    fs::remove_file(&body).unwrap();
    // By no process of its own: until that has begun, it holds a copy of all locks of the tests beside.
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &body, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let receive = |backend: &'static str| {
        let (spool, (sender, told)) = (Arc::clone(&bench.spool), channel());
        std::thread::spawn(move || {
            let found = spool.receive(backend, 1, Duration::ZERO, &|| true).unwrap();
            for leased in &found {
                leased.lease.disarm();
            }
            sender.send(found.len()).unwrap();
        });
        told
    };
    let slow = receive("a");
    // That it can be opened says that it is being read.
    let pipe = fs::OpenOptions::new().write(true).open(&body).unwrap();
    let other = receive("b").recv_timeout(SOON / 4);
    let database = Connection::open(bench.spool.path().join("spool.db")).unwrap();
    let busy: bool =
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    drop(pipe);
    assert_eq!((other, busy), (Ok(1), false));
    // No place in a pipe can be gone back to: that is an error which may pass.
    assert_eq!(slow.recv_timeout(SOON), Ok(0));
    assert_eq!((bench.figure("spool_deferred"), bench.figure("spool_damaged")), (1, 0));
}

#[test]
fn a_body_that_cannot_be_read_now_is_put_off_and_comes_with_the_next_start() {
    let mut bench = Bench::new();
    assert_eq!(bench.insert("a", &[("large", &LARGE)]), [Ok(())]);
    assert_eq!(bench.insert("a", &[("small", b"1")]), [Ok(())]);
    let body = bench.body_paths().remove(0);
    let away = bench.root.path().join("away");
    fs::rename(&body, &away).unwrap();
    fs::create_dir(&body).unwrap();
    let found = bench.receive("a", 9);
    assert_eq!((found.len(), found[0].queued_id.as_str()), (1, "small"));
    assert_eq!((bench.figure("spool_deferred"), bench.figure("spool_damaged")), (1, 0));
    done(&found);
    bench.wait_for("spool_depth", 1);
    let path = body.display().to_string();
    assert!(bench.lines().iter().any(|line| line.contains(&path)), "{path}");
    bench.spool.close();
    fs::remove_dir(&body).unwrap();
    fs::rename(&away, &body).unwrap();
    bench.reopen();
    assert_eq!(octets(&bench.receive("a", 9)[0]), LARGE);
}
