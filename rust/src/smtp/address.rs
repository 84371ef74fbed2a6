//! Addresses as MAIL, RCPT and HELO carry them (RFC 5321 §4.1.2, §4.1.3), and ESMTP parameters.
//!
//! Header addresses with display names (RFC 5322) are another grammar and live elsewhere.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::str;

use memchr::memchr;

use super::idn;
use crate::short::ShortText;

mod grammar;
#[cfg(test)]
mod tests;

use grammar::{Scanner, is_dot_string, is_postmaster, literal_text, path_has_non_ascii, text};
pub(super) use grammar::{is_domain, literal};

/// Octets of a local part, unquoted: twice the 64 of RFC 5321 §4.5.3.1.1, since large services go
/// over it (Go-Guerrilla takes 128 too).
pub(super) const MAX_LOCAL_PART: usize = 128;
/// Octets of a domain (RFC 5321 §4.5.3.1.2).
pub(super) const MAX_DOMAIN: usize = 255;
/// Octets of a path with its brackets, without parameters (RFC 5321 §4.5.3.1.3).
pub(super) const MAX_PATH: usize = 256;

/// A reverse-path or forward-path address (RFC 5321 §4.1.2).
///
/// The null reverse-path has an empty user and host; `<Postmaster>` has an empty host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Address {
    /// The user, and the host behind it: nothing is allocated for most addresses.
    text: ShortText,
    /// Octets of the user.
    user: usize,
    /// Boxed: nobody sends one.
    route: Option<Box<[String]>>,
    parameters: Vec<Parameter>,
}

/// One ESMTP parameter of MAIL or RCPT (RFC 5321 §4.1.1.11).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parameter {
    /// The keyword, upper-cased.
    pub keyword: Cow<'static, str>,
    /// What follows `=`, as sent; `None` without one, never empty.
    pub value: Option<ShortText>,
}

/// Which command a path belongs to: that decides between `<>` and `<Postmaster>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// The path of MAIL FROM: may be null.
    Reverse,
    /// The path of RCPT TO: may be `<Postmaster>` without a domain.
    Forward,
}

/// What the text of paths and parameters may be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// ASCII.
    Ascii,
    /// UTF-8 (RFC 6531).
    Utf8,
}

impl Charset {
    /// Whether an octet is of a character that is not ASCII, and may be there.
    pub(super) fn has_beyond_ascii(self, octet: u8) -> bool {
        !octet.is_ascii() && self == Self::Utf8
    }
}

/// Why an address was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// It does not follow the grammar.
    Syntax,
    /// The path with its brackets is over 256 octets.
    PathTooLong,
    /// The local part, unquoted, is over 128 octets.
    LocalPartTooLong,
    /// The domain is over 255 octets.
    DomainTooLong,
    /// It holds an octet over 127, which needs SMTPUTF8 (RFC 6531).
    NonAscii,
    /// With SMTPUTF8, it holds octets that are not UTF-8 (RFC 3629).
    NotUtf8,
}

/// Why the parameters of MAIL or RCPT were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterError {
    /// They do not follow the grammar.
    Syntax,
    /// The keyword named, upper-cased, is there twice.
    Repeated(String),
}

impl Address {
    /// The null reverse-path, `<>`.
    #[must_use]
    pub fn null() -> Self {
        Self::default()
    }

    /// An address of an unquoted user and a host, neither of which is checked.
    ///
    /// A host that is a valid address literal is normalised and sets [`ip`](Self::ip).
    #[must_use]
    pub fn new(user: impl AsRef<str>, host: impl AsRef<str>) -> Self {
        let (user, host) = (user.as_ref(), host.as_ref());
        let text = match literal(host.as_bytes()) {
            Some(ip) => ShortText::joined(&[user, &literal_text(ip)]),
            None => ShortText::joined(&[user, host]),
        };
        Self { text, user: user.len(), ..Self::default() }
    }

