//! A message that comes in chunks (RFC 3030 §2).
//!
//! ```text
//!        BDAT              body                   BDAT                LAST
//!   Open ────▶ Beginning ──────▶ Chunk ──▶ Between ────▶ Chunk ... Chunk ────▶ as behind a final dot
//!     │           │ refused       │ refused   │ RSET
//!     └───────────┴─▶ Chunk, dropped ─▶ Ready ◀┘
//! ```
//!
//! The octets of a chunk are taken whatever is said to it, because what follows them is the next command.
//! A refused chunk ends its transaction: no later one can make a message out of the rest.

use std::sync::Arc;

use super::judging::{replies_to, too_large};
use super::receiving::cover_envelope;
use super::{Open, Session, State, Step};
use crate::buffer::Body;
use crate::smtp::chunk::{Chunk, ChunkReader, drop_octets};
use crate::smtp::data::Ending;
use crate::smtp::fixed;
use crate::smtp::reply::Reply;
use crate::smtp::transaction::Transaction;

/// A message of which more may come.
#[derive(Debug)]
pub(super) struct Chunked {
    transaction: Arc<Transaction>,
    reader: ChunkReader,
    pub(super) body: Body,
    /// Octets of its chunks, the one that is coming in with them.
    octets: u64,
}

/// A chunk that is coming in.
#[derive(Debug)]
pub(super) struct Incoming {
    chunk: Chunk,
    /// Octets that have not come yet.
    pub(super) left: u64,
    pub(super) sink: Sink,
}

/// What becomes of it.
#[derive(Debug)]
pub(super) enum Sink {
    Message(Box<Chunked>),
    /// It is dropped, and then this is said.
    Nowhere(Box<Dropped>),
}

#[derive(Debug)]
pub(super) struct Dropped {
    reply: Reply,
    /// How often.
    count: usize,
    /// The message that this is the end of, where one had begun.
    message: Option<Arc<Transaction>>,
}

impl Chunk {
    /// RFC 2033 §4.3: one for each recipient to the last chunk, and one to any other.
    pub(super) fn replies_to(self, transaction: &Transaction) -> usize {
        if self.last { replies_to(transaction) } else { 1 }
    }
}

impl Incoming {
    fn read(&mut self, input: &mut &[u8]) -> Ending {
        match &mut self.sink {
            Sink::Message(message) => message.reader.read(input, &mut self.left, &mut message.body),
            Sink::Nowhere(_) => drop_octets(input, &mut self.left),
        }
    }
}

impl Session {
    /// BDAT. Nothing of the chunk has been looked at.
    pub(super) fn bdat(&mut self, chunk: Chunk) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Open(open) if open.transaction.rcpt_to.is_empty() => {
                self.drop_chunk(chunk, open.no_recipients(), 1);
            }
            // What cannot be stored needs no memory.
            State::Open(open) if self.is_too_large(chunk.size) => {
                self.drop_message(open.transaction, chunk);
            }
            State::Open(Open { transaction, declared, .. }) => {
                let declared = if chunk.last { Some(chunk.size) } else { declared };
                self.state = State::Beginning(transaction, Some(chunk));
                return Some(Step::BeginBody { declared });
            }
            State::Between(mut message) => {
                message.octets = message.octets.saturating_add(chunk.size);
                if self.is_too_large(message.octets) {
                    self.drop_message(message.transaction, chunk);
                } else {
                    self.take_in(message, chunk);
                }
            }
            _ => self.drop_chunk(chunk, fixed::NO_CHUNKS, 1),
        }
        None
    }

    fn is_too_large(&self, octets: u64) -> bool {
        self.settings.max_size > 0 && octets > self.settings.max_size
    }

    fn take_in(&mut self, message: Box<Chunked>, chunk: Chunk) {
        let sink = Sink::Message(message);
        self.state = State::Chunk(Incoming { chunk, left: chunk.size, sink });
    }

    /// The chunk is not taken, which is said in so many replies; its transaction is over.
    pub(super) fn drop_chunk(&mut self, chunk: Chunk, reply: Reply, count: usize) {
        let sink = Sink::Nowhere(Box::new(Dropped { reply, count, message: None }));
        self.state = State::Chunk(Incoming { chunk, left: chunk.size, sink });
    }

    /// The message is too large with this chunk.
    fn drop_message(&mut self, transaction: Arc<Transaction>, chunk: Chunk) {
        let reply = too_large(self.settings.max_size);
        let count = chunk.replies_to(&transaction);
        let sink = Sink::Nowhere(Box::new(Dropped { reply, count, message: Some(transaction) }));
        self.state = State::Chunk(Incoming { chunk, left: chunk.size, sink });
    }

    /// There is a body for the first chunk, which is not announced by a 354.
    pub(super) fn begin_chunks(
        &mut self,
        transaction: Arc<Transaction>,
        mut body: Body,
        chunk: Chunk,
    ) {
        cover_envelope(&transaction, &mut body);
        let reader = ChunkReader::new(self.settings.max_header_size);
        self.take_in(Box::new(Chunked { transaction, reader, body, octets: chunk.size }), chunk);
    }

    /// Takes octets of the chunk; nothing once it is there and there is nothing to ask.
    pub(super) fn read_chunk(&mut self, input: &mut &[u8]) -> Option<Step> {
        let State::Chunk(incoming) = &mut self.state else { return None };
        match incoming.read(input) {
            Ending::Open => Some(Step::NeedInput),
            Ending::Behind => Some(Step::CatchUp),
            Ending::Complete => self.end_of_chunk(),
        }
    }

    /// All octets of the chunk are there.
    fn end_of_chunk(&mut self) -> Option<Step> {
        let State::Chunk(Incoming { chunk, sink, .. }) =
            std::mem::replace(&mut self.state, State::Ready)
        else {
            return None;
        };
        match sink {
            Sink::Nowhere(dropped) => {
                self.end_dropped(*dropped);
                None
            }
            Sink::Message(mut message) if chunk.last || message.body.fault().is_some() => {
                message.body.end();
                let Chunked { transaction, body, .. } = *message;
                let count = chunk.replies_to(&transaction);
                self.end_of_message(transaction, body, false, count)
            }
            Sink::Message(message) => {
                self.state = State::Between(message);
                let text = format!("{} octets received", chunk.size);
                self.say(&Reply::made(250, (2, 0, 0), text));
                None
            }
        }
    }

    fn end_dropped(&mut self, Dropped { reply, count, message }: Dropped) {
        if let Some(transaction) = message {
            self.messages = self.messages.saturating_add(1);
            self.refuse_message(transaction, 0, reply, count);
        } else if reply.code() == 421 {
            // RFC 5321 §3.8: after 421 the connection is closed.
            self.end(&reply);
        } else {
            (0..count).for_each(|_| self.say(&reply));
        }
    }
}
