//! Errors of the core as Python's own exceptions.

use pyo3::PyErr;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};

use crate::certificate::CertificateError;
use crate::server::StartError;
use crate::smtp::{AddressError, ReplyError};

impl From<StartError> for PyErr {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Again => PyRuntimeError::new_err("this core was bound or started before"),
            StartError::Unbound => PyRuntimeError::new_err("bind comes before start"),
            StartError::Runtime(error) => error.into(),
            StartError::Bind(failed) => {
                let lines: Vec<String> = failed
                    .iter()
                    .map(|(name, error)| format!("{name}: cannot listen: {error}"))
                    .collect();
                PyOSError::new_err(lines.join("\n"))
            }
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
