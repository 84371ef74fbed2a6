//! `Envelope`, and the claims on it.

use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyIndexError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::address::{AddressLike, from_dict};
use super::charset;
use super::header::PyHeader;
use super::octets::Octets;
use super::parts::PyParts;
use super::reply::{to_python, verdict};
use super::serial;
use super::transaction::{PyTlsInfo, PyTransaction};
use crate::buffer::Body;
use crate::course::Course;
use crate::delivery::{Asked, Client, Delivery, Spooling};
use crate::mail::delivery_header::{Trace, delivery_header};
use crate::mail::header::{HeaderEnd, field, unfold};
use crate::mail::{rfc2047, zlib};
use crate::pending::Pending;
use crate::queued_id::Generator;
use crate::record;
use crate::smtp::{Address, Transaction, Verdict};

/// From this size on a message is compressed without the GIL: below, that costs more than it gives.
const LARGE: usize = 16 << 10;
/// The deadline of an envelope that nobody waits for.
pub(super) const FOREVER: Duration = Duration::from_hours(24 * 365 * 10);

/// What stages add to an envelope.
#[derive(Debug, Default)]
struct Added {
    /// Set by `make_delivery_header`.
    primary_mail_host: Option<String>,
    /// Whole fields with their CRLF, newest first.
    headers: String,
    answered: Option<Verdict>,
}

/// `_core.Envelope`.
#[pyclass(frozen, extends = PyTransaction, name = "Envelope", module = "guerrilla._core")]
pub(super) struct PyEnvelope {
    asked: Asked<Delivery>,
    header: PyOnceLock<Py<PyHeader>>,
    subject: PyOnceLock<Py<PyString>>,
    hashes: PyOnceLock<Py<PyList>>,
    values: PyOnceLock<Py<PyDict>>,
    added: Mutex<Added>,
}

impl PyEnvelope {
    /// An envelope that came over the queue.
    pub(super) fn received(py: Python<'_>, asked: Asked<Delivery>) -> PyResult<Py<Self>> {
        let base = PyTransaction {
            client: Arc::clone(&asked.0.client),
            transaction: Arc::clone(&asked.0.transaction),
        };
        let envelope = Self {
            asked,
            header: PyOnceLock::new(),
            subject: PyOnceLock::new(),
            hashes: PyOnceLock::new(),
            values: PyOnceLock::new(),
            added: Mutex::default(),
        };
        Py::new(py, PyClassInitializer::from(base).add_subclass(envelope))
    }

    /// An envelope that came from no socket.
    pub(super) fn detached(
        py: Python<'_>,
        client: Client,
        transaction: Transaction,
        octets: Vec<u8>,
        queued_id: String,
        received_at: SystemTime,
        max_header_size: usize,
    ) -> PyResult<Py<Self>> {
        let delivery = Delivery {
            client: Arc::new(client),
            transaction: Arc::new(transaction),
            body: Body::detached(octets),
            queued_id,
            received_at,
            max_header_size,
            pending: Pending::new(FOREVER, None, None),
            course: Course::new(false),
            fetched: AtomicBool::new(true),
            spooling: Spooling::None,
        };
        Self::received(py, Asked(Arc::new(delivery)))
    }

    pub(super) fn delivery(&self) -> &Arc<Delivery> {
        &self.asked.0
    }

    /// An envelope that was written before, with all that stages had added to it.
    pub(super) fn restored(
        py: Python<'_>,
        found: record::Envelope,
        octets: Vec<u8>,
    ) -> PyResult<Py<Self>> {
        let record::Envelope { client, transaction, queued_id, received_at, added, .. } = found;
        let max_header_size = found.max_header_size;
        let envelope = Self::detached(
            py,
            client,
            transaction,
            octets,
            queued_id,
            received_at,
            max_header_size,
        )?;
        envelope.get().add(py, added)?;
        Ok(envelope)
    }

