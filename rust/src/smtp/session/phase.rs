//! How far a session is, for whoever counts sessions.

use super::{Session, State};

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A command, or more of AUTH, with no transaction open.
    Idle,
    /// A command, with a transaction open.
    Transaction,
    /// The message: from DATA until the final dot.
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
            State::Beginning(_) | State::Receiving(_) => Phase::Data,
            State::Checking(..)
            | State::Asking(_)
            | State::Finishing(_)
            | State::Authenticating
            | State::Delivering(_) => Phase::Waiting,
            State::Negotiating => Phase::Negotiating,
            State::Closed => Phase::Closed,
        }
    }
}
