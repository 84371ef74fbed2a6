//! The spool: what comes out of it as an envelope, and `Spool`, for the commands.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pyo3::exceptions::{PyBlockingIOError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::config::seconds;
use super::envelope::{FOREVER, PyEnvelope};
use crate::buffer::Body;
use crate::course::Course;
use crate::delivery::{Asked, Delivery, Spooling};
use crate::pending::Pending;
use crate::record::{self, Damaged};
use crate::spool::{Leased, Octets, OpenError, Settings, Settled, Spool};

impl From<OpenError> for PyErr {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Held(_) => PyBlockingIOError::new_err(error.to_string()),
            other => PyOSError::new_err(other.to_string()),
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
    let read = record::read(&record);
    let mapped = read.and_then(|found| Ok((body(octets)?, found)));
    let (body, found) = match mapped {
        Ok(found) => found,
        Err(damaged) => {
            lease.settle(Settled::Failed(format!("its envelope is {damaged}")));
            return Ok(None);
        }
    };
    let delivery = Arc::new(Delivery {
        client: Arc::new(found.client),
        transaction: Arc::new(found.transaction),
        body,
        queued_id: found.queued_id,
        received_at: found.received_at,
        max_header_size: found.max_header_size,
        pending: Pending::new(FOREVER, None, None),
        course: Course::new(false),
        fetched: AtomicBool::new(true),
        spooling: Spooling::From(lease),
    });
    let envelope = PyEnvelope::received(py, Asked(delivery))?;
    if let Err(error) = envelope.get().add(py, found.added) {
        let delivery = envelope.get().delivery();
        if let Spooling::From(lease) = &delivery.spooling {
            lease.settle(Settled::Failed(format!("its values are damaged: {}", error.value(py))));
        }
        return Ok(None);
    }
    Ok(Some(envelope))
}

fn body(octets: Octets) -> Result<Body, Damaged> {
    match octets {
        Octets::Memory(octets) => Ok(Body::detached(octets)),
        Octets::File(file) => {
            Body::stored(&file).map_err(|error| Damaged::new(&format!("without its file: {error}")))
        }
    }
}

/// `_core.Spool`.
#[pyclass(frozen, name = "Spool", module = "guerrilla._core")]
pub(super) struct PySpool(pub(super) Arc<Spool>);

#[pymethods]
impl PySpool {
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
}
