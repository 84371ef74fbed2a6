//! Errors of the core as Python's own exceptions.

use std::io;

use pyo3::PyErr;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};

use crate::certificate::CertificateError;
use crate::server::StartError;
use crate::smtp::{AddressError, ReplyError};

/// A line for each server that could not be bound.
pub(super) fn cannot_listen(failures: &[(String, io::Error)]) -> Vec<String> {
    failures.iter().map(|(name, error)| format!("{name}: cannot listen: {error}")).collect()
}

impl From<StartError> for PyErr {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Again => PyRuntimeError::new_err("this core was bound or started before"),
            StartError::Unbound => PyRuntimeError::new_err("bind comes before start"),
            StartError::Runtime(error) => error.into(),
            StartError::Bind(failed) => PyOSError::new_err(cannot_listen(&failed).join("\n")),
        }
    }
}

impl From<ReplyError> for PyErr {
    fn from(error: ReplyError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

impl From<AddressError> for PyErr {
    fn from(error: AddressError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

impl From<CertificateError> for PyErr {
    fn from(error: CertificateError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}
