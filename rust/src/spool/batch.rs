//! One commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Statement};

use super::files::FileJob;
use super::lease::Held;
use super::writer::{Job, Why, Writer};
use super::{Incoming, Refusal, Shared, clock, database};

/// Prepared once for as long as the connection is good.
pub(super) struct Statements<'connection> {
    begin: Statement<'connection>,
    commit: Statement<'connection>,
    insert: Statement<'connection>,
    delete: Statement<'connection>,
    delete_retry: Statement<'connection>,
    defer: Statement<'connection>,
    lane: Statement<'connection>,
    meta: Statement<'connection>,
}

impl<'connection> Statements<'connection> {
    pub(super) fn prepare(connection: &'connection Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            insert: connection.prepare(
                "INSERT INTO msg(id, received_ms, size, crc, backend, queued_id, env, file, body)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?,
            delete: connection.prepare("DELETE FROM msg WHERE id = ?1")?,
            delete_retry: connection.prepare("DELETE FROM retry WHERE id = ?1")?,
            // Only of a message that is still there: another worker may have done it.
            defer: connection.prepare(
                "INSERT INTO retry SELECT ?1, ?2, ?3, ?4, ?5
                 WHERE EXISTS(SELECT 1 FROM msg WHERE id = ?1)
                 ON CONFLICT DO UPDATE SET attempts = excluded.attempts,
                   next_ms = excluded.next_ms, error = excluded.error",
            )?,
            lane: connection.prepare(
                "INSERT INTO lane VALUES(?1, ?2, ?3) ON CONFLICT DO UPDATE
                 SET depth = depth + excluded.depth, octets = octets + excluded.octets",
            )?,
            meta: connection.prepare(
                "INSERT INTO meta VALUES(?1, ?2) ON CONFLICT DO UPDATE SET v = excluded.v",
            )?,
        })
    }
}

/// What has to be done when the commit is synced.
enum Effect {
    /// A message is saved.
    Saved { entry: Box<dyn Incoming>, id: i64, octets: u64, file: Option<String> },
    /// A row is gone; `false` where there was none.
    Deleted { held: Arc<Held>, why: Why, found: bool },
    /// A message has a time; `false` where it is gone.
    Deferred { job: Job, found: bool },
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
}

