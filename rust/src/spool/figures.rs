//! What is counted.

use std::sync::atomic::{AtomicI64, Ordering};

use super::{Shared, clock};
use crate::stats::Counter;

/// Counters of one spool.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) depth: Counter,
    pub(super) commits: Counter,
    pub(super) committed: Counter,
    pub(super) done: Counter,
    pub(super) retries: Counter,
    pub(super) failed: Counter,
    pub(super) damaged: Counter,
    pub(super) refused: Counter,
    pub(super) failed_files: Counter,
    /// When the oldest message came; 0 where there is none. As it was within the last second.
    pub(super) oldest_ms: AtomicI64,
}

impl Shared {
    pub(super) fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let figures = &self.figures;
        let (deferred, leased) = self.lanes.counts();
        let oldest = figures.oldest_ms.load(Ordering::Relaxed);
        let age = if oldest == 0 { 0 } else { clock::now_ms().saturating_sub(oldest).max(0) };
        vec![
            ("spool_depth", figures.depth.get()),
            ("spool_octets", self.room.live()),
            ("spool_age_ms", age.unsigned_abs()),
            ("spool_deferred", deferred),
            ("spool_leased", leased),
            ("spool_commits", figures.commits.get()),
            ("spool_committed", figures.committed.get()),
            ("spool_done", figures.done.get()),
            ("spool_retries", figures.retries.get()),
            ("spool_failed", figures.failed.get()),
            ("spool_damaged", figures.damaged.get()),
            ("spool_refused", figures.refused.get()),
            ("spool_broken", u64::from(self.room.is_broken())),
            ("spool_failed_files", figures.failed_files.get()),
        ]
    }
}
