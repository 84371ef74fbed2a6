//! `Envelope.to_bytes` and `from_bytes`: a magic number with the version, the length of a JSON object
//! (32 bits, little-endian), the object, the message. The object is its [record](crate::record).

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use serde_json::value::RawValue;

use super::envelope::{PyEnvelope, concatenate};
use crate::record::{self, Added, Damaged};

const MAGIC: &[u8] = b"GRL1";

impl From<Damaged> for PyErr {
    fn from(damaged: Damaged) -> Self {
        PyValueError::new_err(damaged.to_string())
    }
}

pub(super) fn to_bytes<'py>(envelope: &Bound<'py, PyEnvelope>) -> PyResult<Bound<'py, PyBytes>> {
    let delivery = envelope.get().delivery();
    let json = record::write(delivery, &added(envelope)?);
    let length = u32::try_from(json.len())
        .map_err(|_| PyValueError::new_err("values: too large to be serialised"))?;
    let message = delivery.body.as_slice();
    concatenate(envelope.py(), &[MAGIC, &length.to_le_bytes(), &json, message])
}

pub(super) fn from_bytes(py: Python<'_>, octets: &[u8]) -> PyResult<Py<PyEnvelope>> {
    let bad = |what: &str| PyValueError::new_err(format!("not a serialised envelope: {what}"));
    let rest = octets.strip_prefix(MAGIC).ok_or_else(|| bad("of another kind or version"))?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| bad("cut off"))?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| bad("damaged"))?;
    let (json, message) = rest.split_at_checked(length).ok_or_else(|| bad("cut off"))?;
    let found = record::read(json).map_err(|damaged| bad(&damaged.to_string()))?;
    if found.size != message.len() {
        return Err(bad(&format!("{} octets of a message of {}", message.len(), found.size)));
    }
    PyEnvelope::restored(py, found, message.to_vec())
}

/// What stages have added to an envelope; an error names the key of a value that is not JSON.
pub(super) fn added(envelope: &Bound<'_, PyEnvelope>) -> PyResult<Added> {
    let mut added = Added::default();
    if let Some(hashes) = envelope.get().hashes_if_any(envelope.py()) {
        let hashes = hashes.bind(envelope.py()).extract();
        added.hashes = hashes.map_err(|error: PyErr| {
            PyValueError::new_err(format!("hashes: {}", error.value(envelope.py())))
        })?;
    }
    if let Some(values) = envelope.get().values_if_any(envelope.py()) {
        let values = values.bind(envelope.py());
        if !values.is_empty() {
            added.values = json_of(values)?;
        }
    }
    let (host, headers) = envelope.get().added_fields();
    added.primary_mail_host = host;
    added.headers = headers;
    Ok(added)
}

/// Values that were [added](added), as Python has them.
pub(super) fn values_of<'py>(py: Python<'py>, added: &Added) -> PyResult<Bound<'py, PyDict>> {
    let json = added.values.get();
    if json == "{}" {
        return Ok(PyDict::new(py));
    }
    let values = py.import("json")?.call_method1("loads", (json,))?;
    Ok(values.cast_into::<PyDict>()?)
}

fn json_of<'py>(values: &Bound<'py, PyDict>) -> PyResult<Box<RawValue>> {
    let py = values.py();
    let json = py.import("json")?;
    // NaN and the infinities are no JSON (RFC 8259 §6), though Python writes them where it may.
    let options = PyDict::new(py);
    options.set_item("allow_nan", false)?;
    let dumps = |value: &Bound<'py, PyAny>| json.call_method("dumps", (value,), Some(&options));
    // A key that is no text would come back as one.
    let odd = values.keys().iter().find(|key| !key.is_instance_of::<PyString>());
    if let Some(key) = odd {
        return Err(PyValueError::new_err(format!("values: the key {} is not text", key.repr()?)));
    }
    match dumps(values) {
        Ok(text) => RawValue::from_string(text.extract()?)
            .map_err(|error| PyValueError::new_err(format!("values: not JSON: {error}"))),
        Err(error) => Err(named(values, &dumps).unwrap_or(error)),
    }
}

/// The error of the first value that is not JSON, with its key.
fn named<'py>(
    values: &Bound<'py, PyDict>,
    dumps: &impl Fn(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
) -> Option<PyErr> {
    values.iter().find_map(|(key, value)| {
        let reason = dumps(&value).err()?.value(values.py()).to_string();
        let key = key.repr().ok()?;
        Some(PyValueError::new_err(format!("values[{key}] is not JSON: {reason}")))
    })
}
