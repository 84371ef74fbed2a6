//! A receiver without Python: a thread takes the mails as a worker does, and answers each of them at once.
//! What a daemon with a chain costs more is what Python costs, with all that leads there.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use guerrilla::backends::{Asking, DEFAULT, Limits};
use guerrilla::config::{AddressLimits, CoreConfig, ListenAddress, LoginLimits, ServerConfig};
use guerrilla::server::Server;
use guerrilla::smtp::{Settings, Verdict};

/// As the daemon has them.
const PATIENCE: Duration = Duration::from_secs(30);
const BATCH: usize = 64;

/// Prints where it listens, and goes on until it is ended.
pub(super) fn serve() {
    let limits = Limits { save_timeout: PATIENCE, check_timeout: PATIENCE, ..Limits::default() };
    let backend = Arc::new(Asking::new(DEFAULT, limits.clone()));
    let config = CoreConfig {
        servers: vec![server(&backend)],
        max_memory: 256 << 20,
        spill_size: 1 << 20,
        backends: vec![(Arc::clone(&backend), limits)],
        log_level: 40,
    };
    let server = Server::new(config).expect("has a core");
    let address = server.bind().expect("has a port").remove(0);
    server.start().expect("starts");
    println!("listening {address}");
    answer(&backend);
}

fn server(backend: &Arc<Asking>) -> ServerConfig {
    ServerConfig {
        name: "alone".to_owned(),
        address: ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        unix_mode: None,
        max_clients: 1_500,
        timeout: PATIENCE,
        data_timeout: 10 * PATIENCE,
        min_data_rate: 0,
        per_address: AddressLimits::default(),
        logins: LoginLimits::default(),
        greet_delay: Duration::ZERO,
        proxy_protocol: false,
        trusted_proxies: Vec::new(),
        tls: None,
        session: Arc::new(Settings::default()),
        backend: Arc::clone(backend),
    }
}

fn answer(backend: &Asking) {
    let backend = backend.answering();
    while let Some(mails) = backend.saves.receive(BATCH, PATIENCE) {
        for mail in mails.into_iter().filter(|mail| mail.0.fetch()) {
            mail.0.answer(Verdict::All(mail.0.accepted()));
        }
    }
}
