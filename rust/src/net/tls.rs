//! The TLS records of one connection: ciphertext in, plaintext out, and back.

use std::io;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, ProtocolVersion};

use crate::delivery::TlsInfo;
use crate::tls::{Context, take_asked_name};

/// The head of a record: its type, a version, its length.
const HEAD: usize = 5;
/// What a peer may leave incomplete, as rustls' own buffers bound it: a record of TLS 1.2 (RFC 5246 §6.2.3), or, before the
/// handshake has ended, 64 KiB of it in records of its choice.
const LARGEST_RECORD: usize = HEAD + (16 << 10) + 2_048;
const LARGEST_HANDSHAKE: usize = 0xffff;
/// What a short reply needs beside itself, to be encrypted at the first try: the head of a record, a nonce of TLS 1.2, a tag.
const OVERHEAD: usize = HEAD + 8 + 16;

type State<'c, 'i> = ConnectionState<'c, 'i, ServerConnectionData>;
type Traffic<'c> = WriteTraffic<'c, ServerConnectionData>;

/// TLS of one connection, whose socket someone else reads and writes.
///
/// Records are decrypted where they were read, and encrypted where they are sent from: an idle connection has no buffer.
pub(super) struct Records {
    connection: UnbufferedServerConnection,
    /// The server that the peer asked for.
    server_name: Option<Box<str>>,
    /// Of a record, or of a message of the handshake, that is not complete: as rustls left it.
    begun: Vec<u8>,
    /// rustls keeps complete records of that, with which a message of the handshake has begun.
    is_joined: bool,
    /// Of handshakes, tickets and alerts: what is to be sent.
    outgoing: Vec<u8>,
    /// A session ticket waits for company: nobody needs it now, and a write of its own costs more than
    /// it does.
    has_ticket: bool,
    peer: Peer,
}

/// How far the peer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Open,
    /// It has said that nothing more comes.
    Closed,
    /// Something was no record. rustls is not asked again: it would look for what it has begun with.
    Broken,
}

impl Records {
    pub(super) fn new(connection: UnbufferedServerConnection) -> Self {
        let (server_name, begun, outgoing) = Default::default();
        Self {
            connection,
            server_name,
            begun,
            outgoing,
            is_joined: false,
            has_ticket: false,
            peer: Peer::Open,
        }
    }

    /// What a handshake that has ended has come to.
    pub(super) fn describe(&self, context: &Context) -> TlsInfo {
        context.describe(&self.connection, self.server_name.as_deref())
    }

    /// Whether the handshake has ended, with nothing to send that its peer would wait for: in TLS 1.3 a
    /// server's last word is a ticket (RFC 8446 §4.6.1), which then goes with what is sent next.
    pub(super) fn is_settled(&mut self) -> bool {
        if self.connection.is_handshaking() {
            return false;
        }
        let is_tls13 = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        self.has_ticket = is_tls13 && !self.outgoing.is_empty();
        is_tls13 || self.outgoing.is_empty()
    }

