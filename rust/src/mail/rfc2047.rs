//! Encoded words in header values (RFC 2047, with the language tags of RFC 2231 §5), read as
//! tolerantly as mail clients read them.
//!
//! - A word is decoded wherever it stands: inside a text without white space around it, inside a
//!   quoted string, and over 75 bytes long. Its text may hold white space and 8-bit bytes.
//! - White space between two words is dropped, and words of the same charset are joined as bytes
//!   before these become text, because senders do cut words inside a character.
//! - A word that cannot be decoded stays as it was sent: one with an unknown encoding or charset,
//!   or with base64 that is none. Only a bad `=XX` in a Q word stays alone, beside the rest of the
//!   word decoded.
//! - Bytes that are wrong in a known charset become U+FFFD.
//! - CR, LF and NUL become spaces, encoded or not, so that a decoded value written into a header or
//!   a log is one line.

use encoding_rs::{Encoding, REPLACEMENT, UTF_16BE, UTF_16LE};
use memchr::{memchr3, memmem};

use super::header::to_text;

/// Decodes bytes of a charset that `encoding_rs` does not know: the label in lower case, and the bytes.
pub type Decode<'a> = &'a dyn Fn(&str, &[u8]) -> Option<String>;

/// Decodes the encoded words of an unfolded value.
///
/// `decode_charset` is asked for the charsets that `encoding_rs` does not know, with the label in
/// lower case and the bytes; it returns `None` when it does not know it either. It should put
/// U+FFFD for wrong bytes.
pub fn decode(value: &[u8], decode_charset: Decode<'_>) -> String {
    let text = if memmem::find(value, b"=?").is_some() {
        Decoder {
            value,
            decode_charset,
            text: String::with_capacity(value.len()),
            done: 0,
            after_word: false,
        }
        .run()
    } else {
        to_text(value)
    };
    match memchr3(b'\r', b'\n', b'\0', text.as_bytes()) {
        Some(_) => text.replace(['\r', '\n', '\0'], " "),
        None => text,
    }
}

/// An encoded word, found but not decoded.
struct Word<'a> {
    start: usize,
    end: usize,
    charset: &'a [u8],
    bytes: Vec<u8>,
}

/// Adjacent words of one charset.
struct Run<'a> {
    start: usize,
    end: usize,
    charset: &'a [u8],
    words: Vec<Vec<u8>>,
}

struct Decoder<'a> {
    value: &'a [u8],
    decode_charset: Decode<'a>,
    text: String,
    /// How much of the value is in `text`.
    done: usize,
    /// Whether `text` ends with a decoded word.
    after_word: bool,
}

impl<'a> Decoder<'a> {
    fn run(mut self) -> String {
        let mut run: Option<Run<'a>> = None;
        for word in Words::new(self.value) {
            match &mut run {
                Some(run) if run.takes(&word, self.value) => run.push(word),
                _ => {
                    if let Some(run) = run.replace(Run::new(word)) {
                        self.write_run(&run);
                    }
                }
            }
        }
        if let Some(run) = run {
            self.write_run(&run);
        }
        self.write_plain(self.value.len());
        self.text
    }

    /// Writes what stands before the run, then the run: as it was sent if its charset is unknown.
    fn write_run(&mut self, run: &Run<'_>) {
        let Some(decoded) = run.decode(self.decode_charset) else {
            return self.write_plain(run.end);
        };
        if !(self.after_word && is_blank(self.value.get(self.done..run.start).unwrap_or_default()))
        {
            self.write_plain(run.start);
        }
        self.text.push_str(&decoded);
        self.done = run.end;
        self.after_word = true;
    }

    /// Writes the value up to `end` as it was sent.
    fn write_plain(&mut self, end: usize) {
        let plain = self.value.get(self.done..end).unwrap_or_default();
        if !plain.is_empty() {
            self.text.push_str(&to_text(plain));
            self.after_word = false;
        }
        self.done = end;
    }
}

