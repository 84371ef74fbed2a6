//! `SharedMemory`.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::descriptor::duplicate;
use crate::shared::{Memory, Tenant, Trouble};

/// `_core.SharedMemory`.
#[pyclass(frozen, name = "SharedMemory", module = "guerrilla._core")]
pub(super) struct PySharedMemory {
    memory: Arc<Memory>,
    /// Of the process that attached it; who made it has none.
    place: Option<usize>,
}

impl PySharedMemory {
    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Its place, for a core.
    pub(super) fn claim(&self) -> PyResult<Tenant> {
        let place = self.place.ok_or_else(|| {
            PyValueError::new_err("this memory was made and has no place: attach it at one")
        })?;
        Ok(self.memory.claim(place)?)
    }
}

impl From<Trouble> for PyErr {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::System(error) => error.into(),
            other => PyValueError::new_err(other.to_string()),
        }
    }
}

#[pymethods]
impl PySharedMemory {
    #[staticmethod]
    fn create(processes: usize) -> PyResult<Self> {
        Ok(Self { memory: Memory::create(processes)?, place: None })
    }

    #[staticmethod]
    fn attach(fd: i32, place: usize) -> PyResult<Self> {
        let memory = Memory::attach(duplicate(fd)?)?;
        memory.check(place)?;
        Ok(Self { memory, place: Some(place) })
    }

    #[getter]
    fn processes(&self) -> usize {
        self.memory.places()
    }

    #[getter]
    fn place(&self) -> Option<usize> {
        self.place
    }

    fn fileno(&self) -> PyResult<i32> {
        let file = self.memory.file().map(|file| file.as_raw_fd());
        file.ok_or_else(|| PyValueError::new_err("this memory has no file"))
    }

    #[pyo3(signature = (place = None))]
    fn stats<'py>(&self, py: Python<'py>, place: Option<usize>) -> PyResult<Bound<'py, PyDict>> {
        let figures = PyDict::new(py);
        for (name, value) in py.detach(|| self.memory.snapshot(place))? {
            figures.set_item(name, value)?;
        }
        Ok(figures)
    }

    fn bury(&self, py: Python<'_>, place: usize) -> PyResult<()> {
        Ok(py.detach(|| self.memory.bury(place))?)
    }

    fn rotate_tickets(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.memory.rotate_tickets())?)
    }
}
