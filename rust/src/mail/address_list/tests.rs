//! Address lists as RFC 5322 has them, and as senders have them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Each mailbox as `display name|user|host`.
fn parse(value: &str) -> Vec<String> {
    let line = |mailbox: Mailbox| [mailbox.display_name, mailbox.user, mailbox.host].join("|");
    parse_address_list(value.as_bytes()).into_iter().map(line).collect()
}

fn check(table: &[(&str, &[&str])]) {
    for (value, expected) in table {
        assert_eq!(parse(value), *expected, "{value:?}");
    }
}

#[test]
fn reads_addresses_and_names() {
    check(&[
        ("", &[]),
        ("a@b.example", &["|a|b.example"]),
        (" a@b , c@d ", &["|a|b", "|c|d"]),
        ("<a@b>", &["|a|b"]),
        ("Ann <a@b>, Bob Bee <c@d>", &["Ann|a|b", "Bob Bee|c|d"]),
        ("\"Bee, Bob\" <c@d>", &["Bee, Bob|c|d"]),
        ("\"say \\\"hi\\\" \\\\o/\" <a@b>", &["say \"hi\" \\o/|a|b"]),
        ("John Q. Public <j@p>", &["John Q. Public|j|p"]),
        (
            "J\u{f6}rg <j\u{f6}rg@m\u{fc}nchen.example>",
            &["J\u{f6}rg|j\u{f6}rg|m\u{fc}nchen.example"],
        ),
        ("=?utf-8?Q?J=C3=B6rg?= <j@b>", &["=?utf-8?Q?J=C3=B6rg?=|j|b"]),
        ("a+tag=x@b", &["|a+tag=x|b"]),
        ("a@[192.0.2.1], b@[IPv6:2001:db8::1]", &["|a|[192.0.2.1]", "|b|[IPv6:2001:db8::1]"]),
        ("\"a b\"@c", &["|a b|c"]),
        ("\"\"@c", &["||c"]),
        ("Ann\r\n <a@b>,\r\n\tc@d", &["Ann|a|b", "|c|d"]),
    ]);
}

#[test]
fn flattens_groups() {
    check(&[
        ("undisclosed-recipients:;", &[]),
        ("Team: Ann <a@b>, c@d;", &["Ann|a|b", "|c|d"]),
        ("x@y, \"My Team\": a@b;, z@z", &["|x|y", "|a|b", "|z|z"]),
        ("Open: a@b, c@d", &["|a|b", "|c|d"]),
    ]);
}

#[test]
fn reads_comments_routes_and_obsolete_forms() {
    check(&[
        ("a@b (Ann)", &["|a|b"]),
        ("(x) a (y) @ (z) b (w)", &["|a|b"]),
        ("Ann (the (nested \\) one)) Bee <a@b>", &["Ann Bee|a|b"]),
        ("a . b @ c . d", &["|a.b|c.d"]),
        ("<@x,@y.z:a@b>", &["|a|b"]),
        ("Ann <@x:a@b>", &["Ann|a|b"]),
        (",, a@b ,,", &["|a|b"]),
        ("\"a\".b@c", &["|a.b|c"]),
    ]);
}

#[test]
fn reads_what_real_senders_write() {
    check(&[
        ("a@b; c@d", &["|a|b", "|c|d"]),
        ("Ann <a@b> Bob <c@d>", &["Ann|a|b", "Bob|c|d"]),
        ("a@b <a@b>", &["a@b|a|b"]),
        ("[list] Ann <a@b>, [My List] <c@d>", &["[list] Ann|a|b", "[My List]|c|d"]),
        ("Ann <a@b, Bob <c@d>", &["Ann|a|b", "Bob|c|d"]),
        ("Ann <a@b", &["Ann|a|b"]),
        ("a..b.@docomo.example", &["|a..b.|docomo.example"]),
        ("Ann \"Bee <a@b>, c@d", &["Ann Bee|a|b", "|c|d"]),
        ("Ann (Bee <a@b>, c@d", &["Ann Bee|a|b", "|c|d"]),
        ("Ann) <a@b>", &["Ann|a|b"]),
        ("\"\\\"\\\" <a@b>", &["|a|b"]),
        ("A\0nn\u{7f} <a@b>", &["A nn|a|b"]),
        ("\"A\0\r\n b\" <a@b>", &["A  b|a|b"]),
    ]);
}

#[test]
fn skips_what_is_no_address() {
    check(&[
        ("root", &[]),
        ("<>", &[]),
        ("<root>, a@b", &["|a|b"]),
        ("@b, a@, @, a@b", &["|a|b"]),
        ("a@b@c, d@e", &["|d|e"]),
        ("a b@c", &[]),
        ("a@b c", &[]),
        ("a@b..c, a@.b, a@b.", &[]),
        ("a@\"b\", a@[1.2, a@[x]y, [1.2.3.4]@b", &[]),
        ("a\"b\"@c", &[]),
        ("<@x,@y>, <@x:>", &[]),
    ]);
}

#[test]
fn reads_8_bit_names() {
    let mailboxes = parse_address_list(b"J\xf6rg <a@b>");
    assert_eq!(mailboxes.first().unwrap().display_name, "J\u{f6}rg");
}

#[test]
fn writes_addresses() {
    let table = [
        ("a.b", "a.b@h"),
        ("a b", "\"a b\"@h"),
        ("a\"\\", "\"a\\\"\\\\\"@h"),
        ("", "\"\"@h"),
        ("a..b", "\"a..b\"@h"),
    ];
    for (user, expected) in table {
        let mailbox = Mailbox { display_name: "x".into(), user: user.into(), host: "h".into() };
        assert_eq!(mailbox.to_string(), expected);
    }
}

/// Quadratic work on these would take minutes, recursion would overflow the stack.
#[test]
fn hostile_lists_take_linear_time() {
    let started = Instant::now();
    for piece in ["(", "\"\\", "\"", "[", "<", "<@", "a@b,", "a ", "a:", "@", "[a", "()", "(\""] {
        let value = piece.repeat(300_000);
        assert!(parse(&value).len() <= 300_000);
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

proptest! {
    #[test]
    fn any_bytes_are_parsed(value: Vec<u8>) {
        parse_address_list(&value);
    }

    #[test]
    fn no_part_has_controls(value in "[a\"\\\\()<>\\[\\]:;@,. \r\n\0\u{85}]{0,40}") {
        for mailbox in parse_address_list(value.as_bytes()) {
            let parts = [mailbox.display_name, mailbox.user, mailbox.host].concat();
            prop_assert!(!parts.contains(char::is_control));
        }
    }

    #[test]
    fn what_is_written_is_read(
        user in "\\PC{0,20}",
        host in "[a-z0-9-]{1,9}(\\.[a-z0-9-]{1,9}){0,3}|\\[IPv6:[0-9a-f:]{1,9}\\]",
    ) {
        let mailbox = Mailbox { display_name: String::new(), user, host };
        prop_assert_eq!(parse_address_list(mailbox.to_string().as_bytes()), [mailbox]);
    }
}
