//! What each command does to a session (RFC 5321 §4.1.1).

use std::borrow::Cow;
use std::sync::Arc;

use super::{Hello, Open, Session, State, Step, too_large};
use crate::smtp::address::Address;
use crate::smtp::command::{BodyType, Command, MailParameters, Scope};
use crate::smtp::error::PeerError;
use crate::smtp::limits::{Protocol, Settings};
use crate::smtp::offer::Login;
use crate::smtp::reply::Reply;
use crate::smtp::transaction::{Dialect, Recipients, Transaction};
use crate::smtp::xclient::{Said, XClient};
use crate::smtp::{fixed, offer};

impl Session {
    pub(super) fn obey(&mut self, command: Command) -> Option<Step> {
        if self.settings.tls_required && !self.peer.secure && needs_tls(&command) {
            self.keep_back(&command, fixed::TLS_FIRST);
            return None;
        }
        if self.settings.auth.required && !self.is_authenticated() && needs_auth(&command) {
            self.keep_back(&command, fixed::AUTH_REQUIRED);
            return None;
        }
        if is_idle(&command) && self.too_many_idle() {
            self.end(&fixed::TOO_MANY_IDLE);
            return Some(Step::Close);
        }
        match command {
            Command::Helo(argument) => self.hello(&argument, Dialect::Smtp),
            Command::Ehlo(argument) => self.hello(&argument, Dialect::Esmtp),
            Command::Lhlo(argument) => self.hello(&argument, Dialect::Lmtp),
            Command::Mail { reverse_path, parameters } => self.mail(reverse_path, parameters),
            Command::Rcpt(forward_path) => return self.rcpt(forward_path),
            Command::Data => return self.data(),
            Command::Bdat(chunk) => return self.bdat(chunk),
            Command::Rset => {
                self.state = State::Ready;
                self.smtputf8 = false;
                self.say(&fixed::MAIL_OK);
            }
            Command::Noop => self.say(&fixed::OK),
            Command::Vrfy => self.say(&fixed::CANNOT_VERIFY),
            Command::Help if self.settings.protocol == Protocol::Lmtp => {
                self.say(&fixed::LMTP_HELP);
            }
            Command::Help => self.say(&fixed::HELP),
            Command::Quit => {
                self.said_bye = true;
                self.end(&fixed::BYE);
            }
            Command::StartTls => return self.start_tls(),
            Command::Auth(mechanism, initial) => return self.auth(mechanism, initial.as_ref()),
            Command::XClient(said) => return self.xclient(said),
        }
        None
    }

    /// The octets of a chunk come all the same.
    fn keep_back(&mut self, command: &Command, reply: Reply) {
        match command {
            Command::Bdat(chunk) => self.drop_chunk(*chunk, reply, 1),
            _ => self.say(&reply),
        }
    }

    fn too_many_idle(&mut self) -> bool {
        self.idle = self.idle.saturating_add(1);
        self.settings.max_idle_commands > 0 && self.idle > self.settings.max_idle_commands
    }

