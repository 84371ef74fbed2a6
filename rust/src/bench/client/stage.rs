//! Where in a session something happened, by name.

/// Where in a session something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before a connection is there.
    Connect,
    /// STARTTLS, and the handshake.
    Tls,
    /// The server's first word.
    Greeting,
    /// EHLO or LHLO.
    Helo,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, up to its 354.
    Data,
    /// The message, its final dot, and the reply to that.
    Message,
    /// RSET, after a refusal.
    Rset,
    /// QUIT.
    Quit,
}

impl Stage {
    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Greeting => "greeting",
            Self::Helo => "helo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Message => "message",
            Self::Rset => "rset",
            Self::Quit => "quit",
        }
    }
}
