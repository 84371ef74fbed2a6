//! The structure of a message (RFC 2045, RFC 2046): its parts, as ranges of its octets.
//!
//! It is found in one pass, without recursion, and nothing is decoded or copied but content types. The
//! pass ends at the bounds it was given. What lies beyond one is an opaque part: its octets are there,
//! but nobody looked into them.
//!
//! Nothing is an error. What is broken is read as most mail clients read it:
//!
//! | what | is read as |
//! |---|---|
//! | no `MIME-Version` | MIME all the same |
//! | no `Content-Type`, or none with a type and a subtype | `text/plain`; in a digest `message/rfc822` |
//! | a multipart whose boundary is not named, or never comes | a leaf that is all of its body |
//! | no closing delimiter | closed by a delimiter around it, or the end of the message |
//! | a boundary that begins like another | another: a delimiter is a whole line but for blanks at its end |
//! | the same boundary inside and outside | the inner one, until it is closed |
//! | a delimiter in the header of a part | the end of that part, which has no body |
//! | a line in the header of a part that is no field | the first line of its body |
//! | a delimiter behind the closing one | text of the epilogue |
//! | octets around the parts of a multipart | preamble and epilogue: in the multipart's body, in no part of it |
//!
//! A line ends at LF, with or without a CR before it, as in [`header`](super::header); a bare CR and a NUL
//! are octets like others.
//!
//! CONTRIBUTING.md says why this is no crate.

pub mod field;
pub mod transfer;

use std::ops::Range;

use memchr::memchr;
use memchr::memmem::Finder;

use self::field::Value;
use self::transfer::Transfer;
use super::header::{HeaderSection, body_offset, is_field, trim_line_end, unfold};
use super::rfc2047;

/// How far [`Structure::walk`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Multiparts and messages inside each other. The pass takes time in proportion to it.
    pub depth: usize,
    /// Parts, multiparts among them. What comes behind them is one more.
    pub parts: usize,
    /// Octets of each header section that are looked at for fields.
    pub header: usize,
    /// Whether attached messages are walked into; else they are leaves.
    pub messages: bool,
}

/// A bound that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `Bounds::depth`.
    Depth,
    /// `Bounds::parts`.
    Parts,
}

/// What a part is in the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has no parts.
    Leaf,
    /// Not looked into.
    Opaque(Bound),
    /// A multipart with its parts.
    Multipart,
    /// An attached message, whose one part is what the message is.
    Message,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The part that it is a part of; none for the message itself.
    pub parent: Option<usize>,
    /// Its number among the parts of its parent, from 1.
    pub number: usize,
    /// Its header section, with the empty line.
    pub header: Range<usize>,
    /// Its body, as it was sent.
    pub body: Range<usize>,
    /// Type and subtype in lower case.
    pub content_type: String,
    /// What it is.
    pub kind: Kind,
}

impl Part {
    /// Whether it has no parts that are known.
    pub fn is_leaf(&self) -> bool {
        matches!(self.kind, Kind::Leaf | Kind::Opaque(_))
    }

    /// Its header section, parsed; `message` is the one that it was found in.
    pub fn fields<'a>(&self, message: &'a [u8], limit: usize) -> Fields<'a> {
        let octets = message.get(self.header.clone()).unwrap_or_default();
        Fields { octets, section: HeaderSection::parse(octets, limit) }
    }
}

/// The parts of a message, each before its own parts; the first is the message itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    parts: Vec<Part>,
    truncated: Option<Bound>,
}

impl Structure {
    /// Finds the parts of `message`, in time linear to its length.
    pub fn walk(message: &[u8], bounds: &Bounds) -> Self {
        let mut walker = Walker {
            message,
            bounds,
            finder: Finder::new(b"\n--"),
            open: Vec::new(),
            found: Self::default(),
        };
        let body = body_offset(message).unwrap_or(message.len());
        let mut position = walker.enter(0..body, None, 1);
        while let Some(delimiter) = walker.next_delimiter(position) {
            position = walker.pass(&delimiter);
        }
        walker.close(0, message.len());
        walker.found
    }

