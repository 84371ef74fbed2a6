//! One commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::dispatch::LARGEST;
use super::error::is_damage;
use super::files::FileJob;
use super::lanes::Fresh;
use super::lease::Held;
use super::statements::{Row, Statements};
use super::suspects::Suspects;
use super::writer::{Adopted, Edit, InFile, Job, Why, Writer};
use super::{Incoming, Refusal, Shared, clock, database};
use crate::log::Level;

/// What has to be done when the commit is synced.
pub(super) enum Effect {
    /// A message is saved; `due` where it has a time.
    Saved { job: Saved, id: i64, octets: u64, due: Option<i64> },
    /// A row is gone, `false` where there was none; and its time, where it had one.
    Deleted { held: Arc<Held>, why: Why, found: bool, due: Option<i64> },
    /// A message has a time; `false` where it is gone.
    Deferred { job: Job, found: bool },
    /// What a command asked for.
    Edited { job: Job, rows: Vec<Edited> },
    /// Marks are gone.
    Forgot(Vec<String>),
    /// A message that is there already, if only by this very commit: whoever hears of it looks.
    Known(Saved),
}

impl Effect {
    fn into_job(self) -> Job {
        match self {
            Self::Saved { job, .. } => job.into_job(),
            Self::Deleted { held, why, .. } => Job::Delete { held, why },
            Self::Deferred { job, .. } | Self::Edited { job, .. } => job,
            Self::Forgot(marks) => Job::Forget { marks },
            Self::Known(saved) => saved.into_job(),
        }
    }
}

/// A message with its file.
pub(super) struct Saved {
    pub(super) entry: Box<dyn Incoming>,
    pub(super) file: Option<InFile>,
    pub(super) adopted: Option<Adopted>,
}

impl Saved {
    fn into_job(self) -> Job {
        Job::Insert { entry: self.entry, file: self.file, adopted: self.adopted }
    }
}

/// A row that a command changed.
pub(super) struct Edited {
    id: i64,
    row: Row,
    /// Its time, where it has one.
    due: Option<i64>,
    now: i64,
}

/// What one commit has in it.
pub(super) struct Batch {
    jobs: std::vec::IntoIter<Job>,
    effects: Vec<Effect>,
    /// What became of depth and octets of each backend.
    lanes: BTreeMap<String, (i64, i64)>,
    /// Octets of what it adds.
    added: u64,
    written: u64,
    /// Whether what failed is the change of a row, by the last effect.
    is_stuck: bool,
}

