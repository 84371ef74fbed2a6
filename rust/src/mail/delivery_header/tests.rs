//! What the header says, and what a client cannot make it say.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;

const TRACE: Trace<'static> = Trace {
    helo: "client.example.org",
    remote: "192.0.2.1",
    remote_name: None,
    by: "mx.example.com",
    protocol: "ESMTP",
    id: "0abc-1",
    received_at: 1_795_405_574,
    cipher: None,
    tls_version: None,
};

fn text(trace: &Trace<'_>, delivered_to: Option<&str>) -> String {
    String::from_utf8(delivery_header(trace, delivered_to)).unwrap()
}

/// What stands between `Received: from ` and the `by` clause.
fn from_clause(helo: &str, remote: &str) -> String {
    let header = text(&Trace { helo, remote, ..TRACE }, None);
    let clause = header.strip_prefix("Received: from ").unwrap().split("\r\n\tby ").next();
    clause.unwrap().to_owned()
}

#[test]
fn says_who_sent_it_to_whom_and_when() {
    assert_eq!(
        text(&TRACE, Some("bob@example.com")),
        "Delivered-To: bob@example.com\r\n\
         Received: from client.example.org ([192.0.2.1])\r\n\
         \tby mx.example.com with ESMTP id 0abc-1;\r\n\
         \tMon, 23 Nov 2026 03:46:14 +0000\r\n"
    );
}

#[test]
fn names_no_recipient_unless_asked_to() {
    assert!(text(&TRACE, None).starts_with("Received: from client.example.org ([192.0.2.1])\r\n"));
}

#[test]
fn names_tls_in_a_comment() {
    let table = [
        (
            Some("TLSv1.3"),
            Some("TLS_AES_256_GCM_SHA384"),
            "(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)",
        ),
        (Some("TLSv1.2"), None, "(using TLSv1.2)"),
        (None, Some("X"), "(using TLS with cipher X)"),
    ];
    for (tls_version, cipher, comment) in table {
        let header = text(&Trace { protocol: "ESMTPS", tls_version, cipher, ..TRACE }, None);
        let expected =
            format!("([192.0.2.1])\r\n\t{comment}\r\n\tby mx.example.com with ESMTPS id ");
        assert!(header.contains(&expected), "{header}");
    }
}

#[test]
fn writes_the_client_by_name_and_address() {
    let table = [
        ("a.example", "2001:DB8::1", "a.example ([IPv6:2001:db8::1])"),
        ("a.example", "::ffff:192.0.2.1", "a.example ([192.0.2.1])"),
        ("a.example", "fe80::1%eth0", "a.example ([IPv6:fe80::1])"),
        ("a.example", "", "a.example (local)"),
        ("a.example", ") by evil (", "a.example (unknown)"),
        ("", "192.0.2.1", "unknown ([192.0.2.1])"),
        ("[192.0.2.9]", "192.0.2.1", "[192.0.2.9] ([192.0.2.1])"),
        ("[IPv6:2001:db8::9]", "192.0.2.1", "[IPv6:2001:db8::9] ([192.0.2.1])"),
        ("my_host", "192.0.2.1", "my_host ([192.0.2.1])"),
    ];
    for (helo, remote, expected) in table {
        assert_eq!(from_clause(helo, remote), expected);
    }
}

#[test]
fn a_client_can_write_nothing_but_its_name() {
    let table = [
        ("a\r\nX-Evil: 1", "a??X-Evil??1"),
        ("a (b)", "a??b?"),
        ("a;b,c\"d\\e<f>", "a?b?c?d?e?f?"),
        ("[1.2.3.4])\r\n]", "[1.2.3.4????]"),
        ("[", "?"),
        ("m\u{fc}nchen.example", "m?nchen.example"),
        ("a\0b", "a?b"),
    ];
    for (helo, expected) in table {
        assert_eq!(from_clause(helo, "192.0.2.1"), format!("{expected} ([192.0.2.1])"));
    }
    let long = "a".repeat(5_000);
    assert_eq!(from_clause(&long, "192.0.2.1"), format!("{} ([192.0.2.1])", "a".repeat(MAX_NAME)));
}

#[test]
fn a_recipient_cannot_break_the_line() {
    let table = [
        ("\"a b\"@example.com", "\"a b\"@example.com"),
        ("j\u{f6}rg@example.com", "j\u{f6}rg@example.com"),
        ("a\r\nX-Evil: 1\0@b", "a??X-Evil: 1?@b"),
        ("a\u{85}b\u{2028}c@d", "a?b?c@d"),
    ];
    for (recipient, expected) in table {
        assert!(
            text(&TRACE, Some(recipient))
                .starts_with(&format!("Delivered-To: {expected}\r\nReceived: "))
        );
    }
}

#[test]
fn writes_dates() {
    let table = [
        (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
        (951_782_399, "Mon, 28 Feb 2000 23:59:59 +0000"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
        (951_868_800, "Wed, 1 Mar 2000 00:00:00 +0000"),
        (1_795_405_574, "Mon, 23 Nov 2026 03:46:14 +0000"),
        (1_704_067_199, "Sun, 31 Dec 2023 23:59:59 +0000"),
        (1_735_603_200, "Tue, 31 Dec 2024 00:00:00 +0000"),
        (4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000"),
        (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 +0000"),
        (LAST_SECOND, "Fri, 31 Dec 9999 23:59:59 +0000"),
        (u64::MAX, "Fri, 31 Dec 9999 23:59:59 +0000"),
    ];
    for (seconds, expected) in table {
        assert_eq!(rfc5322_date(seconds), expected);
    }
}

/// Days counted one by one with the rule of the calendar give the same dates as the arithmetic.
#[test]
fn dates_agree_with_counting_days() {
    const LENGTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut days = 0;
    for year in 1970..10_000_u64 {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        for (month, length) in (1..).zip(LENGTHS) {
            let length = length + u64::from(leap && month == 2);
            for day in [1, length] {
                assert_eq!(civil_from_days(days + day - 1), (year, month, day));
            }
            days += length;
        }
    }
    assert_eq!(days, LAST_SECOND / SECONDS_A_DAY + 1);
}

proptest! {
    #[test]
    fn nothing_adds_a_line_or_a_comment(
        helo: String,
        remote: String,
        by: String,
        word: String,
        recipient: String,
    ) {
        let trace = Trace {
            helo: &helo,
            remote: &remote,
            by: &by,
            protocol: &word,
            id: &word,
            cipher: Some(&word),
            tls_version: Some(&word),
            ..TRACE
        };
        let header = text(&trace, Some(&recipient));
        let lines: Vec<&str> = header.split("\r\n").collect();
        prop_assert_eq!(lines.len(), 6);
        prop_assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])));
        prop_assert!(lines[0].starts_with("Delivered-To: "));
        prop_assert!(lines[1].starts_with("Received: from "));
        prop_assert!(lines[2..5].iter().all(|line| line.starts_with('\t')));
        prop_assert!(lines[5].is_empty());
        let received = lines[1..].concat();
        for (mark, count) in [('(', 2), (')', 2), (';', 1)] {
            prop_assert_eq!(received.matches(mark).count(), count);
        }
    }
}
