//! The header section of a message (RFC 5322 §2.2): where it ends, and its fields as ranges of the
//! message.
//!
//! A line ends at LF; a CR just before it belongs to the line end. So messages with CRLF, with bare
//! LF and with both are read alike. A bare CR is an ordinary byte of the value.
//!
//! Malformed lines are kept, never lost, so that a caller can show or store all that was sent:
//!
//! | line | kept as |
//! |---|---|
//! | white space before the colon (RFC 5322 §4.5) | a field; the white space belongs to neither name nor value |
//! | no colon, or no valid field name before it | a field with an empty name, whose value is the whole line |
//! | `From ` line of an mbox | the same: a name has no spaces |
//! | white space at the start of the first line | the same: there is no field it could continue |
//! | a last line without line end, or cut by the limit | a field like any other |

use std::borrow::Cow;
use std::ops::Range;

use encoding_rs::WINDOWS_1252;
use memchr::{memchr, memchr_iter, memchr2};

/// Room for the fields of an ordinary message, so that parsing it allocates once.
const TYPICAL_FIELDS: usize = 32;

/// The header section of a message: its fields in order, as ranges of the message they were parsed
/// from.
///
/// The message is not kept; its methods take it again. With another message they return wrong or
/// empty slices, but do not panic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderSection {
    fields: Vec<Field>,
    end: usize,
}

/// One field. Offsets are `u32` because a hostile section has half a million fields in a MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: Range<u32>,
    value: Range<u32>,
}

impl HeaderSection {
    /// Parses at most `limit` bytes from the start of `message`, up to and including the empty
    /// line.
    ///
    /// No limit is over 4 GiB. A line end cut in two by the limit is still a line end.
    pub fn parse(message: &[u8], limit: usize) -> Self {
        let section = prefix(message, limit.min(u32::MAX as usize));
        let mut fields: Vec<Field> = Vec::with_capacity(TYPICAL_FIELDS);
        let mut start = 0;
        let line_ends = memchr_iter(b'\n', section).map(|newline| newline + 1);
        for next in line_ends.chain(std::iter::once(section.len())) {
            let line = trim_line_end(section.get(start..next).unwrap_or_default());
            match (line.first(), fields.last_mut()) {
                (None, _) => return Self { fields, end: next },
                (Some(b' ' | b'\t'), Some(field)) => field.value.end = offset(start + line.len()),
                _ => fields.push(Field::from_line(line, start)),
            }
            start = next;
        }
        Self { fields, end: section.len() }
    }

    /// The number of fields, malformed ones included.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field at all.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The offset of the body, after the empty line; without an empty line, the number of bytes
    /// parsed.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Name and raw value of each field, in order.
    ///
    /// The raw value is all between the colon and the last line end, still folded: see [`unfold`].
    pub fn iter<'a>(&'a self, message: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.iter().map(|field| (slice(message, &field.name), slice(message, &field.value)))
    }

    /// The raw value of the first field with that name, which is compared without regard to ASCII
    /// case.
    ///
    /// The empty name finds malformed lines.
    pub fn first<'a>(&self, message: &'a [u8], name: &str) -> Option<&'a [u8]> {
        self.all(message, name).next()
    }

    /// The raw values of all fields with that name, in order.
    pub fn all<'a>(&self, message: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |field| slice(message, &field.name).eq_ignore_ascii_case(name.as_bytes()))
            .map(move |field| slice(message, &field.value))
    }
}

impl Field {
    /// Reads the first line of a field, which starts at `start` in the message.
    fn from_line(line: &[u8], start: usize) -> Self {
        let name_len = line.iter().position(|&byte| !is_name_byte(byte)).unwrap_or(line.len());
        let after_name = line.get(name_len..).unwrap_or_default();
        let blanks =
            after_name.iter().position(|&byte| !is_blank(byte)).unwrap_or(after_name.len());
        if name_len == 0 || after_name.get(blanks) != Some(&b':') {
            let (start, end) = (offset(start), offset(start + line.len()));
            return Self { name: start..start, value: start..end };
        }
        let name = offset(start)..offset(start + name_len);
        let value = offset(start + name_len + blanks + 1)..offset(start + line.len());
        Self { name, value }
    }
}

/// A line without its CRLF (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;

/// A field of one line, with its CRLF (RFC 5322 §2.2); or what is wrong with its name or value.
pub fn field(name: &str, value: &str) -> Result<String, String> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        return Err(format!("not the name of a header field: {name:?}"));
    }
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!("{name}: a header value has no control characters"));
    }
    let length = name.len() + 2 + value.len();
    if length > MAX_LINE {
        return Err(format!("{name}: a header line has at most {MAX_LINE} octets, not {length}"));
    }
    Ok(format!("{name}: {value}\r\n"))
}

