//! Encoded words as RFC 2047 has them, and as senders have them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Decodes with a caller that knows one charset, which it shows by brackets.
fn words(value: impl AsRef<[u8]>) -> String {
    decode(value.as_ref(), &|charset, bytes| {
        (charset == "x-known").then(|| format!("[{}]", String::from_utf8_lossy(bytes)))
    })
}

fn check(table: &[(&str, &str)]) {
    for (value, expected) in table {
        assert_eq!(words(value), *expected, "{value:?}");
    }
}

#[test]
fn decodes_words() {
    check(&[
        ("plain text", "plain text"),
        ("", ""),
        ("=?utf-8?Q?J=C3=B6rg?=", "J\u{f6}rg"),
        ("=?UTF-8?q?J=c3=b6rg_a?=", "J\u{f6}rg a"),
        ("=?utf-8?B?SsO2cmc=?=", "J\u{f6}rg"),
        ("=?iso-8859-1?b?SvZyZw==?= <a@b>", "J\u{f6}rg <a@b>"),
        ("a =?utf-8?q?b?= c", "a b c"),
        ("=?utf-8?q??=", ""),
        ("=?utf-8?b??=", ""),
        ("=?utf-8?q?=3D=3F?=", "=?"),
        ("\"=?utf-8?q?b?=\" <a@b>", "\"b\" <a@b>"),
        ("=?utf-8*en?q?b?=", "b"),
        ("=?\"utf-8\"?q?b?=", "b"),
        ("=?us-ascii*de-CH?q?b?= =?us-ascii?q?c?=", "bc"),
    ]);
}

#[test]
fn drops_white_space_between_words_only() {
    check(&[
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?=  \t =?iso-8859-1?b?Yg==?=", "ab"),
        ("=?utf-8?q?a_?= =?utf-8?q?b?=", "a b"),
        ("=?utf-8?q?a?= x =?utf-8?q?b?=", "a x b"),
        ("x =?utf-8?q?a?= =?utf-8?q?b?= y", "x ab y"),
        ("=?utf-8?q?a?= =?bad", "a =?bad"),
        ("=?utf-8?q?a?= =?x-unknown?q?b?= =?utf-8?q?c?=", "a =?x-unknown?q?b?= c"),
        ("=?x-unknown?q?a?=  =?x-unknown?q?b?=", "=?x-unknown?q?a?=  =?x-unknown?q?b?="),
    ]);
}

#[test]
fn joins_characters_that_were_cut() {
    check(&[
        ("=?utf-8?b?4pg=?= =?utf-8?b?gw==?=", "\u{2603}"),
        ("=?utf-8?q?=e2=98?= =?UTF-8?Q?=83?=", "\u{2603}"),
        ("=?utf-8?q?=e2=98?= =?UTF-8?b?gw==?=", "\u{2603}"),
        ("=?utf-8?q?=e2=98?= x =?UTF-8?Q?=83?=", "\u{fffd} x \u{fffd}"),
        ("=?gb2312?b?1g==?= =?gb2312?b?0A==?=", "\u{4e2d}"),
    ]);
}

#[test]
fn shift_sequences_hold_until_they_are_undone() {
    let japanese = "\u{65e5}\u{672c}";
    // Each word shifts back at its end; joined, the shifts between them would count as an error.
    assert_eq!(words("=?iso-2022-jp?b?GyRCRnwbKEI=?= =?ISO-2022-JP?b?GyRCS1wbKEI=?="), japanese);
    // No word shifts back; the second shifts again all the same.
    assert_eq!(words("=?iso-2022-jp?b?GyRCRnw=?= =?iso-2022-jp?b?GyRCS1w=?="), japanese);
    // A character is cut in two: only joined are they valid.
    assert_eq!(words("=?iso-2022-jp?b?GyRCRg==?= =?iso-2022-jp?b?fEtcGyhC?="), japanese);
    // The first does not shift back and the second does not shift: alone it would be ASCII.
    assert_eq!(words("=?iso-2022-jp?b?GyRCRnw=?= =?iso-2022-jp?b?S1wbKEI=?="), japanese);
}

