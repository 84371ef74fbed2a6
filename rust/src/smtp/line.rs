//! Command lines out of a byte stream.

use std::fmt;

use memchr::{memchr, memchr2};

use zeroize::Zeroize;

use super::limits::{MAX_AUTH_LINE, MAX_COMMAND_LINE};

/// What the next bytes hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The input ends before the line does.
    Incomplete,
    /// A whole line, without its CRLF.
    Complete(&'a [u8]),
    /// Over the limit of a command; its rest is dropped. With how it begins.
    TooLong(Beginning),
    /// Over the limit of AUTH; its rest is dropped.
    AuthTooLong,
    /// A CR or LF that is not part of a CRLF; the rest up to the next CRLF is dropped. With how it begins.
    ///
    /// A bare newline must not start a command (SMTP smuggling), so nothing behind it is looked at.
    Malformed(Beginning),
}

/// How long a line may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Longest {
    /// A command.
    Command,
    /// A command, and longer than others where it is AUTH: with its initial response.
    MaybeAuth,
    /// An answer to a challenge of AUTH.
    Answer,
}
/// The first octets of a line that is dropped; NULs where it has fewer.
pub type Beginning = [u8; 4];

/// Collects a line over as many inputs as it takes; holds nothing between lines.
#[derive(Default)]
pub struct LineReader {
    partial: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Reading,
    /// Dropping the rest of a refused line; `true` after a CR.
    Dropping(bool),
}

impl LineReader {
    /// Takes one line from `input`, or all of `input` when the line is not complete.
    ///
    /// The line is borrowed from `input` where it lies there whole: nothing is copied then.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8], longest: Longest) -> Line<'s> {
        if let State::Dropping(after_cr) = self.state
            && !self.drop_rest(input, after_cr)
        {
            return Line::Incomplete;
        }
        let limit = self.limit(input, longest);
        let room = limit.saturating_sub(self.partial.len());
        let (seen, behind) = input.split_at_checked(room).unwrap_or((input, &[]));
        match line_end(&self.partial, seen) {
            LineEnd::At(end) => {
                let (line, rest) = input.split_at_checked(end).unwrap_or((input, &[]));
                *input = rest;
                if self.partial.is_empty() {
                    return Line::Complete(line.strip_suffix(b"\r\n").unwrap_or(line));
                }
                self.partial.extend_from_slice(line);
                Line::Complete(self.partial.strip_suffix(b"\r\n").unwrap_or(&self.partial))
            }
            LineEnd::Malformed(at, after_cr) => {
                let (line, rest) = input.split_at_checked(at).unwrap_or((input, &[]));
                *input = rest;
                Line::Malformed(self.refuse(line, after_cr))
            }
            LineEnd::None if seen.len() >= room => {
                *input = behind;
                let beginning = self.refuse(seen, seen.last() == Some(&b'\r'));
                if limit > MAX_COMMAND_LINE { Line::AuthTooLong } else { Line::TooLong(beginning) }
            }
            LineEnd::None => {
                self.partial.extend_from_slice(seen);
                *input = behind;
                Line::Incomplete
            }
        }
    }

    /// Forgets a line that was handed out; call it before the next one is asked for.
    pub fn clear(&mut self) {
        // Most lines lie in the input: nothing was copied.
        if self.partial.capacity() > 0 {
            // It may have held a password. Dropped, not cleared: an idle connection holds no buffer.
            self.partial.zeroize();
            self.partial = Vec::new();
        }
    }

    /// Whether a line has begun.
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.state == State::Reading
    }

    /// Octets of the line that has begun. What it is is known long before it is as long as that.
    fn limit(&self, input: &[u8], longest: Longest) -> usize {
        const VERB: &[u8] = b"AUTH ";
        let is_auth = || {
            let begun = self.partial.iter().chain(input).take(VERB.len());
            begun.map(u8::to_ascii_uppercase).eq(VERB.iter().copied())
        };
        let is_long = self.partial.len() + input.len() >= MAX_COMMAND_LINE;
        match longest {
            Longest::Answer => MAX_AUTH_LINE,
            Longest::MaybeAuth if is_long && is_auth() => MAX_AUTH_LINE,
            Longest::MaybeAuth | Longest::Command => MAX_COMMAND_LINE,
        }
    }

    /// Drops the line, to which `seen` belongs too, and gives how it begins.
    fn refuse(&mut self, seen: &[u8], after_cr: bool) -> Beginning {
        self.state = State::Dropping(after_cr);
        let mut beginning = Beginning::default();
        for (to, octet) in beginning.iter_mut().zip(self.partial.iter().chain(seen)) {
            *to = *octet;
        }
        self.clear();
        beginning
    }

    /// Drops up to and with the next CRLF; `true` when it was found.
    fn drop_rest(&mut self, input: &mut &[u8], mut after_cr: bool) -> bool {
        while let Some(at) = memchr(b'\n', input) {
            let ended = match at.checked_sub(1) {
                None => after_cr,
                Some(before) => input.get(before) == Some(&b'\r'),
            };
            *input = input.get(at + 1..).unwrap_or(&[]);
            after_cr = false;
            if ended {
                self.state = State::Reading;
                return true;
            }
        }
        if let Some(last) = input.last() {
            after_cr = *last == b'\r';
        }
        *input = &[];
        self.state = State::Dropping(after_cr);
        false
    }
}

