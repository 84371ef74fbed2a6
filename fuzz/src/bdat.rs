//! Messages in chunks: whatever stands in a chunk is content and nothing of it is obeyed, also where the chunk is
//! refused; a message is its chunks, one behind the other, and there is one only where all of them were taken;
//! whole, octet by octet, cut, and in files. A line that may be a BDAT and is not one ends the session.
//!
//! The oracle knows the script from which the stream is made, not the stream.

use std::sync::Arc;

use super::driver::{Driver, Event, cut, files, memory};
use super::oracle::POLICIES;
use super::session::check_replies;
use guerrilla::buffer::Budget;
use guerrilla::mail::header::body_offset;
use guerrilla::smtp::{Extensions, HostList, Protocol, Settings};

/// What the client does next.
#[derive(Debug)]
enum Act<'a> {
    Chunk { octets: &'a [u8], last: bool },
    Mail { binary: bool },
    Rcpt { good: bool },
    Data(&'a [u8]),
    Rset,
    Noop,
    Unreadable(&'a [u8]),
}

/// Checks one input: three octets of settings, and the script.
pub fn check(input: &[u8]) {
    let Some((&[flags, size, cuts], script)) = input.split_first_chunk::<3>() else { return };
    let settings = settings(flags, size);
    let acts = acts(script);
    let stream: Vec<u8> = acts.iter().flat_map(Act::sent).collect();
    let expected = Oracle::run(&settings, &acts);
    let sizes = [1 + usize::from(cuts % 16), 1 + usize::from(cuts / 16)];
    for (budget, sizes) in
        [(memory(), &[][..]), (memory(), &[1][..]), (memory(), &sizes[..]), (files(), &sizes[..])]
    {
        let found = found(&settings, budget, &cut(&stream, sizes));
        assert_eq!(found, expected, "{acts:?} cut at {sizes:?}");
    }
}

fn settings(flags: u8, size: u8) -> Settings {
    Settings {
        host_name: "mx.example.com".into(),
        max_size: u64::from(size) * 4,
        max_errors: 0,
        max_recipients: 0,
        max_idle_commands: 0,
        max_received_hops: 0,
        max_header_size: if flags & 8 == 0 { 1 << 20 } else { 16 },
        bare_newline: POLICIES[usize::from(flags & 3) % POLICIES.len()],
        protocol: if flags & 16 == 0 { Protocol::Smtp } else { Protocol::Lmtp },
        extensions: Extensions { chunking: flags & 4 == 0, ..Extensions::default() },
        allowed_hosts: HostList::new(["example.com"]).expect("is a host name"),
        ..Settings::default()
    }
}

// --- The script ----------------------------------------------------------------------------------

/// An act an octet; those that have octets of their own take as many behind it as the next one says.
fn acts(mut script: &[u8]) -> Vec<Act<'_>> {
    let mut acts = vec![Act::Mail { binary: false }, Act::Rcpt { good: true }];
    while let Some((&kind, rest)) = script.split_first() {
        script = rest;
        let mut octets = || {
            let (&length, rest) = script.split_first().unwrap_or((&0, &[]));
            let (octets, rest) = rest.split_at(rest.len().min(usize::from(length)));
            script = rest;
            octets
        };
        acts.push(match kind % 16 {
            0..4 => Act::Chunk { octets: octets(), last: false },
            4..7 => Act::Chunk { octets: octets(), last: true },
            7 => Act::Data(octets()),
            8 => Act::Unreadable(octets()),
            9 => Act::Mail { binary: true },
            10 | 11 => Act::Mail { binary: false },
            12 | 13 => Act::Rcpt { good: true },
            14 if kind < 128 => Act::Rcpt { good: false },
            14 => Act::Noop,
            _ => Act::Rset,
        });
    }
    acts
}

/// Lines that are no BDAT, and behind which nobody knows what is content.
const UNREADABLE: [&[u8]; 6] = [
    b"BDAT\r\n",
    b"bdat x\r\n",
    b"BDAT 1 2\r\n",
    b"BDAT 1\t\r\n",
    b"BDAT 1\n",
    b"Bdat 99999999999999999999999\r\n",
];

impl Act<'_> {
    fn sent(&self) -> Vec<u8> {
        match self {
            Self::Chunk { octets, last } => {
                let end = if *last { " LAST" } else { "" };
                [format!("BDAT {}{end}\r\n", octets.len()).as_bytes(), octets].concat()
            }
            Self::Mail { binary: true } => b"MAIL FROM:<> BODY=BINARYMIME\r\n".to_vec(),
            Self::Mail { binary: false } => b"MAIL FROM:<>\r\n".to_vec(),
            Self::Rcpt { good: true } => b"RCPT TO:<a@example.com>\r\n".to_vec(),
            Self::Rcpt { good: false } => b"RCPT TO:<a@elsewhere.example>\r\n".to_vec(),
            // It is sent without waiting for 354, so it has to be harmless as commands.
            Self::Data(octets) => {
                let text: String =
                    octets.iter().map(|octet| char::from(b'a' + octet % 26)).collect();
                format!("DATA\r\nNOOP {text}\r\nNOOP\r\n.\r\n").into_bytes()
            }
            Self::Rset => b"RSET\r\n".to_vec(),
            Self::Noop => b"NOOP\r\n".to_vec(),
            Self::Unreadable(octets) => {
                let which = usize::from(octets.first().copied().unwrap_or(0)) % UNREADABLE.len();
                [UNREADABLE[which], octets, b"\r\nRSET\r\n"].concat()
            }
        }
    }
}

