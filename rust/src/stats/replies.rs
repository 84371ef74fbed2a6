//! How often each reply code was sent.

use std::array;

use memchr::memchr;

use super::Counter;

/// Reply codes are three digits, of which the first is 2 to 5 (RFC 5321 §4.2).
const FIRST: usize = 200;
const CODES: usize = 400;

fn named((at, count): (usize, u64)) -> (String, u64) {
    (format!("replies_{}", FIRST + at), count)
}

/// A counter for each code.
#[derive(Debug)]
#[repr(transparent)]
pub struct Replies([Counter; CODES]);

impl Default for Replies {
    fn default() -> Self {
        Self(array::from_fn(|_| Counter::default()))
    }
}

impl Replies {
    /// Counts the replies in what is sent, and gives their number: a reply is its last line, whose code a space follows.
    pub fn count(&self, sent: &[u8]) -> u64 {
        let (mut rest, mut count) = (sent, 0);
        loop {
            if let [first, second, third, b' ', ..] = rest
                && let Some(counter) = self.of([*first, *second, *third])
            {
                counter.add();
                count += 1;
            }
            let Some(end) = memchr(b'\n', rest) else { return count };
            rest = rest.get(end + 1..).unwrap_or_default();
        }
    }

    fn of(&self, digits: [u8; 3]) -> Option<&Counter> {
        let code = digits.iter().try_fold(0, |code, digit| {
            let is_digit = digit.is_ascii_digit();
            is_digit.then(|| 10 * code + usize::from(digit - b'0'))
        })?;
        self.0.get(code.checked_sub(FIRST)?)
    }

    /// `replies_250` and its like, of those that were sent.
    pub fn snapshot(&self) -> impl Iterator<Item = (String, u64)> {
        let sent = self.0.iter().enumerate().map(|(at, counter)| (at, counter.get()));
        sent.filter(|(_, count)| *count > 0).map(named)
    }

    /// The same, of those that were not sent as well.
    pub(crate) fn all(&self) -> impl Iterator<Item = (String, u64)> {
        self.0.iter().enumerate().map(|(at, counter)| named((at, counter.get())))
    }

    /// Takes over what a process that is gone has counted, and leaves zeros there.
    pub(crate) fn absorb(&self, gone: &Self) {
        for (ours, theirs) in self.0.iter().zip(&gone.0) {
            ours.add_many(theirs.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reply_counts_once_however_many_lines_it_has() {
        let replies = Replies::default();
        let sent = b"220 mx\r\n250-mx\r\n250-SIZE 1\r\n250 HELP\r\n250 OK\r\n550 5.1.1 who\r\n";
        assert_eq!(replies.count(sent), 4);
        assert_eq!(replies.count(b"250 OK\r\n 250 \r\n99 x\r\n999 x\r\n250"), 1);
        let found: Vec<_> = replies.snapshot().collect();
        let expected = [("replies_220", 1), ("replies_250", 3), ("replies_550", 1)];
        assert_eq!(found, expected.map(|(name, count)| (name.to_owned(), count)));
    }
}
