//! Settings as Python gives them: dicts that `_core.pyi` types.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::backends::breaker::Fuse;
use crate::backends::{Asking, Limits, Spools};
use crate::config::{AddressLimits, CoreConfig, ListenAddress, LoginLimits, ServerConfig, Tls};
use crate::shared::Memory;
use crate::smtp::{Auth, BareNewline, Extensions, HostList, Protocol, Settings};
use crate::tls::{ClientAuth, Context, Problem, Settings as TlsFiles};

/// `_core.TLSSettings`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[allow(clippy::struct_excessive_bools)] // As many yes-or-no keys as the section has.
struct TlsSettings {
    start_tls: bool,
    always_on: bool,
    required: bool,
    certificates: Vec<(PathBuf, PathBuf)>,
    root_cas_file: Option<PathBuf>,
    client_auth: String,
    protocols: Vec<String>,
    ciphers: Vec<String>,
    curves: Vec<String>,
    prefer_server_ciphers: bool,
}

/// `_core.ServerSettings`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct ServerSettings {
    name: String,
    address: String,
    unix_mode: Option<u32>,
    host_name: String,
    max_size: u64,
    timeout: f64,
    max_clients: usize,
    max_recipients: usize,
    max_errors: u32,
    max_idle_commands: u32,
    max_header_size: usize,
    max_received_hops: usize,
    helo_required: bool,
    bare_newline: String,
    data_timeout: f64,
    min_data_rate: u64,
    xclient: bool,
    proxy_protocol: bool,
    trusted_proxies: Vec<String>,
    max_messages: u32,
    max_connections_per_ip: u32,
    max_connection_rate_per_ip: u32,
    ipv6_prefix: u8,
    greet_delay: f64,
    backend: String,
    tls: Option<TlsSettings>,
    protocol: String,
    /// By their EHLO keywords in upper case; those that are not named are on.
    extensions: HashMap<String, bool>,
    auth: AuthSettings,
}

/// `_core.AuthSettings`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[allow(clippy::struct_excessive_bools)] // As many yes-or-no keys as the section has.
struct AuthSettings {
    offered: bool,
    required: bool,
    relay: bool,
    allow_plaintext: bool,
    failure_delay: f64,
    max_failures: u32,
}

/// `_core.CoreSettings`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct CoreSettings {
    servers: Vec<ServerSettings>,
    allowed_hosts: Vec<String>,
    max_memory: u64,
    spill_size: u64,
    backends: Vec<BackendSettings>,
    log_level: u8,
}

/// `_core.BackendSettings`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct BackendSettings {
    name: String,
    save_timeout: f64,
    check_timeout: f64,
    check_recipients: bool,
    auth_timeout: f64,
    authenticate: bool,
    cache_ttl: f64,
    breaker_failures: u32,
    breaker_reset: f64,
    spools: String,
}

impl BackendSettings {
    /// The backend that runs under that name, or a new one.
    fn into_backend(self, now: Option<&CoreConfig>) -> PyResult<(Arc<Asking>, Limits)> {
        let limits = Limits {
            save_timeout: seconds("save_timeout", self.save_timeout)?,
            check_timeout: seconds("check_timeout", self.check_timeout)?,
            check_recipients: self.check_recipients,
            auth_timeout: seconds("auth_timeout", self.auth_timeout)?,
            authenticate: self.authenticate,
            cache_ttl: seconds("cache_ttl", self.cache_ttl)?,
            fuse: Fuse {
                failures: self.breaker_failures,
                reset: seconds("breaker_reset", self.breaker_reset)?,
            },
            spools: Spools::parse(&self.spools)
                .ok_or_else(|| PyValueError::new_err(format!("spools: {}", self.spools)))?,
        };
        let running = now.and_then(|now| now.backend(&self.name)).map(Arc::clone);
        let new = || Arc::new(Asking::new(&self.name, limits.clone()));
        Ok((running.unwrap_or_else(new), limits))
    }
}

/// A `Duration` of seconds that Python gave.
pub(super) fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .ok()
        // What is longer than a century cannot be added to a clock.
        .filter(|duration| *duration < Duration::from_hours(24 * 365 * 100))
        .ok_or_else(|| PyValueError::new_err(format!("{name}: not a time in seconds: {value}")))
}

