//! Settings as Python gives them: dicts that `_core.pyi` types.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::config::{CoreConfig, ListenAddress, ServerConfig};
use crate::smtp::{BareNewline, HostList, Settings};

/// `_core.ServerSettings`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct ServerSettings {
    name: String,
    address: String,
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
}

/// `_core.CoreSettings`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct CoreSettings {
    servers: Vec<ServerSettings>,
    allowed_hosts: Vec<String>,
    max_memory: u64,
    spill_size: u64,
    save_timeout: f64,
    check_timeout: f64,
    check_recipients: bool,
    log_level: u8,
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
    pub(super) fn into_config(self) -> PyResult<CoreConfig> {
        let hosts = HostList::new(&self.allowed_hosts)
            .map_err(|error| PyValueError::new_err(format!("allowed_hosts: {error}")))?;
        let check = self.check_recipients;
        let servers = self.servers.into_iter().map(|server| server.into_config(&hosts, check));
        Ok(CoreConfig {
            servers: servers.collect::<PyResult<_>>()?,
            max_memory: self.max_memory,
            spill_size: self.spill_size,
            save_timeout: seconds("save_timeout", self.save_timeout)?,
            check_timeout: seconds("check_timeout", self.check_timeout)?,
            log_level: self.log_level,
        })
    }
}

impl ServerSettings {
    fn into_config(self, hosts: &HostList, check_recipients: bool) -> PyResult<ServerConfig> {
        let name = self.name;
        let bad = |key: &str, value: &str| PyValueError::new_err(format!("{name}: {key}: {value}"));
        let host_is_plain = self.host_name.bytes().all(|b| b.is_ascii_graphic());
        if self.host_name.is_empty() || self.host_name.len() > 255 || !host_is_plain {
            return Err(bad(
                "host_name",
                "must be a host name of at most 255 printable ASCII characters",
            ));
        }
        let session = Settings {
            max_size: self.max_size,
            max_recipients: self.max_recipients,
            max_errors: self.max_errors,
            max_idle_commands: self.max_idle_commands,
            max_header_size: self.max_header_size,
            max_received_hops: self.max_received_hops,
            helo_required: self.helo_required,
            bare_newline: BareNewline::parse(&self.bare_newline)
                .ok_or_else(|| bad("bare_newline", "must be fix, keep or reject"))?,
            check_recipients,
            allowed_hosts: hosts.clone(),
            host_name: self.host_name,
        };
        Ok(ServerConfig {
            address: ListenAddress::parse(&self.address)
                .ok_or_else(|| bad("address", "must be ip:port, [v6]:port or unix:/path"))?,
            max_clients: self.max_clients,
            timeout: seconds("timeout", self.timeout)?,
            data_timeout: seconds("data_timeout", self.data_timeout)?,
            min_data_rate: self.min_data_rate,
            session: Arc::new(session),
            name,
        })
    }
}
