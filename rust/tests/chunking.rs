//! Properties of the protocol for any input: how it is split changes nothing, unstuffing undoes stuffing,
//! and an address survives being written and read.

#![allow(clippy::expect_used, reason = "a test says what is wrong by panicking")]

use std::sync::Arc;

use guerrilla::buffer::Budget;
use guerrilla::mail::header::body_offset;
use guerrilla::smtp::{
    Address, Auth, BareNewline, Ending, Extensions, HostList, PathKind, Protocol, Settings,
    parse_path,
};
use proptest::prelude::*;

use crate::driver::{Driver, Event, Received, budget, cut, receive};
use crate::oracle::{EOM, POLICIES, cut_at_the_end, has_bare_newline, stuff, unstuff, with_crlf};

// --- Any split of a session ----------------------------------------------------------------------

fn run<'a>(
    settings: &Settings,
    spill_size: u64,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<Event> {
    let mut driver = Driver::new(settings, &budget(spill_size));
    for piece in pieces {
        driver.feed(piece);
    }
    driver.events
}

/// Pieces of sessions, good and bad, so that their random order meets many states.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "EHLO client.example\r\n",
        "HELO client.example\r\n",
        "HELO bad name\r\n",
        "MAIL FROM:<alice@client.example>\r\n",
        "MAIL FROM:<> SIZE=20 BODY=8BITMIME\r\n",
        "MAIL FROM:<alice@client.example> SIZE=999999\r\n",
        "RCPT TO:<bob@example.com>\r\n",
        "RCPT TO:<\"b o b\"@example.com>\r\n",
        "RCPT TO:<Postmaster>\r\n",
        "RCPT TO:<eve@elsewhere.example>\r\n",
        "MAIL FROM:<> BODY=BINARYMIME\r\n",
        "DATA\r\n",
        "BDAT 0\r\n",
        "bdat 1 last\r\n",
        "BDAT 4000 LAST\r\n",
        "BDAT x\r\n",
        "BDAT 5\n",
        "RSET\r\n",
        "LHLO client.example\r\n",
        "AUTH PLAIN\r\n",
        "AUTH LOGIN\r\n",
        "AUTH LOGIN am9l\r\n",
        "AUTH PLAIN =\r\n",
        // Joe's, and a wrong one.
        "AUTH PLAIN AGpvZQB0YW5zdGFhZi02ZDhm\r\n",
        "AUTH PLAIN AGpvZQB0YW5zdGFhZg==\r\n",
        "AGpvZQB0YW5zdGFhZi02ZDhm\r\n",
        "am9l\r\n",
        "dGFuc3RhYWYtNmQ4Zg==\r\n",
        "*\r\n",
        "MAIL FROM:<> AUTH=<>\r\n",
        "NOOP\r\n",
        "VRFY bob\r\n",
        "XCLIENT ADDR=192.0.2.1 HELO=client.example\r\n",
        "XCLIENT HELO=[UNAVAILABLE]\r\n",
        "XCLIENT NAME\r\n",
        "HELP\r\n",
        "WHAT\r\n",
        "Subject: hello\r\n",
        "\r\n",
        "\r\n.\r\n",
        ".\r\n",
        "..\r\n",
        ".",
        "\r",
        "\n",
        "\n.\n",
        "\r\n.\n",
        "\r\n.\r",
        "\0",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    let text =
        prop::sample::select(vec!["", "Subject: hello\r\n\r\ntext\r\n", "..\r\n", "a\nb\r\n"]);
    let mail = (text, prop::sample::select(vec!["EHLO a\r\n", "LHLO a\r\n", ""])).prop_map(
        |(text, greeting)| {
            let group = "MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\n\
                         RCPT TO:<carol@example.com>\r\nDATA\r\n";
            [greeting, group, text, ".\r\n"].concat().into_bytes()
        },
    );
    let chunk = (message(), any::<bool>()).prop_map(|(octets, last)| bdat(&octets, last));
    let chunks = (prop::collection::vec(message(), 0..4), 0_usize..9).prop_map(|(parts, stray)| {
        let mut sent = b"EHLO a\r\nLHLO a\r\nMAIL FROM:<a@b.example>\r\n\
                         RCPT TO:<bob@example.com>\r\nRCPT TO:<carol@example.com>\r\n"
            .to_vec();
        for (number, part) in parts.iter().enumerate() {
            // Now and then the other way to send a message comes between.
            sent.extend_from_slice(if stray == number { b"DATA\r\n" } else { b"" });
            sent.extend(bdat(part, false));
        }
        sent.extend(bdat(b"", true));
        sent
    });
    let lengths = prop_oneof![4 => 1_usize..1_500, 1 => 12_200_usize..12_400];
    let filler = (lengths, prop::sample::select(vec![b'x', b' ', b'.', 0xff]))
        .prop_map(|(count, octet)| vec![octet; count]);
    let noise = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![10 => line, 4 => mail, 3 => chunk, 3 => chunks, 1 => filler, 1 => noise]
}

