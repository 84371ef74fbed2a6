//! What ends a session that a server should have kept.

use std::fmt;

use super::{MAX_LINE, MAX_LINES};

/// What a server did that no server may; the connection is of no use after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A line of more than [`MAX_LINE`] octets.
    LongLine,
    /// A reply of more than [`MAX_LINES`] lines.
    ManyLines,
    /// A line that does not begin with a code of 200 to 599.
    NoCode,
    /// The lines of a reply have different codes.
    MixedCodes,
    /// A code that has no place here.
    Wrong(u16),
    /// Something behind the reply to STARTTLS, which is not encrypted (RFC 3207 §4).
    Plaintext,
    /// STARTTLS is wanted and not offered.
    NoStartTls,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LongLine => write!(f, "a reply line of more than {MAX_LINE} octets"),
            Self::ManyLines => write!(f, "a reply of more than {MAX_LINES} lines"),
            Self::NoCode => f.write_str("a line that is no reply"),
            Self::MixedCodes => f.write_str("a reply with different codes"),
            Self::Wrong(code) => write!(f, "a reply that has no place there: {code}"),
            Self::Plaintext => f.write_str("plaintext behind the reply to STARTTLS"),
            Self::NoStartTls => f.write_str("STARTTLS is not offered"),
        }
    }
}
