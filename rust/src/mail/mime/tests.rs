//! What the parts of a message are, broken ones included, and that bounds hold.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { depth: 16, parts: 1_000, header: 1 << 20, messages: false };

fn walk(message: &str) -> Structure {
    Structure::walk(message.as_bytes(), &BOUNDS)
}

/// Path, type and body of each leaf.
fn leaves(message: &str, bounds: &Bounds) -> Vec<String> {
    let structure = Structure::walk(message.as_bytes(), bounds);
    let leaves = structure.parts().iter().enumerate().filter(|(_, part)| part.is_leaf());
    let texts = leaves.map(|(index, part)| {
        let path: Vec<_> = structure.path(index).iter().map(ToString::to_string).collect();
        let mark = if matches!(part.kind, Kind::Opaque(_)) { "!" } else { "" };
        format!("{}{mark} {} {}", path.join("."), part.content_type, &message[part.body.clone()])
    });
    texts.collect()
}

/// Where the body of a [`multipart`] of the kind `mixed` begins.
const BODY: usize = "Content-Type: multipart/mixed; boundary=b\n\n".len();

/// A multipart of the type `multipart/KIND` with boundary `b`, whose body is `body`.
fn multipart(kind: &str, body: &str) -> String {
    format!("Content-Type: multipart/{kind}; boundary=b\n\n{body}")
}

#[test]
fn finds_parts() {
    let html = "Content-Type: text/html\n\n";
    let inner = "Content-Type: multipart/alternative; boundary=c\n\n--c\n\nA\n--c\n\nB\n--c--\n";
    let table: [(String, &[&str]); 10] = [
        (String::new(), &["1 text/plain "]),
        ("\nbody".into(), &["1 text/plain body"]),
        (format!("{html}A"), &["1 text/html A"]),
        (multipart("mixed", "--b\n\nA\n--b--\n"), &["1 text/plain A"]),
        (
            multipart("mixed", "pre\n--b\n\nA\n\n--b\n\nB\n--b--\nepi"),
            &["1 text/plain A\n", "2 text/plain B"],
        ),
        (
            multipart("mixed", "--b\r\n\r\nA\r\n--b\r\n\r\nB\r\n--b--\r\n"),
            &["1 text/plain A", "2 text/plain B"],
        ),
        (
            multipart("mixed", &format!("--b\n{inner}\n--b\n{html}C\n--b--\n")),
            &["1.1 text/plain A", "1.2 text/plain B", "2 text/html C"],
        ),
        (
            multipart("digest", "--b\n\nSubject: x\n\nA\n--b--"),
            &["1 message/rfc822 Subject: x\n\nA"],
        ),
        (
            multipart("mixed", "--b\nContent-Type: message/rfc822\n\nSubject: x\n\nA\n--b--"),
            &["1 message/rfc822 Subject: x\n\nA"],
        ),
        (multipart("mixed", "--b\n\n\0\r\0\n--b--"), &["1 text/plain \0\r\0"]),
    ];
    for (message, expected) in table {
        assert_eq!(leaves(&message, &BOUNDS), expected, "{message:?}");
    }
}

