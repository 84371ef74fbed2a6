//! Tables for entries and patterns; the matcher against a naive one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

use proptest::prelude::*;

use super::*;

fn list(entries: &[&str]) -> HostList {
    HostList::new(entries).unwrap()
}

fn takes(list: &HostList, host: &str) -> bool {
    list.contains(&Address::new("a", host))
}

#[test]
fn exact_names_match_in_any_case() {
    let list = list(&["Example.COM", " mx.example.org "]);
    for host in ["example.com", "EXAMPLE.com", "mx.example.org"] {
        assert!(takes(&list, host), "{host}");
    }
    for host in ["", "example.co", "a.example.com", "example.com.", "[127.0.0.1]", "127.0.0.1"] {
        assert!(!takes(&list, host), "{host}");
    }
}

#[test]
fn wildcards_take_no_literals() {
    let list = list(&["*.example.com", "mx?.test", "[ab].test"]);
    for host in ["a.example.com", "A.B.EXAMPLE.COM", "mx1.test", "MX2.test", "b.test"] {
        assert!(takes(&list, host), "{host}");
    }
    for host in ["example.com", "mx.test", "c.test", "ab.test", "a.example.comm"] {
        assert!(!takes(&list, host), "{host}");
    }
    let every_name = HostList::new(["*"]).unwrap();
    assert!(takes(&every_name, "a.b"));
    assert!(!takes(&every_name, "[127.0.0.1]"));
}

#[test]
fn either_form_of_a_name_matches_either() {
    for list in [
        list(&["Bücher.example", "*.例え.jp"]),
        list(&["xn--bcher-kva.example", "*.XN--r8jz45g.jp"]),
    ] {
        for host in [
            "bücher.example",
            "BÜCHER.EXAMPLE",
            "bu\u{308}cher.example",
            "XN--bcher-KVA.example",
            "a.例え.jp",
            "ä.例え.jp",
            "a.xn--r8jz45g.JP",
        ] {
            assert!(takes(&list, host), "{host}");
        }
        for host in ["bucher.example", "a.bücher.example", "例え.jp", "ü ü.example", "例.jp"]
        {
            assert!(!takes(&list, host), "{host}");
        }
    }
}

#[test]
fn literals_match_however_they_are_written() {
    let list = list(&["[127.0.0.1]", "[ipv6:2001:DB8:0::1]"]);
    for host in ["[127.0.0.1]", "[IPv6:2001:db8::1]", "[IPV6:2001:0db8:0:0:0:0:0:1]"] {
        assert!(takes(&list, host), "{host}");
    }
    for host in ["[127.0.0.2]", "127.0.0.1", "[IPv6:::1]", "[IPv6:::ffff:127.0.0.1]"] {
        assert!(!takes(&list, host), "{host}");
    }
}

#[test]
fn the_dot_takes_everything() {
    for list in [list(&["."]), HostList::any()] {
        for host in ["a.b", "[127.0.0.1]", "[IPv6:::1]", ""] {
            assert!(takes(&list, host), "{host}");
        }
    }
}

#[test]
fn an_empty_list_takes_nothing() {
    let list = list(&[]);
    assert!(!takes(&list, "a"));
    assert!(!list.contains(&Address::null()));
}

#[test]
fn a_host_longer_than_any_name_is_not_taken() {
    let list = list(&["*"]);
    assert!(takes(&list, &"a".repeat(255)));
    assert!(!takes(&list, &"a".repeat(256)));
}

#[test]
fn a_wrong_entry_is_named() {
    let table = [
        ("", "is not a host name"),
        ("a..b", "is not a host name"),
        ("example.com.", "is not a host name"),
        ("a b", "is not a host name"),
        ("a@b", "is not a host name"),
        ("::1", "is an address, which is written in brackets, as [IPv6:::1]"),
        ("[::1]", "is not an address literal as [127.0.0.1] or [IPv6:::1]"),
        ("[ab]", "is not an address literal as [127.0.0.1] or [IPv6:::1]"),
        ("*.[a", "has a [ without its ]"),
        ("bü cher.example", "is not a host name"),
        ("ü..example", "is not a host name"),
        ("bü*.example", "has a label that is not ASCII and has a wildcard, or that no host has"),
        ("*.-ü.example", "has a label that is not ASCII and has a wildcard, or that no host has"),
        (".", "takes every host, so it must be the only entry"),
    ];
    for (entry, problem) in table {
        let error = HostList::new(["good.example", entry]).unwrap_err();
        assert_eq!(error.entry(), entry);
        assert_eq!(error.to_string(), format!("{entry:?} {problem}"));
    }
}

