//! What lies where in the memory.
//!
//! ```text
//! header │ place 0 │ … │ place N-1 │ those that are gone │ tables of place 0 │ … │ tables of place N-1
//! ```
//!
//! The counters of a place are a page; its tables are pages as well, so that they can be given back whole.

use std::sync::atomic::AtomicU64;

use super::sequence::Sequence;
use super::table::{Kind, Set, WAYS};
use super::tickets::Secret;
use crate::stats::{Replies, Stats};

/// Of memory; what has one alone begins with one.
pub(super) const PAGE: usize = 4_096;
/// Places at most.
pub(super) const MOST_PLACES: usize = 1_024;

/// What the first octets of a file have to be.
pub(super) const MAGIC: u64 = u64::from_be_bytes(*b"guerrila");
/// Of the layout: to be raised with each change but one of the counters, whose names it has.
pub(super) const VERSION: u64 = (1 << 32) | hash(Stats::FORM);

/// FNV-1a: what two builds have to agree on in a number.
const fn hash(text: &str) -> u64 {
    let octets = text.as_bytes();
    let (mut sum, mut at) = (0x811c_9dc5_u64, 0);
    while at < octets.len() {
        #[allow(clippy::indexing_slicing)]
        // Iterators are not for constants; the loop says how far it goes.
        let octet = octets[at] as u64;
        sum = ((sum ^ octet) * 0x0100_0193) & 0xffff_ffff;
        at += 1;
    }
    sum
}

/// What is the same for all.
#[repr(C, align(4096))]
pub(super) struct Header {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU64,
    pub(super) places: AtomicU64,
    pub(super) size: AtomicU64,
    /// Of the hashes in the tables, so that nobody outside can choose what meets in one set.
    pub(super) hash_key: [AtomicU64; 2],
    /// Connections of all processes, ever: the last number that one was given.
    pub(super) connections: AtomicU64,
    /// Around a burial.
    pub(super) burials: Sequence,
    /// Around a rotation.
    pub(super) rotations: Sequence,
    /// What keys of tickets are made of: the one for new ones, and the one before it.
    pub(super) secrets: [Secret; 2],
}

/// What a place has counted.
#[repr(C, align(4096))]
pub(super) struct Counted {
    /// The process that has it; 0: none.
    pub(super) owner: AtomicU64,
    pub(super) stats: Stats,
    pub(super) replies: Replies,
}

/// Where everything is, for so many places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) places: usize,
}

impl Layout {
    /// None for a number of places that nobody has.
    pub(super) fn new(places: usize) -> Option<Self> {
        (1..=MOST_PLACES).contains(&places).then_some(Self { places })
    }

    /// Sets of each place. All together there are as many for many places as for few, so that an address
    /// takes room where it connects, and a flood of them fills no more.
    pub(super) fn sets(self, kind: Kind) -> usize {
        let (all, fewest) = match kind {
            Kind::Server => (0, 1 << 10),
            Kind::Address => (1 << 20, 1 << 10),
            Kind::Login => (1 << 17, 1 << 10),
        };
        // A power of two, and as many as make whole pages.
        (all / self.places).max(fewest).next_power_of_two() / WAYS
    }

    fn size_of_tables(self) -> usize {
        let sets: usize = Kind::ALL.iter().map(|kind| self.sets(*kind)).sum();
        sets * size_of::<Set>()
    }

    /// What a place has counted; the one behind the last: what those that are gone have.
    pub(super) const fn counted(place: usize) -> usize {
        size_of::<Header>() + place * size_of::<Counted>()
    }

    /// The tables of a place, and how many octets they take.
    pub(super) fn tables(self, place: usize) -> (usize, usize) {
        let size = self.size_of_tables();
        (Self::counted(self.places + 1) + place * size, size)
    }

    /// One table of a place, and how many sets it has.
    pub(super) fn table(self, kind: Kind, place: usize) -> (usize, usize) {
        let before = Kind::ALL.iter().take_while(|other| **other != kind);
        let sets: usize = before.map(|kind| self.sets(*kind)).sum();
        (self.tables(place).0 + sets * size_of::<Set>(), self.sets(kind))
    }

    /// Of all.
    pub(super) fn size(self) -> usize {
        self.tables(self.places).0
    }
}
