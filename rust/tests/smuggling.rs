//! SMTP smuggling: no octets but CRLF.CRLF end a message, so that what an attacker puts behind an end which
//! only some other server would see stays text of his own message.
//!
//! Every sequence of CR, LF, NUL and dot up to [`LONGEST`] octets stands between a text and the commands of
//! a second transaction. The oracle is a search for CRLF.CRLF in what was sent. The table of the well-known
//! sequences in `docs/security.md` is this test's own output.
//!
//! In a chunk of BDAT nothing ends anything: the same sequences stand in chunks, and across their borders.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use guerrilla::buffer::{Body, Budget};
use guerrilla::smtp::{BareNewline, BodyAnswer, Reply, Session, Settings, Step, Verdict};

use crate::oracle::{EOM, POLICIES, cut_at_the_end, has_bare_newline, stored, unstuff, with_crlf};

/// Octets of the longest sequences, the end with an octet on either side; 4 + 4² + … + 4⁷ of them.
const LONGEST: u32 = 7;
const OCTETS: [u8; 4] = [b'\r', b'\n', b'\0', b'.'];

const HELLO: &[u8] = b"EHLO client.example\r\n";
const MAIL: &[u8] = b"MAIL FROM:<alice@client.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n";
/// What is to become a transaction of its own.
const SMUGGLED: &[u8] =
    b"MAIL FROM:<eve@client.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nsmuggled\r\n";
const END: &[u8] = b".\r\n";
const QUIT: &[u8] = b"QUIT\r\n";

/// A set variable has the table in the document written anew.
const WRITE: &str = "GUERRILLA_WRITE_TABLES";

// --- The session ---------------------------------------------------------------------------------

/// What a session did: its replies, and each message with its sender.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    replies: Vec<u8>,
    messages: Vec<(String, Vec<u8>)>,
}

struct Driver {
    session: Session,
    budget: Arc<Budget>,
    outcome: Outcome,
}

impl Driver {
    fn feed(&mut self, mut input: &[u8]) {
        loop {
            let step = self.session.step(&mut input);
            self.outcome.replies.append(&mut self.session.take_output());
            match step {
                Step::NeedInput if input.is_empty() => return,
                Step::Close => return,
                Step::BeginBody { declared } => {
                    let body = Body::take(&self.budget, declared, 0).expect("there is room");
                    self.session.begin_body(BodyAnswer::Begin(body));
                }
                Step::Deliver(transaction, body) => {
                    let sender = transaction.mail_from.user().to_owned();
                    self.outcome.messages.push((sender, body.as_slice().to_vec()));
                    self.session.resume(Verdict::All(taken()));
                }
                other => panic!("an unexpected step: {other:?}"),
            }
        }
    }
}

fn taken() -> Reply {
    Reply::new(250, Some("2.0.0"), "OK").expect("is a proper reply")
}

/// The sessions of one policy.
struct Server {
    settings: Arc<Settings>,
    budget: Arc<Budget>,
}

impl Server {
    fn new(bare_newline: BareNewline) -> Self {
        let settings = Settings {
            host_name: "mx.example.com".into(),
            max_errors: 0,
            bare_newline,
            ..Settings::default()
        };
        Self { settings: Arc::new(settings), budget: Budget::new(1 << 20) }
    }

    fn run<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let mut session = Session::new(Arc::clone(&self.settings));
        session.greet("SMTP");
        let budget = Arc::clone(&self.budget);
        let mut driver = Driver { session, budget, outcome: Outcome::default() };
        driver.feed(HELLO);
        for piece in pieces {
            driver.feed(piece);
        }
        driver.outcome
    }
}

// --- The oracle ----------------------------------------------------------------------------------

