//! The messages that are sent: made to a size, or given.

use std::ops::RangeInclusive;

/// Octets of a line of a made message, with its CRLF.
const LINE: usize = 78;
/// Octets that are written at a time, whole lines: what a sender holds of a message of any size.
const PORTION: usize = LINE * 840;
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Digits of the number that makes a message unlike the others.
const DIGITS: usize = 12;

/// What is sent. The same number is the same message.
#[derive(Debug)]
pub enum Mails {
    /// Made ones.
    Made(Made),
    /// These, one after the other.
    Given(Vec<Given>),
}

/// A message from elsewhere.
#[derive(Debug)]
pub struct Given {
    /// With its final dot, and dots doubled.
    octets: Vec<u8>,
    size: u64,
    is_8bit: bool,
}

impl Given {
    /// A message whose lines end with CRLF.
    pub fn new(message: &[u8]) -> Self {
        let mut octets = Vec::with_capacity(message.len() + message.len() / 64 + 5);
        for line in message.split_inclusive(|octet| *octet == b'\n') {
            if line.first() == Some(&b'.') {
                octets.push(b'.');
            }
            octets.extend_from_slice(line);
        }
        let is_ended = octets.is_empty() || octets.ends_with(b"\r\n");
        octets.extend_from_slice(if is_ended { b".\r\n" } else { b"\r\n.\r\n" });
        let size = message.len() + if is_ended { 0 } else { 2 };
        Self { octets, size: count(size), is_8bit: !message.is_ascii() }
    }
}

/// Messages of a header section, and of lines that no compression makes small.
#[derive(Debug)]
pub struct Made {
    /// The header section with its empty line, in the pieces between which the number stands.
    header: Vec<Vec<u8>>,
    sizes: RangeInclusive<u64>,
    lines: Vec<u8>,
}

impl Made {
    /// Messages of these sizes, in octets; each as often as the others.
    ///
    /// Fails with the least size that has room for the header section, where one is smaller.
    pub fn new(header: Vec<Vec<u8>>, sizes: RangeInclusive<u64>) -> Result<Self, u64> {
        let made = Self { header, sizes, lines: lines() };
        // An empty line at least.
        let least = made.header_size() + 2;
        if *made.sizes.start() < least { Err(least) } else { Ok(made) }
    }

    fn header_size(&self) -> u64 {
        let text: usize = self.header.iter().map(Vec::len).sum();
        count(text + self.header.len().saturating_sub(1) * DIGITS)
    }

    fn size(&self, number: u64) -> u64 {
        let (least, most) = (*self.sizes.start(), *self.sizes.end());
        let span = most.saturating_sub(least).saturating_add(1);
        least + mixed(number) % span
    }

    /// Octets of whole lines behind the header section, and of the one that fills up.
    fn body(&self, number: u64) -> (u64, u64) {
        let body = self.size(number).saturating_sub(self.header_size());
        let line = count(LINE);
        match body % line {
            // A line of one octet could not end with CRLF.
            1 => (body - 1 - line, line + 1),
            rest => (body - rest, rest),
        }
    }

    fn write(&self, number: u64, portion: u64, output: &mut Vec<u8>) -> bool {
        if portion == 0 {
            for (index, piece) in self.header.iter().enumerate() {
                if index > 0 {
                    output.extend_from_slice(format!("{number:0DIGITS$}").as_bytes());
                }
                output.extend_from_slice(piece);
            }
        }
        let (whole, rest) = self.body(number);
        let left = whole.saturating_sub(portion.saturating_mul(count(PORTION)));
        let length = usize::try_from(left).unwrap_or(PORTION).min(PORTION);
        output.extend_from_slice(self.lines.get(..length).unwrap_or_default());
        if count(length) < left {
            return true;
        }
        if rest > 0 {
            let filling = usize::try_from(rest - 2).unwrap_or(0);
            output.extend(std::iter::repeat_n(b'x', filling));
            output.extend_from_slice(b"\r\n");
        }
        output.extend_from_slice(b".\r\n");
        false
    }
}

impl Mails {
    /// Octets of a message, its final dot and doubled dots not among them.
    pub fn size(&self, number: u64) -> u64 {
        match self {
            Self::Made(made) => made.size(number),
            Self::Given(given) => pick(given, number).map_or(0, |mail| mail.size),
        }
    }

    /// Whether it has octets that are not ASCII.
    pub fn is_8bit(&self, number: u64) -> bool {
        match self {
            Self::Made(_) => false,
            Self::Given(given) => pick(given, number).is_some_and(|mail| mail.is_8bit),
        }
    }

