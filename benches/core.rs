//! The parser and the session alone, to have their instructions counted: a message costs the same in every
//! run, which no clock on a shared machine can say. `scripts/instructions.sh` runs it.

#![allow(clippy::expect_used, reason = "a benchmark says what is wrong by panicking")]

use std::hint::black_box;
use std::sync::Arc;

use guerrilla::buffer::{Body, Budget, Spiller};
use guerrilla::log::Log;
use guerrilla::smtp::{BodyAnswer, Command, Reply, Session, Settings, Step, Verdict};

const COMMANDS: [&[u8]; 5] = [
    b"MAIL FROM:<bounce-1234567@list.example.net> SIZE=4096 BODY=8BITMIME",
    b"RCPT TO:<someone.with.a.name@mail.example.com>",
    b"RCPT TO:<b@c.example>",
    b"DATA",
    b"RSET",
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let scenario = arguments.next().unwrap_or_else(|| "session".to_owned());
    let count: usize = arguments.next().map_or(1_000, |text| text.parse().expect("is a number"));
    match scenario.as_str() {
        "parse" => parse(count),
        "session" => session(count, false),
        "pipelined" => session(count, true),
        other => panic!("no scenario {other}: parse, session or pipelined"),
    }
}

/// Five commands a round.
fn parse(count: usize) {
    for _ in 0..count {
        for line in COMMANDS {
            black_box(Command::parse(black_box(line)).is_ok());
        }
    }
}

/// Messages of 4 KiB on one connection.
fn session(count: usize, pipelined: bool) {
    let log = Arc::new(Log::new(0));
    let budget = Budget::spilling(64 << 20, Spiller::new(0, None, &Arc::default(), &log));
    let settings = Settings { max_messages: 0, ..Settings::default() };
    let mut session = Session::new(Arc::new(settings));
    session.greet("SMTP");
    let message =
        format!("Subject: a\r\n\r\n{}.\r\n", format!("{}\r\n", "x".repeat(78)).repeat(51));
    let pieces: [&[u8]; 4] = [
        b"MAIL FROM:<sender@example.net>\r\n",
        b"RCPT TO:<recipient@example.com>\r\n",
        b"DATA\r\n",
        message.as_bytes(),
    ];
    let all = pieces.concat();
    feed(&mut session, &budget, b"EHLO client.example.net\r\n");
    for _ in 0..count {
        if pipelined {
            feed(&mut session, &budget, &all);
        } else {
            for piece in pieces {
                feed(&mut session, &budget, piece);
            }
        }
    }
}

fn feed(session: &mut Session, budget: &Arc<Budget>, mut input: &[u8]) {
    loop {
        match session.step(&mut input) {
            Step::NeedInput if input.is_empty() => break,
            Step::BeginBody { declared } => {
                let body = Body::take(budget, declared, 10 << 20).expect("there is room");
                session.begin_body(BodyAnswer::Begin(body));
            }
            Step::Deliver(..) => {
                let reply = Reply::new(250, Some("2.0.0"), "OK").expect("is a reply");
                session.resume(Verdict::All(reply));
            }
            Step::NeedInput => {}
            other => panic!("{other:?}"),
        }
    }
    black_box(session.take_output());
}
