//! What is a field, what is an end, and that every byte is one or the other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

type Pair<'a> = (&'a str, &'a str);

fn parse(message: &str) -> (Vec<Pair<'_>>, usize) {
    parse_to(message, usize::MAX)
}

fn parse_to(message: &str, limit: usize) -> (Vec<Pair<'_>>, usize) {
    let section = HeaderSection::parse(message.as_bytes(), limit);
    let text = |range: &Range<u32>| &message[range.start as usize..range.end as usize];
    let pairs = section.fields.iter().map(|field| (text(&field.name), text(&field.value)));
    (pairs.collect(), section.end())
}

/// Pieces of which random messages are full of line ends, colons and blanks.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let pieces = ["\r\n", "\n", "\r", " ", "\t", ":", "A", "Subject: x", "From a", "\0", "\u{e9}"];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..24)
        .prop_map(|pieces| pieces.concat().into_bytes())
}

#[test]
fn reads_fields() {
    let table: [(&str, &[Pair<'_>], usize); 9] = [
        ("", &[], 0),
        ("\r\nbody", &[], 2),
        ("\nbody", &[], 1),
        ("A: 1\r\nB:2\r\n\r\nC: body\r\n\r\n", &[("A", " 1"), ("B", "2")], 13),
        ("A: 1\nB:2\n\nbody", &[("A", " 1"), ("B", "2")], 10),
        ("A: 1\nB: 2\r\n\nbody", &[("A", " 1"), ("B", " 2")], 12),
        ("A:\r\n 1\r\n\t2 \r\n \r\nB: x\r\n", &[("A", "\r\n 1\r\n\t2 \r\n "), ("B", " x")], 22),
        ("A::b: c\r\n", &[("A", ":b: c")], 9),
        ("A: 1\rB: 2\r\n", &[("A", " 1\rB: 2")], 11),
    ];
    for (message, fields, end) in table {
        assert_eq!(parse(message), (fields.to_vec(), end), "{message:?}");
    }
}

#[test]
fn keeps_malformed_lines() {
    let table: [(&str, &[Pair<'_>]); 10] = [
        ("Subject \t: x\r\n", &[("Subject", " x")]),
        ("no colon\r\nA: 1\r\n", &[("", "no colon"), ("A", " 1")]),
        (
            "A: 1\r\nno colon\r\n folded\r\nB: 2\r\n",
            &[("A", " 1"), ("", "no colon\r\n folded"), ("B", " 2")],
        ),
        (" leading\r\n more\r\nA: 1\r\n", &[("", " leading\r\n more"), ("A", " 1")]),
        (
            "From a@b Mon Nov 23 03:46:14 2026\nA: 1\n",
            &[("", "From a@b Mon Nov 23 03:46:14 2026"), ("A", " 1")],
        ),
        (": no name\r\n", &[("", ": no name")]),
        ("two words: x\r\n", &[("", "two words: x")]),
        ("N\u{e4}me: x\r\n", &[("", "N\u{e4}me: x")]),
        ("A\0B: x\r\n", &[("", "A\0B: x")]),
        ("\r\r\n", &[("", "\r")]),
    ];
    for (message, fields) in table {
        assert_eq!(parse(message), (fields.to_vec(), message.len()), "{message:?}");
    }
}

#[test]
fn stops_at_the_limit() {
    let message = "Ab: 1\r\nCd: 2\r\n\r\nbody";
    let table: [(usize, &[Pair<'_>], usize); 10] = [
        (0, &[], 0),
        (1, &[("", "A")], 1),
        (3, &[("Ab", "")], 3),
        (6, &[("Ab", " 1")], 6),
        (7, &[("Ab", " 1")], 7),
        (11, &[("Ab", " 1"), ("Cd", " ")], 11),
        (14, &[("Ab", " 1"), ("Cd", " 2")], 14),
        (15, &[("Ab", " 1"), ("Cd", " 2")], 15),
        (16, &[("Ab", " 1"), ("Cd", " 2")], 16),
        (99, &[("Ab", " 1"), ("Cd", " 2")], 16),
    ];
    for (limit, fields, end) in table {
        assert_eq!(parse_to(message, limit), (fields.to_vec(), end), "{limit}");
    }
}

#[test]
fn finds_fields_by_name() {
    let message = b"To: a\r\nbad\r\nTO: b\r\nX: c\r\n\r\nTo: d\r\n";
    let section = HeaderSection::parse(message, usize::MAX);
    assert_eq!(section.len(), 4);
    assert!(!section.is_empty());
    assert_eq!(section.first(message, "to"), Some(&b" a"[..]));
    assert_eq!(section.all(message, "tO").collect::<Vec<_>>(), [b" a", b" b"]);
    assert_eq!(section.first(message, ""), Some(&b"bad"[..]));
    assert_eq!(section.first(message, "T"), None);
    let names: Vec<&[u8]> = section.iter(message).map(|(name, _)| name).collect();
    assert_eq!(names, [&b"To"[..], b"", b"TO", b"X"]);
}

#[test]
fn the_wrong_message_is_no_panic() {
    let section = HeaderSection::parse(b"To: a\r\nX: c\r\n", usize::MAX);
    assert_eq!(section.iter(b"To").map(|(name, value)| name.len() + value.len()).sum::<usize>(), 2);
    assert_eq!(section.first(b"", "To"), None);
}

#[test]
fn unfolds() {
    let table = [
        ("", ""),
        (" a ", "a"),
        (" a\r\n b", "a b"),
        (" a\n\tb\r c", "a\tb c"),
        ("\r\n a\r\n ", "a"),
        ("a\r\n\r\n  b", "a  b"),
        ("a\r\r\n b", "a b"),
        ("a\rb\r\nc", "a\rb\r\nc"),
        ("a\r\n \r\n b", "a  b"),
        ("a \u{e9}\0", "a \u{e9}\0"),
    ];
    for (raw, expected) in table {
        assert_eq!(unfold(raw.as_bytes()), expected.as_bytes(), "{raw:?}");
    }
    assert!(matches!(unfold(b" plain "), Cow::Borrowed(b"plain")));
}

#[test]
fn finds_the_body() {
    let table = [
        ("", None),
        ("\r", None),
        ("\r\n", Some(2)),
        ("\n", Some(1)),
        ("A: 1\r\n\r\nbody", Some(8)),
        ("A: 1\n\nbody", Some(6)),
        ("A: 1\r\n\nbody", Some(7)),
        ("A: 1\n\r\nbody", Some(7)),
        ("A: 1\r\n \r\n\r\n", Some(11)),
        ("A: 1\r\n\r\r\n", None),
        ("A: 1\r\r\n", None),
        ("A: 1\r\n", None),
    ];
    for (message, expected) in table {
        assert_eq!(body_offset(message.as_bytes()), expected, "{message:?}");
    }
}

#[test]
fn the_end_is_not_sought_beyond_the_limit() {
    let message = b"A: 1\r\n\r\nbody";
    for (limit, expected) in [(7, None), (8, Some(8)), (0, None)] {
        let mut end = HeaderEnd::new(limit);
        assert_eq!(end.update(message), expected, "{limit}");
        assert_eq!(end.update(b""), expected);
    }
}

#[test]
fn reads_bytes_as_text() {
    let table: [(&[u8], &str); 4] = [
        (b"plain\0", "plain\0"),
        ("J\u{f6}rg \u{2603}".as_bytes(), "J\u{f6}rg \u{2603}"),
        (b"J\xf6rg \x80", "J\u{f6}rg \u{20ac}"),
        (b"\xef\xbb\xbfmark", "\u{feff}mark"),
    ];
    for (bytes, expected) in table {
        assert_eq!(to_text(bytes), expected);
    }
    let all: Vec<u8> = (0..=255).collect();
    assert!(!to_text(&all).contains(char::REPLACEMENT_CHARACTER));
}

/// Quadratic work on these would take minutes.
#[test]
fn hostile_sections_take_linear_time() {
    let started = Instant::now();
    let messages = [
        b"a:\n".repeat(700_000),
        b"a".repeat(2_000_000),
        [&b"a:"[..], &b"\n ".repeat(1_000_000)].concat(),
    ];
    for message in messages {
        let section = HeaderSection::parse(&message, usize::MAX);
        assert_eq!(section.end(), message.len());
        let (_, value) = section.iter(&message).last().unwrap();
        assert!(unfold(value).len() <= value.len());
        let mut end = HeaderEnd::new(usize::MAX);
        for stored in (0..=message.len()).step_by(100) {
            assert_eq!(end.update(&message[..stored]), None);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

proptest! {
    /// Names, values and what stands between them are the message up to the end.
    #[test]
    fn no_byte_is_lost(message in message(), limit in 0_usize..64) {
        let section = HeaderSection::parse(&message, limit);
        let parsed = &message[..section.end()];
        let mut position = 0;
        for field in &section.fields {
            let (name, value) = (&field.name, &field.value);
            if position > 0 {
                let between = &parsed[position..name.start as usize];
                prop_assert!(matches!(between, b"\r\n" | b"\n"));
            } else {
                prop_assert_eq!(name.start, 0);
            }
            let separator = &parsed[name.end as usize..value.start as usize];
            prop_assert!(separator.is_empty() || separator.trim_ascii_start() == b":");
            prop_assert_eq!(separator.is_empty(), name.is_empty());
            position = value.end as usize;
        }
        prop_assert!(parsed[position..].iter().all(|&byte| is_newline(byte)));
    }

    #[test]
    fn the_section_ends_where_the_body_begins(message in message(), limit in 0_usize..64) {
        let section = HeaderSection::parse(&message, limit);
        let seen = prefix(&message, limit);
        prop_assert_eq!(section.end(), body_offset(seen).unwrap_or(seen.len()));
    }

    #[test]
    fn any_bytes_are_parsed(message: Vec<u8>, limit: usize) {
        let section = HeaderSection::parse(&message, limit);
        prop_assert_eq!(section.iter(&message).count(), section.len());
    }

    #[test]
    fn unfolding_twice_is_unfolding_once(raw in message()) {
        let once = unfold(&raw).into_owned();
        prop_assert_eq!(&*unfold(&once), &*once);
    }

    /// However the message arrives, the end is found, and found as soon as it is there.
    #[test]
    fn the_end_is_found_at_every_split(message in message(), split: prop::sample::Index) {
        let mut bytewise = HeaderEnd::new(usize::MAX);
        for stored in 0..=message.len() {
            prop_assert_eq!(bytewise.update(&message[..stored]), body_offset(&message[..stored]));
        }
        let mut in_two = HeaderEnd::new(usize::MAX);
        in_two.update(&message[..split.index(message.len() + 1)]);
        prop_assert_eq!(in_two.update(&message), body_offset(&message));
    }
}

#[test]
fn a_field_is_one_line_with_a_name_and_no_controls() {
    assert_eq!(field("X-Score", "ü\t5"), Ok("X-Score: ü\t5\r\n".to_owned()));
    for (name, value) in [("", "x"), ("X:Y", "x"), ("X Y", "x"), ("X", "a\r\nY: b"), ("X", "\0")] {
        assert!(field(name, value).is_err(), "{name:?} {value:?}");
    }
    assert!(field("X", &"x".repeat(995)).is_ok());
    assert!(field("X", &"x".repeat(996)).is_err_and(|text| text.ends_with("not 999")));
}
