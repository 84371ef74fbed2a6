//! Address lists in header fields (RFC 5322 §3.4, with the obsolete forms of §4.4), read
//! tolerantly.
//!
//! - Groups give their members; `undisclosed-recipients:;` gives none. A source route is dropped.
//! - Comments are skipped. Encoded words in a display name stay: [`super::rfc2047`] decodes them.
//! - `;` separates like a comma, a missing comma after `>` is supplied, and a `<` that is never
//!   closed ends at the next comma.
//! - A quote or parenthesis that is never closed is read as a space.
//! - An address without a host, with two `@`, or with blanks inside a name is skipped; the others
//!   in the list are not.

use std::borrow::Cow;
use std::fmt;

use super::header::to_text;

/// One address of a list. No part of it has control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name without its quotes; empty when there is none.
    pub display_name: String,
    /// The local part without quotes, as the mailbox is called.
    pub user: String,
    /// The domain, or an address literal with its brackets.
    pub host: String,
}

impl fmt::Display for Mailbox {
    /// Writes `user@host`, the user quoted where RFC 5322 wants that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_atom(&self.user) {
            return write!(f, "{}@{}", self.user, self.host);
        }
        let escaped = self.user.replace('\\', "\\\\").replace('"', "\\\"");
        write!(f, "\"{escaped}\"@{}", self.host)
    }
}

/// Reads the mailboxes in a value, which may be still folded, in order.
pub fn parse_address_list(value: &[u8]) -> Vec<Mailbox> {
    let text = to_text(value);
    let mut mailboxes = Vec::new();
    let mut phrase: Vec<Token<'_>> = Vec::new();
    let mut lexer = Lexer::new(&text);
    while let Some(token) = lexer.next() {
        match token.kind {
            Kind::Special('<') => {
                mailboxes.extend(mailbox(display_name(&phrase), &angle_address(&mut lexer)));
                phrase.clear();
            }
            Kind::Special(',' | ';') => {
                mailboxes.extend(mailbox(String::new(), &phrase));
                phrase.clear();
            }
            Kind::Special(':') => phrase.clear(), // it was the name of a group
            _ => phrase.push(token),
        }
    }
    mailboxes.extend(mailbox(String::new(), &phrase));
    mailboxes
}

/// Reads what stands between `<` and `>`, without the source route.
fn angle_address<'a>(lexer: &mut Lexer<'a>) -> Vec<Token<'a>> {
    let mut address: Vec<Token<'a>> = Vec::new();
    while let Some(token) = lexer.next() {
        let in_route = address.first().is_some_and(|first| first.kind == Kind::Special('@'));
        match token.kind {
            Kind::Special('>') => break,
            Kind::Special(':') if in_route => address.clear(),
            Kind::Special(',' | ';') if !in_route => break,
            _ => address.push(token),
        }
    }
    address
}