    fn hello(&mut self, argument: &str, dialect: Dialect) {
        self.state = State::Ready;
        self.smtputf8 = false;
        self.hello = Some(Hello { argument: argument.into(), dialect });
        if dialect.is_extended() {
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
        if matches!(self.state, State::Open(_) | State::Between(_)) {
            self.say(&fixed::XCLIENT_IN_MAIL);
            return None;
        }
        let dialect = |esmtp| match self.settings.protocol {
            Protocol::Lmtp => Dialect::Lmtp,
            Protocol::Smtp if esmtp => Dialect::Esmtp,
            Protocol::Smtp => Dialect::Smtp,
        };
        match (&said.helo, &said.esmtp) {
            (Said::Value(helo), esmtp) => {
                let dialect = dialect(matches!(esmtp, Said::Value(true)));
                self.proxied = Some(Box::new(Hello { argument: helo.as_str().into(), dialect }));
            }
            (Said::Unavailable, _) => self.proxied = None,
            (Said::Nothing, &Said::Value(esmtp)) => {
                let dialect = dialect(esmtp);
                self.proxied.iter_mut().for_each(|hello| hello.dialect = dialect);
            }
            (Said::Nothing, _) => {}
        }
        self.peer.login = match (&said.login, self.peer.login) {
            (Said::Value(_), _) | (Said::Nothing, Login::Proxied) => Login::Proxied,
            // What the proxy itself authenticated as says nothing of its client.
            (Said::Unavailable | Said::Nothing, _) => Login::Nobody,
        };
        self.peer.spoke = true;
        self.state = State::Negotiating;
        Some(Step::XClient(said))
    }

    fn mail(&mut self, reverse_path: Address, parameters: MailParameters) {
        let declared = parameters.size;
        if self.hello.is_none() && self.settings.helo_required {
            let lmtp = self.settings.protocol == Protocol::Lmtp;
            return self.say(&if lmtp { fixed::LHLO_FIRST } else { fixed::HELO_FIRST });
        }
        if matches!(self.state, State::Open(_) | State::Between(_)) {
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
        self.smtputf8 = parameters.smtputf8;
        self.peer.begin_mail();
        let transaction = self.transaction(reverse_path);
        self.state = State::Open(Open {
            transaction: Arc::new(transaction),
            declared,
            binary: parameters.body == BodyType::BinaryMime,
            refused: false,
        });
        self.say(&fixed::MAIL_OK);
    }

    /// One that begins; without a greeting the client speaks what the server does.
    pub(super) fn transaction(&self, mail_from: Address) -> Transaction {
        let dialect = match self.settings.protocol {
            Protocol::Smtp => Dialect::Smtp,
            Protocol::Lmtp => Dialect::Lmtp,
        };
        let (helo, dialect) = match &self.hello {
            Some(hello) => (Arc::clone(&hello.argument), hello.dialect),
            None => (Arc::default(), dialect),
        };
        Transaction { helo, dialect, mail_from, rcpt_to: Recipients::default() }
    }

    fn rcpt(&mut self, mut recipient: Address) -> Option<Step> {
        let State::Open(open) = &mut self.state else {
            let between = matches!(self.state, State::Between(_));
            let reply = if between { fixed::BETWEEN_CHUNKS } else { fixed::NO_SENDER };
            self.say(&reply);
            return None;
        };
        let relays = self.settings.auth.relay && self.peer.login != Login::Nobody;
        let limit = self.settings.max_recipients;
        let refusal = if limit > 0 && open.transaction.rcpt_to.len() >= limit {
            Some(fixed::TOO_MANY_RECIPIENTS)
        } else if recipient.is_postmaster() {
            // RFC 5321 §4.5.1: taken whatever the hosts are.
            recipient = recipient.with_host(&self.settings.host_name);
            None
        } else if relays || self.settings.allowed_hosts.contains(&recipient) {
            None
        } else {
            Some(relay_denied(&recipient))
        };
        if let Some(reply) = refusal {
            open.refused = true;
            self.say(&reply);
            return None;
        }
        if !self.settings.check_recipients && !self.asks {
            Arc::make_mut(&mut open.transaction).rcpt_to.push(recipient);
            self.say(&fixed::RCPT_OK);
            return None;
        }
        let State::Open(open) = std::mem::replace(&mut self.state, State::Ready) else {
            return None;
        };
        let step = Step::CheckRecipient(Arc::clone(&open.transaction), recipient.clone());
        self.state = State::Checking(Box::new((open, recipient)));
        Some(step)
    }

    pub(super) fn judge_recipient(&mut self, mut open: Open, recipient: Address, reply: &Reply) {
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
            State::Open(open) if open.binary => {
                self.state = State::Open(open);
                self.say(&fixed::BINARY_IN_DATA);
            }
            State::Open(open) if !open.transaction.rcpt_to.is_empty() => {
                self.state = State::Beginning(open.transaction, None);
                return Some(Step::BeginBody { declared: open.declared });
            }
            // The transaction stays open: another RCPT may succeed (RFC 5321 §3.3).
            State::Open(open) => {
                let reply = open.no_recipients();
                self.state = State::Open(open);
                self.say(&reply);
            }
            between @ State::Between(_) => {
                self.state = between;
                self.say(&fixed::BETWEEN_CHUNKS);
            }
            _ => self.say(&fixed::NO_SENDER),
        }
        None
    }
}

impl Open {
    /// Why there can be no message yet.
    pub(super) fn no_recipients(&self) -> Reply {
        // RFC 2033 §4.2 has 503 for either.
        let lmtp = self.transaction.dialect == Dialect::Lmtp;
        if self.refused && !lmtp { fixed::NO_VALID_RECIPIENTS } else { fixed::NO_RECIPIENTS }
    }
}

/// Parses a line; what this server does not offer is not known.
pub(super) fn parse(
    line: &[u8],
    settings: &Settings,
    smtputf8: bool,
) -> Result<Command, PeerError> {
    let (extensions, auth) = (settings.extensions, settings.auth.offered);
    let parsed = Command::parse_in(line, &Scope { extensions, auth, smtputf8 });
    match &parsed {
        Ok(Command::Help) if !settings.extensions.help => Err(PeerError::UnknownCommand),
        Ok(Command::StartTls) | Err(PeerError::StartTlsArgument) if !settings.start_tls => {
            Err(PeerError::UnknownCommand)
        }
        Ok(Command::Auth(..)) | Err(PeerError::AuthSyntax | PeerError::UnknownMechanism)
            if !settings.auth.offered =>
        {
            Err(PeerError::UnknownCommand)
        }
        Ok(Command::Lhlo(_)) if settings.protocol == Protocol::Smtp => {
            Err(PeerError::UnknownCommand)
        }
        Ok(Command::Helo(_) | Command::Ehlo(_)) if settings.protocol == Protocol::Lmtp => {
            Err(PeerError::NotLmtp)
        }
        Ok(Command::XClient(_)) | Err(PeerError::XClientSyntax) if !settings.xclient => {
            Err(PeerError::UnknownCommand)
        }
        Ok(Command::Bdat(_)) | Err(PeerError::ChunkSyntax) if !settings.extensions.chunking => {
            Err(PeerError::ChunksNotOffered)
        }
        _ => parsed,
    }
}

/// What `tls.required` keeps back. RFC 3207 §4 would have more of it, and says SHOULD: but HELO, RSET and
/// HELP disclose nothing.
fn needs_tls(command: &Command) -> bool {
    needs_auth(command) || matches!(command, Command::Auth(..))
}

/// What `auth.required` keeps back: all that RFC 4954 §6 lets it, but HELP.
fn needs_auth(command: &Command) -> bool {
    matches!(
        command,
        Command::Mail { .. } | Command::Rcpt(_) | Command::Data | Command::Bdat(_) | Command::Vrfy
    )
}

/// Commands that bring no mail nearer.
fn is_idle(command: &Command) -> bool {
    match command {
        Command::Mail { .. } | Command::Rcpt(_) | Command::Data | Command::Quit => false,
        Command::Bdat(chunk) => chunk.size == 0 && !chunk.last,
        _ => true,
    }
}

/// Names the host as it was sent, but in ASCII (RFC 6531 §3.7.4.2).
fn relay_denied(recipient: &Address) -> Reply {
    let host = recipient.host();
    let host = if host.is_ascii() { Cow::Borrowed(host) } else { recipient.ascii_host() };
    Reply::made(550, (5, 7, 1), format!("Error: Relay access denied: {host}"))
}
