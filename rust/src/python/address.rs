//! `Address`.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::smtp::{Address, Parameter};

/// `_core.Address`.
#[pyclass(frozen, eq, hash, name = "Address", module = "guerrilla._core")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PyAddress(pub(super) Address);

#[pymethods]
impl PyAddress {
    #[new]
    #[pyo3(signature = (user, host, parameters = None))]
    fn new(user: &str, host: &str, parameters: Option<HashMap<String, Option<String>>>) -> Self {
        Self(Address::new(user, host).with_parameters(from_mapping(parameters)))
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

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Address({:?})", self.0.to_string())
    }
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
        dict.set_item(keyword, value)?;
    }
    Ok(dict)
}

pub(super) fn from_mapping(given: Option<HashMap<String, Option<String>>>) -> Vec<Parameter> {
    let mut parameters: Vec<Parameter> = given
        .unwrap_or_default()
        .into_iter()
        .map(|(keyword, value)| Parameter { keyword: keyword.to_ascii_uppercase(), value })
        .collect();
    parameters.sort_by(|one, other| one.keyword.cmp(&other.keyword));
    parameters
}
