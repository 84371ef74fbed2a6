//! The golden conversations of `tests/conversations` on a bare session: no socket, no clock, no Python.
//!
//! Each file runs four times: what the client says between two replies at once, octet by octet, and
//! pipelined, which is all it says in one piece, or in one before TLS and one within; and once more so,
//! with each command asked about before it is obeyed. The format:
//! `tests/conversations/README.md`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guerrilla::buffer::{Body, Budget, Spiller};
use guerrilla::log::Log;
use guerrilla::shared::Part;
use guerrilla::smtp::{BodyAnswer, Reply, Session, Step, Transaction, Verdict};

use crate::script::{Block, End, Expected, Pattern, Problem, Script, problem};

const GREETING: &str = "SMTP Guerrilla(0.0.0) #1 (1) Thu, 01 Jan 1970 00:00:00 +0000";

#[test]
fn every_conversation_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("tests/conversations is there")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
        .collect();
    files.sort();
    assert!(files.len() >= 60, "only {} conversations in {}", files.len(), folder.display());
    let mut failures = String::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let script = match Script::read(&path) {
            Ok(script) => script,
            Err(problem) => {
                writeln!(failures, "{name}:{problem}").unwrap();
                continue;
            }
        };
        for pace in [Pace::Whole, Pace::Octets, Pace::Pipelined, Pace::Asked] {
            if let Err(problem) = play(&script, pace) {
                writeln!(failures, "{name}:{problem} ({pace:?})").unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// How the octets of the client come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// All that stands between two replies at once.
    Whole,
    /// One at a time.
    Octets,
    /// All of the file at once, as far as TLS lets it.
    Pipelined,
    /// The same, and nothing is obeyed before the session was told that it may.
    Asked,
}

/// The driver of a session, without time and sockets.
struct Driver<'a> {
    session: Session,
    script: &'a Script,
    budget: Arc<Budget>,
    verdicts: Option<VecDeque<Option<Verdict>>>,
    output: Vec<u8>,
    delivered: Vec<(Arc<Transaction>, Body)>,
    closed: bool,
    /// The session has asked for the handshake.
    secured: bool,
}

fn play(script: &Script, pace: Pace) -> Result<(), Problem> {
    let log = Arc::new(Log::new(0));
    let spiller = Spiller::new(script.spill_size, None, &Part::default(), &log);
    let mut driver = Driver {
        session: Session::new(Arc::new(script.settings.clone())),
        script,
        budget: Budget::spilling(script.max_memory, spiller),
        verdicts: script.verdicts.clone(),
        output: Vec::new(),
        delivered: Vec::new(),
        closed: false,
        secured: false,
    };
    if script.trusted {
        driver.session.trust();
    }
    driver.session.ask_first(pace == Pace::Asked);
    driver.greet()?;
    if matches!(pace, Pace::Pipelined | Pace::Asked) {
        for blocks in script.blocks.split_inclusive(|block| block.tls) {
            let sent: Vec<u8> = blocks.iter().flat_map(|block| block.sent.clone()).collect();
            driver.play([sent.as_slice()], blocks)?;
        }
    } else {
        for block in &script.blocks {
            let size = if pace == Pace::Octets { 1 } else { block.sent.len().max(1) };
            driver.play(block.sent.chunks(size), std::slice::from_ref(block))?;
        }
    }
    driver.finish()
}

