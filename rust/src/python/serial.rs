//! `Envelope.to_bytes` and `from_bytes`: a magic number with the version, the length of a JSON object
//! (32 bits, little-endian), the object, the message.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::address::{from_dict, to_dict};
use super::envelope::{PyEnvelope, concatenate};
use crate::delivery::{Client, TlsInfo};
use crate::smtp::{Address, Dialect, Transaction};

const MAGIC: &[u8] = b"GRL1";

/// Seconds since the epoch.
pub(super) fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The inverse of [`since_epoch`].
pub(super) fn time(seconds: f64) -> PyResult<SystemTime> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|since| UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| PyValueError::new_err(format!("not a time since the epoch: {seconds}")))
}

pub(super) fn to_bytes<'py>(envelope: &Bound<'py, PyEnvelope>) -> PyResult<Bound<'py, PyBytes>> {
    let py = envelope.py();
    let json = json_of(envelope)?;
    let json = json.to_cow()?;
    let length = u32::try_from(json.len())
        .map_err(|_| PyValueError::new_err("values: too large to be serialised"))?;
    let message = envelope.get().delivery().body.as_slice();
    concatenate(py, &[MAGIC, &length.to_le_bytes(), json.as_bytes(), message])
}

fn json_of<'py>(envelope: &Bound<'py, PyEnvelope>) -> PyResult<Bound<'py, PyString>> {
    let py = envelope.py();
    let json = py.import("json")?;
    let delivery = envelope.get().delivery();
    let fields = PyDict::new(py);
    let client = delivery.client.as_ref();
    fields.set_item("queued_id", &delivery.queued_id)?;
    fields.set_item("received_at", since_epoch(delivery.received_at))?;
    fields.set_item("size", delivery.body.as_slice().len())?;
    fields.set_item("max_header_size", delivery.max_header_size)?;
    fields.set_item("client_id", client.id)?;
    fields.set_item("server", client.server.as_ref())?;
    fields.set_item("host_name", client.host_name.as_ref())?;
    fields.set_item("remote_ip", &client.remote_ip)?;
    fields.set_item("remote_port", client.remote_port)?;
    fields.set_item("remote_name", client.remote_name.as_deref())?;
    fields.set_item("local", client.local.map(|local| local.to_string()))?;
    fields.set_item("auth", &client.auth)?;
    fields.set_item("tls", client.tls.as_ref().map(|tls| tls_to(py, tls)).transpose()?)?;
    fields.set_item("helo", &delivery.transaction.helo)?;
    fields.set_item("protocol", delivery.transaction.dialect.name())?;
    fields.set_item("mail_from", address_to(py, &delivery.transaction.mail_from)?)?;
    let recipients = delivery.transaction.rcpt_to.iter().map(|address| address_to(py, address));
    fields.set_item("rcpt_to", recipients.collect::<PyResult<Vec<_>>>()?)?;
    fields.set_item("hashes", envelope.getattr("hashes")?)?;
    {
        let added = envelope.get().added();
        fields.set_item("primary_mail_host", &added.primary_mail_host)?;
        fields.set_item("added_headers", String::from_utf8_lossy(&added.headers))?;
    }
    let values = envelope.getattr("values")?.cast_into::<PyDict>()?;
    check_values(&json, &values)?;
    fields.set_item("values", values)?;
    Ok(json.call_method1("dumps", (fields,))?.cast_into::<PyString>()?)
}

/// Names the key of a value that is not JSON.
fn check_values(json: &Bound<'_, PyModule>, values: &Bound<'_, PyDict>) -> PyResult<()> {
    for (key, value) in values {
        if !key.is_instance_of::<PyString>() {
            return Err(PyValueError::new_err(format!(
                "values: the key {} is not text",
                key.repr()?
            )));
        }
        if let Err(error) = json.call_method1("dumps", (value,)) {
            let reason = error.value(values.py()).to_string();
            return Err(PyValueError::new_err(format!(
                "values[{}] is not JSON: {reason}",
                key.repr()?
            )));
        }
    }
    Ok(())
}

fn address_to<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("user", address.user())?;
    fields.set_item("host", address.host())?;
    fields.set_item("route", address.route())?;
    fields.set_item("parameters", to_dict(py, address.parameters())?)?;
    Ok(fields)
}

fn tls_to<'py>(py: Python<'py>, tls: &TlsInfo) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("version", &tls.version)?;
    fields.set_item("cipher", &tls.cipher)?;
    fields.set_item("server_name", &tls.server_name)?;
    fields.set_item("client_subject", &tls.client_subject)?;
    fields.set_item("client_verified", tls.client_verified)?;
    Ok(fields)
}

