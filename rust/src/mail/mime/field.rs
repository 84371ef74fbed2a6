//! Values with parameters: `Content-Type`, `Content-Disposition` (RFC 2045 §5.1, RFC 2183), with the
//! continuations and charsets of RFC 2231.
//!
//! Read as tolerantly as mail clients read them:
//!
//! - a parameter without a semicolon before it, without a value, or with blanks around its `=`;
//! - an unquoted `name` or `filename` goes to the next semicolon, blanks in it; another to the next blank;
//! - in a quoted string only `\"` and `\\` are pairs, so that a path of Windows stays what it is;
//! - a quoted string that is not closed goes to the end;
//! - of two parameters with the same name the first counts, and one of RFC 2231 before a plain one;
//! - encoded words (RFC 2047) in a plain parameter, where they are forbidden and common;
//! - behind a thousand parameters no more are read.

use std::collections::BTreeMap;

use crate::mail::header::to_text;
use crate::mail::rfc2047::{self, Decode, hex};

/// Parameters that are read of one value; a long file name is some dozens. One takes thirty times its octets.
const MAX_PARAMETERS: usize = 1_000;

/// A value and its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// What stands before the parameters, in lower case, without comments.
    pub value: String,
    parameters: Vec<Parameter>,
}

/// A parameter, or a piece of one (RFC 2231 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parameter {
    /// In lower case, without the marks of RFC 2231.
    name: String,
    /// Which piece it is.
    section: Option<u32>,
    /// Whether it is percent-encoded.
    is_extended: bool,
    octets: Vec<u8>,
}

impl Value {
    /// Parses an unfolded value.
    pub fn parse(octets: &[u8]) -> Self {
        let mut scanner = Scanner { rest: octets };
        let value = scanner.value();
        let mut parameters = Vec::new();
        while !scanner.rest.is_empty() && parameters.len() < MAX_PARAMETERS {
            parameters.extend(scanner.parameter());
        }
        Self { value, parameters }
    }

    /// A parameter as text; its name is in lower case.
    pub fn get(&self, name: &str, decode: Decode<'_>) -> Option<String> {
        let pieces = self.parameters.iter().filter(|parameter| parameter.name == name);
        text(&pieces.collect::<Vec<_>>(), decode)
    }

    /// A plain parameter as it was sent.
    pub fn octets(&self, name: &str) -> Option<&[u8]> {
        let is_it = |it: &&Parameter| it.name == name && it.section.is_none() && !it.is_extended;
        self.parameters.iter().find(is_it).map(|parameter| parameter.octets.as_slice())
    }

    /// All parameters as text, by name.
    pub fn parameters(&self, decode: Decode<'_>) -> Vec<(String, String)> {
        let mut pieces: BTreeMap<&str, Vec<&Parameter>> = BTreeMap::new();
        for parameter in &self.parameters {
            pieces.entry(&parameter.name).or_default().push(parameter);
        }
        let texts = pieces.into_iter();
        texts.filter_map(|(name, it)| Some((name.to_owned(), text(&it, decode)?))).collect()
    }
}

/// The text of all that has the same name.
fn text(pieces: &[&Parameter], decode: Decode<'_>) -> Option<String> {
    if let Some(whole) = pieces.iter().find(|it| it.is_extended && it.section.is_none()) {
        return Some(join(&[whole], decode));
    }
    let mut sections: Vec<_> = pieces.iter().copied().filter(|it| it.section.is_some()).collect();
    if sections.is_empty() {
        return pieces.first().map(|plain| rfc2047::decode(&plain.octets, decode));
    }
    sections.sort_by_key(|it| it.section);
    sections.dedup_by_key(|it| it.section);
    Some(join(&sections, decode))
}

/// Joins pieces as octets, for some senders cut a character.
fn join(pieces: &[&Parameter], decode: Decode<'_>) -> String {
    let mut charset: Option<&[u8]> = None;
    let mut octets = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let mut text = piece.octets.as_slice();
        if piece.is_extended {
            if index == 0 {
                (charset, text) = split_charset(text);
            }
            percent_decode(text, &mut octets);
        } else {
            octets.extend_from_slice(text);
        }
    }
    let text = match charset {
        Some(charset) => rfc2047::to_unicode(charset, &octets, decode),
        None if pieces.iter().any(|piece| piece.is_extended) => None,
        None => Some(rfc2047::decode(&octets, decode)),
    };
    text.unwrap_or_else(|| to_text(&octets)).replace(['\r', '\n', '\0'], " ")
}

