//! AUTH (RFC 4954): when it is taken, what is asked, and what a verdict does.

use std::sync::Arc;

use super::{Session, State, Step};
use crate::smtp::address::Address;
use crate::smtp::auth::{Mechanism, Secret};
use crate::smtp::fixed;
use crate::smtp::line::{Line, Longest};
use crate::smtp::offer::Login;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{Exchange, Outcome};

impl Session {
    /// Whether the client has authenticated, or a proxy has said so for it.
    pub fn is_authenticated(&self) -> bool {
        self.peer.login != Login::Nobody
    }

    /// How often the credentials it showed were not good.
    pub fn failed_logins(&self) -> u16 {
        self.failed_logins
    }

    /// Whether what was read last may hold a password.
    pub fn is_authenticating(&self) -> bool {
        matches!(self.state, State::Challenged(_) | State::Authenticating)
    }

    pub(super) fn longest(&self) -> Longest {
        if self.settings.auth.offered { Longest::MaybeAuth } else { Longest::Command }
    }

    pub(super) fn auth(&mut self, mechanism: Mechanism, initial: Option<&Secret>) -> Option<Step> {
        let refusal = if !self.hello.as_ref().is_some_and(|hello| hello.dialect.is_extended()) {
            Some(fixed::EHLO_FIRST)
        } else if matches!(self.state, State::Open(_) | State::Between(_)) {
            // RFC 4954 §4.
            Some(fixed::AUTH_IN_MAIL)
        } else if self.is_authenticated() {
            Some(fixed::AUTH_ALREADY)
        } else if self.peer.may_auth(&self.settings) {
            None
        } else {
            Some(fixed::AUTH_NEEDS_TLS)
        };
        if let Some(reply) = refusal {
            self.say(&reply);
            return None;
        }
        let exchange = Exchange::new(mechanism);
        self.go_through(match initial {
            Some(initial) => exchange.begin(initial),
            None => Outcome::Ask(exchange),
        })
    }

    /// The next line is what the client answers.
    pub(super) fn take_answer(&mut self, input: &mut &[u8]) -> Option<Step> {
        let line = self.lines.next(input, Longest::Answer);
        if line == Line::Incomplete {
            return Some(Step::NeedInput);
        }
        let State::Challenged(exchange) = std::mem::replace(&mut self.state, State::Ready) else {
            return None;
        };
        let outcome = match line {
            Line::Complete(line) => exchange.answer(line),
            Line::TooLong(_) | Line::AuthTooLong => Outcome::Refused(fixed::AUTH_TOO_LONG),
            Line::Malformed(_) | Line::Incomplete => Outcome::Refused(fixed::NOT_BASE64),
        };
        self.lines.clear();
        self.go_through(outcome)
    }

    fn go_through(&mut self, outcome: Outcome) -> Option<Step> {
        match outcome {
            Outcome::Ask(exchange) => {
                self.output.extend_from_slice(exchange.challenge());
                self.state = State::Challenged(exchange);
                None
            }
            Outcome::Done(credentials) => {
                self.state = State::Authenticating;
                let transaction = Arc::new(self.transaction(Address::null()));
                Some(Step::Authenticate(transaction, credentials))
            }
            Outcome::Refused(reply) => {
                self.refuse(&reply);
                None
            }
        }
    }

    /// 235 alone is a yes that clients know (RFC 4954 §6).
    pub(super) fn judge_login(&mut self, reply: &Reply) {
        if !reply.is_success() {
            if !reply.is_transient() {
                self.failed_logins = self.failed_logins.saturating_add(1);
            }
            return self.say(reply);
        }
        self.peer.login = Login::Own;
        let known = reply.code() == 235;
        self.say(&if known { reply.clone() } else { fixed::AUTH_OK });
    }
}
