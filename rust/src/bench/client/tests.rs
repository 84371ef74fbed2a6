//! Conversations with servers that behave, and with those that do not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

/// Plays a server: for each thing that the client says, the next answer. What the client is given is whole,
/// or octet by octet. A handshake succeeds; a message is `BODY`.
struct Scene {
    client: Client,
    said: String,
    heard: Vec<(Stage, u16)>,
    outcomes: Vec<Outcome>,
}

fn script(protocol: Protocol, start_tls: bool, pipelining: bool, recipients: usize) -> Arc<Script> {
    let recipients: Vec<String> = (0..recipients).map(|n| format!("r{n}@example.com")).collect();
    Arc::new(Script::new(protocol, "me", start_tls, pipelining, "s@example.com", &recipients))
}

fn smtp() -> Arc<Script> {
    script(Protocol::Smtp, false, false, 1)
}

fn play(script: &Arc<Script>, messages: usize, answers: &[&str]) -> Result<Scene, Fault> {
    let whole = play_in(script, messages, answers, usize::MAX);
    let bytewise = play_in(script, messages, answers, 1);
    match (&whole, &bytewise) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one.said, other.said);
            assert_eq!(one.heard, other.heard);
        }
        (Err(one), Err(other)) => assert_eq!(one, other),
        _ => panic!("whole and byte by byte differ"),
    }
    whole
}

fn play_in(
    script: &Arc<Script>,
    messages: usize,
    answers: &[&str],
    piece: usize,
) -> Result<Scene, Fault> {
    let client = Client::new(Arc::clone(script), false);
    let mut scene = Scene { client, said: String::new(), heard: vec![], outcomes: vec![] };
    let mut answers = answers.iter();
    let mut begun = 0;
    let mut output = Vec::new();
    loop {
        match scene.client.due() {
            Due::Reply => {
                while let Some(heard) = scene.client.hear(&mut output)? {
                    scene.heard.push((heard.stage, heard.code));
                    if scene.client.due() != Due::Reply {
                        break;
                    }
                }
                scene.said.push_str(std::str::from_utf8(&output).unwrap());
                output.clear();
                if scene.client.due() == Due::Reply {
                    let Some(answer) = answers.next() else { return Ok(scene) };
                    for octets in answer.as_bytes().chunks(piece.min(answer.len().max(1))) {
                        scene.client.receive(octets);
                        if piece == 1
                            && scene.client.due() == Due::Reply
                            && let Some(heard) = scene.client.hear(&mut output)?
                        {
                            scene.heard.push((heard.stage, heard.code));
                        }
                    }
                }
            }
            Due::Handshake => {
                scene.said.push_str("<TLS>");
                scene.client.secured(&mut output);
            }
            Due::Message => {
                scene.said.push_str("BODY\r\n.\r\n");
                scene.client.sent();
            }
            Due::Ready | Due::Close => {
                if begun > 0 {
                    scene.outcomes.push(scene.client.outcome());
                }
                if begun == messages || scene.client.due() == Due::Close {
                    return Ok(scene);
                }
                begun += 1;
                scene.client.begin(false, &mut output);
            }
        }
    }
}

const HELLO: &str = "250-mx\r\n250-PIPELINING\r\n250-8bitmime\r\n250 STARTTLS\r\n";
const OK: &str = "250 OK\r\n";

#[test]
fn one_message_after_another() {
    let answers =
        ["220 mx\r\n", HELLO, OK, OK, "354 go\r\n", OK, OK, OK, "354\r\n", "250-a\r\n250 b\r\n"];
    let scene = play(&smtp(), 2, &answers).unwrap();
    let message = "MAIL FROM:<s@example.com>\r\nRCPT TO:<r0@example.com>\r\nDATA\r\nBODY\r\n.\r\n";
    assert_eq!(scene.said, format!("EHLO me\r\n{message}{message}"));
    assert_eq!(scene.outcomes, [Outcome::Accepted; 2]);
    assert_eq!(scene.heard.last(), Some(&(Stage::Message, 250)));
}

#[test]
fn pipelining_where_it_is_offered() {
    let piped = script(Protocol::Smtp, false, true, 2);
    let group = "250 a\r\n250 b\r\n250 c\r\n354 go\r\n";
    let scene = play(&piped, 1, &["220 mx\r\n", HELLO, group, OK]).unwrap();
    let said = "MAIL FROM:<s@example.com>\r\nRCPT TO:<r0@example.com>\r\n\
                RCPT TO:<r1@example.com>\r\nDATA\r\nBODY\r\n.\r\n";
    assert_eq!(scene.said, format!("EHLO me\r\n{said}"));
    assert_eq!(scene.outcomes, [Outcome::Accepted]);
    let scene = play(&piped, 1, &["220 mx\r\n", OK, OK]).unwrap();
    assert!(scene.said.ends_with("RCPT TO:<r0@example.com>\r\n"), "{}", scene.said);
}

