//! The octets of a message as a read-only buffer, without a copy.
//!
//! `unsafe` is needed here: Python's buffer protocol hands out a raw pointer. It stays valid because the
//! buffer's owner is this object, which holds the message by an `Arc`; a message is never changed once it
//! is a `Delivery`, in memory or mapped from its file, which nobody else can reach; and
//! `PyBuffer_FillInfo` makes the view hold this object.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ops::Range;
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

use crate::delivery::Delivery;

/// A part of a message that is lent out.
#[pyclass(frozen, name = "_Octets", module = "guerrilla._core")]
pub(super) struct Octets {
    delivery: Arc<Delivery>,
    range: Range<usize>,
}

impl Octets {
    /// A view of `range`, cut to the message.
    pub(super) fn view(
        py: Python<'_>,
        delivery: &Arc<Delivery>,
        range: Range<usize>,
    ) -> PyResult<Py<PyAny>> {
        let lent = Bound::new(py, Self { delivery: Arc::clone(delivery), range })?;
        Ok(PyMemoryView::from(lent.as_any())?.into_any().unbind())
    }

    fn octets(&self) -> &[u8] {
        self.delivery.body.as_slice().get(self.range.clone()).unwrap_or(&[])
    }
}

#[pymethods]
impl Octets {
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let octets = slf.get().octets();
        let length = isize::try_from(octets.len())
            .map_err(|_| PyBufferError::new_err("the message is too large for a buffer"))?;
        // SAFETY: `view` is Python's own, to be filled in; pointer and length are those of a slice that
        // lives as long as `slf`, of which the filled view takes a reference; it is marked read-only.
        let result = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                octets.as_ptr().cast_mut().cast(),
                length,
                1,
                flags,
            )
        };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