/// Unfolds a raw value (RFC 5322 §2.2.3): line ends before white space are removed, outer white
/// space is trimmed.
///
/// A bare LF or CR, and several in a row, are removed like CRLF. Line ends that are not followed by
/// white space stay: they are no folding.
pub fn unfold(raw: &[u8]) -> Cow<'_, [u8]> {
    let mut rest = trim(raw);
    let Some(mut newline) = memchr2(b'\r', b'\n', rest) else {
        return Cow::Borrowed(rest);
    };
    let mut unfolded = Vec::with_capacity(rest.len());
    loop {
        let (text, tail) = rest.split_at(newline);
        let run = tail.iter().position(|&byte| !is_newline(byte)).unwrap_or(tail.len());
        let (newlines, tail) = tail.split_at(run);
        unfolded.extend_from_slice(text);
        if !tail.first().is_some_and(|&byte| is_blank(byte)) {
            unfolded.extend_from_slice(newlines);
        }
        rest = tail;
        newline = match memchr2(b'\r', b'\n', rest) {
            Some(newline) => newline,
            None => break,
        };
    }
    unfolded.extend_from_slice(rest);
    Cow::Owned(unfolded)
}

/// The `Received` fields of a header section: each hop adds one (RFC 5321 §4.4).
pub fn count_received(header: &[u8]) -> usize {
    const NAME: &[u8] = b"received:";
    let begins = |at: usize| {
        header.get(at..at + NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    };
    usize::from(begins(0))
        + memchr_iter(b'\n', header).filter(|newline| begins(newline + 1)).count()
}

/// The offset of the body: the first byte after the empty line that ends the header section, if
/// there is one.
///
/// A message that begins with an empty line has no header section; its body begins after that line.
pub fn body_offset(message: &[u8]) -> Option<usize> {
    HeaderEnd::new(usize::MAX).update(message)
}

/// Finds the end of the header section while the message is being received.
///
/// Each byte is looked at once, however the message is cut into pieces.
#[derive(Clone, Debug)]
pub struct HeaderEnd {
    limit: usize,
    /// Where to look next.
    position: usize,
    /// Whether `position` is the start of a line that may prove to be the empty one. It is at
    /// first: that way a message that begins with the empty line needs no special case.
    at_line_start: bool,
    offset: Option<usize>,
}

impl HeaderEnd {
    /// A finder that looks at the first `limit` bytes only.
    pub fn new(limit: usize) -> Self {
        Self { limit, position: 0, at_line_start: true, offset: None }
    }

    /// Looks at what was added to the message. `stored` is all of it so far, from its first byte.
    ///
    /// Returns the offset of the body as soon as it is known, and ever after.
    pub fn update(&mut self, stored: &[u8]) -> Option<usize> {
        let stored = prefix(stored, self.limit);
        while self.offset.is_none() {
            let rest = stored.get(self.position..).unwrap_or_default();
            if self.at_line_start {
                match rest {
                    [b'\n', ..] => self.offset = Some(self.position + 1),
                    [b'\r', b'\n', ..] => self.offset = Some(self.position + 2),
                    [] | [b'\r'] => break,
                    _ => self.at_line_start = false,
                }
            } else if let Some(newline) = memchr(b'\n', rest) {
                self.position += newline + 1;
                self.at_line_start = true;
            } else {
                self.position += rest.len();
                break;
            }
        }
        self.offset
    }
}

/// The text of a value or a part of one: UTF-8 where it is valid UTF-8, otherwise windows-1252.
///
/// windows-1252 gives every byte a character, so nothing becomes U+FFFD; it is what most senders of
/// bare 8-bit headers mean. NUL and other controls stay.
pub fn to_text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(value).0.into_owned(),
    }
}

/// Whether a line begins a field, malformed ones not among them.
pub(super) fn is_field(line: &[u8]) -> bool {
    !Field::from_line(line, 0).name.is_empty()
}

/// A byte of a field name (RFC 5322 §3.6.8).
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b':'
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Drops white space and line ends at both ends.
fn trim(bytes: &[u8]) -> &[u8] {
    let is_text = |&byte: &u8| !is_blank(byte) && !is_newline(byte);
    match (bytes.iter().position(is_text), bytes.iter().rposition(is_text)) {
        (Some(first), Some(last)) => bytes.get(first..=last).unwrap_or_default(),
        _ => &[],
    }
}

/// Drops CRLF, LF, or a CR that the end of the bytes parted from its LF.
pub(super) fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn prefix(bytes: &[u8], limit: usize) -> &[u8] {
    bytes.get(..limit).unwrap_or(bytes)
}

/// `position` as it is kept in a field; [`HeaderSection::parse`] never goes further than this can
/// hold.
fn offset(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn slice<'a>(message: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    message.get(range.start as usize..range.end as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests;