#[test]
fn pipelined_and_without_a_recipient_nothing_but_the_dot_is_sent() {
    let piped = script(Protocol::Smtp, false, true, 1);
    let refused = "250 a\r\n550 no\r\n354 go\r\n";
    let scene = play(&piped, 1, &["220 mx\r\n", HELLO, refused, "554 no valid recipients\r\n"]);
    let scene = scene.unwrap();
    assert!(scene.said.ends_with("DATA\r\n.\r\n"), "{}", scene.said);
    assert_eq!(scene.outcomes, [Outcome::Refused]);
    let refused = "250 a\r\n550 no\r\n503 no recipient\r\n";
    let scene = play(&piped, 1, &["220 mx\r\n", HELLO, refused, OK]).unwrap();
    assert!(scene.said.ends_with("DATA\r\nRSET\r\n"), "{}", scene.said);
    assert_eq!(scene.outcomes, [Outcome::Refused]);
}

#[test]
fn refusals_at_each_stage_and_on_to_the_next_message() {
    let good = [OK, OK, "354 go\r\n", OK];
    let cases: [(&[&str], &str); 4] = [
        (&["452 full\r\n"], "MAIL FROM:<s@example.com>\r\nMAIL"),
        (&[OK, "550 no such user\r\n", OK], "RCPT TO:<r0@example.com>\r\nRSET\r\nMAIL"),
        (&[OK, OK, "451 later\r\n", OK], "DATA\r\nRSET\r\nMAIL"),
        (&[OK, OK, "354 go\r\n", "554 spam\r\n"], "BODY\r\n.\r\nMAIL"),
    ];
    for (refused, said) in cases {
        let answers = [&["220 mx\r\n", HELLO], refused, &good].concat();
        let scene = play(&smtp(), 2, &answers).unwrap();
        assert!(scene.said.contains(said), "{said} in {}", scene.said);
        assert_eq!(scene.outcomes, [Outcome::Refused, Outcome::Accepted]);
    }
}

#[test]
fn a_recipient_that_is_refused_keeps_nothing_from_the_other() {
    let two = script(Protocol::Smtp, false, false, 2);
    let answers = ["220 mx\r\n", HELLO, OK, "550 no\r\n", OK, "354 go\r\n", OK];
    let scene = play(&two, 1, &answers).unwrap();
    assert!(scene.said.ends_with("BODY\r\n.\r\n"));
    assert_eq!(scene.outcomes, [Outcome::Refused]);
}

#[test]
fn lmtp_has_a_reply_of_each_recipient_that_was_accepted() {
    let three = script(Protocol::Lmtp, false, false, 3);
    let begin = ["220 mx\r\n", HELLO, OK, OK, "550 no\r\n", OK, "354 go\r\n"];
    let answers = [&begin[..], &["250 a\r\n452 b\r\n"]].concat();
    let scene = play(&three, 1, &answers).unwrap();
    assert!(scene.said.starts_with("LHLO me\r\n"));
    assert_eq!(scene.heard.iter().filter(|(stage, _)| *stage == Stage::Message).count(), 2);
    assert_eq!(scene.outcomes, [Outcome::Refused]);
    let none = ["220 mx\r\n", HELLO, "250 a\r\n550 b\r\n354 go\r\n"];
    let piped = script(Protocol::Lmtp, false, true, 1);
    assert_eq!(play(&piped, 1, &none).err(), Some(Fault::Wrong(354)));
}

#[test]
fn starttls_begins_anew() {
    let secure = script(Protocol::Smtp, true, false, 1);
    let answers = ["220 mx\r\n", HELLO, "220 go\r\n", OK, OK];
    let scene = play(&secure, 1, &answers).unwrap();
    assert!(
        scene.said.starts_with("EHLO me\r\nSTARTTLS\r\n<TLS>EHLO me\r\nMAIL"),
        "{}",
        scene.said
    );
    assert_eq!(play(&secure, 1, &["220 mx\r\n", OK]).err(), Some(Fault::NoStartTls));
    let refused = play(&secure, 1, &["220 mx\r\n", HELLO, "454 not now\r\n"]).unwrap();
    assert_eq!((refused.client.due(), refused.client.outcome()), (Due::Close, Outcome::Refused));
    let mut client = Client::new(secure, false);
    client.receive(b"220 mx\r\n250 STARTTLS\r\n220 go\r\n250 injected\r\n");
    let mut output = Vec::new();
    client.hear(&mut output).unwrap();
    client.hear(&mut output).unwrap();
    assert_eq!(client.hear(&mut output), Err(Fault::Plaintext));
}

