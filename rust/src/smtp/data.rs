//! The octets between 354 and the final dot: where they end, and what is stored (RFC 5321 §4.5.2).
//!
//! Only CRLF.CRLF ends a message, and a leading dot is taken off only behind a real CRLF. Everything
//! else is content. That is the whole defence against SMTP smuggling, so it stands in one function.

use super::limits::BareNewline;
use super::plain::{SMALL_BLOCK, plain_blocks};
use crate::buffer::Body;
use crate::mail::header::HeaderEnd;

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The input is used up and the message goes on.
    Open,
    /// The message goes on once the body has caught up; there may be input left.
    Behind,
    /// CRLF.CRLF was read; what is left of the input are commands.
    Complete,
}

/// What stands directly before the next octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// A CRLF, or nothing yet: `DATA` itself ended with one, so that the first line is no special case.
    Newline,
    /// A CR, stored already.
    Cr,
    /// A dot behind a CRLF, not stored.
    Dot,
    /// That dot and a CR, neither stored.
    DotCr,
    /// Anything else.
    Text,
}

/// Takes a message out of a stream and stores it in a [`Body`].
#[derive(Debug)]
pub struct DataReader {
    behind: Behind,
    policy: BareNewline,
    header: HeaderEnd,
    bare_newline: bool,
}

impl DataReader {
    /// A reader at the start of a message whose header section is looked for in `max_header_size` octets.
    pub fn new(policy: BareNewline, max_header_size: usize) -> Self {
        Self {
            behind: Behind::Newline,
            policy,
            header: HeaderEnd::new(max_header_size),
            bare_newline: false,
        }
    }

    /// Whether a bare CR or LF was seen.
    pub fn bare_newline(&self) -> bool {
        self.bare_newline
    }

    /// Takes octets up to the end of the message or of the input, or until the body is behind.
    pub fn read(&mut self, input: &mut &[u8], body: &mut Body) -> Ending {
        loop {
            body.settle();
            if body.is_behind() {
                return Ending::Behind;
            }
            let all = *input;
            if all.is_empty() {
                return Ending::Open;
            }
            // At least one, so that this comes to an end whatever the body says.
            let (mut piece, rest) = all.split_at(all.len().min(body.appetite().max(1)));
            let ending = self.consume(&mut piece, body);
            if body.fault().is_none() {
                let end = self.header.update(body.as_slice());
                body.set_header_end(end);
            }
            *input = all.get(all.len() - rest.len() - piece.len()..).unwrap_or(&[]);
            if ending == Ending::Complete {
                body.end();
                return Ending::Complete;
            }
        }
    }

    fn consume(&mut self, input: &mut &[u8], body: &mut Body) -> Ending {
        let all = *input;
        let mut run = Run { from: 0, all };
        let mut at = 0;
        while at < all.len() {
            let plain = if self.may_be_plain() { plain_blocks(all, at) } else { 0 };
            self.pass(all.get(at..at + plain).unwrap_or_default());
            at += plain;
            // Up to here, and not octet by octet behind a block again: else one octet could cost a block.
            let end = all.len().min(at + if at == 0 { 1 } else { SMALL_BLOCK });
            while let Some(&octet) = all.get(at).filter(|_| at < end) {
                if self.take(octet, at, &mut run, body) == Ending::Complete {
                    *input = all.get(at + 1..).unwrap_or(&[]);
                    return Ending::Complete;
                }
                at += 1;
            }
        }
        // A held dot or dot and CR have been left out of the run already.
        run.flush(all.len(), body);
        *input = &[];
        Ending::Open
    }

    /// Whether octets may be stored as they are: none of them is held.
    fn may_be_plain(&self) -> bool {
        !matches!(self.behind, Behind::Dot | Behind::DotCr)
    }

    fn pass(&mut self, plain: &[u8]) {
        self.behind = match plain.last() {
            Some(b'\n') => Behind::Newline,
            Some(b'\r') => Behind::Cr,
            Some(_) => Behind::Text,
            None => self.behind,
        };
    }

    /// One octet of a block that is not plain.
    fn take(&mut self, octet: u8, at: usize, run: &mut Run<'_>, body: &mut Body) -> Ending {
        match (self.behind, octet) {
            (Behind::DotCr, b'\n') => {
                return Ending::Complete;
            }
            (Behind::Dot, b'\r') => {
                self.behind = Behind::DotCr;
                run.skip(at, 1, body);
                return Ending::Open;
            }
            (Behind::Newline, b'.') => {
                self.behind = Behind::Dot;
                run.skip(at, 1, body);
                return Ending::Open;
            }
            (Behind::DotCr, _) => {
                // The dot is off and this was a line that begins with a CR.
                run.insert(at, b"\r", body);
                self.behind = Behind::Cr;
            }
            (Behind::Dot, _) => self.behind = Behind::Text,
            _ => {}
        }
        self.behind = match (self.behind, octet) {
            (Behind::Cr, b'\n') => Behind::Newline,
            (Behind::Cr, _) => {
                self.bare_newline = true;
                if self.policy == BareNewline::Fix {
                    run.insert(at, b"\n", body);
                }
                if octet == b'\r' { Behind::Cr } else { Behind::Text }
            }
            (_, b'\n') => {
                self.bare_newline = true;
                if self.policy == BareNewline::Fix {
                    run.insert(at, b"\r", body);
                }
                Behind::Text
            }
            (_, b'\r') => Behind::Cr,
            _ => Behind::Text,
        };
        Ending::Open
    }
}