    pub(super) fn add(&self, py: Python<'_>, added: record::Added) -> PyResult<()> {
        let values = serial::values_of(py, &added)?;
        let hashes = PyList::new(py, added.hashes)?;
        // Nobody has asked for them yet.
        let _ = self.values.set(py, values.unbind());
        let _ = self.hashes.set(py, hashes.unbind());
        let mut mine = self.added();
        mine.primary_mail_host = added.primary_mail_host;
        mine.headers = added.headers;
        Ok(())
    }

    /// The host of the delivery header, and the fields that were added.
    pub(super) fn added_fields(&self) -> (Option<String>, String) {
        let added = self.added();
        (added.primary_mail_host.clone(), added.headers.clone())
    }

    pub(super) fn hashes_if_any(&self, py: Python<'_>) -> Option<&Py<PyList>> {
        self.hashes.get(py)
    }

    pub(super) fn values_if_any(&self, py: Python<'_>) -> Option<&Py<PyDict>> {
        self.values.get(py)
    }

    fn added(&self) -> MutexGuard<'_, Added> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recipient(&self, index: usize) -> PyResult<&Address> {
        let recipients = &self.delivery().transaction.rcpt_to;
        recipients.get(index).ok_or_else(|| {
            PyIndexError::new_err(format!("recipient {index} of {}", recipients.len()))
        })
    }

    fn delivery_header_of(&self, recipient: Option<&Address>) -> Vec<u8> {
        let Some(host) = self.added().primary_mail_host.clone() else { return Vec::new() };
        let Delivery { client, transaction, queued_id, received_at, .. } = self.delivery().as_ref();
        let protocol = transaction.with_protocol(client.tls.is_some(), client.auth.is_some());
        let trace = Trace {
            helo: &transaction.helo,
            remote: &client.remote_ip,
            remote_name: client.remote_name.as_deref(),
            by: &client.host_name,
            protocol: &protocol,
            id: queued_id,
            received_at: received_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            cipher: client.tls.as_ref().map(|tls| tls.cipher.as_str()),
            tls_version: client.tls.as_ref().map(|tls| tls.version.as_str()),
        };
        let delivered_to = recipient.map(|address| Address::new(address.user(), host).to_string());
        delivery_header(&trace, delivered_to.as_deref())
    }

    /// Added header fields, delivery header, message; the message is copied once.
    fn whole<'py>(
        &self,
        py: Python<'py>,
        recipient: Option<&Address>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let added = self.added().headers.clone();
        let delivery_header = self.delivery_header_of(recipient);
        let message = self.delivery().body.as_slice();
        concatenate(py, &[added.as_bytes(), &delivery_header, message])
    }

    /// The octets of [`Self::whole`] as a zlib stream; nothing is copied before.
    fn compressed<'py>(
        &self,
        py: Python<'py>,
        recipient: &Address,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let added = self.added().headers.clone();
        let delivery_header = self.delivery_header_of(Some(recipient));
        let parts = [added.as_bytes(), &delivery_header, self.delivery().body.as_slice()];
        let octets = if self.size() < LARGE {
            zlib::compress(&parts)
        } else {
            py.detach(|| zlib::compress(&parts))
        };
        let octets = octets.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &octets))
    }

    fn parsed<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyHeader>> {
        let header = self
            .header
            .get_or_try_init(py, || Py::new(py, PyHeader::parse(py, self.delivery())))?;
        Ok(header.bind(py))
    }
}

