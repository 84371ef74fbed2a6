//! `Parts` and `Part`: what a message is made of.

use std::ops::Range;
use std::sync::Arc;

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::charset;
use super::header::PyHeader;
use super::octets::Octets;
use crate::delivery::Delivery;
use crate::mail::mime::field::Value;
use crate::mail::mime::transfer::{self, Transfer};
use crate::mail::mime::{self, Bounds, Fields, Kind, Structure};

/// What `max_depth` is at most: each line that begins like a delimiter is compared with every level.
const MAX_DEPTH: usize = 100;
/// Octets from which others may run while they are looked at.
const WORTH_A_RELEASE: usize = 64 << 10;

/// What the parts of one message have in common.
struct Shared {
    delivery: Arc<Delivery>,
    structure: Structure,
    max_size: usize,
}

/// `_core.Parts`.
#[pyclass(frozen, sequence, name = "Parts", module = "guerrilla._core")]
pub(super) struct PyParts {
    shared: Arc<Shared>,
    /// Made on first use, so that what one of them decoded is there for whoever asks next.
    made: Vec<PyOnceLock<Py<PyPart>>>,
    leaves: Vec<usize>,
}

impl PyParts {
    pub(super) fn find(
        py: Python<'_>,
        delivery: &Arc<Delivery>,
        depth: usize,
        parts: usize,
        max_size: usize,
        messages: bool,
    ) -> PyResult<Self> {
        if depth > MAX_DEPTH {
            return Err(PyValueError::new_err(format!(
                "max_depth is at most {MAX_DEPTH}, not {depth}"
            )));
        }
        let bounds = Bounds { depth, parts, header: delivery.max_header_size, messages };
        let message = delivery.body.as_slice();
        let structure = if message.len() < WORTH_A_RELEASE {
            Structure::walk(message, &bounds)
        } else {
            py.detach(|| Structure::walk(message, &bounds))
        };
        let parts = structure.parts();
        let leaves = (0..parts.len()).filter(|&at| parts.get(at).is_some_and(mime::Part::is_leaf));
        Ok(Self {
            made: parts.iter().map(|_| PyOnceLock::new()).collect(),
            leaves: leaves.collect(),
            shared: Arc::new(Shared { delivery: Arc::clone(delivery), structure, max_size }),
        })
    }

    fn part(&self, py: Python<'_>, index: usize) -> PyResult<Py<PyPart>> {
        let place = self.made.get(index).ok_or_else(|| PyIndexError::new_err("no such part"))?;
        let make = || {
            let content = PyOnceLock::new();
            Py::new(py, PyPart { shared: Arc::clone(&self.shared), index, content })
        };
        Ok(place.get_or_try_init(py, make)?.clone_ref(py))
    }

    fn some<'py>(
        &self,
        py: Python<'py>,
        indexes: impl Iterator<Item = usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, indexes.map(|index| self.part(py, index)).collect::<PyResult<Vec<_>>>()?)
    }

    fn body(&self, content_type: &str) -> Option<usize> {
        let Delivery { body, max_header_size, .. } = self.shared.delivery.as_ref();
        self.shared.structure.body(body.as_slice(), *max_header_size, content_type)
    }
}

#[pymethods]
impl PyParts {
    fn __len__(&self) -> usize {
        self.leaves.len()
    }

    fn __getitem__(&self, py: Python<'_>, index: isize) -> PyResult<Py<PyPart>> {
        let at = if index < 0 {
            self.leaves.len().checked_sub(index.unsigned_abs())
        } else {
            Some(index.unsigned_abs())
        };
        let leaf = at.and_then(|at| self.leaves.get(at));
        self.part(py, *leaf.ok_or_else(|| PyIndexError::new_err("no such part"))?)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.some(py, self.leaves.iter().copied())?.try_iter()?.into_any())
    }

    fn walk<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.some(py, 0..self.made.len())
    }

    #[getter]
    fn truncated(&self) -> Option<&'static str> {
        self.shared.structure.truncated().map(name_of)
    }

    #[getter]
    fn text_part(&self, py: Python<'_>) -> PyResult<Option<Py<PyPart>>> {
        self.body("text/plain").map(|index| self.part(py, index)).transpose()
    }

    #[getter]
    fn html_part(&self, py: Python<'_>) -> PyResult<Option<Py<PyPart>>> {
        self.body("text/html").map(|index| self.part(py, index)).transpose()
    }

    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyString>>> {
        self.text_part(py)?.map(|part| part.get().text(py)).transpose()
    }

    #[getter]
    fn html<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyString>>> {
        self.html_part(py)?.map(|part| part.get().text(py)).transpose()
    }

    #[getter]
    fn attachments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let bodies = [self.body("text/plain"), self.body("text/html")];
        let others = self.leaves.iter().copied().filter(|&index| !bodies.contains(&Some(index)));
        self.some(py, others)
    }

    fn __repr__(&self) -> String {
        format!("<Parts: {} of {}>", self.leaves.len(), self.shared.delivery.queued_id)
    }
}

/// `_core.Part`.
#[pyclass(frozen, name = "Part", module = "guerrilla._core")]
pub(super) struct PyPart {
    shared: Arc<Shared>,
    index: usize,
    /// Decoded octets, and whether there are more.
    content: PyOnceLock<(Py<PyBytes>, bool)>,
}

