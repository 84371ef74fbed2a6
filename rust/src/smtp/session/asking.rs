//! Asking before a command is obeyed, for tests of programs that send mail: their server misbehaves.

use super::{Session, State, Step};
use crate::smtp::command::Command;
use crate::smtp::reply::Reply;

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The greeting; who greets asks for itself.
    Connect,
    /// HELO, EHLO and LHLO.
    Helo,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, or the first BDAT, before any of the message.
    Data,
}

impl Stage {
    /// The stage of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "connect" => Self::Connect,
            "helo" => Self::Helo,
            "mail" => Self::Mail,
            "rcpt" => Self::Rcpt,
            "data" => Self::Data,
            _ => return None,
        })
    }

    fn of(command: &Command) -> Option<Self> {
        Some(match command {
            Command::Helo(_) | Command::Ehlo(_) | Command::Lhlo(_) => Self::Helo,
            Command::Mail { .. } => Self::Mail,
            Command::Rcpt(_) => Self::Rcpt,
            Command::Data | Command::Bdat(_) => Self::Data,
            _ => return None,
        })
    }
}

/// A command that is not obeyed yet, and the state it is for.
#[derive(Debug)]
pub(super) struct Asking {
    state: State,
    command: Command,
    /// It may be.
    may: bool,
}

impl Session {
    /// From now on [`Step::Before`] comes before each command that has a stage, or does no more.
    pub fn ask_first(&mut self, asks: bool) {
        self.asks_first = asks;
    }

    /// The answer to [`Step::Before`]: the command is obeyed at the next [`step`](Self::step), which
    /// needs no input for that; or it is not, and this is said instead.
    pub fn proceed(&mut self, refusal: Option<&Reply>) {
        let State::Asking(asking) = &mut self.state else { return };
        let Some(reply) = refusal else {
            asking.may = true;
            return;
        };
        let State::Asking(asking) = std::mem::replace(&mut self.state, State::Ready) else {
            return;
        };
        if let Command::Bdat(chunk) = asking.command {
            let count = match &asking.state {
                // A client of LMTP waits for so many replies, whoever has refused the chunk.
                State::Open(open) => chunk.replies_to(&open.transaction).max(1),
                _ => 1,
            };
            return self.drop_chunk(chunk, reply.clone(), count);
        }
        self.state = match (Stage::of(&asking.command), asking.state) {
            (Some(Stage::Rcpt), State::Open(mut open)) => {
                open.refused = true;
                State::Open(open)
            }
            // As where there is no memory for it: the transaction ends.
            (Some(Stage::Data), State::Open(open)) if !open.transaction.rcpt_to.is_empty() => {
                State::Ready
            }
            (_, state) => state,
        };
        self.say(reply);
        // RFC 5321 §3.8: after 421 the connection is closed.
        if reply.code() == 421 {
            self.state = State::Closed;
        }
    }

    /// Whether there is something to do without more input.
    pub fn may_go_on(&self) -> bool {
        match &self.state {
            State::Asking(asking) => asking.may,
            State::Chunk(incoming) => incoming.left == 0,
            _ => false,
        }
    }

    /// Asks about a command, or obeys it where there is nothing to ask.
    pub(super) fn ask(&mut self, command: Command) -> Option<Step> {
        let Some(stage) = Stage::of(&command).filter(|_| self.asks_first) else {
            return self.obey(command);
        };
        if matches!(command, Command::Bdat(_)) && !matches!(self.state, State::Open(_)) {
            // No message begins with it.
            return self.obey(command);
        }
        let before = std::mem::replace(&mut self.state, State::Ready);
        self.state = State::Asking(Box::new(Asking { state: before, command, may: false }));
        Some(Step::Before(stage))
    }

    /// Obeys what was asked about.
    pub(super) fn go_on(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Asking(asking) => {
                self.state = asking.state;
                self.obey(asking.command)
            }
            other => {
                self.state = other;
                None
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::smtp::{HostList, Protocol, Settings};

    fn session(protocol: Protocol) -> Session {
        let allowed_hosts = HostList::new(["."]).unwrap();
        let settings = Settings { protocol, allowed_hosts, ..Settings::default() };
        let mut session = Session::new(Arc::new(settings));
        session.ask_first(true);
        session
    }

    fn refusal() -> Reply {
        Reply::new(451, Some("4.3.0"), "no").unwrap()
    }

    /// Says this, and what is said to it; `refused` is the stage that is.
    fn talk(session: &mut Session, input: &[u8], refused: Option<Stage>) -> String {
        let mut input = input;
        loop {
            match session.step(&mut input) {
                Step::Before(stage) => {
                    assert!(!session.may_go_on());
                    assert!(matches!(session.step(&mut input), Step::NeedInput));
                    session.proceed((Some(stage) == refused).then(refusal).as_ref());
                }
                Step::NeedInput => break,
                other => panic!("{other:?}"),
            }
        }
        String::from_utf8(session.take_output()).unwrap()
    }

    #[test]
    fn a_refusal_leaves_the_state_that_its_own_would() {
        let mut session = session(Protocol::Smtp);
        let refused = "451 4.3.0 no\r\n";
        assert_eq!(talk(&mut session, b"HELO a\r\n", Some(Stage::Helo)), refused);
        assert!(talk(&mut session, b"MAIL FROM:<>\r\n", None).starts_with("503 "));
        assert!(talk(&mut session, b"HELO a\r\n", None).starts_with("250 "));
        assert_eq!(talk(&mut session, b"MAIL FROM:<>\r\n", Some(Stage::Mail)), refused);
        assert!(talk(&mut session, b"RCPT TO:<a@b>\r\n", None).starts_with("503 "));
        assert!(talk(&mut session, b"MAIL FROM:<>\r\n", None).starts_with("250 "));
        assert_eq!(talk(&mut session, b"RCPT TO:<a@b>\r\n", Some(Stage::Rcpt)), refused);
        // All recipients were refused.
        assert!(talk(&mut session, b"DATA\r\n", None).starts_with("554 "));
        assert_eq!(talk(&mut session, b"NOOP\r\n", Some(Stage::Data)), "250 2.0.0 OK\r\n");
        let mut input = &b"DATA\r\n"[..];
        assert!(matches!(session.step(&mut input), Step::Before(Stage::Data)));
        session.proceed(Some(&Reply::new(421, Some("4.3.2"), "bye").unwrap()));
        assert!(matches!(session.step(&mut input), Step::Close));
    }

    #[test]
    fn a_last_chunk_is_refused_once_for_each_recipient_of_lmtp() {
        let two = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@b>\r\n";
        for (protocol, hello, chunk, count) in [
            (Protocol::Lmtp, "LHLO a\r\n", "BDAT 1 LAST\r\nx", 2),
            (Protocol::Lmtp, "LHLO a\r\n", "BDAT 1\r\nx", 1),
            (Protocol::Smtp, "EHLO a\r\n", "BDAT 1 LAST\r\nx", 1),
        ] {
            let mut session = session(protocol);
            talk(&mut session, hello.as_bytes(), None);
            talk(&mut session, two, None);
            let said = talk(&mut session, chunk.as_bytes(), Some(Stage::Data));
            assert_eq!(said, "451 4.3.0 no\r\n".repeat(count), "{chunk} by {protocol:?}");
            talk(&mut session, b"MAIL FROM:<>\r\n", None);
            let said = talk(&mut session, b"BDAT 1 LAST\r\nx", Some(Stage::Data));
            assert_eq!(said, "451 4.3.0 no\r\n", "there is no recipient");
        }
    }
}