#[pymethods]
impl PyEnvelope {
    #[staticmethod]
    #[pyo3(signature = (
        data, *, mail_from = None, rcpt_to = Vec::new(), helo = "localhost", protocol = "ESMTP",
        remote_ip = "127.0.0.1", remote_port = 0, server = "", host_name = "localhost", tls = None,
        auth = None, parameters = None, queued_id = None, received_at = None,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn create(
        py: Python<'_>,
        data: PyBuffer<u8>,
        mail_from: Option<AddressLike<'_>>,
        rcpt_to: Vec<AddressLike<'_>>,
        helo: &str,
        protocol: &str,
        remote_ip: &str,
        remote_port: u16,
        server: &str,
        host_name: &str,
        tls: Option<PyTlsInfo>,
        auth: Option<String>,
        parameters: Option<Bound<'_, PyDict>>,
        queued_id: Option<String>,
        received_at: Option<f64>,
    ) -> PyResult<Py<Self>> {
        let client = Client {
            id: 0,
            server: server.into(),
            host_name: host_name.into(),
            remote_ip: remote_ip.to_owned(),
            remote_port,
            tls: tls.map(|tls| Box::new(tls.0)),
            auth,
            ..Client::default()
        };
        let mut mail_from =
            mail_from.map(AddressLike::into_address).transpose()?.unwrap_or_default();
        if let Some(parameters) = parameters {
            mail_from = mail_from.with_parameters(from_dict(&parameters)?);
        }
        let rcpt_to =
            rcpt_to.into_iter().map(AddressLike::into_address).collect::<PyResult<_>>()?;
        let transaction = Transaction {
            helo: helo.into(),
            dialect: record::dialect(protocol)?,
            mail_from,
            rcpt_to,
        };
        let received_at = match received_at {
            None => SystemTime::now(),
            Some(at) => record::time(at)?,
        };
        let queued_id = queued_id.unwrap_or_else(|| Generator::default().next(received_at));
        let octets = data.to_vec(py)?;
        Self::detached(py, client, transaction, octets, queued_id, received_at, 1 << 20)
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: PyBuffer<u8>) -> PyResult<Py<Self>> {
        serial::from_bytes(py, &data.to_vec(py)?)
    }

    fn to_bytes<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyBytes>> {
        serial::to_bytes(slf)
    }

    #[getter]
    fn queued_id(&self) -> &str {
        &self.delivery().queued_id
    }

    #[getter]
    fn received_at(&self) -> f64 {
        record::since_epoch(self.delivery().received_at)
    }

    #[getter]
    fn size(&self) -> usize {
        self.delivery().body.as_slice().len()
    }

    #[getter]
    fn data(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Octets::view(py, self.delivery(), 0..self.size())
    }

    #[getter]
    fn header_data(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let delivery = self.delivery();
        let octets = delivery.body.as_slice();
        let end = delivery.body.header_end();
        let end = end.or_else(|| HeaderEnd::new(delivery.max_header_size).update(octets));
        let end = end.unwrap_or(octets.len());
        Octets::view(py, delivery, 0..end.min(delivery.max_header_size))
    }

    #[getter]
    fn header(&self, py: Python<'_>) -> PyResult<Py<PyHeader>> {
        Ok(self.parsed(py)?.clone().unbind())
    }

    #[getter]
    fn subject(&self, py: Python<'_>) -> PyResult<Py<PyString>> {
        let subject = self.subject.get_or_try_init(py, || {
            let raw = self.parsed(py)?.get().first("Subject").unwrap_or(&[]);
            let decode = |charset: &str, octets: &[u8]| charset::decode(py, charset, octets);
            let text = rfc2047::decode(&unfold(raw), &decode);
            Ok::<_, PyErr>(PyString::new(py, &text).unbind())
        })?;
        Ok(subject.clone_ref(py))
    }

    #[getter]
    fn hashes(&self, py: Python<'_>) -> Py<PyList> {
        self.hashes.get_or_init(py, || PyList::empty(py).unbind()).clone_ref(py)
    }

    fn compute_hashes(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let list = self.hashes(py);
        let subject = self.subject(py)?;
        let subject = subject.bind(py).to_cow()?;
        let transaction = &self.delivery().transaction;
        let mut shared = Md5::new();
        // A zero octet between the parts, so that no two splits of the same text are alike.
        for part in [&transaction.mail_from.to_string(), subject.as_ref(), self.queued_id()] {
            shared.update(part);
            shared.update([0]);
        }
        let hashes = transaction.rcpt_to.iter().map(|recipient| {
            let digest = shared.clone().chain_update(recipient.to_string()).finalize();
            let mut hex = String::with_capacity(32);
            for octet in digest {
                // Writing to a `String` cannot fail.
                let _ = write!(hex, "{octet:02x}");
            }
            hex
        });
        let hashes = PyList::new(py, hashes)?;
        let bound = list.bind(py);
        bound.set_slice(0, bound.len(), hashes.as_any())?;
        Ok(list)
    }

