//! What waits for which backend: ids, and nothing else of a message.
//!
//! A lane has the ids that were loaded (`ready`), the place up to which that was done (`cursor`), those
//! that wait for their time (`due`), and those that somebody works on (`leased`). A message without a
//! `retry` row is given out by the cursor, one with such a row by its time: so each is in one place.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;

/// Ids that a lane holds, about: the others are read when it is their turn.
pub(super) const PAGE: usize = 1_000;
/// Messages that are given out at a time, about: a stage may keep them without an answer, and what is given
/// out is in memory.
const MOST_LEASED: usize = 8_192;
/// Octets of messages that a lane keeps in memory from their commit until somebody asks for them. What
/// does not fit is read: whoever is so far behind is not waited for.
const MOST_KEPT: u64 = 4 << 20;
/// What one of them takes beside its octets, about.
const EACH: u64 = 512;
/// No message waits longer for its next attempt. One that seems to was put off before the clock stepped
/// back: it is due.
const LONGEST_WAIT_MS: i64 = 2 * 3_600_000;
/// Ids that could not be read are not asked for at once again: whoever does would do nothing else. Each pause
/// is twice as long as the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lanes: BTreeMap<Arc<str>, Lane>,
    stopped: bool,
    generation: u64,
}

/// A message that need not be read: a copy of what its row has, no larger than that. Its own memory may be
/// much larger, and goes once it is answered.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) queued_id: String,
    pub(super) received_ms: i64,
    pub(super) record: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Fresh {
    pub(super) fn octets(&self) -> u64 {
        (self.record.len() + self.body.len()) as u64
    }
}

#[derive(Debug, Default)]
struct Lane {
    ready: VecDeque<i64>,
    due: BTreeSet<(i64, i64)>,
    leased: HashMap<i64, u64>,
    /// Of those that are ready, some that need not be read; and what they take.
    fresh: HashMap<i64, Fresh>,
    kept: u64,
    /// Ids up to here were loaded.
    cursor: i64,
    /// Whether there may be others beyond it.
    more: bool,
    loading: bool,
    /// The last pause, and until when it is: the ids could not be read.
    pause: Duration,
    paused: Option<Instant>,
    /// The last one committed.
    newest: i64,
    depth: u64,
    octets: u64,
    filled: Arc<Condvar>,
    sleepers: usize,
}

impl Lane {
    fn wake(&self) {
        if self.sleepers > 0 {
            self.filled.notify_all();
        }
    }

    fn is_exhausted(&self) -> bool {
        self.leased.len() >= MOST_LEASED
    }

    /// Whether what is new is read when it is its turn.
    fn is_behind(&self) -> bool {
        self.more || self.loading || self.ready.len() >= PAGE
    }

    fn keeps(&self, octets: u64) -> bool {
        !self.is_behind() && self.kept.saturating_add(octets).saturating_add(EACH) <= MOST_KEPT
    }

    fn take_fresh(&mut self, id: i64) -> Option<Fresh> {
        let fresh = self.fresh.remove(&id)?;
        self.kept = self.kept.saturating_sub(fresh.octets() + EACH);
        Some(fresh)
    }

    /// Ends a lease; others wait for that where there are too many.
    fn end_lease(&mut self, id: i64) {
        let was_exhausted = self.is_exhausted();
        self.leased.remove(&id);
        if was_exhausted {
            self.wake();
        }
    }

    /// The next id: first what failed before, since it is older.
    fn next(&mut self, now: i64) -> Option<i64> {
        if let Some(&(next_ms, id)) = self.due.last()
            && next_ms > now.saturating_add(LONGEST_WAIT_MS)
        {
            self.due.pop_last();
            return Some(id);
        }
        match self.due.first() {
            Some(&(next_ms, id)) if next_ms <= now => {
                self.due.pop_first();
                Some(id)
            }
            _ => self.ready.pop_front(),
        }
    }

    /// How long until one is due.
    fn wait(&self, now: i64) -> Option<Duration> {
        let (next_ms, _) = self.due.first()?;
        Some(Duration::from_millis(u64::try_from(next_ms.saturating_sub(now)).unwrap_or(0)))
    }

    /// How long until ids are to be read; `None` where none are, or somebody does.
    fn until_load(&self) -> Option<Duration> {
        let is_wanted = self.more && !self.loading && !self.is_exhausted();
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        is_wanted.then(|| self.paused.map_or(Duration::ZERO, left))
    }
}

/// What a lane has for who asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Ids with the numbers of their leases.
    Ids(Vec<(i64, u64)>),
    /// The ids beyond this one are to be read; then ask again.
    Load(i64),
    /// None came in time, or none is wanted.
    Nothing,
    /// None is given any more.
    Stopped,
}

