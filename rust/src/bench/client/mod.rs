//! A client of SMTP (RFC 5321) and LMTP (RFC 2033) without a socket or a clock.
//!
//! Its driver writes what is put into `output`, gives what it reads to [`Client::receive`], and asks
//! [`Client::due`] what comes next. Whatever a server says, memory stays bounded and every reply moves the
//! client on or is a [`Fault`].

mod fault;
mod replies;
mod script;
mod stage;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use fault::Fault;
pub use replies::{MAX_LINE, MAX_LINES};
pub use script::Script;
pub use stage::Stage;

use crate::smtp::Protocol;
use replies::Replies;

/// "Service not available, closing transmission channel": at any time (RFC 5321 §3.8).
const CLOSING: u16 = 421;
const READY: u16 = 220;
const GO_AHEAD: u16 = 354;
/// Characters of a reply that are kept, of those that refuse.
const MAX_TEXT: usize = 200;

/// What its driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Write what there is, and read: a reply is due.
    Reply,
    /// A TLS handshake, then [`Client::secured`].
    Handshake,
    /// Write the message with its final dot, then [`Client::sent`].
    Message,
    /// Nothing: it is ready for [`Client::begin`].
    Ready,
    /// Close the connection.
    Close,
}

/// A reply that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// To what.
    pub stage: Stage,
    /// 200 to 599.
    pub code: u16,
    /// Its first line, of one that refuses.
    pub text: Option<String>,
}

/// What the server said to a message, or to the connection as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken for every recipient.
    Accepted,
    /// Not taken, or not for all of them.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Hello,
    StartTls,
    Handshake,
    Ready,
    Mail,
    /// So many of the recipients have a reply.
    Rcpt(usize),
    Data,
    Body,
    /// So many replies are still due.
    Message(usize),
    Rset,
    Quit,
    Closed,
}

/// What EHLO has told.
#[derive(Debug, Default)]
struct Offer {
    start_tls: bool,
    pipelining: bool,
    eight_bit: bool,
}

impl Offer {
    fn note(&mut self, line: &[u8]) {
        let keyword = line.split(|octet| *octet == b' ').next().unwrap_or_default();
        self.start_tls |= keyword.eq_ignore_ascii_case(b"STARTTLS");
        self.pipelining |= keyword.eq_ignore_ascii_case(b"PIPELINING");
        self.eight_bit |= keyword.eq_ignore_ascii_case(b"8BITMIME");
    }
}

/// One connection's side of the conversation.
#[derive(Debug)]
pub struct Client {
    script: Arc<Script>,
    state: State,
    replies: Replies,
    offer: Offer,
    is_secure: bool,
    /// Recipients of this message that were accepted.
    accepted: usize,
    is_refused: bool,
    /// The first line of a reply that refuses, while the rest of it comes.
    text: Option<String>,
}

impl Client {
    /// For a connection that was just made; whether it is within TLS already.
    pub fn new(script: Arc<Script>, is_secure: bool) -> Self {
        Self {
            script,
            state: State::Greeting,
            replies: Replies::default(),
            offer: Offer::default(),
            is_secure,
            accepted: 0,
            is_refused: false,
            text: None,
        }
    }

    /// Takes what was read.
    pub fn receive(&mut self, octets: &[u8]) {
        self.replies.receive(octets);
    }

    /// What comes next.
    pub fn due(&self) -> Due {
        match self.state {
            State::Handshake => Due::Handshake,
            State::Body => Due::Message,
            State::Ready => Due::Ready,
            State::Closed => Due::Close,
            _ => Due::Reply,
        }
    }

