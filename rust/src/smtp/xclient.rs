//! XCLIENT: what a proxy says of the client it speaks for (Postfix's `XCLIENT_README`).
//!
//! `XCLIENT NAME=mail.example.org ADDR=192.0.2.1 HELO=[UNAVAILABLE]`: attributes in any order and case,
//! values in xtext (RFC 3461 §4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;

use super::address::{MAX_DOMAIN, is_domain};
use super::xtext;

/// The attributes that are taken, as EHLO names them.
pub(super) const ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

/// Octets of a user's name that LOGIN may give.
const MAX_LOGIN: usize = 255;

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Said<T> {
    /// It was not given: what was known before stays.
    #[default]
    Nothing,
    /// `[UNAVAILABLE]` or `[TEMPUNAVAIL]`: the proxy does not know it either.
    Unavailable,
    /// Its value.
    Value(T),
}

/// Everything one XCLIENT command says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct XClient {
    /// NAME: the client's host name, by its reverse DNS.
    pub name: Said<String>,
    /// ADDR.
    pub addr: Said<IpAddr>,
    /// PORT.
    pub port: Said<u16>,
    /// PROTO: whether the client speaks ESMTP.
    pub esmtp: Said<bool>,
    /// HELO: what the client called itself.
    pub helo: Said<String>,
    /// LOGIN: whom the proxy has authenticated.
    pub login: Said<String>,
    /// DESTADDR: where the client connected to.
    pub dest_addr: Said<IpAddr>,
    /// DESTPORT.
    pub dest_port: Said<u16>,
}

impl XClient {
    /// Parses what stands behind the verb; `None` for anything but attributes that are known, each
    /// once, with a value it can have.
    pub fn parse(argument: &[u8]) -> Option<Self> {
        let mut said = Self::default();
        let mut words = argument.split(|&octet| octet == b' ').filter(|word| !word.is_empty());
        let first = words.next()?;
        for word in std::iter::once(first).chain(words) {
            let at = memchr::memchr(b'=', word)?;
            let (name, value) = word.split_at_checked(at)?;
            said.take(&name.to_ascii_uppercase(), value.get(1..)?)?;
        }
        Some(said)
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        match name {
            b"NAME" => put(&mut self.name, value, host_name),
            b"ADDR" => put(&mut self.addr, value, ip),
            b"PORT" => put(&mut self.port, value, port),
            b"PROTO" => put(&mut self.esmtp, value, protocol),
            b"HELO" => put(&mut self.helo, value, |text| bounded(text, MAX_DOMAIN)),
            b"LOGIN" => put(&mut self.login, value, |text| bounded(text, MAX_LOGIN)),
            b"DESTADDR" => put(&mut self.dest_addr, value, ip),
            b"DESTPORT" => put(&mut self.dest_port, value, port),
            _ => None,
        }
    }
}

fn put<T>(said: &mut Said<T>, value: &[u8], read: impl Fn(&str) -> Option<T>) -> Option<()> {
    if !matches!(said, Said::Nothing) {
        return None;
    }
    let unavailable = [&b"[UNAVAILABLE]"[..], b"[TEMPUNAVAIL]"];
    *said = if unavailable.iter().any(|word| value.eq_ignore_ascii_case(word)) {
        Said::Unavailable
    } else {
        Said::Value(read(&xtext::decode(value)?)?)
    };
    Some(())
}

fn host_name(text: &str) -> Option<String> {
    let valid = text.len() <= MAX_DOMAIN && is_domain(text.as_bytes());
    valid.then(|| text.to_owned())
}

/// `192.0.2.1` or `IPV6:2001:db8::1`; an IPv4 address in IPv6's form is one of IPv4.
fn ip(text: &str) -> Option<IpAddr> {
    match text.split_at_checked(5) {
        Some((prefix, address)) if prefix.eq_ignore_ascii_case("IPV6:") => {
            address.parse::<Ipv6Addr>().ok().map(|ip| IpAddr::V6(ip).to_canonical())
        }
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// `true` for ESMTP.
fn protocol(text: &str) -> Option<bool> {
    let is = |name| text.eq_ignore_ascii_case(name);
    (is("SMTP") || is("ESMTP")).then(|| is("ESMTP"))
}

fn bounded(text: &str, limit: usize) -> Option<String> {
    (!text.is_empty() && text.len() <= limit).then(|| text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_is_read() {
        let line = b" name=mail.example.org ADDR=192.0.2.1 PORT=1234 PROTO=esmtp HELO=spike \
            Login=user+40example.org DESTADDR=IPv6:2001:DB8::1 DESTPORT=25";
        let said = XClient::parse(line).unwrap();
        let expected = XClient {
            name: Said::Value("mail.example.org".to_owned()),
            addr: Said::Value("192.0.2.1".parse().unwrap()),
            port: Said::Value(1234),
            esmtp: Said::Value(true),
            helo: Said::Value("spike".to_owned()),
            login: Said::Value("user@example.org".to_owned()),
            dest_addr: Said::Value("2001:db8::1".parse().unwrap()),
            dest_port: Said::Value(25),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_not_given_and_what_is_not_known_are_two_things() {
        let said = XClient::parse(b" NAME=[UNAVAILABLE] HELO=[tempunavail]").unwrap();
        assert_eq!(said.name, Said::Unavailable);
        assert_eq!(said.helo, Said::Unavailable);
        assert_eq!(said.addr, Said::Nothing);
    }

    #[test]
    fn an_ipv4_address_in_the_form_of_ipv6_is_one_of_ipv4() {
        let said = XClient::parse(b" ADDR=IPV6:::ffff:192.0.2.1").unwrap();
        assert_eq!(said.addr, Said::Value("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn anything_else_is_refused_whole() {
        for argument in [
            "",
            " ",
            " NAME",
            " =x",
            " NAME=",
            " NAME=a b",
            " NAME=-",
            " NAME=a NAME=b",
            " NAME=a name=[UNAVAILABLE]",
            " COLOUR=blue",
            " ADDR=2001:db8::1",
            " ADDR=IPV6:192.0.2.1",
            " ADDR=192.0.2.256",
            " ADDR=mail.example.org",
            " PORT=65536",
            " PORT=+2B31",
            " PORT=-1",
            " PORT=",
            " PROTO=LMTP",
            " HELO=",
            " HELO=a+0D+0Ab",
            " HELO=a+0db",
            " HELO=a+",
            " HELO=a+4",
            " HELO=a++4",
            " HELO=caf\u{e9}",
            " HELO=a+E9",
        ] {
            assert_eq!(XClient::parse(argument.as_bytes()), None, "{argument:?}");
        }
        let long = format!(" HELO={}", "x".repeat(MAX_DOMAIN + 1));
        assert_eq!(XClient::parse(long.as_bytes()), None);
    }
}