/// What has to come of the content that is sent behind 354, and of the commands behind its end: what comes
/// of the same commands where they are all that is sent.
fn expected(server: &Server, content: &[u8]) -> Outcome {
    let (message, rest) = cut_at_the_end(content).expect("an end is sent");
    let stored = stored(server.settings.bare_newline, &message);
    let verdict: &[u8] = match stored {
        Some(_) => b"250 2.0.0 OK\r\n",
        None => b"554 5.6.0 Error: the message has a CR or LF that is not part of a CRLF\r\n",
    };
    let greeted = server.run([]).replies.len();
    let mut outcome = server.run([MAIL]);
    let alone = server.run([rest]);
    outcome.replies.extend_from_slice(verdict);
    outcome.replies.extend_from_slice(&alone.replies[greeted..]);
    outcome.messages = stored.into_iter().map(|octets| ("alice".to_owned(), octets)).collect();
    outcome.messages.extend(alone.messages);
    outcome
}

// --- Every sequence ------------------------------------------------------------------------------

fn sequences(length: u32) -> impl Iterator<Item = Vec<u8>> {
    let choices = u32::try_from(OCTETS.len()).expect("is small");
    (0..choices.pow(length)).map(move |number| {
        let digit = |place| (number / choices.pow(place) % choices) as usize;
        (0..length).map(|place| OCTETS[digit(place)]).collect()
    })
}

/// Sends the sequence behind the text, in every way there is, and gives what came of it.
fn send(server: &Server, text: &[u8], sequence: &[u8]) -> Outcome {
    let content = [text, sequence, SMUGGLED, END, QUIT].concat();
    let expected = expected(server, &content);
    let policy = server.settings.bare_newline;
    let shown = sequence.escape_ascii();
    assert_eq!(server.run([MAIL, &content]), expected, "{shown} whole, {policy:?}");
    let pipelined = [MAIL, &content].concat();
    assert_eq!(server.run([pipelined.as_slice()]), expected, "{shown} pipelined, {policy:?}");
    assert_eq!(server.run(pipelined.chunks(1)), expected, "{shown} by octets, {policy:?}");
    for at in text.len()..=text.len() + sequence.len() + 1 {
        let (head, tail) = content.split_at(at);
        let split = server.run([MAIL, head, tail]);
        assert_eq!(split, expected, "{shown} split at {at}, {policy:?}");
    }
    expected
}

/// What must hold whatever the oracle says: one message or none, and nothing of Eve's, unless CRLF.CRLF
/// itself was sent before her commands.
fn check(text: &[u8], sequence: &[u8], policy: BareNewline, outcome: &Outcome) {
    let before_eve = [b"\r\n", text, sequence].concat();
    let ends = before_eve.windows(EOM.len()).any(|window| window == EOM);
    let shown = sequence.escape_ascii();
    if ends {
        assert!(outcome.messages.len() <= 2, "{shown}, {policy:?}");
    } else {
        assert!(outcome.messages.len() <= 1, "{shown}, {policy:?}");
        assert!(outcome.messages.iter().all(|(sender, _)| sender == "alice"), "{shown}");
        assert!(policy == BareNewline::Reject || outcome.messages.len() == 1, "{shown}");
        let whole = |octets: &[u8]| octets.ends_with(SMUGGLED);
        assert!(outcome.messages.iter().all(|(_, octets)| whole(octets)), "{shown}, {policy:?}");
    }
    // What is stored goes on to other servers, and not all of them are as strict.
    let clean = policy != BareNewline::Keep;
    for (_, octets) in outcome.messages.iter().filter(|_| clean) {
        assert!(!has_bare_newline(octets), "{shown} is stored with a bare newline, {policy:?}");
    }
}

#[test]
fn one_message_or_a_refusal_for_every_sequence_in_every_policy() {
    for policy in POLICIES {
        let server = Server::new(policy);
        for sequence in (1..=LONGEST).flat_map(sequences) {
            // Behind a text, and as the first octets of the message.
            for text in [&b"text"[..], b""] {
                let outcome = send(&server, text, &sequence);
                check(text, &sequence, policy, &outcome);
            }
        }
    }
}

