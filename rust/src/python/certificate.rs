//! `make_certificate`.

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;

use crate::certificate::{Pair, self_signed};

/// `_core.make_certificate`.
#[pyfunction]
pub(super) fn make_certificate(
    py: Python<'_>,
    hosts: Vec<String>,
    days: &Bound<'_, PyAny>,
) -> PyResult<(String, String)> {
    let days = match days.extract::<u32>() {
        // As wrong as no day at all, and told in the same words.
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => 0,
        found => found?,
    };
    let Pair { key, certificate } = py.detach(|| self_signed(&hosts, days))?;
    Ok((key, certificate))
}
