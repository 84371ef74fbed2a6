//! `Load`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::config::seconds;
use crate::bench::client::Script;
use crate::bench::histogram::Histogram;
use crate::bench::mails::{Given, Made, Mails};
use crate::bench::tally::Tally;
use crate::bench::{Load, Plan, Target, Tls};
use crate::smtp::Protocol;

/// `_core.LoadSettings`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct LoadSettings {
    addresses: Vec<String>,
    protocol: String,
    helo: String,
    sender: String,
    recipients: Vec<String>,
    tls: Option<String>,
    server_name: String,
    authorities: Option<Vec<u8>>,
    pipelining: bool,
    header: Vec<Vec<u8>>,
    sizes: (u64, u64),
    mails: Vec<Vec<u8>>,
    connections: usize,
    per_connection: u64,
    messages: u64,
    rate: Option<f64>,
    duration: f64,
    timeout: f64,
    threads: usize,
}

fn bad(key: &str, what: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{key}: {what}"))
}

impl LoadSettings {
    fn into_plan(self) -> PyResult<Plan> {
        if self.recipients.is_empty() {
            return Err(bad("recipients", "there are none"));
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(bad("rate", "it has to be more than 0"));
        }
        let target = self.target()?;
        let tls = self.tls()?;
        let protocol = Protocol::parse(&self.protocol)
            .ok_or_else(|| bad("protocol", format!("there is no {}", self.protocol)))?;
        let script = Script::new(
            protocol,
            &self.helo,
            tls.as_ref().is_some_and(Tls::is_started),
            self.pipelining,
            &self.sender,
            &self.recipients,
        );
        Ok(Plan {
            target,
            tls,
            script: Arc::new(script),
            connections: self.connections,
            per_connection: self.per_connection,
            messages: self.messages,
            rate: self.rate,
            duration: seconds("duration", self.duration)?,
            patience: seconds("timeout", self.timeout)?,
            threads: self.threads,
            mails: self.into_mails()?,
        })
    }

    fn target(&self) -> PyResult<Target> {
        if let [path] = self.addresses.as_slice()
            && let Some(path) = path.strip_prefix("unix:")
        {
            return Ok(Target::Unix(PathBuf::from(path)));
        }
        let parsed: Result<Vec<_>, _> = self.addresses.iter().map(|text| text.parse()).collect();
        match parsed {
            Ok(addresses) if !addresses.is_empty() => Ok(Target::Tcp(addresses)),
            _ => Err(bad("addresses", format!("no address: {:?}", self.addresses))),
        }
    }

    fn tls(&self) -> PyResult<Option<Tls>> {
        let start = match self.tls.as_deref() {
            None => return Ok(None),
            Some("starttls") => true,
            Some("implicit") => false,
            Some(other) => return Err(bad("tls", format!("there is no {other}"))),
        };
        let made = Tls::new(start, &self.server_name, self.authorities.as_deref());
        made.map(Some).map_err(|error| bad("authorities", error))
    }

    fn into_mails(self) -> PyResult<Mails> {
        if !self.mails.is_empty() {
            return Ok(Mails::Given(self.mails.iter().map(|mail| Given::new(mail)).collect()));
        }
        let (least, most) = self.sizes;
        let made = Made::new(self.header, least..=most);
        made.map(Mails::Made).map_err(|least| bad("sizes", format!("at least {least}")))
    }
}

/// `_core.Load`.
#[pyclass(frozen, name = "Load", module = "guerrilla._core")]
pub(super) struct PyLoad(Load);

#[pymethods]
impl PyLoad {
    #[new]
    fn new(settings: LoadSettings) -> PyResult<Self> {
        Ok(Self(Load::start(settings.into_plan()?)?))
    }

    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds("timeout", timeout)?;
        Ok(py.detach(|| self.0.wait(timeout)))
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }

    fn figures<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = py.detach(|| self.0.figures());
        let tally = &figures.tally;
        let dict = PyDict::new(py);
        dict.set_item("ended", figures.end.map(crate::bench::End::name))?;
        dict.set_item("seconds", figures.elapsed.as_secs_f64())?;
        dict.set_item("begun", tally.begun)?;
        dict.set_item("accepted", tally.accepted)?;
        dict.set_item("refused", tally.refused)?;
        dict.set_item("failed", tally.failed)?;
        dict.set_item("unsent", figures.unsent)?;
        dict.set_item("octets", tally.octets)?;
        dict.set_item("connections", tally.connections)?;
        dict.set_item("from_dot", latency(py, &tally.replied)?)?;
        dict.set_item("from_due", latency(py, &tally.due)?)?;
        dict.set_item("replies", replies(tally))?;
        dict.set_item("errors", errors(tally))?;
        dict.set_item("part", tally.timeline.width().as_secs_f64())?;
        dict.set_item("parts", tally.timeline.parts().to_vec())?;
        Ok(dict)
    }
}

fn latency<'py>(py: Python<'py>, histogram: &Histogram) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("count", histogram.count())?;
    dict.set_item("mean", histogram.mean().as_secs_f64())?;
    dict.set_item("min", histogram.least().as_secs_f64())?;
    for (name, per_mille) in [("p50", 500), ("p90", 900), ("p99", 990), ("p99_9", 999)] {
        dict.set_item(name, histogram.quantile(per_mille).as_secs_f64())?;
    }
    dict.set_item("max", histogram.most().as_secs_f64())?;
    let in_seconds = |(low, high, count): (Duration, Duration, u64)| {
        (low.as_secs_f64(), high.as_secs_f64(), count)
    };
    dict.set_item("buckets", histogram.used().map(in_seconds).collect::<Vec<_>>())?;
    Ok(dict)
}

/// Stage, code, how often, and of a refusal what was said the first time.
fn replies(tally: &Tally) -> Vec<(&'static str, u16, u64, Option<String>)> {
    let all = tally.replies.iter();
    all.map(|((stage, code), noted)| (stage.name(), *code, noted.count, noted.text.clone()))
        .collect()
}

/// Kind, stage, how often, and what was said the first time.
fn errors(tally: &Tally) -> Vec<(&'static str, &'static str, u64, Option<String>)> {
    let all = tally.errors.iter();
    all.map(|((kind, stage), noted)| (kind.name(), stage.name(), noted.count, noted.text.clone()))
        .collect()
}
