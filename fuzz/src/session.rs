//! A whole session: replies, questions and deliveries are the same however the input is cut; each message is what
//! was sent, by the rules of its policy; replies are well-formed and bounded in what waits to be sent; what was put
//! behind STARTTLS is as if it had not been sent.

use std::ops::Range;
use std::sync::Arc;

use super::driver::{Driver, Event, cut, files, memory};
use super::oracle::{POLICIES, cut_at_the_end, stored};
use guerrilla::buffer::Budget;
use guerrilla::mail::header::body_offset;
use guerrilla::smtp::{Auth, BareNewline, Extensions, HostList, Protocol, Settings};

/// Where the client goes on within TLS, if it has said STARTTLS; what stands before it was injected.
const WITHIN_TLS: &[u8] = b"\xff\xff";

/// Checks one input: four octets of settings, and what the client sends.
pub fn check(input: &[u8]) {
    let Some((&how, stream)) = input.split_first_chunk::<4>() else { return };
    let settings = settings(how);
    let (events, segments) = by_octet(&settings, stream, |_| {});
    let sizes = [1 + usize::from(how[3] % 64), 1 + usize::from(how[3] / 64) * 20];
    let run =
        |budget: &Arc<Budget>, sizes: &[usize]| run(&settings, budget, stream, &segments, sizes);
    assert_eq!(run(memory(), &[]), events, "whole and octet by octet");
    assert_eq!(run(memory(), &sizes), events, "cut at {sizes:?} and octet by octet");
    if how[2] & 0x80 != 0 {
        assert_eq!(run(files(), &sizes), events, "in files and in memory");
    }
    check_messages(&settings, stream, &events);
    for event in &events {
        if let Event::Replies(replies) = event {
            check_replies(replies, says_smtputf8(stream));
        }
    }
}

fn settings([flags, size, counts, _]: [u8; 4]) -> Settings {
    let flag = |bit: u8| flags & (1 << bit) != 0;
    Settings {
        protocol: Protocol::Smtp,
        extensions: Extensions::default(),
        auth: Auth::default(),
        host_name: "mx.example.com".into(),
        max_size: u64::from(size) * 16,
        max_recipients: usize::from(counts & 3),
        max_errors: u32::from(counts >> 2 & 7),
        max_idle_commands: if counts & 0x20 == 0 { 0 } else { 5 },
        max_messages: if counts & 0x40 == 0 { 0 } else { 2 },
        max_header_size: if flag(7) { 64 } else { 1 << 20 },
        max_received_hops: if flag(7) { 2 } else { 0 },
        helo_required: !flag(2),
        start_tls: flag(3),
        tls_required: flag(4),
        xclient: flag(5),
        check_recipients: flag(6),
        bare_newline: POLICIES[usize::from(flags & 3) % POLICIES.len()],
        allowed_hosts: HostList::new(["example.com"]).expect("is a host name"),
    }
}

/// What happened, and the parts of the stream between STARTTLS commands; `look` sees each step of it.
pub(crate) fn by_octet(
    settings: &Settings,
    stream: &[u8],
    look: impl Fn(&Driver),
) -> (Vec<Event>, Vec<Range<usize>>) {
    let mut driver = Driver::new(settings, memory());
    let mut segments = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < stream.len() {
        let secured = driver.secured;
        driver.feed(&stream[at..=at]);
        look(&driver);
        at += 1;
        if driver.secured > secured {
            let mut markers = stream[at..].windows(WITHIN_TLS.len());
            let end = markers.position(|window| window == WITHIN_TLS).map(|found| at + found);
            segments.push(start..end.unwrap_or(stream.len()));
            start = end.map_or(stream.len(), |end| end + WITHIN_TLS.len());
            driver.skip(start - at);
            at = start;
        }
    }
    segments.push(start..stream.len());
    (driver.events, segments)
}

pub(crate) fn run(
    settings: &Settings,
    budget: &Arc<Budget>,
    stream: &[u8],
    segments: &[Range<usize>],
    sizes: &[usize],
) -> Vec<Event> {
    let mut driver = Driver::new(settings, budget);
    for segment in segments {
        let secured = driver.secured;
        for piece in cut(&stream[segment.clone()], sizes) {
            if driver.secured > secured {
                driver.skip(piece.len());
            } else {
                driver.feed(piece);
            }
        }
        driver.skip(WITHIN_TLS.len());
    }
    driver.events
}