impl CoreSettings {
    /// Says everything that is wrong with the servers, a line each.
    pub(super) fn into_config(self, memory: Option<&Arc<Memory>>) -> PyResult<CoreConfig> {
        let (config, problems) = self.build(Contexts { memory, ..Contexts::default() })?;
        if problems.is_empty() { Ok(config) } else { Err(error(&problems)) }
    }

    /// The same for a core that runs. Where the TLS of a server cannot be loaded, it stays with what it
    /// has, or is left out where it has none; that is told, and is no error.
    pub(super) fn into_next(
        self,
        now: &CoreConfig,
        memory: Option<&Arc<Memory>>,
    ) -> PyResult<(CoreConfig, Vec<String>)> {
        self.build(Contexts { now: Some(now), memory, ..Contexts::default() })
    }

    fn build(self, mut contexts: Contexts<'_>) -> PyResult<(CoreConfig, Lines)> {
        let hosts = HostList::new(&self.allowed_hosts)
            .map_err(|error| PyValueError::new_err(format!("allowed_hosts: {error}")))?;
        let backends = self.backends.into_iter();
        let backends = backends.map(|backend| backend.into_backend(contexts.now));
        let backends: Vec<_> = backends.collect::<PyResult<_>>()?;
        let mut servers = Vec::new();
        let mut problems = Vec::new();
        for server in self.servers {
            match server.into_config(&hosts, &backends, &mut contexts) {
                Ok(server) => servers.extend(server),
                Err(lines) => problems.extend(lines),
            }
        }
        if !problems.is_empty() {
            return Err(error(&problems));
        }
        let config = CoreConfig {
            servers,
            max_memory: self.max_memory,
            spill_size: self.spill_size,
            backends,
            log_level: self.log_level,
        };
        Ok((config, contexts.problems))
    }
}

/// What is wrong with one server, a line each.
type Lines = Vec<String>;

fn error(lines: &[String]) -> PyErr {
    PyValueError::new_err(lines.join("\n"))
}

/// By the server's name: its addresses share one, so that a session begun at one resumes at another.
#[derive(Default)]
struct Contexts<'a> {
    made: HashMap<String, Option<Arc<Context>>>,
    /// What runs: contexts whose settings are the same go on, with their tickets.
    now: Option<&'a CoreConfig>,
    /// What has the keys of tickets for all processes, where there are several.
    memory: Option<&'a Arc<Memory>>,
    problems: Lines,
}

impl Contexts<'_> {
    /// None where it cannot be made, which is a problem then.
    fn of(&mut self, name: &str, settings: &TlsSettings) -> Option<Arc<Context>> {
        if let Some(made) = self.made.get(name) {
            return made.clone();
        }
        let made = self.make(name, settings).map_err(|problems| self.problems.extend(problems));
        self.made.insert(name.to_owned(), made.clone().ok());
        made.ok()
    }

    fn make(&self, name: &str, settings: &TlsSettings) -> Result<Arc<Context>, Lines> {
        let lines = |problems: Vec<Problem>| -> Lines {
            problems.iter().map(|problem| format!("{name}: {problem}")).collect()
        };
        let client_auth = ClientAuth::parse(&settings.client_auth).ok_or_else(|| {
            vec![format!("{name}: tls.client_auth_type: unknown: {}", settings.client_auth)]
        })?;
        let files = TlsFiles {
            certificates: settings.certificates.clone(),
            root_cas_file: settings.root_cas_file.clone(),
            client_auth,
            protocols: settings.protocols.clone(),
            ciphers: settings.ciphers.clone(),
            curves: settings.curves.clone(),
            prefer_server_ciphers: settings.prefer_server_ciphers,
        };
        let now = self.running(name).and_then(|server| server.tls.as_ref());
        if let Some(tls) = now.filter(|tls| *tls.context.settings() == files) {
            tls.context.reload().map_err(lines)?;
            return Ok(Arc::clone(&tls.context));
        }
        let made = match self.memory {
            Some(memory) => Context::sharing(files, memory, name),
            None => Context::new(files),
        };
        made.map(Arc::new).map_err(lines)
    }

    fn running(&self, name: &str) -> Option<&ServerConfig> {
        self.now?.servers.iter().find(|server| server.name == name)
    }
}

