//! TLS of a server: what its files and names become, and how they are replaced while it runs.
//!
//! | file | what it holds |
//! |---|---|
//! | `context` | the settings of all handshakes of a server, and their replacement |
//! | `files` | certificates, keys and authorities out of PEM files |
//! | `names` | Go's names of protocols, ciphers and groups |
//! | `resolver` | which certificate an SNI means |
//! | `client` | which client certificate is asked for, and who it names |

mod client;
mod context;
mod files;
mod names;
mod resolver;

pub use client::ClientAuth;
pub(crate) use client::subject;
pub use context::{Context, Settings};
pub(crate) use files::certificates;
pub(crate) use resolver::take_asked_name;

/// What is wrong with one key of a `tls` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tls.{}: {}", self.key, self.text)
    }
}
