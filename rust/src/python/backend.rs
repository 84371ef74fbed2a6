//! `Backend`: what the workers of one have of the core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::check::PyCheck;
use super::config::seconds;
use super::envelope::PyEnvelope;
use super::login::PyLogin;
use super::spool;
use crate::backends::Backend;
use crate::backends::breaker::{Breaker, Fuse, Turn};
use crate::delivery::Question;
use crate::queue::Queue;
use crate::server::Shared;

/// `_core.Backend`.
#[pyclass(frozen, name = "Backend", module = "guerrilla._core")]
pub(super) struct PyBackend {
    backend: Arc<Backend>,
    /// Of its core.
    shared: Arc<Shared>,
    /// Of the chains that it is for.
    generation: AtomicU64,
}

impl PyBackend {
    pub(super) fn new(backend: Arc<Backend>, shared: Arc<Shared>) -> Self {
        let generation = AtomicU64::new(backend.generation());
        Self { backend, shared, generation }
    }

    /// What waits now, else what comes within `timeout`; nothing once other chains have taken over. The
    /// GIL is only released where it must wait: a release and a new acquisition cost more than taking
    /// what is there.
    fn take<T: Send>(
        &self,
        py: Python<'_>,
        queue: &Queue<T>,
        max: usize,
        timeout: Duration,
    ) -> Option<Vec<T>> {
        let wanted = || self.is_current();
        match queue.receive_while(max, Duration::ZERO, wanted) {
            Some(items) if items.is_empty() && !timeout.is_zero() => {
                py.detach(|| queue.receive_while(max, timeout, wanted))
            }
            taken => taken,
        }
    }

    /// Whether its chains are those that are given what comes.
    fn is_current(&self) -> bool {
        self.backend.generation() == self.generation.load(Ordering::Relaxed)
    }

    /// The fuse and the breaker of a task.
    fn breaker(&self, task: &str) -> PyResult<(Fuse, &Breaker)> {
        let fuse = self.backend.limits().fuse;
        match task {
            "save" => Ok((fuse, &self.backend.saving)),
            "validate" => Ok((fuse, &self.backend.checking)),
            other => Err(PyValueError::new_err(format!("no task {other}"))),
        }
    }
}

#[pymethods]
impl PyBackend {
    #[getter]
    fn name(&self) -> &str {
        &self.backend.name
    }

    pub(super) fn receive(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Vec<Py<PyEnvelope>>>> {
        let timeout = seconds("timeout", timeout)?;
        let Some(asked) = self.take(py, &self.backend.saves, max, timeout) else { return Ok(None) };
        let open = asked.into_iter().filter(|asked| asked.0.fetch());
        open.map(|asked| PyEnvelope::received(py, asked)).collect::<PyResult<_>>().map(Some)
    }

    pub(super) fn receive_checks(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Vec<PyCheck>>> {
        let timeout = seconds("timeout", timeout)?;
        let Some(asked) = self.take(py, &self.backend.checks, max, timeout) else {
            return Ok(None);
        };
        let generation = self.generation.load(Ordering::Relaxed);
        let open = asked.into_iter().filter(|asked| !asked.0.pending().is_over());
        let open = open.inspect(|asked| asked.0.generation.store(generation, Ordering::Relaxed));
        Ok(Some(open.map(PyCheck::new).collect()))
    }

    fn receive_logins(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Vec<PyLogin>>> {
        let timeout = seconds("timeout", timeout)?;
        let Some(asked) = self.take(py, &self.backend.logins, max, timeout) else {
            return Ok(None);
        };
        let open = asked.into_iter().filter(|asked| !asked.0.pending().is_over());
        Ok(Some(open.map(PyLogin::new).collect()))
    }

    fn receive_spooled(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Vec<Py<PyEnvelope>>>> {
        let timeout = seconds("timeout", timeout)?;
        let wanted = || self.is_current();
        // It reads from the disk, so never with the GIL.
        let Some(leased) =
            py.detach(|| self.shared.spool()?.receive(&self.backend.name, max, timeout, &wanted))
        else {
            return Ok(None);
        };
        let envelopes = leased.into_iter().map(|leased| spool::envelope(py, leased).transpose());
        envelopes.flatten().collect::<PyResult<_>>().map(Some)
    }

    fn renew(&self) {
        self.generation.store(self.backend.renew(), Ordering::Relaxed);
        if let Some(spool) = self.shared.spool() {
            spool.wake_all();
        }
    }

    fn admits(&self, task: &str) -> PyResult<bool> {
        let (fuse, breaker) = self.breaker(task)?;
        // Looked at without a lock: a breaker that is closed costs nothing. One that is open says nothing
        // of chains that were replaced, and its trial is not for them.
        Ok(!breaker.is_open() || !self.is_current() || breaker.admits(fuse, Instant::now()))
    }

    fn count_refused(&self, items: u64) {
        self.backend.broken.add_many(items);
    }

    fn report(&self, task: &str, failed: bool) -> PyResult<Option<&'static str>> {
        let (fuse, breaker) = self.breaker(task)?;
        if !self.is_current() {
            // How chains that were replaced end says nothing of those that took over.
            return Ok(None);
        }
        let turn = breaker.report(failed, fuse, Instant::now());
        Ok(turn.map(|turn| match turn {
            Turn::Opened => "opened",
            Turn::Closed => "closed",
        }))
    }

    #[pyo3(signature = (open))]
    fn set_intake(&self, open: bool) {
        self.backend.set_intake(open);
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = PyDict::new(py);
        for (name, value) in self.backend.snapshot() {
            figures.set_item(name, value)?;
        }
        Ok(figures)
    }
}