    /// Parses a mailbox without angle brackets, `user@host`.
    ///
    /// Also takes what [`Display`](fmt::Display) writes for the others, `""` (null) and
    /// `postmaster`, and a path in brackets, `<>` included.
    ///
    /// # Errors
    ///
    /// As [`parse_path`]; the limit of a path counts the brackets even when they are not there.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text == "<>" {
            return Ok(Self::null());
        }
        let charset = Charset::Utf8;
        let (address, rest) = if text.starts_with('<') {
            parse_path_in(text.as_bytes(), PathKind::Forward, charset)?
        } else {
            let mut scanner = Scanner { rest: text.as_bytes(), charset };
            let address = scanner.mailbox()?;
            if text.len() + "<>".len() > MAX_PATH {
                return Err(AddressError::PathTooLong);
            }
            (address, scanner.rest)
        };
        if rest.is_empty() { Ok(address) } else { Err(AddressError::Syntax) }
    }

    /// The local part without its quotes and backslashes.
    #[must_use]
    pub fn user(&self) -> &str {
        self.text.get(..self.user).unwrap_or_default()
    }

    /// The domain as sent, or the literal, normalised: `[127.0.0.1]`, `[IPv6:2001:db8::1]`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.text.get(self.user..).unwrap_or_default()
    }

    /// The host in its A-form, in lower case: what two spellings of one host have in common.
    ///
    /// A host that cannot have one, which no path has, is as it is.
    #[must_use]
    pub fn ascii_host(&self) -> Cow<'_, str> {
        idn::to_ascii(self.host()).unwrap_or(Cow::Borrowed(self.host()))
    }

    /// Whether nothing in it but its parameters needs SMTPUTF8.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii() && self.route().iter().all(|one| one.is_ascii())
    }

    /// The address in the literal that the host is, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        literal(self.host().as_bytes())
    }

    /// The hosts of the source route, in order; RFC 5321 §4.1.1.3 says to ignore them.
    #[must_use]
    pub fn route(&self) -> &[String] {
        self.route.as_deref().unwrap_or_default()
    }

    /// The ESMTP parameters that came with the path, in order.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Whether this is the null reverse-path.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether this is `<Postmaster>` without a host, in any case (RFC 5321 §4.5.1).
    #[must_use]
    pub fn is_postmaster(&self) -> bool {
        self.text.len() == self.user && is_postmaster(self.user().as_bytes())
    }

    /// Gives it other parameters.
    pub(super) fn set_parameters(&mut self, parameters: Vec<Parameter>) {
        self.parameters = parameters;
    }

    /// The same address with other parameters.
    #[must_use]
    pub fn with_parameters(self, parameters: Vec<Parameter>) -> Self {
        Self { parameters, ..self }
    }

    /// The same address with another source route.
    #[must_use]
    pub fn with_route(self, route: Vec<String>) -> Self {
        Self { route: (!route.is_empty()).then(|| route.into()), ..self }
    }

    /// The same address with another host, taken as [`new`](Self::new) takes it; this is how
    /// `<Postmaster>` gets one.
    #[must_use]
    pub fn with_host(self, host: impl AsRef<str>) -> Self {
        let Self { text, user, .. } = Self::new(self.user(), host);
        Self { text, user, ..self }
    }
}

impl fmt::Display for Address {
    /// Writes `user@host`, the user quoted only where it must be; a source route is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_null() {
            return Ok(());
        }
        let (user, host) = (self.user(), self.host());
        if is_dot_string(user.as_bytes()) {
            f.write_str(user)?;
        } else {
            write_quoted(user, f)?;
        }
        if host.is_empty() { Ok(()) } else { write!(f, "@{host}") }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("Invalid address"),
            Self::PathTooLong => write!(f, "Path too long, cannot exceed {MAX_PATH} octets"),
            Self::LocalPartTooLong => {
                write!(f, "Local part too long, cannot exceed {MAX_LOCAL_PART} octets")
            }
            Self::DomainTooLong => write!(f, "Domain cannot exceed {MAX_DOMAIN} characters"),
            Self::NonAscii => f.write_str("Address is not ASCII"),
            Self::NotUtf8 => f.write_str("Address is not UTF-8"),
        }
    }
}

impl Error for AddressError {}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("Invalid parameter"),
            Self::Repeated(keyword) => write!(f, "Parameter {keyword} given twice"),
        }
    }
}

impl Error for ParameterError {}

/// [`parse_path_in`] ASCII.
///
/// # Errors
///
/// As there.
pub fn parse_path(input: &[u8], kind: PathKind) -> Result<(Address, &[u8]), AddressError> {
    parse_path_in(input, kind, Charset::Ascii)
}

