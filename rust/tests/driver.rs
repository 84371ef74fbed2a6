//! A session whose driver answers by rules of its own, the same for every run: what came of two runs can be
//! compared.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::expect_used, reason = "a test says what is wrong by panicking")]

use std::sync::{Arc, LazyLock};

use guerrilla::buffer::{Body, Budget, Spiller};
use guerrilla::log::Log;
use guerrilla::shared::Part;
use guerrilla::smtp::{
    BareNewline, BodyAnswer, DataReader, Ending, Reply, Session, Settings, Step, Transaction,
    Verdict,
};

/// What a session may have written before it asks to have it sent; a reply may go over it.
const MAX_OUTPUT: usize = 16 << 10;
const MAX_REPLY: usize = 10 * 512;

/// What a session did, in order. Adjacent replies are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Replies(Vec<u8>),
    Check {
        recipient: String,
        so_far: usize,
    },
    /// DATA or the first BDAT, and how many octets had been consumed with it.
    BeginBody {
        declared: Option<u64>,
        at: usize,
    },
    /// Who, whose password it is, and whether it is good.
    Login(String, String, bool),
    XClient(String),
    Secured,
    Deliver {
        envelope: String,
        message: Vec<u8>,
        header_end: Option<usize>,
    },
    Closed,
}

/// Whoever has it is let in.
pub(crate) const PASSWORD: &str = "tanstaaf-6d8f";

pub(crate) struct Driver {
    pub(crate) session: Session,
    budget: Arc<Budget>,
    max_size: u64,
    questions: usize,
    /// Whether it says yes to all.
    obliging: bool,
    /// Octets of input so far.
    fed: usize,
    /// STARTTLS commands so far.
    pub(crate) secured: usize,
    pub(crate) events: Vec<Event>,
}

impl Driver {
    /// A session that was greeted, of a trusted proxy.
    pub(crate) fn new(settings: &Settings, budget: &Arc<Budget>) -> Self {
        let mut session = Session::new(Arc::new(settings.clone()));
        session.trust();
        session.greet("SMTP");
        let mut driver = Self {
            session,
            budget: Arc::clone(budget),
            max_size: settings.max_size,
            questions: 0,
            obliging: false,
            fed: 0,
            secured: 0,
            events: Vec::new(),
        };
        // The greeting comes before any input.
        driver.feed(b"");
        driver
    }

    /// The same, with nothing refused by the driver.
    pub(crate) fn obliging(settings: &Settings, budget: &Arc<Budget>) -> Self {
        Self { obliging: true, ..Self::new(settings, budget) }
    }

    /// Counts octets that are not fed: those behind STARTTLS.
    pub(crate) fn skip(&mut self, octets: usize) {
        self.fed += octets;
    }

    pub(crate) fn feed(&mut self, mut input: &[u8]) {
        self.fed += input.len();
        loop {
            let step = self.session.step(&mut input);
            let written = self.take_output();
            match step {
                Step::NeedInput if input.is_empty() => return,
                Step::NeedInput => {
                    assert!(written >= MAX_OUTPUT, "wants more input than it was given");
                }
                Step::Close => {
                    if self.events.last() != Some(&Event::Closed) {
                        self.events.push(Event::Closed);
                    }
                    return;
                }
                question => self.answer(question, input.len()),
            }
        }
    }

    fn take_output(&mut self) -> usize {
        let output = self.session.take_output();
        let written = output.len();
        assert!(written <= MAX_OUTPUT + MAX_REPLY, "{written} octets of replies at once");
        match self.events.last_mut() {
            Some(Event::Replies(replies)) => replies.extend(output),
            _ if output.is_empty() => {}
            _ => self.events.push(Event::Replies(output)),
        }
        written
    }

