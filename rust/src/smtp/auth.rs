//! What a client shows to authenticate (RFC 4954): which mechanism, which name, which password.

use std::fmt;

use zeroize::Zeroizing;

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// LOGIN, which no RFC has, and old clients do: name and password on a question each.
    Login,
}

impl Mechanism {
    /// `PLAIN` or `LOGIN`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// The inverse of [`name`](Self::name), in any case.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let mechanisms = [Self::Plain, Self::Login];
        mechanisms.into_iter().find(|one| name.eq_ignore_ascii_case(one.name().as_bytes()))
    }
}

/// A password, or what holds one: no form of it is printed, and nothing of it is left in memory once it
/// is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// What it is.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What a client shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// How it was sent.
    pub mechanism: Mechanism,
    /// Whose password it is: the authentication identity.
    pub username: String,
    /// Whom it wants to act as; empty for itself (RFC 4616 §2).
    pub authorization_identity: String,
    /// The password.
    pub password: Secret,
}

impl Credentials {
    /// Who the client is once these are accepted.
    pub fn identity(&self) -> &str {
        if self.authorization_identity.is_empty() {
            &self.username
        } else {
            &self.authorization_identity
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_a_password_is_printed() {
        let credentials = Credentials {
            mechanism: Mechanism::Plain,
            username: "joe".to_owned(),
            authorization_identity: String::new(),
            password: Secret::new("secret".to_owned()),
        };
        let printed = format!("{credentials:?} {credentials:#?}");
        assert!(printed.contains("joe") && !printed.contains("secret"), "{printed}");
        assert_eq!((credentials.identity(), credentials.password.expose()), ("joe", "secret"));
    }
}
