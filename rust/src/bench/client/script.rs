//! What is said, by every connection alike.

use crate::smtp::Protocol;

/// What every connection says.
#[derive(Debug)]
pub struct Script {
    pub(super) protocol: Protocol,
    pub(super) hello: String,
    pub(super) start_tls: bool,
    pub(super) pipelining: bool,
    pub(super) mail: String,
    pub(super) recipients: Vec<String>,
}

impl Script {
    /// What is said for a mail from `sender` to `recipients`, each without brackets. They come from whoever
    /// runs this, and have been checked to be addresses.
    pub fn new(
        protocol: Protocol,
        helo: &str,
        start_tls: bool,
        pipelining: bool,
        sender: &str,
        recipients: &[String],
    ) -> Self {
        let verb = if protocol == Protocol::Lmtp { "LHLO" } else { "EHLO" };
        let recipient = |to: &String| format!("RCPT TO:<{to}>\r\n");
        Self {
            protocol,
            hello: format!("{verb} {helo}\r\n"),
            start_tls,
            pipelining,
            mail: format!("MAIL FROM:<{sender}>"),
            recipients: recipients.iter().map(recipient).collect(),
        }
    }
}
