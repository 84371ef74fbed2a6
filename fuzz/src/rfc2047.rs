//! Encoded words: a decoded value is one line and not much longer than it was; a text survives being encoded,
//! in both encodings, in words that are cut anywhere.

use std::fmt::Write as _;

use guerrilla::mail::header::to_text;
use guerrilla::mail::rfc2047::decode;

/// Octets of a decoded word that the caller's decoder makes.
const FOREIGN: &str = "foreign\r\n\0";

/// Checks one input.
pub fn check(input: &[u8]) {
    let decoded = decode(input, &|_, _| None);
    check_text(input, &decoded);
    if !input.windows(2).any(|window| window == b"=?") {
        assert_eq!(decoded, one_line(&to_text(input)), "nothing is encoded");
    }
    let foreign = decode(input, &|label, _| {
        assert_eq!(label, label.to_lowercase());
        Some(FOREIGN.to_owned())
    });
    assert!(!foreign.contains(['\r', '\n', '\0']), "{foreign:?}");
    let text = String::from_utf8_lossy(input);
    check_encoded(text.trim_start_matches('\u{feff}'));
}

fn check_text(input: &[u8], decoded: &str) {
    assert!(!decoded.contains(['\r', '\n', '\0']), "{decoded:?}");
    assert!(decoded.len() <= 4 * input.len(), "{} of {}", decoded.len(), input.len());
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n', '\0'], " ")
}

fn check_encoded(text: &str) {
    let octets = text.as_bytes();
    for encode in [q, b] {
        let whole = format!("=?utf-8?{}?=", encode(octets));
        assert_eq!(decode(whole.as_bytes(), &|_, _| None), one_line(text), "{whole}");
        let (head, tail) = octets.split_at(octets.len() / 2);
        let cut = format!("=?utf-8?{}?=\r\n =?UTF-8?{}?=", encode(head), encode(tail));
        assert_eq!(decode(cut.as_bytes(), &|_, _| None), one_line(text), "{cut}");
    }
}

fn q(octets: &[u8]) -> String {
    octets.iter().fold("Q?".to_owned(), |mut text, octet| {
        write!(text, "={octet:02X}").expect("a String takes it");
        text
    })
}

pub(super) fn b(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = "B?".to_owned();
    for group in octets.chunks(3) {
        let [a, b, c] = std::array::from_fn(|index| group.get(index).copied().unwrap_or(0));
        let bits = u32::from_be_bytes([0, a, b, c]);
        for place in 0..=group.len() {
            let digit = bits >> (18 - 6 * place) & 63;
            text.push(char::from(DIGITS[digit as usize]));
        }
        text.push_str(["", "==", "="][group.len() % 3]);
    }
    text
}
