//! What `Check` and `Login` have in common: a question that Python answers once.

use std::sync::OnceLock;

use pyo3::prelude::*;

use super::reply::{PyReply, verdict};
use crate::delivery::{Asked, Question};
use crate::smtp::{Reply, Verdict};

/// A question and what it was answered.
pub(super) struct Answering<T: Question> {
    asked: Asked<T>,
    answered: OnceLock<Reply>,
}

impl<T: Question> Answering<T> {
    pub(super) fn new(asked: Asked<T>) -> Self {
        Self { asked, answered: OnceLock::new() }
    }

    pub(super) fn question(&self) -> &T {
        &self.asked.0
    }

    pub(super) fn expired(&self) -> bool {
        self.question().pending().is_over()
    }

    pub(super) fn answered(&self) -> Option<PyReply> {
        self.answered.get().cloned().map(PyReply)
    }

    /// Answers it, with `good` where Python says None; whether it was the first to.
    pub(super) fn answer(&self, reply: Option<&Bound<'_, PyAny>>, good: Reply) -> PyResult<bool> {
        let reply = match reply {
            None => good,
            Some(given) => verdict(given, 1)?.fold(),
        };
        let first = self.question().settle(Verdict::All(reply.clone()));
        if first {
            // Set once: a second answer is never the first.
            let _ = self.answered.set(reply);
        }
        Ok(first)
    }
}
