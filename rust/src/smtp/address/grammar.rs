//! The grammar of addresses (RFC 5321 §4.1.2, §4.1.3), read from the front by a [`Scanner`].

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;

use memchr::memchr;

use super::{Address, AddressError, Charset, MAX_DOMAIN, MAX_LOCAL_PART, MAX_PATH, PathKind};
use crate::short::ShortText;
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
        let address = self.mailbox()?;
        let bare_postmaster = address.text.len() == address.user;
        let complete = !bare_postmaster || (kind == PathKind::Forward && route.is_empty());
        if !complete || !self.eat(b'>') {
            return Err(AddressError::Syntax);
        }
        if length - self.rest.len() > MAX_PATH {
            return Err(AddressError::PathTooLong);
        }
        if route.is_empty() { Ok(address) } else { Ok(address.with_route(route)) }
    }

    /// The source route `@a,@b:`, if there is one (the A-d-l of the RFC).
    fn route(&mut self) -> Result<Vec<String>, AddressError> {
        let mut route = Vec::new();
        while self.eat(b'@') {
            let host = str::from_utf8(self.domain()?).map_err(|_| AddressError::NotUtf8)?;
            route.push(host.to_owned());
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
        let user = if self.eat(b'"') {
            Cow::Owned(self.quoted_string()?.into_bytes())
        } else {
            Cow::Borrowed(self.dot_string()?)
        };
        if user.len() > MAX_LOCAL_PART {
            return Err(AddressError::LocalPartTooLong);
        }
        let host = if self.eat(b'@') {
            self.host()?
        } else if is_postmaster(&user) {
            Cow::Borrowed(&b""[..])
        } else {
            return Err(AddressError::Syntax);
        };
        let text = ShortText::from_octets(&[&user, &host]).ok_or(AddressError::NotUtf8)?;
        Ok(Address { text, user: user.len(), ..Address::default() })
    }

    fn dot_string(&mut self) -> Result<&'a [u8], AddressError> {
        let (atoms, separated) = self.take_dotted(ATEXT, DOT);
        if separated { text(atoms, self.charset) } else { Err(AddressError::Syntax) }
    }

    /// After the opening quote: up to and with the closing one; backslashes are taken out.
    fn quoted_string(&mut self) -> Result<String, AddressError> {
        let mut user = String::new();
        let charset = self.charset;
        loop {
            let plain = self.take_all(QTEXT);
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

    fn host(&mut self) -> Result<Cow<'a, [u8]>, AddressError> {
        if self.rest.first() != Some(&b'[') {
            return Ok(Cow::Borrowed(text(self.domain()?, self.charset)?));
        }
        let end = memchr(b']', self.rest).ok_or(AddressError::Syntax)?;
        let ip = literal(self.take(end + 1)).ok_or(AddressError::Syntax)?;
        Ok(Cow::Owned(literal_text(ip).into_bytes()))
    }

    #[inline]
    fn domain(&mut self) -> Result<&'a [u8], AddressError> {
        let charset = self.charset;
        let (domain, separated) = self.take_dotted(LABEL, EDGE);
        if domain.len() > MAX_DOMAIN {
            // Before the labels are looked at: one endless label is a domain too long.
            Err(AddressError::DomainTooLong)
        } else if charset == Charset::Utf8 && !domain.is_ascii() {
            // RFC 6531 §3.3: each label that is not ASCII is a U-label.
            let name = str::from_utf8(domain).map_err(|_| AddressError::NotUtf8)?;
            idn::to_ascii(name).map(|_| domain).ok_or(AddressError::Syntax)
        } else if separated && are_short(domain) {
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

    /// All octets at the front that are of one of these classes, or, with SMTPUTF8, not ASCII.
    fn take_all(&mut self, classes: u8) -> &'a [u8] {
        let wanted = if self.charset == Charset::Utf8 { classes | BEYOND } else { classes };
        let end = self.rest.iter().position(|&byte| class(byte) & wanted == 0);
        self.take(end.unwrap_or(self.rest.len()))
    }

    /// The same, with dots, and whether something stands before, between and after the dots, none of it with an
    /// octet of the class `edge` beside one.
    fn take_dotted(&mut self, classes: u8, edge: u8) -> (&'a [u8], bool) {
        let beyond = if self.charset == Charset::Utf8 { BEYOND } else { 0 };
        let (length, separated) = dotted(self.rest, classes | beyond, edge);
        (self.take(length), separated)
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
    text.len() <= MAX_DOMAIN && dotted(text, LABEL, EDGE) == (text.len(), true) && are_short(text)
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

pub(super) fn is_postmaster(user: &[u8]) -> bool {
    user.eq_ignore_ascii_case(b"postmaster")
}

pub(super) fn is_dot_string(text: &[u8]) -> bool {
    dotted(text, ATEXT | BEYOND, DOT) == (text.len(), true)
}

/// How many octets at the front are dots or of these classes, and whether they are as
/// [`take_dotted`](Scanner::take_dotted) says.
fn dotted(text: &[u8], classes: u8, edge: u8) -> (usize, bool) {
    let mut separated = true;
    let mut before = DOT | edge;
    let mut length = 0;
    for &byte in text {
        let of = class(byte);
        if of & (classes | DOT) == 0 {
            break;
        }
        separated &= (of | before) & DOT == 0 || of & before & edge == 0;
        before = of;
        length += 1;
    }
    (length, separated && before & DOT == 0 && before & edge == 0)
}

/// `atext` of RFC 5322 §3.2.3.
const ATEXT: u8 = 1;
/// What may stand in a label: letters, digits, `-` and `_`.
const LABEL: u8 = 2;
/// `.`
const DOT: u8 = 4;
/// `qtextSMTP`: what may stand in a quoted string without a backslash.
const QTEXT: u8 = 8;
/// What is not ASCII.
const BEYOND: u8 = 16;
/// What no label begins or ends with.
const EDGE: u8 = 32;

/// The classes of each octet: one look at a table an octet, where comparing takes a dozen.
#[allow(clippy::indexing_slicing, reason = "the compiler makes it, and says what is wrong")]
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut octet: u8 = 255;
    while octet > 0 {
        classes[octet as usize] = classes_of(octet);
        octet -= 1;
    }
    classes
};

const fn classes_of(byte: u8) -> u8 {
    match byte {
        b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => ATEXT | LABEL | QTEXT,
        b'-' => ATEXT | LABEL | QTEXT | EDGE,
        b'!' | b'#'..=b'\'' | b'*' | b'+' | b'/' | b'=' | b'?' | b'^' | b'`' | b'{'..=b'~' => {
            ATEXT | QTEXT
        }
        b'.' => DOT | QTEXT | EDGE,
        b'"' | b'\\' => 0,
        b' '..=b'~' => QTEXT,
        0x80.. => BEYOND,
        _ => 0,
    }
}

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// What may stand in a quoted string behind a backslash.
fn is_printable(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

/// Whether no label is longer than it may be.
fn are_short(domain: &[u8]) -> bool {
    domain.len() <= MAX_LABEL
        || domain.split(|&byte| byte == b'.').all(|label| label.len() <= MAX_LABEL)
}

/// What is not UTF-8 is no text, nor what has controls (those of ASCII are no text before that).
pub(super) fn text(octets: &[u8], charset: Charset) -> Result<&[u8], AddressError> {
    if charset == Charset::Utf8 {
        let text = str::from_utf8(octets).map_err(|_| AddressError::NotUtf8)?;
        if text.chars().any(is_unprintable) {
            return Err(AddressError::Syntax);
        }
    }
    Ok(octets)
}