/// Parts `charset'language'text`.
fn split_charset(octets: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut pieces = octets.splitn(3, |&byte| byte == b'\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(charset), Some(_), Some(text)) => (Some(charset).filter(|it| !it.is_empty()), text),
        _ => (None, octets),
    }
}

/// A `%` without two hexadecimal digits stays.
fn percent_decode(text: &[u8], octets: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if let (b'%', [high, low, tail @ ..]) = (first, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            octets.push(high << 4 | low);
            rest = tail;
        } else {
            octets.push(first);
        }
    }
}

struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// Reads up to the first octet that is one of `ends`.
    fn until(&mut self, ends: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|&byte| ends(byte)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        text
    }

    fn skip(&mut self, octet: u8) -> bool {
        let after = self.rest.strip_prefix(&[octet]);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Skips blanks and comments (RFC 5322 §3.2.2).
    fn skip_blanks(&mut self) {
        loop {
            self.until(|byte| !is_blank(byte));
            if self.rest.first() != Some(&b'(') {
                return;
            }
            self.skip_comment();
        }
    }

    /// One that is not closed goes to the end.
    fn skip_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some((&byte, after)) = self.rest.split_first() {
            self.rest = after;
            match byte {
                b'\\' => self.rest = after.get(1..).unwrap_or_default(),
                b'(' => depth += 1,
                b')' if depth == 1 => return,
                b')' => depth -= 1,
                _ => {}
            }
        }
    }

    /// What stands before the parameters: one word, or two with a slash between.
    fn value(&mut self) -> String {
        let mut value = Vec::new();
        loop {
            self.skip_blanks();
            let goes_on =
                value.is_empty() || value.last() == Some(&b'/') || self.rest.first() == Some(&b'/');
            let word = if goes_on {
                self.until(|it| is_blank(it) || matches!(it, b';' | b'('))
            } else {
                b""
            };
            if word.is_empty() {
                return to_text(&value).to_ascii_lowercase();
            }
            value.extend_from_slice(word);
        }
    }

    /// Reads the next parameter, if what comes is one; goes on at least by one octet.
    fn parameter(&mut self) -> Option<Parameter> {
        self.skip_blanks();
        if self.skip(b';') {
            return None;
        }
        let name = self.until(|it| is_blank(it) || matches!(it, b';' | b'=' | b'('));
        self.skip_blanks();
        if !self.skip(b'=') {
            return None;
        }
        self.skip_blanks_only();
        let mut parameter = Parameter::named(name);
        parameter.octets = if self.skip(b'"') {
            let text = self.quoted();
            self.until(|it| is_blank(it) || it == b';');
            text
        } else if matches!(parameter.name.as_str(), "name" | "filename") {
            trim_end(self.until(|it| it == b';')).to_vec()
        } else {
            self.until(|it| is_blank(it) || it == b';').to_vec()
        };
        Some(parameter).filter(|it| !it.name.is_empty())
    }

    fn skip_blanks_only(&mut self) {
        self.until(|byte| !is_blank(byte));
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        loop {
            text.extend_from_slice(self.until(|byte| matches!(byte, b'"' | b'\\')));
            match self.rest {
                [b'\\', byte @ (b'"' | b'\\'), after @ ..] => {
                    text.push(*byte);
                    self.rest = after;
                }
                [b'\\', after @ ..] => {
                    text.push(b'\\');
                    self.rest = after;
                }
                [_, after @ ..] => {
                    self.rest = after;
                    return text;
                }
                [] => return text,
            }
        }
    }
}

impl Parameter {
    /// `name`, `name*`, `name*1` or `name*1*`.
    fn named(name: &[u8]) -> Self {
        let lower = to_text(name).to_ascii_lowercase();
        let (rest, is_extended) = match lower.strip_suffix('*') {
            Some(rest) => (rest, true),
            None => (lower.as_str(), false),
        };
        let section = rest.rsplit_once('*').and_then(|(base, section)| {
            let is_number = section.bytes().all(|byte| byte.is_ascii_digit());
            Some((base, section.parse().ok().filter(|_| is_number)?))
        });
        let (name, section) = match section {
            Some((base, section)) => (base, Some(section)),
            None => (rest, None),
        };
        Self { name: name.to_owned(), section, is_extended, octets: Vec::new() }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn trim_end(text: &[u8]) -> &[u8] {
    let length = text.iter().rposition(|&byte| !is_blank(byte)).map_or(0, |last| last + 1);
    text.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests;