impl Batch {
    pub(super) fn new(jobs: Vec<Job>) -> Self {
        let effects = Vec::with_capacity(jobs.len());
        Self { jobs: jobs.into_iter(), effects, lanes: BTreeMap::new(), added: 0, written: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.as_slice().is_empty()
    }

    /// Ids of the messages it was to save.
    pub(super) fn ids(&self) -> Vec<i64> {
        let ids = self.effects.iter().filter_map(|effect| match effect {
            Effect::Saved { id, .. } => Some(*id),
            Effect::Deleted { .. } | Effect::Deferred { .. } => None,
        });
        ids.collect()
    }

    fn count(&mut self, backend: &str, depth: i64, octets: u64) {
        let octets = i64::try_from(octets).unwrap_or(i64::MAX);
        let sum = match self.lanes.get_mut(backend) {
            Some(sum) => sum,
            None => self.lanes.entry(backend.to_owned()).or_default(),
        };
        sum.0 += depth;
        sum.1 += depth * octets;
    }

    /// It came to nothing: messages are refused; the rest is given back, to be done again.
    pub(super) fn into_undone(self, shared: &Shared) -> Vec<Job> {
        let mut undone = Vec::new();
        for effect in self.effects {
            match effect {
                Effect::Saved { entry, file, .. } => {
                    let file = file.map(|name| (name, 0));
                    shared.refuse(Job::Insert { entry, file }, Refusal::Broken);
                }
                Effect::Deleted { held, why, .. } => undone.push(Job::Delete { held, why }),
                Effect::Deferred { job, .. } => undone.push(job),
            }
        }
        for job in self.jobs {
            match job {
                Job::Insert { .. } => shared.refuse(job, Refusal::Broken),
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
            match job {
                Job::Insert { entry, file } => self.insert(on, batch, entry, file)?,
                Job::Delete { held, why } => {
                    let found = on.delete.execute([held.id]).map(|count| count > 0);
                    let retry =
                        if held.attempts > 0 { on.delete_retry.execute([held.id]) } else { Ok(0) };
                    let good = matches!(found, Ok(true));
                    if good {
                        batch.count(&held.backend, -1, held.octets);
                    }
                    batch.effects.push(Effect::Deleted { held, why, found: good });
                    found.and(retry)?;
                }
                Job::Defer { held, attempts, next_ms, reason } => {
                    let row = (held.id, &*held.backend, attempts, next_ms, &reason);
                    let holds = self.shared.lanes.holds(&held.backend, held.id, held.generation);
                    let found = if holds { on.defer.execute(row) } else { Ok(0) };
                    let good = matches!(found, Ok(1..));
                    let job = Job::Defer { held, attempts, next_ms, reason };
                    batch.effects.push(Effect::Deferred { job, found: good });
                    found?;
                }
            }
        }
        for (backend, (depth, octets)) in &batch.lanes {
            on.lane.execute((backend, depth, octets))?;
        }
        on.meta.execute(("last", self.last))?;
        Ok(())
    }

    fn insert(
        &mut self,
        on: &mut Statements<'_>,
        batch: &mut Batch,
        entry: Box<dyn Incoming>,
        file: Option<(String, u32)>,
    ) -> rusqlite::Result<()> {
        let (record, octets) = (entry.record(), entry.octets());
        let cost = (record.len() + octets.len()) as u64;
        let room = &self.shared.room;
        if room.is_tight() || !room.fits(batch.added + cost) {
            self.shared.refuse(Job::Insert { entry, file }, Refusal::Full);
            return Ok(());
        }
        if self.next > self.reserved {
            self.reserved += database::BLOCK;
            on.meta.execute(("reserved", self.reserved))?;
        }
        let id = self.next;
        self.next += 1;
        let (file, crc) = match file {
            Some((name, crc)) => (Some(name), crc),
            None => (None, checksum(record, octets)),
        };
        let body = if file.is_some() { None } else { Some(octets) };
        let done = on.insert.execute((
            id,
            clock::ms(entry.received_at()),
            i64::try_from(octets.len()).unwrap_or(i64::MAX),
            crc,
            entry.backend(),
            entry.queued_id(),
            record,
            &file,
            body,
        ));
        batch.count(entry.backend(), 1, cost);
        batch.added += cost;
        batch.written += record.len() as u64 + body.map_or(0, <[u8]>::len) as u64;
        self.last = id;
        batch.effects.push(Effect::Saved { entry, id, octets: cost, file });
        done.map(drop)
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
                Effect::Saved { entry, id, octets, .. } => {
                    shared.figures.depth.add();
                    shared.figures.committed.add();
                    shared.lanes.inserted(entry.backend(), id, octets);
                    entry.settle(Ok(()));
                }
                Effect::Deleted { held, why, found: true } => shared.deleted(&held, why),
                Effect::Deleted { held, found: false, .. } => {
                    shared.lanes.forget(&held.backend, held.id, held.generation);
                }
                Effect::Deferred { job, found } => shared.deferred(&job, found),
            }
        }
        shared.look(batch.written);
    }
}

impl Shared {
    /// Refuses a message, whose file goes then.
    pub(super) fn refuse(&self, job: Job, refusal: Refusal) {
        if let Job::Insert { file: Some((name, _)), .. } = &job {
            self.files.push(FileJob::Remove(name.clone()));
        }
        self.figures.refused.add();
        job.refuse(refusal);
    }

    fn deleted(&self, held: &Held, why: Why) {
        self.lanes.deleted(&held.backend, held.id, held.octets);
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

/// Of the envelope, and then of the message.
pub(super) fn checksum(record: &[u8], octets: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(record);
    sum.update(octets);
    sum.finalize()
}

/// Deletes a message that should not be there, with all that counts it.
pub(super) fn erase(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let found: Option<(String, i64)> = connection
        .query_row(
            "DELETE FROM msg WHERE id = ?1 RETURNING backend, size + length(env)",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    if let Some((backend, octets)) = found {
        connection.execute(
            "UPDATE lane SET depth = depth - 1, octets = octets - ?2 WHERE backend = ?1",
            (backend, octets),
        )?;
    }
    connection.execute("DELETE FROM retry WHERE id = ?1", [id])?;
    Ok(())
}