    /// Where it is.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Greeting => Stage::Greeting,
            State::Hello => Stage::Helo,
            State::StartTls | State::Handshake => Stage::Tls,
            State::Ready | State::Mail => Stage::Mail,
            State::Rcpt(_) => Stage::Rcpt,
            State::Data => Stage::Data,
            State::Body | State::Message(_) => Stage::Message,
            State::Rset => Stage::Rset,
            State::Quit | State::Closed => Stage::Quit,
        }
    }

    /// What was said to the last message; of a connection that is closed, to it as a whole.
    pub fn outcome(&self) -> Outcome {
        if self.is_refused { Outcome::Refused } else { Outcome::Accepted }
    }

    /// Begins a message, when [`Due::Ready`]; whether it has octets that are not ASCII (RFC 6152).
    pub fn begin(&mut self, is_8bit: bool, output: &mut Vec<u8>) {
        self.accepted = 0;
        self.is_refused = false;
        self.state = State::Mail;
        output.extend_from_slice(self.script.mail.as_bytes());
        if is_8bit && self.offer.eight_bit {
            output.extend_from_slice(b" BODY=8BITMIME");
        }
        output.extend_from_slice(b"\r\n");
        if self.pipelines() {
            for recipient in &self.script.recipients {
                output.extend_from_slice(recipient.as_bytes());
            }
            output.extend_from_slice(b"DATA\r\n");
        }
    }

    /// The message and its final dot are on their way.
    pub fn sent(&mut self) {
        let is_lmtp = self.script.protocol == Protocol::Lmtp;
        // RFC 2033 §4.2: one of each recipient that was accepted.
        self.state = State::Message(if is_lmtp { self.accepted } else { 1 });
    }

    /// The handshake of STARTTLS has ended well: all begins anew (RFC 3207 §4.2).
    pub fn secured(&mut self, output: &mut Vec<u8>) {
        self.is_secure = true;
        self.offer = Offer::default();
        self.hello(output);
    }

    /// Says goodbye, when [`Due::Ready`].
    pub fn quit(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"QUIT\r\n");
        self.state = State::Quit;
    }

    /// The next reply, when all of it is there; what it asks for is in `output` then.
    pub fn hear(&mut self, output: &mut Vec<u8>) -> Result<Option<Heard>, Fault> {
        let stage = self.stage();
        loop {
            let Some(line) = self.replies.line()? else { return Ok(None) };
            if self.state == State::Hello {
                self.offer.note(line.text);
            }
            if line.code >= 400 && self.text.is_none() {
                self.text = Some(shortened(line.text));
            }
            if line.is_last {
                let code = line.code;
                self.obey(code, output)?;
                return Ok(Some(Heard { stage, code, text: self.text.take() }));
            }
        }
    }

    /// The one place where a reply moves the state.
    fn obey(&mut self, code: u16, output: &mut Vec<u8>) -> Result<(), Fault> {
        if code == CLOSING {
            self.refuse();
            return Ok(());
        }
        let is_wanted = match self.state {
            State::Greeting | State::StartTls => code == READY,
            State::Data => code == GO_AHEAD,
            State::Quit => true,
            _ => code / 100 == 2,
        };
        if !is_wanted && code < 400 {
            return Err(Fault::Wrong(code));
        }
        self.is_refused |= !is_wanted;
        match self.state {
            State::Greeting if is_wanted => self.hello(output),
            State::Hello if is_wanted => self.after_hello(output)?,
            State::StartTls if is_wanted && !self.replies.is_empty() => {
                return Err(Fault::Plaintext);
            }
            State::StartTls if is_wanted => self.state = State::Handshake,
            State::Rset if is_wanted => self.state = State::Ready,
            State::Greeting | State::Hello | State::StartTls | State::Rset => self.refuse(),
            State::Mail => self.after_mail(is_wanted, output),
            State::Rcpt(heard) => {
                self.accepted += usize::from(is_wanted);
                self.after_rcpt(heard + 1, output);
            }
            State::Data => self.after_data(is_wanted, output)?,
            State::Message(left) if left > 1 => self.state = State::Message(left - 1),
            State::Message(_) => self.state = State::Ready,
            State::Quit => self.state = State::Closed,
            // Nobody reads then.
            State::Handshake | State::Ready | State::Body | State::Closed => {
                return Err(Fault::Wrong(code));
            }
        }
        Ok(())
    }

    fn refuse(&mut self) {
        // The reply to QUIT is no refusal of anything.
        self.is_refused |= self.state != State::Quit;
        self.state = State::Closed;
    }

    fn pipelines(&self) -> bool {
        self.script.pipelining && self.offer.pipelining
    }

    fn hello(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(self.script.hello.as_bytes());
        self.state = State::Hello;
    }

    fn after_hello(&mut self, output: &mut Vec<u8>) -> Result<(), Fault> {
        if self.is_secure || !self.script.start_tls {
            self.state = State::Ready;
        } else if self.offer.start_tls {
            output.extend_from_slice(b"STARTTLS\r\n");
            self.state = State::StartTls;
        } else {
            return Err(Fault::NoStartTls);
        }
        Ok(())
    }

    fn after_mail(&mut self, is_good: bool, output: &mut Vec<u8>) {
        self.state = State::Rcpt(0);
        if self.pipelines() {
            return;
        }
        match self.script.recipients.first() {
            Some(recipient) if is_good => output.extend_from_slice(recipient.as_bytes()),
            // There is no transaction then.
            _ => self.state = State::Ready,
        }
    }

    fn after_rcpt(&mut self, heard: usize, output: &mut Vec<u8>) {
        self.state = State::Rcpt(heard);
        let next = self.script.recipients.get(heard);
        if self.pipelines() {
            if next.is_none() {
                self.state = State::Data;
            }
        } else if let Some(recipient) = next {
            output.extend_from_slice(recipient.as_bytes());
        } else if self.accepted > 0 {
            output.extend_from_slice(b"DATA\r\n");
            self.state = State::Data;
        } else {
            self.reset(output);
        }
    }

    fn after_data(&mut self, is_good: bool, output: &mut Vec<u8>) -> Result<(), Fault> {
        if !is_good {
            self.reset(output);
        } else if self.accepted > 0 {
            self.state = State::Body;
        } else if self.script.protocol == Protocol::Lmtp {
            // RFC 2033 §4.2: a server must say 503 then.
            return Err(Fault::Wrong(GO_AHEAD));
        } else {
            // RFC 2920 §3.1: without a recipient nothing but the dot is sent.
            output.extend_from_slice(b".\r\n");
            self.state = State::Message(1);
        }
        Ok(())
    }

    fn reset(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"RSET\r\n");
        self.state = State::Rset;
    }
}

fn shortened(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(MAX_TEXT).collect()
}
