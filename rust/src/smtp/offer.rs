//! What EHLO is answered: the extensions a client may use now (RFC 5321 §4.1.1.1).

use super::limits::Settings;
use super::xclient::ATTRIBUTES;

/// What depends on the connection, not on the server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    /// Whether TLS is active.
    pub(super) secure: bool,
    /// Whether it is a trusted proxy.
    pub(super) trusted: bool,
    /// Whether it has said for whom it speaks.
    pub(super) spoke: bool,
    /// Who knows who it is.
    pub(super) login: Login,
}

/// Whether a client has authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Login {
    /// It has not.
    #[default]
    Nobody,
    /// By AUTH: a new beginning takes it back.
    Own,
    /// A proxy has said so (XCLIENT LOGIN).
    Proxied,
}

impl Peer {
    pub(super) fn may_start_tls(self, settings: &Settings) -> bool {
        settings.start_tls && !self.secure
    }

    pub(super) fn may_auth(self, settings: &Settings) -> bool {
        settings.auth.offered && (self.secure || settings.auth.allow_plaintext)
    }

    pub(super) fn may_xclient(self, settings: &Settings) -> bool {
        settings.xclient && self.trusted
    }

    /// A mail begins. A proxy that has named its client may from now on pass on whatever that one says,
    /// as nginx does: XCLIENT would be the client's own.
    pub(super) fn begin_mail(&mut self) {
        self.trusted &= !self.spoke;
    }
}

/// A reply of as many lines as there turn out to be: the last alone has no `-`.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
    /// Where the last line begins.
    last: usize,
}

impl<'a> Lines<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { last: out.len(), out }
    }

    /// Adds a line, in pieces so that none needs a text of its own.
    fn add(&mut self, pieces: &[&str]) {
        self.last = self.out.len();
        self.out.extend_from_slice(b"250-");
        for piece in pieces {
            self.out.extend_from_slice(piece.as_bytes());
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn add_if(&mut self, offered: bool, line: &str) {
        if offered {
            self.add(&[line]);
        }
    }

    fn end(self) {
        if let Some(mark) = self.out.get_mut(self.last + 3) {
            *mark = b' ';
        }
    }
}

/// Writes the whole reply.
pub(super) fn write_ehlo(settings: &Settings, peer: Peer, out: &mut Vec<u8>) {
    let offered = &settings.extensions;
    let mut lines = Lines::new(out);
    lines.add(&[&settings.host_name, " Hello"]);
    if offered.size {
        // RFC 1870 §4: 0, or no number, says that there is no fixed limit.
        lines.add(&["SIZE ", &settings.max_size.to_string()]);
    }
    lines.add_if(offered.pipelining, "PIPELINING");
    lines.add_if(offered.eight_bit_mime, "8BITMIME");
    // RFC 3207 §4.2: not offered again within TLS.
    lines.add_if(peer.may_start_tls(settings), "STARTTLS");
    // RFC 4954 §4: not where a password would cross the network in the clear.
    lines.add_if(peer.may_auth(settings), "AUTH PLAIN LOGIN");
    lines.add_if(offered.offers_smtputf8(), "SMTPUTF8");
    lines.add_if(offered.chunking, "CHUNKING");
    lines.add_if(offered.binary_mime(), "BINARYMIME");
    lines.add_if(offered.dsn, "DSN");
    if offered.limits {
        add_limits(settings, &mut lines);
    }
    if peer.may_xclient(settings) {
        lines.add(&["XCLIENT ", ATTRIBUTES]);
    }
    lines.add_if(offered.enhanced_status_codes, "ENHANCEDSTATUSCODES");
    lines.add_if(offered.help, "HELP");
    lines.end();
}

/// RFC 9422 §3: the limits that there are, if there are any. A value has six digits at most (§4): who
/// keeps to that keeps to more.
fn add_limits(settings: &Settings, lines: &mut Lines<'_>) {
    const LARGEST: u64 = 999_999;
    let limit = |name: &str, limit: u64| match limit {
        0 => String::new(),
        _ => format!(" {name}={}", limit.min(LARGEST)),
    };
    let recipients = limit("RCPTMAX", settings.max_recipients as u64);
    let messages = limit("MAILMAX", settings.max_messages.into());
    if !recipients.is_empty() || !messages.is_empty() {
        lines.add(&["LIMITS", &recipients, &messages]);
    }
}

/// Writes the reply to HELO, whose client knows no extensions.
pub(super) fn write_helo(settings: &Settings, out: &mut Vec<u8>) {
    out.extend_from_slice(b"250 ");
    out.extend_from_slice(settings.host_name.as_bytes());
    out.extend_from_slice(b" Hello\r\n");
}
