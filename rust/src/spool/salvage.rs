//! Reading rows of a database that may be damaged: what can be read is, and what cannot is named.

use std::ops::RangeInclusive;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, ErrorCode, OptionalExtension, Row};

use super::database;

/// So many ids are tried one by one behind what cannot be read.
const SINGLE: i64 = 1_000;

/// A part of a page of rows.
#[derive(Debug)]
pub(super) enum Piece<T> {
    /// A row, with its id.
    Row(i64, T),
    /// Ids of rows that cannot be read, or of none: who could tell.
    Lost(RangeInclusive<i64>, Error),
}

impl<T> Piece<T> {
    /// The next page begins behind it.
    pub(super) fn last(&self) -> i64 {
        match self {
            Self::Row(id, _) => *id,
            Self::Lost(ids, _) => *ids.end(),
        }
    }
}

/// At most `max` pieces from the id `from` on, in their order. `selects` are `SELECT msg.id, … FROM msg …`
/// without a condition; where a row cannot be read by the first one, the next is tried.
pub(super) fn page<T>(
    connection: &Connection,
    selects: &[&str],
    from: i64,
    max: i64,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<Piece<T>>> {
    match together(connection, selects, from, max, &read) {
        // Row by row, then: mostly all but one of them are well.
        Err(error) if is_damage(&error) => each(connection, selects, from, max, read),
        done => done,
    }
}

fn together<T>(
    connection: &Connection,
    selects: &[&str],
    from: i64,
    max: i64,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<Piece<T>>> {
    let select = selects.first().copied().unwrap_or_default();
    let mut select =
        connection.prepare(&format!("{select} WHERE msg.id >= ?1 ORDER BY msg.id LIMIT ?2"))?;
    select.query_map((from, max), |row| Ok(Piece::Row(row.get(0)?, read(row)?)))?.collect()
}

fn each<T>(
    connection: &Connection,
    selects: &[&str],
    from: i64,
    max: i64,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<Piece<T>>> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let (mut pieces, mut from) = (Vec::new(), Some(from));
    while pieces.len() < max
        && let Some(at) = from
    {
        let piece = match first_id(connection, at) {
            Ok(None) => break,
            Ok(Some(id)) => {
                from = id.checked_add(1);
                one(connection, selects, id, &read)?
            }
            Err(error) if is_damage(&error) => {
                from = behind(connection, at, |id| first_id(connection, id))?;
                Some(Piece::Lost(at..=from.map_or(i64::MAX, |from| from - 1), error))
            }
            Err(error) => return Err(error),
        };
        pieces.extend(piece);
    }
    Ok(pieces)
}

/// `None` where it is gone meanwhile.
fn one<T>(
    connection: &Connection,
    selects: &[&str],
    id: i64,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<Piece<T>>> {
    let mut fault = None;
    for select in selects {
        let found = connection
            .query_row(&format!("{select} WHERE msg.id = ?1"), [id], |row| read(row))
            .optional();
        match found {
            Ok(row) => return Ok(row.map(|row| Piece::Row(id, row))),
            Err(error) if is_damage(&error) => fault = fault.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Ok(fault.map(|error| Piece::Lost(id..=id, error)))
}

/// `>=`, not `>` the id before: that one may be on a damaged page.
fn first_id(connection: &Connection, from: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .query_row("SELECT id FROM msg WHERE id >= ?1 ORDER BY id LIMIT 1", [from], |row| {
            row.get(0)
        })
        .optional()
}

/// The first id, of those from `lost` on, from which on rows can be read again; none where there are none up to
/// the last id. `lost` itself cannot be read, and `read` reads from an id on.
///
/// Nothing tells how many ids a damaged page hides. One of rows has fewer than are tried one by one; what is
/// above such pages may hide very many, so that steps grow from there, and what the last one went past is
/// looked for by halves.
pub(super) fn behind<T>(
    connection: &Connection,
    lost: i64,
    mut read: impl FnMut(i64) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<i64>> {
    let end = match database::meta(connection, "last") {
        // Damaged as well: it only takes longer to find that there is nothing more.
        Err(error) if is_damage(&error) => i64::MAX,
        found => found?.saturating_add(1),
    };
    let mut reads = |id| match read(id) {
        Err(error) if is_damage(&error) => Ok(false),
        found => found.map(|_| true),
    };
    let (mut bad, mut good) = (lost, lost.saturating_add(1));
    while !reads(good)? {
        if good >= end {
            return Ok(None);
        }
        bad = good;
        good = good.saturating_add(1 + (good - lost) / SINGLE).min(end);
    }
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if reads(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(Some(good))
}

/// What is lost, as a log line and a list say it.
pub(super) fn in_words(ids: &RangeInclusive<i64>, error: &Error) -> String {
    match (*ids.start(), *ids.end()) {
        (first, last) if first == last => format!("id {first} ({error})"),
        (first, i64::MAX) => format!("what is behind id {} ({error})", first.saturating_sub(1)),
        (first, last) => format!("ids {first} to {last} ({error})"),
    }
}

/// Whether it is of what was read, which stays so, and says nothing of what is behind it.
pub(super) fn is_damage(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::SystemIoFailure)
        }
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => true,
        _ => false,
    }
}

/// A text, also one that is no UTF-8 any more.
pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(optional_text(row, column)?.unwrap_or_default())
}

/// The same, where there may be none.
pub(super) fn optional_text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    let octets = optional_octets(row, column)?;
    Ok(octets.map(|octets| String::from_utf8_lossy(&octets).into_owned()))
}

/// Octets, whatever they are now; a checksum tells whether they are what was saved.
pub(super) fn octets(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(optional_octets(row, column)?.unwrap_or_default())
}

fn optional_octets(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<u8>>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(octets) | ValueRef::Blob(octets) => Some(octets.to_vec()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
    })
}

/// An integer; none where something else is in its place.
pub(super) fn integer(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<i64>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(value) => Some(value),
        _ => None,
    })
}

/// A count; what cannot be one is the nearest that can.
pub(super) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u32>> {
    let nearest = |value: i64| u32::try_from(value.max(0)).unwrap_or(u32::MAX);
    Ok(integer(row, column)?.map(nearest))
}
