//! `Transaction` and `TLSInfo`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::address::{PyAddress, to_dict};
use crate::delivery::{Client, TlsInfo};
use crate::smtp::{Transaction, dsn};

/// `_core.TLSInfo`.
#[pyclass(frozen, eq, hash, from_py_object, name = "TLSInfo", module = "guerrilla._core")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PyTlsInfo(pub(super) TlsInfo);

#[pymethods]
impl PyTlsInfo {
    #[new]
    #[pyo3(signature = (version, cipher, server_name = None, client_subject = None, client_verified = false))]
    fn new(
        version: String,
        cipher: String,
        server_name: Option<String>,
        client_subject: Option<String>,
        client_verified: bool,
    ) -> Self {
        Self(TlsInfo { version, cipher, server_name, client_subject, client_verified })
    }

    #[getter]
    fn version(&self) -> &str {
        &self.0.version
    }

    #[getter]
    fn cipher(&self) -> &str {
        &self.0.cipher
    }

    #[getter]
    fn server_name(&self) -> Option<&str> {
        self.0.server_name.as_deref()
    }

    #[getter]
    fn client_subject(&self) -> Option<&str> {
        self.0.client_subject.as_deref()
    }

    #[getter]
    fn client_verified(&self) -> bool {
        self.0.client_verified
    }

    fn __repr__(&self) -> String {
        format!("TLSInfo(version={:?}, cipher={:?})", self.0.version, self.0.cipher)
    }
}

/// `_core.Transaction`.
#[pyclass(frozen, subclass, name = "Transaction", module = "guerrilla._core")]
#[derive(Debug)]
pub(super) struct PyTransaction {
    pub(super) client: Arc<Client>,
    pub(super) transaction: Arc<Transaction>,
}

#[pymethods]
impl PyTransaction {
    #[getter]
    fn client_id(&self) -> u64 {
        self.client.id
    }

    #[getter]
    fn server(&self) -> &str {
        &self.client.server
    }

    #[getter]
    fn host_name(&self) -> &str {
        &self.client.host_name
    }

    #[getter]
    fn remote_ip(&self) -> &str {
        &self.client.remote_ip
    }

    #[getter]
    fn remote_port(&self) -> u16 {
        self.client.remote_port
    }

    #[getter]
    fn remote_name(&self) -> Option<&str> {
        self.client.remote_name.as_deref()
    }

    #[getter]
    fn local_ip(&self) -> String {
        self.client.local.map(|local| local.ip().to_string()).unwrap_or_default()
    }

    #[getter]
    fn local_port(&self) -> u16 {
        self.client.local.map_or(0, |local| local.port())
    }

    #[getter]
    fn helo(&self) -> &str {
        &self.transaction.helo
    }

    #[getter]
    fn esmtp(&self) -> bool {
        self.transaction.dialect.is_extended()
    }

    #[getter]
    fn protocol(&self) -> &'static str {
        self.transaction.dialect.name()
    }

    #[getter]
    fn with_protocol(&self) -> String {
        let Client { tls, auth, .. } = self.client.as_ref();
        self.transaction.with_protocol(tls.is_some(), auth.is_some())
    }

    #[getter]
    fn tls(&self) -> Option<PyTlsInfo> {
        self.client.tls.as_deref().cloned().map(PyTlsInfo)
    }

    #[getter]
    fn auth(&self) -> Option<&str> {
        self.client.auth.as_deref()
    }

    #[getter]
    fn mail_from(&self) -> PyAddress {
        PyAddress(self.transaction.mail_from.clone())
    }

    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(py, self.transaction.mail_from.parameters())
    }

    #[getter]
    fn smtputf8(&self) -> bool {
        self.transaction.smtputf8()
    }

    #[getter]
    fn dsn_return(&self) -> Option<&'static str> {
        dsn::dsn_return(self.transaction.mail_from.parameters())
    }

    #[getter]
    fn envelope_id(&self) -> Option<String> {
        dsn::envelope_id(self.transaction.mail_from.parameters())
    }

    #[getter]
    fn rcpt_to<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.transaction.rcpt_to.iter().map(|address| PyAddress(address.clone())))
    }
}
