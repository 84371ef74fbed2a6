//! The grammar of addresses (RFC 5321 §4.1.2, §4.1.3), read from the front by a [`Scanner`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;

use memchr::memchr;

use super::{Address, AddressError, Charset, MAX_DOMAIN, MAX_LOCAL_PART, MAX_PATH, PathKind};
use crate::smtp::idn;
use crate::smtp::xtext::is_unprintable;

/// Octets of one label of a domain (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// What is left to read. Methods take a piece off its front or fail; after a failure it is spent.
pub(super) struct Scanner<'a> {
    pub(super) rest: &'a [u8],
    /// What the text may be made of (RFC 6531 §3.3).
    pub(super) charset: Charset,
}

impl<'a> Scanner<'a> {
    /// After `<`: everything up to and with `>`.
    pub(super) fn path(&mut self, kind: PathKind) -> Result<Address, AddressError> {
        let length = self.rest.len() + "<".len();
        if kind == PathKind::Reverse && self.eat(b'>') {
            return Ok(Address::null());
        }
        let route = self.route()?;
        let mut address = self.mailbox()?;
        address.route = route;
        let bare_postmaster = address.host.is_empty();
        let complete = !bare_postmaster || (kind == PathKind::Forward && address.route.is_empty());
        if !complete || !self.eat(b'>') {
            return Err(AddressError::Syntax);
        }
        if length - self.rest.len() > MAX_PATH {
            return Err(AddressError::PathTooLong);
        }
        Ok(address)
    }

    /// The source route `@a,@b:`, if there is one (the A-d-l of the RFC).
    fn route(&mut self) -> Result<Vec<String>, AddressError> {
        let mut route = Vec::new();
        while self.eat(b'@') {
            route.push(text(self.domain()?, self.charset)?);
            if self.eat(b':') {
                return Ok(route);
            }
            if !self.eat(b',') {
                return Err(AddressError::Syntax);
            }
        }
        // No `@` at once means no route; no `@` after a `,` is an error.
        if route.is_empty() { Ok(route) } else { Err(AddressError::Syntax) }
    }

    /// `user@host`; or `postmaster`, the only user that needs no host.
    pub(super) fn mailbox(&mut self) -> Result<Address, AddressError> {
        let user = if self.eat(b'"') { self.quoted_string()? } else { self.dot_string()? };
        if user.len() > MAX_LOCAL_PART {
            return Err(AddressError::LocalPartTooLong);
        }
        let (host, ip) = if self.eat(b'@') {
            self.host()?
        } else if is_postmaster(&user) {
            (String::new(), None)
        } else {
            return Err(AddressError::Syntax);
        };
        Ok(Address { user, host, ip, route: Vec::new(), parameters: Vec::new() })
    }

    fn dot_string(&mut self) -> Result<String, AddressError> {
        let charset = self.charset;
        let atoms = self
            .take_while(|byte| byte == b'.' || is_atext(byte) || charset.has_beyond_ascii(byte));
        if dots_separate(atoms) { text(atoms, charset) } else { Err(AddressError::Syntax) }
    }

    /// After the opening quote: up to and with the closing one; backslashes are taken out.
    fn quoted_string(&mut self) -> Result<String, AddressError> {
        let mut user = String::new();
        let charset = self.charset;
        loop {
            let plain = self.take_while(|byte| {
                (is_printable(byte) && !matches!(byte, b'"' | b'\\'))
                    || charset.has_beyond_ascii(byte)
            });
            user.push_str(str::from_utf8(plain).map_err(|_| AddressError::NotUtf8)?);
            let (&byte, rest) = self.rest.split_first().ok_or(AddressError::Syntax)?;
            self.rest = rest;
            match (byte, rest) {
                (b'"', _) if charset == Charset::Utf8 && user.chars().any(is_unprintable) => {
                    return Err(AddressError::Syntax);
                }
                (b'"', _) => return Ok(user),
                (b'\\', [escaped, rest @ ..]) if is_printable(*escaped) => {
                    user.push(char::from(*escaped));
                    self.rest = rest;
                }
                _ => return Err(AddressError::Syntax),
            }
        }
    }

