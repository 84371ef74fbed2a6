//! Header sections: every octet is in a field, or is what parts two of them; the end is the same however the
//! message comes in. Unfolded values are one line, addresses of a list hold no controls, and our own delivery header
//! is two fields whatever a client chose.

use guerrilla::mail::address_list::{Mailbox, parse_address_list};
use guerrilla::mail::delivery_header::{Trace, delivery_header};
use guerrilla::mail::header::{
    HeaderEnd, HeaderSection, body_offset, count_received, to_text, unfold,
};

/// Checks one input.
pub fn check(input: &[u8]) {
    for limit in [usize::MAX, 40] {
        check_section(input, limit);
    }
    check_end(input);
    let received = input
        .split(|&octet| octet == b'\n')
        .filter(|line| line.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"received:")));
    assert_eq!(count_received(input), received.count());
    check_delivery_header(input);
}

fn check_section(message: &[u8], limit: usize) {
    let section = HeaderSection::parse(message, limit);
    let seen = message.get(..limit).unwrap_or(message);
    let parsed = &seen[..section.end()];
    assert_eq!(section.end(), body_offset(seen).unwrap_or(seen.len()));
    let place = |part: &[u8]| {
        let start = part.as_ptr() as usize - message.as_ptr() as usize;
        (start, start + part.len())
    };
    let mut done = 0;
    for (name, value) in section.iter(message) {
        let ((name_start, name_end), (start, end)) = (place(name), place(value));
        assert!(is_line_end(&parsed[done..name_start]), "octets before a field are lost");
        let between = &parsed[name_end..start];
        match between.split_last() {
            None => assert!(name.is_empty()),
            Some((colon, blanks)) => {
                assert!(*colon == b':' && blanks.iter().all(|octet| b" \t".contains(octet)));
                assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic));
            }
        }
        done = end;
        check_value(value);
    }
    let rest = &parsed[done..];
    let last = rest.iter().position(|&octet| octet == b'\n').map_or(rest.len(), |at| at + 1);
    let (line_end, empty_line) = rest.split_at(if section.is_empty() { 0 } else { last });
    assert!(is_line_end(line_end) && is_line_end(empty_line), "octets at the end are lost");
}

fn is_line_end(octets: &[u8]) -> bool {
    [&b""[..], b"\r\n", b"\n", b"\r"].contains(&octets)
}

fn check_value(value: &[u8]) {
    let unfolded = unfold(value);
    assert!(unfolded.len() <= value.len());
    let folds = |pair: &[u8]| matches!(pair, [b'\r' | b'\n', b' ' | b'\t']);
    assert!(!unfolded.windows(2).any(folds), "it is still folded");
    assert_eq!(unfold(&unfolded), unfolded);
    assert!(to_text(value).len() <= 3 * value.len());
    let mailboxes = parse_address_list(value);
    assert!(mailboxes.len() <= value.len());
    for mailbox in mailboxes {
        check_mailbox(mailbox);
    }
}

fn check_mailbox(mailbox: Mailbox) {
    for part in [&mailbox.display_name, &mailbox.user, &mailbox.host] {
        assert!(!part.contains(char::is_control), "{mailbox:?}");
    }
    let text = mailbox.to_string();
    let plain = Mailbox { display_name: String::new(), ..mailbox };
    assert_eq!(parse_address_list(text.as_bytes()), [plain], "{text}");
}

fn check_end(message: &[u8]) {
    let mut finder = HeaderEnd::new(usize::MAX);
    let mut found = None;
    for end in 0..=message.len() {
        found = finder.update(&message[..end]);
        assert!(found.is_none_or(|at| at <= end));
    }
    assert_eq!(found, body_offset(message), "octet by octet");
}

/// The input as what clients choose: HELO, a name that a proxy gives, the recipient, each up to a 0xff.
fn check_delivery_header(input: &[u8]) {
    let mut texts = input.splitn(3, |&octet| octet == 0xff).map(String::from_utf8_lossy);
    let [helo, name, recipient] = std::array::from_fn(|_| texts.next().unwrap_or_default());
    let trace = Trace {
        helo: &helo,
        remote: "192.0.2.1",
        remote_name: Some(&name),
        by: "mx.example.com",
        protocol: "ESMTPS",
        id: "1",
        received_at: input.len() as u64,
        cipher: Some("TLS13_AES_256_GCM_SHA384"),
        tls_version: Some("TLSv1.3"),
    };
    let recipient = &recipient[..recipient.floor_char_boundary(256)];
    let header = delivery_header(&trace, Some(recipient));
    let text = std::str::from_utf8(&header).expect("it is text");
    assert_eq!(text.matches(['\r', '\n']).count(), 2 * 5, "{text}");
    assert!(text.split("\r\n").all(|line| line.len() <= 998), "{text}");
    let (_, received) = text.split_once("\r\n").expect("two fields");
    for (mark, count) in [('(', 2), (')', 2), (';', 1), ('[', 1), (']', 1)] {
        let literal = usize::from(helo.starts_with('[') && helo.ends_with(']') && helo.len() > 1);
        let named = usize::from(name.starts_with('[') && name.ends_with(']') && name.len() > 1);
        let more = if "[]".contains(mark) { literal + named } else { 0 };
        assert_eq!(received.matches(mark).count(), count + more, "{received}");
    }
    let section = HeaderSection::parse(&header, usize::MAX);
    let names: Vec<&[u8]> = section.iter(&header).map(|(name, _)| name).collect();
    assert_eq!(names, [&b"Delivered-To"[..], b"Received"]);
}
