//! The spool: what comes out of it as an envelope, and `Spool`, for the commands.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pyo3::exceptions::{
    PyBlockingIOError, PyFileNotFoundError, PyLookupError, PyMemoryError, PyOSError,
    PyPermissionError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::config::seconds;
use super::envelope::{FOREVER, PyEnvelope};
use super::octets::Octets;
use crate::buffer::Body;
use crate::course::Course;
use crate::delivery::{Asked, Delivery, Spooling};
use crate::log::{Level, Log};
use crate::pending::Pending;
use crate::record;
use crate::spool::{self, Entry, Leased, OpenError, Settings, Settled, Spool};

impl From<OpenError> for PyErr {
    fn from(error: OpenError) -> Self {
        let text = error.to_string();
        match error {
            OpenError::Held(_) => PyBlockingIOError::new_err(text),
            OpenError::File { error, .. } => match error.kind() {
                ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
                ErrorKind::PermissionDenied => PyPermissionError::new_err(text),
                _ => PyOSError::new_err(text),
            },
            OpenError::Database { .. } | OpenError::Guard { .. } => PyValueError::new_err(text),
        }
    }
}

/// `_core.SpoolSettings`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct SpoolSettings {
    path: PathBuf,
    max_bytes: u64,
    min_free: u64,
    max_age: f64,
}

impl SpoolSettings {
    pub(super) fn into_settings(self) -> PyResult<Settings> {
        Ok(Settings {
            folder: self.path,
            max_bytes: self.max_bytes,
            min_free: self.min_free,
            max_age: seconds("max_age", self.max_age)?,
        })
    }
}

/// The envelope of a message that was spooled; none where what the spool has of it is no envelope, which
/// sets it aside.
pub(super) fn envelope(py: Python<'_>, leased: Leased) -> PyResult<Option<Py<PyEnvelope>>> {
    let Leased { record, octets, lease, .. } = leased;
    let mut found = match record::read(&record) {
        Ok(found) => found,
        Err(damaged) => {
            lease.settle(Settled::Failed(format!("its envelope is {damaged}")));
            return Ok(None);
        }
    };
    let body = match body(octets) {
        Ok(body) => body,
        Err(error) => {
            // The spool has opened it: for want of memory, say, which passes.
            lease.settle(Settled::Deferred(format!("its file cannot be mapped: {error}")));
            return Ok(None);
        }
    };
    let added = std::mem::take(&mut found.added);
    let delivery = Arc::new(delivery(found, body, Spooling::From(lease)));
    let envelope = PyEnvelope::received(py, Asked(Arc::clone(&delivery)))?;
    if let Err(error) = envelope.get().add(py, added) {
        if let Spooling::From(lease) = &delivery.spooling {
            let what = error.value(py);
            lease.settle(if error.is_instance_of::<PyMemoryError>(py) {
                Settled::Deferred(format!("no memory for its values: {what}"))
            } else {
                Settled::Failed(format!("its values are damaged: {what}"))
            });
        }
        return Ok(None);
    }
    Ok(Some(envelope))
}

fn delivery(found: record::Envelope, body: Body, spooling: Spooling) -> Delivery {
    Delivery {
        client: Arc::new(found.client),
        transaction: Arc::new(found.transaction),
        body,
        queued_id: found.queued_id.into(),
        received_at: found.received_at,
        max_header_size: found.max_header_size,
        pending: Pending::new(FOREVER, None, None),
        course: Course::new(false),
        fetched: AtomicBool::new(true),
        spooling,
    }
}

fn body(octets: spool::Octets) -> std::io::Result<Body> {
    match octets {
        spool::Octets::Memory(octets) => Ok(Body::detached(octets)),
        spool::Octets::File(file) => Body::stored(&file),
    }
}

/// `_core.SpoolEntry`.
#[pyclass(frozen, get_all, name = "SpoolEntry", module = "guerrilla._core")]
pub(super) struct PySpoolEntry {
    id: i64,
    queued_id: String,
    backend: String,
    received_at: f64,
    size: u64,
    attempts: u32,
    next_at: Option<f64>,
    error: Option<String>,
    state: &'static str,
    mail_from: String,
    rcpt_to: Vec<String>,
}

impl From<Entry> for PySpoolEntry {
    fn from(entry: Entry) -> Self {
        // Of a damaged one nothing else is known.
        let transaction = record::read(&entry.record).map(|found| found.transaction);
        let transaction = transaction.unwrap_or_default();
        Self {
            id: entry.id,
            queued_id: entry.queued_id,
            backend: entry.backend,
            received_at: record::since_epoch(entry.received_at),
            size: entry.size,
            attempts: entry.attempts,
            next_at: entry.next_at.map(record::since_epoch),
            error: entry.error,
            state: entry.state.name(),
            mail_from: transaction.mail_from.to_string(),
            rcpt_to: transaction.rcpt_to.iter().map(ToString::to_string).collect(),
        }
    }
}

