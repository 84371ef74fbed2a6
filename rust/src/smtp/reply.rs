//! Replies as values (RFC 5321 §4.2, RFC 2034, RFC 3463); only a driver writes them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use super::fixed;
use super::xtext::is_unprintable;
use crate::short::ShortText;

#[cfg(test)]
mod tests;
mod wrapping;

use wrapping::{Wrapped, push_text};

/// A reply line without its CRLF: RFC 5321 §4.5.3.1.5 allows 512 octets with it.
const MAX_LINE: usize = 510;
/// `550 5.999.999 `
const LONGEST_HEAD: usize = 14;
/// More lines than this help nobody and cost every client that logs them.
const MAX_LINES: usize = 10;

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Enhanced {
    class: u8,
    subject: u16,
    detail: u16,
}

impl Enhanced {
    /// Parses `class.subject.detail`: a class of 2, 4 or 5, the others up to 999.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let class = parts.next().and_then(Self::number)?;
        let subject = parts.next().and_then(Self::number)?;
        let detail = parts.next().and_then(Self::number)?;
        if parts.next().is_some() || !matches!(class, 2 | 4 | 5) {
            return None;
        }
        Some(Self { class: u8::try_from(class).ok()?, subject, detail })
    }

    /// RFC 3463 §2: one to three digits, without a leading zero.
    fn number(text: &str) -> Option<u16> {
        let digits = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let padded = text.len() > 1 && text.starts_with('0');
        if digits && !padded { text.parse().ok() } else { None }
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// Why a reply must not go on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// Not 2xx, 4xx or 5xx.
    Code(u16),
    /// Not `class.subject.detail`, or of another class than the code.
    Enhanced,
    /// Characters that are not printable: they could end the line or break a client.
    Text,
    /// More than ten lines.
    TooLong,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "a reply code is 2xx, 4xx or 5xx, not {code}"),
            Self::Enhanced => f.write_str(
                "an enhanced code is class.subject.detail with the class of the reply code, or none",
            ),
            Self::Text => f.write_str("a reply text is printable, without line ends or other controls"),
            Self::TooLong => write!(f, "a reply text fills at most {MAX_LINES} lines of {MAX_LINE} octets"),
        }
    }
}

impl std::error::Error for ReplyError {}

/// What a client can be told (RFC 2034, RFC 6531 §3.7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// With enhanced codes, where a reply has one.
    pub enhanced: bool,
    /// With a mailbox in UTF-8 in 251 and 551, the only replies that may have one. In all others, and
    /// without this, a character that is not ASCII is `\x{4F8B}`, as RFC 6533 §3 embeds it.
    pub utf8: bool,
}

impl Default for Form {
    /// Enhanced codes and ASCII.
    fn default() -> Self {
        Self { enhanced: true, utf8: false }
    }
}

/// One reply: code, enhanced code, text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: Text,
}

