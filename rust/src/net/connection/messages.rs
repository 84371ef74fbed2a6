//! The line of each message: noted when its reply is known, logged when that was sent.

use std::sync::Arc;

use super::Connection;
use crate::delivery::{Client, Delivery};
use crate::events::Event;
use crate::log::{Level, Message};
use crate::smtp::{Recipients, Reply, Transaction, Verdict};

impl Connection {
    /// Notes a message that came to the queue, and what its sender is told, if anything.
    ///
    /// Where its recipients were told different things there is a line, and an event, for each of them:
    /// nothing else would be true of all.
    pub(super) fn note(&mut self, delivery: &Delivery, verdict: Option<&Verdict>) {
        if !self.hears_of_messages() {
            return;
        }
        let Delivery { client, transaction, body, queued_id, course, .. } = delivery;
        let (size, times) = (body.as_slice().len() as u64, course.end());
        for (transaction, reply) in by_reply(transaction, verdict) {
            let client = Arc::clone(client);
            let for_event = self.shared.events.wants_mails();
            let message = Message::new(client, &transaction, size, reply, for_event);
            self.replied.push(message.queued(queued_id, times.clone()));
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

/// The recipients by the code of their reply, with the first text that goes with it.
fn by_reply(
    transaction: &Arc<Transaction>,
    verdict: Option<&Verdict>,
) -> Vec<(Arc<Transaction>, Option<Reply>)> {
    let Some(verdict) = verdict else { return vec![(Arc::clone(transaction), None)] };
    let replies = verdict.replies();
    let mut found: Vec<(Transaction, Reply)> = Vec::new();
    for (recipient, reply) in transaction.rcpt_to.iter().zip(replies) {
        let group = found.iter_mut().find(|(_, one)| one.code() == reply.code());
        if let Some((group, _)) = group {
            group.rcpt_to.push(recipient.clone());
        } else {
            let rcpt_to = Recipients::One(recipient.clone());
            let (helo, mail_from) = (transaction.helo.clone(), transaction.mail_from.clone());
            let dialect = transaction.dialect;
            found.push((Transaction { helo, dialect, mail_from, rcpt_to }, reply.clone()));
        }
    }
    if found.len() < 2 {
        return vec![(Arc::clone(transaction), replies.first().cloned())];
    }
    found.into_iter().map(|(group, reply)| (Arc::new(group), Some(reply))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::smtp::Address;

    #[test]
    fn recipients_that_were_told_the_same_are_told_of_together() {
        let rcpt_to = ["a@x", "b@x", "c@x"].map(|text| Address::parse(text).unwrap());
        let rcpt_to = rcpt_to.into_iter().collect();
        let transaction = Arc::new(Transaction { rcpt_to, ..Transaction::default() });
        let reply = |code, text: &str| Reply::new(code, None, text).unwrap();
        let groups = |verdict: Option<&Verdict>| -> Vec<(Vec<String>, Option<u16>)> {
            let found = by_reply(&transaction, verdict).into_iter();
            let names =
                |group: &Transaction| group.rcpt_to.iter().map(ToString::to_string).collect();
            found.map(|(group, reply)| (names(&group), reply.map(|reply| reply.code()))).collect()
        };
        let all = || ["a@x", "b@x", "c@x"].map(str::to_owned).to_vec();
        assert_eq!(groups(None), [(all(), None)]);
        assert_eq!(groups(Some(&Verdict::All(reply(250, "ok")))), [(all(), Some(250))]);
        let same = Verdict::Each(vec![reply(250, "1"), reply(250, "2"), reply(250, "3")]);
        assert_eq!(groups(Some(&same)), [(all(), Some(250))]);
        let mixed = Verdict::Each(vec![reply(250, "1"), reply(550, "no"), reply(250, "3")]);
        let (saved, refused) = (vec!["a@x".to_owned(), "c@x".to_owned()], vec!["b@x".to_owned()]);
        assert_eq!(groups(Some(&mixed)), [(saved, Some(250)), (refused, Some(550))]);
    }
}