impl Batch {
    pub(super) fn new(jobs: Vec<Job>) -> Self {
        let effects = Vec::with_capacity(jobs.len());
        let jobs = jobs.into_iter();
        Self { jobs, effects, lanes: BTreeMap::new(), added: 0, written: 0, is_stuck: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.as_slice().is_empty()
    }

    /// The messages it was to save.
    pub(super) fn suspect(&self, suspects: &mut Suspects) {
        for effect in &self.effects {
            if let Effect::Saved { job, id, .. } = effect {
                suspects.add(*id, job);
            }
        }
    }

    fn count(&mut self, backend: &str, depth: i64, octets: u64) {
        let octets = i64::try_from(octets.min(LARGEST)).unwrap_or(0);
        let sum = match self.lanes.get_mut(backend) {
            Some(sum) => sum,
            None => self.lanes.entry(backend.to_owned()).or_default(),
        };
        sum.0 += depth;
        sum.1 += depth * octets;
    }

    /// Takes out what cannot be done since the row that it changes is on a damaged page.
    pub(super) fn take_stuck(&mut self, error: &rusqlite::Error) -> Option<Effect> {
        if self.is_stuck && is_damage(error) { self.effects.pop() } else { None }
    }

    /// All of it, to be done anew.
    pub(super) fn into_jobs(self) -> impl Iterator<Item = Job> {
        self.effects.into_iter().map(Effect::into_job).chain(self.jobs)
    }

    /// It came to nothing: messages are refused; the rest is given back, to be done again.
    pub(super) fn into_undone(self, shared: &Shared) -> Vec<Job> {
        let mut undone = Vec::new();
        for effect in self.effects {
            match effect {
                // Its file is looked after by `Suspects`.
                Effect::Saved { job, .. } => shared.turn_down(job.into_job(), Refusal::Broken),
                Effect::Known(job) => shared.refuse(job.into_job(), Refusal::Broken),
                Effect::Deleted { held, why, .. } => undone.push(Job::Delete { held, why }),
                Effect::Deferred { job, .. } => undone.push(job),
                Effect::Forgot(marks) => undone.push(Job::Forget { marks }),
                // Not again: it may be what cannot be written. Who asked is told that it was not done.
                Effect::Edited { .. } => {}
            }
        }
        for job in self.jobs {
            match job {
                Job::Insert { .. } => shared.refuse(job, Refusal::Broken),
                Job::Edit { .. } => {}
                other => undone.push(other),
            }
        }
        undone
    }
}

impl Writer {
    /// Writes the batch and settles what it has; after an error nothing of it is settled.
    pub(super) fn commit(
        &mut self,
        connection: &Connection,
        statements: &mut Statements<'_>,
        batch: &mut Batch,
    ) -> rusqlite::Result<()> {
        statements.begin.execute([])?;
        let last = self.last;
        let written =
            self.write(statements, batch).and_then(|()| statements.commit.execute([]).map(drop));
        if let Err(error) = written {
            self.last = last;
            // Where SQLite has rolled back by itself this says so; the connection goes anyway.
            let _ = connection.execute_batch("ROLLBACK");
            return Err(error);
        }
        self.shared.figures.commits.add();
        self.settle(batch);
        Ok(())
    }

    fn write(&mut self, on: &mut Statements<'_>, batch: &mut Batch) -> rusqlite::Result<()> {
        while let Some(job) = batch.jobs.next() {
            let done = match job {
                Job::Insert { entry, file, adopted } => {
                    self.insert(on, batch, Saved { entry, file, adopted })?;
                    continue;
                }
                Job::Forget { marks } => {
                    let forgotten = marks.iter().try_for_each(|mark| on.forget(mark));
                    batch.effects.push(Effect::Forgot(marks));
                    forgotten?;
                    continue;
                }
                Job::Delete { held, why } => delete(on, batch, held, why),
                Job::Defer { .. } => self.defer(on, batch, job),
                Job::Edit { .. } => self.edit(on, batch, job),
            };
            batch.is_stuck = done.is_err();
            done?;
        }
        for (backend, (depth, octets)) in &batch.lanes {
            on.lane.execute((backend, depth, octets))?;
        }
        on.meta.execute(("last", self.last))?;
        Ok(())
    }

    fn defer(&self, on: &mut Statements<'_>, batch: &mut Batch, job: Job) -> rusqlite::Result<()> {
        let mut found = Ok(0);
        if let Job::Defer { held, attempts, next_ms, reason } = &job
            && self.shared.lanes.holds(&held.backend, held.id, held.generation)
        {
            found = on.defer.execute((held.id, &*held.backend, attempts, next_ms, reason));
        }
        batch.effects.push(Effect::Deferred { job, found: matches!(found, Ok(1..)) });
        found.map(drop)
    }

    fn edit(&self, on: &mut Statements<'_>, batch: &mut Batch, job: Job) -> rusqlite::Result<()> {
        let Job::Edit { ids, edit, .. } = &job else { return Ok(()) };
        let (mut rows, mut done) = (Vec::new(), Ok(()));
        for id in ids {
            done = self.edit_one(on, *id, *edit).map(|row| rows.extend(row));
            if done.is_err() {
                break;
            }
        }
        if *edit == Edit::Drop {
            for Edited { row, .. } in &rows {
                batch.count(&row.backend, -1, row.octets);
            }
        }
        batch.effects.push(Effect::Edited { job, rows });
        done
    }