impl Driver<'_> {
    /// Drops the greeting unless the file has something to say about it.
    fn greet(&mut self) -> Result<(), Problem> {
        self.session.greet(GREETING);
        self.feed(b"")?;
        if self.script.blocks.first().is_none_or(|block| !block.sent.is_empty()) {
            self.take_lines();
        }
        Ok(())
    }

    /// Gives the session these pieces and compares its replies with those of the blocks. What a client
    /// sent behind STARTTLS would be no handshake.
    fn play<'p>(
        &mut self,
        pieces: impl IntoIterator<Item = &'p [u8]>,
        blocks: &[Block],
    ) -> Result<(), Problem> {
        for piece in pieces {
            if !self.secured {
                self.feed(piece)?;
            }
        }
        let (line, tls) = blocks.last().map_or((0, false), |block| (block.line, block.tls));
        compare(blocks.iter().flat_map(|block| &block.replies), &self.take_lines(), line)?;
        if std::mem::take(&mut self.secured) != tls {
            return Err(problem(line, format!("the handshake is expected: {tls}")));
        }
        Ok(())
    }

    fn feed(&mut self, octets: &[u8]) -> Result<(), Problem> {
        let mut input = octets;
        loop {
            let step = self.session.step(&mut input);
            self.output.append(&mut self.session.take_output());
            match step {
                Step::NeedInput if input.is_empty() => return Ok(()),
                Step::NeedInput => return Err(problem(0, "wants more input than it was given")),
                Step::Close => {
                    self.closed = true;
                    return Ok(());
                }
                Step::CheckRecipient(..) => {
                    let verdict = self.next_verdict()?;
                    self.session.resume(verdict.unwrap_or(Verdict::All(Reply::recipient_ok())));
                }
                Step::BeginBody { declared } => {
                    let body = Body::take(&self.budget, declared, self.script.settings.max_size);
                    self.session.begin_body(match body {
                        _ if !self.script.intake_open => BodyAnswer::Refuse(Reply::intake_closed()),
                        Some(body) => BodyAnswer::Begin(body),
                        None => BodyAnswer::Refuse(Reply::no_memory()),
                    });
                }
                Step::CatchUp => self.session.body().expect("is being received").catch_up(),
                Step::FinishBody(mut body) => {
                    body.finish();
                    if let Some((transaction, body)) = self.session.finish_body(body) {
                        self.deliver(transaction, body)?;
                    }
                    self.output.append(&mut self.session.take_output());
                }
                Step::StartTls => {
                    self.session.secured();
                    self.secured = true;
                }
                Step::Authenticate(..) => {
                    let verdict = self.next_verdict()?;
                    self.session.resume(verdict.unwrap_or(Verdict::All(Reply::authenticated())));
                }
                Step::Before(_) => self.session.proceed(None),
                Step::XClient(_) => self.session.greet(GREETING),
                Step::Deliver(transaction, body) => self.deliver(transaction, body)?,
            }
        }
    }

    fn deliver(&mut self, transaction: Arc<Transaction>, body: Body) -> Result<(), Problem> {
        self.delivered.push((transaction, body));
        let verdict = self.next_verdict()?;
        self.session.resume(verdict.unwrap_or_else(queued));
        Ok(())
    }

    fn next_verdict(&mut self) -> Result<Option<Verdict>, Problem> {
        match &mut self.verdicts {
            None => Ok(None),
            Some(left) => left.pop_front().ok_or_else(|| problem(0, "a question without its V:")),
        }
    }

    /// The complete reply lines so far, without their CRLF.
    fn take_lines(&mut self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut self.output)).expect("replies are ASCII");
        let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
        assert_eq!(lines.pop().as_deref(), Some(""), "a reply without CRLF: {text:?}");
        lines
    }

    fn finish(self) -> Result<(), Problem> {
        let (line, end) = self.script.end.map_or((0, None), |(line, end)| (line, Some(end)));
        if self.closed != (end == Some(End::Closed)) {
            return Err(problem(line, format!("closed is {}", self.closed)));
        }
        if self.verdicts.is_some_and(|left| !left.is_empty()) {
            return Err(problem(0, "a V: that nobody asked for"));
        }
        let expected = &self.script.delivered;
        for ((line, envelope), (transaction, _)) in expected.iter().zip(&self.delivered) {
            let found = envelope_of(transaction);
            if found != *envelope {
                return Err(problem(*line, format!("delivered {found}")));
            }
        }
        if expected.len() != self.delivered.len() {
            return Err(problem(line, format!("{} deliveries", self.delivered.len())));
        }
        let twins = &self.script.twins;
        if !twins.is_empty() && twins.len() != self.delivered.len() {
            return Err(problem(line, format!("{} .eml files", twins.len())));
        }
        for (twin, (_, body)) in twins.iter().zip(&self.delivered) {
            if std::fs::read(twin).unwrap() != body.as_slice() {
                let found = body.as_slice().escape_ascii();
                return Err(problem(line, format!("{} is not {found}", twin.display())));
            }
        }
        Ok(())
    }
}

fn queued() -> Verdict {
    Verdict::All(Reply::new(250, Some("2.0.0"), "OK: queued as 01J0").expect("a proper reply"))
}

/// `<reverse-path> <forward-path>…`, as in a `== delivered` line.
fn envelope_of(transaction: &Transaction) -> String {
    let mut text = format!("<{}>", transaction.mail_from);
    for recipient in transaction.rcpt_to.iter() {
        write!(text, " <{recipient}>").unwrap();
    }
    text
}

/// Every line is expected, and every expected line is there.
fn compare<'a>(
    expected: impl IntoIterator<Item = &'a Expected>,
    lines: &[String],
    last: usize,
) -> Result<(), Problem> {
    let mut lines = lines.iter();
    let mut line = last;
    for Expected { line: number, pattern, skip } in expected {
        line = *number;
        let matches = |found: &String| match pattern {
            Pattern::Exactly(text) => found == text,
            Pattern::Matches(regex) => regex.is_match(found),
        };
        match lines.next() {
            Some(found) if matches(found) => {}
            Some(found) if !skip => return Err(problem(line, format!("got {found:?}"))),
            Some(_) if lines.by_ref().any(matches) => {}
            _ => return Err(problem(line, "no such reply")),
        }
    }
    match lines.next() {
        None => Ok(()),
        Some(found) => Err(problem(line, format!("then came {found:?}"))),
    }
}
