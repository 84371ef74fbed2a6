//! `Header`: a parsed header section.

use std::ops::Range;
use std::sync::Arc;

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::charset;
use crate::delivery::Delivery;
use crate::mail::address_list::parse_address_list;
use crate::mail::header::{HeaderSection, to_text, unfold};
use crate::mail::rfc2047;

/// Octets from which others may run while they are parsed.
const WORTH_A_RELEASE: usize = 64 << 10;

/// `_core.Header`.
#[pyclass(frozen, name = "Header", module = "guerrilla._core")]
pub(super) struct PyHeader {
    delivery: Arc<Delivery>,
    /// Where in the message the section is, and what may be read of it.
    range: Range<usize>,
    section: HeaderSection,
}

impl PyHeader {
    pub(super) fn parse(py: Python<'_>, delivery: &Arc<Delivery>) -> Self {
        let parse = || HeaderSection::parse(delivery.body.as_slice(), delivery.max_header_size);
        let large = delivery.body.header_end().is_none_or(|end| end > WORTH_A_RELEASE);
        let section = if large && delivery.body.as_slice().len() > WORTH_A_RELEASE {
            py.detach(parse)
        } else {
            parse()
        };
        let range = 0..delivery.body.as_slice().len();
        Self { delivery: Arc::clone(delivery), range, section }
    }

    /// The header section of a part.
    pub(super) fn of_part(delivery: &Arc<Delivery>, range: Range<usize>) -> Self {
        let octets = delivery.body.as_slice().get(range.clone()).unwrap_or_default();
        let section = HeaderSection::parse(octets, delivery.max_header_size);
        Self { delivery: Arc::clone(delivery), range, section }
    }

    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        self.section.first(self.message(), name)
    }

    fn message(&self) -> &[u8] {
        self.delivery.body.as_slice().get(self.range.clone()).unwrap_or_default()
    }
}

fn value(raw: &[u8]) -> String {
    to_text(&unfold(raw))
}

#[pymethods]
impl PyHeader {
    fn __len__(&self) -> usize {
        self.section.len()
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.extract::<&str>().is_ok_and(|name| self.first(name).is_some())
    }

    fn __getitem__(&self, name: &str) -> PyResult<String> {
        self.first(name).map(value).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let names = self.section.iter(self.message()).map(|(name, _)| to_text(name));
        Ok(PyList::new(py, names.collect::<Vec<_>>())?.try_iter()?.into_any())
    }

    #[pyo3(signature = (name, default = None))]
    fn get(&self, name: &str, default: Option<String>) -> Option<String> {
        self.first(name).map(value).or(default)
    }

    fn get_all(&self, name: &str) -> Vec<String> {
        self.section.all(self.message(), name).map(value).collect()
    }

    fn items(&self) -> Vec<(String, String)> {
        self.section.iter(self.message()).map(|(name, raw)| (to_text(name), value(raw))).collect()
    }

    fn __repr__(&self) -> String {
        format!("<Header of {} fields>", self.section.len())
    }
}

/// `_core.parse_addresses`.
#[pyfunction]
pub(super) fn parse_addresses(value: &str) -> Vec<(String, String)> {
    let mailboxes = parse_address_list(value.as_bytes()).into_iter();
    mailboxes.map(|mailbox| (mailbox.to_string(), mailbox.display_name)).collect()
}

/// `_core.decode_words`.
#[pyfunction]
pub(super) fn decode_words(py: Python<'_>, value: &str) -> String {
    let decode = |charset: &str, octets: &[u8]| charset::decode(py, charset, octets);
    rfc2047::decode(value.as_bytes(), &decode)
}
