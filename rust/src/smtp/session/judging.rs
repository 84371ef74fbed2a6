//! What a whole message is refused for before anyone is asked to save it.

use std::sync::Arc;

use super::{Session, State};
use crate::buffer::{Body, Fault};
use crate::mail::header::count_received;
use crate::smtp::{Reply, Transaction, fixed};

/// A message that was refused after its end, for whoever keeps a log.
#[derive(Debug)]
pub struct Refused {
    /// What came before its data.
    pub transaction: Arc<Transaction>,
    /// Its octets, as far as they were kept.
    pub size: u64,
    /// What was said.
    pub reply: Reply,
}

impl Session {
    /// Messages refused since it was last asked, oldest first. Who drives the session takes them after
    /// each step.
    pub fn take_refused(&mut self) -> Vec<Refused> {
        self.refused.take()
    }

    /// Whether a message went through so many hops that it goes round (RFC 5321 §6.3).
    fn is_looping(&self, body: &Body) -> bool {
        let message = body.as_slice();
        let end = body.header_end().unwrap_or(message.len()).min(self.settings.max_header_size);
        let header = message.get(..end).unwrap_or(message);
        let limit = self.settings.max_received_hops;
        limit > 0 && count_received(header) > limit
    }

    /// Hands a whole message on, or says why it is not taken.
    pub(super) fn judge(
        &mut self,
        transaction: Arc<Transaction>,
        body: Body,
        bare_newline: bool,
    ) -> Option<(Arc<Transaction>, Body)> {
        let refusal = match body.fault() {
            Some(Fault::TooLarge) => Some(too_large(self.settings.max_size)),
            Some(Fault::NoMemory) => Some(fixed::NO_MEMORY),
            Some(Fault::NoStorage) => Some(fixed::NO_STORAGE),
            None if bare_newline => Some(fixed::BARE_NEWLINE),
            None if self.is_looping(&body) => Some(fixed::TOO_MANY_HOPS),
            None => None,
        };
        if let Some(reply) = refusal {
            let size = body.as_slice().len() as u64;
            self.refuse_message(transaction, size, reply);
            return None;
        }
        self.state = State::Delivering;
        Some((transaction, body))
    }

    /// Says why a message is not taken.
    pub(super) fn refuse_message(
        &mut self,
        transaction: Arc<Transaction>,
        size: u64,
        reply: Reply,
    ) {
        self.say(&reply);
        self.refused.push(Refused { transaction, size, reply });
    }
}

pub(super) fn too_large(limit: u64) -> Reply {
    Reply::made(552, (5, 3, 4), format!("Error: maximum message size is {limit} octets"))
}
