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
}

impl Peer {
    pub(super) fn may_start_tls(self, settings: &Settings) -> bool {
        settings.start_tls && !self.secure
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

/// Writes the whole reply.
pub(super) fn write_ehlo(settings: &Settings, peer: Peer, out: &mut Vec<u8>) {
    out.extend_from_slice(b"250-");
    out.extend_from_slice(settings.host_name.as_bytes());
    // RFC 1870 §4: 0, or no number, says that there is no fixed limit.
    let size = format!(" Hello\r\n250-SIZE {}\r\n", settings.max_size);
    out.extend_from_slice(size.as_bytes());
    out.extend_from_slice(b"250-PIPELINING\r\n250-8BITMIME\r\n");
    // RFC 3207 §4.2: not offered again within TLS.
    if peer.may_start_tls(settings) {
        out.extend_from_slice(b"250-STARTTLS\r\n");
    }
    if peer.may_xclient(settings) {
        out.extend_from_slice(format!("250-XCLIENT {ATTRIBUTES}\r\n").as_bytes());
    }
    out.extend_from_slice(b"250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n");
}

/// Writes the reply to HELO, whose client knows no extensions.
pub(super) fn write_helo(settings: &Settings, out: &mut Vec<u8>) {
    out.extend_from_slice(b"250 ");
    out.extend_from_slice(settings.host_name.as_bytes());
    out.extend_from_slice(b" Hello\r\n");
}
