//! One SMTP session: the only place where its state moves (RFC 5321 §3, §4.1.4).
//!
//! ```text
//!            MAIL              RCPT                DATA
//!   Ready ─────────▶ Open ──────────────▶ Open ──────────▶ Beginning ──▶ Receiving ──▶ Delivering
//!     ▲               │ (Checking between)                    │ refused       │ refused     │ verdict
//!     └───────────────┴──── RSET, HELO, EHLO ─────────────────┴───────────────┴─────────────┘
//! ```
//!
//! Between Receiving and Delivering a message that went to a file is Finishing. BDAT goes through Chunk
//! instead of Receiving, and back to Between until its LAST: see `chunks`.
//! STARTTLS and XCLIENT go through `Negotiating` and back to `Ready`, to which nothing comes along that
//! the client said before.
//!
//! For any split of the input the replies, the questions and the deliveries are the same.

mod asking;
mod authenticating;
mod chunks;
mod commands;
mod judging;
mod phase;
mod receiving;

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use self::asking::Asking;
pub use self::asking::Stage;
use self::chunks::{Chunked, Incoming};
pub use self::judging::Refused;
use self::judging::too_large;
pub use self::phase::Phase;
use self::receiving::Receiving;
use super::address::Address;
use super::auth::Credentials;
use super::chunk::Chunk;
use super::data::Ending;
use super::fixed;
use super::limits::Settings;
use super::line::{Line, LineReader};
use super::offer::{Login, Peer};
use super::reply::{Form, Reply, Verdict};
use super::sasl::Exchange;
use super::transaction::{Dialect, Transaction};
use super::xclient::XClient;
use crate::buffer::Body;
use crate::few::Few;

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
    /// Send what is written, then do the handshake. Nothing the peer sent in plaintext is left; answer
    /// with [`Session::secured`].
    StartTls,
    /// Are these good? Answer with [`Session::resume`].
    Authenticate(Arc<Transaction>, Credentials),
    /// The peer is a proxy and speaks for this client. Answer with [`Session::greet`].
    XClient(Box<XClient>),
    /// Save this message. Answer with [`Session::resume`].
    Deliver(Arc<Transaction>, Body),
    /// May this be obeyed? Only where [`Session::ask_first`] was said; answer with [`Session::proceed`].
    Before(Stage),
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
    /// Whether BINARYMIME was declared, which DATA cannot carry.
    binary: bool,
    refused: bool,
}

#[derive(Debug)]
enum State {
    /// No transaction.
    Ready,
    Open(Open),
    /// Waiting for the verdict on a recipient. Boxed: an idle session has room for every state.
    Checking(Box<(Open, Address)>),
    /// Waiting for the word to obey a command.
    Asking(Box<Asking>),
    /// Waiting for a body; for BDAT with its first chunk.
    Beginning(Arc<Transaction>, Option<Chunk>),
    Receiving(Box<Receiving>),
    /// Octets of BDAT.
    Chunk(Incoming),
    /// Between two chunks of a message.
    Between(Box<Chunked>),
    /// Waiting for the body to be finished.
    Finishing(Arc<Transaction>, usize),
    /// Waiting for TLS, or for the greeting behind XCLIENT.
    Negotiating,
    /// Waiting for what a client answers to a challenge of AUTH.
    Challenged(Exchange),
    /// Waiting for the verdict on its credentials.
    Authenticating,
    /// Waiting for the verdict on the message; it is said once for each, in LMTP.
    Delivering(usize),
    Closed,
}

/// The client's name and by which command it gave it.
#[derive(Clone, Debug)]
struct Hello {
    argument: Arc<str>,
    dialect: Dialect,
}

