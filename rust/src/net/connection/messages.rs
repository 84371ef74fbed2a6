//! The line of each message: noted when its reply is known, logged when that was sent.

use std::sync::Arc;

use super::Connection;
use crate::delivery::{Client, Delivery};
use crate::events::Event;
use crate::log::{Level, Message};
use crate::smtp::Reply;

impl Connection {
    /// Notes a message that came to the queue, and what its sender is told, if anything.
    pub(super) fn note(&mut self, delivery: &Delivery, reply: Option<&Reply>) {
        if self.hears_of_messages() {
            let Delivery { client, transaction, body, queued_id, course, .. } = delivery;
            let size = body.as_slice().len() as u64;
            let message = Message::new(
                Arc::clone(client),
                transaction,
                size,
                reply.cloned(),
                self.shared.events.wants_mails(),
            );
            self.replied.push(message.queued(queued_id, course.end()));
        }
    }

    /// Notes what the session itself refused.
    pub(super) fn note_refused(&mut self) {
        for refused in self.session.take_refused() {
            if self.hears_of_messages() {
                let client = Arc::clone(&self.client);
                let (size, reply) = (refused.size, Some(refused.reply));
                let for_event = self.shared.events.wants_mails();
                let message = Message::new(client, &refused.transaction, size, reply, for_event);
                self.replied.push(message);
            }
        }
    }

    fn hears_of_messages(&self) -> bool {
        self.shared.log.is_on(Level::Info) || self.shared.events.wants_mails()
    }

    /// Tells whether it is there, where somebody hears of it.
    pub(super) fn tell(&self, event: impl FnOnce(Arc<Client>) -> Event) {
        if self.shared.events.wants_connections() {
            self.shared.events.push(event(Arc::clone(&self.client)));
        }
    }

    /// Logs what was noted: its replies have been sent, or could not be.
    pub(super) fn log_replied(&mut self, sent: bool) {
        for mut message in self.replied.take() {
            message.set_sent(sent);
            if let Some(event) = message.event() {
                self.shared.events.push(event);
            }
            self.shared.log.message(Box::new(message));
        }
    }
}
