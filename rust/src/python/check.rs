//! `Check`: a question about one recipient.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::prelude::*;

use super::address::{AddressLike, PyAddress};
use super::reply::{PyReply, verdict};
use super::transaction::PyTransaction;
use crate::delivery::{Asked, Check, Client, Question};
use crate::pending::Pending;
use crate::smtp::{Dialect, Reply, Transaction, Verdict};

/// `_core.Check`.
#[pyclass(frozen, name = "Check", module = "guerrilla._core")]
pub(super) struct PyCheck {
    asked: Asked<Check>,
    answered: OnceLock<Reply>,
}

impl PyCheck {
    pub(super) fn new(asked: Asked<Check>) -> Self {
        Self { asked, answered: OnceLock::new() }
    }
}

#[pymethods]
impl PyCheck {
    #[getter]
    fn transaction(&self) -> PyTransaction {
        let check = &self.asked.0;
        PyTransaction {
            client: Arc::clone(&check.client),
            transaction: Arc::clone(&check.transaction),
        }
    }

    #[getter]
    fn recipient(&self) -> PyAddress {
        PyAddress(self.asked.0.recipient.clone())
    }

    #[getter]
    fn expired(&self) -> bool {
        self.asked.0.pending.is_over()
    }

    #[getter]
    fn answered(&self) -> Option<PyReply> {
        self.answered.get().cloned().map(PyReply)
    }

    #[pyo3(signature = (reply = None))]
    fn answer(&self, reply: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let reply = match reply {
            None => Reply::recipient_ok(),
            Some(given) => verdict(given, 1)?.fold(),
        };
        let first = self.asked.0.settle(Verdict::All(reply.clone()));
        if first {
            // Set once: a second answer is never the first.
            let _ = self.answered.set(reply);
        }
        Ok(first)
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
        helo: helo.to_owned(),
        dialect: Dialect::Esmtp,
        mail_from: mail_from.map(AddressLike::into_address).transpose()?.unwrap_or_default(),
        rcpt_to: Vec::new(),
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
