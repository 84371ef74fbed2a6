//! What was saved just now is given out without being read; and how much waits in the WAL.

use super::*;

/// A message that is kept.
struct Fresh(Box<dyn Incoming>, Kept);

impl Incoming for Fresh {
    fn backend(&self) -> &str {
        self.0.backend()
    }

    fn queued_id(&self) -> &str {
        self.0.queued_id()
    }

    fn received_at(&self) -> SystemTime {
        self.0.received_at()
    }

    fn record(&self) -> &[u8] {
        self.0.record()
    }

    fn octets(&self) -> &[u8] {
        self.0.octets()
    }

    fn keep(&self) -> Option<Kept> {
        Some(Arc::clone(&self.1))
    }

    fn settle(self: Box<Self>, outcome: Result<(), Refusal>) {
        self.0.settle(outcome);
    }
}

fn insert(bench: &Bench, queued_id: &str, octets: &[u8]) -> Kept {
    let kept: Kept = Arc::new(octets.to_vec());
    let mail = bench.mail("a", queued_id, octets);
    bench.spool.insert(Box::new(Fresh(mail, Arc::clone(&kept))));
    assert_eq!(bench.settled.recv_timeout(SOON).unwrap(), (queued_id.to_owned(), Ok(())));
    kept
}

fn is_kept(leased: &Leased) -> bool {
    matches!(leased.octets, Octets::Kept(_))
}

#[test]
fn a_message_is_given_out_as_it_came_once_and_read_from_then_on() {
    let mut bench = Bench::new();
    let kept = insert(&bench, "1", b"one");
    let found = bench.receive("a", 1);
    assert!(matches!(&found[0].octets, Octets::Kept(found) if Arc::ptr_eq(found, &kept)));
    assert_eq!((found[0].queued_id.as_str(), found[0].attempts), ("1", 0));
    found[0].lease.settle(Settled::Deferred("later".to_owned()));
    bench.wait_for("spool_retries", 1);
    assert_eq!(bench.spool.retry(None).unwrap(), 1);
    let found = bench.receive("a", 1);
    assert_eq!((is_kept(&found[0]), octets(&found[0])), (false, b"one".to_vec()));
    assert_eq!((found[0].attempts, found[0].record.as_slice()), (1, &b"{\"a\": 1}"[..]));
    found[0].lease.disarm();
    drop(found);
    insert(&bench, "2", b"two");
    bench.reopen();
    // First what is due, then what has never been tried.
    let mut found = bench.receive("a", 9);
    found.extend(bench.receive("a", 9));
    assert!(found.iter().all(|leased| !is_kept(leased)));
    assert_eq!(found.iter().map(octets).collect::<Vec<_>>(), [b"one", b"two"]);
    done(&found);
    bench.wait_for("spool_depth", 0);
}

#[test]
fn what_a_command_drops_is_not_kept_either() {
    let bench = Bench::new();
    insert(&bench, "1", b"one");
    insert(&bench, "2", b"two");
    assert_eq!(bench.spool.drop_messages(Some(&["1".to_owned()]), false).unwrap(), 1);
    let found = bench.receive("a", 9);
    assert_eq!(found.iter().map(octets).collect::<Vec<_>>(), [b"two"]);
}

#[test]
fn what_is_kept_is_bounded_and_the_rest_is_read_in_its_order() {
    let bench = Bench::new();
    let large = vec![b'x'; LARGEST_INLINE];
    let names: Vec<String> = (0..20).map(|number| format!("{number:02}")).collect();
    let kept: Vec<Kept> = names.iter().map(|name| insert(&bench, name, &large)).collect();
    // Nobody else has the others any more.
    assert_eq!(kept.iter().filter(|kept| Arc::strong_count(kept) > 1).count(), 15);
    let found = bench.receive("a", 99);
    assert_eq!(found.iter().filter(|leased| is_kept(leased)).count(), 15);
    assert!(found.iter().all(|leased| octets(leased) == large));
    assert_eq!(found.iter().map(|leased| leased.queued_id.clone()).collect::<Vec<_>>(), names);
    assert!(kept.iter().all(|kept| Arc::strong_count(kept) < 3));
    done(&found);
    bench.wait_for("spool_depth", 0);
    // There is room again.
    insert(&bench, "new", b"new");
    assert!(is_kept(&bench.receive("a", 1)[0]));
}

#[test]
fn the_wal_is_written_to_the_database_before_it_is_large() {
    let bench = Bench::new();
    let size = |name: &str| std::fs::metadata(bench.spool.path().join(name)).unwrap().len();
    let large = vec![b'x'; LARGEST_INLINE];
    for number in 0..160 {
        insert(&bench, &number.to_string(), &large);
    }
    // Of 40 MiB.
    let [database, wal] = [size("spool.db"), size("spool.db-wal")];
    assert!(wal < 17 << 20 && database > 24 << 20, "{database} and {wal}");
}
