//! Up to where another folder was taken over: one mark for all of it, and one for each gap that it has.
//!
//! A gap is what could not be read when the mark passed over it. Ids below the mark are taken, but for
//! those of a gap, of which its own mark says how far. A gap may have gaps; the smallest one counts.

use std::ops::RangeInclusive;

use rusqlite::Connection;

use super::database;

/// The marks of one other folder.
#[derive(Debug)]
pub(super) struct Marks {
    key: String,
    mark: i64,
    gaps: Vec<Gap>,
    /// Gaps that the next message will bring with it.
    passed: Vec<RangeInclusive<i64>>,
}

#[derive(Debug)]
struct Gap {
    ids: RangeInclusive<i64>,
    mark: i64,
}

/// What one message moves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Which mark.
    pub(super) key: String,
    /// Where that has to be before.
    pub(super) after: i64,
    /// Marks that are to be there too.
    pub(super) gaps: Vec<(String, i64)>,
}

impl Marks {
    /// Of the folder of that `identity`, as they are committed.
    pub(super) fn read(reader: &Connection, identity: i64) -> rusqlite::Result<Self> {
        let key = format!("adopted {identity}");
        let mark = database::meta(reader, &key)?;
        // `!` is what comes behind a space.
        let mut select =
            reader.prepare("SELECT k, v FROM meta WHERE k > ?1 || ' ' AND k < ?1 || '!'")?;
        let found = select.query_map([&key], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found: Vec<(String, i64)> = found.collect::<Result<_, _>>()?;
        let gaps = found.iter().filter_map(|(name, mark)| {
            let (first, last) = name.get(key.len()..)?.trim().split_once(' ')?;
            Some(Gap { ids: first.parse().ok()?..=last.parse().ok()?, mark: *mark })
        });
        Ok(Self { mark, gaps: gaps.collect(), passed: Vec::new(), key })
    }

    /// Whether it was taken over already.
    pub(super) fn has(&self, id: i64) -> bool {
        id <= self.of(id).map_or(self.mark, |gap| gap.mark)
    }

    /// Ids that cannot be read.
    pub(super) fn pass_over(&mut self, ids: RangeInclusive<i64>) {
        // What was taken needs no gap, and what is one already no second.
        if !self.has(*ids.end()) && !self.gaps.iter().any(|gap| gap.ids == ids) {
            self.passed.push(ids);
        }
    }

    /// That message is the next one.
    pub(super) fn step(&mut self, id: i64) -> Step {
        let mut gaps = Vec::new();
        for ids in self.passed.drain(..) {
            let mark = ids.start().saturating_sub(1);
            gaps.push((gap_key(&self.key, &ids), mark));
            self.gaps.push(Gap { ids, mark });
        }
        let gap =
            self.gaps.iter_mut().filter(|gap| gap.ids.contains(&id)).min_by_key(|gap| gap.len());
        let (key, mark) = match gap {
            Some(gap) => (gap_key(&self.key, &gap.ids), &mut gap.mark),
            None => (self.key.clone(), &mut self.mark),
        };
        Step { key, after: std::mem::replace(mark, id), gaps }
    }

    fn of(&self, id: i64) -> Option<&Gap> {
        self.gaps.iter().filter(|gap| gap.ids.contains(&id)).min_by_key(|gap| gap.len())
    }
}

impl Gap {
    fn len(&self) -> u64 {
        self.ids.start().abs_diff(*self.ids.end())
    }
}

fn gap_key(key: &str, ids: &RangeInclusive<i64>) -> String {
    format!("{key} {} {}", ids.start(), ids.end())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As the writer obeys it.
    fn commit(connection: &Connection, step: &Step, id: i64) {
        for (key, mark) in &step.gaps {
            database::set_meta(connection, key, *mark).unwrap();
        }
        assert_eq!(database::meta(connection, &step.key).unwrap(), step.after);
        database::set_meta(connection, &step.key, id).unwrap();
    }

    #[test]
    fn what_was_passed_over_is_not_taken_until_it_is() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE meta(k TEXT PRIMARY KEY, v INTEGER) WITHOUT ROWID")
            .unwrap();
        let read = || Marks::read(&connection, -7).unwrap();
        let taken = |marks: &Marks| (1..14).filter(|id| marks.has(*id)).collect::<Vec<_>>();
        // Of another folder, whose name only begins like this one's.
        database::set_meta(&connection, "adopted -77 1 99", 50).unwrap();
        let mut marks = read();
        commit(&connection, &marks.step(1), 1);
        marks.pass_over(2..=9);
        commit(&connection, &marks.step(10), 10);
        marks.pass_over(11..=i64::MAX);
        assert_eq!(taken(&marks), [1, 10]);
        // Some of it can be read, and what is between cannot.
        let mut marks = read();
        assert_eq!(taken(&marks), [1, 10]);
        marks.pass_over(2..=3);
        commit(&connection, &marks.step(4), 4);
        marks.pass_over(5..=5);
        commit(&connection, &marks.step(6), 6);
        assert_eq!(taken(&marks), [1, 4, 6, 10]);
        let mut marks = read();
        assert_eq!(taken(&marks), [1, 4, 6, 10]);
        for id in [2, 3, 5, 7, 8, 9, 11] {
            commit(&connection, &marks.step(id), id);
        }
        assert_eq!(taken(&read()), (1..12).collect::<Vec<_>>());
        // What was taken, and not deleted, is no gap when it can be read no more.
        let mut marks = read();
        marks.pass_over(7..=8);
        assert_eq!(marks.step(12), Step { key: "adopted -7".to_owned(), after: 11, gaps: vec![] });
    }
}
