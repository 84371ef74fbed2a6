//! What a spool promises.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod cycle;

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
        let spool = Spool::open(settings, Arc::clone(&log)).unwrap();
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
        // Its lock goes with it.
        let (log, other) = (
            Arc::clone(&self.log),
            Settings { folder: self.root.path().join("no"), ..settings.clone() },
        );
        self.spool = Spool::open(other, Arc::clone(&log)).unwrap();
        self.spool = Spool::open(settings, log).unwrap();
        assert!(self.spool.path().ends_with("spool/0"), "{:?}", self.spool);
    }

    fn mail(&self, backend: &'static str, queued_id: &str, octets: &[u8]) -> Box<Mail> {
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
        let until = std::time::Instant::now() + SOON;
        while self.figure(name) != value {
            assert!(std::time::Instant::now() < until, "{name} is {}", self.figure(name));
            std::thread::yield_now();
        }
    }
}

fn octets(leased: &Leased) -> Vec<u8> {
    match &leased.octets {
        Octets::Memory(octets) => octets.clone(),
        Octets::File(file) => crate::buffer::Body::stored(file).unwrap().as_slice().to_vec(),
    }
}
