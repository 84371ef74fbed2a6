//! What each command does to a session (RFC 5321 §4.1.1).

use std::sync::Arc;

use super::{Hello, Open, Session, State, Step, too_large};
use crate::smtp::address::{Address, Parameter};
use crate::smtp::command::{BodyType, Command, MailParameters};
use crate::smtp::error::PeerError;
use crate::smtp::extensions::Extensions;
use crate::smtp::limits::Settings;
use crate::smtp::reply::Reply;
use crate::smtp::transaction::{Dialect, Transaction};
use crate::smtp::xclient::{Said, XClient};
use crate::smtp::{fixed, offer};

impl Session {
    pub(super) fn obey(&mut self, command: Command) -> Option<Step> {
        if self.settings.tls_required && !self.peer.secure && needs_tls(&command) {
            match command {
                Command::Bdat(chunk) => self.drop_chunk(chunk, fixed::TLS_FIRST),
                _ => self.say(&fixed::TLS_FIRST),
            }
            return None;
        }
        if is_idle(&command) && self.too_many_idle() {
            self.end(&fixed::TOO_MANY_IDLE);
            return Some(Step::Close);
        }
        match command {
            Command::Helo(argument) => self.hello(argument, Dialect::Smtp),
            Command::Ehlo(argument) => self.hello(argument, Dialect::Esmtp),
            Command::Mail { reverse_path, parameters } => self.mail(reverse_path, parameters),
            Command::Rcpt { forward_path, .. } => return self.rcpt(forward_path),
            Command::Data => return self.data(),
            Command::Bdat(chunk) => return self.bdat(chunk),
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

    fn hello(&mut self, argument: String, dialect: Dialect) {
        self.state = State::Ready;
        self.hello = Some(Hello { argument, dialect });
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
        match (&said.helo, &said.esmtp) {
            (Said::Value(helo), esmtp) => {
                let esmtp = matches!(esmtp, Said::Value(true));
                let dialect = if esmtp { Dialect::Esmtp } else { Dialect::Smtp };
                self.proxied = Some(Box::new(Hello { argument: helo.clone(), dialect }));
            }
            (Said::Unavailable, _) => self.proxied = None,
            (Said::Nothing, &Said::Value(esmtp)) => {
                let dialect = if esmtp { Dialect::Esmtp } else { Dialect::Smtp };
                self.proxied.iter_mut().for_each(|hello| hello.dialect = dialect);
            }
            (Said::Nothing, _) => {}
        }
        self.peer.spoke = true;
        self.state = State::Negotiating;
        Some(Step::XClient(said))
    }

    fn mail(&mut self, reverse_path: Address, parameters: MailParameters) {
        let declared = parameters.size;
        if self.hello.is_none() && self.settings.helo_required {
            return self.say(&fixed::HELO_FIRST);
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
        self.peer.begin_mail();
        let hello = self.hello.as_ref();
        let transaction = Transaction {
            helo: hello.map(|hello| hello.argument.clone()).unwrap_or_default(),
            dialect: hello.map(|hello| hello.dialect).unwrap_or_default(),
            mail_from: reverse_path,
            rcpt_to: Vec::new(),
        };
        self.state = State::Open(Open {
            transaction: Arc::new(transaction),
            declared,
            binary: parameters.body == BodyType::BinaryMime,
            refused: false,
        });
        self.say(&fixed::MAIL_OK);
    }

    fn rcpt(&mut self, mut recipient: Address) -> Option<Step> {
        let State::Open(open) = &mut self.state else {
            let between = matches!(self.state, State::Between(_));
            let reply = if between { fixed::BETWEEN_CHUNKS } else { fixed::NO_SENDER };
            self.say(&reply);
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
        if !self.settings.check_recipients && !self.asks {
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
        if self.refused { fixed::NO_VALID_RECIPIENTS } else { fixed::NO_RECIPIENTS }
    }
}

/// Parses a line; what this server does not offer is not known.
pub(super) fn parse(line: &[u8], settings: &Settings) -> Result<Command, PeerError> {
    match Command::parse(line) {
        Ok(Command::StartTls) | Err(PeerError::StartTlsArgument) if !settings.start_tls => {
            Err(PeerError::UnknownCommand)
        }
        Ok(Command::XClient(_)) | Err(PeerError::XClientSyntax) if !settings.xclient => {
            Err(PeerError::UnknownCommand)
        }
        Ok(Command::Bdat(_)) | Err(PeerError::ChunkSyntax) if !settings.extensions.chunking => {
            Err(PeerError::ChunksNotOffered)
        }
        Ok(Command::Mail { reverse_path, parameters }) => {
            check_offered(&reverse_path, parameters, &settings.extensions)?;
            Ok(Command::Mail { reverse_path, parameters })
        }
        parsed => parsed,
    }
}

/// Whether SIZE and BODY are offered where they are given.
fn check_offered(
    reverse_path: &Address,
    parameters: MailParameters,
    offered: &Extensions,
) -> Result<(), PeerError> {
    for Parameter { keyword, .. } in reverse_path.parameters() {
        let is_known = match keyword.as_str() {
            "SIZE" => offered.size,
            "BODY" => offered.eight_bit_mime || offered.binary_mime(),
            _ => true,
        };
        if !is_known {
            return Err(PeerError::UnknownParameter(keyword.clone()));
        }
    }
    let is_carried = match parameters.body {
        BodyType::SevenBit => true,
        BodyType::EightBitMime => offered.eight_bit_mime,
        BodyType::BinaryMime => offered.binary_mime(),
    };
    if is_carried { Ok(()) } else { Err(PeerError::BadParameter) }
}

/// What `tls.required` keeps back. RFC 3207 §4 would have more of it, and says SHOULD: but HELO, RSET and
/// HELP disclose nothing.
fn needs_tls(command: &Command) -> bool {
    matches!(
        command,
        Command::Mail { .. }
            | Command::Rcpt { .. }
            | Command::Data
            | Command::Bdat(_)
            | Command::Vrfy
    )
}

/// Commands that bring no mail nearer.
fn is_idle(command: &Command) -> bool {
    match command {
        Command::Mail { .. } | Command::Rcpt { .. } | Command::Data | Command::Quit => false,
        Command::Bdat(chunk) => chunk.size == 0 && !chunk.last,
        _ => true,
    }
}

fn relay_denied(host: &str) -> Reply {
    Reply::made(550, (5, 7, 1), format!("Error: Relay access denied: {host}"))
}
