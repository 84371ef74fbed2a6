//! `Core`, `LogBatch` and `LogRecord`.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use pyo3::exceptions::{PyIndexError, PyMemoryError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::backend::PyBackend;
use super::check::PyCheck;
use super::config::{CoreSettings, seconds};
use super::descriptor::duplicate;
use super::envelope::PyEnvelope;
use super::events;
use super::reply::PyReply;
use super::shared::PySharedMemory;
use super::spool::{PySpool, SpoolSettings};
use crate::backends::DEFAULT;
use crate::config::ListenAddress;
use crate::faults::{Cut, Fault};
use crate::log::{Batch, Format, Record, batches};
use crate::server::Server;
use crate::smtp::Stage;

/// `_core.LogRecord`.
#[pyclass(frozen, name = "LogRecord", module = "guerrilla._core")]
pub(super) struct PyLogRecord {
    batch: Arc<Batch>,
    index: usize,
}

impl PyLogRecord {
    fn record(&self) -> PyResult<&Record> {
        self.batch.records.get(self.index).ok_or_else(|| PyIndexError::new_err(self.index))
    }
}

#[pymethods]
impl PyLogRecord {
    #[getter]
    fn message(&self) -> PyResult<String> {
        Ok(self.record()?.content.line())
    }

    #[getter]
    fn members(&self) -> PyResult<Option<String>> {
        Ok(self.record()?.content.members())
    }

    #[getter]
    fn created(&self) -> PyResult<f64> {
        let since = self.record()?.created.duration_since(UNIX_EPOCH);
        Ok(since.map_or(0.0, |since| since.as_secs_f64()))
    }
}

/// `_core.LogBatch`.
#[pyclass(frozen, name = "LogBatch", module = "guerrilla._core")]
pub(super) struct PyLogBatch(Arc<Batch>);

impl PyLogBatch {
    fn first(&self) -> Option<&Record> {
        self.0.records.first()
    }
}

#[pymethods]
impl PyLogBatch {
    #[getter]
    fn level(&self) -> u8 {
        self.first().map_or(0, |record| record.level as u8)
    }

    #[getter]
    fn logger(&self) -> &str {
        self.first().map_or("", |record| record.logger)
    }

    #[getter]
    fn server(&self) -> Option<&str> {
        self.first().and_then(|record| record.server.as_deref())
    }

    #[getter]
    fn lines(&self) -> &str {
        &self.0.lines
    }

    #[getter]
    fn records(&self) -> Vec<PyLogRecord> {
        let batch = &self.0;
        let all = 0..batch.records.len();
        all.map(|index| PyLogRecord { batch: Arc::clone(batch), index }).collect()
    }
}

/// `_core.Core`.
#[pyclass(frozen, name = "Core", module = "guerrilla._core")]
pub(super) struct PyCore(Server);

fn parse_cut(name: &str) -> PyResult<Cut> {
    match name {
        "close" => Ok(Cut::Close),
        "reset" => Ok(Cut::Reset),
        other => Err(PyValueError::new_err(format!("no way to end a connection: {other}"))),
    }
}

fn parse_address(text: &str) -> PyResult<ListenAddress> {
    ListenAddress::parse(text).ok_or_else(|| PyValueError::new_err(format!("no address: {text}")))
}

fn misfit(address: &ListenAddress, error: &std::io::Error) -> PyErr {
    PyValueError::new_err(format!("{address}: {error}"))
}

fn duplicates(sockets: Vec<(String, i32)>) -> PyResult<Vec<(ListenAddress, OwnedFd)>> {
    let each = sockets.into_iter().map(|(text, number)| {
        let address = parse_address(&text)?;
        let socket = duplicate(number).map_err(|error| misfit(&address, &error))?;
        Ok((address, socket))
    });
    each.collect()
}

#[pymethods]
impl PyCore {
    #[new]
    #[pyo3(signature = (settings, memory = None))]
    fn new(settings: CoreSettings, memory: Option<PyRef<'_, PySharedMemory>>) -> PyResult<Self> {
        let Some(memory) = memory else {
            let made = Server::new(settings.into_config(None)?);
            return made.map(Self).map_err(|error| {
                PyMemoryError::new_err(format!("no memory for the tables of a core: {error}"))
            });
        };
        let config = settings.into_config(Some(memory.memory()))?;
        Ok(Self(Server::with_tenant(config, memory.claim()?)))
    }

    #[pyo3(signature = (sockets, kept = true))]
    fn inherit(&self, sockets: Vec<(String, i32)>, kept: bool) -> PyResult<()> {
        let taken = duplicates(sockets)?;
        self.0.inherit(taken, kept).map_err(|(address, error)| misfit(&address, &error))
    }

    fn serve_also(&self, py: Python<'_>, sockets: Vec<(String, i32)>) -> PyResult<()> {
        let lent = duplicates(sockets)?;
        match py.detach(|| self.0.serve_also(lent)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(PyRuntimeError::new_err("it does not run")),
            Err((address, error)) => Err(misfit(&address, &error)),
        }
    }

