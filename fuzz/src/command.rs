//! Command lines: however they are cut, a line is what stands before a CRLF, and nothing behind a bare CR or LF
//! is a command. Each line is a command, or an error whose reply is fit for the wire.

use super::session::check_replies;
use guerrilla::smtp::{Command, Line, LineReader, Longest, MAX_COMMAND_LINE, Scope};

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Line(Vec<u8>),
    TooLong([u8; 4]),
    Malformed([u8; 4]),
}

/// Checks one input.
pub fn check(input: &[u8]) {
    let seen = read([input]);
    assert_eq!(read(input.chunks(1)), seen, "octet by octet");
    assert_eq!(read(input.chunks(7)), seen, "in sevens");
    assert_eq!(expected(input), seen, "as the oracle reads it");
    for line in seen {
        if let Seen::Line(line) = line {
            check_line(&line);
        }
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
    let mut reader = LineReader::default();
    let mut seen = Vec::new();
    for mut input in pieces {
        loop {
            seen.push(match reader.next(&mut input, Longest::Command) {
                Line::Incomplete => break,
                Line::Complete(line) => Seen::Line(line.to_vec()),
                Line::TooLong(beginning) => Seen::TooLong(beginning),
                Line::AuthTooLong => unreachable!("no line is AUTH's"),
                Line::Malformed(beginning) => Seen::Malformed(beginning),
            });
            reader.clear();
        }
        assert!(input.is_empty(), "octets are left");
    }
    seen
}

/// The oracle: the input is cut at each CRLF, and each piece is judged alone.
fn expected(input: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        let (line, behind) = rest.split_at(at);
        seen.push(refusal(line, true).unwrap_or_else(|| Seen::Line(line.to_vec())));
        rest = &behind[2..];
    }
    // A CR at the end may yet be part of a CRLF.
    seen.extend(refusal(rest, false));
    seen
}

/// Why what stands before a CRLF, or at the end of the input, is no line.
fn refusal(line: &[u8], ended: bool) -> Option<Seen> {
    let known = if ended { line.len() } else { line.strip_suffix(b"\r").unwrap_or(line).len() };
    let bare = line[..known].iter().position(|octet| matches!(octet, b'\r' | b'\n'));
    // The octet behind a CR is what tells.
    let told = bare.map(|at| at + usize::from(line[at] == b'\r'));
    let length = line.len() + if ended { 2 } else { 0 };
    let too_long = if ended { length > MAX_COMMAND_LINE } else { length >= MAX_COMMAND_LINE };
    match (told, bare) {
        (Some(at), Some(bare)) if at < MAX_COMMAND_LINE => {
            Some(Seen::Malformed(beginning(&line[..=bare])))
        }
        _ if too_long => Some(Seen::TooLong(beginning(line))),
        _ => None,
    }
}

fn beginning(line: &[u8]) -> [u8; 4] {
    std::array::from_fn(|at| line.get(at).copied().unwrap_or(0))
}

fn check_line(line: &[u8]) {
    assert!(line.len() + 2 <= MAX_COMMAND_LINE);
    for smtputf8 in [false, true] {
        check_parse(line, &Scope { smtputf8, ..Scope::default() });
    }
}

fn check_parse(line: &[u8], scope: &Scope) {
    let parsed = Command::parse_in(line, scope);
    if let Err(error) = &parsed {
        let mut wire = Vec::new();
        error.reply().write_to(&mut wire);
        check_replies(&wire, false);
        assert!(matches!(wire.first(), Some(b'5')), "an error is for good");
    }
    let verb = line.iter().position(|&octet| octet == b' ').unwrap_or(line.len());
    for change in [<[u8]>::make_ascii_uppercase, <[u8]>::make_ascii_lowercase] {
        let mut changed = line.to_vec();
        change(&mut changed[..verb]);
        assert_eq!(Command::parse_in(&changed, scope), parsed, "the case of a verb means nothing");
    }
    let spaces = [line, b"  "].concat();
    assert_eq!(Command::parse_in(&spaces, scope), parsed, "spaces at the end mean nothing");
}