/// The text of a reply, the same whichever way it is kept.
#[derive(Clone, Debug)]
enum Text {
    Fixed(&'static str),
    Made(ShortText),
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Reply {
    /// A reply made of anything but our own constants: checked.
    pub fn new(
        code: u16,
        enhanced: Option<&str>,
        text: impl Into<ShortText>,
    ) -> Result<Self, ReplyError> {
        if !matches!(code / 100, 2 | 4 | 5) {
            return Err(ReplyError::Code(code));
        }
        let enhanced = match enhanced {
            None => None,
            Some(given) => {
                let parsed = Enhanced::parse(given).ok_or(ReplyError::Enhanced)?;
                if u16::from(parsed.class) != code / 100 {
                    return Err(ReplyError::Enhanced);
                }
                Some(parsed)
            }
        };
        let text = text.into();
        if text.chars().any(is_unprintable) {
            return Err(ReplyError::Text);
        }
        let reply = Self { code, enhanced, text: Text::Made(text) };
        // The longest form there is.
        if reply.lines(Form::default()).count() > MAX_LINES {
            return Err(ReplyError::TooLong);
        }
        Ok(reply)
    }

    /// One of our own replies; `class.subject.detail` is given as three numbers.
    pub(crate) const fn fixed(code: u16, enhanced: (u8, u16, u16), text: &'static str) -> Self {
        let (class, subject, detail) = enhanced;
        Self { code, enhanced: Some(Enhanced { class, subject, detail }), text: Text::Fixed(text) }
    }

    /// One of our own replies with a text made now, from parts that are printable.
    pub(crate) fn made(code: u16, enhanced: (u8, u16, u16), text: impl Into<ShortText>) -> Self {
        let (class, subject, detail) = enhanced;
        let text = Text::Made(text.into());
        Self { code, enhanced: Some(Enhanced { class, subject, detail }), text }
    }

    /// What is said where nothing else was: the sender keeps the mail.
    pub const fn save_failed() -> Self {
        fixed::SAVE_FAILED
    }

    /// What saves messages is known to fail.
    pub const fn backend_down() -> Self {
        fixed::BACKEND_DOWN
    }

    /// The time to save a message is up.
    pub const fn save_timed_out() -> Self {
        fixed::SAVE_TIMEOUT
    }

    /// The time to check a recipient is up.
    pub const fn check_timed_out() -> Self {
        fixed::CHECK_TIMEOUT
    }

    /// The budget has no room for the message.
    pub const fn no_memory() -> Self {
        fixed::NO_MEMORY
    }

    /// There is no room on the disk.
    pub const fn no_storage() -> Self {
        fixed::NO_STORAGE
    }

    /// No message is taken now.
    pub const fn intake_closed() -> Self {
        fixed::INTAKE_CLOSED
    }

    /// The client took too long.
    pub const fn timed_out() -> Self {
        fixed::IDLE_TIMEOUT
    }

    /// The server stops.
    pub const fn shutting_down() -> Self {
        fixed::SHUTDOWN
    }

    /// The server was taken out of the config (RFC 5321 §3.8).
    pub const fn server_gone() -> Self {
        fixed::SERVER_GONE
    }

    /// A server has its `max_clients`.
    pub const fn too_many_clients() -> Self {
        fixed::TOO_MANY_CLIENTS
    }

    /// One client address has `max_connections_per_ip`.
    pub const fn too_many_from_address() -> Self {
        fixed::TOO_MANY_FROM_ADDRESS
    }

    /// One client address has `max_connection_rate_per_ip`.
    pub const fn too_fast_from_address() -> Self {
        fixed::TOO_FAST_FROM_ADDRESS
    }

    /// Not a proxy, on a port for proxies.
    pub const fn proxies_only() -> Self {
        fixed::PROXY_ONLY
    }

    /// The client spoke before the greeting (RFC 5321 §4.3.1: it must wait for it).
    pub const fn early_talker() -> Self {
        fixed::EARLY_TALKER
    }

    /// A bug ended the session.
    pub const fn internal_error() -> Self {
        fixed::INTERNAL_ERROR
    }

    /// The recipient is taken.
    pub const fn recipient_ok() -> Self {
        fixed::RCPT_OK
    }

    /// The credentials are good.
    pub const fn authenticated() -> Self {
        fixed::AUTH_OK
    }

    /// Nobody could say whether they are.
    pub const fn authentication_failed() -> Self {
        fixed::AUTH_FAILED
    }

    /// Too many credentials were wrong.
    pub const fn authentication_refused() -> Self {
        fixed::AUTH_REFUSED
    }

    /// The three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code.
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text, without codes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 2xx: the peer's responsibility ended here.
    pub fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4xx: the peer keeps the mail and tries again.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// Appends the reply in the form that any client can be told.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.write_as(Form::default(), out);
    }

    /// Appends the reply as it goes on the wire. Every line carries both codes (RFC 2034 §4).
    pub fn write_as(&self, form: Form, out: &mut Vec<u8>) {
        let form = Form { utf8: form.utf8 && self.names_a_mailbox(), ..form };
        let (head, length) = self.head(form);
        let head = head.get(..length).unwrap_or_default();
        let mut lines = self.lines(form).peekable();
        while let Some(line) = lines.next() {
            let begin = out.len();
            out.reserve(head.len() + line.len() + 2);
            out.extend_from_slice(head);
            push_text(out, line, form);
            out.extend_from_slice(b"\r\n");
            if let Some(mark) = out.get_mut(begin + 3).filter(|_| lines.peek().is_some()) {
                *mark = b'-';
            }
        }
    }

    /// What the last line begins with, `250 2.0.0 `, and its length.
    fn head(&self, form: Form) -> ([u8; LONGEST_HEAD], usize) {
        let mut head = [b' '; LONGEST_HEAD];
        let mut length = 0;
        let mut put = |octet: u8| {
            if let Some(place) = head.get_mut(length) {
                *place = octet;
            }
            length += 1;
        };
        put_number(&mut put, self.code_in(form));
        put(b' ');
        if let Some(enhanced) = self.enhanced.filter(|_| form.enhanced) {
            put_number(&mut put, u16::from(enhanced.class));
            put(b'.');
            put_number(&mut put, enhanced.subject);
            put(b'.');
            put_number(&mut put, enhanced.detail);
            put(b' ');
        }
        (head, length)
    }

    /// 251 and 551 say where the user has gone (RFC 5321 §3.4).
    fn names_a_mailbox(&self) -> bool {
        matches!(self.code, 251 | 551)
    }

    /// RFC 6531 §3.7.4.1: where the mailbox cannot be named, 250 or 550.
    fn code_in(&self, form: Form) -> u16 {
        let cannot = self.names_a_mailbox() && !form.utf8 && !self.text.is_ascii();
        self.code - u16::from(cannot)
    }

    /// The text cut at spaces into lines that fit; at least one, perhaps empty.
    fn lines(&self, form: Form) -> impl Iterator<Item = &str> {
        let enhanced = self.enhanced.filter(|_| form.enhanced);
        let prefix = 4 + enhanced.map_or(0, |e| 2 + digits(e.subject) + 1 + digits(e.detail) + 1);
        Wrapped { rest: Some(&*self.text), width: MAX_LINE - prefix, form }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(&self.text)
    }
}

fn digits(number: u16) -> usize {
    match number {
        0..=9 => 1,
        10..=99 => 2,
        _ => 3,
    }
}

/// Gives the digits of a number below 1,000.
fn put_number(put: &mut impl FnMut(u8), number: u16) {
    let digit = |divisor| b'0' + u8::try_from(number / divisor % 10).unwrap_or(0);
    if number >= 100 {
        put(digit(100));
    }
    if number >= 10 {
        put(digit(10));
    }
    put(digit(1));
}

/// What became of a question: one reply, or one a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One reply for all.
    All(Reply),
    /// One reply a recipient, in the order of the recipients.
    Each(Vec<Reply>),
}

