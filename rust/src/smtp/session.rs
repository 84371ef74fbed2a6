//! One SMTP session: the only place where its state moves (RFC 5321 §3, §4.1.4).
//!
//! ```text
//!            MAIL              RCPT                DATA
//!   Ready ─────────▶ Open ──────────────▶ Open ──────────▶ Beginning ──▶ Receiving ──▶ Delivering
//!     ▲               │ (Checking between)                    │ refused       │ refused     │ verdict
//!     └───────────────┴──── RSET, HELO, EHLO ─────────────────┴───────────────┴─────────────┘
//! ```
//!
//! Between Receiving and Delivering a message that went to a file is Finishing.
//!
//! For any split of the input the replies, the questions and the deliveries are the same.

use std::sync::Arc;

use super::address::Address;
use super::command::Command;
use super::data::{DataReader, Ending};
use super::error::PeerError;
use super::fixed;
use super::limits::{BareNewline, Settings};
use super::line::{Line, LineReader};
use super::reply::{Reply, Verdict};
use super::transaction::Transaction;
use crate::buffer::{Body, Fault};
use crate::mail::header::{HeaderEnd, count_received};

/// Octets of replies after which they are to be sent before more commands are looked at: short
/// commands have longer replies, and the peer need not read them.
const MAX_OUTPUT: usize = 16 << 10;

/// What the session needs next.
#[derive(Debug)]
pub enum Step {
    /// More octets, or to have what is written sent: that comes first.
    NeedInput,
    /// May this recipient be mailed to? Answer with [`Session::resume`].
    CheckRecipient(Arc<Transaction>, Address),
    /// A message of that many octets, if its size was declared, is about to come. Answer with
    /// [`Session::begin_body`].
    BeginBody {
        /// From the SIZE parameter of MAIL.
        declared: Option<u64>,
    },
    /// The body is behind with writing its file: go on once [`Session::body`] has caught up.
    CatchUp,
    /// All of this message is there. Finish it, then call [`Session::finish_body`].
    FinishBody(Body),
    /// Save this message. Answer with [`Session::resume`].
    Deliver(Arc<Transaction>, Body),
    /// Send what is written, then close.
    Close,
}

/// The answer to [`Step::BeginBody`].
#[derive(Debug)]
pub enum BodyAnswer {
    /// Take the message into this.
    Begin(Body),
    /// Say this instead of 354.
    Refuse(Reply),
}

/// A transaction that MAIL opened, and whether any recipient was refused.
#[derive(Debug)]
struct Open {
    transaction: Arc<Transaction>,
    declared: Option<u64>,
    refused: bool,
}

#[derive(Debug)]
struct Receiving {
    transaction: Arc<Transaction>,
    reader: DataReader,
    body: Body,
}

#[derive(Debug)]
enum State {
    /// No transaction.
    Ready,
    Open(Open),
    /// Waiting for the verdict on a recipient.
    Checking(Open, Address),
    /// Waiting for a body.
    Beginning(Arc<Transaction>),
    Receiving(Box<Receiving>),
    /// Waiting for the body to be finished.
    Finishing(Arc<Transaction>),
    /// Waiting for the verdict on the message.
    Delivering,
    Closed,
}

/// The client's name and whether it gave it by EHLO.
#[derive(Debug)]
struct Hello {
    argument: String,
    esmtp: bool,
}

/// One session. See the module's page.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    output: Vec<u8>,
    lines: LineReader,
    hello: Option<Hello>,
    state: State,
    errors: u32,
    idle: u32,
    said_bye: bool,
}

impl Session {
    /// A session that greets with `220 HOST GREETING`; time, id and counts are in `greeting`.
    pub fn new(settings: Arc<Settings>, greeting: &str) -> Self {
        let mut output = Vec::with_capacity(128);
        output.extend_from_slice(b"220 ");
        output.extend_from_slice(settings.host_name.as_bytes());
        output.push(b' ');
        output.extend_from_slice(greeting.as_bytes());
        output.extend_from_slice(b"\r\n");
        Self {
            settings,
            output,
            lines: LineReader::default(),
            hello: None,
            state: State::Ready,
            errors: 0,
            idle: 0,
            said_bye: false,
        }
    }