    /// All parts in the order of the message.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The first bound that was met.
    pub fn truncated(&self) -> Option<Bound> {
        self.truncated
    }

    /// The number of a part as IMAP has it (RFC 3501 §6.4.5): `[2, 1]` is the first part of the second.
    ///
    /// A message that is one part has that as its part 1. A multipart that is a message has the number of
    /// that message: none for the outermost one.
    pub fn path(&self, index: usize) -> Vec<usize> {
        let mut path = Vec::new();
        let mut next = self.parts.get(index);
        while let Some(part) = next {
            let parent = part.parent.and_then(|parent| self.parts.get(parent));
            let is_message = parent.is_none_or(|parent| parent.kind == Kind::Message);
            if !(is_message && part.kind == Kind::Multipart) {
                path.push(part.number);
            }
            next = parent;
        }
        path.reverse();
        path
    }

    /// The leaf of this type that is the text of the message: the first that is no attachment, is in no
    /// attached message, and that each `multipart/related` around it has as its root (RFC 2387).
    pub fn body(&self, message: &[u8], limit: usize, content_type: &str) -> Option<usize> {
        let mut shown = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let is_shown = part
                .parent
                .is_none_or(|parent| shown.get(parent) == Some(&true) && self.shows(parent, part));
            shown.push(is_shown);
            let is_it = is_shown && part.kind == Kind::Leaf && part.content_type == content_type;
            if is_it && !part.fields(message, limit).is_attachment(&part.content_type) {
                return Some(index);
            }
        }
        None
    }

    /// Whether a part that is shown shows this part of it.
    fn shows(&self, parent: usize, part: &Part) -> bool {
        self.parts.get(parent).is_some_and(|whole| {
            let is_related = whole.content_type == "multipart/related";
            whole.kind == Kind::Multipart && (!is_related || part.number == 1)
        })
    }
}

/// The fields of a part that say what it is.
pub struct Fields<'a> {
    octets: &'a [u8],
    section: HeaderSection,
}

impl Fields<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        self.section.first(self.octets, name).map(|raw| Value::parse(&unfold(raw)))
    }

    /// `Content-Type`, with its parameters.
    pub fn content_type(&self) -> Option<Value> {
        self.value("Content-Type")
    }

    /// The disposition, in lower case (RFC 2183).
    pub fn disposition(&self) -> Option<String> {
        self.value("Content-Disposition").map(|it| it.value).filter(|name| !name.is_empty())
    }

    /// The file name that the sender gave it, in `Content-Disposition` or `Content-Type`.
    pub fn filename(&self, decode: rfc2047::Decode<'_>) -> Option<String> {
        let named = |field: &str, parameter: &str| {
            self.value(field)?.get(parameter, decode).filter(|name| !name.is_empty())
        };
        named("Content-Disposition", "filename").or_else(|| named("Content-Type", "name"))
    }

    /// `Content-ID`, without its angle brackets.
    pub fn content_id(&self) -> Option<String> {
        let raw = unfold(self.section.first(self.octets, "Content-ID")?);
        let id = super::header::to_text(&raw);
        let id = id.trim();
        let id = id.strip_prefix('<').unwrap_or(id);
        Some(id.strip_suffix('>').unwrap_or(id).to_owned()).filter(|id| !id.is_empty())
    }

    /// How the body is encoded.
    pub fn transfer(&self) -> Transfer {
        self.value("Content-Transfer-Encoding")
            .map_or(Transfer::Identity, |it| Transfer::named(&it.value))
    }

    /// Whether it is to be saved rather than shown.
    ///
    /// An unknown disposition is `attachment` (RFC 2183 §2.8). Where there is none, it is what has a file
    /// name or is no text.
    pub fn is_attachment(&self, content_type: &str) -> bool {
        match self.disposition().as_deref() {
            Some("inline") => false,
            Some(_) => true,
            None => {
                !content_type.starts_with("text/")
                    || self.filename(&|_, _| Some("a name".to_owned())).is_some()
            }
        }
    }
}