/// A stretch of the input that is stored as it is, copied once when it ends.
struct Run<'a> {
    from: usize,
    all: &'a [u8],
}

impl Run<'_> {
    fn flush(&mut self, to: usize, body: &mut Body) {
        if let Some(octets) = self.all.get(self.from..to).filter(|octets| !octets.is_empty()) {
            body.push(octets);
        }
        self.from = to;
    }

    /// Leaves out `count` octets at `at`.
    fn skip(&mut self, at: usize, count: usize, body: &mut Body) {
        self.flush(at, body);
        self.from = at + count;
    }

    /// Puts octets in before the one at `at`.
    fn insert(&mut self, at: usize, octets: &[u8], body: &mut Body) {
        self.flush(at, body);
        body.push(octets);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::buffer::Budget;

    /// What is stored, whether a bare newline was seen, and what is left behind the end, if it came.
    fn read(policy: BareNewline, chunks: &[&[u8]]) -> (Vec<u8>, bool, Option<Vec<u8>>) {
        let mut body = Body::take(&Budget::new(1 << 30), None, 0).unwrap();
        let mut reader = DataReader::new(policy, 1 << 20);
        for (index, chunk) in chunks.iter().enumerate() {
            let mut input = *chunk;
            if reader.read(&mut input, &mut body) == Ending::Complete {
                let mut left = input.to_vec();
                for later in chunks.iter().skip(index + 1) {
                    left.extend_from_slice(later);
                }
                return (body.as_slice().to_vec(), reader.bare_newline(), Some(left));
            }
            assert!(input.is_empty());
        }
        (body.as_slice().to_vec(), reader.bare_newline(), None)
    }

    fn at_every_split(policy: BareNewline, input: &[u8]) -> (Vec<u8>, bool, Option<Vec<u8>>) {
        let whole = read(policy, &[input]);
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(whole, read(policy, &bytes));
        for cut in 0..input.len() {
            let (head, tail) = input.split_at(cut);
            assert_eq!(
                whole,
                read(policy, &[head, tail]),
                "cut at {cut} of {:?}",
                String::from_utf8_lossy(input)
            );
        }
        whole
    }

    #[test]
    fn crlf_dot_crlf_ends_and_dots_are_unstuffed() {
        for (input, stored) in [
            (&b".\r\nREST"[..], &b""[..]),
            (b"\r\n.\r\nREST", b"\r\n"),
            (b"a\r\n.\r\nREST", b"a\r\n"),
            (b"..\r\n.\r\nREST", b".\r\n"),
            (b"a\r\n..b\r\n...\r\n.\r\nREST", b"a\r\n.b\r\n..\r\n"),
            (b"a.\r\n.b\r\n.\r\nREST", b"a.\r\nb\r\n"),
        ] {
            for policy in [BareNewline::Fix, BareNewline::Keep, BareNewline::Reject] {
                assert_eq!(
                    at_every_split(policy, input),
                    (stored.to_vec(), false, Some(b"REST".to_vec()))
                );
            }
        }
    }

    #[test]
    fn nothing_else_ends_a_message() {
        for end in [
            "\n.\n",
            "\n.\r\n",
            "\r.\r",
            "\r\n.\n",
            "\r\n.\r",
            "\r.\r\n",
            "\n\r.\r\n",
            "\r\n\0.\r\n",
            "\r\n.\0\r\n",
            "\r\n.\r\r\n",
            "\r\n. \r\n",
            "\r\n\r.\r\n",
            "\r\n.\n\r\n",
        ] {
            let input = format!("a{end}b");
            for policy in [BareNewline::Fix, BareNewline::Keep, BareNewline::Reject] {
                let (_, _, left) = at_every_split(policy, input.as_bytes());
                assert_eq!(left, None, "{end:?} ended it");
            }
        }
    }

    #[test]
    fn bare_newlines_are_fixed_or_kept() {
        for (input, fixed, kept) in [
            ("a\nb", "a\r\nb", "a\nb"),
            ("a\rb", "a\r\nb", "a\rb"),
            ("a\r\r\nb", "a\r\n\r\nb", "a\r\r\nb"),
            ("\n\n", "\r\n\r\n", "\n\n"),
            ("a\n.b", "a\r\n.b", "a\n.b"),
            ("a\n..b", "a\r\n..b", "a\n..b"),
            ("a\r\n.\nb", "a\r\n\r\nb", "a\r\n\nb"),
            ("a\r\n.\rb", "a\r\n\r\nb", "a\r\n\rb"),
        ] {
            let ended = format!("{input}\r\n.\r\n");
            for (policy, stored) in [(BareNewline::Fix, fixed), (BareNewline::Keep, kept)] {
                let expected = (format!("{stored}\r\n").into_bytes(), true, Some(Vec::new()));
                assert_eq!(at_every_split(policy, ended.as_bytes()), expected, "{input:?}");
            }
        }
    }

    #[test]
    fn the_end_of_the_header_section_is_noted() {
        let mut body = Body::take(&Budget::new(1 << 20), None, 0).unwrap();
        let mut reader = DataReader::new(BareNewline::Fix, 1 << 20);
        for mut chunk in b"A: b\r\n\r\nbody\r\n\r\n.\r\n".chunks(3) {
            reader.read(&mut chunk, &mut body);
        }
        assert_eq!(body.header_end(), Some(8));
    }
}