    /// Appends a portion of a message as DATA has it, the first is 0; whether there is another one.
    pub fn write(&self, number: u64, portion: u64, output: &mut Vec<u8>) -> bool {
        match self {
            Self::Made(made) => made.write(number, portion, output),
            Self::Given(given) => {
                let octets = pick(given, number).map_or(&b".\r\n"[..], |mail| &mail.octets);
                let begin = usize::try_from(portion).unwrap_or(usize::MAX).saturating_mul(PORTION);
                let rest = octets.get(begin..).unwrap_or_default();
                output.extend_from_slice(rest.get(..PORTION).unwrap_or(rest));
                rest.len() > PORTION
            }
        }
    }
}

fn pick(given: &[Given], number: u64) -> Option<&Given> {
    let index = number.checked_rem(count(given.len()))?;
    given.get(usize::try_from(index).ok()?)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Lines of letters by chance, the same each time: no text, but as long as lines of base64 are.
fn lines() -> Vec<u8> {
    let mut lines = Vec::with_capacity(PORTION);
    for number in (0_u64..).take(PORTION) {
        lines.push(match lines.len() % LINE {
            76 => b'\r',
            77 => b'\n',
            _ => *LETTERS.get(usize::from(mixed(number).to_le_bytes()[0] & 63)).unwrap_or(&b'A'),
        });
    }
    lines
}

/// The mixing of `SplitMix64`: numbers in a row become what looks like chance.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn made(sizes: RangeInclusive<u64>) -> Mails {
        let header =
            vec![b"Subject: ".to_vec(), b"\r\nMessage-ID: <".to_vec(), b"@x>\r\n\r\n".to_vec()];
        Mails::Made(Made::new(header, sizes).unwrap())
    }

    fn whole(mails: &Mails, number: u64) -> Vec<u8> {
        let mut octets = Vec::new();
        for portion in 0.. {
            if !mails.write(number, portion, &mut octets) {
                break;
            }
        }
        octets
    }

    fn is_well_formed(octets: &[u8]) -> bool {
        let text = octets.strip_suffix(b".\r\n").unwrap();
        let lines: Vec<_> = text.split_inclusive(|octet| *octet == b'\n').collect();
        lines.iter().all(|line| {
            line.ends_with(b"\r\n")
                && line.len() <= 998
                && !line.starts_with(b".")
                && memchr::memchr_iter(b'\r', line).count() == 1
        })
    }

    #[test]
    fn a_made_message_has_exactly_its_size() {
        let header = 9 + 15 + 7 + 24;
        for size in (header + 2..header + 400).chain([4_096, 1 << 20, 65_520 + 60, 65_520 * 3]) {
            let mails = made(size..=size);
            let octets = whole(&mails, 7);
            assert_eq!(count(octets.len()), size + 3, "{size}");
            assert_eq!(mails.size(7), size);
            assert!(is_well_formed(&octets), "{size}");
        }
    }

    #[test]
    fn sizes_of_a_range_are_all_over_it_and_the_same_each_time() {
        let mails = made(1_000..=2_000);
        let sizes: Vec<u64> = (0..4_000).map(|number| mails.size(number)).collect();
        assert!(sizes.iter().all(|size| (1_000..=2_000).contains(size)));
        let mean = sizes.iter().sum::<u64>() / 4_000;
        assert!((1_450..1_550).contains(&mean), "{mean}");
        assert_eq!(count(whole(&mails, 5).len()), mails.size(5) + 3);
        assert_ne!(whole(&mails, 1), whole(&mails, 2));
    }

    #[test]
    fn a_size_without_room_for_the_header_section_is_refused_with_the_least() {
        let header = vec![vec![b'x'; 100]];
        assert_eq!(Made::new(header.clone(), 50..=2_000).unwrap_err(), 102);
        assert!(Made::new(header, 102..=2_000).is_ok());
    }

    #[test]
    fn given_messages_have_their_dots_doubled_and_an_end() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"", b".\r\n"),
            (b"a\r\n.\r\n", b"a\r\n..\r\n.\r\n"),
            (b".a", b"..a\r\n.\r\n"),
            (b"a\r\n\r\n..b\r\n", b"a\r\n\r\n...b\r\n.\r\n"),
            (b"\xe4\r\n", b"\xe4\r\n.\r\n"),
        ];
        for (message, expected) in cases {
            let mails = Mails::Given(vec![Given::new(message)]);
            assert_eq!(whole(&mails, 3), expected);
            assert_eq!(mails.is_8bit(3), message == b"\xe4\r\n");
        }
        let long = vec![b'a'; PORTION + 5];
        let mails = Mails::Given(vec![Given::new(&long), Given::new(b"b")]);
        assert_eq!(whole(&mails, 0), [&long[..], b"\r\n.\r\n"].concat());
        assert_eq!(mails.size(0), count(PORTION) + 7);
        assert_eq!(whole(&mails, 1), b"b\r\n.\r\n");
    }
}