    /// `None` where somebody works on it, or there is nothing to do.
    fn edit_one(
        &self,
        on: &mut Statements<'_>,
        id: i64,
        edit: Edit,
    ) -> rusqlite::Result<Option<Edited>> {
        let found = on.row.query_row([id], |row| Ok((Row::of(row)?, row.get(4)?))).optional()?;
        let Some((row, due)): Option<(Row, Option<i64>)> = found else { return Ok(None) };
        if self.shared.lanes.leased(&row.backend, id) {
            return Ok(None);
        }
        let now = clock::now_ms();
        match edit {
            Edit::Retry if due.is_none_or(|due| due <= now) => return Ok(None),
            Edit::Retry => drop(on.retry_now.execute((id, now))?),
            Edit::Drop => {
                on.delete.execute([id])?;
                on.forget_time(id)?;
            }
        }
        Ok(Some(Edited { id, row, due, now }))
    }

    fn insert(
        &mut self,
        on: &mut Statements<'_>,
        batch: &mut Batch,
        saved: Saved,
    ) -> rusqlite::Result<()> {
        let Saved { entry, file, adopted } = &saved;
        let follows = match adopted {
            Some(adopted) => on.mark(&adopted.key)? == adopted.after,
            None => true,
        };
        let is_new = match entry.mark() {
            Some(mark) => on.mark(mark)? == 0,
            None => true,
        };
        if !is_new {
            batch.effects.push(Effect::Known(saved));
            return Ok(());
        }
        if !follows || !entry.is_wanted() {
            self.shared.refuse(saved.into_job(), Refusal::Broken);
            return Ok(());
        }
        let record = entry.record();
        let size = file.as_ref().map_or(entry.octets().len() as u64, |file| file.size);
        let cost = (record.len() as u64).saturating_add(size);
        let room = &self.shared.room;
        // What was in another folder is on this disk already.
        if adopted.is_none() && (room.is_tight() || !room.fits(batch.added.saturating_add(cost))) {
            self.shared.refuse(saved.into_job(), Refusal::Full);
            return Ok(());
        }
        if self.next > self.reserved {
            self.reserved += database::BLOCK;
            on.meta.execute(("reserved", self.reserved))?;
        }
        let id = self.next;
        self.next += 1;
        let done = on.insert_row(id, &saved, size);
        let due = adopted.as_ref().and_then(|adopted| Some(adopted.retry.as_ref()?.next_ms));
        if adopted.is_some() {
            self.adopted = self.adopted.min((clock::ms(entry.received_at()), id));
        }
        batch.count(entry.backend(), 1, cost);
        batch.added = batch.added.saturating_add(cost);
        batch.written += if file.is_some() { record.len() as u64 } else { cost };
        self.last = id;
        batch.effects.push(Effect::Saved { job: saved, id, octets: cost, due });
        done
    }

    /// It is synced: says so to everyone.
    fn settle(&mut self, batch: &mut Batch) {
        let shared = &self.shared;
        let (_, octets) = batch
            .lanes
            .values()
            .fold((0, 0), |(depth, octets), sum| (depth + sum.0, octets + sum.1));
        shared.room.set_live(shared.room.live().saturating_add_signed(octets));
        for effect in batch.effects.drain(..) {
            match effect {
                Effect::Saved { job, id, octets, due } => {
                    shared.saved(&job, id, octets, due);
                    job.entry.settle(Ok(()));
                }
                Effect::Deleted { held, why, found: true, due } => {
                    shared.deleted(&held, why, due);
                }
                Effect::Deleted { held, found: false, .. } => {
                    // A commit before that failed may have deleted it, and left its body.
                    if let Some(name) = &held.file {
                        shared.files.push(FileJob::Remove(name.clone()));
                    }
                    shared.lanes.forget(&held.backend, held.id, held.generation);
                }
                Effect::Deferred { job, found } => shared.deferred(&job, found),
                Effect::Edited { job, rows } => shared.edited(job, rows),
                Effect::Forgot(_) => {}
                Effect::Known(saved) => shared.refuse(saved.into_job(), Refusal::Broken),
            }
        }
        // Who sent them hears it first.
        for backend in batch.lanes.keys() {
            shared.lanes.wake(backend);
        }
        shared.look(batch.written);
    }
}

impl Shared {
    /// Refuses a message, whose file goes then.
    pub(super) fn refuse(&self, job: Job, refusal: Refusal) {
        // One that was taken over is still there, and may be taken over again before this is done: a second
        // name that no row has goes with the next start.
        if let Job::Insert { file: Some(file), adopted: None, .. } = &job {
            self.files.push(FileJob::Remove(file.name.clone()));
        }
        self.turn_down(job, refusal);
    }

