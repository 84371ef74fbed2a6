//! The parameters of MAIL and RCPT (RFC 5321 §4.1.1.11): each is one that is offered, with a value it can have.
//!
//! All of them stay on the address as they were sent; here is what a session obeys.

use crate::smtp::address::{Parameter, ParameterError};
use crate::smtp::error::PeerError;

/// What BODY declares (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BodyType {
    /// `7BIT`, or nothing.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
    /// `BINARYMIME`: for BDAT alone.
    BinaryMime,
}

/// What the parameters of MAIL ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// The size it declares (RFC 1870).
    pub size: Option<u64>,
    /// What kind of octets come.
    pub body: BodyType,
    /// Whether addresses and header fields may be UTF-8 (RFC 6531).
    pub smtputf8: bool,
}

impl MailParameters {
    /// What these say.
    pub(super) fn read(parameters: &[Parameter]) -> Result<Self, PeerError> {
        let mut read = Self::default();
        for Parameter { keyword, value } in parameters {
            match keyword.as_str() {
                "SIZE" => read.size = Some(size(value.as_deref())?),
                "BODY" => read.body = body(value.as_deref())?,
                _ => return Err(PeerError::UnknownParameter(keyword.clone())),
            }
        }
        Ok(read)
    }
}

/// What the parameters of RCPT ask for: nothing that a session obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RcptParameters {}

impl RcptParameters {
    /// What these say.
    pub(super) fn read(parameters: &[Parameter]) -> Result<Self, PeerError> {
        match parameters.first() {
            None => Ok(Self {}),
            Some(parameter) => Err(PeerError::UnknownParameter(parameter.keyword.clone())),
        }
    }
}

/// RFC 1870 §3: one to twenty digits.
fn size(value: Option<&str>) -> Result<u64, PeerError> {
    let digits = value.ok_or(PeerError::Parameters(ParameterError::Syntax))?;
    if digits.is_empty() || digits.len() > 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PeerError::BadParameter);
    }
    // Twenty digits can be more than 64 bits hold: larger than any limit either way.
    Ok(digits.parse().unwrap_or(u64::MAX))
}

/// RFC 6152 §3, RFC 3030 §3.
fn body(value: Option<&str>) -> Result<BodyType, PeerError> {
    match value {
        Some(value) if value.eq_ignore_ascii_case("7BIT") => Ok(BodyType::SevenBit),
        Some(value) if value.eq_ignore_ascii_case("8BITMIME") => Ok(BodyType::EightBitMime),
        Some(value) if value.eq_ignore_ascii_case("BINARYMIME") => Ok(BodyType::BinaryMime),
        _ => Err(PeerError::BadParameter),
    }
}