fn bdat(octets: &[u8], last: bool) -> Vec<u8> {
    let end = if last { " LAST" } else { "" };
    [format!("BDAT {}{end}\r\n", octets.len()).as_bytes(), octets].concat()
}

fn extensions() -> impl Strategy<Value = Extensions> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(chunking, binary_mime, size)| {
        Extensions { chunking, binary_mime, size, ..Extensions::default() }
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let newlines =
        prop::sample::select(vec![BareNewline::Fix, BareNewline::Keep, BareNewline::Reject]);
    let limits = (0_u64..200, 0_usize..4, 0_u32..8, 0_u32..12, 0_usize..64);
    let protocol = prop::sample::select(vec![Protocol::Smtp, Protocol::Lmtp]);
    let auth = any::<[bool; 4]>().prop_map(|[offered, required, relay, allow_plaintext]| Auth {
        offered,
        required,
        relay,
        allow_plaintext,
    });
    let flags = (any::<bool>(), any::<bool>());
    let extensions = prop_oneof![3 => Just(Extensions::default()), 1 => extensions()];
    (newlines, limits, flags, extensions, protocol, auth).prop_map(
        |(bare_newline, limits, (helo_required, check), extensions, protocol, auth)| {
            let (size, recipients, errors, idle, header) = limits;
            Settings {
                host_name: "mx.example.com".into(),
                max_size: size * 100,
                max_recipients: recipients,
                max_errors: errors,
                max_idle_commands: idle,
                max_messages: 3,
                start_tls: false,
                tls_required: false,
                xclient: true,
                max_header_size: header * 4,
                max_received_hops: 2,
                helo_required,
                bare_newline,
                protocol,
                extensions,
                auth,
                check_recipients: check,
                allowed_hosts: HostList::new(["example.com"]).expect("is a host name"),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_replies_questions_and_deliveries(
        settings in settings(),
        fragments in prop::collection::vec(fragment(), 0..40),
        sizes in prop::collection::vec(1_usize..60, 1..20),
        spill_size in 1_u64..100,
    ) {
        let input = fragments.concat();
        let whole = run(&settings, 0, [input.as_slice()]);
        prop_assert_eq!(&run(&settings, 0, input.chunks(1)), &whole, "octet by octet");
        prop_assert_eq!(&run(&settings, 0, cut(&input, &sizes)), &whole, "cut at {:?}", sizes);
        let by_fragment = run(&settings, 0, fragments.iter().map(Vec::as_slice));
        prop_assert_eq!(&by_fragment, &whole, "fragment by fragment");
        let in_files = run(&settings, spill_size, [input.as_slice()]);
        prop_assert_eq!(&in_files, &whole, "in files over {}", spill_size);
        let in_files = run(&settings, spill_size, cut(&input, &sizes));
        prop_assert_eq!(&in_files, &whole, "in files over {}, cut at {:?}", spill_size, sizes);
    }
}

// --- Messages ------------------------------------------------------------------------------------

/// Octets among which those that matter are frequent.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        3 => Just(b'\r'),
        3 => Just(b'\n'),
        3 => Just(b'.'),
        3 => Just(b'a'),
        1 => any::<u8>(),
    ];
    let piece = prop_oneof![
        6 => octet.prop_map(|octet| vec![octet]),
        2 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r\n.\r\n".to_vec()),
        // Longer than what is judged at once.
        1 => (1_usize..300).prop_map(|count| vec![b'x'; count]),
    ];
    prop::collection::vec(piece, 0..80).prop_map(|pieces| pieces.concat())
}

/// A message with a line end at its end, as SMTP carries it.
fn ended(mut message: Vec<u8>) -> Vec<u8> {
    if !message.is_empty() && !message.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    message
}

/// What is stored of the pieces, how many octets of them were not taken, and whether the end was seen.
fn read(policy: BareNewline, pieces: &[&[u8]]) -> (Vec<u8>, usize, Ending) {
    read_into(&budget(0), policy, pieces)
}

fn read_into(
    budget: &Arc<Budget>,
    policy: BareNewline,
    pieces: &[&[u8]],
) -> (Vec<u8>, usize, Ending) {
    let Received { stored, left, ending, .. } = receive(budget, policy, pieces);
    (stored, left, ending)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unstuffing_undoes_stuffing(
        message in message(),
        behind in message(),
        sizes in prop::collection::vec(1_usize..200, 1..10),
        spill_size in 1_u64..100,
    ) {
        let message = ended(message);
        let sent = [stuff(&message), behind.clone()].concat();
        for pieces in [vec![sent.as_slice()], sent.chunks(1).collect(), cut(&sent, &sizes)] {
            let kept = read(BareNewline::Keep, &pieces);
            prop_assert_eq!(kept, (message.clone(), behind.len(), Ending::Complete));
            let fixed = read(BareNewline::Fix, &pieces);
            prop_assert_eq!(fixed, (with_crlf(&message), behind.len(), Ending::Complete));
            let in_file = read_into(&budget(spill_size), BareNewline::Fix, &pieces);
            prop_assert_eq!(in_file, (with_crlf(&message), behind.len(), Ending::Complete));
        }
    }

    #[test]
    fn a_message_of_chunks_is_what_stands_in_them(
        parts in prop::collection::vec(message(), 1..8),
        sizes in prop::collection::vec(1_usize..200, 1..10),
        spill_size in 1_u64..100,
    ) {
        let settings = Settings { max_received_hops: 0, ..Settings::default() };
        let mut sent = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n".to_vec();
        for (number, part) in parts.iter().enumerate() {
            sent.extend(bdat(part, number + 1 == parts.len()));
        }
        let message = parts.concat();
        for spill_size in [0, spill_size] {
            for pieces in [vec![sent.as_slice()], sent.chunks(1).collect(), cut(&sent, &sizes)] {
                let delivered: Vec<_> = run(&settings, spill_size, pieces)
                    .into_iter()
                    .filter_map(|event| match event {
                        Event::Deliver { message, header_end, .. } => Some((message, header_end)),
                        _ => None,
                    })
                    .collect();
                let header_end = body_offset(&message);
                prop_assert_eq!(delivered, [(message.clone(), header_end)]);
            }
        }
    }

    #[test]
    fn only_crlf_dot_crlf_ends_a_message(octets in message()) {
        for policy in POLICIES {
            let (_, left, ending) = read(policy, &[&octets]);
            match cut_at_the_end(&octets) {
                None => prop_assert_eq!((left, ending), (0, Ending::Open)),
                Some((_, rest)) => prop_assert_eq!((left, ending), (rest.len(), Ending::Complete)),
            }
        }
    }
}

/// What has to be stored, counted as left and noted, by an oracle that looks at the whole message at once.
fn expected(policy: BareNewline, sent: &[u8]) -> Received {
    let (message, rest) = cut_at_the_end(sent).expect("an end is sent");
    let kept = unstuff(&message);
    let bare_newline = has_bare_newline(&kept);
    let stored = if policy == BareNewline::Fix { with_crlf(&kept) } else { kept };
    Received { stored, left: rest.len(), ending: Ending::Complete, bare_newline }
}

/// Octets are judged in blocks: what matters is seen wherever in one, and across the border of two, it stands.
#[test]
fn what_is_not_plain_is_seen_at_every_offset() {
    let not_plain = [
        "\n",
        "\r",
        "\r\r",
        "\n\n",
        "\n\r",
        "\n.",
        "\r.",
        "\r\n.",
        "\r\n..",
        "\r\n.\r",
        "\r\n.\n",
        "\n.\r\n",
        "\r\n\r.\r\n",
        "\r\n.\r\r\n",
        "\r\n.\r\n",
    ];
    for offset in 0..=300 {
        for octets in not_plain {
            let before = "x".repeat(offset);
            let sent = [before.as_bytes(), octets.as_bytes(), &[b'x'; 140], b"\r\n", EOM].concat();
            for policy in POLICIES {
                let expected = expected(policy, &sent);
                let shown = octets.escape_default();
                assert_eq!(receive(&budget(0), policy, &[&sent]), expected, "{shown} at {offset}");
                for at in offset..=offset + octets.len() {
                    let (head, tail) = sent.split_at(at);
                    let split = receive(&budget(0), policy, &[head, tail]);
                    assert_eq!(split, expected, "{shown} at {offset}, split at {at}");
                }
            }
        }
    }
}

// --- Addresses -----------------------------------------------------------------------------------

fn address() -> impl Strategy<Value = Address> {
    let user = prop_oneof!["[ -~]{0,60}", "[a-zA-Z0-9.+_-]{1,60}", Just("postmaster".to_owned())];
    let host = prop_oneof![
        "[a-zA-Z0-9]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?(\\.[a-z]{1,20}){0,4}",
        any::<std::net::Ipv4Addr>().prop_map(|ip| format!("[{ip}]")),
        any::<std::net::Ipv6Addr>().prop_map(|ip| format!("[IPv6:{ip}]")),
    ];
    (user, host).prop_map(|(user, host)| Address::new(user, host))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_address_survives_being_written_and_read(address in address()) {
        let text = address.to_string();
        prop_assert_eq!(Address::parse(&text), Ok(address.clone()), "{}", text);
        let path = format!("<{text}> SIZE=1");
        for kind in [PathKind::Reverse, PathKind::Forward] {
            let parsed = parse_path(path.as_bytes(), kind);
            prop_assert_eq!(parsed, Ok((address.clone(), b" SIZE=1".as_slice())), "{}", path);
        }
    }

    #[test]
    fn what_is_taken_is_written_as_what_is_taken_again(input in "<[ -~]{0,40}>") {
        if let Ok((address, rest)) = parse_path(input.as_bytes(), PathKind::Reverse) {
            prop_assume!(rest.is_empty());
            let plain = address.with_route(Vec::new());
            prop_assert_eq!(Address::parse(&plain.to_string()), Ok(plain), "{}", input);
        }
    }
}
