//! What MAIL and RCPT gave: a mail transaction (RFC 5321 §3.3).

use super::address::Address;

/// What a client speaks, by how it greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// HELO, or nothing.
    #[default]
    Smtp,
    /// EHLO.
    Esmtp,
    /// LHLO (RFC 2033).
    Lmtp,
}

impl Dialect {
    /// `SMTP`, `ESMTP` or `LMTP`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Esmtp => "ESMTP",
            Self::Lmtp => "LMTP",
        }
    }

    /// The inverse of [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Smtp, Self::Esmtp, Self::Lmtp].into_iter().find(|one| one.name() == name)
    }

    /// Whether it has extensions.
    pub fn is_extended(self) -> bool {
        self != Self::Smtp
    }
}

/// One mail transaction as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Transaction {
    /// The argument of HELO, EHLO or LHLO; empty when none was given.
    pub helo: String,
    /// Which of them it was.
    pub dialect: Dialect,
    /// The reverse-path, with the parameters of MAIL.
    pub mail_from: Address,
    /// The recipients accepted so far, in order.
    pub rcpt_to: Vec<Address>,
}