    #[getter]
    fn delivery_header<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.delivery_header_of(None))
    }

    fn make_delivery_header(&self, primary_mail_host: String) {
        self.added().primary_mail_host = Some(primary_mail_host);
    }

    fn delivery_header_for<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.delivery_header_of(Some(self.recipient(index)?))))
    }

    fn add_header(&self, name: &str, value: &str) -> PyResult<()> {
        let field = field(name, value).map_err(PyValueError::new_err)?;
        let mut added = self.added();
        added.headers.insert_str(0, &field);
        Ok(())
    }

    #[getter]
    fn added_headers<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.added().headers.as_bytes())
    }

    fn bytes_for<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.whole(py, Some(self.recipient(index)?))
    }

    fn compressed_for<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.compressed(py, self.recipient(index)?)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.whole(py, None)
    }

    #[getter]
    fn values(&self, py: Python<'_>) -> Py<PyDict> {
        self.values.get_or_init(py, || PyDict::new(py).unbind()).clone_ref(py)
    }

    fn message<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let octets = PyBytes::new(py, self.delivery().body.as_slice());
        let options = PyDict::new(py);
        options.set_item("policy", py.import("email.policy")?.getattr("default")?)?;
        py.import("email")?.call_method("message_from_bytes", (octets,), Some(&options))
    }

    #[pyo3(signature = (
        *, max_depth = 16, max_parts = 1000, max_size = 67_108_864, messages = false
    ))]
    fn parts(
        &self,
        py: Python<'_>,
        max_depth: usize,
        max_parts: usize,
        max_size: usize,
        messages: bool,
    ) -> PyResult<PyParts> {
        PyParts::find(py, self.delivery(), max_depth, max_parts, max_size, messages)
    }

    #[getter]
    fn expired(&self) -> bool {
        self.delivery().pending.is_over()
    }

    #[getter]
    fn answered(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        // Not under the lock: what Python makes can run other code, which may come back here.
        let answered = self.added().answered.clone();
        answered.map(|verdict| to_python(py, &verdict)).transpose()
    }

    fn spool(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(slf.get().delivery().spool(&serial::added(slf)?))
    }

    fn enter(&self, stage: &str) {
        self.delivery().course.enter(stage);
    }

    fn leave(&self) {
        self.delivery().course.leave();
    }

    #[pyo3(signature = (verdict = None))]
    #[allow(clippy::shadow_unrelated)]
    fn answer(&self, verdict: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let delivery = self.delivery();
        if delivery.spooling.is_handed_over() {
            return Ok(false);
        }
        let Some(given) = verdict else {
            return Ok(delivery.answer(Verdict::All(delivery.accepted())));
        };
        let given = self::verdict(given, delivery.transaction.rcpt_to.len())?;
        let first = delivery.answer(given.clone());
        if first {
            self.added().answered = Some(given);
        }
        Ok(first)
    }

    fn __repr__(&self) -> String {
        let Delivery { queued_id, transaction, body, .. } = self.delivery().as_ref();
        let (recipients, size) = (transaction.rcpt_to.len(), body.as_slice().len());
        format!(
            "<Envelope {queued_id} from {:?} to {recipients}, {size} octets>",
            transaction.mail_from.to_string()
        )
    }
}

/// One `bytes` of several parts, each copied once.
pub(super) fn concatenate<'py>(py: Python<'py>, parts: &[&[u8]]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, parts.iter().map(|part| part.len()).sum(), |mut room| {
        for part in parts {
            let (place, rest) = room
                .split_at_mut_checked(part.len())
                .ok_or_else(|| PyValueError::new_err("the parts are longer than their sum"))?;
            place.copy_from_slice(part);
            room = rest;
        }
        Ok(())
    })
}

/// `_core.claim`.
#[pyfunction]
pub(super) fn claim(envelopes: Vec<Bound<'_, PyEnvelope>>) -> Vec<bool> {
    envelopes.iter().map(|envelope| envelope.get().delivery().pending.claim()).collect()
}
