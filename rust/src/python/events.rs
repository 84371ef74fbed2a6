//! Events as tuples: `_core.pyi` names their parts.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::reply::PyReply;
use super::transaction::PyTransaction;
use crate::events::{Event, Mail};

pub(super) fn to_list(py: Python<'_>, events: Vec<Event>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for event in events {
        list.append(to_tuple(py, event)?)?;
    }
    Ok(list)
}

fn to_tuple(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    let connection = |opened: bool, client: Arc<_>| {
        let transaction = PyTransaction { client, transaction: Arc::default() };
        (opened, transaction).into_pyobject(py)
    };
    match event {
        Event::Opened(client) => connection(true, client),
        Event::Closed(client) => connection(false, client),
        Event::Mail(Mail { client, transaction, queued_id, size, reply }) => {
            let transaction = PyTransaction { client, transaction };
            (transaction, queued_id, size, PyReply(reply)).into_pyobject(py)
        }
    }
}