#[test]
fn patterns() {
    let table = [
        ("", "", true),
        ("", "a", false),
        ("*", "", true),
        ("**", "abc", true),
        ("a*c", "abbc", true),
        ("a*c", "abcd", false),
        ("*a*b*", "xxaxxbxx", true),
        ("*ab", "aab", true),
        ("?", "", false),
        ("a?c", "aXc", true),
        ("[a-c]x", "Bx", true),
        ("[A-C]x", "bx", true),
        ("[a-c]x", "dx", false),
        ("[a-cx-z0]", "y", true),
        ("[!a-c]", "d", true),
        ("[^A-C]", "b", false),
        ("[!a]", "", false),
        ("[a-]", "-", true),
        ("[-a]", "-", true),
        ("[a!]", "!", true),
        ("[*?]", "x", false),
        ("[*?]", "*", true),
        ("]", "]", true),
        ("MX.*", "mx.example", true),
        ("*", "é", true),
        ("[!a]*", "é", true),
        ("[a]*", "é", false),
    ];
    for (pattern, host, expected) in table {
        let glob = Glob::new(pattern).unwrap();
        assert_eq!(glob.matches(host), expected, "{pattern:?} {host:?}");
    }
}

#[test]
fn wrong_patterns_are_refused() {
    for pattern in ["[", "a[", "[a", "[!", "[]", "[]a]", "[!]", "[^]", "[z-a]", "é*", "é b"] {
        assert!(Glob::new(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn many_stars_take_no_exponential_time() {
    let glob = Glob::new(&"*a".repeat(100)).unwrap();
    // Trying every place of every star would take longer than the universe has lasted.
    assert!(!glob.matches(&format!("{}b", "a".repeat(254))));
}

/// Matches by the definition; patterns without sets, in lower case.
fn naive(pattern: &[u8], host: &[u8]) -> bool {
    match (pattern, host) {
        ([], []) => true,
        ([b'*', after @ ..], _) => (0..=host.len()).any(|skip| naive(after, &host[skip..])),
        ([b'[', rest @ ..], [byte, left @ ..]) => {
            let end = rest.iter().position(|&byte| byte == b']').unwrap();
            let (inside, after) = (&rest[..end], &rest[end + 1..]);
            let found = match inside {
                [b'!', inside @ ..] => !inside.contains(byte),
                [low, b'-', high] => (low..=high).contains(&byte),
                inside => inside.contains(byte),
            };
            found && naive(after, left)
        }
        ([token, after @ ..], [byte, left @ ..]) => {
            (*token == b'?' || token == byte) && naive(after, left)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn matches_as_the_naive_matcher(
        pieces in prop::collection::vec(
            prop::sample::select(&["*", "?", "a", "b", ".", "[ab]", "[!a]", "[a-c]"][..]),
            0..8,
        ),
        host in "[abcA.]{0,10}",
    ) {
        let pattern = pieces.concat();
        let expected = naive(pattern.as_bytes(), host.to_ascii_lowercase().as_bytes());
        prop_assert_eq!(Glob::new(&pattern).unwrap().matches(&host), expected);
        prop_assert_eq!(Glob::new(&pattern.to_ascii_uppercase()).unwrap().matches(&host), expected);
    }

    #[test]
    fn no_text_makes_it_panic(pattern in any::<String>(), host in any::<String>()) {
        if let Ok(glob) = Glob::new(&pattern) {
            let _ = glob.matches(&host);
        }
        let _ = HostList::new([&pattern]).map(|list| takes(&list, &host));
    }
}
