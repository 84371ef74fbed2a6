//! What all handshakes of a server share; replaced whole when its files change.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ProducesTickets, UnbufferedServerConnection};

use super::files::{self, Files};
use super::names::{self, suite_name};
use super::resolver::Resolver;
use super::{ClientAuth, Problem, subject};
use crate::config::Swap;
use crate::delivery::TlsInfo;
use crate::shared::{Memory, Tickets};

/// The `tls` section of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Private key and certificate chain each; the first pair is the default.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// The authorities of client certificates.
    pub root_cas_file: Option<PathBuf>,
    /// Which client certificate is asked for.
    pub client_auth: ClientAuth,
    /// Of `tls1.2` and `tls1.3`.
    pub protocols: Vec<String>,
    /// By Go's names; none: all.
    pub ciphers: Vec<String>,
    /// By Go's names; none: all.
    pub curves: Vec<String>,
    /// Whether our order of ciphers goes before the client's.
    pub prefer_server_ciphers: bool,
}

/// TLS of one server.
pub struct Context {
    settings: Settings,
    keeper: Keeper,
    current: Swap<Arc<ServerConfig>>,
    loaded: Mutex<Loaded>,
}

/// Who has the keys of tickets.
enum Keeper {
    /// This context alone, with keys of its own.
    Own,
    /// All processes, each server of this name.
    All(Arc<Memory>, String),
}

/// What the current settings were made of.
struct Loaded {
    files: Files,
    tickets: Arc<dyn ProducesTickets>,
}

impl Context {
    /// Reads the files; says everything that is wrong with them.
    pub fn new(settings: Settings) -> Result<Self, Vec<Problem>> {
        Self::keeping(settings, Keeper::Own)
    }

    /// The same, with the tickets of the servers of this name in all processes.
    pub fn sharing(
        settings: Settings,
        memory: &Arc<Memory>,
        server: &str,
    ) -> Result<Self, Vec<Problem>> {
        Self::keeping(settings, Keeper::All(Arc::clone(memory), server.to_owned()))
    }

    fn keeping(settings: Settings, keeper: Keeper) -> Result<Self, Vec<Problem>> {
        let files = read(&settings)?;
        let tickets = keeper.tickets(&settings, &files)?;
        let config = build(&settings, &files, &tickets)?;
        let loaded = Mutex::new(Loaded { files, tickets });
        Ok(Self { settings, keeper, current: Swap::new(Arc::new(config)), loaded })
    }

    /// What it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Reads the files again. What is open goes on as it is; new connections have the new certificates.
    /// Whether anything had changed; with an error the old ones stay.
    pub fn reload(&self) -> Result<bool, Vec<Problem>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let files = read(&self.settings)?;
        if files == loaded.files {
            return Ok(false);
        }
        // A ticket holds the client's certificate: other authorities must look at it again.
        let tickets = if files.roots == loaded.files.roots {
            Arc::clone(&loaded.tickets)
        } else {
            self.keeper.tickets(&self.settings, &files)?
        };
        self.current.store(Arc::new(build(&self.settings, &files, &tickets)?));
        *loaded = Loaded { files, tickets };
        Ok(true)
    }

    /// One connection's side of a handshake.
    pub(crate) fn accept(&self) -> Result<UnbufferedServerConnection, rustls::Error> {
        UnbufferedServerConnection::new(Arc::clone(&self.current.load()))
    }

    /// What a handshake that has ended has come to.
    pub(crate) fn describe(
        &self,
        connection: &UnbufferedServerConnection,
        server_name: Option<&str>,
    ) -> TlsInfo {
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        };
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        let client_subject = certificate.and_then(subject);
        TlsInfo {
            version: version.to_owned(),
            cipher: connection.negotiated_cipher_suite().map(suite_name).unwrap_or_default(),
            server_name: server_name.map(str::to_owned),
            client_verified: client_subject.is_some() && self.settings.client_auth.verifies(),
            client_subject,
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn read(settings: &Settings) -> Result<Files, Vec<Problem>> {
    Files::read(&settings.certificates, settings.root_cas_file.as_deref())
}

impl Keeper {
    /// None are good for two sets of authorities, or for two ways to ask for certificates.
    fn tickets(
        &self,
        settings: &Settings,
        files: &Files,
    ) -> Result<Arc<dyn ProducesTickets>, Vec<Problem>> {
        let problem = |error: &dyn std::fmt::Display| {
            vec![Problem { key: "private_key_file", text: format!("no session tickets: {error}") }]
        };
        match self {
            Self::Own => aws_lc_rs::Ticketer::new().map_err(|error| problem(&error)),
            Self::All(memory, server) => {
                let asked = format!("{:?}", settings.client_auth);
                let roots = files.roots.as_deref().unwrap_or_default();
                let tickets = Tickets::new(memory, &[server.as_bytes(), asked.as_bytes(), roots]);
                tickets.map(|tickets| tickets as _).map_err(|error| problem(&error))
            }
        }
    }
}

fn build(
    settings: &Settings,
    files: &Files,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, Vec<Problem>> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: names::suites(&settings.ciphers),
        kx_groups: names::groups(&settings.curves),
        ..aws_lc_rs::default_provider()
    });
    let mut problems = Vec::new();
    let mut keys = Vec::new();
    for (paths, contents) in settings.certificates.iter().zip(&files.pairs) {
        match files::certified_key(paths, contents, &provider) {
            Ok(key) => keys.push(key),
            Err(problem) => problems.push(problem),
        }
    }
    let mut roots = None;
    if let (Some(path), Some(octets)) = (&settings.root_cas_file, &files.roots) {
        match files::roots(path, octets) {
            Ok(store) => roots = Some(store),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let one = |key, text: String| vec![Problem { key, text }];
    let verifier = settings
        .client_auth
        .verifier(roots, &provider)
        .map_err(|error| one("root_cas_file", error))?;
    let versions = names::protocols(&settings.protocols);
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| one("protocols", format!("nothing usable is left: {error}")))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver::new(keys)));
    config.ignore_client_order = settings.prefer_server_ciphers;
    // Tickets keep the state of a session with the client, so that nothing grows here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::clone(tickets);
    // One is enough for a sender that comes back, and costs less than two.
    config.send_tls13_tickets = 1;
    Ok(config)
}
