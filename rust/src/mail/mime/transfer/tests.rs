//! What comes out of an encoding, broken ones included, and never more than was asked for.

#![allow(clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const ALL: [Transfer; 4] =
    [Transfer::Identity, Transfer::Base64, Transfer::QuotedPrintable, Transfer::Uuencode];

fn decode(transfer: Transfer, body: &str) -> String {
    let (octets, is_cut) = transfer.decode(body.as_bytes(), usize::MAX);
    assert!(!is_cut);
    String::from_utf8_lossy(&octets).into_owned()
}

#[test]
fn decodes_base64() {
    let table = [
        ("", ""),
        ("QUJD", "ABC"),
        ("QUI=", "AB"),
        ("QQ==", "A"),
        ("QUJDRA", "ABCD"),
        ("QUJDR", "ABC"),
        ("QU\r\nJD\r\nRE\r\nVG", "ABCDEF"),
        ("Q U\tJ\nD", "ABC"),
        ("QUJD!RE#VG", "ABCDEF"),
        ("=QUJD", "ABC"),
        ("Q=UJD", "ABC"),
        ("QUI=\r\n\r\nA footer of a list", "AB"),
        ("QUJD\u{e9}REVG", "ABCDEF"),
        ("QQ=", "A"),
        ("\r\n", ""),
    ];
    for (body, expected) in table {
        assert_eq!(decode(Transfer::Base64, body), expected, "{body:?}");
    }
}

#[test]
fn decodes_quoted_printable() {
    let table = [
        ("", ""),
        ("A\r\nB\r\n", "A\r\nB\r\n"),
        ("A\nB", "A\nB"),
        ("caf=C3=A9 =c3=a9", "caf\u{e9} \u{e9}"),
        ("one=\r\ntwo=\nthree=", "onetwothree"),
        ("one= \t\r\ntwo", "onetwo"),
        ("blanks \t\r\nat the end ", "blanks\r\nat the end"),
        ("=20\r\n", " \r\n"),
        ("100= sure =ZZ =4", "100= sure =ZZ =4"),
        ("==3D=", "=="),
        ("\r\n\r\n", "\r\n\r\n"),
        ("a\rb", "a\rb"),
    ];
    for (body, expected) in table {
        assert_eq!(decode(Transfer::QuotedPrintable, body), expected, "{body:?}");
    }
}

#[test]
fn decodes_uuencode() {
    let table = [
        ("begin 644 a.txt\n#0V%T\n`\nend\n", "Cat"),
        ("text\r\nbegin 644 a\r\n#0V%T\r\n#0V%T\r\n`\r\nend\r\nmore", "CatCat"),
        ("begin 644 a\n#0V%T", "Cat"),
        ("begin 644 a\n#0V%", "Ca@"),
        ("begin 644 a\nM0V%T\n", "Cat"),
        ("no such line", "no such line"),
        ("begin 644 a", "begin 644 a"),
        ("begin 644 a\n", ""),
    ];
    for (body, expected) in table {
        assert_eq!(decode(Transfer::Uuencode, body), expected, "{body:?}");
    }
}

#[test]
fn makes_text() {
    let table: [(&[u8], Option<&str>, &str); 14] = [
        (b"caf\xc3\xa9", None, "caf\u{e9}"),
        (b"caf\xe9", None, "caf\u{e9}"),
        (b"caf\xc3\xa9", Some("us-ascii"), "caf\u{e9}"),
        (b"caf\xe9", Some("ascii"), "caf\u{e9}"),
        (b"caf\xe9", Some("utf-8"), "caf\u{fffd}"),
        (b"\xef\xbb\xbfa", Some("utf-8"), "a"),
        (b"caf\xe9\x80", Some("iso-8859-1"), "caf\u{e9}\u{20ac}"),
        (b"a\0b\0", Some("utf-16le"), "ab"),
        (b"\xfe\xff\0a", Some("utf-16"), "a"),
        (b"\x83\x65", Some("shift_jis"), "\u{30c6}"),
        (b"caf\xe9", Some("nobody knows"), "caf\u{e9}"),
        (b"caf\xe9", Some("odd"), "[odd]"),
        (b"a\r\n\0", None, "a\r\n\0"),
        (b"", Some("utf-8"), ""),
    ];
    let decode: Decode<'_> = &|label, _| (label == "odd").then(|| "[odd]".to_owned());
    for (octets, charset, expected) in table {
        assert_eq!(text(octets, charset, false, decode), expected, "{octets:?} {charset:?}");
    }
    assert_eq!(text(b"a\xc3", None, true, decode), "a");
    assert_eq!(text(b"a\xc3", None, false, decode), "a\u{c3}");
    assert_eq!(text(b"\xe9a\xc3", None, true, decode), "\u{e9}a\u{c3}");
}

