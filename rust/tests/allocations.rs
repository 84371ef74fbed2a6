//! How often memory is allocated for a message, once a connection has had some: over a socket, through the session,
//! the queue and back, with a thread that answers in place of the workers.
//!
//! All of the program is counted, so it is done in a process of its own, which this test starts.
//!
//! `unsafe` is needed here because an allocator is: it counts, and leaves the rest to the system's.

#![allow(unsafe_code)]
#![allow(clippy::expect_used, reason = "a test says what is wrong by panicking")]

#[path = "../../benches/core/alone.rs"]
mod alone;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A message may allocate so often, a worker's part in it.
const MOST: u64 = 6;
/// Set in the process that counts.
const COUNTS: &str = "GUERRILLA_COUNTS_ALLOCATIONS";
const PATIENCE: Duration = Duration::from_secs(30);
const MESSAGES: u32 = 500;

/// What a thread allocates is counted there.
#[derive(Clone, Copy)]
enum Role {
    Core,
    Worker,
    Client,
}

static COUNTED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Core) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // A thread that ends has none any more.
    let role = ROLE.try_with(Cell::get).unwrap_or(Role::Client);
    if let Some(counter) = COUNTED.get(role as usize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn counted(role: Role) -> u64 {
    COUNTED.get(role as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
}

// SAFETY: all memory is the system allocator's, which each call is handed to as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller has promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller has promised.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller has promised.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[test]
fn a_message_allocates_six_times_at_most() {
    if std::env::var_os(COUNTS).is_some() {
        return count_messages();
    }
    let program = std::env::current_exe().expect("is a program");
    let name = "allocations::a_message_allocates_six_times_at_most";
    let mut alone = Command::new(program);
    alone.args(["--exact", name, "--nocapture"]).env(COUNTS, "1");
    let ended = alone.output().expect("starts");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
}

fn count_messages() {
    ROLE.set(Role::Client);
    let (_server, address, backend) = alone::start();
    std::thread::spawn(move || {
        ROLE.set(Role::Worker);
        alone::answer(&backend);
    });
    let mut client = Client::connect(&address);
    // Until every buffer and queue is as large as it gets.
    (0..MESSAGES).for_each(|_| client.send());
    let before = [Role::Core, Role::Worker].map(counted);
    (0..MESSAGES).for_each(|_| client.send());
    let [core, worker] = [Role::Core, Role::Worker].map(counted);
    let (core, worker) = (core - before[0], worker - before[1]);
    let told = format!("{core} allocations in the core, {worker} in the worker");
    let messages = u64::from(MESSAGES);
    // A thread that has only now come to its first lock or timer has allocated for itself, too.
    assert!(core + worker <= MOST * messages + messages / 100, "{told} of {MESSAGES} messages");
    assert!(core >= messages, "something is counted: {told}");
}

/// One kept connection, which allocates nothing that would be counted.
struct Client(TcpStream, Vec<u8>);

impl Client {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("is a time");
        let body =
            format!("Subject: a\r\n\r\n{}.\r\n", format!("{}\r\n", "x".repeat(78)).repeat(50));
        let mut client = Self(stream, body.into_bytes());
        client.expect("220 ");
        client.say("HELO client.example.net\r\n", "250 ");
        client
    }

    fn send(&mut self) {
        self.say("MAIL FROM:<sender@example.net>\r\n", "250 ");
        self.say("RCPT TO:<recipient@example.com>\r\n", "250 ");
        self.say("DATA\r\n", "354 ");
        self.0.write_all(&self.1).expect("is sent");
        self.expect("250 2.0.0 OK: queued as ");
    }

    fn say(&mut self, command: &str, reply: &str) {
        self.0.write_all(command.as_bytes()).expect("is sent");
        self.expect(reply);
    }

    fn expect(&mut self, begin: &str) {
        let mut reply = [0; 512];
        let mut length = 0;
        while !reply.get(..length).expect("fits").ends_with(b"\r\n") {
            let read = self.0.read(reply.get_mut(length..).expect("fits")).expect("is answered");
            assert!(read > 0, "goes on");
            length += read;
        }
        let said = String::from_utf8_lossy(reply.get(..length).expect("fits"));
        assert!(said.starts_with(begin), "{said}");
    }
}