#[test]
fn reads_what_is_broken() {
    let table: [(String, &[&str]); 19] = [
        ("Content-Type: multipart/mixed\n\n--b\n\nA".into(), &["1 multipart/mixed --b\n\nA"]),
        (
            "Content-Type: multipart/mixed; boundary=\"\"\n\n--\n\nA\n".into(),
            &["1 multipart/mixed --\n\nA\n"],
        ),
        (multipart("mixed", "A\n"), &["1 multipart/mixed A\n"]),
        (multipart("mixed", "A\n--b--\n"), &["1 multipart/mixed A\n--b--\n"]),
        ("Content-Type: text\n\nA".into(), &["1 text/plain A"]),
        ("Content-Type: a/b/c\n\nA".into(), &["1 text/plain A"]),
        ("Content-Type: /\n\nA".into(), &["1 text/plain A"]),
        ("Content-Type: text/html\nContent-Type: text/plain\n\nA".into(), &["1 text/html A"]),
        (multipart("mixed", "--b\n\nA\n"), &["1 text/plain A\n"]),
        (multipart("mixed", "--b\n\nA\n--b"), &["1 text/plain A", "2 text/plain "]),
        (multipart("mixed", "--b \t\n\nA\n--b-- \n"), &["1 text/plain A"]),
        (
            multipart("mixed", "--b\n\nA\n--bc\n--b-\n-b\n--b--x\n--b--"),
            &["1 text/plain A\n--bc\n--b-\n-b\n--b--x"],
        ),
        (multipart("mixed", "--b\n\nA\n--b--\n--b\n\nB\n"), &["1 text/plain A"]),
        (multipart("mixed", "--b\n--b\nContent-Type: x/y\n--b--"), &["1 text/plain ", "2 x/y "]),
        (multipart("mixed", "--b\nno field\n\nA\n--b--"), &["1 text/plain no field\n\nA"]),
        (multipart("mixed", "--b\nContent-Type: x/y\nno field\n--b--"), &["1 x/y no field"]),
        (multipart("mixed", "--b\n blank\n--b--"), &["1 text/plain  blank"]),
        // The same boundary inside and outside.
        (
            multipart(
                "mixed",
                &format!("--b\n{}--b\n\nB\n--b--\n", multipart("x", "--b\n\nA\n--b--\n")),
            ),
            &["1.1 text/plain A", "2 text/plain B"],
        ),
        // The inner one is not closed.
        (
            multipart(
                "mixed",
                "--b\nContent-Type: multipart/x; boundary=c\n\n--c\n\nA\n--b\n\nB\n--b--\n",
            ),
            &["1.1 text/plain A", "2 text/plain B"],
        ),
    ];
    for (message, expected) in table {
        assert_eq!(leaves(&message, &BOUNDS), expected, "{message:?}");
    }
}

#[test]
fn reads_boundaries() {
    let table =
        ["b", "\"b\"", "b ", "\"b \"", "b; x=y", "\"b\";x", "(c) b", "b\n x=y", "\"\\\"b\""];
    for written in table {
        let boundary = if written.contains('\\') { "\"b" } else { "b" };
        let message = format!(
            "Content-Type: multipart/mixed; boundary={written}\n\n--{boundary}\n\nA\n--{boundary}--\n"
        );
        let expected: &[&str] = if written == "(c) b" { &[] } else { &["1 text/plain A"] };
        let found = leaves(&message, &BOUNDS);
        assert_eq!(found == expected, !expected.is_empty(), "{written}: {found:?}");
    }
}

#[test]
fn walks_into_messages_when_asked() {
    let bounds = Bounds { messages: true, ..BOUNDS };
    let attached = "--b\n\nA\n--b\nContent-Type: message/rfc822\n";
    let inner = "Subject: x\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nB\n--c\n\nC\n";
    let table: [(String, &[&str]); 6] = [
        (
            multipart("mixed", &format!("{attached}\nSubject: x\n\nB\n--b--")),
            &["1 text/plain A", "2.1 text/plain B"],
        ),
        (
            multipart("mixed", &format!("{attached}\n{inner}--b--")),
            &["1 text/plain A", "2.1 text/plain B", "2.2 text/plain C"],
        ),
        (
            multipart("mixed", &format!("{attached}\nFrom a@b Mon\n{inner}--b--")),
            &["1 text/plain A", "2.1 text/plain B", "2.2 text/plain C"],
        ),
        (
            multipart(
                "mixed",
                &format!("{attached}Content-Transfer-Encoding: base64\n\nQQ==\n--b--"),
            ),
            &["1 text/plain A", "2 message/rfc822 QQ=="],
        ),
        ("Content-Type: message/global\n\nSubject: x\n\nA".into(), &["1.1 text/plain A"]),
        (multipart("digest", "--b\n\nSubject: x\n\nA\n--b--"), &["1.1 text/plain A"]),
    ];
    for (message, expected) in table {
        assert_eq!(leaves(&message, &bounds), expected, "{message:?}");
    }
}