impl<'a> Run<'a> {
    fn new(word: Word<'a>) -> Self {
        Self { start: word.start, end: word.end, charset: word.charset, words: vec![word.bytes] }
    }

    /// Whether nothing but white space parts the word from this run of the same charset.
    fn takes(&self, word: &Word<'_>, value: &[u8]) -> bool {
        word.charset.eq_ignore_ascii_case(self.charset)
            && is_blank(value.get(self.end..word.start).unwrap_or_default())
    }

    fn push(&mut self, word: Word<'_>) {
        self.end = word.end;
        self.words.push(word.bytes);
    }

    fn decode(&self, decode_charset: Decode<'_>) -> Option<String> {
        let decode = |bytes: &[u8]| to_unicode(self.charset, bytes, decode_charset);
        match self.words.as_slice() {
            [word] => decode(word),
            words => match shifts(self.charset) {
                Shifts::None => decode(&words.concat()),
                Shifts::Undone => decode(&words.concat())
                    .filter(|text| is_valid(text))
                    .or_else(|| decode_each(words, decode))
                    .or_else(|| decode(&words.concat())),
                Shifts::EndWithText => {
                    decode_each(words, decode).or_else(|| decode(&words.concat()))
                }
            },
        }
    }
}

/// Decodes words that each start in the charset's first state; `None` when one of them is not valid
/// alone.
fn decode_each(words: &[Vec<u8>], decode: impl Fn(&[u8]) -> Option<String>) -> Option<String> {
    words.iter().map(|word| decode(word).filter(|text| is_valid(text))).collect()
}

fn is_valid(text: &str) -> bool {
    !text.contains(char::REPLACEMENT_CHARACTER)
}

/// The text of bytes in a charset; `None` when nobody knows that.
pub(super) fn to_unicode(
    charset: &[u8],
    bytes: &[u8],
    decode_charset: Decode<'_>,
) -> Option<String> {
    match Encoding::for_label(charset) {
        // What the web forbids (ISO-2022-KR, HZ) is known to encoding_rs by name only.
        Some(encoding) if encoding != REPLACEMENT => Some(decode_known(encoding, bytes)),
        _ => decode_charset(&String::from_utf8_lossy(charset).to_ascii_lowercase(), bytes),
    }
}

fn decode_known(encoding: &'static Encoding, bytes: &[u8]) -> String {
    let text = if encoding == UTF_16LE || encoding == UTF_16BE {
        // The label "utf-16" leaves the byte order to the byte order mark.
        encoding.decode(bytes).0
    } else {
        encoding.decode_with_bom_removal(bytes).0
    };
    text.into_owned()
}

/// Whether a charset has shift sequences, so that the end of one word may not be the state in which
/// the next begins.
enum Shifts {
    None,
    /// A text must undo its last shift (RFC 1468, RFC 1557, RFC 1843). A word that does not was cut
    /// from a longer text, which goes on shifted in the next word; but joined whole words can have
    /// two shifts in a row, which some decoders call an error.
    Undone,
    /// The end of the text undoes it (RFC 2152): whole words joined would be another text.
    EndWithText,
}