    /// Consumes input until it is used up or a question comes up.
    pub fn step(&mut self, input: &mut &[u8]) -> Step {
        loop {
            if let State::Receiving(receiving) = &mut self.state {
                let Receiving { reader, body, .. } = receiving.as_mut();
                match reader.read(input, body) {
                    Ending::Open => return Step::NeedInput,
                    Ending::Behind => return Step::CatchUp,
                    Ending::Complete => {}
                }
                if let Some(step) = self.end_of_data() {
                    return step;
                }
                continue;
            }
            if self.output.len() >= MAX_OUTPUT {
                return Step::NeedInput;
            }
            match self.state {
                State::Closed => return Step::Close,
                State::Checking(..)
                | State::Beginning(_)
                | State::Finishing(_)
                | State::Delivering => {
                    return Step::NeedInput;
                }
                State::Ready | State::Open(_) | State::Receiving(_) => {}
            }
            let command = match self.lines.next(input) {
                Line::Incomplete => return Step::NeedInput,
                Line::TooLong => Err(fixed::LINE_TOO_LONG),
                Line::Malformed => Err(fixed::CONTROLS),
                Line::Complete(line) if line.iter().any(u8::is_ascii_control) => {
                    Err(fixed::CONTROLS)
                }
                Line::Complete(line) => Command::parse(line).map_err(Reply::from),
            };
            self.lines.clear();
            match command {
                Err(reply) => self.refuse(&reply),
                Ok(command) => {
                    if let Some(step) = self.obey(command) {
                        return step;
                    }
                }
            }
        }
    }

