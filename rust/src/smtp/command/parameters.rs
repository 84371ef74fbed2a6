//! The parameters of MAIL and RCPT (RFC 5321 §4.1.1.11): each is one that is offered, with a value it can have.
//!
//! All of them stay on the address as they were sent; here is what a session obeys.

use super::Scope;
use crate::smtp::address::{Parameter, ParameterError};
use crate::smtp::dsn;
use crate::smtp::error::PeerError;
use crate::smtp::extensions::Extensions;
use crate::smtp::xtext;

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
    /// What these say; none that is not offered.
    pub(super) fn read(parameters: &[Parameter], scope: &Scope) -> Result<Self, PeerError> {
        let offered = &scope.extensions;
        let mut read = Self::default();
        for Parameter { keyword, value } in parameters {
            let value = value.as_deref();
            match &**keyword {
                "SIZE" if offered.size => read.size = Some(size(value)?),
                "BODY" if offered.eight_bit_mime || offered.binary_mime() => {
                    read.body = body(value, offered)?;
                }
                "AUTH" if scope.auth => auth(value)?,
                "SMTPUTF8" if offered.offers_smtputf8() => {
                    read.smtputf8 = value.is_none();
                    check("SMTPUTF8", read.smtputf8)?;
                }
                "RET" if offered.dsn => check("RET", value.and_then(dsn::parse_return).is_some())?,
                "ENVID" if offered.dsn => {
                    check("ENVID", value.and_then(dsn::parse_envelope_id).is_some())?;
                }
                _ => return Err(PeerError::UnknownParameter(keyword.to_string())),
            }
        }
        Ok(read)
    }
}

/// Refuses parameters of RCPT that are not offered, or cannot be so: what they ask for a session need not know.
pub(super) fn check_rcpt(parameters: &[Parameter], scope: &Scope) -> Result<(), PeerError> {
    for Parameter { keyword, value } in parameters {
        let value = value.as_deref();
        match &**keyword {
            "NOTIFY" if scope.extensions.dsn => {
                check("NOTIFY", value.and_then(dsn::parse_notify).is_some())?;
            }
            "ORCPT" if scope.extensions.dsn => {
                check("ORCPT", value.and_then(dsn::parse_original_recipient).is_some())?;
            }
            _ => return Err(PeerError::UnknownParameter(keyword.to_string())),
        }
    }
    Ok(())
}

/// Refuses the parameter named, unless its value is one that it can have.
fn check(keyword: &'static str, good: bool) -> Result<(), PeerError> {
    if good { Ok(()) } else { Err(PeerError::BadValue(keyword)) }
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

/// RFC 4954 §5: `<>` or a mailbox, as xtext. Who submitted the message is nothing that anybody trusts here.
fn auth(value: Option<&str>) -> Result<(), PeerError> {
    let decoded = value.and_then(|value| xtext::decode(value.as_bytes()));
    if decoded.is_some_and(|name| !name.is_empty()) { Ok(()) } else { Err(PeerError::BadParameter) }
}

/// RFC 6152 §3, RFC 3030 §3.
fn body(value: Option<&str>, offered: &Extensions) -> Result<BodyType, PeerError> {
    let is = |name: &str| value.is_some_and(|value| value.eq_ignore_ascii_case(name));
    if is("7BIT") {
        Ok(BodyType::SevenBit)
    } else if offered.eight_bit_mime && is("8BITMIME") {
        Ok(BodyType::EightBitMime)
    } else if offered.binary_mime() && is("BINARYMIME") {
        Ok(BodyType::BinaryMime)
    } else {
        Err(PeerError::BadParameter)
    }
}
