#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::backends::{Asking, DEFAULT, Limits};
use crate::buffer::ByHand;
use crate::config::{CoreConfig, ListenAddress, ServerConfig};
use crate::server::Server;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(2);

/// What only some connections need is boxed. With 280 octets a task of the runtime fits in 384, and one octet
/// more would make them 512. `make bench ARGS="--rows idle"` has what an idle connection takes in all.
#[test]
fn an_idle_connection_is_small() {
    let sizes = [
        size_of::<crate::smtp::Session>(),
        size_of::<Connection>(),
        size_of::<crate::delivery::Client>(),
        size_of_future(super::super::run),
    ];
    assert!(sizes[0] <= 176 && sizes[1] <= 368 && sizes[2] <= 152 && sizes[3] <= 280, "{sizes:?}");
}

/// What comes of a function, before it is awaited.
fn size_of_future<F: Future>(_: fn(Box<Connection>) -> F) -> usize {
    size_of::<F>()
}

/// A core whose disk works when the test says so.
struct Slow {
    server: Server,
    disk: ByHand,
    client: BufReader<TcpStream>,
}

fn slow(save_timeout: Duration) -> Slow {
    let limits = Limits { save_timeout, ..Limits::default() };
    let backend = Arc::new(Asking::new(DEFAULT, limits.clone()));
    let address = ListenAddress::parse("127.0.0.1:0").unwrap();
    let config = ServerConfig {
        timeout: TIMEOUT,
        data_timeout: TIMEOUT,
        ..ServerConfig::open("test", address, Arc::clone(&backend))
    };
    let server = Server::new(CoreConfig {
        servers: vec![config],
        max_memory: 1 << 20,
        spill_size: 1_000,
        backends: vec![(backend, limits)],
        log_level: 0,
    })
    .unwrap();
    let disk = server.shared().budget.by_hand().unwrap();
    let address = server.bind().unwrap().remove(0);
    server.start().unwrap();
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut slow = Slow { server, disk, client: BufReader::new(client) };
    assert!(slow.reply().starts_with("220 "));
    slow.send(b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n");
    for code in ["250 ", "250 ", "250 ", "354 "] {
        assert!(slow.reply().starts_with(code));
    }
    slow
}

impl Slow {
    fn send(&mut self, octets: &[u8]) {
        self.client.get_mut().write_all(octets).unwrap();
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.client.read_line(&mut line).unwrap();
        line
    }
}

#[test]
fn a_slow_disk_is_not_the_clients_fault() {
    let mut slow = slow(Duration::from_secs(20));
    slow.send(&[b'x'; 1_500]);
    slow.disk.wait();
    // Nothing is read now: its deadlines pass.
    std::thread::sleep(TIMEOUT + TIMEOUT / 5);
    slow.disk.work_held();
    slow.send(b"\r\n.\r\n");
    slow.disk.wait();
    std::thread::sleep(TIMEOUT + TIMEOUT / 5);
    slow.disk.work_held();
    let backend = slow.server.shared().backend(DEFAULT).unwrap();
    let asked = backend.saves.receive(1, Duration::from_secs(20)).unwrap().remove(0);
    assert_eq!(asked.0.body.as_slice().len(), 1_502);
    asked.0.answer(Verdict::All(asked.0.accepted()));
    assert!(slow.reply().starts_with("250 2.0.0 "));
    assert_eq!(slow.server.shared().stats.timeouts.get(), 0);
}

#[test]
fn a_disk_that_hangs_costs_the_message_and_the_session_goes_on() {
    let mut slow = slow(Duration::from_millis(20));
    slow.send(&vec![b'x'; 300_000]);
    slow.send(b"\r\n.\r\n");
    assert!(slow.reply().starts_with("452 4.3.1 Insufficient storage"));
    slow.send(b"NOOP\r\n");
    assert!(slow.reply().starts_with("250 "));
    slow.disk.wait();
    slow.disk.work_held();
    let shared = slow.server.shared();
    assert_eq!((shared.stats.spill_failures.get(), shared.budget.used()), (1, 0));
}

/// What became of a wait for a disk that is ready when `poll` says so.
fn wait(poll: impl FnMut(&mut Context<'_>) -> Poll<()>, closing: bool) -> Result<bool, End> {
    let server = Server::new(CoreConfig {
        servers: Vec::new(),
        max_memory: 0,
        spill_size: 0,
        backends: Vec::new(),
        log_level: 0,
    })
    .unwrap();
    let shared = server.shared();
    if closing {
        shared.shutdown.close();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(End::Lost)?.block_on(async {
        let timer = pin!(tokio::time::sleep_until(Instant::now()));
        let changed = pin!(shared.shutdown.changed());
        let mut signals = Signals { timer, changed, shutdown: &shared.shutdown };
        wait_for_disk(shared, Duration::from_millis(20), &mut signals, poll).await
    })
}

#[test]
fn a_disk_is_waited_for_until_it_is_ready_or_hangs_or_all_ends() {
    let mut asked = 0;
    let at_second = |context: &mut Context<'_>| {
        asked += 1;
        context.waker().wake_by_ref();
        if asked == 2 { Poll::Ready(()) } else { Poll::Pending }
    };
    assert!(matches!(wait(at_second, false), Ok(true)));
    assert!(matches!(wait(|_| Poll::Pending, false), Ok(false)));
    assert!(matches!(wait(|_| Poll::Pending, true), Err(End::Cut)));
}
