//! The parser and the session alone, to have their instructions counted: a message costs the same in every
//! run, which no clock on a shared machine can say. `scripts/instructions.py` runs it. What of that is a target in
//! nanoseconds: `cargo bench --bench core -- timed`, the fastest of many rounds, as JSON.
//!
//! And the spool, which a clock has to say: `cargo bench --bench core -- spool 100000 BACKLOG FOLDER`; what a
//! reader that does not end does to it: `cargo bench --bench core -- reader SECONDS FOLDER`; and the table of client
//! addresses: `cargo bench --bench core -- clients 1000000 PROCESSES`. `serve` is a receiver without Python,
//! `floor` one that understands nothing.

#![allow(clippy::expect_used, reason = "a benchmark says what is wrong by panicking")]
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "it says what it found")]

#[path = "core/alone.rs"]
mod alone;
#[path = "core/floor.rs"]
mod floor;

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use guerrilla::buffer::{Body, Budget, Spiller};
use guerrilla::log::Log;
use guerrilla::shared::{Kind, Memory, Part, now};
use guerrilla::smtp::{
    BareNewline, BodyAnswer, Command, DataReader, Ending, Reply, Session, Settings, Step, Verdict,
};
use guerrilla::spool::{Incoming, Refusal, Settings as SpoolSettings, Settled, Spool};

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
        "timed" => timed(),
        "spool" => {
            let backlog = arguments.next().map_or(1_000, |text| text.parse().expect("is a number"));
            spool(count, backlog, arguments.next().unwrap_or_else(|| "/var/tmp".to_owned()));
        }
        "clients" => {
            clients(count, arguments.next().map_or(1, |text| text.parse().expect("is a number")));
        }
        "reader" => reader(count, arguments.next().unwrap_or_else(|| "/var/tmp".to_owned())),
        "serve" => {
            let (_server, address, backend) = alone::start();
            println!("listening {address}");
            alone::answer(&backend);
        }
        "floor" => floor::serve(),
        other => {
            panic!(
                "no scenario {other}: parse, session, pipelined, timed, spool, reader, clients, serve or floor"
            )
        }
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

/// Octets of the message whose taking is timed: one read, into a buffer that was used before.
const DATA: usize = 60 << 10;

/// What a command takes to be parsed, and how quickly DATA without leading dots goes into its body.
fn timed() {
    let command = fastest(2_000, || parse(20)) / (20 * COMMANDS.len()) as f64;
    let each: Vec<String> = COMMANDS
        .iter()
        .map(|line| {
            let took = fastest(500, || {
                (0..100).for_each(|_| _ = black_box(Command::parse(black_box(line))));
            });
            format!("{:.0}", took / 100.0)
        })
        .collect();
    let budget = Budget::new(64 << 20);
    let message = format!("{}\r\n", "x".repeat(78)).repeat(DATA / 80);
    let octets = format!("Subject: a\r\n\r\n{message}.\r\n");
    let data = fastest(2_000, || {
        let mut body = Body::take(&budget, None, 0).expect("there is room");
        let mut reader = DataReader::new(BareNewline::Fix, 1 << 20);
        let ending = reader.read(&mut black_box(octets.as_bytes()), &mut body);
        assert_eq!(black_box(ending), Ending::Complete);
    });
    let rate = octets.len() as f64 / data / 1.073_741_824;
    println!(
        r#"{{"command_ns": {command:.1}, "data_gib_s": {rate:.2}, "commands_ns": [{}]}}"#,
        each.join(", ")
    );
}

/// Nanoseconds of the fastest round.
fn fastest(rounds: usize, mut round: impl FnMut()) -> f64 {
    let timed = (0..rounds).map(|_| {
        let began = Instant::now();
        round();
        began.elapsed()
    });
    timed.min().unwrap_or_default().as_nanos() as f64
}

/// Connections of a thousand addresses, counted and given back, where so many processes have others of them.
fn clients(count: usize, processes: usize) {
    let memory = Memory::create(processes).expect("there is memory");
    let tenants = (0..processes).map(|place| memory.claim(place).expect("it is free"));
    let tenants: Vec<_> = tenants.collect();
    let tenant = tenants.first().expect("there is one");
    let keys = tenant.keys(Kind::Address, "test");
    let addresses: Vec<IpAddr> = (0..1_000_u32).map(|number| IpAddr::V4(number.into())).collect();
    for (tenant, address) in
        tenants.iter().flat_map(|one| addresses.iter().map(move |ip| (one, ip)))
    {
        tenant.open(keys.address(*address), now()).expect("there is room");
    }
    let began = Instant::now();
    for address in addresses.iter().cycle().take(count) {
        let key = keys.address(black_box(*address));
        black_box(tenant.open(key, now()));
        tenant.close(key, true);
    }
    let each = began.elapsed().as_nanos() as f64 / count as f64;
    println!("{processes} processes: {each:.0} ns a connection");
}

/// Messages of 4 KiB on one connection.
fn session(count: usize, pipelined: bool) {
    let log = Arc::new(Log::new(0));
    let budget = Budget::spilling(64 << 20, Spiller::new(0, None, &Part::default(), &log));
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
                session.resume(Verdict::All(Reply::recipient_ok()));
            }
            Step::NeedInput => {}
            other => panic!("{other:?}"),
        }
    }
    let output = session.take_output();
    black_box(&output);
    session.lend(output);
}

/// Messages of one commit.
const BATCH: usize = 64;

struct Mail(Arc<[u8]>, Sender<Result<(), Refusal>>);