#[test]
fn a_421_ends_it_wherever_it_comes() {
    let all = ["220 mx\r\n", HELLO, OK, OK, "354 go\r\n", OK];
    for count in 0..all.len() {
        let answers = [&all[..count], &["421 4.3.2 closing\r\n"]].concat();
        let scene = play(&smtp(), 1, &answers).unwrap();
        assert_eq!(scene.client.due(), Due::Close, "{count}");
        assert_eq!(scene.client.outcome(), Outcome::Refused, "{count}");
    }
}

#[test]
fn a_greeting_or_a_hello_that_refuses_ends_it() {
    for answers in [&["554 go away\r\n"][..], &["220 mx\r\n", "550 not you\r\n"]] {
        let scene = play(&smtp(), 1, answers).unwrap();
        assert_eq!((scene.client.due(), scene.client.outcome()), (Due::Close, Outcome::Refused));
    }
}

#[test]
fn what_is_no_reply_or_has_no_place_is_a_fault() {
    let long = format!("250 {}", "x".repeat(MAX_LINE));
    let ended = format!("{long}\r\n");
    let endless = "250-more\r\n".repeat(MAX_LINES + 1);
    let cases: [(&str, Fault); 14] = [
        (&long, Fault::LongLine),
        (&ended, Fault::LongLine),
        (&endless, Fault::ManyLines),
        ("HTTP/1.1 400 Bad Request\r\n", Fault::NoCode),
        ("\r\n", Fault::NoCode),
        ("25\r\n", Fault::NoCode),
        ("2x0 OK\r\n", Fault::NoCode),
        ("250!OK\r\n", Fault::NoCode),
        ("2500 OK\r\n", Fault::NoCode),
        ("150 early\r\n", Fault::NoCode),
        ("999 late\r\n", Fault::NoCode),
        ("250-a\r\n251 b\r\n", Fault::MixedCodes),
        ("354 go\r\n", Fault::Wrong(354)),
        ("334 user\r\n", Fault::Wrong(334)),
    ];
    for (answer, fault) in cases {
        let found = play(&smtp(), 1, &["220 mx\r\n", answer]).err();
        assert_eq!(found, Some(fault), "{answer:.40}");
    }
    assert_eq!(play(&smtp(), 1, &["250 mx\r\n"]).err(), Some(Fault::Wrong(250)));
    let early = ["220 mx\r\n", HELLO, OK, OK, "250 not yet\r\n"];
    assert_eq!(play(&smtp(), 1, &early).err(), Some(Fault::Wrong(250)));
}

#[test]
fn a_reply_that_never_ends_takes_no_memory() {
    let mut client = Client::new(smtp(), false);
    let mut output = Vec::new();
    let fault = (0..).find_map(|_| {
        client.receive(b"220-and so on\r\n");
        client.hear(&mut output).err()
    });
    assert_eq!(fault, Some(Fault::ManyLines));
    let mut client = Client::new(smtp(), false);
    let octets = (0..).take_while(|_| {
        client.receive(b"x");
        client.hear(&mut output).is_ok()
    });
    assert_eq!(octets.count(), MAX_LINE - 1);
}

#[test]
fn any_octets_of_a_text_are_taken_and_some_are_kept() {
    let mut client = Client::new(smtp(), false);
    let mut output = Vec::new();
    client.receive(b"554-\xff\x00\x1b[2J");
    client.receive(&[b'y'; 1_000]);
    client.receive(b"\r\n554 more\n");
    let heard = client.hear(&mut output).unwrap().unwrap();
    let text = heard.text.unwrap();
    assert!(text.starts_with("\u{fffd}\0\u{1b}[2Jyyy"));
    assert_eq!(text.chars().count(), MAX_TEXT);
    assert_eq!((heard.code, client.due()), (554, Due::Close));
}

#[test]
fn eight_bits_are_named_where_that_is_offered() {
    for (hello, named) in [(HELLO, true), (OK, false)] {
        let mut client = play(&smtp(), 0, &["220 mx\r\n", hello]).unwrap().client;
        let mut output = Vec::new();
        client.begin(true, &mut output);
        let said = String::from_utf8(output).unwrap();
        assert_eq!(said.contains(" BODY=8BITMIME\r\n"), named, "{said}");
    }
}

#[test]
fn goodbye_is_no_message() {
    let mut client = play(&smtp(), 0, &["220 mx\r\n", HELLO]).unwrap().client;
    let mut output = Vec::new();
    client.quit(&mut output);
    assert_eq!(output, b"QUIT\r\n");
    client.receive(b"421 bye\r\n");
    let heard = client.hear(&mut output).unwrap().unwrap();
    assert_eq!((heard.stage, client.due()), (Stage::Quit, Due::Close));
    assert_eq!(client.outcome(), Outcome::Accepted);
}
