//! The TLS records of one connection: ciphertext in, plaintext out, and back.

use std::io::{self, BufRead, Write as _};

use rustls::{Error, ProtocolVersion, ServerConnection};

/// TLS of one connection, whose socket someone else reads and writes.
pub(super) struct Records {
    connection: ServerConnection,
    /// A session ticket waits for company: nobody needs it now, and a write of its own costs more than
    /// it does.
    has_ticket: bool,
}

impl Records {
    pub(super) fn new(mut connection: ServerConnection) -> Self {
        // What is written is bounded by the session's own output.
        connection.set_buffer_limit(None);
        Self { connection, has_ticket: false }
    }

    pub(super) fn connection(&self) -> &ServerConnection {
        &self.connection
    }

    /// Whether the handshake has ended, with nothing to send that its peer would wait for: in TLS 1.3 a
    /// server's last word is a ticket (RFC 8446 §4.6.1), which then goes with what is sent next.
    pub(super) fn is_settled(&mut self) -> bool {
        if self.connection.is_handshaking() {
            return false;
        }
        let is_tls13 = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        self.has_ticket = is_tls13 && self.connection.wants_write();
        is_tls13 || !self.connection.wants_write()
    }

    /// Takes what was read from the socket and appends what it says; `false` when the peer has closed.
    pub(super) fn decrypt(
        &mut self,
        ciphertext: &[u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let mut input = ciphertext;
        let mut open = true;
        while !input.is_empty() {
            if self.connection.read_tls(&mut input).map_err(|e| Error::General(e.to_string()))? == 0
            {
                break;
            }
            open = !self.connection.process_new_packets()?.peer_has_closed();
            self.take_plaintext(plaintext);
            if !open {
                break;
            }
        }
        Ok(open)
    }

    fn take_plaintext(&mut self, plaintext: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        loop {
            let count = match reader.fill_buf() {
                Ok(chunk) => {
                    plaintext.extend_from_slice(chunk);
                    chunk.len()
                }
                // Nothing more is there now.
                Err(_) => 0,
            };
            if count == 0 {
                return;
            }
            reader.consume(count);
        }
    }

    /// Appends records with `plaintext`, and whatever else has to be sent.
    pub(super) fn encrypt(&mut self, plaintext: &[u8], ciphertext: &mut Vec<u8>) -> io::Result<()> {
        self.has_ticket = false;
        self.connection.writer().write_all(plaintext)?;
        while self.connection.wants_write() {
            self.connection.write_tls(ciphertext)?;
        }
        Ok(())
    }

    /// Whether there is something to send besides plaintext: handshakes, tickets, alerts.
    pub(super) fn wants_write(&self) -> bool {
        self.connection.wants_write() && !self.has_ticket
    }

    /// Appends the alert that nothing more will come (RFC 8446 §6.1): behind the last reply, since rustls
    /// takes no plaintext after it.
    pub(super) fn close(&mut self, ciphertext: &mut Vec<u8>) -> io::Result<()> {
        self.connection.send_close_notify();
        self.encrypt(&[], ciphertext)
    }
}
