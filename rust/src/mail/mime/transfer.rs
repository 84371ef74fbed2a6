//! What a body holds: octets out of their transfer encoding (RFC 2045 §6), text out of octets.
//!
//! Whatever was sent gives something, at most as long as it is:
//!
//! - base64 passes over what is no digit, and ends at its padding, so that a footer that a list added is
//!   not read as more of it; a digit that is left over is dropped;
//! - quoted-printable keeps a `=` that begins nothing, and drops blanks at the end of a line;
//! - uuencode is read from its `begin` to its `end`, and without a `begin` as it was sent;
//! - an encoding with another name is none: the octets are as they were sent.

use encoding_rs::Encoding;
use memchr::{memchr, memchr_iter, memmem};

use crate::mail::header::to_text;
use crate::mail::rfc2047::{self, Decode, hex};

/// A transfer encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// `7bit`, `8bit`, `binary`, and whatever else is named.
    Identity,
    /// `base64`.
    Base64,
    /// `quoted-printable`.
    QuotedPrintable,
    /// `x-uuencode`: older than MIME, and in no RFC.
    Uuencode,
}

impl Transfer {
    /// By its name in lower case.
    pub fn named(name: &str) -> Self {
        match name {
            "base64" => Self::Base64,
            "quoted-printable" => Self::QuotedPrintable,
            "x-uuencode" | "uuencode" | "x-uue" | "uue" => Self::Uuencode,
            _ => Self::Identity,
        }
    }

    /// Decodes to at most `limit` octets, and says whether there were more.
    ///
    /// Nothing is read of what comes behind them.
    pub fn decode(self, body: &[u8], limit: usize) -> (Vec<u8>, bool) {
        let mut octets = match self {
            Self::Identity => body.get(..limit.saturating_add(1)).unwrap_or(body).to_vec(),
            Self::Base64 => base64(body, limit),
            Self::QuotedPrintable => quoted_printable(body, limit),
            Self::Uuencode => uuencode(body, limit),
        };
        let is_cut = octets.len() > limit;
        octets.truncate(limit);
        (octets, is_cut)
    }
}

/// Room for at most `most` octets, of which `limit` are wanted.
fn room(most: usize, limit: usize) -> Vec<u8> {
    Vec::with_capacity(most.min(limit.saturating_add(128)))
}

/// The values of base64 digits; 64 for what is none.
const DIGITS: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut digits = [64; 256];
    let mut value = 0_u8;
    while value < 64 {
        // Both indexes are in range, and a `const` is checked when it is compiled.
        #[allow(clippy::indexing_slicing, reason = "the compiler runs it")]
        {
            digits[alphabet[value as usize] as usize] = value;
        }
        value += 1;
    }
    digits
};

fn digit(byte: u8) -> u8 {
    DIGITS.get(usize::from(byte)).copied().unwrap_or(64)
}

fn base64(body: &[u8], limit: usize) -> Vec<u8> {
    let mut octets = room(body.len() / 4 * 3 + 3, limit);
    let mut rest = body;
    while octets.len() <= limit {
        // Whole groups, of which a line is made.
        while let ([a, b, c, d, tail @ ..], true) = (rest, octets.len() <= limit) {
            let [a, b, c, d] = [digit(*a), digit(*b), digit(*c), digit(*d)];
            if (a | b | c | d) & 64 != 0 {
                break;
            }
            octets.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
            rest = tail;
        }
        // A group with something between its digits, as a line end.
        let mut group = [0; 4];
        let mut count = 0;
        while let Some(place) = group.get_mut(count) {
            let Some((&byte, tail)) = rest.split_first() else { break };
            rest = tail;
            let value = digit(byte);
            if value < 64 {
                *place = value;
                count += 1;
            } else if byte == b'=' && count >= 2 {
                rest = &[];
            }
        }
        let [a, b, c, d] = group;
        let whole = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
        octets.extend_from_slice(whole.get(..count.saturating_sub(1)).unwrap_or_default());
        if count < 4 {
            break;
        }
    }
    octets
}