#[test]
fn the_oracle_knows_an_end_and_a_dot() {
    assert_eq!(cut_at_the_end(b"a\n.\n\r\n.\n.\r\n"), None);
    assert_eq!(cut_at_the_end(b".\r\nrest"), Some((Vec::new(), &b"rest"[..])));
    let message = b"a\n.\n\r\n".to_vec();
    assert_eq!(cut_at_the_end(b"a\n.\n\r\n.\r\nrest"), Some((message, &b"rest"[..])));
    assert_eq!(unstuff(b"..a\r\n..b\n.c\r\n.d\r\n"), b".a\r\n.b\n.c\r\nd\r\n");
    assert_eq!(with_crlf(b"a\r\nb\nc\rd\r\r\n"), b"a\r\nb\r\nc\r\nd\r\n\r\n");
    let count: usize = (1..=LONGEST).map(|length| sequences(length).count()).sum();
    assert_eq!(count, 21_844);
}

// --- In chunks -----------------------------------------------------------------------------------

const BOB: &[u8] = b"MAIL FROM:<alice@client.example>\r\nRCPT TO:<bob@example.com>\r\n";
/// The same in chunks: nothing of it may become a transaction.
const SMUGGLED_CHUNK: &[u8] = b"BDAT 0 LAST\r\nMAIL FROM:<eve@client.example>\r\nRCPT TO:<bob@example.com>\r\nBDAT 8 LAST\r\nsmuggled\r\n";

fn chunk(octets: &[u8], last: bool) -> Vec<u8> {
    let end = if last { " LAST" } else { "" };
    [format!("BDAT {}{end}\r\n", octets.len()).as_bytes(), octets].concat()
}

/// Sends chunks as one mail, whole or octet by octet, and gives the replies behind those to RCPT.
fn send_chunks(server: &Server, chunks: &[&[u8]], by_octets: bool) -> Outcome {
    let mut sent = BOB.to_vec();
    for (number, octets) in chunks.iter().enumerate() {
        sent.extend(chunk(octets, number + 1 == chunks.len()));
    }
    sent.extend_from_slice(QUIT);
    let size = if by_octets { 1 } else { sent.len() };
    let mut outcome = server.run(sent.chunks(size));
    outcome.replies.drain(..server.run([BOB]).replies.len());
    outcome
}

/// One message, octet for octet what stood in the chunks, and each of them answered.
fn check_chunks(server: &Server, chunks: &[&[u8]], by_octets: bool) {
    let outcome = send_chunks(server, chunks, by_octets);
    let content = chunks.concat();
    let shown = content.escape_ascii();
    assert_eq!(outcome.messages, [("alice".to_owned(), content.clone())], "{shown}");
    let mut replies = String::new();
    for octets in &chunks[..chunks.len() - 1] {
        write!(replies, "250 2.0.0 {} octets received\r\n", octets.len()).expect("a String");
    }
    replies.push_str("250 2.0.0 OK\r\n221 2.0.0 Bye\r\n");
    assert_eq!(outcome.replies, replies.as_bytes(), "{shown}");
}

#[test]
fn one_message_of_chunks_for_every_sequence_in_every_policy() {
    for policy in POLICIES {
        let server = Server::new(policy);
        for sequence in (1..LONGEST).flat_map(sequences) {
            for smuggled in [SMUGGLED, SMUGGLED_CHUNK] {
                let content = [b"text", sequence.as_slice(), smuggled].concat();
                check_chunks(&server, &[&content], false);
                check_chunks(&server, &[&content], true);
                for at in 4..=4 + sequence.len() {
                    let (head, tail) = content.split_at(at);
                    check_chunks(&server, &[head, tail], false);
                    // The sequence is all that a chunk holds.
                    check_chunks(&server, &[b"", &head[4..], tail, b""], false);
                }
            }
        }
    }
}

