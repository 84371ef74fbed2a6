//! The chunks of BDAT (RFC 3030 §2): so many octets, whatever they are.
//!
//! Nothing in a chunk ends it, nothing is unstuffed and no bare newline is looked for: only the size counts.
//! So the size is all that tells content from commands, and where it cannot be read the session ends.

use super::data::Ending;
use super::error::PeerError;
use crate::buffer::Body;
use crate::mail::header::HeaderEnd;

/// The verb, which is looked for in lines that cannot be read as well.
const VERB: &[u8; 4] = b"BDAT";

/// What BDAT announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its octets.
    pub size: u64,
    /// Whether the message ends with it.
    pub last: bool,
}

impl Chunk {
    /// Parses what stands behind the verb: `size` or `size LAST`.
    pub(super) fn parse(argument: &[u8]) -> Result<Self, PeerError> {
        let mut words = argument.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
        let size = words.next().and_then(number).ok_or(PeerError::ChunkSyntax)?;
        let last = match words.next() {
            None => false,
            Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
            Some(_) => return Err(PeerError::ChunkSyntax),
        };
        if words.next().is_some() { Err(PeerError::ChunkSyntax) } else { Ok(Self { size, last }) }
    }

    /// Whether a line that begins so might announce one.
    pub(super) fn is_announced(line: &[u8]) -> bool {
        line.get(..VERB.len()).is_some_and(|verb| verb.eq_ignore_ascii_case(VERB))
    }
}

/// Digits alone: no sign, and no more than 64 bits hold.
fn number(word: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(word).ok()?;
    digits.bytes().all(|octet| octet.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Stores the chunks of one message in a [`Body`].
#[derive(Debug)]
pub struct ChunkReader {
    header: HeaderEnd,
}

impl ChunkReader {
    /// A reader at the start of a message whose header section is looked for in `max_header_size` octets.
    pub fn new(max_header_size: usize) -> Self {
        Self { header: HeaderEnd::new(max_header_size) }
    }

    /// Takes octets until none are left of the chunk or of the input, or until the body is behind.
    pub fn read(&mut self, input: &mut &[u8], left: &mut u64, body: &mut Body) -> Ending {
        while *left > 0 {
            body.settle();
            if body.is_behind() {
                return Ending::Behind;
            }
            // At least one, so that this comes to an end whatever the body says.
            let piece = take(input, left, body.appetite().max(1));
            if piece.is_empty() {
                return Ending::Open;
            }
            body.push(piece);
            if body.fault().is_none() {
                let end = self.header.update(body.as_slice());
                body.set_header_end(end);
            }
        }
        Ending::Complete
    }
}

/// Drops octets until none are left of the chunk or of the input.
pub(super) fn drop_octets(input: &mut &[u8], left: &mut u64) -> Ending {
    take(input, left, usize::MAX);
    if *left > 0 { Ending::Open } else { Ending::Complete }
}

/// The next octets of the chunk, `most` of them at most.
fn take<'a>(input: &mut &'a [u8], left: &mut u64, most: usize) -> &'a [u8] {
    let most = most.min(usize::try_from(*left).unwrap_or(usize::MAX)).min(input.len());
    let (piece, rest) = input.split_at_checked(most).unwrap_or((input, &[]));
    *input = rest;
    *left -= piece.len() as u64;
    piece
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::buffer::Budget;

    #[test]
    fn a_size_is_digits_and_only_last_may_follow() {
        for (argument, size, last) in [
            (&b" 0"[..], 0, false),
            (b" 5 LAST", 5, true),
            (b"  00005   last", 5, true),
            (b" 18446744073709551615", u64::MAX, false),
        ] {
            assert_eq!(Chunk::parse(argument), Ok(Chunk { size, last }), "{argument:?}");
        }
        for argument in [
            &b""[..],
            b" ",
            b" LAST",
            b" -1",
            b" +1",
            b" 0x10",
            b" 1.0",
            b" 1,000",
            b" 1LAST",
            b" 1 FIRST",
            b" 1 LAST LAST",
            b" 1 2",
            b" \xd9\xa1",
            b" 18446744073709551616",
            b" 99999999999999999999999999999999999999999",
        ] {
            assert_eq!(Chunk::parse(argument), Err(PeerError::ChunkSyntax), "{argument:?}");
        }
    }

    #[test]
    fn octets_are_stored_as_they_are_until_none_are_left() {
        let message = b"A: b\r\n\r\n.\r\n\r\n.\r\n\n.\r.\0\xff";
        for size in 1..=message.len() {
            let mut body = Body::take(&Budget::new(1 << 20), None, 0).unwrap();
            let mut reader = ChunkReader::new(1 << 20);
            let mut left = message.len() as u64;
            let sent = [&message[..], b"BDAT"].concat();
            let mut behind = Vec::new();
            for mut piece in sent.chunks(size) {
                let ending = reader.read(&mut piece, &mut left, &mut body);
                assert_eq!(ending == Ending::Complete, left == 0);
                behind.extend_from_slice(piece);
            }
            assert_eq!(body.as_slice(), message);
            assert_eq!(body.header_end(), Some(8));
            assert_eq!(behind, b"BDAT");
        }
    }

    #[test]
    fn a_line_announces_a_chunk_by_its_verb() {
        assert!(Chunk::is_announced(b"bdat 1\t"));
        assert!(Chunk::is_announced(b"BDAT"));
        assert!(!Chunk::is_announced(b"BDA"));
        assert!(!Chunk::is_announced(b"DATA"));
    }
}
