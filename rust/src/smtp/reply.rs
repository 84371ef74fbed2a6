//! Replies as values (RFC 5321 §4.2, RFC 2034, RFC 3463); only a driver writes them.

use std::borrow::Cow;
use std::fmt;

use super::fixed;
use super::xtext::is_unprintable;

#[cfg(test)]
mod tests;
mod wrapping;

use wrapping::{Wrapped, push_text};

/// A reply line without its CRLF: RFC 5321 §4.5.3.1.5 allows 512 octets with it.
const MAX_LINE: usize = 510;
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
    text: Cow<'static, str>,
}

impl Reply {
    /// A reply made of anything but our own constants: checked.
    pub fn new(
        code: u16,
        enhanced: Option<&str>,
        text: impl Into<String>,
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
        let reply = Self { code, enhanced, text: Cow::Owned(text) };
        // The longest form there is.
        if reply.lines(Form::default()).count() > MAX_LINES {
            return Err(ReplyError::TooLong);
        }
        Ok(reply)
    }

    /// One of our own replies; `class.subject.detail` is given as three numbers.
    pub(crate) const fn fixed(code: u16, enhanced: (u8, u16, u16), text: &'static str) -> Self {
        let (class, subject, detail) = enhanced;
        Self {
            code,
            enhanced: Some(Enhanced { class, subject, detail }),
            text: Cow::Borrowed(text),
        }
    }

    /// One of our own replies with a text made now, from parts that are printable.
    pub(crate) fn made(code: u16, enhanced: (u8, u16, u16), text: String) -> Self {
        let (class, subject, detail) = enhanced;
        Self { code, enhanced: Some(Enhanced { class, subject, detail }), text: Cow::Owned(text) }
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
        let mut lines = self.lines(form).peekable();
        let mut code = [0_u8; 3];
        for (slot, divisor) in code.iter_mut().zip([100, 10, 1]) {
            *slot = b'0' + u8::try_from(self.code_in(form) / divisor % 10).unwrap_or(0);
        }
        while let Some(line) = lines.next() {
            out.extend_from_slice(&code);
            out.push(if lines.peek().is_some() { b'-' } else { b' ' });
            if let Some(enhanced) = self.enhanced.filter(|_| form.enhanced) {
                push_number(out, u16::from(enhanced.class));
                out.push(b'.');
                push_number(out, enhanced.subject);
                out.push(b'.');
                push_number(out, enhanced.detail);
                out.push(b' ');
            }
            push_text(out, line, form);
            out.extend_from_slice(b"\r\n");
        }
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
        Wrapped { rest: Some(self.text.as_ref()), width: MAX_LINE - prefix, form }
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

fn push_number(out: &mut Vec<u8>, number: u16) {
    let mut seen = false;
    for divisor in [100, 10, 1] {
        let digit = number / divisor % 10;
        if seen || digit != 0 || divisor == 1 {
            seen = true;
            out.push(b'0' + u8::try_from(digit).unwrap_or(0));
        }
    }
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
        self.replies().iter().find(|reply| reply.is_success()).unwrap_or_else(|| self.folded())
    }

    /// The one reply that SMTP can give: success only when every recipient has it, else the
    /// first 4xx (the sender keeps the mail for all), else the first 5xx.
    pub fn fold(self) -> Reply {
        match self {
            Self::All(reply) => reply,
            Self::Each(_) => self.folded().clone(),
        }
    }

    fn folded(&self) -> &Reply {
        static NONE: Reply = fixed::SAVE_FAILED;
        let replies = self.replies();
        let worst = replies.iter().find(|reply| reply.is_transient());
        let worst = worst.or_else(|| replies.iter().find(|reply| !reply.is_success()));
        worst.or(replies.first()).unwrap_or(&NONE)
    }
}
