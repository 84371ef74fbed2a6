//! `Credentials`, and `Login`: a question about them.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::question::Answering;
use super::reply::PyReply;
use super::transaction::PyTransaction;
use crate::delivery::{Asked, Client, Login};
use crate::pending::Pending;
use crate::smtp::{Credentials, Dialect, Mechanism, Reply, Secret, Transaction};

/// `_core.Credentials`. No comparison: it would tell whether a password is a certain one.
#[pyclass(frozen, name = "Credentials", module = "guerrilla._core")]
pub(super) struct PyCredentials(Arc<Credentials>);

#[pymethods]
impl PyCredentials {
    #[new]
    #[pyo3(signature = (username, password, *, mechanism = "PLAIN", authorization_identity = ""))]
    fn new(
        username: &str,
        password: &str,
        mechanism: &str,
        authorization_identity: &str,
    ) -> PyResult<Self> {
        let mechanism = Mechanism::parse(mechanism.as_bytes())
            .ok_or_else(|| PyValueError::new_err(format!("no mechanism: {mechanism}")))?;
        Ok(Self(Arc::new(Credentials {
            mechanism,
            username: username.to_owned(),
            authorization_identity: authorization_identity.to_owned(),
            password: Secret::new(password.to_owned()),
        })))
    }

    #[getter]
    fn mechanism(&self) -> &'static str {
        self.0.mechanism.name()
    }

    #[getter]
    fn username(&self) -> &str {
        &self.0.username
    }

    #[getter]
    fn authorization_identity(&self) -> &str {
        &self.0.authorization_identity
    }

    #[getter]
    fn password(&self) -> &str {
        self.0.password.expose()
    }

    fn __repr__(&self) -> String {
        let Credentials { mechanism, username, authorization_identity, .. } = self.0.as_ref();
        format!(
            "Credentials({username:?}, ..., mechanism={:?}, \
             authorization_identity={authorization_identity:?})",
            mechanism.name(),
        )
    }
}

/// `_core.Login`.
#[pyclass(frozen, name = "Login", module = "guerrilla._core")]
pub(super) struct PyLogin(Answering<Login>);

impl PyLogin {
    pub(super) fn new(asked: Asked<Login>) -> Self {
        Self(Answering::new(asked))
    }
}

#[pymethods]
impl PyLogin {
    #[getter]
    fn transaction(&self) -> PyTransaction {
        let login = self.0.question();
        PyTransaction {
            client: Arc::clone(&login.client),
            transaction: Arc::clone(&login.transaction),
        }
    }

    #[getter]
    fn credentials(&self) -> PyCredentials {
        PyCredentials(Arc::clone(&self.0.question().credentials))
    }

    #[getter]
    fn expired(&self) -> bool {
        self.0.expired()
    }

    #[getter]
    fn answered(&self) -> Option<PyReply> {
        self.0.answered()
    }

    #[pyo3(signature = (reply = None))]
    fn answer(&self, reply: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        self.0.answer(reply, Reply::authenticated())
    }
}

/// `_core.make_login`.
#[pyfunction]
#[pyo3(signature = (credentials, *, remote_ip = "127.0.0.1", helo = "localhost"))]
pub(super) fn make_login(
    credentials: PyRef<'_, PyCredentials>,
    remote_ip: &str,
    helo: &str,
) -> PyLogin {
    let client = Client { remote_ip: remote_ip.to_owned(), ..Client::default() };
    let transaction =
        Transaction { helo: helo.into(), dialect: Dialect::Esmtp, ..Transaction::default() };
    PyLogin::new(Asked(Arc::new(Login {
        client: Arc::new(client),
        transaction: Arc::new(transaction),
        credentials: Arc::clone(&credentials.0),
        pending: Pending::new(Duration::from_hours(24 * 365), None, None),
    })))
}