fn quoted_printable(body: &[u8], limit: usize) -> Vec<u8> {
    let mut octets = room(body.len(), limit);
    let mut start = 0;
    for end in memchr_iter(b'\n', body).map(|newline| newline + 1).chain([body.len()]) {
        let line = body.get(start..end).unwrap_or_default();
        start = end;
        let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let length = line.iter().rposition(is_text).map_or(0, |last| last + 1);
        let (text, blanks) = line.split_at_checked(length).unwrap_or((line, &[]));
        if let Some(text) = text.strip_suffix(b"=") {
            escapes(text, limit, &mut octets);
        } else {
            escapes(text, limit, &mut octets);
            let line_end =
                if blanks.ends_with(b"\r\n") { 2 } else { usize::from(blanks.ends_with(b"\n")) };
            octets.extend_from_slice(blanks.get(blanks.len() - line_end..).unwrap_or_default());
        }
        if octets.len() > limit {
            break;
        }
    }
    octets
}

/// Decodes `=XX` in one line, which can be all of the body.
fn escapes(line: &[u8], limit: usize, octets: &mut Vec<u8>) {
    let mut rest = line;
    while octets.len() <= limit {
        let (text, tail) = rest.split_at(memchr(b'=', rest).unwrap_or(rest.len()));
        // One more than wanted says that there is more.
        let wanted = (limit - octets.len()).saturating_add(1);
        octets.extend_from_slice(text.get(..wanted).unwrap_or(text));
        rest = match tail {
            [_, high, low, after @ ..] if let (Some(high), Some(low)) = (hex(*high), hex(*low)) => {
                octets.push(high << 4 | low);
                after
            }
            [equals, after @ ..] => {
                octets.push(*equals);
                after
            }
            [] => return,
        };
    }
}

fn uuencode(body: &[u8], limit: usize) -> Vec<u8> {
    let Some(mut start) = begin_line(body) else {
        return body.get(..limit.saturating_add(1)).unwrap_or(body).to_vec();
    };
    let mut octets = room(body.len(), limit);
    while let (Some(rest), true) = (body.get(start..), octets.len() <= limit) {
        let length = memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
        let line = crate::mail::header::trim_line_end(rest.get(..length).unwrap_or_default());
        if length == 0 || line == b"end" {
            break;
        }
        uuencoded_line(line, &mut octets);
        start += length;
    }
    octets
}

/// Where the line behind `begin MODE NAME` begins.
fn begin_line(body: &[u8]) -> Option<usize> {
    let begin = if body.starts_with(b"begin ") { 0 } else { memmem::find(body, b"\nbegin ")? + 1 };
    Some(begin + memchr(b'\n', body.get(begin..)?)? + 1)
}

/// The first character says how many octets there are; a digit is missing where blanks at the end were cut.
fn uuencoded_line(line: &[u8], octets: &mut Vec<u8>) {
    let value = |byte: u8| byte.wrapping_sub(b' ') & 63;
    let Some((&count, digits)) = line.split_first() else { return };
    let end = octets.len() + usize::from(value(count)).min(digits.len());
    for group in digits.chunks(4) {
        let mut values = [0; 4];
        for (place, &byte) in values.iter_mut().zip(group) {
            *place = value(byte);
        }
        let [a, b, c, d] = values;
        octets.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
    }
    octets.truncate(end);
}

/// Whether [`text`] asks nobody about a charset.
pub fn is_known(charset: Option<&str>) -> bool {
    charset.is_none_or(|label| {
        Encoding::for_label(label.as_bytes())
            .is_some_and(|encoding| encoding != encoding_rs::REPLACEMENT)
    })
}

/// The text of decoded octets; octets that are wrong in a charset become U+FFFD.
///
/// Without a charset, with ASCII or with one that nobody knows it is what
/// [`to_text`] makes of them: many senders name ASCII and mean another. `is_cut` says
/// that their end may be inside a character.
pub fn text(octets: &[u8], charset: Option<&str>, is_cut: bool, decode: Decode<'_>) -> String {
    let named = charset.filter(|label| !matches!(*label, "us-ascii" | "ascii"));
    let known = named.and_then(|label| rfc2047::to_unicode(label.as_bytes(), octets, decode));
    known.unwrap_or_else(|| match std::str::from_utf8(octets) {
        Err(error) if is_cut && error.error_len().is_none() => {
            to_text(octets.get(..error.valid_up_to()).unwrap_or_default())
        }
        _ => to_text(octets),
    })
}

#[cfg(test)]
mod tests;