#[test]
fn leaves_what_is_beyond_a_bound() {
    let inner = "Content-Type: multipart/x; boundary=c\n\n--c\n\nA\n--c--";
    let message = multipart("mixed", &format!("--b\n{inner}\n--b\n\nB\n--b\n\nC\n--b--\n"));
    let table: [(usize, usize, &[&str], Option<Bound>); 6] = [
        (2, 5, &["1.1 text/plain A", "2 text/plain B", "3 text/plain C"], None),
        (
            1,
            5,
            &["1! multipart/x --c\n\nA\n--c--", "2 text/plain B", "3 text/plain C"],
            Some(Bound::Depth),
        ),
        (0, 5, &[&format!("1! multipart/mixed {}", &message[BODY..])], Some(Bound::Depth)),
        (
            2,
            4,
            &["1.1 text/plain A", "2 text/plain B", "3! application/octet-stream \nC\n--b--\n"],
            Some(Bound::Parts),
        ),
        (
            2,
            2,
            &["1.1! application/octet-stream \nA\n--c--\n--b\n\nB\n--b\n\nC\n--b--\n"],
            Some(Bound::Parts),
        ),
        (
            2,
            0,
            &[&format!("1! application/octet-stream {}", &message[BODY + 4..])],
            Some(Bound::Parts),
        ),
    ];
    for (depth, parts, expected, bound) in table {
        let bounds = Bounds { depth, parts, ..BOUNDS };
        assert_eq!(leaves(&message, &bounds), expected, "{depth} {parts}");
        assert_eq!(Structure::walk(message.as_bytes(), &bounds).truncated(), bound);
    }
}

#[test]
fn messages_count_as_levels_and_parts() {
    let message = "Content-Type: message/rfc822\n\nContent-Type: message/rfc822\n\nSubject: x\n\nA";
    let rest = "Content-Type: message/rfc822\n\nSubject: x\n\nA";
    let table: [(usize, usize, String); 5] = [
        (2, 3, "1.1.1 text/plain A".into()),
        (1, 3, "1.1! message/rfc822 Subject: x\n\nA".into()),
        (0, 3, format!("1! message/rfc822 {rest}")),
        (2, 2, "1.1! message/rfc822 Subject: x\n\nA".into()),
        (2, 1, format!("1! message/rfc822 {rest}")),
    ];
    for (depth, parts, expected) in table {
        let bounds = Bounds { depth, parts, messages: true, ..BOUNDS };
        assert_eq!(leaves(message, &bounds), [expected], "{depth} {parts}");
    }
}

#[test]
fn reads_so_much_of_a_header() {
    let message = multipart("mixed", "--b\nX: y\nContent-Type: x/y\n\nA\n--b--\n");
    let bounds = Bounds { header: 12, ..BOUNDS };
    assert_eq!(leaves(&message, &bounds), [format!("1 text/plain {}", &message[BODY..])]);
    let bounds = Bounds { header: BODY, ..BOUNDS };
    assert_eq!(leaves(&message, &bounds), ["1 x/y A"]);
}

#[test]
fn says_which_part_is_the_text() {
    let part = |fields: &str| format!("--b\n{fields}\n\nA\n");
    let (plain, html) = (part("Content-Type: text/plain"), part("Content-Type: text/html"));
    let named = part("Content-Type: text/plain; name=a.txt");
    let saved = part("Content-Disposition: attachment");
    let shown = part("Content-Disposition: inline; filename=a.txt");
    let unknown = part("Content-Disposition: other");
    let message = part("Content-Type: message/rfc822\n\nSubject: x");
    let table: [(String, Option<usize>, Option<usize>); 11] = [
        ("\nA".into(), Some(0), None),
        ("Content-Type: text/html\n\nA".into(), None, Some(0)),
        ("Content-Type: image/png\n\nA".into(), None, None),
        (multipart("alternative", &format!("{plain}{html}")), Some(1), Some(2)),
        (multipart("mixed", &format!("{named}{plain}{html}{html}")), Some(2), Some(3)),
        (multipart("mixed", &format!("{saved}{unknown}{shown}")), Some(3), None),
        (multipart("related", &format!("{html}{plain}")), None, Some(1)),
        (multipart("related", &format!("{plain}{html}")), Some(1), None),
        (multipart("mixed", &format!("{message}{plain}")), Some(2), None),
        (multipart("mixed", &message), None, None),
        (multipart("mixed", ""), None, None),
    ];
    for (message, text, html) in table {
        let structure = walk(&message);
        let body = |kind| structure.body(message.as_bytes(), 1 << 20, kind);
        assert_eq!((body("text/plain"), body("text/html")), (text, html), "{message:?}");
    }
    let message = "Content-Type: message/rfc822\n\nSubject: x\n\nA";
    let structure = Structure::walk(message.as_bytes(), &Bounds { messages: true, ..BOUNDS });
    assert_eq!(structure.body(message.as_bytes(), 1 << 20, "text/plain"), None);
}