    fn leave_files(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.0.leave_files()).iter().map(ToString::to_string).collect()
    }

    fn own_files(&self, py: Python<'_>, addresses: Vec<String>) -> PyResult<()> {
        let addresses: Vec<ListenAddress> =
            addresses.iter().map(|text| parse_address(text)).collect::<PyResult<_>>()?;
        py.detach(|| self.0.own_files(&addresses));
        Ok(())
    }

    fn drop_inherited(&self) -> Vec<String> {
        self.0.drop_inherited().iter().map(ToString::to_string).collect()
    }

    fn sockets(&self, py: Python<'_>) -> Vec<(String, i32)> {
        let sockets = py.detach(|| self.0.sockets()).into_iter();
        sockets.map(|(address, socket)| (address.to_string(), socket.into_raw_fd())).collect()
    }

    fn bind(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(py.detach(|| self.0.bind())?)
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.start())?)
    }

    fn receive(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Vec<Py<PyEnvelope>>>> {
        self.backend(DEFAULT)?.receive(py, max, timeout)
    }

    fn receive_checks(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Vec<PyCheck>>> {
        self.backend(DEFAULT)?.receive_checks(py, max, timeout)
    }

    fn backend(&self, name: &str) -> PyResult<PyBackend> {
        let shared = self.0.shared();
        let found = shared.backend(name).map(|found| PyBackend::new(found, Arc::clone(shared)));
        found.ok_or_else(|| PyValueError::new_err(format!("no backend {name}")))
    }

    #[pyo3(signature = (max, timeout, form = None, process = None))]
    fn receive_logs(
        &self,
        py: Python<'_>,
        max: usize,
        timeout: f64,
        form: Option<&str>,
        process: Option<u32>,
    ) -> PyResult<Option<Vec<PyLogBatch>>> {
        let timeout = seconds("timeout", timeout)?;
        let format = match form {
            None => None,
            Some("text") => Some(Format::Text),
            Some("json") => Some(Format::Json),
            Some(other) => return Err(PyValueError::new_err(format!("no form: {other}"))),
        };
        // Lines are written without the GIL: they are nearly all that there is to do.
        Ok(py.detach(|| {
            let records = self.0.shared().log.receive(max, timeout)?;
            let found = batches(records, format, process).into_iter();
            Some(found.map(|batch| PyLogBatch(Arc::new(batch))).collect())
        }))
    }

    fn want_events(&self, mails: bool, connections: bool) {
        self.0.shared().events.want(mails, connections);
    }

    fn receive_events<'py>(
        &self,
        py: Python<'py>,
        max: usize,
        timeout: f64,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let timeout = seconds("timeout", timeout)?;
        let events = py.detach(|| self.0.shared().events.receive(max, timeout));
        events.map(|events| events::to_list(py, events)).transpose()
    }

    #[pyo3(signature = (stage, count, delay, reply, cut))]
    fn plan_fault(
        &self,
        stage: &str,
        count: Option<u32>,
        delay: f64,
        reply: Option<PyReply>,
        cut: Option<&str>,
    ) -> PyResult<()> {
        let stage = Stage::parse(stage)
            .ok_or_else(|| PyValueError::new_err(format!("no stage: {stage}")))?;
        let delay = seconds("delay", delay)?;
        let cut = cut.map(parse_cut).transpose()?;
        let fault = Fault { delay, reply: reply.map(|reply| reply.0), cut };
        self.0.shared().faults.plan(stage, count, fault);
        Ok(())
    }

    fn plan_cut(&self, queued_id: &str, cut: &str) -> PyResult<()> {
        self.0.shared().faults.plan_cut(queued_id, parse_cut(cut)?);
        Ok(())
    }

    fn clear_faults(&self) {
        self.0.shared().faults.clear();
    }

    fn set_log_level(&self, level: u8) {
        self.0.shared().log.set_level(level);
    }

    fn reload(&self, py: Python<'_>, settings: CoreSettings) -> PyResult<Vec<String>> {
        let server = &self.0;
        let shared = server.shared();
        let (config, mut problems) =
            settings.into_next(&shared.config.load(), shared.tenant.common_memory())?;
        let failures = py
            .detach(|| server.reload(config))
            .ok_or_else(|| PyRuntimeError::new_err("this core does not run"))?;
        let line = |(name, error)| format!("{name}: listen_interface: cannot listen: {error}");
        problems.extend(failures.into_iter().map(line));
        Ok(problems)
    }

    fn open_spool(&self, py: Python<'_>, settings: SpoolSettings) -> PyResult<()> {
        let settings = settings.into_settings()?;
        Ok(py.detach(|| self.0.shared().open_spool(settings))?)
    }

    fn spool(&self) -> Option<PySpool> {
        self.0.shared().spool().map(PySpool::new)
    }

    fn addresses(&self, py: Python<'_>) -> Vec<String> {
        // A stop holds its lock for as long as the disk of the spool takes.
        py.detach(|| self.0.addresses())
    }

    fn addresses_by_server(&self, py: Python<'_>) -> Vec<(String, Vec<String>)> {
        py.detach(|| self.0.addresses_by_server())
    }

    fn clients(&self, py: Python<'_>) -> Vec<(String, usize)> {
        py.detach(|| self.0.clients())
    }

    fn reload_tls(&self, py: Python<'_>) -> Vec<(String, Option<String>)> {
        py.detach(|| self.0.reload_tls())
    }

    fn stop(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds("timeout", timeout)?;
        Ok(py.detach(|| {
            let all = self.0.stop(timeout);
            self.0.close_queues();
            all
        }))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = PyDict::new(py);
        for (name, value) in self.0.shared().snapshot() {
            figures.set_item(name, value)?;
        }
        Ok(figures)
    }
}