impl Lanes {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, backend: &str, change: impl FnOnce(&mut Lane) -> R) -> R {
        let mut inner = self.lock();
        if let Some(lane) = inner.lanes.get_mut(backend) {
            return change(lane);
        }
        change(inner.lanes.entry(Arc::from(backend)).or_default())
    }

    /// As the database has it.
    pub(super) fn found(&self, backend: &str, depth: u64, octets: u64) {
        self.with(backend, |lane| {
            (lane.depth, lane.octets, lane.more) = (depth, octets, depth > 0);
        });
    }

    /// Whether a message of as many octets, the next to be [saved](Self::saved), may be kept.
    pub(super) fn keeps(&self, backend: &str, octets: u64) -> bool {
        let mut inner = self.lock();
        let is_stopped = inner.stopped;
        !is_stopped && inner.lanes.get_mut(backend).is_none_or(|lane| lane.keeps(octets))
    }

    /// A message was committed; it is kept until its turn, where it is given with it. Whoever waits for one
    /// is [woken](Self::wake) once all of a commit are told.
    pub(super) fn saved(&self, backend: &str, id: i64, octets: u64, fresh: Option<Fresh>) {
        self.with(backend, |lane| {
            lane.depth += 1;
            lane.octets = lane.octets.saturating_add(octets);
            lane.newest = lane.newest.max(id);
            if id <= lane.cursor {
                // Whoever loads was faster.
            } else if lane.is_behind() {
                lane.more = true;
            } else {
                lane.ready.push_back(id);
                lane.cursor = id;
                if let Some(fresh) = fresh {
                    lane.kept += fresh.octets() + EACH;
                    lane.fresh.insert(id, fresh);
                }
            }
        });
    }

    /// Wakes those who wait for a message of a backend.
    pub(super) fn wake(&self, backend: &str) {
        self.with(backend, |lane| lane.wake());
    }

    /// Those of the ids that are kept.
    pub(super) fn kept(&self, backend: &str, ids: &[(i64, u64)]) -> HashMap<i64, Fresh> {
        self.with(backend, |lane| {
            let found = ids.iter().filter_map(|(id, _)| Some((*id, lane.take_fresh(*id)?)));
            found.collect()
        })
    }

    /// A message with a `retry` row was committed, or that row was.
    pub(super) fn deferred(&self, backend: &str, id: i64, lease: Option<u64>, next_ms: i64) {
        self.with(backend, |lane| {
            if lease.is_none() || lane.leased.get(&id) == lease.as_ref() {
                lane.end_lease(id);
                lane.due.insert((next_ms, id));
                lane.wake();
            }
        });
    }

    /// A message that is not deferred any more: a command says so.
    pub(super) fn advance(&self, backend: &str, id: i64, old_ms: i64, next_ms: i64) {
        self.with(backend, |lane| {
            if lane.due.remove(&(old_ms, id)) {
                lane.due.insert((next_ms, id));
                lane.wake();
            }
        });
    }

    /// It has one more message, that is not given out by its cursor.
    pub(super) fn count(&self, backend: &str, octets: u64) {
        self.with(backend, |lane| {
            lane.depth += 1;
            lane.octets = lane.octets.saturating_add(octets);
        });
    }

    /// A message's row was deleted; ids that are still here lead to none, and are passed over.
    pub(super) fn deleted(&self, backend: &str, id: i64, octets: u64, due: Option<i64>) {
        let _freed_unlocked = self.with(backend, |lane| {
            if let Some(due) = due {
                lane.due.remove(&(due, id));
            }
            lane.end_lease(id);
            lane.depth = lane.depth.saturating_sub(1);
            lane.octets = lane.octets.saturating_sub(octets);
            lane.take_fresh(id)
        });
    }

    /// Ends a lease of a message that is not here any more.
    pub(super) fn forget(&self, backend: &str, id: i64, lease: u64) {
        self.with(backend, |lane| {
            if lane.leased.get(&id) == Some(&lease) {
                lane.end_lease(id);
            }
        });
    }

    /// Ends a lease: the message is the next one again.
    pub(super) fn give_back(&self, backend: &str, id: i64, lease: u64) {
        self.with(backend, |lane| {
            if lane.leased.get(&id) == Some(&lease) {
                lane.end_lease(id);
                lane.ready.push_front(id);
                lane.wake();
            }
        });
    }

    /// Whether that lease is the message's present one.
    pub(super) fn holds(&self, backend: &str, id: i64, lease: u64) -> bool {
        self.with(backend, |lane| lane.leased.get(&id) == Some(&lease))
    }

    /// The next ids of a lane, at most `max`, waiting for the first one until `deadline`.
    pub(super) fn take(
        &self,
        backend: &str,
        max: usize,
        deadline: Option<Instant>,
        wanted: &dyn Fn() -> bool,
    ) -> Turn {
        let mut inner = self.lock();
        if !inner.lanes.contains_key(backend) {
            inner.lanes.insert(Arc::from(backend), Lane::default());
        }
        loop {
            let Inner { lanes, stopped, generation } = &mut *inner;
            let Some(lane) = lanes.get_mut(backend) else { return Turn::Nothing };
            if *stopped {
                return Turn::Stopped;
            }
            if !wanted() {
                return Turn::Nothing;
            }
            let now = clock::now_ms();
            let ids = take_ids(lane, max, now, generation);
            if !ids.is_empty() {
                return Turn::Ids(ids);
            }
            let load = lane.until_load();
            if load == Some(Duration::ZERO) {
                lane.loading = true;
                return Turn::Load(lane.cursor);
            }
            let left = deadline
                .map_or(Duration::from_hours(1), |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Turn::Nothing;
            }
            let due = if lane.is_exhausted() { None } else { lane.wait(now) };
            let soonest = due.into_iter().chain(load).min();
            let left = soonest.map_or(left, |wait| wait.max(Duration::from_millis(1)).min(left));
            let filled = Arc::clone(&lane.filled);
            lane.sleepers += 1;
            inner = filled.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
            if let Some(lane) = inner.lanes.get_mut(backend) {
                lane.sleepers -= 1;
            }
        }
    }

    /// What a [`Turn::Load`] found: ids in order, up to which one it looked, and whether there was an end.
    pub(super) fn loaded(&self, backend: &str, ids: &[i64], cursor: i64, ended: bool) {
        self.with(backend, |lane| {
            lane.loading = false;
            (lane.pause, lane.paused) = (Duration::ZERO, None);
            lane.ready.extend(ids);
            lane.cursor = lane.cursor.max(cursor);
            // What was committed meanwhile may have been seen, or not.
            lane.more = !ended || lane.newest > lane.cursor;
            lane.wake();
        });
    }

    /// A [`Turn::Load`] came to nothing.
    pub(super) fn not_loaded(&self, backend: &str) {
        self.with(backend, |lane| {
            lane.loading = false;
            lane.pause = lane.pause.saturating_mul(2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            lane.paused = Instant::now().checked_add(lane.pause);
            lane.wake();
        });
    }

    /// Gives no more, and keeps nothing; who waits returns.
    pub(super) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopped = true;
        for lane in inner.lanes.values_mut() {
            (lane.fresh, lane.kept) = (HashMap::new(), 0);
        }
        drop(inner);
        self.wake_all();
    }

    /// Lets those who wait look whether they are still to.
    pub(super) fn wake_all(&self) {
        for lane in self.lock().lanes.values() {
            lane.filled.notify_all();
        }
    }

    /// Backends that have, or had, any.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.lock().lanes.keys().cloned().collect()
    }

    /// Messages of each backend that has any.
    pub(super) fn waiting(&self) -> Vec<(String, u64)> {
        let inner = self.lock();
        let waiting = inner.lanes.iter().filter(|(_, lane)| lane.depth > 0);
        waiting.map(|(name, lane)| (name.to_string(), lane.depth)).collect()
    }

    /// Messages that are deferred, and those that are leased.
    pub(super) fn counts(&self) -> (u64, u64) {
        let inner = self.lock();
        let (due, leased) = inner
            .lanes
            .values()
            .fold((0, 0), |(due, leased), lane| (due + lane.due.len(), leased + lane.leased.len()));
        (due as u64, leased as u64)
    }

    /// Which of these are leased.
    pub(super) fn leased(&self, backend: &str, id: i64) -> bool {
        self.with(backend, |lane| lane.leased.contains_key(&id))
    }
}

fn take_ids(lane: &mut Lane, max: usize, now: i64, generation: &mut u64) -> Vec<(i64, u64)> {
    let mut ids = Vec::new();
    while ids.len() < max.max(1)
        && !lane.is_exhausted()
        && let Some(id) = lane.next(now)
    {
        // Committed `retry` rows and pages may name one twice; it is given once.
        if let std::collections::hash_map::Entry::Vacant(free) = lane.leased.entry(id) {
            *generation += 1;
            free.insert(*generation);
            ids.push((id, *generation));
        }
    }
    ids
}
