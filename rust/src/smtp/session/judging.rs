//! What a whole message is refused for before anyone is asked to save it.

use std::sync::Arc;

use super::{Session, State};
use crate::buffer::{Body, Fault};
use crate::mail::header::count_received;
use crate::smtp::{Dialect, Reply, Transaction, Verdict, fixed};

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

    /// Says what became of a message, in so many replies.
    pub(super) fn say_of_message(&mut self, count: usize, verdict: &Verdict) {
        match verdict {
            Verdict::Each(each) => each.iter().for_each(|reply| self.say(reply)),
            Verdict::All(reply) => (0..count).for_each(|_| self.say(reply)),
        }
    }

    /// Hands a whole message on, or says why it is not taken; either in so many replies.
    pub(super) fn judge(
        &mut self,
        transaction: Arc<Transaction>,
        body: Body,
        bare_newline: bool,
        count: usize,
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
            self.refuse_message(transaction, size, reply, count);
            return None;
        }
        self.state = State::Delivering(count);
        Some((transaction, body))
    }

    /// Says why a message is not taken, in so many replies.
    pub(super) fn refuse_message(
        &mut self,
        transaction: Arc<Transaction>,
        size: u64,
        reply: Reply,
        count: usize,
    ) {
        (0..count).for_each(|_| self.say(&reply));
        self.refused.push(Refused { transaction, size, reply });
    }
}

/// RFC 2033 §4.2: LMTP says what became of a message once for each recipient, in their order; SMTP once.
pub(super) fn replies_to(transaction: &Transaction) -> usize {
    if transaction.dialect == Dialect::Lmtp { transaction.rcpt_to.len() } else { 1 }
}

pub(super) fn too_large(limit: u64) -> Reply {
    Reply::made(552, (5, 3, 4), format!("Error: maximum message size is {limit} octets"))
}