/// Reads `user@host`; `None` when the tokens are anything else.
fn mailbox(display_name: String, address: &[Token<'_>]) -> Option<Mailbox> {
    let mut parts = address.split(|token| token.kind == Kind::Special('@'));
    let (Some(user), Some(host), None) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let host = match host {
        [literal] if literal.kind == Kind::Literal => literal.text.to_string(),
        _ if host.iter().all(|token| matches!(token.kind, Kind::Atom | Kind::Special('.'))) => {
            dotted(host)?
        }
        _ => return None,
    };
    if host.split('.').any(str::is_empty) {
        return None;
    }
    Some(Mailbox { display_name, user: dotted(user)?, host })
}

/// Joins words that dots part. Dots may stand anywhere, as some providers let them; blanks around
/// them are dropped.
fn dotted(tokens: &[Token<'_>]) -> Option<String> {
    let mut joined = String::new();
    let mut after_word = false;
    for token in tokens {
        let is_word = matches!(token.kind, Kind::Atom | Kind::Quoted);
        if !(is_word && !after_word || token.kind == Kind::Special('.')) {
            return None;
        }
        joined.push_str(&token.text);
        after_word = is_word;
    }
    (!tokens.is_empty()).then_some(joined)
}

/// Joins the words before `<`, with one space where there were blanks or comments.
fn display_name(phrase: &[Token<'_>]) -> String {
    let mut name = String::new();
    for token in phrase {
        if token.after_blank && !name.is_empty() {
            name.push(' ');
        }
        name.push_str(&token.text);
    }
    name
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Atom,
    /// A quoted string; its text is without quotes and escapes.
    Quoted,
    /// A domain literal; its text is with brackets.
    Literal,
    Special(char),
}

struct Token<'a> {
    kind: Kind,
    text: Cow<'a, str>,
    after_blank: bool,
}

/// Cuts a value into tokens. Each character is looked at a fixed number of times, whatever is left
/// unclosed.
struct Lexer<'a> {
    rest: &'a str,
    /// Set once a quote was found that nothing closes: none after it is looked for again.
    quote_unclosed: bool,
    /// The same for a comment.
    comment_unclosed: bool,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, quote_unclosed: false, comment_unclosed: false }
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let mut after_blank = false;
        loop {
            let first = self.rest.chars().next()?;
            let (kind, text) = match first {
                '"' if !self.quote_unclosed => {
                    let Some(len) = quoted_len(self.rest) else {
                        self.quote_unclosed = true;
                        continue;
                    };
                    (Kind::Quoted, unquote(self.take(len)))
                }
                '(' if !self.comment_unclosed => {
                    let comment = comment_len(self.rest);
                    self.comment_unclosed = comment.is_none();
                    self.take(comment.unwrap_or(1));
                    after_blank = true;
                    continue;
                }
                '[' if let Some(len) = literal_len(self.rest) => {
                    (Kind::Literal, Cow::Borrowed(self.take(len)))
                }
                '<' | '>' | '[' | ']' | ',' | ';' | ':' | '@' | '.' => {
                    (Kind::Special(first), Cow::Borrowed(self.take(1)))
                }
                _ if is_atom_char(first) => {
                    let len = self.rest.find(|char| !is_atom_char(char)).unwrap_or(self.rest.len());
                    (Kind::Atom, Cow::Borrowed(self.take(len)))
                }
                _ => {
                    // A blank, a control, or what was closed but never opened.
                    self.take(first.len_utf8());
                    after_blank = true;
                    continue;
                }
            };
            return Some(Token { kind, text, after_blank });
        }
    }

    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(len).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }
}

/// The bytes of the quoted string that `text` begins with, its quotes included.
fn quoted_len(text: &str) -> Option<usize> {
    let mut escaped = false;
    let closing = text.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    closing.map(|position| position + 2)
}

/// The bytes of the comment that `text` begins with. Comments nest: they are counted, to any depth.
fn comment_len(text: &str) -> Option<usize> {
    let mut escaped = false;
    let mut depth = 0_usize;
    let closing = text.bytes().position(|byte| {
        match byte {
            b'(' if !escaped => depth += 1,
            b')' if !escaped => depth -= 1,
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
        depth == 0
    });
    closing.map(|position| position + 1)
}

/// The bytes of a domain literal with its brackets: nothing but what an address literal is made of.
fn literal_len(text: &str) -> Option<usize> {
    let inner = text.get(1..)?;
    let len = inner
        .find(|char: char| !(char.is_ascii_alphanumeric() || matches!(char, '.' | ':' | '-')))?;
    (len > 0 && inner.get(len..)?.starts_with(']')).then_some(len + 2)
}

/// Removes the quotes of a quoted string, its escapes and its folding; another control becomes a
/// space.
fn unquote(quoted: &str) -> Cow<'_, str> {
    let text = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if !text.contains(|char: char| char == '\\' || char.is_control()) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut escaped = false;
    for char in text.chars() {
        match char {
            '\r' | '\n' => {}
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            _ if char.is_control() => plain.push(' '),
            _ => plain.push(char),
        }
        escaped = false;
    }
    Cow::Owned(plain)
}

/// A character of an atom (RFC 5322 §3.2.3, RFC 6532 §3.2), and what else need not be an error in a
/// display name.
fn is_atom_char(char: char) -> bool {
    !char.is_control()
        && !matches!(
            char,
            ' ' | '"' | '(' | ')' | '<' | '>' | '[' | ']' | ':' | ';' | '@' | '\\' | ',' | '.'
        )
}

fn is_dot_atom(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom_char))
}

#[cfg(test)]
mod tests;