#[test]
fn nothing_in_a_refused_chunk_is_obeyed() {
    let server = Server::new(BareNewline::Fix);
    let greeted = server.run([]).replies.len();
    for sequence in (1..LONGEST).flat_map(sequences) {
        for smuggled in [SMUGGLED, SMUGGLED_CHUNK] {
            let content = [sequence.as_slice(), smuggled, END].concat();
            for last in [false, true] {
                let sent = [chunk(&content, last), QUIT.to_vec()].concat();
                for size in [1, sent.len()] {
                    let outcome = server.run(sent.chunks(size));
                    let said = String::from_utf8_lossy(&outcome.replies[greeted..]);
                    let shown = content.escape_ascii();
                    assert!(said.starts_with("503 5.5.1 "), "{shown}: {said}");
                    assert!(said.ends_with("\r\n221 2.0.0 Bye\r\n"), "{shown}: {said}");
                    assert_eq!(said.lines().count(), 2, "{shown}: {said}");
                    assert_eq!(outcome.messages, [], "{shown}");
                }
            }
        }
    }
}

// --- The table -----------------------------------------------------------------------------------

/// Ends of data that one server or another has taken, or passed on, and what resembles them.
const KNOWN: [&[u8]; 30] = [
    b"\r\n.\r\n",
    b"\n.\n",
    b"\n.\r",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\n",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\n.\n",
    b"\n\n.\n",
    b"\n\n.\r\n",
    b"\r\r.\r\r",
    b"\r\r\n.\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\r\n.\n\r\n",
    b"\r\n\r.\r\n",
    b"\r\n\n.\r\n",
    b"\n\r.\n\r",
    b"\r\n..\r\n",
    b"\r\n...\r\n",
    b"\n..\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\0\n.\r\n",
    b"\r\n.\r\0\n",
    b"\0\r\n.\r\n",
    b"\n\0.\n",
    b"\r\n \r\n.\n",
    b"\r\n. \r\n",
];

fn table() -> String {
    let servers = POLICIES.map(Server::new);
    let mut table = "| sent | `fix` | `keep` | `reject` |\n|---|---|---|---|\n".to_owned();
    for sequence in KNOWN {
        write!(table, "| {} |", code(sequence)).expect("a String takes it");
        for server in &servers {
            let outcome = send(server, b"text", sequence);
            check(b"text", sequence, server.settings.bare_newline, &outcome);
            write!(table, " {} |", told(&outcome)).expect("a String takes it");
        }
        table.push('\n');
    }
    table
}

/// One cell.
fn told(outcome: &Outcome) -> String {
    let (of_alice, of_eve): (Vec<_>, Vec<_>) =
        outcome.messages.iter().partition(|(sender, _)| sender == "alice");
    match (of_alice.as_slice(), of_eve.as_slice()) {
        ([], []) => "refused, `554 5.6.0`".to_owned(),
        ([], _) => "the end; refused, `554 5.6.0`".to_owned(),
        ([(_, octets)], []) => {
            let text = octets.strip_prefix(b"text").expect("is the text");
            let sequence = text.strip_suffix(SMUGGLED).expect("is the commands, as text");
            format!("one message, with {}", code(sequence))
        }
        _ => "the end".to_owned(),
    }
}

fn code(octets: &[u8]) -> String {
    format!("`{}`", octets.escape_ascii().to_string().replace("\\x00", "\\0"))
}

#[test]
fn the_table_in_the_document_is_what_comes_of_it() {
    const BEGIN: &str = "<!-- smuggling: written by rust/tests/smuggling.rs -->\n";
    const FINISH: &str = "<!-- smuggling ends -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let text = std::fs::read_to_string(&path).expect("docs/security.md is there");
    let (head, rest) = text.split_once(BEGIN).expect("the table has a beginning");
    let (shown, tail) = rest.split_once(FINISH).expect("the table has an end");
    let table = table();
    if shown != table && std::env::var_os(WRITE).is_some() {
        let text = [head, BEGIN, &table, FINISH, tail].concat();
        return std::fs::write(&path, text).expect("docs/security.md can be written");
    }
    assert_eq!(shown, table, "run it with {WRITE}=1 to write the table anew");
}
