//! What is left of a process that is gone, and the sum of what all have counted.

use std::sync::atomic::Ordering;

use super::layout::Counted;
use super::sequence::PATIENCE;
use super::table::{Kind, Set};
use super::{Memory, Trouble};

impl Memory {
    /// The process of this place is gone: keeps what it has counted, gives back what it held, and frees the
    /// place. One that still runs must not be buried: what it holds would be given away.
    pub fn bury(&self, place: usize) -> Result<(), Trouble> {
        self.check(place)?;
        let _changing = self.changing();
        let (counted, gone) = (self.counted(place), self.gone());
        // Whoever adds up meanwhile would find it in both, or in neither.
        self.header().burials.write(|| {
            gone.stats.absorb(&counted.stats);
            gone.replies.absorb(&counted.replies);
        });
        if !self.discard_tables(place) {
            self.clear_tables(place);
        }
        counted.owner.store(0, Ordering::SeqCst);
        Ok(())
    }

    /// For a system that gives no pages back: it leaves them where they are.
    pub(super) fn clear_tables(&self, place: usize) {
        for kind in Kind::ALL {
            self.sets(kind, place).iter().for_each(Set::clear);
        }
    }

    /// Every counter of a place by its name, with the replies that were sent; of all of them without one, and
    /// then with what those that are gone have counted.
    pub fn snapshot(&self, place: Option<usize>) -> Result<Vec<(String, u64)>, Trouble> {
        place.map_or(Ok(()), |place| self.check(place))?;
        let places = place.map_or(0..=self.places(), |place| place..=place);
        let look = || {
            let figures = places.clone().map(|place| self.counted(place).figures());
            figures.reduce(add).unwrap_or_default()
        };
        let seen = self.header().burials.read(PATIENCE, look);
        // Who buried one has died over it: then they are nearly right.
        let mut figures = seen.map_or_else(look, |(_, figures)| figures);
        figures.retain(|(name, count)| *count > 0 || !name.starts_with("replies_"));
        Ok(figures)
    }
}

impl Counted {
    /// All of them, the same for each place and in the same order.
    fn figures(&self) -> Vec<(String, u64)> {
        let stats = self.stats.readings().map(|(name, value)| (name.to_owned(), value));
        stats.chain(self.replies.all()).collect()
    }
}

fn add(mut sums: Vec<(String, u64)>, more: Vec<(String, u64)>) -> Vec<(String, u64)> {
    for ((_, sum), (_, count)) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(count);
    }
    sums
}
