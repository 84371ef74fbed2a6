//! A receiver without Python: a thread takes the mails as a worker does, and answers each of them at once.
//! What a daemon with a chain costs more is what Python costs, with all that leads there.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use guerrilla::backends::{Asking, DEFAULT, Limits};
use guerrilla::config::{CoreConfig, ListenAddress, ServerConfig};
use guerrilla::server::Server;
use guerrilla::smtp::Verdict;

/// As the daemon has them.
const PATIENCE: Duration = Duration::from_secs(30);
const BATCH: usize = 64;

/// A core that listens, where it does, and what is to be answered.
pub(super) fn start() -> (Server, String, Arc<Asking>) {
    let limits = Limits { save_timeout: PATIENCE, check_timeout: PATIENCE, ..Limits::default() };
    let backend = Arc::new(Asking::new(DEFAULT, limits.clone()));
    let address = ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let server = Server::new(CoreConfig {
        servers: vec![ServerConfig {
            data_timeout: 10 * PATIENCE,
            ..ServerConfig::open("alone", address, Arc::clone(&backend))
        }],
        max_memory: 256 << 20,
        spill_size: 1_280 << 10,
        backends: vec![(Arc::clone(&backend), limits)],
        log_level: 40,
    });
    let server = server.expect("has a core");
    let address = server.bind().expect("has a port").remove(0);
    server.start().expect("starts");
    (server, address, backend)
}

/// Answers each mail, for as long as there may be more.
pub(super) fn answer(backend: &Asking) {
    let backend = backend.answering();
    while let Some(mails) = backend.saves.receive(BATCH, PATIENCE) {
        for mail in mails.into_iter().filter(|mail| mail.0.fetch()) {
            mail.0.answer(Verdict::All(mail.0.accepted()));
        }
    }
}