// --- What comes of it ----------------------------------------------------------------------------

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    codes: Vec<u16>,
    /// Each with where its header section ends.
    messages: Vec<(Vec<u8>, Option<usize>)>,
    closed: bool,
}

fn found(settings: &Settings, budget: &Arc<Budget>, pieces: &[&[u8]]) -> Outcome {
    let mut driver = Driver::obliging(settings, budget);
    let hello = if is_lmtp(settings) { "LHLO a\r\n" } else { "EHLO a\r\n" };
    driver.feed(hello.as_bytes());
    driver.events.clear();
    for piece in pieces {
        driver.feed(piece);
    }
    let mut outcome = Outcome::default();
    for event in driver.events {
        match event {
            Event::Replies(replies) => {
                check_replies(&replies, false);
                let text = String::from_utf8(replies).expect("is ASCII");
                let codes = text.lines().map(|line| line[..3].parse().expect("is a code"));
                outcome.codes.extend::<Vec<u16>>(codes.collect());
            }
            Event::Deliver { message, header_end, .. } => {
                outcome.messages.push((message, header_end));
            }
            Event::Closed => outcome.closed = true,
            _ => {}
        }
    }
    outcome
}

#[derive(Default)]
struct Oracle {
    open: Option<Mail>,
    outcome: Outcome,
}

#[derive(Default)]
struct Mail {
    binary: bool,
    recipients: usize,
    refused: bool,
    chunks: Option<Vec<u8>>,
}

impl Oracle {
    fn run(settings: &Settings, acts: &[Act<'_>]) -> Outcome {
        let mut oracle = Self::default();
        for act in acts {
            let code = oracle.answer(settings, act);
            oracle.outcome.codes.extend(code);
            if oracle.outcome.closed {
                break;
            }
        }
        oracle.outcome
    }

    fn answer(&mut self, settings: &Settings, act: &Act<'_>) -> Vec<u16> {
        let chunks = settings.extensions.chunking;
        let between = self.open.as_ref().is_some_and(|mail| mail.chunks.is_some());
        match (act, &mut self.open) {
            (Act::Chunk { .. } | Act::Unreadable(_), _) if !chunks => self.end(),
            (Act::Unreadable(_), _) => self.end(),
            (Act::Chunk { octets, last }, _) => self.chunk(settings, octets, *last),
            (Act::Noop, _) => vec![250],
            (Act::Rset, _) => {
                self.open = None;
                vec![250]
            }
            (Act::Mail { binary: true }, _) if !chunks => vec![501],
            (Act::Mail { .. }, Some(_)) => vec![503],
            (Act::Mail { binary }, open) => {
                *open = Some(Mail { binary: *binary, ..Mail::default() });
                vec![250]
            }
            (Act::Rcpt { good }, Some(mail)) if !between => {
                mail.recipients += usize::from(*good);
                mail.refused |= !good;
                vec![if *good { 250 } else { 550 }]
            }
            (Act::Rcpt { .. }, _) => vec![503],
            (Act::Data(octets), Some(mail)) if !between && !mail.binary && mail.recipients > 0 => {
                let sent = Act::Data(octets).sent();
                let message = sent[6..sent.len() - 3].to_vec();
                let count = replies_to(settings, mail);
                self.open = None;
                let code = self.deliver(settings, message);
                [vec![354], vec![code; count]].concat()
            }
            // What was to be the message are two NOOPs, and the dot is no command.
            (Act::Data(_), Some(mail)) if !between && !mail.binary => {
                vec![no_recipients(settings, mail), 250, 250, 500]
            }
            (Act::Data(_), _) => vec![503, 250, 250, 500],
        }
    }

    fn end(&mut self) -> Vec<u16> {
        self.outcome.closed = true;
        vec![421]
    }

    fn chunk(&mut self, settings: &Settings, octets: &[u8], last: bool) -> Vec<u16> {
        // Whatever goes wrong with it ends the transaction.
        let Some(mut mail) = self.open.take() else { return vec![503] };
        if mail.recipients == 0 {
            return vec![no_recipients(settings, &mail)];
        }
        let message = [mail.chunks.take().unwrap_or_default(), octets.to_vec()].concat();
        if last {
            return vec![self.deliver(settings, message); replies_to(settings, &mail)];
        }
        if settings.max_size > 0 && message.len() as u64 > settings.max_size {
            return vec![552];
        }
        mail.chunks = Some(message);
        self.open = Some(mail);
        vec![250]
    }

    fn deliver(&mut self, settings: &Settings, message: Vec<u8>) -> u16 {
        if settings.max_size > 0 && message.len() as u64 > settings.max_size {
            return 552;
        }
        let seen = message.get(..settings.max_header_size).unwrap_or(&message);
        let header_end = body_offset(seen);
        self.outcome.messages.push((message, header_end));
        250
    }
}

fn is_lmtp(settings: &Settings) -> bool {
    settings.protocol == Protocol::Lmtp
}

/// LMTP says what became of a message once for each recipient.
fn replies_to(settings: &Settings, mail: &Mail) -> usize {
    if is_lmtp(settings) { mail.recipients } else { 1 }
}

fn no_recipients(settings: &Settings, mail: &Mail) -> u16 {
    if mail.refused && !is_lmtp(settings) { 554 } else { 503 }
}
