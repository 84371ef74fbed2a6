//! `Core` and `LogRecord`.

use std::time::{Duration, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::check::PyCheck;
use super::config::{CoreSettings, seconds};
use super::envelope::PyEnvelope;
use crate::delivery::Question;
use crate::log::Record;
use crate::queue::Queue;
use crate::server::Server;

/// `_core.LogRecord`.
#[pyclass(frozen, name = "LogRecord", module = "guerrilla._core")]
pub(super) struct PyLogRecord {
    record: Record,
    message: String,
    members: Option<String>,
}

impl PyLogRecord {
    /// Made without the GIL: a message's line takes longer to write than all the rest.
    fn new(record: Record, with_members: bool) -> Self {
        let members = if with_members { record.content.members() } else { None };
        Self { message: record.content.line(), members, record }
    }
}

#[pymethods]
impl PyLogRecord {
    #[getter]
    fn level(&self) -> u8 {
        self.record.level as u8
    }

    #[getter]
    fn logger(&self) -> &str {
        self.record.logger
    }

    #[getter]
    fn message(&self) -> &str {
        &self.message
    }

    #[getter]
    fn server(&self) -> Option<&str> {
        self.record.server.as_deref()
    }

    #[getter]
    fn members(&self) -> Option<&str> {
        self.members.as_deref()
    }

    #[getter]
    fn created(&self) -> f64 {
        self.record.created.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }
}

/// `_core.Core`.
#[pyclass(frozen, name = "Core", module = "guerrilla._core")]
pub(super) struct PyCore(Server);

/// What waits now, else what comes within `timeout`. The GIL is only released where it must wait: a
/// release and a new acquisition cost more than taking what is there.
fn take<T: Send>(
    py: Python<'_>,
    queue: &Queue<T>,
    max: usize,
    timeout: Duration,
) -> Option<Vec<T>> {
    match queue.try_receive(max) {
        Some(items) if items.is_empty() && !timeout.is_zero() => {
            py.detach(|| queue.receive(max, timeout))
        }
        taken => taken,
    }
}

#[pymethods]
impl PyCore {
    #[new]
    fn new(settings: CoreSettings) -> PyResult<Self> {
        Ok(Self(Server::new(settings.into_config()?)))
    }

    fn bind(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(py.detach(|| self.0.bind())?)
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.start())?)
    }

    fn receive(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Vec<Py<PyEnvelope>>>> {
        let timeout = seconds("timeout", timeout)?;
        let Some(asked) = take(py, &self.0.shared().saves, max, timeout) else { return Ok(None) };
        let open = asked.into_iter().filter(|asked| asked.0.fetch());
        open.map(|asked| PyEnvelope::received(py, asked)).collect::<PyResult<_>>().map(Some)
    }

    fn receive_checks(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Vec<PyCheck>>> {
        let timeout = seconds("timeout", timeout)?;
        let Some(asked) = take(py, &self.0.shared().checks, max, timeout) else { return Ok(None) };
        let open = asked.into_iter().filter(|asked| !asked.0.pending().is_over());
        Ok(Some(open.map(PyCheck::new).collect()))
    }

    #[pyo3(signature = (max, timeout, members = false))]
    fn receive_logs(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
        members: bool,
    ) -> PyResult<Option<Vec<PyLogRecord>>> {
        let timeout = seconds("timeout", timeout)?;
        Ok(py.detach(|| {
            let records = self.0.shared().log.receive(max, timeout)?;
            Some(records.into_iter().map(|record| PyLogRecord::new(record, members)).collect())
        }))
    }

    #[pyo3(signature = (open))]
    fn set_intake(&self, open: bool) {
        self.0.shared().set_intake(open);
    }

    fn set_log_level(&self, level: u8) {
        self.0.shared().log.set_level(level);
    }

    fn reload_tls(&self, py: Python<'_>) -> Vec<(String, Option<String>)> {
        py.detach(|| self.0.reload_tls())
    }

    fn stop(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds("timeout", timeout)?;
        Ok(py.detach(|| {
            let all = self.0.stop(timeout);
            self.0.close_queues();
            all
        }))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = PyDict::new(py);
        for (name, value) in self.0.shared().snapshot() {
            figures.set_item(name, value)?;
        }
        Ok(figures)
    }
}