impl ServerSettings {
    fn into_config(
        self,
        hosts: &HostList,
        backends: &[(Arc<Asking>, Limits)],
        contexts: &mut Contexts<'_>,
    ) -> Result<Option<ServerConfig>, Lines> {
        let name = self.name.clone();
        let bad = |key: &str, value: &str| vec![format!("{name}: {key}: {value}")];
        let time = |key: &str, value: f64| {
            seconds(key, value).map_err(|_| bad(key, &format!("not a time in seconds: {value}")))
        };
        let (backend, limits) =
            backends
                .iter()
                .find(|(backend, _)| backend.name == self.backend)
                .ok_or_else(|| bad("backend", &format!("unknown: {}", self.backend)))?;
        let address = ListenAddress::parse(&self.address).ok_or_else(|| {
            bad("address", "must be ip:port, [v6]:port, unix:/path or systemd:NAME")
        })?;
        let networks = self.trusted_proxies.iter().map(|network| {
            network.parse().map_err(|_| bad("trusted_proxies", &format!("no network: {network}")))
        });
        let tls = self.tls.as_ref().map(|settings| {
            let context = contexts.of(&name, settings)?;
            Some(Tls { always_on: settings.always_on, context })
        });
        // Wanted, and not to be had.
        let stays = matches!(tls, Some(None));
        let running = contexts.running(&name).filter(|_| stays);
        if stays && contexts.now.is_some() && running.is_none() {
            return Ok(None);
        }
        let tls = tls.flatten().or_else(|| running.and_then(|server| server.tls.clone()));
        let mut session = self.session(hosts, limits.check_recipients)?;
        if let Some(running) = running {
            session.start_tls = running.session.start_tls;
            session.tls_required = running.session.tls_required;
        }
        Ok(Some(ServerConfig {
            address,
            unix_mode: self.unix_mode,
            max_clients: self.max_clients,
            timeout: time("timeout", self.timeout)?,
            data_timeout: time("data_timeout", self.data_timeout)?,
            min_data_rate: self.min_data_rate,
            per_address: AddressLimits {
                connections: self.max_connections_per_ip,
                rate: self.max_connection_rate_per_ip,
                ipv6_prefix: self.ipv6_prefix,
            },
            logins: LoginLimits {
                failure_delay: time("auth.failure_delay", self.auth.failure_delay)?,
                max_failures: self.auth.max_failures,
            },
            greet_delay: time("greet_delay", self.greet_delay)?,
            proxy_protocol: self.proxy_protocol,
            trusted_proxies: networks.collect::<Result<_, _>>()?,
            tls,
            session: Arc::new(session),
            backend: Arc::clone(backend),
            name,
        }))
    }

    fn session(&self, hosts: &HostList, check_recipients: bool) -> Result<Settings, Lines> {
        let name = &self.name;
        let bad = |key: &str, value: &str| vec![format!("{name}: {key}: {value}")];
        let host_is_plain = self.host_name.bytes().all(|b| b.is_ascii_graphic());
        if self.host_name.is_empty() || self.host_name.len() > 255 || !host_is_plain {
            return Err(bad(
                "host_name",
                "must be a host name of at most 255 printable ASCII characters",
            ));
        }
        Ok(Settings {
            max_size: self.max_size,
            max_recipients: self.max_recipients,
            max_errors: self.max_errors,
            max_idle_commands: self.max_idle_commands,
            max_messages: self.max_messages,
            max_header_size: self.max_header_size,
            max_received_hops: self.max_received_hops,
            helo_required: self.helo_required,
            bare_newline: BareNewline::parse(&self.bare_newline)
                .ok_or_else(|| bad("bare_newline", "must be fix, keep or reject"))?,
            protocol: Protocol::parse(&self.protocol)
                .ok_or_else(|| bad("protocol", "must be smtp or lmtp"))?,
            extensions: self.extensions()?,
            auth: Auth {
                offered: self.auth.offered,
                required: self.auth.required,
                relay: self.auth.relay,
                allow_plaintext: self.auth.allow_plaintext,
            },
            check_recipients,
            // Where every connection has TLS the verb is known too: a second TLS is 503, not 500.
            start_tls: self.tls.as_ref().is_some_and(|tls| tls.start_tls || tls.always_on),
            tls_required: self.tls.as_ref().is_some_and(|tls| tls.required),
            xclient: self.xclient,
            allowed_hosts: hosts.clone(),
            host_name: self.host_name.as_str().into(),
        })
    }

    fn extensions(&self) -> Result<Extensions, Lines> {
        let mut extensions = Extensions::default();
        for (keyword, on) in &self.extensions {
            if !extensions.set(keyword, *on) {
                return Err(vec![format!("{}: extensions: unknown: {keyword}", self.name)]);
            }
        }
        Ok(extensions)
    }
}