/// Without its octets, which may be those of a password.
impl fmt::Debug for LineReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partial, state } = self;
        f.debug_struct("LineReader").field("partial", &partial.len()).field("state", state).finish()
    }
}

enum LineEnd {
    None,
    /// Offset behind the CRLF.
    At(usize),
    /// Offset of the first byte to drop, and whether the byte before it is a CR.
    Malformed(usize, bool),
}

/// Looks for the first of CRLF, bare CR or bare LF in what follows `partial`.
fn line_end(partial: &[u8], seen: &[u8]) -> LineEnd {
    let after_cr = partial.last() == Some(&b'\r');
    if after_cr {
        match seen.first() {
            Some(b'\n') => return LineEnd::At(1),
            Some(_) => return LineEnd::Malformed(0, true),
            None => return LineEnd::None,
        }
    }
    let Some(at) = memchr2(b'\r', b'\n', seen) else {
        return LineEnd::None;
    };
    match (seen.get(at), seen.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => LineEnd::At(at + 2),
        (Some(b'\r'), None) => LineEnd::None,
        (Some(b'\r'), Some(_)) => LineEnd::Malformed(at + 1, true),
        _ => LineEnd::Malformed(at + 1, false),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Line(String),
        TooLong(Beginning),
        AuthTooLong,
        Malformed(Beginning),
    }

    fn read(chunks: &[&[u8]], longest: Longest) -> Vec<Seen> {
        let mut reader = LineReader::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            let mut input = *chunk;
            loop {
                match reader.next(&mut input, longest) {
                    Line::Incomplete => break,
                    Line::Complete(line) => {
                        seen.push(Seen::Line(String::from_utf8(line.to_vec()).unwrap()));
                    }
                    Line::TooLong(beginning) => seen.push(Seen::TooLong(beginning)),
                    Line::AuthTooLong => seen.push(Seen::AuthTooLong),
                    Line::Malformed(beginning) => seen.push(Seen::Malformed(beginning)),
                }
                reader.clear();
            }
            assert!(input.is_empty());
        }
        seen
    }

    fn whole_and_bytewise(input: &[u8]) -> Vec<Seen> {
        whole_and_bytewise_of(input, Longest::Command)
    }

    fn whole_and_bytewise_of(input: &[u8], longest: Longest) -> Vec<Seen> {
        let whole = read(&[input], longest);
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(whole, read(&bytes, longest), "{:?}", String::from_utf8_lossy(input));
        whole
    }

    fn line(text: &str) -> Seen {
        Seen::Line(text.to_owned())
    }

    #[test]
    fn crlf_ends_a_line() {
        assert_eq!(
            whole_and_bytewise(b"NOOP\r\n\r\nQUIT\r\npart"),
            [line("NOOP"), line(""), line("QUIT")]
        );
    }

    #[test]
    fn a_bare_newline_is_refused_and_starts_no_command() {
        for (input, beginning) in [
            (&b"A\nB\r\nC\r\n"[..], b"A\n\0\0"),
            (b"A\rB\r\nC\r\n", b"A\r\0\0"),
            (b"A\r\rB\n\r\nC\r\n", b"A\r\0\0"),
            (b"\nB\r\nC\r\n", b"\n\0\0\0"),
            (b"A\r\r\nC\r\n", b"A\r\0\0"),
            (b"BDAT 5\n12345C\r\nC\r\n", b"BDAT"),
        ] {
            assert_eq!(whole_and_bytewise(input), [Seen::Malformed(*beginning), line("C")]);
        }
    }

    #[test]
    fn the_limit_counts_the_crlf_and_the_rest_is_dropped() {
        let longest = "x".repeat(MAX_COMMAND_LINE - 2);
        for (extra, expected) in
            [("", line(&longest)), ("x", Seen::TooLong(*b"xxxx")), ("xx", Seen::TooLong(*b"xxxx"))]
        {
            let input = format!("{longest}{extra}\r\nC\r\n");
            assert_eq!(whole_and_bytewise(input.as_bytes()), [expected, line("C")]);
        }
        let endless = "y".repeat(100_000);
        assert_eq!(
            whole_and_bytewise(format!("{endless}\n\r\r\nC\r\n").as_bytes()),
            [Seen::TooLong(*b"yyyy"), line("C")]
        );
    }

    #[test]
    fn auth_and_its_answers_may_be_longer() {
        let long = |length: usize, verb: &str| format!("{verb}{}", "x".repeat(length - verb.len()));
        let longest = long(MAX_AUTH_LINE - 2, "auth PLAIN ");
        let over = format!("{longest}x");
        for (text, longest, expected) in [
            (&longest, Longest::MaybeAuth, line(&longest)),
            (&over, Longest::MaybeAuth, Seen::AuthTooLong),
            (&longest, Longest::Command, Seen::TooLong(*b"auth")),
            (
                &long(MAX_COMMAND_LINE - 2, "AUTHX"),
                Longest::MaybeAuth,
                line(&long(MAX_COMMAND_LINE - 2, "AUTHX")),
            ),
            (&long(MAX_COMMAND_LINE - 1, "AUTHX"), Longest::MaybeAuth, Seen::TooLong(*b"AUTH")),
            (&long(MAX_COMMAND_LINE - 1, "NOOP "), Longest::MaybeAuth, Seen::TooLong(*b"NOOP")),
            (&long(MAX_AUTH_LINE - 2, ""), Longest::Answer, line(&long(MAX_AUTH_LINE - 2, ""))),
            (&over, Longest::Answer, Seen::AuthTooLong),
        ] {
            let input = format!("{text}\r\nC\r\n");
            assert_eq!(whole_and_bytewise_of(input.as_bytes(), longest), [expected, line("C")]);
        }
    }

    #[test]
    fn nothing_is_kept_between_lines() {
        let mut reader = LineReader::default();
        assert_eq!(reader.next(&mut &b"NO"[..], Longest::Command), Line::Incomplete);
        assert!(!reader.is_empty());
        assert_eq!(reader.next(&mut &b"OP\r\n"[..], Longest::Command), Line::Complete(b"NOOP"));
        reader.clear();
        assert!(reader.is_empty());
        assert_eq!(reader.partial.capacity(), 0);
    }
}
