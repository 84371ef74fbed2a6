//! `Backend`: what the workers of one have of the core.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::check::PyCheck;
use super::config::seconds;
use super::envelope::PyEnvelope;
use crate::backends::Backend;
use crate::delivery::Question;
use crate::queue::Queue;

/// `_core.Backend`.
#[pyclass(frozen, name = "Backend", module = "guerrilla._core")]
pub(super) struct PyBackend(pub(super) Arc<Backend>);

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
impl PyBackend {
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn receive(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Vec<Py<PyEnvelope>>>> {
        let timeout = seconds("timeout", timeout)?;
        let Some(asked) = take(py, &self.0.saves, max, timeout) else { return Ok(None) };
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
        let Some(asked) = take(py, &self.0.checks, max, timeout) else { return Ok(None) };
        let open = asked.into_iter().filter(|asked| !asked.0.pending().is_over());
        Ok(Some(open.map(PyCheck::new).collect()))
    }

    #[pyo3(signature = (open))]
    fn set_intake(&self, open: bool) {
        self.0.set_intake(open);
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = PyDict::new(py);
        for (name, value) in self.0.snapshot() {
            figures.set_item(name, value)?;
        }
        Ok(figures)
    }
}
