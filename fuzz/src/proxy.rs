//! The PROXY header: a prefix is incomplete until it is decided, and what is decided stays, whatever follows; a
//! header is bounded, and one of version 1 says what a plain reading of it says.

use std::net::{IpAddr, SocketAddr};

use guerrilla::net::proxy::{Endpoints, MAX_HEADER, Parsed, parse};

const MAX_TEXT_HEADER: usize = 107;

/// Checks one input.
pub fn check(input: &[u8]) {
    let parsed = parse(input);
    match &parsed {
        Parsed::Incomplete => assert!(input.len() < MAX_HEADER, "waits for more than it takes"),
        Parsed::Bad(why) => assert!(!why.is_empty() && why.len() < 500 && !why.contains('\n')),
        Parsed::Header(length, _) => {
            assert!(*length <= input.len() && *length <= MAX_HEADER);
            assert!(input[0] != b'P' || *length <= MAX_TEXT_HEADER);
        }
    }
    let decided = check_prefixes(input, &parsed);
    let more = [input, b"PROXY UNKNOWN\r\n"].concat();
    if decided {
        assert!(is_same(&parse(&more), &parsed), "what follows changes it");
    }
    if let Parsed::Header(length, endpoints) = parsed
        && input[0] == b'P'
    {
        assert_eq!(endpoints, read_plainly(&input[..length]));
    }
}

/// Octet by octet it comes to the same.
fn check_prefixes(input: &[u8], parsed: &Parsed) -> bool {
    for end in 0..input.len() {
        let so_far = parse(&input[..end]);
        match (&so_far, parsed) {
            (Parsed::Incomplete, _) => {}
            (Parsed::Header(length, _), _) => {
                assert_eq!(*length, end, "a header is seen with its last octet");
                assert_eq!(&so_far, parsed);
                return true;
            }
            (Parsed::Bad(_), _) => {
                assert!(matches!(parsed, Parsed::Bad(_)), "what was bad at {end} is not any more");
                return true;
            }
        }
    }
    *parsed != Parsed::Incomplete
}

fn is_same(one: &Parsed, other: &Parsed) -> bool {
    // The reason may be another once more is known.
    matches!((one, other), (Parsed::Bad(_), Parsed::Bad(_))) || one == other
}

/// Version 1, read by its words.
fn read_plainly(header: &[u8]) -> Option<Endpoints> {
    let line = std::str::from_utf8(header).expect("a header is ASCII");
    let line = line.strip_suffix("\r\n").expect("it ends with CRLF");
    let words: Vec<&str> = line.split(' ').collect();
    let end = |ip: &str, port: &str| {
        let ip: IpAddr = ip.parse().expect("is an address");
        SocketAddr::new(ip.to_canonical(), port.parse().expect("is a port"))
    };
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4" | "TCP6", source, destination, from, to] => {
            Some(Endpoints { source: end(source, from), destination: end(destination, to) })
        }
        _ => panic!("{line:?} is no header"),
    }
}