impl Verdict {
    /// The replies it has: one, or one a recipient.
    pub fn replies(&self) -> &[Reply] {
        match self {
            Self::All(reply) => std::slice::from_ref(reply),
            Self::Each(replies) => replies,
        }
    }

    /// The reply that tells best what became of a message: the first success, since then it is saved for
    /// somebody; else as [`fold`](Self::fold).
    pub fn best(&self) -> &Reply {
        const NONE: &Reply = &fixed::SAVE_FAILED;
        let replies = self.replies();
        let saved = replies.iter().find(|reply| reply.is_success());
        saved.or_else(|| replies.get(worst(replies))).unwrap_or(NONE)
    }

    /// The one reply that SMTP can give: success only when every recipient has it, else the
    /// first 4xx (the sender keeps the mail for all), else the first 5xx.
    pub fn fold(self) -> Reply {
        match self {
            Self::All(reply) => reply,
            Self::Each(replies) => {
                let worst = worst(&replies);
                replies.into_iter().nth(worst).unwrap_or(fixed::SAVE_FAILED)
            }
        }
    }
}

/// Where the one is that the others are folded to.
fn worst(replies: &[Reply]) -> usize {
    let worst = replies.iter().position(Reply::is_transient);
    worst.or_else(|| replies.iter().position(|reply| !reply.is_success())).unwrap_or(0)
}