#[test]
fn decodes_what_real_senders_write() {
    check(&[
        ("a=?utf-8?q?b?=c", "abc"),
        ("=?utf-8?q?a?==?utf-8?q?b?=", "ab"),
        ("=?utf-8?Q?hello world, (you)?=", "hello world, (you)"),
        ("=?utf-8?Q?what??=", "what?"),
        ("=?utf-8?Q?=ZZ=4?=", "=ZZ=4"),
        ("=?utf-8?Q?a=?=", "a="),
        ("=?utf-8?B?SsO2cmc?=", "J\u{f6}rg"),
        ("=?utf-8?B?SsO2 c\tmc=?=", "J\u{f6}rg"),
        ("=?utf-8?B?YQ==Yg===?=", "ab"),
        ("=?utf-8?Q?open =?utf-8?Q?closed?=", "=?utf-8?Q?open closed"),
        ("=?cp1252?Q?=80?=", "\u{20ac}"),
        ("=?us-ascii?Q?=E9?=", "\u{e9}"),
        ("=?utf-8?Q?\u{f6}?=", "\u{f6}"),
        ("=?utf-8?B?77u/YQ==?=", "a"),
        ("=?utf-16?B?/v8AYQ==?=", "a"),
        ("=?utf-16?B?//5hAA==?=", "a"),
        ("=?utf-16be?B?AGE=?=", "a"),
    ]);
}

#[test]
fn a_bad_word_stays_as_it_was_sent() {
    check(&[
        ("=?utf-8?X?abc?=", "=?utf-8?X?abc?="),
        ("=?utf-8?QQ?abc?=", "=?utf-8?QQ?abc?="),
        ("=?utf-8??abc?=", "=?utf-8??abc?="),
        ("=??Q?abc?=", "=??Q?abc?="),
        ("=?*en?Q?abc?=", "=?*en?Q?abc?="),
        ("=?ut f?Q?abc?=", "=?ut f?Q?abc?="),
        ("=?utf-8?Q?abc", "=?utf-8?Q?abc"),
        ("=?utf-8?Q", "=?utf-8?Q"),
        ("=?utf-8", "=?utf-8"),
        ("=?", "=?"),
        ("=?=", "=?="),
        ("=?utf-8?B?a!bc?= =?utf-8?q?b?=", "=?utf-8?B?a!bc?= b"),
        ("=?utf-8?B?YWJjZ?=", "=?utf-8?B?YWJjZ?="),
        ("=?utf-8?B?a-_b?=", "=?utf-8?B?a-_b?="),
        ("=?x-unknown?B?YWJj?=", "=?x-unknown?B?YWJj?="),
        ("=?iso-2022-kr?B?YWJj?=", "=?iso-2022-kr?B?YWJj?="),
    ]);
}

#[test]
fn asks_for_charsets_it_does_not_know() {
    check(&[
        ("=?X-Known?Q?abc?=", "[abc]"),
        ("=?x-known?Q?a?= =?x-KNOWN?Q?b?= =?utf-8?q?c?=", "[ab]c"),
    ]);
    // UTF-7 is asked for word by word, together only if one of them is wrong alone; of a charset
    // that must shift back it is the other way round.
    let asked =
        |value: &str| decode(value.as_bytes(), &|_, bytes| Some(format!("<{}>", to_text(bytes))));
    assert_eq!(asked("=?utf-7?q?a?= =?utf-7?q?b?="), "<a><b>");
    assert_eq!(asked("=?utf-7?q?a=EF=BF=BD?= =?utf-7?q?b?="), "<a\u{fffd}b>");
    assert_eq!(asked("=?iso-2022-kr?q?a?= =?iso-2022-kr?q?b?="), "<ab>");
}

#[test]
fn wrong_bytes_are_replaced() {
    check(&[
        ("=?utf-8?Q?a=FFb?=", "a\u{fffd}b"),
        ("=?utf-8?Q?=C3?= x", "\u{fffd} x"),
        ("=?shift_jis?Q?=81?=", "\u{fffd}"),
    ]);
}

#[test]
fn a_decoded_value_is_one_line() {
    check(&[
        ("=?utf-8?Q?a=0D=0ABcc:_b=00?=", "a  Bcc: b "),
        ("=?utf-8?B?DQo=?=x", "  x"),
        ("a\r\nb\0", "a  b "),
        ("=?utf-16be?B?AGEADQAK?=", "a  "),
        ("=?x-known?Q?=0A?=", "[ ]"),
    ]);
}

