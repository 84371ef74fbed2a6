//! Properties of the protocol for any input: how it is split changes nothing, unstuffing undoes stuffing,
//! and an address survives being written and read.

#![allow(clippy::expect_used, reason = "a test says what is wrong by panicking")]

use std::sync::Arc;

use guerrilla::buffer::{Body, Budget, Spiller};
use guerrilla::log::Log;
use guerrilla::smtp::{
    Address, BareNewline, BodyAnswer, DataReader, Ending, HostList, PathKind, Reply, Session,
    Settings, Step, Transaction, Verdict, parse_path,
};
use proptest::prelude::*;

// --- Any split of a session ----------------------------------------------------------------------

/// What a session did, in order. Adjacent replies are one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Replies(Vec<u8>),
    Check { recipient: String, so_far: usize },
    BeginBody(Option<u64>),
    XClient(String),
    Secured,
    Deliver { envelope: String, message: Vec<u8>, header_end: Option<usize> },
    Closed,
}

/// A session whose driver answers by rules of its own, the same for every run.
struct Driver {
    session: Session,
    budget: Arc<Budget>,
    max_size: u64,
    questions: usize,
    events: Vec<Event>,
}

impl Driver {
    fn new(settings: &Settings, spill_size: u64) -> Self {
        let mut session = Session::new(Arc::new(settings.clone()));
        session.trust();
        session.greet("SMTP");
        let (budget, max_size) = (budget(spill_size), settings.max_size);
        Self { session, budget, max_size, questions: 0, events: Vec::new() }
    }

    fn feed(&mut self, mut input: &[u8]) {
        loop {
            let step = self.session.step(&mut input);
            let output = self.session.take_output();
            match self.events.last_mut() {
                Some(Event::Replies(replies)) => replies.extend(output),
                _ if output.is_empty() => {}
                _ => self.events.push(Event::Replies(output)),
            }
            match step {
                Step::NeedInput => {
                    assert!(input.is_empty(), "wants more input than it was given");
                    return;
                }
                Step::Close => {
                    if self.events.last() != Some(&Event::Closed) {
                        self.events.push(Event::Closed);
                    }
                    return;
                }
                question => self.answer(question),
            }
        }
    }

    fn answer(&mut self, question: Step) {
        self.questions += 1;
        match question {
            Step::CheckRecipient(transaction, recipient) => {
                let so_far = transaction.rcpt_to.len();
                self.events.push(Event::Check { recipient: recipient.to_string(), so_far });
                self.session.resume(self.verdict());
            }
            Step::BeginBody { declared } => {
                self.events.push(Event::BeginBody(declared));
                let body = Body::take(&self.budget, declared, self.max_size);
                self.session.begin_body(match body {
                    Some(body) if !self.questions.is_multiple_of(7) => BodyAnswer::Begin(body),
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
            Step::StartTls => {
                self.events.push(Event::Secured);
                self.session.secured();
            }
            Step::XClient(said) => {
                self.events.push(Event::XClient(format!("{said:?}")));
                self.session.greet("SMTP");
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
            0 => Verdict::All(reply(550, "5.1.1")),
            1 => Verdict::Each(vec![reply(250, "2.0.0"), reply(451, "4.3.0")]),
            _ => Verdict::All(reply(250, "2.0.0")),
        }
    }
}

/// Room for bodies, those over `spill_size` in files (0: none).
fn budget(spill_size: u64) -> Arc<Budget> {
    let log = Arc::new(Log::new(0));
    Budget::spilling(1 << 20, Spiller::new(spill_size, None, &Arc::default(), &log))
}

fn run<'a>(
    settings: &Settings,
    spill_size: u64,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<Event> {
    let mut driver = Driver::new(settings, spill_size);
    // The greeting comes before any input.
    driver.feed(b"");
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
        "DATA\r\n",
        "RSET\r\n",
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
    let mail =
        prop::sample::select(vec!["", "Subject: hello\r\n\r\ntext\r\n", "..\r\n", "a\nb\r\n"])
            .prop_map(|text| {
                let group =
                    "EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n";
                [group, text, ".\r\n"].concat().into_bytes()
            });
    let filler = (1_usize..1_500, prop::sample::select(vec![b'x', b' ', b'.', 0xff]))
        .prop_map(|(count, octet)| vec![octet; count]);
    let noise = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![10 => line, 4 => mail, 1 => filler, 1 => noise]
}

fn settings() -> impl Strategy<Value = Settings> {
    let newlines =
        prop::sample::select(vec![BareNewline::Fix, BareNewline::Keep, BareNewline::Reject]);
    let limits = (0_u64..200, 0_usize..4, 0_u32..8, 0_u32..12, 0_usize..64);
    (newlines, limits, any::<bool>(), any::<bool>()).prop_map(
        |(bare_newline, (size, recipients, errors, idle, header), helo_required, check)| Settings {
            host_name: "mx.example.com".to_owned(),
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
            check_recipients: check,
            allowed_hosts: HostList::new(["example.com"]).expect("is a host name"),
        },
    )
}

/// The input, cut after each of the numbers of octets, taken around in a circle.
fn cut<'a>(input: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
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

/// Every line end made CRLF, written as simply as can be.
fn with_crlf(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = message;
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        match octet {
            b'\r' => {
                out.extend_from_slice(b"\r\n");
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            b'\n' => out.extend_from_slice(b"\r\n"),
            _ => out.push(octet),
        }
    }
    out
}

/// What a client sends for a message (RFC 5321 §4.5.2).
fn stuff(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for &octet in message {
        if octet == b'.' && (out.is_empty() || out.ends_with(b"\r\n")) {
            out.push(b'.');
        }
        out.push(octet);
    }
    out.extend_from_slice(b".\r\n");
    out
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
    (body.as_slice().to_vec(), left, ending)
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
    fn only_crlf_dot_crlf_ends_a_message(octets in message()) {
        // The CRLF of DATA itself stands before the first octet.
        let all = [b"\r\n".as_slice(), &octets].concat();
        let end = all.windows(5).position(|window| window == b"\r\n.\r\n");
        for policy in [BareNewline::Fix, BareNewline::Keep, BareNewline::Reject] {
            let (_, left, ending) = read(policy, &[&octets]);
            match end {
                None => prop_assert_eq!((left, ending), (0, Ending::Open)),
                Some(at) => {
                    let behind = all.len() - at - b"\r\n.\r\n".len();
                    prop_assert_eq!((left, ending), (behind, Ending::Complete));
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
