//! What holds for every address and for any bytes.

use std::net::IpAddr;

use proptest::prelude::*;

use super::super::*;
use super::PathKind::{Forward, Reverse};
use super::{address, path};

fn user() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,64}", r#"[a.b \\"@<>]{1,64}"#, r#"[a ."\\äß例え😀\u{301}\u{202e}]{1,25}"#]
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,10}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?){0,4}",
        "[a-z0-9]{0,3}[äöüßé例えд]{1,8}(\\.[a-zäé]{1,9}){0,3}",
        any::<[u8; 4]>().prop_map(|ip| format!("[{}]", IpAddr::from(ip))),
        any::<[u16; 8]>().prop_map(|ip| format!("[IPv6:{}]", IpAddr::from(ip))),
    ]
}

/// Bytes that get far into the grammar more often than any bytes do.
fn near_path() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(
            &[
                "ü", "例", "\u{85}", "xn--", "<", ">", "@", ":", ",", ".", "\"", "\\", "[", "]",
                "IPv6:", "::1", " ", "a", "b-", "="
            ][..]
        )
        .prop_map(|piece| piece.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn parse_undoes_display(user in user(), host in host()) {
        let expected = address(&user, &host);
        let text = expected.to_string();
        prop_assert_eq!(Address::parse(&text), Ok(expected.clone()));
        let wire = format!("<{text}> X");
        if expected.is_ascii() {
            prop_assert_eq!(path(wire, Reverse), Ok((expected, " X".to_owned())));
        } else {
            prop_assert_eq!(path(&wire, Reverse), Err(AddressError::NonAscii));
            let parsed = parse_path_in(wire.as_bytes(), Reverse, Charset::Utf8);
            prop_assert_eq!(parsed, Ok((expected, &b" X"[..])));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), near_path()]) {
        let framed = [b"<", bytes.as_slice(), b">"].concat();
        for input in [bytes.as_slice(), framed.as_slice()] {
            for kind in [Reverse, Forward] {
                for charset in [Charset::Ascii, Charset::Utf8] {
                    let Ok((parsed, rest)) = parse_path_in(input, kind, charset) else { continue };
                    // What was taken is the path, and it can be written and read again.
                    prop_assert!(input.ends_with(rest));
                    prop_assert!(input.len() - rest.len() <= MAX_PATH + 1);
                    let bare = parsed.with_host("h");
                    let again = Address::parse(&bare.to_string()).unwrap();
                    prop_assert_eq!(again.user(), bare.user());
                }
            }
            let _ = parse_parameters(input);
            let _ = parse_helo(input);
            let _ = Address::parse(&String::from_utf8_lossy(input));
        }
    }
}
