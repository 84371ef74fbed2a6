//! What has to come of octets behind 354, written as simply as can be: a second opinion on `DataReader`.

#![allow(dead_code, reason = "each test uses a part")]

use guerrilla::smtp::BareNewline;

pub(crate) const POLICIES: [BareNewline; 3] =
    [BareNewline::Fix, BareNewline::Keep, BareNewline::Reject];

/// The end of a message, and of the line before it.
pub(crate) const EOM: &[u8] = b"\r\n.\r\n";

/// What was sent behind 354, cut where the first CRLF.CRLF is: the message, still stuffed, and the rest.
pub(crate) fn cut_at_the_end(sent: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    // The CRLF of DATA itself stands before the first octet.
    let all = [b"\r\n", sent].concat();
    let at = all.windows(EOM.len()).position(|window| window == EOM)?;
    let message = all.get(2..at + 2)?.to_vec();
    Some((message, sent.get(at + EOM.len() - 2..)?))
}

/// Takes one dot off each line that begins with one; only CRLF begins a line (RFC 5321 §4.5.2).
pub(crate) fn unstuff(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    // As above.
    let (mut before, mut last) = (b'\r', b'\n');
    for &octet in message {
        if (before, last, octet) != (b'\r', b'\n', b'.') {
            out.push(octet);
        }
        (before, last) = (last, octet);
    }
    out
}

/// What a client sends for a message.
pub(crate) fn stuff(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for &octet in message {
        if octet == b'.' && (out.is_empty() || out.ends_with(b"\r\n")) {
            out.push(b'.');
        }
        out.push(octet);
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// Makes every line end CRLF.
pub(crate) fn with_crlf(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last = 0;
    for &octet in message {
        match (last, octet) {
            (b'\r', b'\n') => {}
            (_, b'\r' | b'\n') => out.extend_from_slice(b"\r\n"),
            _ => out.push(octet),
        }
        last = octet;
    }
    out
}

pub(crate) fn has_bare_newline(message: &[u8]) -> bool {
    with_crlf(message) != message
}

/// What is stored of a message, or none where it is refused.
pub(crate) fn stored(policy: BareNewline, message: &[u8]) -> Option<Vec<u8>> {
    let message = unstuff(message);
    match policy {
        BareNewline::Fix => Some(with_crlf(&message)),
        BareNewline::Keep => Some(message),
        BareNewline::Reject => (!has_bare_newline(&message)).then_some(message),
    }
}
