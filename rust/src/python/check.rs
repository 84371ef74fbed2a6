//! `Check`: a question about one recipient.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use pyo3::prelude::*;

use super::address::{AddressLike, PyAddress};
use super::question::Answering;
use super::reply::PyReply;
use super::transaction::PyTransaction;
use crate::delivery::{Asked, Check, Client};
use crate::pending::Pending;
use crate::smtp::{Dialect, Recipients, Reply, Transaction};

/// `_core.Check`.
#[pyclass(frozen, name = "Check", module = "guerrilla._core")]
pub(super) struct PyCheck(Answering<Check>);

impl PyCheck {
    pub(super) fn new(asked: Asked<Check>) -> Self {
        Self(Answering::new(asked))
    }
}

#[pymethods]
impl PyCheck {
    #[getter]
    fn transaction(&self) -> PyTransaction {
        let check = self.0.question();
        PyTransaction {
            client: Arc::clone(&check.client),
            transaction: Arc::clone(&check.transaction),
        }
    }

    #[getter]
    fn recipient(&self) -> PyAddress {
        PyAddress(self.0.question().recipient.clone())
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
        self.0.answer(reply, Reply::recipient_ok())
    }
}

/// `_core.make_check`.
#[pyfunction]
#[pyo3(signature = (recipient, *, mail_from = None, remote_ip = "127.0.0.1", helo = "localhost"))]
pub(super) fn make_check(
    recipient: AddressLike<'_>,
    mail_from: Option<AddressLike<'_>>,
    remote_ip: &str,
    helo: &str,
) -> PyResult<PyCheck> {
    let client = Client { remote_ip: remote_ip.to_owned(), ..Client::default() };
    let transaction = Transaction {
        helo: helo.into(),
        dialect: Dialect::Esmtp,
        mail_from: mail_from.map(AddressLike::into_address).transpose()?.unwrap_or_default(),
        rcpt_to: Recipients::default(),
    };
    let check = Check {
        client: Arc::new(client),
        transaction: Arc::new(transaction),
        recipient: recipient.into_address()?,
        pending: Pending::new(Duration::from_hours(24 * 365), None, None),
        generation: AtomicU64::new(0),
    };
    Ok(PyCheck::new(Asked(Arc::new(check))))
}