/// One session. See the module's page.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // None of them has to do with another.
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
    /// Whether the last MAIL said SMTPUTF8 (RFC 6531): what follows may be UTF-8, and so may 251 and 551.
    smtputf8: bool,
    said_bye: bool,
    refused: Few<Refused>,
    asks: bool,
    /// Before commands, for tests of programs that send mail.
    asks_first: bool,
    /// Credentials that were not good.
    failed_logins: u16,
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
            smtputf8: false,
            said_bye: false,
            refused: Few::default(),
            asks: false,
            asks_first: false,
            failed_logins: 0,
        }
    }

    /// Greets with `220 HOST GREETING`; time, id and counts are in `greeting`. Behind XCLIENT too, where
    /// everything begins anew.
    pub fn greet(&mut self, greeting: impl fmt::Display) {
        self.restart();
        // Writing to a vector cannot fail.
        let _ = write!(self.output, "220 {} {greeting}\r\n", self.settings.host_name);
    }

    /// TLS is active now. The session is as after the greeting, which is not said again (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.peer.secure = true;
        self.restart();
    }

    /// Other settings, from the next command on.
    pub fn configure(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// Whether it asks about recipients even where nobody checks them, from the next command on.
    pub fn ask_about_recipients(&mut self, asks: bool) {
        self.asks = asks;
    }

    /// The peer is a proxy that is believed.
    pub fn trust(&mut self) {
        self.peer.trusted = true;
    }

    /// Forgets what the client said, but not what a proxy said of it, nor how badly it behaved.
    fn restart(&mut self) {
        self.lines = LineReader::default();
        self.hello = self.proxied.as_deref().cloned();
        self.smtputf8 = false;
        self.state = State::Ready;
        if self.peer.login == Login::Own {
            self.peer.login = Login::Nobody;
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
                State::Chunk(_) => match self.read_chunk(input) {
                    Some(step) => return step,
                    None => continue,
                },
                State::Asking(_) if self.may_go_on() => match self.go_on() {
                    Some(step) => return step,
                    None => continue,
                },
                State::Checking(..)
                | State::Asking(_)
                | State::Beginning(..)
                | State::Finishing(..)
                | State::Negotiating
                | State::Authenticating
                | State::Delivering(_) => return Step::NeedInput,
                State::Challenged(_) => match self.take_answer(input) {
                    Some(step) => return step,
                    None => continue,
                },
                State::Ready | State::Open(_) | State::Between(_) | State::Receiving(_) => {}
            }
            let utf8 = self.smtputf8 && matches!(self.state, State::Open(_));
            let command = match self.lines.next(input, self.longest()) {
                Line::Incomplete => return Step::NeedInput,
                Line::TooLong(beginning) => Err(unreadable(&beginning, fixed::LINE_TOO_LONG)),
                Line::AuthTooLong => Err(fixed::AUTH_TOO_LONG),
                Line::Malformed(beginning) => Err(unreadable(&beginning, fixed::CONTROLS)),
                Line::Complete(line) if has_controls(line) => {
                    Err(unreadable(line, fixed::CONTROLS))
                }
                Line::Complete(line) => {
                    commands::parse(line, &self.settings, utf8).map_err(Reply::from)
                }
            };
            self.lines.clear();
            match command {
                Err(reply) => self.refuse(&reply),
                Ok(command) => {
                    if let Some(step) = self.ask(command) {
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

    /// The verdict on a recipient, a message or credentials.
    pub fn resume(&mut self, verdict: Verdict) {
        let verdict = match (&self.state, verdict) {
            (State::Delivering(count), Verdict::Each(each)) if each.len() == *count => {
                Verdict::Each(each)
            }
            (_, verdict) => Verdict::All(verdict.fold()),
        };
        // RFC 5321 §3.8: after 421 the connection is closed, whoever said it.
        let closes = verdict.replies().iter().any(|reply| reply.code() == 421);
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Checking(asked) => {
                let (open, recipient) = *asked;
                self.judge_recipient(open, recipient, &verdict.fold());
            }
            State::Delivering(count) => self.say_of_message(count, &verdict),
            State::Authenticating => self.judge_login(&verdict.fold()),
            other => self.state = other,
        }
        if closes {
            self.state = State::Closed;
        }
    }

    /// Says one last thing and closes.
    pub fn end(&mut self, reply: &Reply) {
        self.say(reply);
        self.state = State::Closed;
    }

    /// A buffer for what it says next, unless it has one: who drives it has it back by
    /// [`take_output`](Self::take_output), and need not allocate one a reply.
    pub fn lend(&mut self, mut buffer: Vec<u8>) {
        if self.output.is_empty() {
            buffer.clear();
            self.output = buffer;
        }
    }

    /// Takes what is to be sent; leaves no buffer behind.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Whether there is something to be sent.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether it was the client that ended the session, by QUIT: it sends nothing more.
    pub fn said_bye(&self) -> bool {
        self.said_bye
    }

    fn say(&mut self, reply: &Reply) {
        let form = Form { utf8: self.smtputf8, ..self.settings.form() };
        reply.write_as(form, &mut self.output);
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
        if reply.code() == 421 {
            self.state = State::Closed;
        }
    }
}

/// What is said to a line that cannot be read: the end, if it may be a BDAT, whose octets would be taken for
/// commands.
fn unreadable(line: &[u8], reply: Reply) -> Reply {
    if Chunk::is_announced(line) { fixed::CHUNK_SYNTAX } else { reply }
}

/// Looks at all of it, with no early end, so that it is many octets at a time.
fn has_controls(line: &[u8]) -> bool {
    line.iter().fold(false, |found, byte| found | byte.is_ascii_control())
}