/// Parses what follows `FROM:` or `TO:`, one leading space tolerated, and returns the address with
/// the bytes after `>`, for [`parse_parameters_in`].
///
/// # Errors
///
/// The first limit that is broken, local part before domain before path, or `Syntax`; `NonAscii`
/// goes before all of them, so that the sender learns that SMTPUTF8 is what it lacks.
pub fn parse_path_in(
    input: &[u8],
    kind: PathKind,
    charset: Charset,
) -> Result<(Address, &[u8]), AddressError> {
    let path = input.strip_prefix(b" ").unwrap_or(input);
    let rest = path.strip_prefix(b"<").ok_or(AddressError::Syntax)?;
    let mut scanner = Scanner { rest, charset };
    match scanner.path(kind) {
        Ok(address) => Ok((address, scanner.rest)),
        Err(_) if charset == Charset::Ascii && path_has_non_ascii(rest) => {
            Err(AddressError::NonAscii)
        }
        Err(error) => Err(error),
    }
}

/// [`parse_parameters_in`] ASCII.
///
/// # Errors
///
/// As there.
pub fn parse_parameters(rest: &[u8]) -> Result<Vec<Parameter>, ParameterError> {
    parse_parameters_in(rest, Charset::Ascii)
}

/// Parses what follows the path, ` SIZE=100 BODY=8BITMIME` (RFC 5321 §4.1.1.11).
///
/// Spaces at the end are tolerated, as §4.1.1 asks, and so are several between two parameters.
///
/// # Errors
///
/// `Repeated` for a keyword that came before in any case, but SMTPUTF8 and BODY that say the same
/// again, `Syntax` for everything else.
pub fn parse_parameters_in(
    rest: &[u8],
    charset: Charset,
) -> Result<Vec<Parameter>, ParameterError> {
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let rest = rest.strip_prefix(b" ").ok_or(ParameterError::Syntax)?;
    let mut parameters: Vec<Parameter> = Vec::new();
    for word in rest.split(|&byte| byte == b' ').filter(|word| !word.is_empty()) {
        let parameter = parse_parameter(word, charset).ok_or(ParameterError::Syntax)?;
        match parameters.iter().find(|earlier| earlier.keyword == parameter.keyword) {
            None => parameters.push(parameter),
            Some(earlier) if *earlier == parameter && may_repeat(&parameter.keyword) => {}
            Some(_) => return Err(ParameterError::Repeated(parameter.keyword.into_owned())),
        }
    }
    Ok(parameters)
}

/// The argument of HELO or EHLO, spaces at its end cut off: a domain or an address literal, at
/// most 255 octets.
///
/// Clients do send a trailing dot or an address without brackets; both are taken.
#[must_use]
pub fn parse_helo(argument: &[u8]) -> Option<&str> {
    let text = str::from_utf8(argument).ok()?.trim_end_matches(' ');
    let domain = text.strip_suffix('.').unwrap_or(text).as_bytes();
    let valid = text.len() <= MAX_DOMAIN
        && (is_domain(domain)
            || literal(text.as_bytes()).is_some()
            || text.parse::<IpAddr>().is_ok());
    valid.then_some(text)
}

/// Python's `smtplib.send_message` adds both to those of its caller, and Postfix takes them twice. RFC 3461
/// §4.5 has 501 for the keywords of DSN.
fn may_repeat(keyword: &str) -> bool {
    matches!(keyword, "SMTPUTF8" | "BODY")
}

fn parse_parameter(word: &[u8], charset: Charset) -> Option<Parameter> {
    let (keyword, value) = match memchr(b'=', word) {
        Some(at) => (word.get(..at)?, Some(word.get(at + 1..)?)),
        None => (word, None),
    };
    let is_value = |value: &[u8]| {
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'=';
        !value.is_empty()
            && value.iter().all(|&byte| allowed(byte) || charset.has_beyond_ascii(byte))
    };
    let valid = keyword.first()?.is_ascii_alphanumeric()
        && keyword.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && value.is_none_or(is_value);
    if !valid {
        return None;
    }
    let value = match value {
        Some(value) => Some(ShortText::from_octets(&[text(value, charset).ok()?])?),
        None => None,
    };
    Some(Parameter { keyword: upper(keyword)?, value })
}

/// In upper case; those that are known are not allocated.
fn upper(keyword: &[u8]) -> Option<Cow<'static, str>> {
    const KNOWN: [&str; 8] =
        ["SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID", "NOTIFY", "ORCPT"];
    match KNOWN.into_iter().find(|known| keyword.eq_ignore_ascii_case(known.as_bytes())) {
        Some(known) => Some(Cow::Borrowed(known)),
        None => String::from_utf8(keyword.to_ascii_uppercase()).ok().map(Cow::Owned),
    }
}

fn write_quoted(user: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for character in user.chars() {
        if matches!(character, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
    }
    f.write_char('"')
}