    /// Refuses a message, whose file stays.
    fn turn_down(&self, job: Job, refusal: Refusal) {
        self.figures.refused.add();
        job.refuse(refusal);
    }

    /// A message is to be given out from now on.
    fn saved(&self, saved: &Saved, id: i64, octets: u64, due: Option<i64>) {
        let Saved { entry, file, adopted } = saved;
        self.figures.depth.add();
        self.figures.committed.add();
        let backend = entry.backend();
        if let Some(due) = due {
            self.lanes.count(backend, octets);
            self.lanes.deferred(backend, id, None, due);
            return;
        }
        // What is in a file is mapped from there, and what was another folder's may be damaged.
        let is_new = file.is_none() && adopted.is_none();
        let is_kept = is_new && self.lanes.keeps(backend, octets);
        let fresh = is_kept.then(|| Fresh {
            queued_id: entry.queued_id().to_owned(),
            received_ms: clock::ms(entry.received_at()),
            record: entry.record().to_vec(),
            body: entry.octets().to_vec(),
        });
        self.lanes.saved(backend, id, octets, fresh);
    }

    fn deleted(&self, held: &Held, why: Why, due: Option<i64>) {
        self.lanes.deleted(&held.backend, held.id, held.octets, due);
        self.figures.depth.sub();
        match why {
            Why::Done => self.figures.done.add(),
            Why::Failed => self.figures.failed.add(),
            Why::Damaged => self.figures.damaged.add(),
        }
        if let Some(name) = &held.file {
            self.files.push(FileJob::Remove(name.clone()));
        }
    }

    fn edited(&self, job: Job, rows: Vec<Edited>) {
        let Job::Edit { edit, done, .. } = job else { return };
        let count = rows.len() as u64;
        for Edited { id, row, due, now } in rows {
            if edit == Edit::Retry {
                self.lanes.advance(&row.backend, id, due.unwrap_or(now), now);
                continue;
            }
            self.quiet.say(Level::Info, format_args!("{}: dropped by a command", row.queued_id));
            self.lanes.deleted(&row.backend, id, row.octets, due);
            self.figures.depth.sub();
            if let Some(name) = row.file {
                self.files.push(FileJob::Remove(name));
            }
        }
        let _ = done.send(count);
    }

    fn deferred(&self, job: &Job, found: bool) {
        let Job::Defer { held, next_ms, .. } = job else { return };
        if found {
            self.figures.retries.add();
            self.lanes.deferred(&held.backend, held.id, Some(held.generation), *next_ms);
        } else {
            self.lanes.forget(&held.backend, held.id, held.generation);
        }
    }
}

fn delete(
    on: &mut Statements<'_>,
    batch: &mut Batch,
    held: Arc<Held>,
    why: Why,
) -> rusqlite::Result<()> {
    let found = on.delete.execute([held.id]).map(|count| count > 0);
    // A late success may be of an attempt that was the first one.
    let due = on.forget_time(held.id);
    if let Ok(true) = found {
        batch.count(&held.backend, -1, held.octets);
    }
    let time = *due.as_ref().unwrap_or(&None);
    let effect = Effect::Deleted { held, why, found: matches!(found, Ok(true)), due: time };
    batch.effects.push(effect);
    found.and(due).map(drop)
}