/// A part whose end has not come yet.
struct Open {
    part: usize,
    /// What its delimiters are made of; none for a leaf, a message, and once it is closed.
    boundary: Option<Vec<u8>>,
    /// How many parts it has.
    parts: usize,
}

/// A delimiter line.
struct Delimiter {
    /// Whose: its place among those that are open.
    level: usize,
    is_last: bool,
    start: usize,
    /// The line after it.
    next: usize,
}

struct Walker<'a> {
    message: &'a [u8],
    bounds: &'a Bounds,
    finder: Finder<'static>,
    /// Each is in the one before it. All but the last have parts.
    open: Vec<Open>,
    found: Structure,
}

impl Walker<'_> {
    /// Adds the part with this header, and the messages in it; returns where to look for delimiters.
    fn enter(&mut self, header: Range<usize>, parent: Option<usize>, number: usize) -> usize {
        let (mut header, mut parent, mut number) = (header, parent, number);
        loop {
            let index = self.found.parts.len();
            let end = header.end;
            let (part, boundary) = self.read(header, parent, number);
            let is_message = part.kind == Kind::Message;
            self.found.parts.push(part);
            self.open.push(Open { part: index, boundary, parts: usize::from(is_message) });
            if !is_message {
                return end;
            }
            (header, parent, number) = (end..self.header_end(end), Some(index), 1);
        }
    }

    /// A part as far as its header says what it is, and its boundary.
    fn read(
        &mut self,
        header: Range<usize>,
        parent: Option<usize>,
        number: usize,
    ) -> (Part, Option<Vec<u8>>) {
        let body = header.end..header.end;
        let default = self.default_type(parent).to_owned();
        let mut part =
            Part { parent, number, header, body, content_type: default, kind: Kind::Leaf };
        let fields = part.fields(self.message, self.bounds.header);
        let value = fields.content_type();
        let mut boundary = None;
        if let Some(value) = value.filter(|value| is_type(&value.value)) {
            if value.value.starts_with("multipart/") {
                boundary = value.octets("boundary").map(|octets| trim_blanks(octets).to_vec());
            }
            part.content_type = value.value;
        }
        let boundary = boundary.filter(|boundary| !boundary.is_empty());
        let is_message = self.bounds.messages
            && matches!(part.content_type.as_str(), "message/rfc822" | "message/global")
            && fields.transfer() == Transfer::Identity;
        if boundary.is_none() && !is_message {
            return (part, None);
        }
        let bound = if self.open.len() >= self.bounds.depth {
            Some(Bound::Depth)
        } else if is_message && self.found.parts.len() + 2 > self.bounds.parts {
            Some(Bound::Parts)
        } else {
            None
        };
        if let Some(bound) = bound {
            part.kind = Kind::Opaque(bound);
            self.found.truncated.get_or_insert(bound);
            return (part, None);
        }
        part.kind = if is_message { Kind::Message } else { Kind::Multipart };
        (part, boundary)
    }

    /// RFC 2046 §5.1.5: what is in a digest is a message.
    fn default_type(&self, parent: Option<usize>) -> &'static str {
        let parent = parent.and_then(|parent| self.found.parts.get(parent));
        match parent {
            Some(parent) if parent.content_type == "multipart/digest" => "message/rfc822",
            _ => "text/plain",
        }
    }

    /// Where the header section ends that begins at `start`.
    fn header_end(&self, start: usize) -> usize {
        let mut position = start;
        loop {
            let rest = self.message.get(position..).unwrap_or_default();
            let length = memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            let line = trim_line_end(rest.get(..length).unwrap_or_default());
            if line.is_empty() {
                return position + length;
            }
            let is_first = position == start;
            let belongs = match line.first() {
                Some(b' ' | b'\t') => !is_first,
                // An mbox has it before each message, also when one is attached.
                Some(b'F' | b'>') if is_first && is_from_line(line) => true,
                _ => is_field(line),
            };
            if !belongs || self.delimits(line).is_some() {
                return position;
            }
            position += length;
        }
    }

    /// The next delimiter of a part that is open; `from` begins a line.
    fn next_delimiter(&self, from: usize) -> Option<Delimiter> {
        if self.open.iter().all(|open| open.boundary.is_none()) {
            return None;
        }
        let mut start = from;
        loop {
            let rest = self.message.get(start..)?;
            if !rest.starts_with(b"--") {
                start += self.finder.find(rest)? + 1;
                continue;
            }
            let length = memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            let next = start + length;
            if let Some((level, is_last)) = self.delimits(rest.get(..length).unwrap_or_default()) {
                return Some(Delimiter { level, is_last, start, next });
            }
            start = next;
        }
    }

    /// Which open part a line delimits, the innermost first, and whether it closes it.
    fn delimits(&self, line: &[u8]) -> Option<(usize, bool)> {
        let text = trim_blanks(line.strip_prefix(b"--")?);
        let closed = text.strip_suffix(b"--");
        self.open.iter().enumerate().rev().find_map(|(level, open)| {
            let boundary = open.boundary.as_deref()?;
            if text == boundary {
                Some((level, false))
            } else {
                (closed == Some(boundary)).then_some((level, true))
            }
        })
    }

    /// Ends what a delimiter ends, and begins what it begins; returns where to look for the next.
    fn pass(&mut self, delimiter: &Delimiter) -> usize {
        // The line end before it belongs to it (RFC 2046 §5.1.1).
        let before = self.message.get(..delimiter.start).unwrap_or_default();
        self.close(delimiter.level + 1, trim_line_end(before).len());
        let Some(open) = self.open.last_mut() else { return delimiter.next };
        if delimiter.is_last {
            open.boundary = None;
            return delimiter.next;
        }
        open.parts += 1;
        let (parent, number) = (open.part, open.parts);
        if self.found.parts.len() < self.bounds.parts {
            let header = delimiter.next..self.header_end(delimiter.next);
            return self.enter(header, Some(parent), number);
        }
        self.leave_rest(delimiter.next, parent, number);
        self.message.len()
    }

    /// Adds all that comes from `start` on as one part.
    fn leave_rest(&mut self, start: usize, parent: usize, number: usize) {
        self.found.truncated.get_or_insert(Bound::Parts);
        self.open.push(Open { part: self.found.parts.len(), boundary: None, parts: 0 });
        self.found.parts.push(Part {
            parent: Some(parent),
            number,
            header: start..start,
            body: start..start,
            content_type: "application/octet-stream".to_owned(),
            kind: Kind::Opaque(Bound::Parts),
        });
    }

    /// Ends all parts from `level` on.
    fn close(&mut self, level: usize, end: usize) {
        let mut end = end;
        for open in self.open.drain(level.min(self.open.len())..).rev() {
            let Some(part) = self.found.parts.get_mut(open.part) else { continue };
            // A header that a delimiter cut has the line end that belongs to the delimiter.
            end = end.max(part.body.start);
            part.body.end = end;
            if part.kind == Kind::Multipart && open.parts == 0 {
                part.kind = Kind::Leaf;
            }
        }
    }
}

/// Whether it has a type and a subtype; another is none (RFC 2045 §5.2).
fn is_type(value: &str) -> bool {
    value
        .split_once('/')
        .is_some_and(|(top, sub)| !top.is_empty() && !sub.is_empty() && !sub.contains('/'))
}

fn is_from_line(line: &[u8]) -> bool {
    line.strip_prefix(b">").unwrap_or(line).starts_with(b"From ")
}

/// Drops blanks and line ends at the end.
fn trim_blanks(line: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    line.get(..line.iter().rposition(is_text).map_or(0, |last| last + 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
