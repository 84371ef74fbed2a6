//! What MAIL and RCPT gave: a mail transaction (RFC 5321 §3.3).

use super::address::Address;

/// One mail transaction as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Transaction {
    /// The argument of HELO or EHLO; empty when neither was given.
    pub helo: String,
    /// Whether it was EHLO.
    pub esmtp: bool,
    /// The reverse-path, with the parameters of MAIL.
    pub mail_from: Address,
    /// The recipients accepted so far, in order.
    pub rcpt_to: Vec<Address>,
}
