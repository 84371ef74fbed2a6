//! The thread in the hands of a test.
#![allow(clippy::unwrap_used)]

use super::*;

/// The thread's work, done when a test says so.
pub(crate) struct ByHand {
    spiller: Arc<Spiller>,
    queue: Receiver<Job>,
    held: Option<Job>,
    writer: Writer,
}

impl ByHand {
    pub(in crate::buffer) fn new(size: u64) -> Self {
        let log = Arc::new(Log::new(0));
        Self::of(Spiller::new(size, None, &Part::default(), &log).unwrap())
    }

    /// In place of its thread, which must not have been started.
    pub(in crate::buffer) fn of(spiller: Arc<Spiller>) -> Self {
        let (jobs, queue) = mpsc::channel();
        let handle = std::thread::spawn(|| ());
        let ended = mpsc::channel().1;
        *spiller.lock() = Thread::Running { jobs, handle, ended };
        let writer = Writer { folder: None, report: Arc::clone(&spiller.report) };
        Self { spiller, queue, held: None, writer }
    }

    pub(in crate::buffer) fn spiller(&self) -> Arc<Spiller> {
        Arc::clone(&self.spiller)
    }

    pub(in crate::buffer) fn stats(&self) -> &Stats {
        &self.spiller.report.stats
    }

    pub(in crate::buffer) fn logged(&self) -> Vec<String> {
        let records = self.spiller.report.log.receive(9, Duration::ZERO).unwrap();
        records.into_iter().map(|record| record.content.line()).collect()
    }

    /// Waits for a job and holds it.
    pub(crate) fn wait(&mut self) {
        self.held = Some(self.queue.recv_timeout(Duration::from_secs(20)).unwrap());
    }

    /// Does the one that it holds.
    pub(crate) fn work_held(&mut self) {
        self.writer.work(self.held.take().unwrap());
    }

    /// The next job; `false` when there is none.
    pub(in crate::buffer) fn work(&mut self) -> bool {
        self.held = self.queue.try_recv().ok();
        let any = self.held.is_some();
        if any {
            self.work_held();
        }
        any
    }

    /// The next job, which writes to that file instead of its own.
    pub(in crate::buffer) fn work_on(&mut self, path: &str) {
        self.wait();
        if let Some(Job::Write { file, .. }) = &mut self.held {
            file.file = Some(File::options().write(true).open(path).unwrap());
        }
        self.work_held();
    }
}
