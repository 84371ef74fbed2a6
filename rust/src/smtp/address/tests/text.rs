//! Addresses without brackets and as text, parameters, HELO.

use super::super::*;
use super::AddressError::{PathTooLong, Syntax};
use super::{address, domain_of};

#[test]
fn text_without_brackets() {
    let table = [
        ("", Ok(Address::null())),
        ("<>", Ok(Address::null())),
        ("a@b", Ok(address("a", "b"))),
        ("<a@b>", Ok(address("a", "b"))),
        ("Postmaster", Ok(address("Postmaster", ""))),
        ("<Postmaster>", Ok(address("Postmaster", ""))),
        (r#""<a b>"@c"#, Ok(address("<a b>", "c"))),
        ("a@[ipv6:0::1]", Ok(address("a", "[IPv6:::1]"))),
        ("a", Err(Syntax)),
        (" a@b", Err(Syntax)),
        ("a@b ", Err(Syntax)),
        ("a@b>", Err(Syntax)),
        ("<a@b", Err(Syntax)),
        ("<a@b> ", Err(Syntax)),
        ("@a:b@c", Err(Syntax)),
        ("a@b\n", Err(Syntax)),
        ("é@b", Ok(address("é", "b"))),
        ("a@例え.jp", Ok(address("a", "例え.jp"))),
        (r#""ü ü"@b"#, Ok(address("ü ü", "b"))),
        ("😀@bücher.example", Ok(address("😀", "bücher.example"))),
        ("a\u{85}@b", Err(Syntax)),
        ("a@b\u{2028}", Err(Syntax)),
        ("\"\\ü\"@b", Err(Syntax)),
        ("a@ü..b", Err(Syntax)),
    ];
    for (text, expected) in table {
        assert_eq!(Address::parse(text), expected, "{text:?}");
    }
    assert_eq!(Address::parse("<@a:b@c>").unwrap().route(), ["a"]);
    // 256 octets with the brackets that are not there.
    assert!(Address::parse(&format!("uu@{}", domain_of(251))).is_ok());
    assert_eq!(Address::parse(&format!("uuu@{}", domain_of(251))), Err(PathTooLong));
}

#[test]
fn display_quotes_only_where_needed() {
    let table = [
        ("a.b", "c", "a.b@c"),
        ("", "c", r#"""@c"#),
        ("a b", "c", r#""a b"@c"#),
        (".a", "c", r#"".a"@c"#),
        (r#"a"\b"#, "c", r#""a\"\\b"@c"#),
        ("a", "[IPv6:0:0::1]", "a@[IPv6:::1]"),
        ("", "", ""),
        ("postmaster", "", "postmaster"),
        ("jörg", "bücher.example", "jörg@bücher.example"),
        ("用户", "例え.jp", "用户@例え.jp"),
        ("ü ü", "b", r#""ü ü"@b"#),
    ];
    for (user, host, text) in table {
        assert_eq!(address(user, host).to_string(), text);
    }
}

#[test]
fn parameters_are_read_in_order() {
    let parameter = |keyword: &str, value: Option<&str>| Parameter {
        keyword: keyword.to_owned().into(),
        value: value.map(Into::into),
    };
    let table = [
        ("", vec![]),
        (" ", vec![]),
        (" SIZE=100", vec![parameter("SIZE", Some("100"))]),
        (
            " size=1 Body=8bitmime SMTPUTF8 ",
            vec![
                parameter("SIZE", Some("1")),
                parameter("BODY", Some("8bitmime")),
                parameter("SMTPUTF8", None),
            ],
        ),
        (" A=1  B", vec![parameter("A", Some("1")), parameter("B", None)]),
        (" AUTH=<> X-1=~!", vec![parameter("AUTH", Some("<>")), parameter("X-1", Some("~!"))]),
    ];
    for (rest, expected) in table {
        assert_eq!(parse_parameters(rest.as_bytes()), Ok(expected), "{rest:?}");
    }
}

#[test]
fn parameters_that_are_refused() {
    let wrong = [
        "SIZE=1", "x", " SIZE=", " =1", " =", " -A=1", " A_B=1", " A=1=2", " A\t", "\tA",
        " A=\x01", " A=1\r", " Ä=1", " A=ü", " A=\x7f", " A B!",
    ];
    for rest in wrong {
        assert_eq!(parse_parameters(rest.as_bytes()), Err(ParameterError::Syntax), "{rest:?}");
    }
    let repeated = Err(ParameterError::Repeated("SIZE".to_owned()));
    assert_eq!(parse_parameters(b" SIZE=1 BODY=7BIT size=2"), repeated);
}

#[test]
fn helo_takes_domains_and_addresses() {
    let (label, long) = ("a".repeat(63), domain_of(255));
    let good = [
        "localhost",
        "mx.example.com",
        "MX_1.example",
        "example.com.",
        "[127.0.0.1]",
        "[IPv6:::1]",
        "[ipv6:::1]",
        "127.0.0.1",
        "2001:db8::1",
        label.as_str(),
        long.as_str(),
    ];
    for text in good {
        assert_eq!(parse_helo(text.as_bytes()), Some(text));
    }
    assert_eq!(parse_helo(b"mx.example  "), Some("mx.example"));
    let (label, long) = ("a".repeat(64), domain_of(257));
    let wrong = [
        "",
        " ",
        ".",
        " mx",
        "a b",
        "a..b",
        ".a",
        "a..",
        "-a",
        "a-",
        "[",
        "[]",
        "[::1]",
        "[127.0.0.1",
        "[tag:x]",
        "[127.0.0.1].",
        "bücher.example",
        "a\0",
        "a\t",
        "a!",
        "<a>",
        label.as_str(),
        long.as_str(),
    ];
    for text in wrong {
        assert_eq!(parse_helo(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(parse_helo(b"\xff"), None);
}
