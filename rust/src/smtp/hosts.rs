//! The hosts for which mail is taken, and host name patterns.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use super::address::{self, Address, MAX_DOMAIN};
use super::idn;

#[cfg(test)]
mod tests;

/// The hosts for which mail is taken (`allowed_hosts`).
///
/// An entry is a host name, compared in any case; a pattern with `*`, `?` or `[…]` (see [`Glob`]),
/// which no address literal matches; an address literal, `[127.0.0.1]` or `[IPv6:2001:db8::1]`; or,
/// as the single entry, `.`, which stands for every host and every literal. Names that are not ASCII are
/// compared in their [A-form](super::idn), whichever form an entry and an address have.
#[derive(Clone, Debug, Default)]
pub struct HostList {
    any: bool,
    /// Lower-cased; bytes, so that a lookup needs no check for UTF-8.
    exact: HashSet<Box<[u8]>>,
    wildcards: Vec<Glob>,
    literals: HashSet<IpAddr>,
}

/// An entry of a [`HostList`] that is none of the forms it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostListError {
    entry: String,
    problem: &'static str,
}

/// A pattern for host names, as Go's `filepath.Match` and Python's `fnmatch` read it.
///
/// `*` is any number of characters, `?` is one, `[a-z]` is one of a set, `[!x]` or `[^x]` one that
/// is not. ASCII letters match in any case. The time to match is at most the product of the two
/// lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Box<[Token]>,
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobError(&'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// Any number of bytes.
    Many,
    /// One byte of the set.
    One(Set),
}

/// A set of ASCII characters, upper case folded to lower, a bit each. A byte over 127 is in those
/// sets that are negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    members: u128,
    negated: bool,
}

impl HostList {
    /// Makes a list of its entries; blanks around them are cut off.
    ///
    /// # Errors
    ///
    /// The first entry that has none of the forms above, and what is wrong with it.
    pub fn new<I>(entries: I) -> Result<Self, HostListError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let mut list = Self::default();
        let mut count = 0;
        for entry in entries {
            let entry = entry.as_ref().trim();
            list.add(entry).map_err(|problem| HostListError::new(entry, problem))?;
            count += 1;
        }
        if list.any && count > 1 {
            return Err(HostListError::new(".", "takes every host, so it must be the only entry"));
        }
        Ok(list)
    }

    /// The list that holds every host.
    #[must_use]
    pub fn any() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Whether mail for this address is taken.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        if self.any {
            return true;
        }
        if let Some(ip) = address.ip() {
            return self.literals.contains(&ip);
        }
        if address.host().is_ascii() {
            return self.has(address.host());
        }
        self.has(&address.ascii_host())
    }

    fn has(&self, host: &str) -> bool {
        let mut buffer = [0; MAX_DOMAIN];
        // Over MAX_DOMAIN it is no host name, so nothing in the list is meant.
        let Some(folded) = buffer.get_mut(..host.len()) else {
            return false;
        };
        folded.copy_from_slice(host.as_bytes());
        folded.make_ascii_lowercase();
        self.exact.contains(&*folded) || self.wildcards.iter().any(|glob| glob.matches(host))
    }

    fn add(&mut self, entry: &str) -> Result<(), &'static str> {
        if entry == "." {
            self.any = true;
        } else if let Some(ip) = address::literal(entry.as_bytes()) {
            self.literals.insert(ip);
        } else if entry.starts_with('[') && entry.ends_with(']') {
            return Err("is not an address literal as [127.0.0.1] or [IPv6:::1]");
        } else if entry.contains(['*', '?', '[']) {
            self.wildcards.push(Glob::new(entry).map_err(|error| error.0)?);
        } else if let Some(name) =
            idn::to_ascii(entry).filter(|it| address::is_domain(it.as_bytes()))
        {
            self.exact.insert(name.into_owned().into_bytes().into());
        } else if entry.parse::<IpAddr>().is_ok() {
            return Err("is an address, which is written in brackets, as [IPv6:::1]");
        } else {
            return Err("is not a host name");
        }
        Ok(())
    }
}

