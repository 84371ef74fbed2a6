//! The boundary: everything that knows Python. No business logic; each file mirrors a part of `_core.pyi`.
//!
//! Every wait releases the GIL, and nothing here is ever called by the I/O thread.

// Python's arguments arrive by value.
#![allow(clippy::needless_pass_by_value)]

mod address;
mod backend;
mod bench;
mod certificate;
mod charset;
mod check;
mod config;
mod core;
mod descriptor;
mod envelope;
mod error;
mod events;
mod figures;
mod header;
mod login;
mod octets;
mod parts;
mod question;
mod reply;
mod serial;
mod shared;
mod spool;
mod transaction;

use pyo3::prelude::*;

/// The extension module `guerrilla._core`.
#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::address::{PyAddress, ascii_host};
    #[pymodule_export]
    use super::backend::PyBackend;
    #[pymodule_export]
    use super::bench::PyLoad;
    #[pymodule_export]
    use super::certificate::make_certificate;
    #[pymodule_export]
    use super::check::{PyCheck, make_check};
    #[pymodule_export]
    use super::core::{PyCore, PyLogBatch, PyLogRecord};
    #[pymodule_export]
    use super::envelope::{PyEnvelope, claim};
    #[pymodule_export]
    use super::figures::{PyStageFigures, PyStageTimer, PyStopwatch};
    #[pymodule_export]
    use super::header::{PyHeader, decode_words, parse_addresses};
    #[pymodule_export]
    use super::login::{PyCredentials, PyLogin, make_login};
    #[pymodule_export]
    use super::parts::{PyPart, PyParts};
    #[pymodule_export]
    use super::reply::PyReply;
    #[pymodule_export]
    use super::shared::PySharedMemory;
    #[pymodule_export]
    use super::spool::{PySpool, PySpoolEntry};
    #[pymodule_export]
    use super::transaction::{PyTlsInfo, PyTransaction};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("__build__", option_env!("GUERRILLA_BUILD").unwrap_or("unknown"))
    }
}
