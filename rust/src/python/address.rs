//! `Address`.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::smtp::{Address, Parameter, dsn, idn};

/// `_core.Address`.
#[pyclass(frozen, name = "Address", module = "guerrilla._core")]
#[derive(Clone, Debug)]
pub(super) struct PyAddress(pub(super) Address);

#[pymethods]
impl PyAddress {
    #[new]
    #[pyo3(signature = (user, host, parameters = None))]
    fn new(user: &str, host: &str, parameters: Option<Bound<'_, PyDict>>) -> PyResult<Self> {
        let parameters = parameters.map(|given| from_dict(&given)).transpose()?;
        Ok(Self(Address::new(user, host).with_parameters(parameters.unwrap_or_default())))
    }

    #[staticmethod]
    fn parse(text: &str) -> PyResult<Self> {
        Ok(Self(Address::parse(text)?))
    }

    #[getter]
    fn user(&self) -> &str {
        self.0.user()
    }

    #[getter]
    fn host(&self) -> &str {
        self.0.host()
    }

    #[getter]
    fn ascii_host(&self) -> Cow<'_, str> {
        self.0.ascii_host()
    }

    #[getter]
    fn ip(&self) -> Option<String> {
        self.0.ip().map(|ip| ip.to_string())
    }

    #[getter]
    fn route<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.route())
    }

    #[getter]
    fn is_null(&self) -> bool {
        self.0.is_null()
    }

    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        to_dict(py, self.0.parameters())
    }

    #[getter]
    fn notify<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        dsn::notify(self.0.parameters()).map(|asked| PyTuple::new(py, asked)).transpose()
    }

    #[getter]
    fn original_recipient(&self) -> Option<String> {
        dsn::original_recipient(self.0.parameters())
    }

    /// The same mailbox: RFC 5321 §2.4 says that hosts match in any case and local parts do not.
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| {
            let other = &other.get().0;
            self.0.user() == other.user() && self.0.ascii_host() == other.ascii_host()
        })
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.user().hash(&mut hasher);
        self.0.ascii_host().hash(&mut hasher);
        hasher.finish()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Address({:?})", self.0.to_string())
    }
}

/// `_core.ascii_host`.
#[pyfunction]
pub(super) fn ascii_host(host: &str) -> PyResult<String> {
    idn::to_ascii(host)
        .map(Cow::into_owned)
        .ok_or_else(|| PyValueError::new_err(format!("not a host name: {host:?}")))
}

/// `user@host`, or an `Address`.
#[derive(FromPyObject)]
pub(super) enum AddressLike<'py> {
    Text(String),
    Address(Bound<'py, PyAddress>),
}

impl AddressLike<'_> {
    pub(super) fn into_address(self) -> PyResult<Address> {
        match self {
            Self::Text(text) => Ok(Address::parse(&text)?),
            Self::Address(address) => Ok(address.get().0.clone()),
        }
    }
}

pub(super) fn to_dict<'py>(
    py: Python<'py>,
    parameters: &[Parameter],
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for Parameter { keyword, value } in parameters {
        dict.set_item(&**keyword, value.as_deref())?;
    }
    Ok(dict)
}

/// Parameters in the order of the dict.
pub(super) fn from_dict(given: &Bound<'_, PyDict>) -> PyResult<Vec<Parameter>> {
    let pairs = given.iter().map(|(keyword, value)| {
        let keyword = keyword.extract::<String>()?.to_ascii_uppercase();
        let value: Option<String> = value.extract()?;
        Ok(Parameter { keyword: keyword.into(), value: value.map(Into::into) })
    });
    pairs.collect()
}