fn check_messages(settings: &Settings, stream: &[u8], events: &[Event]) {
    for (index, event) in events.iter().enumerate() {
        let Event::BeginBody { at, .. } = event else { continue };
        if let Some(sent) = chunks_from(stream, *at) {
            check_chunks(settings, &sent, &events[index + 1..]);
            continue;
        }
        let [Event::Replies(replies), next @ ..] = &events[index + 1..] else {
            panic!("DATA without a reply");
        };
        let delivered = match next {
            [Event::Deliver { message, header_end, .. }, ..] => Some((message, *header_end)),
            _ => None,
        };
        let sent = cut_at_the_end(&stream[*at..]).filter(|_| replies.starts_with(b"354"));
        let message = sent.and_then(|(message, _)| stored(settings.bare_newline, &message));
        let fits =
            |message: &Vec<u8>| settings.max_size == 0 || message.len() as u64 <= settings.max_size;
        let expected = message.filter(fits);
        if let Some((message, header_end)) = delivered {
            assert_eq!(Some(message), expected.as_ref());
            let fixed = settings.bare_newline == BareNewline::Fix;
            assert!(!fixed || !super::oracle::has_bare_newline(message));
            let seen = message.get(..settings.max_header_size).unwrap_or(message);
            assert_eq!(header_end, body_offset(seen));
        } else {
            let lost = expected.is_some() && settings.max_received_hops == 0;
            assert!(!lost, "{:?} was not delivered", settings.bare_newline);
        }
    }
}

/// What stands in the chunks from a BDAT on whose line ends there, as long as there is nothing but BDAT between
/// them; with whether the last of them was reached. None where the line is another command.
fn chunks_from(stream: &[u8], at: usize) -> Option<(Vec<u8>, bool)> {
    let before = stream[..at].strip_suffix(b"\r\n")?;
    // What stands before the line may be a chunk, which has no line end.
    let start = before.windows(4).rposition(|verb| verb.eq_ignore_ascii_case(b"BDAT"))?;
    let (mut size, mut last) = read_bdat(&before[start..])?;
    let mut rest = &stream[at..];
    let mut sent = Vec::new();
    while let Some((octets, behind)) = rest.split_at_checked(size) {
        sent.extend_from_slice(octets);
        let end = behind.windows(2).position(|window| window == b"\r\n").unwrap_or(0);
        match read_bdat(&behind[..end]) {
            _ if last => return Some((sent, true)),
            None => break,
            Some(next) => ((size, last), rest) = (next, &behind[end + 2..]),
        }
    }
    Some((sent, false))
}

fn read_bdat(line: &[u8]) -> Option<(usize, bool)> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ').filter(|word| !word.is_empty());
    words.next().filter(|verb| verb.eq_ignore_ascii_case("BDAT"))?;
    let size = words.next().filter(|size| size.bytes().all(|octet| octet.is_ascii_digit()))?;
    let last = words.next();
    let read = last.is_none_or(|last| last.eq_ignore_ascii_case("LAST")) && words.next().is_none();
    read.then_some((size.parse().ok()?, last.is_some()))
}

/// What is delivered is what stood in the chunks.
fn check_chunks(settings: &Settings, sent: &(Vec<u8>, bool), next: &[Event]) {
    let ([Event::Deliver { message, header_end, .. }, ..]
    | [Event::Replies(_), Event::Deliver { message, header_end, .. }, ..]) = next
    else {
        return;
    };
    if let (sent, true) = sent {
        assert_eq!(message, sent);
        let seen = message.get(..settings.max_header_size).unwrap_or(message);
        assert_eq!(*header_end, body_offset(seen));
    }
}

/// Whether the client may ever have said that it takes UTF-8.
pub(crate) fn says_smtputf8(stream: &[u8]) -> bool {
    stream.windows(8).any(|window| window.eq_ignore_ascii_case(b"SMTPUTF8"))
}

/// Whether these are replies, whole ones, in lines of printable text that are as long as they may be.
pub(crate) fn check_replies(replies: &[u8], utf8: bool) {
    let text = std::str::from_utf8(replies).expect("replies are UTF-8");
    let text = text.strip_suffix("\r\n").expect("a reply ends with CRLF");
    let mut begun: Option<&str> = None;
    for line in text.split("\r\n") {
        assert!(line.len() <= 510 && !line.chars().any(char::is_control));
        let (code, rest) = line.split_at(3);
        assert!(line.is_ascii() || (utf8 && matches!(code, "251" | "551")), "{line}");
        assert!(code.parse::<u16>().is_ok_and(|code| (211..=559).contains(&code)), "{line}");
        assert!(begun.is_none_or(|begun| begun == code), "{line} goes on with another reply");
        assert!(rest.starts_with(' ') || rest.starts_with('-'), "{line}");
        begun = rest.starts_with('-').then_some(code);
    }
    assert_eq!(begun, None, "a reply is cut off");
}
