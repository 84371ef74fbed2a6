//! How far a session is, for whoever counts sessions.

use super::{Session, State};

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A command, or more of AUTH, with no transaction open.
    Idle,
    /// A command, with a transaction open.
    Transaction,
    /// The message: from DATA until the final dot, from the first BDAT until the last one.
    Data,
    /// An answer on a recipient, on credentials or on a whole message.
    Waiting,
    /// TLS, or the greeting behind XCLIENT.
    Negotiating,
    /// Nothing: it has ended.
    Closed,
}

impl Session {
    /// How far it is.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Ready | State::Challenged(_) => Phase::Idle,
            State::Open(_) => Phase::Transaction,
            State::Beginning(..) | State::Receiving(_) | State::Chunk(_) | State::Between(_) => {
                Phase::Data
            }
            State::Checking(..)
            | State::Asking(_)
            | State::Finishing(..)
            | State::Authenticating
            | State::Delivering(_) => Phase::Waiting,
            State::Negotiating => Phase::Negotiating,
            State::Closed => Phase::Closed,
        }
    }

    /// Whether MAIL was accepted and its transaction has not ended.
    pub fn in_transaction(&self) -> bool {
        !matches!(self.state, State::Ready | State::Challenged(_) | State::Closed)
    }

    /// Whether what comes next is the octets of a message, not a command.
    pub fn in_data(&self) -> bool {
        matches!(self.state, State::Receiving(_) | State::Chunk(_))
    }

    /// Whether a message has begun to come and has not ended.
    pub fn in_message(&self) -> bool {
        self.in_data() || matches!(self.state, State::Between(_))
    }

    /// Whether the session has ended: nothing is left but to send what is written.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}
