//! Replies as they come (RFC 5321 §4.2): whole lines out of any split of the octets, within limits.

use super::Fault;

/// Octets of a reply line with its end. RFC 5321 §4.5.3.1.5 allows 512; some servers write more.
pub const MAX_LINE: usize = 2_048;

/// Lines of a reply. That of EHLO has twenty, where much is offered.
pub const MAX_LINES: usize = 256;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// 200 to 599.
    pub(super) code: u16,
    pub(super) is_last: bool,
    /// What stands behind the code, of any octets.
    pub(super) text: &'a [u8],
}

/// What was read, and how far it has been looked at.
#[derive(Debug, Default)]
pub(super) struct Replies {
    waiting: Vec<u8>,
    /// Octets of it that were given out.
    taken: usize,
    /// Lines of the reply that has begun, and their code.
    begun: Option<(usize, u16)>,
}

impl Replies {
    pub(super) fn receive(&mut self, octets: &[u8]) {
        self.waiting.drain(..self.taken);
        self.taken = 0;
        self.waiting.extend_from_slice(octets);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.waiting.len()
    }

    /// The next line, when all of it is there.
    pub(super) fn line(&mut self) -> Result<Option<Line<'_>>, Fault> {
        let rest = self.waiting.get(self.taken..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return if rest.len() < MAX_LINE { Ok(None) } else { Err(Fault::LongLine) };
        };
        if end >= MAX_LINE {
            return Err(Fault::LongLine);
        }
        self.taken += end + 1;
        let line = rest.get(..end).unwrap_or_default();
        let line = parse(line.strip_suffix(b"\r").unwrap_or(line))?;
        let (count, code) = self.begun.unwrap_or((0, line.code));
        if code != line.code {
            return Err(Fault::MixedCodes);
        }
        if count >= MAX_LINES {
            return Err(Fault::ManyLines);
        }
        self.begun = (!line.is_last).then_some((count + 1, code));
        Ok(Some(line))
    }
}

/// `250 text`, `250-text`, or `250` alone.
fn parse(line: &[u8]) -> Result<Line<'_>, Fault> {
    let (digits, rest) = line.split_at_checked(3).ok_or(Fault::NoCode)?;
    let is_code = digits.iter().all(u8::is_ascii_digit);
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit & 0x0f));
    let (is_last, text) = match rest.split_first() {
        None => (true, rest),
        Some((b' ', text)) => (true, text),
        Some((b'-', text)) => (false, text),
        Some(_) => return Err(Fault::NoCode),
    };
    if is_code && (200..600).contains(&code) {
        Ok(Line { code, is_last, text })
    } else {
        Err(Fault::NoCode)
    }
}