#[test]
fn says_what_a_part_is() {
    let fields = |text: &str| {
        let message = format!("{text}\n\nA");
        let structure = walk(&message);
        let fields = structure.parts()[0].fields(message.as_bytes(), 1 << 20);
        let none: rfc2047::Decode<'_> = &|_, _| None;
        (fields.disposition(), fields.filename(none), fields.content_id(), fields.transfer())
    };
    let some = |text: &str| Some(text.to_owned());
    let table = [
        ("X: y", None, None, None, Transfer::Identity),
        ("Content-ID: <a@b>", None, None, some("a@b"), Transfer::Identity),
        ("Content-ID: a@b", None, None, some("a@b"), Transfer::Identity),
        ("Content-ID: <>", None, None, None, Transfer::Identity),
        (
            "Content-Disposition: INLINE; filename=a",
            some("inline"),
            some("a"),
            None,
            Transfer::Identity,
        ),
        ("Content-Disposition: ; filename=a", None, some("a"), None, Transfer::Identity),
        (
            "Content-Type: text/plain; name=a\nContent-Disposition: x; filename=",
            some("x"),
            some("a"),
            None,
            Transfer::Identity,
        ),
        (
            "Content-Type: text/plain; name=a\nContent-Disposition: x; filename=b",
            some("x"),
            some("b"),
            None,
            Transfer::Identity,
        ),
        ("Content-Transfer-Encoding: BASE64 (a comment)", None, None, None, Transfer::Base64),
        (
            "Content-Transfer-Encoding: quoted-printable",
            None,
            None,
            None,
            Transfer::QuotedPrintable,
        ),
        ("Content-Transfer-Encoding: x-uue", None, None, None, Transfer::Uuencode),
        ("Content-Transfer-Encoding: 8bit", None, None, None, Transfer::Identity),
    ];
    for (text, disposition, filename, id, transfer) in table {
        assert_eq!(fields(text), (disposition, filename, id, transfer), "{text}");
    }
}

/// Pieces of which random messages are full of delimiters.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "\n",
        "\r\n",
        "\r",
        "--",
        "--b",
        "--b\n",
        "--b--\n",
        "--c\n",
        "--c--",
        " ",
        "A",
        ":",
        "\0",
        "\u{e9}",
        "Content-Type: multipart/mixed; boundary=b\n\n",
        "Content-Type: multipart/related; boundary=c\n\n",
        "Content-Type: multipart/digest; boundary=b--\n\n",
        "Content-Type: message/rfc822\n\n",
        "Content-Type: text/html\n",
        "\n--b\nContent-Type: multipart/x; boundary=c\n\n--c\n",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..40)
        .prop_map(|pieces| pieces.concat().into_bytes())
}

/// Parts are in their parents, behind each other, and within the bounds.
fn check(message: &[u8], bounds: &Bounds) {
    let structure = Structure::walk(message, bounds);
    let parts = structure.parts();
    assert!((1..=bounds.parts.max(1) + 1).contains(&parts.len()));
    let mut ends = vec![0; parts.len()];
    let mut depths = vec![0; parts.len()];
    for (index, part) in parts.iter().enumerate() {
        assert!(part.header.start <= part.header.end && part.header.end <= part.body.start);
        assert!(part.body.start <= part.body.end && part.body.end <= message.len());
        match part.parent {
            None => assert_eq!((index, part.header.start), (0, 0)),
            Some(parent) => {
                let whole = &parts[parent];
                assert!(parent < index && !whole.is_leaf());
                assert!(whole.body.start.max(ends[parent]) <= part.header.start);
                assert!(part.body.end <= whole.body.end, "{parts:?}");
                ends[parent] = part.body.end;
                depths[index] = depths[parent] + 1;
            }
        }
        assert!(depths[index] <= bounds.depth);
    }
    let opaque = parts.iter().any(|part| matches!(part.kind, Kind::Opaque(_)));
    assert_eq!(structure.truncated().is_some(), opaque);
}

