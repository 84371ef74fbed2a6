//! `Reply`, and verdicts as Python gives them.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::smtp::{Reply, Verdict};

/// `_core.Reply`.
#[pyclass(frozen, eq, hash, from_py_object, name = "Reply", module = "guerrilla._core")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PyReply(pub(super) Reply);

#[pymethods]
impl PyReply {
    #[new]
    fn new(code: u16, enhanced: Option<&str>, text: String) -> PyResult<Self> {
        Ok(Self(Reply::new(code, enhanced, text)?))
    }

    #[staticmethod]
    #[pyo3(signature = (text = "OK", enhanced = Some("2.0.0")))]
    fn ok(text: &str, enhanced: Option<&str>) -> PyResult<Self> {
        Ok(Self(Reply::new(250, enhanced, text)?))
    }

    #[staticmethod]
    #[pyo3(signature = (enhanced = "4.3.0", text = "Please try again later"))]
    fn retry(enhanced: &str, text: &str) -> PyResult<Self> {
        Ok(Self(Reply::new(451, Some(enhanced), text)?))
    }

    #[staticmethod]
    #[pyo3(signature = (enhanced = "5.7.1", text = "Rejected"))]
    fn reject(enhanced: &str, text: &str) -> PyResult<Self> {
        Ok(Self(Reply::new(550, Some(enhanced), text)?))
    }

    #[getter]
    fn code(&self) -> u16 {
        self.0.code()
    }

    #[getter]
    fn enhanced(&self) -> Option<String> {
        self.0.enhanced().map(|enhanced| enhanced.to_string())
    }

    #[getter]
    fn text(&self) -> &str {
        self.0.text()
    }

    #[getter]
    fn is_success(&self) -> bool {
        self.0.is_success()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Reply({:?})", self.0.to_string())
    }
}

/// A `Reply`, or a sequence of one `Reply` a recipient.
pub(super) fn verdict(given: &Bound<'_, PyAny>, recipients: usize) -> PyResult<Verdict> {
    if let Ok(reply) = given.cast::<PyReply>() {
        return Ok(Verdict::All(reply.get().0.clone()));
    }
    let Ok(replies) = given.extract::<Vec<PyReply>>() else {
        let kind = given.get_type();
        return Err(PyTypeError::new_err(format!(
            "a verdict is a Reply, one Reply a recipient, or None, not {}",
            kind.name()?
        )));
    };
    if replies.len() != recipients {
        let count = replies.len();
        return Err(PyTypeError::new_err(format!(
            "a verdict has one Reply a recipient: {recipients}, not {count}"
        )));
    }
    Ok(Verdict::Each(replies.into_iter().map(|reply| reply.0).collect()))
}

/// A verdict as Python reads it.
pub(super) fn to_python(py: Python<'_>, verdict: &Verdict) -> PyResult<Py<PyAny>> {
    Ok(match verdict {
        Verdict::All(reply) => Py::new(py, PyReply(reply.clone()))?.into_any(),
        Verdict::Each(replies) => {
            PyTuple::new(py, replies.iter().map(|reply| PyReply(reply.clone())))?
                .into_any()
                .unbind()
        }
    })
}
