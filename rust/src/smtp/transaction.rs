//! What MAIL and RCPT gave: a mail transaction (RFC 5321 §3.3).

use std::ops::Deref;
use std::sync::Arc;

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
    pub helo: Arc<str>,
    /// Which of them it was.
    pub dialect: Dialect,
    /// The reverse-path, with the parameters of MAIL.
    pub mail_from: Address,
    /// The recipients accepted so far, in order.
    pub rcpt_to: Recipients,
}

/// Recipients in their order. One alone, which most mail has, takes no memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// None or several.
    Several(Vec<Address>),
    /// One.
    One(Address),
}

impl Transaction {
    /// Whether MAIL said SMTPUTF8 (RFC 6531).
    #[must_use]
    pub fn smtputf8(&self) -> bool {
        self.mail_from.parameters().iter().any(|parameter| parameter.keyword == "SMTPUTF8")
    }

    /// What it came over, as `Received` names it (RFC 3848, RFC 6531 §4.3): `ESMTPSA`, `UTF8LMTP`.
    #[must_use]
    pub fn with_protocol(&self, tls: bool, authenticated: bool) -> String {
        let base = match self.dialect {
            Dialect::Lmtp if self.smtputf8() => "UTF8LMTP",
            _ if self.smtputf8() => "UTF8SMTP",
            dialect => dialect.name(),
        };
        let secure = if tls { "S" } else { "" };
        // SMTP without extensions has no AUTH, and no name for it.
        let authenticated = if authenticated && base != "SMTP" { "A" } else { "" };
        format!("{base}{secure}{authenticated}")
    }
}

impl Recipients {
    /// Puts one behind the others.
    pub fn push(&mut self, recipient: Address) {
        *self = match std::mem::take(self) {
            Self::Several(none) if none.is_empty() => Self::One(recipient),
            Self::Several(mut several) => {
                several.push(recipient);
                Self::Several(several)
            }
            Self::One(first) => Self::Several(vec![first, recipient]),
        }
    }
}

impl Default for Recipients {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Deref for Recipients {
    type Target = [Address];

    fn deref(&self) -> &[Address] {
        match self {
            Self::Several(several) => several,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

impl FromIterator<Address> for Recipients {
    fn from_iter<I: IntoIterator<Item = Address>>(recipients: I) -> Self {
        let mut all = Self::default();
        recipients.into_iter().for_each(|recipient| all.push(recipient));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Parameter;

    #[test]
    fn the_protocol_is_named_as_it_is_registered() {
        let table = [
            (Dialect::Smtp, false, ["SMTP", "SMTPS", "SMTP", "SMTPS"]),
            (Dialect::Esmtp, false, ["ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA"]),
            (Dialect::Esmtp, true, ["UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA"]),
            (Dialect::Lmtp, false, ["LMTP", "LMTPS", "LMTPA", "LMTPSA"]),
            (Dialect::Lmtp, true, ["UTF8LMTP", "UTF8LMTPS", "UTF8LMTPA", "UTF8LMTPSA"]),
        ];
        for (dialect, utf8, names) in table {
            let keyword = if utf8 { "SMTPUTF8" } else { "SIZE" }.into();
            let mail_from =
                Address::null().with_parameters(vec![Parameter { keyword, value: None }]);
            let transaction = Transaction { dialect, mail_from, ..Transaction::default() };
            let ways = [(false, false), (true, false), (false, true), (true, true)];
            assert_eq!(ways.map(|(tls, auth)| transaction.with_protocol(tls, auth)), names);
        }
    }

    #[test]
    fn recipients_stay_in_order_however_many_there_are() {
        let addresses: Vec<_> = (0..4).map(|n| Address::new(format!("u{n}"), "a")).collect();
        for count in 0..=addresses.len() {
            let recipients: Recipients = addresses.iter().take(count).cloned().collect();
            assert_eq!(Some(&*recipients), addresses.get(..count));
        }
    }
}