/// `_core.Spool`: what a core has open, or a command where no core has it.
#[pyclass(frozen, name = "Spool", module = "guerrilla._core")]
pub(super) struct PySpool(Arc<Spool>, Option<Warnings>);

impl PySpool {
    pub(super) fn new(spool: &Arc<Spool>) -> Self {
        Self(Arc::clone(spool), None)
    }
}

/// What a daemon would have logged, for who runs a command; from warnings on.
struct Warnings {
    log: Arc<Log>,
    warn: Py<PyAny>,
}

impl Warnings {
    fn new(warn: Py<PyAny>) -> Self {
        Self { log: Arc::new(Log::new(Level::Warning as u8)), warn }
    }

    /// Tells those since the last time.
    fn tell(&self, py: Python<'_>) -> PyResult<()> {
        for record in self.log.receive(usize::MAX, Duration::ZERO).unwrap_or_default() {
            self.warn.call1(py, (record.content.line(),))?;
        }
        Ok(())
    }
}

#[pymethods]
impl PySpool {
    #[new]
    fn open(py: Python<'_>, path: PathBuf, warn: Py<PyAny>) -> PyResult<Self> {
        let warnings = Warnings::new(warn);
        let log = Arc::clone(&warnings.log);
        let opened = py.detach(|| Spool::open_offline(&path, log));
        // Also where it failed: that mails are missing is said once.
        warnings.tell(py)?;
        Ok(Self(opened?, Some(warnings)))
    }

    fn list(
        &self,
        py: Python<'_>,
        after: i64,
        max: usize,
        failed: bool,
    ) -> PyResult<Vec<PySpoolEntry>> {
        py.detach(|| {
            let entries = self.0.list(after, max, failed)?;
            Ok(entries.into_iter().map(PySpoolEntry::from).collect())
        })
    }

    fn show(
        &self,
        py: Python<'_>,
        queued_id: &str,
    ) -> PyResult<(PySpoolEntry, Py<PyAny>, Py<PyAny>)> {
        let found = py.detach(|| self.0.show(queued_id))?;
        let (entry, octets) = found.ok_or_else(|| PyLookupError::new_err(queued_id.to_owned()))?;
        let record = record_of(py, &entry.record)?;
        let body = body(octets).map_err(|damaged| PyOSError::new_err(damaged.to_string()))?;
        let size = body.as_slice().len();
        let held = Arc::new(delivery(record::Envelope::default(), body, Spooling::None));
        let message = Octets::view(py, &held, 0..size)?;
        Ok((entry.into(), record, message))
    }

    #[pyo3(signature = (queued_ids = None))]
    fn retry(&self, py: Python<'_>, queued_ids: Option<Vec<String>>) -> PyResult<u64> {
        Ok(py.detach(|| self.0.retry(queued_ids.as_deref()))?)
    }

    #[pyo3(signature = (queued_ids = None, failed = false))]
    fn drop(&self, py: Python<'_>, queued_ids: Option<Vec<String>>, failed: bool) -> PyResult<u64> {
        Ok(py.detach(|| self.0.drop_messages(queued_ids.as_deref(), failed))?)
    }

    #[pyo3(signature = (queued_ids = None))]
    fn replay(&self, py: Python<'_>, queued_ids: Option<Vec<String>>) -> PyResult<u64> {
        Ok(py.detach(|| self.0.replay(queued_ids.as_deref()))?)
    }

    fn waiting(&self) -> Vec<(String, u64)> {
        self.0.waiting()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = PyDict::new(py);
        for (name, value) in self.0.snapshot() {
            figures.set_item(name, value)?;
        }
        Ok(figures)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.close());
        self.1.as_ref().map_or(Ok(()), |warnings| warnings.tell(py))
    }
}

/// The record of an envelope as Python has JSON; of one that is damaged, its text.
fn record_of(py: Python<'_>, record: &[u8]) -> PyResult<Py<PyAny>> {
    let text = String::from_utf8_lossy(record);
    let loads = py.import("json")?.getattr("loads")?;
    match loads.call1((&*text,)) {
        Ok(found) if found.is_instance_of::<PyDict>() => Ok(found.unbind()),
        _ => {
            let damaged = PyDict::new(py);
            damaged.set_item("damaged", text)?;
            Ok(damaged.into_any().unbind())
        }
    }
}
