//! A message on its way into its body, from the answer to DATA or BDAT until someone judges it.

use std::sync::Arc;

use super::chunks::{Incoming, Sink};
use super::judging::replies_to;
use super::{BodyAnswer, Session, State, Step};
use crate::buffer::Body;
use crate::mail::header::HeaderEnd;
use crate::smtp::address::{Address, Parameter};
use crate::smtp::data::DataReader;
use crate::smtp::fixed;
use crate::smtp::limits::BareNewline;
use crate::smtp::transaction::Transaction;

/// What comes behind 354.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) transaction: Arc<Transaction>,
    pub(super) reader: DataReader,
    pub(super) body: Body,
}

impl Session {
    /// The body, or why there is none.
    pub fn begin_body(&mut self, answer: BodyAnswer) {
        match (std::mem::replace(&mut self.state, State::Ready), answer) {
            (State::Beginning(transaction, Some(chunk)), BodyAnswer::Begin(body)) => {
                self.begin_chunks(transaction, body, chunk);
            }
            (State::Beginning(transaction, None), BodyAnswer::Begin(mut body)) => {
                cover_envelope(&transaction, &mut body);
                self.output.extend_from_slice(fixed::START_MAIL);
                let reader =
                    DataReader::new(self.settings.bare_newline, self.settings.max_header_size);
                self.state = State::Receiving(Box::new(Receiving { transaction, reader, body }));
            }
            (State::Beginning(transaction, Some(chunk)), BodyAnswer::Refuse(reply)) => {
                let count = chunk.replies_to(&transaction);
                self.drop_chunk(chunk, reply, count);
            }
            (State::Beginning(_, None), BodyAnswer::Refuse(reply)) => self.say(&reply),
            (other, _) => self.state = other,
        }
    }

    /// The body that octets go to now; between chunks none do.
    pub fn body(&mut self) -> Option<&mut Body> {
        match &mut self.state {
            State::Receiving(receiving) => Some(&mut receiving.body),
            State::Chunk(Incoming { sink: Sink::Message(message), .. }) => Some(&mut message.body),
            _ => None,
        }
    }

    /// A message whose octets can be looked at now; what is to be delivered, if it is to be.
    pub fn finish_body(&mut self, mut body: Body) -> Option<(Arc<Transaction>, Body)> {
        let State::Finishing(transaction, count) = std::mem::replace(&mut self.state, State::Ready)
        else {
            return None;
        };
        if body.fault().is_none() && body.header_end().is_none() {
            let end = HeaderEnd::new(self.settings.max_header_size).update(body.as_slice());
            body.set_header_end(end);
        }
        self.judge(transaction, body, false, count)
    }

    /// The final dot.
    pub(super) fn end_of_data(&mut self) -> Option<Step> {
        let State::Receiving(receiving) = std::mem::replace(&mut self.state, State::Ready) else {
            return None;
        };
        let Receiving { transaction, reader, body } = *receiving;
        let bare_newline =
            reader.bare_newline() && self.settings.bare_newline == BareNewline::Reject;
        let count = replies_to(&transaction);
        self.end_of_message(transaction, body, bare_newline, count)
    }

    /// All octets of a message are there. What becomes of it is said in so many replies.
    pub(super) fn end_of_message(
        &mut self,
        transaction: Arc<Transaction>,
        body: Body,
        bare_newline: bool,
        count: usize,
    ) -> Option<Step> {
        self.messages = self.messages.saturating_add(1);
        if body.is_spilled() && !bare_newline {
            self.state = State::Finishing(transaction, count);
            return Some(Step::FinishBody(body));
        }
        let (transaction, body) = self.judge(transaction, body, bare_newline, count)?;
        Some(Step::Deliver(transaction, body))
    }
}

/// Counts what the envelope takes.
pub(super) fn cover_envelope(transaction: &Transaction, body: &mut Body) {
    let overhead = overhead(transaction);
    if overhead > 0 {
        body.cover(overhead);
    }
}

/// Octets that an envelope takes beside its message; nothing for few recipients, which every message's
/// share of the budget covers.
fn overhead(transaction: &Transaction) -> usize {
    const FEW: usize = 8;
    transaction.rcpt_to.iter().skip(FEW).map(weight).sum()
}

/// Octets that an address takes, in the core and in Python: its parameters may be longer than itself.
fn weight(address: &Address) -> usize {
    /// Without its text.
    const ADDRESS: usize = 300;
    const PIECE: usize = 48;
    let piece = |text: &str| PIECE + text.len();
    let route: usize = address.route().iter().map(|host| piece(host)).sum();
    let parameters = address.parameters().iter();
    let parameters: usize =
        parameters.map(|Parameter { value, .. }| piece(value.as_deref().unwrap_or(""))).sum();
    ADDRESS + address.user().len() + address.host().len() + route + parameters
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::smtp::Recipients;

    #[test]
    fn parameters_of_recipients_are_counted() {
        let with = |parameters: &[Parameter]| {
            let to = Address::parse("a@b.example").unwrap().with_parameters(parameters.to_vec());
            overhead(&Transaction {
                rcpt_to: Recipients::Several(vec![to; 108]),
                ..Transaction::default()
            })
        };
        let plain = with(&[]);
        assert!(plain >= 100 * "a@b.example".len());
        let value = Some(format!("rfc822;{}", "x".repeat(493)).into());
        let asked = Parameter { keyword: "ORCPT".into(), value };
        assert!(with(&[asked]) >= plain + 100 * 500);
    }
}