#[test]
fn knows_what_it_asks_nobody_about() {
    for (charset, expected) in
        [(None, true), (Some("utf-8"), true), (Some("utf-7"), false), (Some("iso-2022-kr"), false)]
    {
        assert_eq!(is_known(charset), expected, "{charset:?}");
    }
}

fn encode(transfer: Transfer, octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = |octets: &[u8], digit: &dyn Fn(u32) -> char| -> String {
        let group = |group: &[u8]| {
            let [a, b, c] = std::array::from_fn(|at| group.get(at).copied().unwrap_or(0));
            let bits = u32::from_be_bytes([0, a, b, c]);
            [18, 12, 6, 0].map(|shift| digit(bits >> shift & 63))
        };
        octets.chunks(3).flat_map(group).collect()
    };
    let mut text = String::new();
    match transfer {
        Transfer::Identity => {}
        Transfer::Base64 => {
            for line in octets.chunks(57) {
                let digits = groups(line, &|value| char::from(DIGITS[value as usize]));
                let padding = [0, 2, 1][line.len() % 3];
                let whole = &digits[..digits.len() - padding];
                let _ = write!(text, "{whole}{}\r\n", &"=="[..padding]);
            }
        }
        Transfer::QuotedPrintable => {
            for octet in octets {
                let _ = write!(text, "={octet:02X}=\r\n");
            }
        }
        Transfer::Uuencode => {
            let digit = |value: u32| char::from_u32(value + 32).unwrap_or('?');
            text.push_str("begin 644 a\r\n");
            for line in octets.chunks(45) {
                let length = u32::try_from(line.len()).unwrap_or(0);
                let _ = write!(text, "{}{}\r\n", digit(length), groups(line, &digit));
            }
            text.push_str("`\r\nend\r\n");
        }
    }
    text
}

proptest! {
    #[test]
    fn gives_back_what_was_encoded(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        for transfer in &ALL[1..] {
            let (decoded, is_cut) = transfer.decode(encode(*transfer, &octets).as_bytes(), octets.len());
            prop_assert_eq!((&decoded, is_cut), (&octets, false), "{:?}", transfer);
        }
    }

    #[test]
    fn gives_no_more_than_is_asked_for(
        body in "(begin 6 a\n|[A-Za-z0-9+/]{4,9}|=[0-9A-F]{2}|=| |\r\n|\n|.){0,30}", limit in 0_usize..40,
    ) {
        for transfer in ALL {
            let (whole, is_cut) = transfer.decode(body.as_bytes(), usize::MAX);
            prop_assert!(!is_cut && whole.len() <= body.len());
            let (some, is_cut) = transfer.decode(body.as_bytes(), limit);
            prop_assert_eq!(&some[..], &whole[..limit.min(whole.len())]);
            prop_assert_eq!(is_cut, whole.len() > limit);
        }
    }
}

#[test]
fn takes_linear_time() {
    let bodies = ["=", "Q", "Q=", "=\n", "\n", " ", "=41", "begin ", "\nbegin 6 a", "\n`", "Q\n"];
    for piece in bodies {
        let body = piece.repeat((4 << 20) / piece.len());
        for transfer in ALL {
            let start = Instant::now();
            let (octets, _) = transfer.decode(body.as_bytes(), usize::MAX);
            assert!(octets.len() <= body.len());
            assert!(start.elapsed() < Duration::from_secs(5), "{piece:?} {transfer:?}");
            let (few, _) = transfer.decode(body.as_bytes(), 1_000);
            assert!(few.capacity() <= 2_000, "{piece:?} {transfer:?} {}", few.capacity());
        }
    }
}