proptest! {
    #[test]
    fn parts_lie_within_each_other(
        message in message(), depth in 0_usize..4, parts in 0_usize..6, messages: bool,
    ) {
        check(&message, &Bounds { depth, parts, messages, ..BOUNDS });
        check(&message, &Bounds { messages, ..BOUNDS });
    }

    #[test]
    fn finds_what_was_put_together(
        bodies in prop::collection::vec("[a-z:\\n \\r\\x00-]{0,40}", 1..6), crlf: bool,
    ) {
        prop_assume!(bodies.iter().all(|body| !body.contains("--")));
        let end = if crlf { "\r\n" } else { "\n" };
        let mut message = format!("Content-Type: multipart/mixed; boundary=\"=_B\"{end}{end}");
        for body in &bodies {
            write!(message, "--=_B{end}X: y{end}{end}{body}{end}").unwrap();
        }
        write!(message, "--=_B--{end}").unwrap();
        let structure = walk(&message);
        let found = structure.parts()[1..].iter().map(|part| &message[part.body.clone()]);
        // A CR at the end of a body and the LF of the delimiter are a line end.
        let kept = bodies.iter().map(|body| if crlf { body } else { body.strip_suffix('\r').unwrap_or(body) });
        prop_assert_eq!(found.collect::<Vec<_>>(), kept.collect::<Vec<_>>());
    }
}

#[test]
fn takes_linear_time() {
    let mut nested = String::new();
    for level in 0..10_000 {
        write!(nested, "Content-Type: multipart/mixed; boundary=\"{level}\"\n\n--{level}\n")
            .unwrap();
    }
    let long = "x".repeat(1 << 20);
    let cases = [
        nested.clone(),
        nested.replace("multipart/mixed; boundary", "message/rfc822; b"),
        multipart("mixed", &"--b\n".repeat(1_000_000)),
        multipart("mixed", &"--\n".repeat(1_000_000)),
        multipart("mixed", &"\n--b-".repeat(1_000_000)),
        multipart("mixed", &"--b\nX: y\n".repeat(500_000)),
        multipart("mixed", &format!("--b\n{}", "X:\n".repeat(1_000_000))),
        format!(
            "Content-Type: multipart/mixed; boundary={long}\n\n--{long}\n\n{}",
            format!("--{long}y\n").repeat(3)
        ),
        format!("Content-Type: multipart/mixed;{}\n\n", "a=b;".repeat(250_000)),
        format!("Content-Type: multipart/mixed;{}\n\n", "a*1=b;".repeat(250_000)),
        format!("Content-Type: {}\n\n", "(".repeat(1 << 20)),
        format!("Content-Disposition: x; filename={}\n\n", "\"\\".repeat(1 << 19)),
    ];
    let wide = Bounds { depth: 100, parts: usize::MAX, header: usize::MAX, messages: true };
    for (number, message) in cases.iter().enumerate() {
        for bounds in [BOUNDS, wide] {
            let start = Instant::now();
            let structure = Structure::walk(message.as_bytes(), &bounds);
            let first = structure.parts()[0].fields(message.as_bytes(), usize::MAX);
            let _ = first.content_type().map(|it| it.parameters(&|_, _| None));
            let _ = first.filename(&|_, _| None);
            let _ = structure.body(message.as_bytes(), 1 << 20, "text/plain");
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "case {number}: {:?}",
                start.elapsed()
            );
            assert!(structure.parts().len() <= bounds.parts.saturating_add(1));
        }
    }
}
