//! What a spool promises.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod asides;
mod asking;
mod bodies;
mod broken;
mod cycle;
mod damage;
mod folders;
mod fresh;
mod limits;
mod odd;
mod order;
mod pages;
mod replaying;
mod salvaging;
mod turns;
pub(super) mod vfs;

use std::sync::mpsc::{Receiver, Sender, channel};

use tempfile::TempDir;

use super::*;

/// How long a test waits for what has to come.
const SOON: Duration = Duration::from_secs(20);

/// A message of a test, which says how it was settled.
struct Mail {
    backend: &'static str,
    queued_id: String,
    octets: Vec<u8>,
    settled: Sender<(String, Result<(), Refusal>)>,
}

impl Incoming for Mail {
    fn backend(&self) -> &str {
        self.backend
    }

    fn queued_id(&self) -> &str {
        &self.queued_id
    }

    fn received_at(&self) -> SystemTime {
        SystemTime::now()
    }

    fn record(&self) -> &[u8] {
        b"{\"a\": 1}"
    }

    fn octets(&self) -> &[u8] {
        &self.octets
    }

    fn settle(self: Box<Self>, outcome: Result<(), Refusal>) {
        let _ = self.settled.send((self.queued_id, outcome));
    }
}

/// A spool in a folder of its own.
struct Bench {
    root: TempDir,
    log: Arc<Log>,
    spool: Arc<Spool>,
    settled: Receiver<(String, Result<(), Refusal>)>,
    settle: Sender<(String, Result<(), Refusal>)>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut Settings)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::new(0));
        let mut settings = Settings { folder: root.path().join("spool"), ..Settings::default() };
        change(&mut settings);
        let spool = open(settings, &log);
        let (settle, settled) = channel();
        Self { root, log, spool, settled, settle }
    }

    fn settings(&self) -> Settings {
        self.spool.shared.room.settings().clone()
    }

    /// Ends it and opens it again.
    fn reopen(&mut self) {
        let settings = Settings { folder: self.root.path().join("spool"), ..self.settings() };
        self.spool.close();
        self.spool = open(settings, &self.log);
        assert!(self.spool.path().ends_with("spool/0"), "{:?}", self.spool);
    }

    fn mail(&self, backend: &'static str, queued_id: &str, octets: &[u8]) -> Box<dyn Incoming> {
        let (queued_id, octets) = (queued_id.to_owned(), octets.to_owned());
        Box::new(Mail { backend, queued_id, octets, settled: self.settle.clone() })
    }

    /// Inserts messages and waits for what they were told.
    fn insert(&self, backend: &'static str, mails: &[(&str, &[u8])]) -> Vec<Result<(), Refusal>> {
        for (queued_id, octets) in mails {
            self.spool.insert(self.mail(backend, queued_id, octets));
        }
        let told = mails.iter().map(|_| self.settled.recv_timeout(SOON).unwrap());
        let told: std::collections::HashMap<_, _> = told.collect();
        mails.iter().map(|(queued_id, _)| told[*queued_id]).collect()
    }

    fn receive(&self, backend: &str, max: usize) -> Vec<Leased> {
        self.spool.receive(backend, max, SOON, &|| true).unwrap()
    }

    /// What is there now.
    fn rest(&self, backend: &str) -> Vec<String> {
        let found = self.spool.receive(backend, 9_999, Duration::ZERO, &|| true).unwrap();
        found.iter().map(|leased| leased.queued_id.clone()).collect()
    }

    fn figure(&self, name: &str) -> u64 {
        let found = self.spool.snapshot();
        found.iter().find(|(key, _)| *key == name).unwrap().1
    }

    /// Waits for a figure.
    fn wait_for(&self, name: &str, value: u64) {
        self.wait(|| self.figure(name) == value);
    }

    fn wait(&self, condition: impl Fn() -> bool) {
        let until = std::time::Instant::now() + SOON;
        while !condition() {
            assert!(std::time::Instant::now() < until, "{:?}", self.spool.snapshot());
            std::thread::yield_now();
        }
    }

    /// What was logged since this was asked last.
    fn lines(&self) -> Vec<String> {
        let records = self.log.receive(999, Duration::ZERO).unwrap();
        records.into_iter().map(|record| record.content.line()).collect()
    }

    /// Bodies in files, finished and not, in the order of their names.
    fn body_paths(&self) -> Vec<PathBuf> {
        let shelves = std::fs::read_dir(self.spool.path().join("bodies")).unwrap();
        let mut found: Vec<PathBuf> = shelves
            .flat_map(|shelf| std::fs::read_dir(shelf.unwrap().path()).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect();
        found.sort_by(|one, other| one.file_name().cmp(&other.file_name()));
        found
    }

    fn bodies(&self) -> usize {
        self.body_paths().len()
    }
}

/// One that takes over other folders only when a test says so.
fn open(settings: Settings, log: &Arc<Log>) -> Arc<Spool> {
    let folder = Folder::take(&settings.folder).unwrap();
    Spool::open_in(folder, settings, Arc::clone(log), false).unwrap()
}

fn done(found: &[Leased]) {
    for leased in found {
        leased.lease.settle(Settled::Done);
    }
}

fn octets(leased: &Leased) -> Vec<u8> {
    match &leased.octets {
        Octets::Memory(octets) => octets.clone(),
        Octets::File(file) => crate::buffer::Body::stored(file).unwrap().as_slice().to_vec(),
    }
}
