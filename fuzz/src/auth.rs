//! AUTH and LMTP: nobody is authenticated whose credentials were not found good, and a new beginning forgets
//! it; no password comes out again, in a reply or in what is printed of a session; nothing is held between
//! commands; and it all is the same however the input is cut.

use super::driver::{Driver, Event, PASSWORD, memory};
use super::session::{by_octet, check_replies, run, says_smtputf8};
use guerrilla::smtp::{Auth, MAX_AUTH_LINE, Protocol, Settings};

/// What one octet stands for: a fuzzer finds no base64 of a password by itself.
const WORDS: [(u8, &str); 6] = [
    (0xf0, "AUTH PLAIN "),
    (0xf1, "AGpvZQB0YW5zdGFhZi02ZDhm"),
    (0xf2, "am9l"),
    (0xf3, "dGFuc3RhYWYtNmQ4Zg=="),
    (0xf4, "AGpvZQB0YW5zdGFhZg=="),
    (0xf5, "EHLO a\r\nLHLO a\r\n"),
];

/// Checks one input: two octets of settings, and what the client sends.
pub fn check(input: &[u8]) {
    let Some((&[flags, size], stream)) = input.split_first_chunk::<2>() else { return };
    let settings = settings(flags);
    let stream = spelt(stream);
    let (events, segments) = by_octet(&settings, &stream, |driver| check_login(&settings, driver));
    for sizes in [vec![], vec![1 + usize::from(size)]] {
        let found = run(&settings, memory(), &stream, &segments, &sizes);
        assert_eq!(found, events, "cut at {sizes:?} and octet by octet");
    }
    for event in &events {
        if let Event::Replies(replies) = event {
            check_replies_and_challenges(replies, says_smtputf8(&stream));
        }
    }
}

fn settings(flags: u8) -> Settings {
    let flag = |bit: u8| flags & (1 << bit) != 0;
    Settings {
        protocol: if flag(0) { Protocol::Lmtp } else { Protocol::Smtp },
        auth: Auth {
            offered: !flag(1),
            required: flag(2),
            relay: flag(3),
            allow_plaintext: !flag(4),
        },
        start_tls: flag(5),
        xclient: flag(6),
        helo_required: !flag(7),
        max_idle_commands: 0,
        max_errors: 0,
        ..Settings::default()
    }
}

fn spelt(stream: &[u8]) -> Vec<u8> {
    let word = |octet: &u8| WORDS.iter().find(|(short, _)| short == octet);
    let mut out = Vec::new();
    for octet in stream {
        match word(octet) {
            Some((_, long)) => out.extend_from_slice(long.as_bytes()),
            None => out.push(*octet),
        }
    }
    out
}

/// Whether it is authenticated is what the events say, and its password is nowhere.
fn check_login(settings: &Settings, driver: &Driver) {
    let (mut known, mut proxied) = (false, false);
    for event in &driver.events {
        match event {
            Event::Login(_, name, good) => {
                assert!(settings.auth.offered && !known, "{name} is asked about");
                known = *good;
                continue;
            }
            // Of a client whose name the proxy gives with it; nothing said takes nothing back.
            Event::XClient(said) if said.contains("login: Value") => proxied = true,
            Event::XClient(said) if said.contains("login: Nothing") => {}
            Event::XClient(_) => proxied = false,
            // What a proxy says is no secret that TLS would have to keep.
            Event::Secured => {}
            _ => continue,
        }
        known = proxied;
    }
    assert_eq!(driver.session.is_authenticated(), known);
    let shown = format!("{:?}", driver.session);
    let encoded = [PASSWORD, "dGFuc3RhYWYtNmQ4Zg", "B0YW5zdGFhZi02ZDhm"];
    assert!(encoded.iter().all(|secret| !shown.contains(secret)), "{shown}");
    assert!(shown.len() < 20_000 + MAX_AUTH_LINE, "{} octets of session", shown.len());
}

/// A challenge is the one reply without a text of its own.
fn check_replies_and_challenges(replies: &[u8], utf8: bool) {
    let text = std::str::from_utf8(replies).expect("replies are UTF-8");
    assert!(!text.contains(PASSWORD));
    let challenges = ["334 \r\n", "334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n"];
    let lines = text.split_inclusive("\r\n").filter(|line| line.starts_with("334"));
    for line in lines {
        assert!(challenges.contains(&line), "{line:?}");
    }
    let others: String =
        text.split_inclusive("\r\n").filter(|line| !line.starts_with("334")).collect();
    if !others.is_empty() {
        check_replies(others.as_bytes(), utf8);
    }
}