impl Incoming for Mail {
    fn backend(&self) -> &'static str {
        "default"
    }

    fn queued_id(&self) -> &'static str {
        "01k0000000000000000000000a"
    }

    fn received_at(&self) -> SystemTime {
        SystemTime::now()
    }

    fn record(&self) -> &[u8] {
        self.0.get(..300).unwrap_or_default()
    }

    fn octets(&self) -> &[u8] {
        &self.0
    }

    fn settle(self: Box<Self>, outcome: Result<(), Refusal>) {
        let _ = self.1.send(outcome);
    }
}

/// Has so many messages saved, and waits for that.
fn save(spool: &Spool, octets: &Arc<[u8]>, count: usize) {
    let (told, outcomes) = channel();
    (0..count).for_each(|_| spool.insert(Box::new(Mail(Arc::clone(octets), told.clone()))));
    drop(told);
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()), "saved");
}

/// Takes so many, and has them deleted.
fn work(spool: &Spool, count: usize) {
    let mut done = 0;
    while done < count {
        let found = spool.receive("default", BATCH, Duration::from_secs(9), &|| true);
        let found = found.expect("goes on");
        done += found.len();
        for leased in &found {
            leased.lease.settle(Settled::Done);
        }
    }
}

fn open(settings: &SpoolSettings) -> Arc<Spool> {
    Spool::open(settings.clone(), Arc::new(Log::new(0))).expect("opens")
}

/// MiB of the database and of its WAL.
fn files(spool: &Spool) -> [u64; 2] {
    let size = |name: &str| std::fs::metadata(spool.path().join(name)).map_or(0, |file| file.len());
    [size("spool.db") >> 20, size("spool.db-wal") >> 20]
}

/// The full cycle of messages of 4 KiB behind a backlog: saved, given out, deleted; and then the backlog.
fn spool(count: usize, backlog: usize, folder: String) {
    let folder = tempfile::tempdir_in(folder).expect("makes a folder");
    let settings =
        SpoolSettings { folder: folder.path().join("spool"), ..SpoolSettings::default() };
    let spool = open(&settings);
    let octets: Arc<[u8]> = Arc::from(vec![b'x'; 4 << 10]);
    let began = Instant::now();
    (0..backlog.div_ceil(BATCH)).for_each(|_| save(&spool, &octets, BATCH));
    println!("a backlog of {backlog} in {:.1?}", began.elapsed());
    let (began, before) = (Instant::now(), processor_ms());
    std::thread::scope(|scope| {
        scope.spawn(|| (0..count.div_ceil(BATCH)).for_each(|_| save(&spool, &octets, BATCH)));
        work(&spool, count);
    });
    let (took, used) = (began.elapsed().as_secs_f64(), processor_ms() - before);
    let [database, wal] = files(&spool);
    println!(
        "{:.0} messages/s, {:.1} us of processor each; {database} MiB, WAL {wal} MiB; {:?}",
        count as f64 / took,
        used * 1e3 / count as f64,
        spool.snapshot()
    );
    spool.close();
    let began = Instant::now();
    let again = open(&settings);
    println!("opened in {:?}, {:?}", began.elapsed(), again.waiting());
    let (began, left) = (Instant::now(), again.waiting().first().map_or(0, |one| one.1));
    work(&again, usize::try_from(left).expect("is a number"));
    while !again.waiting().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (took, [database, wal]) = (began.elapsed(), files(&again));
    println!(
        "{left} drained in {took:.1?}, {:.0} messages/s; {database} MiB, WAL {wal} MiB",
        left as f64 / took.as_secs_f64()
    );
    // The thread that writes looks once a second whether it is worth giving back.
    std::thread::sleep(Duration::from_secs(3));
    let [database, wal] = files(&again);
    println!("seconds later {database} MiB, WAL {wal} MiB");
}

/// Messages are saved and deleted while another connection reads on and on in one transaction.
fn reader(seconds: usize, folder: String) {
    let folder = tempfile::tempdir_in(folder).expect("makes a folder");
    let settings =
        SpoolSettings { folder: folder.path().join("spool"), ..SpoolSettings::default() };
    let spool = open(&settings);
    let octets: Arc<[u8]> = Arc::from(vec![b'x'; 4 << 10]);
    let cycle = |count: usize| {
        let mut longest = Duration::ZERO;
        for _ in 0..count {
            let began = Instant::now();
            save(&spool, &octets, BATCH);
            longest = longest.max(began.elapsed());
            work(&spool, BATCH);
        }
        longest
    };
    cycle(100);
    let other = rusqlite::Connection::open(spool.path().join("spool.db")).expect("opens");
    other.execute_batch("BEGIN; SELECT count(*) FROM meta;").expect("reads");
    let (began, mut rounds) = (Instant::now(), 0);
    let mut longest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(seconds as u64) {
        longest = longest.max(cycle(10));
        rounds += 10;
    }
    let [database, wal] = files(&spool);
    println!(
        "{} messages in {:.1?}, the longest commit {longest:.1?}; {database} MiB, WAL {wal} MiB",
        rounds * BATCH,
        began.elapsed()
    );
    other.execute_batch("COMMIT").expect("ends");
    for _ in 0..3 {
        let longest = cycle(10);
        let [database, wal] = files(&spool);
        println!(
            "then {} more, the longest {longest:.1?}; {database} MiB, WAL {wal} MiB",
            10 * BATCH
        );
    }
}

/// What this process has used of processors.
fn processor_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux says so");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    // Of user and system, in hundredths of a second.
    fields.iter().skip(12).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * 10.0
}
