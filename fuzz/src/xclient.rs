//! XCLIENT: what is taken is printable and bounded, so that it can go into logs and header fields, and is read
//! again as the same once it is written, in any order.

use std::fmt::Write as _;

use guerrilla::smtp::{Said, XClient};

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(said) = XClient::parse(input) else { return };
    for text in [&said.name, &said.helo, &said.login] {
        if let Said::Value(text) = text {
            assert!(!text.is_empty() && text.len() <= 255, "{} octets", text.len());
            assert!(text.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{text:?}");
        }
    }
    for ip in [&said.addr, &said.dest_addr] {
        if let Said::Value(ip) = ip {
            assert_eq!(ip.to_canonical(), *ip);
        }
    }
    let mut words = written(&said);
    assert_eq!(XClient::parse(words.join(" ").as_bytes()).as_ref(), Some(&said), "{words:?}");
    words.reverse();
    assert_eq!(XClient::parse(words.join("  ").as_bytes()).as_ref(), Some(&said), "{words:?}");
    words.extend(words.first().cloned());
    assert_eq!(XClient::parse(words.join(" ").as_bytes()), None, "{words:?}");
}

fn written(said: &XClient) -> Vec<String> {
    let mut words = Vec::new();
    let mut write = |name: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("{name}={value}")));
    };
    write("NAME", value(&said.name, Clone::clone));
    write("ADDR", value(&said.addr, ip));
    write("PORT", value(&said.port, ToString::to_string));
    let protocol = |&esmtp: &bool| if esmtp { "ESMTP" } else { "SMTP" }.to_owned();
    write("PROTO", value(&said.esmtp, protocol));
    write("HELO", value(&said.helo, Clone::clone));
    write("LOGIN", value(&said.login, Clone::clone));
    write("DESTADDR", value(&said.dest_addr, ip));
    write("DESTPORT", value(&said.dest_port, ToString::to_string));
    words
}

fn value<T>(said: &Said<T>, text: impl Fn(&T) -> String) -> Option<String> {
    match said {
        Said::Nothing => None,
        Said::Unavailable => Some("[UNAVAILABLE]".to_owned()),
        Said::Value(value) => Some(xtext(&text(value))),
    }
}

fn ip(ip: &std::net::IpAddr) -> String {
    if ip.is_ipv6() { format!("IPV6:{ip}") } else { ip.to_string() }
}

/// Every octet that may not be itself, and some that may (RFC 3461 §4).
fn xtext(text: &str) -> String {
    let mut out = String::new();
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b".-:".contains(&octet) {
            out.push(char::from(octet));
        } else {
            write!(out, "+{octet:02X}").expect("a String takes it");
        }
    }
    out
}