    /// The verdict on a recipient or a message.
    pub fn resume(&mut self, verdict: Verdict) {
        let reply = verdict.fold();
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Checking(open, recipient) => self.judge_recipient(open, recipient, &reply),
            State::Delivering => self.say(&reply),
            other => self.state = other,
        }
        // RFC 5321 §3.8: after 421 the connection is closed, whoever said it.
        if reply.code() == 421 {
            self.state = State::Closed;
        }
    }

    /// The body, or why there is none.
    pub fn begin_body(&mut self, answer: BodyAnswer) {
        match (std::mem::replace(&mut self.state, State::Ready), answer) {
            (State::Beginning(transaction), BodyAnswer::Begin(mut body)) => {
                let overhead = overhead(&transaction);
                if overhead > 0 {
                    body.cover(overhead);
                }
                self.output.extend_from_slice(fixed::START_MAIL);
                let reader =
                    DataReader::new(self.settings.bare_newline, self.settings.max_header_size);
                self.state = State::Receiving(Box::new(Receiving { transaction, reader, body }));
            }
            (State::Beginning(_), BodyAnswer::Refuse(reply)) => self.say(&reply),
            (other, _) => self.state = other,
        }
    }

    /// The body that is being received.
    pub fn body(&mut self) -> Option<&mut Body> {
        match &mut self.state {
            State::Receiving(receiving) => Some(&mut receiving.body),
            _ => None,
        }
    }

    /// A message whose octets can be looked at now; what is to be delivered, if it is to be.
    pub fn finish_body(&mut self, mut body: Body) -> Option<(Arc<Transaction>, Body)> {
        let State::Finishing(transaction) = std::mem::replace(&mut self.state, State::Ready) else {
            return None;
        };
        if body.fault().is_none() && body.header_end().is_none() {
            let end = HeaderEnd::new(self.settings.max_header_size).update(body.as_slice());
            body.set_header_end(end);
        }
        self.judge(transaction, body, false)
    }

    /// Says one last thing and closes.
    pub fn end(&mut self, reply: &Reply) {
        self.say(reply);
        self.state = State::Closed;
    }

    /// Takes what is to be sent; leaves no buffer behind.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Whether there is something to be sent.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether MAIL was accepted and its transaction has not ended.
    pub fn in_transaction(&self) -> bool {
        !matches!(self.state, State::Ready | State::Closed)
    }

    /// Whether a message is being received.
    pub fn in_data(&self) -> bool {
        matches!(self.state, State::Receiving(_))
    }

    /// Whether the session has ended: nothing is left but to send what is written.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether it was the client that ended the session, by QUIT: it sends nothing more.
    pub fn said_bye(&self) -> bool {
        self.said_bye
    }

    fn say(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    /// A command that is not obeyed; enough `500`s end the session.
    fn refuse(&mut self, reply: &Reply) {
        if reply.code() == 500 {
            self.errors = self.errors.saturating_add(1);
            if self.settings.max_errors > 0 && self.errors >= self.settings.max_errors {
                self.end(&fixed::TOO_MANY_ERRORS);
                return;
            }
        }
        self.say(reply);
    }

    fn obey(&mut self, command: Command) -> Option<Step> {
        if is_idle(&command) && self.too_many_idle() {
            self.end(&fixed::TOO_MANY_IDLE);
            return Some(Step::Close);
        }
        match command {
            Command::Helo(argument) => self.hello(argument, false),
            Command::Ehlo(argument) => self.hello(argument, true),
            Command::Mail(reverse_path, declared) => self.mail(reverse_path, declared),
            Command::Rcpt(forward_path) => return self.rcpt(forward_path),
            Command::Data => return self.data(),
            Command::Rset => {
                self.state = State::Ready;
                self.say(&fixed::MAIL_OK);
            }
            Command::Noop => self.say(&fixed::OK),
            Command::Vrfy => self.say(&fixed::CANNOT_VERIFY),
            Command::Help => self.say(&fixed::HELP),
            Command::Quit => {
                self.said_bye = true;
                self.end(&fixed::BYE);
            }
        }
        None
    }

    fn too_many_idle(&mut self) -> bool {
        self.idle = self.idle.saturating_add(1);
        self.settings.max_idle_commands > 0 && self.idle > self.settings.max_idle_commands
    }

    fn hello(&mut self, argument: String, esmtp: bool) {
        self.state = State::Ready;
        self.hello = Some(Hello { argument, esmtp });
        let host = &self.settings.host_name;
        let out = &mut self.output;
        if !esmtp {
            out.extend_from_slice(b"250 ");
            out.extend_from_slice(host.as_bytes());
            out.extend_from_slice(b" Hello\r\n");
            return;
        }
        out.extend_from_slice(b"250-");
        out.extend_from_slice(host.as_bytes());
        // RFC 1870 §4: 0, or no number, says that there is no fixed limit.
        let size = format!(" Hello\r\n250-SIZE {}\r\n", self.settings.max_size);
        out.extend_from_slice(size.as_bytes());
        out.extend_from_slice(
            b"250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n",
        );
    }

    fn mail(&mut self, reverse_path: Address, declared: Option<u64>) {
        if self.hello.is_none() && self.settings.helo_required {
            return self.say(&fixed::HELO_FIRST);
        }
        if matches!(self.state, State::Open(_)) {
            return self.say(&fixed::NESTED_MAIL);
        }
        if self.settings.max_size > 0 && declared.is_some_and(|size| size > self.settings.max_size)
        {
            return self.say(&too_large(self.settings.max_size));
        }
        self.idle = 0;
        let hello = self.hello.as_ref();
        let transaction = Transaction {
            helo: hello.map(|hello| hello.argument.clone()).unwrap_or_default(),
            esmtp: hello.is_some_and(|hello| hello.esmtp),
            mail_from: reverse_path,
            rcpt_to: Vec::new(),
        };
        self.state =
            State::Open(Open { transaction: Arc::new(transaction), declared, refused: false });
        self.say(&fixed::MAIL_OK);
    }

    fn rcpt(&mut self, mut recipient: Address) -> Option<Step> {
        let State::Open(open) = &mut self.state else {
            self.say(&fixed::NO_SENDER);
            return None;
        };
        let limit = self.settings.max_recipients;
        let refusal = if limit > 0 && open.transaction.rcpt_to.len() >= limit {
            Some(fixed::TOO_MANY_RECIPIENTS)
        } else if recipient.is_postmaster() {
            // RFC 5321 §4.5.1: taken whatever the hosts are.
            recipient = recipient.with_host(self.settings.host_name.clone());
            None
        } else if self.settings.allowed_hosts.contains(&recipient) {
            None
        } else {
            Some(relay_denied(recipient.host()))
        };
        if let Some(reply) = refusal {
            open.refused = true;
            self.say(&reply);
            return None;
        }
        if !self.settings.check_recipients {
            Arc::make_mut(&mut open.transaction).rcpt_to.push(recipient);
            self.say(&fixed::RCPT_OK);
            return None;
        }
        let State::Open(open) = std::mem::replace(&mut self.state, State::Ready) else {
            return None;
        };
        let step = Step::CheckRecipient(Arc::clone(&open.transaction), recipient.clone());
        self.state = State::Checking(open, recipient);
        Some(step)
    }

    fn judge_recipient(&mut self, mut open: Open, recipient: Address, reply: &Reply) {
        if reply.is_success() {
            Arc::make_mut(&mut open.transaction).rcpt_to.push(recipient);
        } else {
            open.refused = true;
        }
        self.state = State::Open(open);
        self.say(reply);
    }

    fn data(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Open(open) if !open.transaction.rcpt_to.is_empty() => {
                self.state = State::Beginning(open.transaction);
                return Some(Step::BeginBody { declared: open.declared });
            }
            // The transaction stays open: another RCPT may succeed (RFC 5321 §3.3).
            State::Open(open) => {
                let reply =
                    if open.refused { fixed::NO_VALID_RECIPIENTS } else { fixed::NO_RECIPIENTS };
                self.state = State::Open(open);
                self.say(&reply);
            }
            _ => self.say(&fixed::NO_SENDER),
        }
        None
    }

    /// Whether a message went through so many hops that it goes round (RFC 5321 §6.3).
    fn is_looping(&self, body: &Body) -> bool {
        let message = body.as_slice();
        let end = body.header_end().unwrap_or(message.len()).min(self.settings.max_header_size);
        let header = message.get(..end).unwrap_or(message);
        let limit = self.settings.max_received_hops;
        limit > 0 && count_received(header) > limit
    }

    /// The final dot.
    fn end_of_data(&mut self) -> Option<Step> {
        let State::Receiving(receiving) = std::mem::replace(&mut self.state, State::Ready) else {
            return None;
        };
        let Receiving { transaction, reader, body } = *receiving;
        let bare_newline =
            reader.bare_newline() && self.settings.bare_newline == BareNewline::Reject;
        if body.is_spilled() && !bare_newline {
            self.state = State::Finishing(transaction);
            return Some(Step::FinishBody(body));
        }
        let (transaction, body) = self.judge(transaction, body, bare_newline)?;
        Some(Step::Deliver(transaction, body))
    }

    /// Hands a whole message on, or says why it is not taken.
    fn judge(
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
            self.say(&reply);
            return None;
        }
        self.state = State::Delivering;
        Some((transaction, body))
    }
}

/// Octets that an envelope takes beside its message; nothing for few recipients, which every message's
/// share of the budget covers.
fn overhead(transaction: &Transaction) -> usize {
    /// An address without its text, in the core and in Python.
    const ADDRESS: usize = 300;
    const FEW: usize = 8;
    let recipients = transaction.rcpt_to.iter().skip(FEW);
    recipients.map(|address| ADDRESS + address.user().len() + address.host().len()).sum()
}

/// Commands that bring no mail nearer.
fn is_idle(command: &Command) -> bool {
    !matches!(command, Command::Mail(..) | Command::Rcpt(_) | Command::Data | Command::Quit)
}

fn too_large(limit: u64) -> Reply {
    Reply::made(552, (5, 3, 4), format!("Error: maximum message size is {limit} octets"))
}

fn relay_denied(host: &str) -> Reply {
    Reply::made(550, (5, 7, 1), format!("Error: Relay access denied: {host}"))
}

impl From<PeerError> for Reply {
    fn from(error: PeerError) -> Self {
        error.reply()
    }
}
