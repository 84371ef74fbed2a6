//! What a process has of each client address: a table that it alone writes and all others read.
//!
//! A hash says in which set an address is, and there it is in one of eight ways; where all eight are taken it
//! is not counted, as in any table that is full. Nothing moves while it counts, and nothing is locked: a
//! process that is killed in the middle leaves at worst an entry that its burial takes away.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries that one hash may be in.
pub(super) const WAYS: usize = 8;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections of a server.
    Server,
    /// Connections that an address has to a server, and has opened of late.
    Address,
    /// Logins of an address that failed of late.
    Login,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Server, Self::Address, Self::Login];

    /// For how many milliseconds the first of late, and all behind it, count.
    pub(super) fn window(self) -> u64 {
        match self {
            Self::Server => 0,
            Self::Address => 60_000,
            Self::Login => 600_000,
        }
    }
}

/// What an entry is about: a kind, a server, an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub(super) kind: Kind,
    /// Never 0.
    pub(super) hash: u64,
}

/// Makes the keys of one kind and one server.
#[derive(Clone)]
#[allow(deprecated)] // In favour of crates. It is SipHash-2-4 by its documentation: the same in every process.
pub struct Keys {
    kind: Kind,
    hasher: std::hash::SipHasher,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Keys {
    #[allow(deprecated)] // As above.
    pub(super) fn new(kind: Kind, server: &str, secret: [u64; 2]) -> Self {
        let mut hasher = std::hash::SipHasher::new_with_keys(secret[0], secret[1]);
        hasher.write_u8(kind as u8);
        hasher.write(server.as_bytes());
        Self { kind, hasher }
    }

    /// Of the server as a whole.
    pub fn server(&self) -> Key {
        Key { kind: self.kind, hash: self.hasher.finish().max(1) }
    }

    /// Of an address; IPv4 is not IPv6.
    pub fn address(&self, ip: IpAddr) -> Key {
        let octets = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let mut hasher = self.hasher.clone();
        hasher.write(&octets);
        Key { kind: self.kind, hash: hasher.finish().max(1) }
    }
}

/// Bits of a window that count; those above are when it began, in milliseconds.
const COUNT_BITS: u32 = 24;
const MOST: u64 = (1 << COUNT_BITS) - 1;

/// What is known of a key. All zeros: nothing.
// Every access is sequentially consistent. Of several processes that count one each and then look at all, so one is
// the last, and sees all the others.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Entry {
    hash: AtomicU64,
    held: AtomicU64,
    window: AtomicU64,
}

impl Entry {
    /// Connections that are open.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    /// How many there were of late.
    pub(super) fn recent(&self, now: u64, window: u64) -> u64 {
        let value = self.window.load(Ordering::SeqCst);
        let began = value >> COUNT_BITS;
        // What is to come is odd: it must not count for ever.
        if began.abs_diff(now) < window { value & MOST } else { 0 }
    }

    fn is_free(&self, now: u64, window: u64) -> bool {
        let known = self.hash.load(Ordering::SeqCst) != 0;
        !known || (self.held() == 0 && self.recent(now, window) == 0)
    }

    // What follows is for the process whose table it is.

    /// One more is open.
    pub(super) fn hold(&self) {
        self.held.store(self.held().saturating_add(1), Ordering::SeqCst);
    }

    /// One less is.
    pub(super) fn give_back(&self) {
        self.held.store(self.held().saturating_sub(1), Ordering::SeqCst);
    }

    /// One more of late; the first begins a window.
    pub(super) fn count(&self, now: u64, window: u64) {
        let counted = self.recent(now, window);
        let began = self.window.load(Ordering::SeqCst) >> COUNT_BITS;
        let began = if counted == 0 { now } else { began };
        let value = (began << COUNT_BITS) | counted.saturating_add(1).min(MOST);
        self.window.store(value, Ordering::SeqCst);
    }

    /// The last of them was none.
    pub(super) fn uncount(&self) {
        let value = self.window.load(Ordering::SeqCst);
        if value & MOST > 0 {
            self.window.store(value - 1, Ordering::SeqCst);
        }
    }

    /// Forgets it, where nothing is left of it.
    pub(super) fn forget(&self, now: u64, window: u64) {
        if self.is_free(now, window) {
            self.clear();
        }
    }

    fn clear(&self) {
        self.hash.store(0, Ordering::SeqCst);
        self.held.store(0, Ordering::SeqCst);
        self.window.store(0, Ordering::SeqCst);
    }

    /// Odd words, of which one says how many there were of late.
    #[cfg(test)]
    pub(super) fn fill(&self, held: u64, window: u64) {
        self.held.store(held, Ordering::SeqCst);
        self.window.store(window, Ordering::SeqCst);
    }

    /// Forgets when it last was, though not how many are open.
    pub(super) fn close_window(&self) {
        self.window.store(0, Ordering::SeqCst);
    }
}

/// The entries that one hash may be in.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct Set([Entry; WAYS]);

impl Set {
    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(Entry::clear);
    }
}

/// The table of one kind and one place. As many sets as a power of two says, or it is empty.
#[derive(Clone, Copy)]
pub(super) struct Table<'a>(pub(super) &'a [Set]);

impl<'a> Table<'a> {
    fn set(self, key: Key) -> Option<&'a Set> {
        let mask = self.0.len().checked_sub(1)?;
        // The upper half: the whole of it is what is compared.
        let index = usize::try_from(key.hash >> 32).unwrap_or(0) & mask;
        self.0.get(index)
    }

    /// The entry of this key, where there is one.
    pub(super) fn find(self, key: Key) -> Option<&'a Entry> {
        let mut ways = self.set(key)?.0.iter();
        ways.find(|entry| entry.hash.load(Ordering::SeqCst) == key.hash)
    }

    /// The same, or a new one; none where all ways are taken. For the process whose table it is.
    pub(super) fn take(self, key: Key, now: u64) -> Option<&'a Entry> {
        if let Some(entry) = self.find(key) {
            return Some(entry);
        }
        let mut ways = self.set(key)?.0.iter();
        let entry = ways.find(|entry| entry.is_free(now, key.kind.window()))?;
        entry.clear();
        entry.hash.store(key.hash, Ordering::SeqCst);
        Some(entry)
    }
}
