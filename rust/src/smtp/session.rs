//! One SMTP session: the only place where its state moves (RFC 5321 §3, §4.1.4).
//!
//! ```text
//!            MAIL              RCPT                DATA
//!   Ready ─────────▶ Open ──────────────▶ Open ──────────▶ Beginning ──▶ Receiving ──▶ Delivering
//!     ▲               │ (Checking between)                    │ refused       │ refused     │ verdict
//!     └───────────────┴──── RSET, HELO, EHLO ─────────────────┴───────────────┴─────────────┘
//! ```
//!
//! STARTTLS and XCLIENT go through `Negotiating` and back to `Ready`, to which nothing comes along that
//! the client said before.
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
use super::offer::{self, Peer};
use super::reply::{Reply, Verdict};
use super::transaction::Transaction;
use super::xclient::{Said, XClient};
use crate::buffer::{Body, Fault};
use crate::mail::header::count_received;

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
    /// Send what is written, then do the handshake. Nothing the peer sent in plaintext is left; answer
    /// with [`Session::secured`].
    StartTls,
    /// The peer is a proxy and speaks for this client. Answer with [`Session::greet`].
    XClient(Box<XClient>),
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
    /// Waiting for TLS, or for the greeting behind XCLIENT.
    Negotiating,
    /// Waiting for the verdict on the message.
    Delivering,
    Closed,
}

/// The client's name and whether it gave it by EHLO.
#[derive(Clone, Debug)]
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
    /// What a trusted proxy said: no STARTTLS takes it back.
    proxied: Option<Box<Hello>>,
    peer: Peer,
    state: State,
    errors: u32,
    idle: u32,
    messages: u32,
    said_bye: bool,
}

