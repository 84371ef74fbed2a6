//! The line of each message: noted when its reply is known, logged when that was sent.

use std::sync::Arc;

use super::Connection;
use crate::delivery::Delivery;
use crate::log::{Level, Message};
use crate::smtp::Reply;

impl Connection {
    /// Notes a message that came to the queue, and what its sender is told, if anything.
    pub(super) fn note(&mut self, delivery: &Delivery, reply: Option<&Reply>) {
        if self.shared.log.is_on(Level::Info) {
            let Delivery { client, transaction, body, queued_id, course, .. } = delivery;
            let size = body.as_slice().len() as u64;
            let message = Message::new(Arc::clone(client), transaction, size, reply.cloned());
            self.replied.push(message.queued(queued_id, course.end()));
        }
    }

    /// Notes what the session itself refused.
    pub(super) fn note_refused(&mut self) {
        for refused in self.session.take_refused() {
            if self.shared.log.is_on(Level::Info) {
                let client = Arc::clone(&self.client);
                let (size, reply) = (refused.size, Some(refused.reply));
                let message = Message::new(client, &refused.transaction, size, reply);
                self.replied.push(message);
            }
        }
    }

    /// Logs what was noted: its replies have been sent, or could not be.
    pub(super) fn log_replied(&mut self, sent: bool) {
        for mut message in self.replied.take() {
            message.set_sent(sent);
            self.shared.log.message(Box::new(message));
        }
    }
}
