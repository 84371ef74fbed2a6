//! Parts: each lies within the one that it is a part of, behind the one before it, and within the bounds; what no
//! bound cut is the same with wider ones. Decoding ends where it is told, and gives back what was encoded; what was
//! put together is taken apart again. Names are one line.

use std::fmt::Write as _;

use guerrilla::mail::mime::field::Value;
use guerrilla::mail::mime::transfer::{Transfer, text};
use guerrilla::mail::mime::{Bounds, Kind, Structure};

const WIDE: Bounds = Bounds { depth: 100, parts: 10_000, header: usize::MAX, messages: false };
/// Which no input is taken to have.
const BOUNDARY: &str = "=_guerrilla";

/// Checks one input.
pub fn check(input: &[u8]) {
    for messages in [false, true] {
        let wide = Bounds { messages, ..WIDE };
        check_structure(input, &wide);
        let narrow = Bounds { depth: 2, parts: 4, ..wide };
        let few = check_structure(input, &narrow);
        if few.truncated().is_none() {
            assert_eq!(
                few,
                Structure::walk(input, &wide),
                "a bound that was not met changes nothing"
            );
        }
        check_structure(input, &Bounds { header: 40, ..wide });
    }
    check_parameters(input);
    check_transfer(input);
    check_put_together(input);
}

fn check_structure(message: &[u8], bounds: &Bounds) -> Structure {
    let structure = Structure::walk(message, bounds);
    let parts = structure.parts();
    assert!((1..=bounds.parts + 1).contains(&parts.len()), "{} parts", parts.len());
    let mut ends = vec![0; parts.len()];
    let mut depths = vec![0; parts.len()];
    let mut last_leaf = 0;
    for (index, part) in parts.iter().enumerate() {
        assert!(part.header.start <= part.header.end && part.header.end <= part.body.start);
        assert!(part.body.start <= part.body.end && part.body.end <= message.len());
        assert_eq!(part.content_type, part.content_type.to_ascii_lowercase());
        if let Some(parent) = part.parent {
            let whole = &parts[parent];
            assert!(parent < index && !whole.is_leaf());
            assert!(whole.body.start.max(ends[parent]) <= part.header.start, "parts overlap");
            assert!(part.body.end <= whole.body.end, "a part ends behind what it is in");
            ends[parent] = part.body.end;
            depths[index] = depths[parent] + 1;
        }
        assert!(depths[index] <= bounds.depth);
        assert!(structure.path(index).len() <= depths[index] + 1);
        if part.is_leaf() {
            assert!(last_leaf <= part.header.start, "leaves are out of order");
            last_leaf = part.body.end;
            check_leaf(&message[part.body.clone()], part.fields(message, bounds.header).transfer());
        }
        let name = part.fields(message, bounds.header).filename(&foreign);
        assert!(name.is_none_or(|name| !name.is_empty() && is_line(&name)));
    }
    let opaque = parts.iter().any(|part| matches!(part.kind, Kind::Opaque(_)));
    assert_eq!(structure.truncated().is_some(), opaque);
    for content_type in ["text/plain", "text/html"] {
        if let Some(index) = structure.body(message, bounds.header, content_type) {
            assert_eq!(parts[index].content_type, content_type);
        }
    }
    structure
}

fn check_leaf(body: &[u8], transfer: Transfer) {
    let (whole, is_cut) = transfer.decode(body, usize::MAX);
    assert!(!is_cut && whole.len() <= body.len(), "{} of {}", whole.len(), body.len());
    let (some, is_cut) = transfer.decode(body, 7);
    assert_eq!((&some[..], is_cut), (&whole[..whole.len().min(7)], whole.len() > 7));
    for charset in [None, Some("utf-8"), Some("iso-2022-jp"), Some("utf-16le"), Some("odd")] {
        let decoded = text(&whole, charset, true, &foreign);
        assert!(decoded.len() <= 4 * whole.len() + 16, "{} of {}", decoded.len(), whole.len());
    }
}

fn check_parameters(input: &[u8]) {
    let value = Value::parse(input);
    for (name, text) in value.parameters(&foreign) {
        assert_eq!(value.get(&name, &foreign).as_ref(), Some(&text));
        assert!(is_line(&text), "{text:?}");
    }
}

fn check_transfer(input: &[u8]) {
    let base64 = super::rfc2047::b(input);
    let quoted = input.iter().fold(String::new(), |mut text, octet| {
        writeln!(text, "={octet:02X}=").expect("a String takes it");
        text
    });
    for (transfer, encoded) in
        [(Transfer::Base64, &base64["B?".len()..]), (Transfer::QuotedPrintable, &quoted)]
    {
        assert_eq!(transfer.decode(encoded.as_bytes(), input.len()), (input.to_vec(), false));
    }
}

fn check_put_together(input: &[u8]) {
    if input.windows(BOUNDARY.len()).any(|window| window == BOUNDARY.as_bytes()) {
        return;
    }
    let header = format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\r\n\r\n");
    let mut message = header.into_bytes();
    let pieces = input.chunks(input.len().div_ceil(3).max(1));
    for piece in pieces.clone() {
        message.extend_from_slice(format!("--{BOUNDARY}\r\nContent-Type: x/y\r\n\r\n").as_bytes());
        message.extend_from_slice(piece);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    let structure = Structure::walk(&message, &WIDE);
    let found = structure.parts().iter().skip(1).map(|part| &message[part.body.clone()]);
    assert!(found.eq(pieces), "{:?}", structure.parts());
}

fn foreign(label: &str, _: &[u8]) -> Option<String> {
    (label == "odd").then(|| "foreign\r\n\0".to_owned())
}

fn is_line(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}
