//! The PROXY protocol, versions 1 and 2: who a proxy speaks for, before anything else is said.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>. Octets in, endpoints out: whether the
//! peer is to be believed is decided elsewhere.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

/// Octets of a version 2 header that are waited for. The addresses take 232 at most; the rest is for the
/// TLVs of a TLS client certificate, which are passed over.
pub const MAX_HEADER: usize = 4_096;
/// Octets of a version 1 header with its CRLF (§2.1).
const MAX_TEXT_HEADER: usize = 107;
/// Octets of a version 2 header before its addresses.
const FIXED: usize = 16;

/// What the octets so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Incomplete,
    /// No header, or none that can be taken; says why.
    Bad(String),
    /// A header of that many octets. Without endpoints (`UNKNOWN`, `LOCAL`, a unix socket) the proxy
    /// speaks for itself.
    Header(usize, Option<Endpoints>),
}

/// Both ends of the connection that the proxy took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// Looks for a header at the start of `input`, which goes on behind it with whatever the client sent.
pub fn parse(input: &[u8]) -> Parsed {
    match input.first() {
        None => Parsed::Incomplete,
        Some(b'P') => parse_text(input),
        Some(_) => parse_binary(input),
    }
}

fn parse_text(input: &[u8]) -> Parsed {
    let head = input.get(..MAX_TEXT_HEADER).unwrap_or(input);
    let Some(end) = memchr::memchr(b'\n', head) else {
        let begun = head.iter().zip(b"PROXY ").all(|(octet, expected)| octet == expected);
        return if begun && head.len() < MAX_TEXT_HEADER {
            Parsed::Incomplete
        } else {
            Parsed::Bad(format!("no PROXY header within {MAX_TEXT_HEADER} octets"))
        };
    };
    let line = head.get(..=end).unwrap_or(head);
    // The parser takes a CR for a space, and a space for the CR at the end.
    if line.iter().position(|&octet| octet == b'\r') != end.checked_sub(1) {
        return Parsed::Bad("a PROXY header that does not end with its only CR and LF".to_owned());
    }
    match v1::Header::try_from(line) {
        Ok(header) => {
            let endpoints = match header.addresses {
                v1::Addresses::Tcp4(ends) => Some(Endpoints {
                    source: (ends.source_address, ends.source_port).into(),
                    destination: (ends.destination_address, ends.destination_port).into(),
                }),
                v1::Addresses::Tcp6(ends) => Some(Endpoints {
                    source: canonical(ends.source_address.into(), ends.source_port),
                    destination: canonical(ends.destination_address.into(), ends.destination_port),
                }),
                v1::Addresses::Unknown => None,
            };
            Parsed::Header(line.len(), endpoints)
        }
        // One of its texts has a line end in it, and this one is for a log.
        Err(error) => Parsed::Bad(format!("a bad PROXY header: {error}").replace("\r\n", "CRLF")),
    }
}

fn parse_binary(input: &[u8]) -> Parsed {
    if let (Some(high), Some(low)) = (input.get(14), input.get(15)) {
        let length = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
        if input.starts_with(v2::PROTOCOL_PREFIX) && length > MAX_HEADER {
            return Parsed::Bad(format!("a PROXY header of {length} octets"));
        }
    }
    let header = match v2::Header::try_from(input) {
        Ok(header) => header,
        Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => {
            return Parsed::Incomplete;
        }
        Err(v2::ParseError::Prefix) => return Parsed::Bad("no PROXY header".to_owned()),
        Err(error) => return Parsed::Bad(format!("a bad PROXY header: {error}")),
    };
    let endpoints = match (header.command, header.addresses) {
        (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        (v2::Command::Proxy, _) if header.protocol != v2::Protocol::Stream => {
            return Parsed::Bad("a PROXY header of something that is no stream".to_owned());
        }
        (v2::Command::Proxy, v2::Addresses::IPv4(ends)) => Some(Endpoints {
            source: (ends.source_address, ends.source_port).into(),
            destination: (ends.destination_address, ends.destination_port).into(),
        }),
        (v2::Command::Proxy, v2::Addresses::IPv6(ends)) => Some(Endpoints {
            source: canonical(ends.source_address.into(), ends.source_port),
            destination: canonical(ends.destination_address.into(), ends.destination_port),
        }),
    };
    Parsed::Header(header.len(), endpoints)
}

/// An IPv4 address in the form of IPv6 is one of IPv4.
fn canonical(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Endpoints {
        Endpoints { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A version 2 header: command, family and protocol, payload.
    fn binary(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        header.extend(payload);
        header
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0, 25];

    #[test]
    fn both_versions_are_read_and_what_follows_is_left() {
        let v6 = "PROXY TCP6 2001:db8::1 2001:db8::2 12345 25\r\n";
        for (input, expected) in [
            (
                &b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\r\n"[..],
                Some(ends("192.0.2.1:12345", "198.51.100.2:25")),
            ),
            (v6.as_bytes(), Some(ends("[2001:db8::1]:12345", "[2001:db8::2]:25"))),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Some(ends("192.0.2.1:1", "[::1]:2"))),
            (b"PROXY UNKNOWN\r\n", None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
            (&binary(1, 0x11, &V4), Some(ends("192.0.2.1:12345", "198.51.100.2:25"))),
            (
                &binary(1, 0x11, &[&V4[..], &[0x20, 0, 1, 7]].concat()),
                Some(ends("192.0.2.1:12345", "198.51.100.2:25")),
            ),
            (&binary(0, 0x00, b""), None),
            (&binary(0, 0x11, &V4), None),
            (&binary(1, 0x00, b""), None),
            (&binary(1, 0x31, &[0; 216]), None),
        ] {
            let parsed = Parsed::Header(input.len(), expected);
            assert_eq!(parse(input), parsed, "{}", input.escape_ascii());
            assert_eq!(parse(&[input, b"EHLO a\r\n"].concat()), parsed);
            assert_eq!(parse(&[input, b"PROXY UNKNOWN\r\n"].concat()), parsed);
            for cut in 0..input.len() {
                assert_eq!(parse(&input[..cut]), Parsed::Incomplete, "cut at {cut}");
            }
        }
    }

    #[test]
    fn everything_else_is_bad_as_soon_as_that_can_be_told() {
        for input in [
            &b"EHLO client.example\r\n"[..],
            b"PONG",
            b"PROXY\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 12345\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25 x\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 65536\r\n",
            b"PROXY TCP4 2001:db8::1 198.51.100.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25 \n",
            b"PROXY TCP4\r192.0.2.1\r198.51.100.2 12345 25\r\n",
            b"PROXY UNKNOWN ffff::1 \n",
            b"PROXY UDP4 192.0.2.1 198.51.100.2 12345 25\r\n",
            b"proxy TCP4 192.0.2.1 198.51.100.2 12345 25\r\n",
            b"\r\n\r\n\0\r\nQUIX",
            b"\x16\x03\x01",
            &binary(1, 0x12, &V4),
            &binary(1, 0x11, &V4[..11]),
            &binary(2, 0x11, &V4),
            &binary(1, 0x41, &V4),
            &binary(1, 0x11, &[0; MAX_HEADER])[..16],
        ] {
            let Parsed::Bad(why) = parse(input) else { panic!("{}", input.escape_ascii()) };
            assert!(!why.contains(char::is_control), "{why:?}");
        }
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        assert!(matches!(parse(&endless), Parsed::Bad(_)));
        assert_eq!(parse(&endless[..106]), Parsed::Incomplete);
        assert!(matches!(parse(&endless[..107]), Parsed::Bad(_)));
    }
}