#[test]
fn bare_8_bit_text_is_text() {
    assert_eq!(words(b"J\xf6rg"), "J\u{f6}rg");
    assert_eq!(words(b"J\xf6rg =?utf-8?q?=C3=B6?= J\xc3\xb6rg"), "J\u{f6}rg \u{f6} J\u{f6}rg");
}

#[test]
fn knows_the_charsets_of_mail() {
    check(&[
        ("=?gb18030?B?1tA=?=", "\u{4e2d}"),
        ("=?gbk?B?1tA=?=", "\u{4e2d}"),
        ("=?big5?B?pKQ=?=", "\u{4e2d}"),
        ("=?euc-jp?B?xvw=?=", "\u{65e5}"),
        ("=?shift_jis?B?k/o=?=", "\u{65e5}"),
        ("=?euc-kr?B?x9E=?=", "\u{d55c}"),
        ("=?ks_c_5601-1987?B?x9E=?=", "\u{d55c}"),
        ("=?koi8-r?B?xA==?=", "\u{434}"),
        ("=?windows-1251?B?5A==?=", "\u{434}"),
        ("=?iso-8859-15?B?pA==?=", "\u{20ac}"),
    ]);
}

/// Quadratic work on these would take minutes.
#[test]
fn hostile_values_take_linear_time() {
    let started = Instant::now();
    let closing = b" ?=";
    for piece in [
        "=?",
        "=?a",
        "=?a?",
        "=?a?q?x",
        "=?a?b?!",
        "=?utf-8?q?a?= ",
        "=?utf-8?b?!?= ",
        "=?x?q?a?= ",
        "?=",
    ] {
        let value = [&piece.as_bytes().repeat(200_000)[..], closing].concat();
        assert!(words(&value).len() <= value.len());
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Pieces of which random values are full of words, whole and broken.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"=?",
        b"?=",
        b"?",
        b"=",
        b"utf-8",
        b"iso-2022-jp",
        b"x-known",
        b"?q?",
        b"?B?",
        b"=?utf-8?q?",
        b"=?utf-16?b?",
        b"=0D=0A=00",
        b"DQoA",
        b"\x1b$B",
        b" ",
        b"\r\n",
        b"\0",
        b"\xe9",
        b"_a",
    ];
    prop::collection::vec(prop::sample::select(pieces), 0..24).prop_map(|pieces| pieces.concat())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = bytes.iter().map(|byte| format!("{byte:08b}")).collect::<Vec<_>>().concat();
    let digit = |bits: &[u8]| {
        let bits = std::str::from_utf8(bits).unwrap();
        char::from(*DIGITS.get(usize::from_str_radix(&format!("{bits:0<6}"), 2).unwrap()).unwrap())
    };
    bits.as_bytes().chunks(6).map(digit).collect()
}

proptest! {
    #[test]
    fn no_value_gives_a_second_line(value in value()) {
        prop_assert!(!words(&value).contains(['\r', '\n', '\0']));
    }

    #[test]
    fn any_bytes_are_decoded(value: Vec<u8>) {
        prop_assert!(!words(&value).contains(['\r', '\n', '\0']));
    }

    #[test]
    fn what_is_encoded_is_decoded(
        text in "[^\r\n\0\u{feff}]*",
        splits in prop::collection::vec(1_usize..20, 0..8),
    ) {
        let (mut words_q, mut words_b) = (Vec::new(), Vec::new());
        let mut rest = text.as_bytes();
        for length in splits.into_iter().chain([usize::MAX]) {
            let (word, tail) = rest.split_at(length.min(rest.len()));
            let hex = word.iter().map(|byte| format!("={byte:02X}")).collect::<Vec<_>>().concat();
            words_q.push(format!("=?utf-8?Q?{hex}?="));
            words_b.push(format!("=?utf-8?B?{}?=", base64(word)));
            rest = tail;
        }
        prop_assert_eq!(words(words_q.join(" ")), text.as_str());
        prop_assert_eq!(words(words_b.join(" ")), text.as_str());
    }
}
