//! `StageFigures`, `StageTimer` and `Stopwatch`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::config::seconds;
use crate::stats::{BOUNDS, StageFigures, Stopwatch};

/// `_core.Stopwatch`.
#[pyclass(frozen, name = "Stopwatch", module = "guerrilla._core")]
pub(super) struct PyStopwatch(Arc<Stopwatch>);

#[pymethods]
impl PyStopwatch {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    fn start(&self) {
        self.0.start();
    }

    fn take(&self) -> (u64, u64) {
        self.0.take()
    }
}

/// `_core.StageFigures`.
#[pyclass(frozen, name = "StageFigures", module = "guerrilla._core")]
pub(super) struct PyStageFigures(Arc<StageFigures>);

#[pymethods]
impl PyStageFigures {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    #[pyo3(signature = (watch, *, decides = false))]
    fn timer(&self, watch: PyRef<'_, PyStopwatch>, decides: bool) -> PyStageTimer {
        PyStageTimer { figures: Arc::clone(&self.0), watch: Arc::clone(&watch.0), decides }
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let buckets = PyDict::new(py);
        let bounds = BOUNDS.iter().map(|micros| {
            let seconds = micros / 1_000_000;
            let digits = format!("{seconds}.{:06}", micros % 1_000_000);
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        });
        for (bound, calls) in bounds.chain(["+Inf".to_owned()]).zip(self.0.cumulative()) {
            buckets.set_item(bound, calls)?;
        }
        let figures = PyDict::new(py);
        figures.set_item("count", self.0.count.get())?;
        figures.set_item("errors", self.0.errors.get())?;
        figures.set_item("calls", self.0.calls.get())?;
        figures.set_item("seconds", self.0.took().as_secs_f64())?;
        figures.set_item("buckets", buckets)?;
        Ok(figures)
    }
}

/// `_core.StageTimer`.
#[pyclass(frozen, name = "StageTimer", module = "guerrilla._core")]
pub(super) struct PyStageTimer {
    figures: Arc<StageFigures>,
    watch: Arc<Stopwatch>,
    decides: bool,
}

impl PyStageTimer {
    fn asked(&self, items: u64) {
        if self.decides {
            self.watch.tally().decided.add_many(items);
        }
    }
}

#[pymethods]
impl PyStageTimer {
    #[pyo3(signature = (items = 1))]
    fn done(&self, items: u64) {
        self.figures.add(self.watch.lap(), items);
        self.asked(items);
    }

    fn took(&self, duration: f64, items: u64) -> PyResult<()> {
        self.figures.add(seconds("duration", duration)?, items);
        self.asked(items);
        Ok(())
    }

    fn fail(&self, items: u64) {
        self.figures.errors.add_many(items);
        self.defer(items);
    }

    fn defer(&self, items: u64) {
        let tally = self.watch.tally();
        tally.failed.add_many(items);
        if self.decides {
            tally.undecided.add_many(items);
        }
    }
}