impl HostListError {
    fn new(entry: &str, problem: &'static str) -> Self {
        Self { entry: entry.to_owned(), problem }
    }

    /// The entry that was refused.
    #[must_use]
    pub fn entry(&self) -> &str {
        &self.entry
    }
}

impl fmt::Display for HostListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.entry, self.problem)
    }
}

impl Error for HostListError {}

impl fmt::Display for GlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for GlobError {}

impl Glob {
    /// Reads a pattern. A hyphen at the start or end of a set stands for itself.
    ///
    /// # Errors
    ///
    /// A set that is empty or not closed, a range that runs backwards, a label that is not ASCII and has
    /// a wildcard too, or is no part of a host name.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let pattern = idn::pattern_to_ascii(pattern).ok_or(GlobError(
            "has a label that is not ASCII and has a wildcard, or that no host has",
        ))?;
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut rest = pattern.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                // Several in a row are as good as one.
                b'*' if tokens.last() == Some(&Token::Many) => {}
                b'*' => tokens.push(Token::Many),
                b'?' => tokens.push(Token::One(Set { members: 0, negated: true })),
                b'[' => {
                    let (set, after) = Set::parse(after)?;
                    tokens.push(Token::One(set));
                    rest = after;
                }
                _ => tokens.push(Token::One(Set { members: Set::bit(byte), negated: false })),
            }
        }
        Ok(Self { tokens: tokens.into() })
    }

    /// Whether the whole of `host`, in its A-form, matches. A character that is not ASCII counts as its
    /// bytes.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let mut host = host.as_bytes();
        let mut tokens = &*self.tokens;
        // Behind the last star, and the host where that star ends. It is enough to widen the last
        // star: whatever an earlier one could take, the last can take too.
        let mut retry: Option<(&[Token], &[u8])> = None;
        loop {
            match (tokens, host) {
                ([Token::Many, after @ ..], _) => {
                    retry = Some((after, host));
                    tokens = after;
                }
                ([Token::One(set), after @ ..], [byte, left @ ..]) if set.contains(*byte) => {
                    (tokens, host) = (after, left);
                }
                ([], []) => return true,
                _ => {
                    let Some((after, [_, left @ ..])) = retry else {
                        return false;
                    };
                    retry = Some((after, left));
                    (tokens, host) = (after, left);
                }
            }
        }
    }
}

impl Set {
    /// After `[`: the set and what follows its `]`.
    fn parse(text: &[u8]) -> Result<(Self, &[u8]), GlobError> {
        let end = memchr::memchr(b']', text);
        let (inner, rest) = end
            .and_then(|end| Some((text.get(..end)?, text.get(end + 1..)?)))
            .ok_or(GlobError("has a [ without its ]"))?;
        let (negated, mut inner) = match inner {
            [b'!' | b'^', inner @ ..] => (true, inner),
            _ => (false, inner),
        };
        if inner.is_empty() {
            return Err(GlobError("has an empty set in brackets"));
        }
        let mut members = 0;
        loop {
            inner = match inner {
                [low, b'-', high, ..] if low > high => {
                    return Err(GlobError("has a range that runs backwards"));
                }
                [low, b'-', high, inner @ ..] => {
                    members |= (*low..=*high).fold(0, |bits, byte| bits | Self::bit(byte));
                    inner
                }
                [byte, inner @ ..] => {
                    members |= Self::bit(*byte);
                    inner
                }
                [] => return Ok((Self { members, negated }, rest)),
            };
        }
    }

    fn contains(self, byte: u8) -> bool {
        (self.members & Self::bit(byte) != 0) != self.negated
    }

    /// No bit at all for a byte over 127.
    fn bit(byte: u8) -> u128 {
        1_u128.checked_shl(byte.to_ascii_lowercase().into()).unwrap_or(0)
    }
}
