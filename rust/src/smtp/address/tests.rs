//! Tables for each rule of the grammar.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::net::IpAddr;

use super::AddressError::{DomainTooLong, LocalPartTooLong, NonAscii, PathTooLong, Syntax};
use super::PathKind::{Forward, Reverse};
use super::*;

mod properties;
mod text;

type Outcome = Result<(Address, String), AddressError>;

fn path(input: impl AsRef<[u8]>, kind: PathKind) -> Outcome {
    parse_path(input.as_ref(), kind)
        .map(|(address, rest)| (address, String::from_utf8_lossy(rest).into_owned()))
}

fn address(user: &str, host: &str) -> Address {
    Address::new(user, host)
}

#[test]
fn paths_of_both_kinds() {
    let table = [
        ("<a@example.com>", "a", "example.com", ""),
        (" <a@example.com>", "a", "example.com", ""),
        ("<A.b+c@EXAMPLE.com> SIZE=1", "A.b+c", "EXAMPLE.com", " SIZE=1"),
        ("<a@b> AUTH=<>", "a", "b", " AUTH=<>"),
        ("<a@b>x", "a", "b", "x"),
        ("<!#$%&'*+-/=?^_`{|}~@b>", "!#$%&'*+-/=?^_`{|}~", "b", ""),
        ("<a@mail_1.my-host.3com.net>", "a", "mail_1.my-host.3com.net", ""),
        ("<a@127.0.0.1>", "a", "127.0.0.1", ""),
        (r#"<"joe"@b>"#, "joe", "b", ""),
        (r#"<""@b>"#, "", "b", ""),
        (r#"<"a b"@b>"#, "a b", "b", ""),
        (r#"<"a..b."@b>"#, "a..b.", "b", ""),
        (r#"<"a>@<b"@c>"#, "a>@<b", "c", ""),
        (r#"<"\"\\\a\ "@b>"#, r#""\a "#, "b", ""),
        ("<postmaster@b>", "postmaster", "b", ""),
    ];
    for (input, user, host, rest) in table {
        for kind in [Reverse, Forward] {
            let expected = Ok((address(user, host), rest.to_owned()));
            assert_eq!(path(input, kind), expected, "{input}");
        }
    }
}

#[test]
fn address_literals_are_normalised() {
    let table = [
        ("<a@[127.0.0.1]>", "[127.0.0.1]", "127.0.0.1"),
        ("<a@[IPv6:2001:DB8:0:0::1]>", "[IPv6:2001:db8::1]", "2001:db8::1"),
        ("<a@[ipV6:::1]>", "[IPv6:::1]", "::1"),
        ("<a@[IPv6:::ffff:1.2.3.4]>", "[IPv6:::ffff:1.2.3.4]", "::ffff:1.2.3.4"),
    ];
    for (input, host, ip) in table {
        let (parsed, rest) = path(input, Forward).unwrap();
        assert_eq!((parsed.host(), rest.as_str()), (host, ""), "{input}");
        assert_eq!(parsed.ip(), Some(ip.parse::<IpAddr>().unwrap()), "{input}");
        assert_eq!(parsed, address("a", host), "{input}");
    }
    assert_eq!(path("<a@127.0.0.1>", Forward).unwrap().0.ip(), None);
}

#[test]
fn source_routes_are_kept() {
    let (parsed, rest) = path("<@a,@b.example:user@host> X", Forward).unwrap();
    assert_eq!(parsed.route(), ["a", "b.example"]);
    assert_eq!((parsed.to_string().as_str(), rest.as_str()), ("user@host", " X"));
    assert_eq!(path("<@a:user@host>", Reverse).unwrap().0.route(), ["a"]);
}

#[test]
fn null_and_postmaster_belong_to_one_command_each() {
    assert_eq!(path("<> X", Reverse), Ok((Address::null(), " X".to_owned())));
    assert_eq!(path(" <>", Reverse), Ok((Address::null(), String::new())));
    assert_eq!(path("<>", Forward), Err(Syntax));
    for name in ["Postmaster", "postmaster", "POSTMASTER"] {
        let (parsed, _) = path(format!("<{name}>"), Forward).unwrap();
        assert!(parsed.is_postmaster() && !parsed.is_null());
        assert_eq!(parsed.to_string(), name);
        let filled = parsed.with_host("mx.example");
        assert_eq!(filled.to_string(), format!("{name}@mx.example"));
        assert!(!filled.is_postmaster());
        assert_eq!(path(format!("<{name}>"), Reverse), Err(Syntax));
    }
}

#[test]
fn what_does_not_follow_the_grammar() {
    let table = [
        "",
        " ",
        "<",
        "a@b",
        "a@b>",
        "<a@b",
        "  <a@b>",
        "\t<a@b>",
        "x<a@b>",
        "<<a@b>>",
        "< a@b>",
        "<a@b >",
        "<a @b>",
        "<a@ b>",
        "<a>",
        "<@b>",
        "<a@>",
        "<@>",
        "<a@b@c>",
        "<a b@c>",
        // Local parts.
        "<.a@b>",
        "<a.@b>",
        "<a..b@c>",
        "<.@b>",
        "<a(b)@c>",
        "<a,b@c>",
        "<a:b@c>",
        "<a;b@c>",
        "<a[b@c>",
        "<a]b@c>",
        r#"<"a@b>"#,
        r#"<a"b"@c>"#,
        r#"<"a"b@c>"#,
        r#"<"a"."b"@c>"#,
        r#"<"a\"@b>"#,
        r#"<"a"b"@c>"#,
        r"<a\b@c>",
        r#"<"a\"#,
        "<\"a\x01\"@b>",
        "<\"a\\\x7f\"@b>",
        "<a\0@b>",
        "<a\r\n@b>",
        "<\x7f@b>",
        // Domains.
        "<a@b.>",
        "<a@.b>",
        "<a@b..c>",
        "<a@.>",
        "<a@-b>",
        "<a@b->",
        "<a@b-.c>",
        "<a@b.-c>",
        "<a@b!c>",
        "<a@b\0>",
        "<a@b,c>",
        // Literals.
        "<a@[]>",
        "<a@[1.2.3]>",
        "<a@[1.2.3.256]>",
        "<a@[1.2.3.4>",
        "<a@[1.2.3.4]x>",
        "<a@1.2.3.4]>",
        "<a@[::1]>",
        "<a@[IPv6:]>",
        "<a@[IPv6:1.2.3.4]>",
        "<a@[IPv6:fe80::1%eth0]>",
        "<a@[IPv6:g::]>",
        "<a@[tag:content]>",
        "<a@[ 1.2.3.4]>",
        "<a@[01.2.3.4]>",
        // Routes.
        "<@a user@b>",
        "<@a,b:user@c>",
        "<@a,user@b>",
        "<@a,:user@b>",
        "<@a,@:user@b>",
        "<@a:>",
        "<@:user@b>",
        "<@a:@b:user@c>",
        "<@[1.2.3.4]:user@b>",
        "<@a:postmaster>",
        "<postmaster@>",
        "<Postmaster",
        "<postmasters>",
    ];
    for input in table {
        for kind in [Reverse, Forward] {
            assert_eq!(path(input, kind), Err(Syntax), "{input:?} as {kind:?}");
        }
    }
}

#[test]
fn labels_have_at_most_63_octets() {
    let label = "a".repeat(63);
    assert!(path(format!("<a@{label}.{label}>"), Forward).is_ok());
    assert_eq!(path(format!("<a@b.{label}a>"), Forward), Err(Syntax));
}

/// A domain of that many octets, an odd number, in labels of one.
fn domain_of(length: usize) -> String {
    assert!(length % 2 == 1);
    vec!["d"; length.div_ceil(2)].join(".")
}

#[test]
fn limits_are_exact() {
    let user = |length| "u".repeat(length);
    assert!(path(format!("<{}@b>", user(128)), Forward).is_ok());
    assert_eq!(path(format!("<{}@b>", user(129)), Forward), Err(LocalPartTooLong));
    // Counted without quotes and backslashes.
    assert!(path(format!("<\"{}\"@b>", r"\a".repeat(120)), Forward).is_ok());
    assert!(path(format!("<\"{}\"@b>", user(128)), Forward).is_ok());
    assert_eq!(path(format!("<\"{}\"@b>", user(129)), Forward), Err(LocalPartTooLong));

    let path_of = |length: usize| format!("<{}@{}>", user(length - 203), domain_of(199) + "d");
    assert!(path(path_of(256) + " SIZE=100", Forward).is_ok());
    assert!(path(format!(" {}", path_of(256)), Forward).is_ok());
    assert_eq!(path(path_of(257), Forward), Err(PathTooLong));
    assert_eq!(path(format!("<u@{}>", domain_of(255)), Forward), Err(PathTooLong));
    assert_eq!(path(format!("<u@{}>", domain_of(257)), Forward), Err(DomainTooLong));
    assert_eq!(path(format!("<u@{}>", "d".repeat(256)), Forward), Err(DomainTooLong));
    // The route counts for the path.
    assert!(path(format!("<@{}:u@b.c>", domain_of(247)), Forward).is_ok());
    assert_eq!(path(format!("<@{}:u@b.cd>", domain_of(247)), Forward), Err(PathTooLong));
    // The local part goes before the domain, the domain before the path.
    let all = format!("<{}@{}>", user(129), domain_of(301));
    assert_eq!(path(all, Forward), Err(LocalPartTooLong));
    let two = format!("<{}@{}>", user(128), domain_of(199));
    assert_eq!(path(two, Forward), Err(PathTooLong));
}

#[test]
fn an_octet_over_127_in_the_path_goes_before_all_else() {
    let long = "u".repeat(200);
    let table = [
        "<ü@b>".to_owned(),
        "<a@bücher.example>".into(),
        "<\"ü\"@b>".into(),
        "<\"\\ü\"@b>".into(),
        "<@ü:a@b>".into(),
        format!("<{long}@ü>"),
        "<a..b@ü>".into(),
        "<\">\"ü@b>".into(),
        "<\"\\\">\"ü@b>".into(),
        "<ü".into(),
        "<a@[ü]>".into(),
    ];
    for input in table {
        assert_eq!(path(&input, Forward), Err(NonAscii), "{input}");
    }
    assert_eq!(path(b"<\xff@b>", Reverse), Err(NonAscii));
    // Not in the path.
    assert_eq!(path("<a..b@c> X=ü", Reverse), Err(Syntax));
    assert_eq!(path("ü", Reverse), Err(Syntax));
    assert_eq!(path("<a@b> X=ü", Reverse).unwrap().1, " X=ü");
}