impl Session {
    /// A session that has said nothing yet: it begins with [`greet`](Self::greet).
    pub fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            output: Vec::new(),
            lines: LineReader::default(),
            hello: None,
            proxied: None,
            peer: Peer::default(),
            state: State::Ready,
            errors: 0,
            idle: 0,
            messages: 0,
            said_bye: false,
        }
    }

    /// Greets with `220 HOST GREETING`; time, id and counts are in `greeting`. Behind XCLIENT too, where
    /// everything begins anew.
    pub fn greet(&mut self, greeting: &str) {
        self.restart();
        let out = &mut self.output;
        out.extend_from_slice(b"220 ");
        out.extend_from_slice(self.settings.host_name.as_bytes());
        out.push(b' ');
        out.extend_from_slice(greeting.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// TLS is active now. The session is as after the greeting, which is not said again (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.peer.secure = true;
        self.restart();
    }

    /// The peer is a proxy that is believed.
    pub fn trust(&mut self) {
        self.peer.trusted = true;
    }

    /// Forgets what the client said, but not what a proxy said of it, nor how badly it behaved.
    fn restart(&mut self) {
        self.lines = LineReader::default();
        self.hello = self.proxied.as_deref().cloned();
        self.state = State::Ready;
    }

    /// Consumes input until it is used up or a question comes up.
    pub fn step(&mut self, input: &mut &[u8]) -> Step {
        loop {
            if let State::Receiving(receiving) = &mut self.state {
                let Receiving { reader, body, .. } = receiving.as_mut();
                if reader.read(input, body) == Ending::Open {
                    return Step::NeedInput;
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
                | State::Negotiating
                | State::Delivering => return Step::NeedInput,
                State::Ready | State::Open(_) | State::Receiving(_) => {}
            }
            let command = match self.lines.next(input) {
                Line::Incomplete => return Step::NeedInput,
                Line::TooLong => Err(fixed::LINE_TOO_LONG),
                Line::Malformed => Err(fixed::CONTROLS),
                Line::Complete(line) if line.iter().any(u8::is_ascii_control) => {
                    Err(fixed::CONTROLS)
                }
                Line::Complete(line) => parse(line, &self.settings).map_err(Reply::from),
            };
            self.lines.clear();
            match command {
                Err(reply) => self.refuse(&reply),
                Ok(command) => {
                    if let Some(step) = self.obey(command) {
                        if matches!(step, Step::StartTls) {
                            // RFC 3207 §4.2: whoever put more behind it may not be the client.
                            *input = &[];
                        }
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
        if self.settings.tls_required && !self.peer.secure && needs_tls(&command) {
            self.say(&fixed::TLS_FIRST);
            return None;
        }
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
            Command::StartTls => return self.start_tls(),
            Command::XClient(said) => return self.xclient(said),
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
        if esmtp {
            offer::write_ehlo(&self.settings, self.peer, &mut self.output);
        } else {
            offer::write_helo(&self.settings, &mut self.output);
        }
    }

    fn start_tls(&mut self) -> Option<Step> {
        if self.peer.secure {
            self.say(&fixed::TLS_ALREADY);
            return None;
        }
        self.say(&fixed::START_TLS);
        self.state = State::Negotiating;
        Some(Step::StartTls)
    }

    fn xclient(&mut self, said: Box<XClient>) -> Option<Step> {
        if !self.peer.may_xclient(&self.settings) {
            self.say(&fixed::NOT_A_PROXY);
            return None;
        }
        if matches!(self.state, State::Open(_)) {
            self.say(&fixed::XCLIENT_IN_MAIL);
            return None;
        }
        match (&said.helo, &said.esmtp) {
            (Said::Value(helo), esmtp) => {
                let esmtp = matches!(esmtp, Said::Value(true));
                self.proxied = Some(Box::new(Hello { argument: helo.clone(), esmtp }));
            }
            (Said::Unavailable, _) => self.proxied = None,
            (Said::Nothing, &Said::Value(esmtp)) => {
                self.proxied.iter_mut().for_each(|hello| hello.esmtp = esmtp);
            }
            (Said::Nothing, _) => {}
        }
        self.state = State::Negotiating;
        Some(Step::XClient(said))
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
        if self.settings.max_messages > 0 && self.messages >= self.settings.max_messages {
            return self.end(&fixed::TOO_MANY_MESSAGES);
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

    /// The final dot: hands the message on, or says why it is not taken.
    fn end_of_data(&mut self) -> Option<Step> {
        let State::Receiving(receiving) = std::mem::replace(&mut self.state, State::Ready) else {
            return None;
        };
        let Receiving { transaction, reader, body } = *receiving;
        self.messages = self.messages.saturating_add(1);
        let refusal = match body.fault() {
            Some(Fault::TooLarge) => Some(too_large(self.settings.max_size)),
            Some(Fault::NoMemory) => Some(fixed::NO_MEMORY),
            None if reader.bare_newline() && self.settings.bare_newline == BareNewline::Reject => {
                Some(fixed::BARE_NEWLINE)
            }
            None if self.is_looping(&body) => Some(fixed::TOO_MANY_HOPS),
            None => None,
        };
        if let Some(reply) = refusal {
            self.say(&reply);
            return None;
        }
        self.state = State::Delivering;
        Some(Step::Deliver(transaction, body))
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

/// Parses a line; what this server does not offer is not known.
fn parse(line: &[u8], settings: &Settings) -> Result<Command, PeerError> {
    match Command::parse(line) {
        Ok(Command::StartTls) | Err(PeerError::StartTlsArgument) if !settings.start_tls => {
            Err(PeerError::UnknownCommand)
        }
        Ok(Command::XClient(_)) | Err(PeerError::XClientSyntax) if !settings.xclient => {
            Err(PeerError::UnknownCommand)
        }
        parsed => parsed,
    }
}

/// What `tls.required` keeps back. RFC 3207 §4 would have more of it, and says SHOULD: but HELO, RSET and
/// HELP disclose nothing.
fn needs_tls(command: &Command) -> bool {
    matches!(command, Command::Mail(..) | Command::Rcpt(_) | Command::Data | Command::Vrfy)
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