    fn answer(&mut self, question: Step, unread: usize) {
        self.questions += 1;
        match question {
            Step::CheckRecipient(transaction, recipient) => {
                let so_far = transaction.rcpt_to.len();
                self.events.push(Event::Check { recipient: recipient.to_string(), so_far });
                self.session.resume(self.verdict());
            }
            Step::BeginBody { declared } => {
                self.events.push(Event::BeginBody { declared, at: self.fed - unread });
                let body = Body::take(&self.budget, declared, self.max_size);
                self.session.begin_body(match body {
                    Some(body) if self.obliging || !self.questions.is_multiple_of(7) => {
                        BodyAnswer::Begin(body)
                    }
                    _ => BodyAnswer::Refuse(Reply::intake_closed()),
                });
            }
            Step::CatchUp => {
                self.questions -= 1;
                self.session.body().expect("is being received").catch_up();
            }
            Step::FinishBody(mut body) => {
                body.finish();
                match self.session.finish_body(body) {
                    Some((transaction, body)) => self.deliver(&transaction, &body),
                    // It is no question where there is nothing to deliver.
                    None => self.questions -= 1,
                }
            }
            Step::Deliver(transaction, body) => self.deliver(&transaction, &body),
            Step::Authenticate(transaction, credentials) => {
                let good = credentials.password.expose() == PASSWORD;
                let who = format!("{:?} {transaction:?}", credentials.mechanism);
                let name = credentials.identity().to_owned();
                self.events.push(Event::Login(who, name, good));
                let wrong = Reply::new(535, Some("5.7.8"), "no").expect("is proper");
                self.session.resume(Verdict::All(if good {
                    Reply::authenticated()
                } else {
                    wrong
                }));
            }
            Step::StartTls => {
                self.secured += 1;
                self.events.push(Event::Secured);
                self.session.secured();
            }
            Step::XClient(said) => {
                self.events.push(Event::XClient(format!("{said:?}")));
                self.session.greet("SMTP");
            }
            Step::Before(_) => {
                self.questions -= 1;
                self.session.proceed(None);
            }
            Step::NeedInput | Step::Close => {}
        }
    }

    fn deliver(&mut self, transaction: &Transaction, body: &Body) {
        self.events.push(Event::Deliver {
            envelope: format!("{transaction:?}"),
            message: body.as_slice().to_vec(),
            header_end: body.header_end(),
        });
        self.session.resume(self.verdict());
    }

    fn verdict(&self) -> Verdict {
        let reply = |code, enhanced| Reply::new(code, Some(enhanced), "said").expect("is proper");
        match self.questions % 5 {
            _ if self.obliging => Verdict::All(reply(250, "2.0.0")),
            0 => Verdict::All(reply(550, "5.1.1")),
            1 => Verdict::Each(vec![reply(250, "2.0.0"), reply(451, "4.3.0")]),
            _ => Verdict::All(reply(250, "2.0.0")),
        }
    }
}

/// What came of octets behind 354.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) stored: Vec<u8>,
    /// Octets that were not taken.
    pub(crate) left: usize,
    pub(crate) ending: Ending,
    pub(crate) bare_newline: bool,
}

pub(crate) fn receive(budget: &Arc<Budget>, policy: BareNewline, pieces: &[&[u8]]) -> Received {
    let mut reader = DataReader::new(policy, 1 << 20);
    let mut body = Body::take(budget, Some(1), 0).expect("there is room");
    let mut ending = Ending::Open;
    let mut left = 0;
    for piece in pieces {
        let mut input = *piece;
        while ending != Ending::Complete {
            ending = reader.read(&mut input, &mut body);
            if ending == Ending::Open {
                break;
            }
            body.catch_up();
        }
        left += input.len();
    }
    body.finish();
    let bare_newline = reader.bare_newline();
    Received { stored: body.as_slice().to_vec(), left, ending, bare_newline }
}

/// Room for bodies in memory, the same for all: what one leaves behind would be seen in the next.
pub(crate) fn memory() -> &'static Arc<Budget> {
    static BUDGET: LazyLock<Arc<Budget>> = LazyLock::new(|| budget(0));
    &BUDGET
}

/// Bodies that are in files from their first octets on.
pub(crate) fn files() -> &'static Arc<Budget> {
    static BUDGET: LazyLock<Arc<Budget>> = LazyLock::new(|| budget(1));
    &BUDGET
}

/// Room for bodies, those over `spill_size` in files (0: none).
pub(crate) fn budget(spill_size: u64) -> Arc<Budget> {
    let log = Arc::new(Log::new(0));
    Budget::spilling(1 << 20, Spiller::new(spill_size, None, &Part::default(), &log))
}

/// The input, cut after each of the numbers of octets, taken around in a circle.
pub(crate) fn cut<'a>(input: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = input;
    for &size in sizes.iter().cycle() {
        let Some((piece, behind)) = rest.split_at_checked(size).filter(|_| !sizes.is_empty())
        else {
            break;
        };
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}