    fn host(&mut self) -> Result<(String, Option<IpAddr>), AddressError> {
        if self.rest.first() != Some(&b'[') {
            return Ok((text(self.domain()?, self.charset)?, None));
        }
        let end = memchr(b']', self.rest).ok_or(AddressError::Syntax)?;
        let ip = literal(self.take(end + 1)).ok_or(AddressError::Syntax)?;
        Ok((literal_text(ip), Some(ip)))
    }

    #[inline]
    fn domain(&mut self) -> Result<&'a [u8], AddressError> {
        let charset = self.charset;
        let domain = self.take_while(|byte| {
            byte == b'.' || is_label_byte(byte) || charset.has_beyond_ascii(byte)
        });
        if domain.len() > MAX_DOMAIN {
            // Before the labels are looked at: one endless label is a domain too long.
            Err(AddressError::DomainTooLong)
        } else if charset == Charset::Utf8 && !domain.is_ascii() {
            // RFC 6531 §3.3: each label that is not ASCII is a U-label.
            let name = str::from_utf8(domain).map_err(|_| AddressError::NotUtf8)?;
            idn::to_ascii(name).map(|_| domain).ok_or(AddressError::Syntax)
        } else if labels_fit(domain) {
            Ok(domain)
        } else {
            Err(AddressError::Syntax)
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| !accept(byte));
        self.take(end.unwrap_or(self.rest.len()))
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, b""));
        self.rest = rest;
        taken
    }
}

/// Whether the path that starts after `<` holds an octet over 127 before the `>` that ends it.
/// Only a path that failed is looked at.
#[cold]
pub(super) fn path_has_non_ascii(path: &[u8]) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    for &byte in path {
        match byte {
            0x80.. => return true,
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return false,
            _ => {}
        }
    }
    false
}

/// A domain of letters, digits, hyphens and (real hosts use it) underscores, without trailing dot.
pub(in crate::smtp) fn is_domain(text: &[u8]) -> bool {
    text.len() <= MAX_DOMAIN
        && labels_fit(text)
        && text.iter().all(|&byte| byte == b'.' || is_label_byte(byte))
}

/// The address in `[127.0.0.1]` or `[IPv6:2001:db8::1]`; general literals have no use in mail.
pub(in crate::smtp) fn literal(text: &[u8]) -> Option<IpAddr> {
    let inner = text.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let inner = str::from_utf8(inner).ok()?;
    match inner.split_at_checked("IPv6:".len()) {
        Some((tag, v6)) if tag.eq_ignore_ascii_case("IPv6:") => {
            v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

pub(super) fn literal_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}

pub(super) fn is_postmaster(user: &str) -> bool {
    user.eq_ignore_ascii_case("postmaster")
}

pub(super) fn is_dot_string(text: &[u8]) -> bool {
    let is_atom = |&byte: &u8| byte == b'.' || is_atext(byte) || !byte.is_ascii();
    dots_separate(text) && text.iter().all(is_atom)
}

/// Whether there is something before, between and after the dots.
fn dots_separate(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'.').all(|atom| !atom.is_empty())
}

/// `atext` of RFC 5322 §3.2.3.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'/' | b'=' | b'?')
        || matches!(byte, b'^'..=b'`' | b'{'..=b'~')
}

/// What may stand in a quoted string, behind a backslash or (but for `"` and `\`) without.
fn is_printable(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

/// Whether the labels in text of label bytes and dots are as long as they may be and have no hyphen
/// at either end.
fn labels_fit(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'.').all(|label| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.first() != Some(&b'-')
            && label.last() != Some(&b'-')
    })
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Copies text; what is not UTF-8 is none, nor what has controls (those of ASCII are no text before that).
pub(super) fn text(octets: &[u8], charset: Charset) -> Result<String, AddressError> {
    let text = str::from_utf8(octets).map_err(|_| AddressError::NotUtf8)?;
    if charset == Charset::Utf8 && text.chars().any(is_unprintable) {
        return Err(AddressError::Syntax);
    }
    Ok(text.to_owned())
}