fn shifts(charset: &[u8]) -> Shifts {
    let starts_with = |prefix: &[u8]| {
        charset.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if starts_with(b"utf-7") {
        Shifts::EndWithText
    } else if starts_with(b"iso-2022") || starts_with(b"csiso2022") || starts_with(b"hz") {
        Shifts::Undone
    } else {
        Shifts::None
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// The well-formed encoded words of a value, in order.
struct Words<'a> {
    value: &'a [u8],
    position: usize,
    /// The first `?=` at or after the last place where one was looked for, so that a thousand
    /// openings before one far end do not search for it a thousand times.
    closing: Option<usize>,
}

impl<'a> Words<'a> {
    fn new(value: &'a [u8]) -> Self {
        Self { value, position: 0, closing: memmem::find(value, b"?=") }
    }

    fn search(&self, needle: &[u8], from: usize) -> Option<usize> {
        Some(from + memmem::find(self.value.get(from..)?, needle)?)
    }

    /// Where the `?=` is that ends a word whose text starts at `from`.
    fn closing(&mut self, from: usize) -> Option<usize> {
        if self.closing? < from {
            self.closing = self.search(b"?=", from);
        }
        self.closing
    }

    /// Reads the word that opens at `start`. `Err` is where to look for the next one.
    fn word(&mut self, start: usize) -> Result<Word<'a>, usize> {
        let after_opening = start + 2;
        let opening = self.value.get(after_opening..).unwrap_or_default();
        let charset_len =
            opening.iter().position(|&byte| !is_charset_byte(byte)).ok_or(self.value.len())?;
        let (charset, rest) = opening.split_at(charset_len);
        let [b'?', encoding, b'?', ..] = rest else {
            return Err(after_opening);
        };
        let text_start = after_opening + charset_len + 3;
        let text_end = self.closing(text_start).ok_or(self.value.len())?;
        let text = self.value.get(text_start..text_end).unwrap_or_default();
        if let Some(inner) = memmem::find(text, b"=?") {
            // This word was never closed; the end belongs to one that opens inside it.
            return Err(text_start + inner);
        }
        let end = text_end + 2;
        let bytes = match encoding {
            b'q' | b'Q' => Some(decode_q(text)),
            b'b' | b'B' => decode_b(text),
            _ => None,
        };
        let charset = charset.split(|&byte| byte == b'*').next().unwrap_or_default();
        // Some senders quote it, as if it were a MIME parameter.
        let charset = charset.strip_prefix(b"\"").unwrap_or(charset);
        let charset = charset.strip_suffix(b"\"").unwrap_or(charset);
        let bytes = bytes.filter(|_| !charset.is_empty()).ok_or(end)?;
        Ok(Word { start, end, charset, bytes })
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        loop {
            let start = self.search(b"=?", self.position)?;
            match self.word(start) {
                Ok(word) => {
                    self.position = word.end;
                    return Some(word);
                }
                Err(next) => self.position = next,
            }
        }
    }
}

/// A byte of a charset or of the language after it. `=` is none, so that openings in a row are each
/// read once.
fn is_charset_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'?' && byte != b'='
}

/// Decodes the Q encoding (RFC 2047 §4.2). A `=` without two hexadecimal digits stays.
fn decode_q(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'_', _) => bytes.push(b' '),
            (b'=', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = tail;
                }
                _ => bytes.push(b'='),
            },
            _ => bytes.push(first),
        }
    }
    bytes
}

pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Decodes base64 with white space anywhere, with padding missing, in excess or between joined
/// pieces.
///
/// `None` when another character stands in it, or when a single digit is left over: that is less
/// than a byte.
fn decode_b(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let mut group: u32 = 0;
    let mut digits = 0;
    for &byte in text {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'=' => {
                end_group(group, digits, &mut bytes)?;
                (group, digits) = (0, 0);
                continue;
            }
            _ => group = group << 6 | u32::from(base64_digit(byte)?),
        }
        digits += 1;
        if digits == 4 {
            let [_, a, b, c] = group.to_be_bytes();
            bytes.extend_from_slice(&[a, b, c]);
            (group, digits) = (0, 0);
        }
    }
    end_group(group, digits, &mut bytes)?;
    Some(bytes)
}

/// Writes the whole bytes in a group that has fewer than four digits.
fn end_group(group: u32, digits: u32, bytes: &mut Vec<u8>) -> Option<()> {
    match (digits, group.to_be_bytes()) {
        (0, _) => {}
        (2, _) => bytes.extend((group >> 4).to_be_bytes().last()),
        (3, _) => {
            let [_, _, a, b] = (group >> 2).to_be_bytes();
            bytes.extend_from_slice(&[a, b]);
        }
        _ => return None,
    }
    Some(())
}

fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