    /// Takes what was read from the socket and appends what it says; `false` when the peer has closed. The ciphertext is
    /// overwritten.
    pub(super) fn decrypt(
        &mut self,
        ciphertext: &mut [u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let mut input = ciphertext;
        if let Some(count) = self.missing() {
            if count > input.len() {
                self.begun.reserve_exact(input.len());
                self.begun.extend_from_slice(input);
                return Ok(self.is_open());
            }
            // That record is completed by itself, so that little is copied.
            let (first, rest) = input.split_at_mut(count);
            self.take_behind_begun(first, plaintext)?;
            input = rest;
        }
        if self.begun.is_empty() {
            let used = self.take(input, plaintext)?;
            self.begun = input.get(used..).unwrap_or_default().to_vec();
        } else if !input.is_empty() {
            self.take_behind_begun(input, plaintext)?;
        }
        Ok(self.is_open())
    }

    /// How many octets the record lacks that has begun, and whose head rustls has seen.
    fn missing(&self) -> Option<usize> {
        let whole = whole_record(&self.begun).filter(|_| !self.is_joined)?;
        whole.checked_sub(self.begun.len()).filter(|&count| count > 0)
    }

    /// The same, of what was begun and what goes on with it.
    fn take_behind_begun(&mut self, input: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        let mut whole = std::mem::take(&mut self.begun);
        whole.reserve_exact(input.len());
        whole.extend_from_slice(input);
        let used = self.take(&mut whole, plaintext)?;
        // A handshake in many records grows in its place.
        self.begun = if used == 0 { whole } else { whole.split_off(used.min(whole.len())) };
        Ok(())
    }

    /// All complete records; how many octets are done with. What is left may not be too much.
    fn take(&mut self, input: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, Error> {
        if self.peer == Peer::Broken {
            return Err(Error::General("it has failed before".to_owned()));
        }
        let was_handshaking = self.connection.is_handshaking();
        if was_handshaking {
            take_asked_name();
        }
        let complete = if self.is_joined { input.len() } else { complete_records(input) };
        let taken = self.process(input, plaintext);
        if was_handshaking {
            self.server_name = take_asked_name().or(self.server_name.take());
        }
        let most =
            if self.connection.is_handshaking() { LARGEST_HANDSHAKE } else { LARGEST_RECORD };
        let taken = match taken {
            Ok(_) if !self.is_open() => Ok(input.len()),
            Ok(used) if input.len().saturating_sub(used) > most => {
                Err(Error::General("too much is incomplete".to_owned()))
            }
            taken => taken,
        };
        match taken {
            Ok(used) => self.is_joined = self.is_open() && used != complete,
            Err(_) => self.peer = Peer::Broken,
        }
        taken
    }

    /// All complete records, as far as rustls takes them.
    fn process(&mut self, input: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let rest = input.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(rest);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plaintext.extend_from_slice(record.payload);
                        used += record.discard;
                    }
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed)
                    if self.peer == Peer::Open =>
                {
                    self.peer = Peer::Closed;
                }
                Ok(state) => {
                    if !take_outgoing(state, &mut self.outgoing) {
                        return Ok(used);
                    }
                }
                Err(error) => {
                    self.take_alert(input.get_mut(used..).unwrap_or_default());
                    return Err(error);
                }
            }
        }
    }

    /// What tells the peer why it failed. rustls gives that before it looks at the input, which has to be there.
    fn take_alert(&mut self, input: &mut [u8]) {
        while self.connection.wants_write() {
            match self.connection.process_tls_records(input).state {
                Ok(state) if matches!(state, ConnectionState::EncodeTlsData(_)) => {
                    take_outgoing(state, &mut self.outgoing);
                }
                _ => return,
            }
        }
    }

    /// Appends records with `plaintext`, behind whatever else has to be sent.
    pub(super) fn encrypt(&mut self, plaintext: &[u8], ciphertext: &mut Vec<u8>) -> io::Result<()> {
        self.has_ticket = false;
        ciphertext.extend_from_slice(&std::mem::take(&mut self.outgoing));
        if plaintext.is_empty() {
            return Ok(());
        }
        let room = plaintext.len() + OVERHEAD;
        self.write(room, ciphertext, |traffic, room| traffic.encrypt(plaintext, room))
    }

    fn is_open(&self) -> bool {
        self.peer == Peer::Open
    }

    /// Whether there is something to send besides plaintext: handshakes, tickets, alerts.
    pub(super) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty() && !self.has_ticket
    }

    /// Appends the alert that nothing more will come (RFC 8446 §6.1): behind the last reply, since rustls
    /// takes no plaintext after it.
    pub(super) fn close(&mut self, ciphertext: &mut Vec<u8>) -> io::Result<()> {
        ciphertext.extend_from_slice(&std::mem::take(&mut self.outgoing));
        // As a function it would be for one lifetime only.
        #[allow(clippy::redundant_closure_for_method_calls)]
        self.write(2 + OVERHEAD, ciphertext, |traffic, room| traffic.queue_close_notify(room))
    }

    /// Appends what `put` writes into so much room, or into as much as it asks for.
    fn write(
        &mut self,
        mut room: usize,
        ciphertext: &mut Vec<u8>,
        put: impl Fn(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        while self.peer != Peer::Broken {
            // Nothing in there is complete; but rustls looks at it anew.
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut self.begun);
            let state = state.map_err(|error| {
                self.peer = Peer::Broken;
                io::Error::other(error)
            });
            match state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    match append(ciphertext, room, |room| put(&mut traffic, room)) {
                        Ok(()) => return Ok(()),
                        Err(EncryptError::InsufficientSize(more)) => room = more.required_size,
                        Err(error) => return Err(io::Error::other(error)),
                    }
                }
                ConnectionState::PeerClosed => self.peer = Peer::Closed,
                state => {
                    if !take_outgoing(state, ciphertext) {
                        return Err(io::Error::other("TLS has no keys to encrypt with"));
                    }
                }
            }
            self.begun.drain(..discard);
        }
        Err(io::Error::other("TLS has failed"))
    }
}

/// Octets of a record by its head (RFC 8446 §5.1), where that is there.
fn whole_record(octets: &[u8]) -> Option<usize> {
    let (head, _) = octets.split_first_chunk::<HEAD>()?;
    let [_, _, _, high, low] = *head;
    Some(HEAD + usize::from(u16::from_be_bytes([high, low])))
}

/// Octets of the records that are complete, from the first one's head on.
fn complete_records(octets: &[u8]) -> usize {
    let mut rest = octets;
    while let Some(behind) = whole_record(rest).and_then(|count| rest.get(count..)) {
        rest = behind;
    }
    octets.len() - rest.len()
}

/// Appends what a handshake says; `false` where it says nothing just now.
fn take_outgoing(state: State<'_, '_>, outgoing: &mut Vec<u8>) -> bool {
    match state {
        ConnectionState::EncodeTlsData(mut data) => {
            // It tells its size to who has no room for it.
            if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
                let _ = append(outgoing, needed.required_size, |room| data.encode(room));
            }
            true
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            true
        }
        _ => false,
    }
}

/// Appends what is put into so much room.
fn append<E>(
    octets: &mut Vec<u8>,
    room: usize,
    put: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let begin = octets.len();
    octets.resize(begin + room, 0);
    let put = put(octets.get_mut(begin..).unwrap_or_default());
    octets.truncate(begin + put.as_ref().copied().unwrap_or_default());
    put.map(drop)
}

#[cfg(test)]
pub(super) mod tests;
