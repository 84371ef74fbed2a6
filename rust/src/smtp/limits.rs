//! The settings a session obeys, and the limits that no setting moves.

use std::sync::Arc;

use super::extensions::Extensions;
use super::hosts::HostList;
use super::reply::Form;

/// Octets of a command line with its CRLF. RFC 5321 §4.5.3.1.4 asks for 512 and what extensions add: 530 for
/// ORCPT and NOTIFY of RCPT (RFC 3461 §5.4); for MAIL 26 (SIZE), 17 (BODY), 10 (SMTPUTF8), 500 (AUTH), and
/// for RET and ENVID, of 300 octets in xtext, 316. Postfix takes so many too (`line_length_limit`).
pub const MAX_COMMAND_LINE: usize = 2_048;

/// Octets of an AUTH command, or of an answer to its challenge, with its CRLF (RFC 4954 §4).
pub const MAX_AUTH_LINE: usize = 12_288;

/// What becomes of a CR or LF in a message that is not part of a CRLF.
///
/// It never ends a message, whatever is set here: that is how mail is smuggled (CVE-2023-51764).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BareNewline {
    /// It becomes CRLF, as Postfix's `smtpd_forbid_bare_newline = normalize`.
    #[default]
    Fix,
    /// It is stored as it was sent.
    Keep,
    /// The message is refused after its end.
    Reject,
}

impl BareNewline {
    /// `fix`, `keep` or `reject`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "fix" => Some(Self::Fix),
            "keep" => Some(Self::Keep),
            "reject" => Some(Self::Reject),
            _ => None,
        }
    }
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// SMTP (RFC 5321).
    #[default]
    Smtp,
    /// LMTP (RFC 2033).
    Lmtp,
}

impl Protocol {
    /// `smtp` or `lmtp`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "smtp" => Some(Self::Smtp),
            "lmtp" => Some(Self::Lmtp),
            _ => None,
        }
    }
}

/// AUTH of a server (RFC 4954).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)] // As many yes-or-no keys as the section has.
pub struct Auth {
    /// Whether anybody checks credentials: only then it is offered.
    pub offered: bool,
    /// Whether MAIL needs it.
    pub required: bool,
    /// Whether who authenticated may mail to any host.
    pub relay: bool,
    /// Whether it is offered outside TLS too.
    pub allow_plaintext: bool,
}

/// What one session obeys; shared by all sessions of a server.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // As many yes-or-no keys as a server has.
pub struct Settings {
    /// What we call ourselves in the greeting and the answer to HELO; the host of `<Postmaster>`.
    pub host_name: Arc<str>,
    /// Octets of a message after unstuffing; advertised by SIZE (RFC 1870). 0: no limit.
    pub max_size: u64,
    /// Accepted recipients a transaction; RFC 5321 §4.5.3.1.8 asks for at least 100. 0: no limit.
    pub max_recipients: usize,
    /// The `500` of this number ends the session. 0: none does.
    pub max_errors: u32,
    /// Messages a connection; MAIL after them ends it. 0: no limit.
    pub max_messages: u32,
    /// Commands in a row that bring no mail nearer, after which the next ends the session. 0: no limit.
    pub max_idle_commands: u32,
    /// Octets of the header section that are looked at.
    pub max_header_size: usize,
    /// `Received` fields of a message that is still taken (RFC 5321 §6.3 asks for at least 100, against
    /// loops; Postfix's `hopcount_limit` is 50). 0: no limit.
    pub max_received_hops: usize,
    /// Whether MAIL needs HELO or EHLO before it (RFC 5321 §4.1.4).
    pub helo_required: bool,
    /// Whether STARTTLS is offered (RFC 3207).
    pub start_tls: bool,
    /// Whether mail is taken within TLS only.
    pub tls_required: bool,
    /// Whether XCLIENT is taken, from peers that are [trusted](super::Session::trust).
    pub xclient: bool,
    /// What it speaks.
    pub protocol: Protocol,
    /// What it offers.
    pub extensions: Extensions,
    /// Who must authenticate, and what that allows.
    pub auth: Auth,
    /// See [`BareNewline`].
    pub bare_newline: BareNewline,
    /// Whether each recipient is a question to the driver.
    pub check_recipients: bool,
    /// For which hosts mail is taken.
    pub allowed_hosts: HostList,
}

impl Settings {
    /// How replies are written to any client.
    #[must_use]
    pub fn form(&self) -> Form {
        Form { enhanced: self.extensions.enhanced_status_codes, utf8: false }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host_name: "localhost".into(),
            max_size: 10 << 20,
            max_recipients: 100,
            max_errors: 5,
            max_messages: 0,
            max_idle_commands: 50,
            max_header_size: 1 << 20,
            max_received_hops: 50,
            helo_required: true,
            start_tls: false,
            tls_required: false,
            xclient: false,
            protocol: Protocol::default(),
            extensions: Extensions::default(),
            auth: Auth::default(),
            bare_newline: BareNewline::default(),
            check_recipients: false,
            allowed_hosts: HostList::any(),
        }
    }
}