impl PyPart {
    fn part(&self) -> PyResult<&mime::Part> {
        let part = self.shared.structure.parts().get(self.index);
        part.ok_or_else(|| PyIndexError::new_err("no such part"))
    }

    fn fields(&self) -> PyResult<Fields<'_>> {
        let Delivery { body, max_header_size, .. } = self.shared.delivery.as_ref();
        Ok(self.part()?.fields(body.as_slice(), *max_header_size))
    }

    fn range(&self) -> PyResult<Range<usize>> {
        Ok(self.part()?.body.clone())
    }

    fn raw_octets(&self) -> PyResult<&[u8]> {
        let octets = self.shared.delivery.body.as_slice().get(self.range()?);
        Ok(octets.unwrap_or_default())
    }

    fn type_value(&self) -> PyResult<Value> {
        Ok(self.fields()?.content_type().unwrap_or_default())
    }

    fn decoded(&self, py: Python<'_>) -> PyResult<&(Py<PyBytes>, bool)> {
        self.content.get_or_try_init(py, || {
            let (raw, max_size) = (self.raw_octets()?, self.shared.max_size);
            let transfer = self.transfer()?;
            if transfer == Transfer::Identity {
                let octets = raw.get(..max_size).unwrap_or(raw);
                return Ok((PyBytes::new(py, octets).unbind(), raw.len() > max_size));
            }
            let decode = || transfer.decode(raw, max_size);
            let large = raw.len() >= WORTH_A_RELEASE;
            let (octets, is_cut) = if large { py.detach(decode) } else { decode() };
            Ok((PyBytes::new(py, &octets).unbind(), is_cut))
        })
    }

    /// A multipart's body is its parts: an encoding of all of it is forbidden (RFC 2045 §6.4).
    fn transfer(&self) -> PyResult<Transfer> {
        let is_leaf = self.part()?.is_leaf();
        Ok(if is_leaf { self.fields()?.transfer() } else { Transfer::Identity })
    }

    fn label(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let charset = self.type_value()?.get("charset", &decoder(py));
        Ok(charset.map(|label| label.trim().to_ascii_lowercase()).filter(|label| !label.is_empty()))
    }
}

#[pymethods]
impl PyPart {
    #[getter]
    fn content_type(&self) -> PyResult<&str> {
        Ok(&self.part()?.content_type)
    }

    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let parameters = PyDict::new(py);
        for (name, value) in self.type_value()?.parameters(&decoder(py)) {
            parameters.set_item(name, value)?;
        }
        Ok(parameters)
    }

    #[getter]
    fn charset(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.label(py)
    }

    #[getter]
    fn disposition(&self) -> PyResult<Option<String>> {
        Ok(self.fields()?.disposition())
    }

    #[getter]
    fn filename(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.fields()?.filename(&decoder(py)))
    }

    #[getter]
    fn content_id(&self) -> PyResult<Option<String>> {
        Ok(self.fields()?.content_id())
    }

    #[getter]
    fn is_attachment(&self) -> PyResult<bool> {
        let part = self.part()?;
        Ok(part.is_leaf() && self.fields()?.is_attachment(&part.content_type))
    }

    #[getter]
    fn is_multipart(&self) -> PyResult<bool> {
        Ok(!self.part()?.is_leaf())
    }

    #[getter]
    fn beyond(&self) -> PyResult<Option<&'static str>> {
        Ok(match self.part()?.kind {
            Kind::Opaque(bound) => Some(name_of(bound)),
            Kind::Leaf | Kind::Multipart | Kind::Message => None,
        })
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.shared.structure.path(self.index))
    }

    #[getter]
    fn header(&self) -> PyResult<PyHeader> {
        Ok(PyHeader::of_part(&self.shared.delivery, self.part()?.header.clone()))
    }

    #[getter]
    fn size(&self) -> PyResult<usize> {
        Ok(self.range()?.len())
    }

    #[getter]
    fn raw(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Octets::view(py, &self.shared.delivery, self.range()?)
    }

    #[getter]
    fn content(&self, py: Python<'_>) -> PyResult<Py<PyBytes>> {
        Ok(self.decoded(py)?.0.clone_ref(py))
    }

    #[getter]
    fn is_truncated(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.decoded(py)?.1)
    }

    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        let (content, is_cut) = self.decoded(py)?;
        let octets = content.as_bytes(py);
        let charset = self.label(py)?;
        let charset = charset.as_deref();
        // Python's own charsets need the GIL.
        let text = if octets.len() >= WORTH_A_RELEASE && transfer::is_known(charset) {
            py.detach(|| transfer::text(octets, charset, *is_cut, &|_, _| None))
        } else {
            transfer::text(octets, charset, *is_cut, &decoder(py))
        };
        Ok(PyString::new(py, &text))
    }

    fn __repr__(&self) -> PyResult<String> {
        let part = self.part()?;
        let path = self.shared.structure.path(self.index);
        let path: Vec<_> = path.iter().map(ToString::to_string).collect();
        let (name, size) = (&part.content_type, part.body.len());
        Ok(format!("<Part {} {name:?}, {size} octets>", path.join(".")))
    }
}

fn decoder(py: Python<'_>) -> impl Fn(&str, &[u8]) -> Option<String> {
    move |label, octets| charset::decode(py, label, octets)
}

fn name_of(bound: mime::Bound) -> &'static str {
    match bound {
        mime::Bound::Depth => "depth",
        mime::Bound::Parts => "parts",
    }
}