/// The fields of a serialised `TLSInfo`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct TlsFields {
    version: String,
    cipher: String,
    server_name: Option<String>,
    client_subject: Option<String>,
    client_verified: bool,
}

impl TlsFields {
    fn into_info(self) -> TlsInfo {
        TlsInfo {
            version: self.version,
            cipher: self.cipher,
            server_name: self.server_name,
            client_subject: self.client_subject,
            client_verified: self.client_verified,
        }
    }
}

fn socket_address(text: &str) -> PyResult<SocketAddr> {
    text.parse().map_err(|_| PyTypeError::new_err(format!("local: no address with a port: {text}")))
}

pub(super) fn dialect(name: &str) -> PyResult<Dialect> {
    Dialect::parse(name)
        .ok_or_else(|| PyTypeError::new_err(format!("protocol: not SMTP, ESMTP or LMTP: {name}")))
}

/// The fields of a serialised address.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct AddressFields<'py> {
    user: String,
    host: String,
    route: Vec<String>,
    parameters: Bound<'py, PyDict>,
}

impl AddressFields<'_> {
    fn into_address(self) -> PyResult<Address> {
        let parameters = from_dict(&self.parameters)?;
        let address = Address::new(self.user, self.host).with_route(self.route);
        Ok(address.with_parameters(parameters))
    }
}

/// The fields of a serialised envelope.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Fields<'py> {
    queued_id: String,
    received_at: f64,
    size: usize,
    max_header_size: usize,
    client_id: u64,
    server: String,
    host_name: String,
    remote_ip: String,
    remote_port: u16,
    remote_name: Option<String>,
    local: Option<String>,
    auth: Option<String>,
    tls: Option<TlsFields>,
    helo: String,
    protocol: String,
    mail_from: AddressFields<'py>,
    rcpt_to: Vec<AddressFields<'py>>,
    hashes: Vec<String>,
    primary_mail_host: Option<String>,
    added_headers: String,
    values: Bound<'py, PyDict>,
}

pub(super) fn from_bytes(py: Python<'_>, octets: &[u8]) -> PyResult<Py<PyEnvelope>> {
    let bad = |what: &str| PyValueError::new_err(format!("not a serialised envelope: {what}"));
    let rest = octets.strip_prefix(MAGIC).ok_or_else(|| bad("of another kind or version"))?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| bad("cut off"))?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| bad("damaged"))?;
    let (json, message) = rest.split_at_checked(length).ok_or_else(|| bad("cut off"))?;
    let parsed = py.import("json")?.call_method1("loads", (PyBytes::new(py, json),));
    let parsed = parsed.map_err(|error| bad(&format!("damaged: {}", error.value(py))))?;
    let fields: Fields<'_> =
        parsed.extract().map_err(|error: PyErr| bad(&format!("damaged: {}", error.value(py))))?;
    if fields.size != message.len() {
        return Err(bad(&format!("{} octets of a message of {}", message.len(), fields.size)));
    }
    restore(py, fields, message.to_vec()).map_err(|error| {
        if error.is_instance_of::<PyTypeError>(py) {
            bad(&error.value(py).to_string())
        } else {
            error
        }
    })
}

fn restore(py: Python<'_>, fields: Fields<'_>, message: Vec<u8>) -> PyResult<Py<PyEnvelope>> {
    let client = Client {
        id: fields.client_id,
        server: fields.server.into(),
        host_name: fields.host_name.into(),
        remote_ip: fields.remote_ip,
        remote_port: fields.remote_port,
        remote_name: fields.remote_name.map(Into::into),
        local: fields.local.as_deref().map(socket_address).transpose()?,
        tls: fields.tls.map(|tls| Box::new(tls.into_info())),
        auth: fields.auth,
    };
    let recipients = fields.rcpt_to.into_iter().map(AddressFields::into_address);
    let transaction = Transaction {
        helo: fields.helo,
        dialect: dialect(&fields.protocol)?,
        mail_from: fields.mail_from.into_address()?,
        rcpt_to: recipients.collect::<PyResult<_>>()?,
    };
    let received_at = time(fields.received_at)?;
    let envelope = PyEnvelope::detached(
        py,
        client,
        transaction,
        message,
        fields.queued_id,
        received_at,
        fields.max_header_size,
    )?;
    let bound = envelope.bind(py);
    bound.getattr("hashes")?.call_method1("extend", (fields.hashes,))?;
    bound.getattr("values")?.call_method1("update", (fields.values,))?;
    {
        let mut added = envelope.get().added();
        added.primary_mail_host = fields.primary_mail_host;
        added.headers = fields.added_headers.into_bytes();
    }
    Ok(envelope)
}
