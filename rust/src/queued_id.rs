//! The id of a message: in its 250, in `Received:`, in every log line.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::short::ShortText;

/// Crockford's alphabet, lower-case: no letter that reads as a digit, and it sorts as its values do.
const ALPHABET: [u8; 32] = *b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of an id.
pub const LENGTH: usize = 26;

/// Makes ids in the form of a ULID: 48 bits of milliseconds, a 32-bit count, 48 bits that are drawn
/// once a process. Unique over processes and restarts, and in the order of time.
#[derive(Debug)]
pub struct Generator {
    process: u64,
    count: AtomicU64,
    latest: AtomicU64,
}

impl Default for Generator {
    fn default() -> Self {
        // `RandomState` is seeded by the operating system; that saves a dependency for eight octets.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        Self {
            process: hasher.finish() & 0xffff_ffff_ffff,
            count: AtomicU64::new(0),
            latest: AtomicU64::new(0),
        }
    }
}

impl Generator {
    /// The next id, for a message that arrived at `now`.
    pub fn next(&self, now: SystemTime) -> ShortText {
        let millis = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
        let millis = u64::try_from(millis).unwrap_or(u64::MAX) & 0xffff_ffff_ffff;
        // A clock that steps back must not put a later message before an earlier one.
        let millis = self.latest.fetch_max(millis, Ordering::Relaxed).max(millis);
        let count = self.count.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff;
        encode(u128::from(millis) << 80 | u128::from(count) << 48 | u128::from(self.process))
    }
}

fn encode(value: u128) -> ShortText {
    let digits: [u8; LENGTH] = std::array::from_fn(|place| {
        let index = usize::try_from((value >> ((LENGTH - 1 - place) * 5)) & 31).unwrap_or(0);
        ALPHABET.get(index).copied().unwrap_or(b'0')
    });
    // Letters and digits are text.
    ShortText::from_octets(&[&digits]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_are_unique_and_in_order_even_when_the_clock_steps_back() {
        let generator = Generator::default();
        let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let times = [0, 0, 1, 5, 5, 3, 0, 9].map(|seconds| start + Duration::from_secs(seconds));
        let ids: Vec<String> = times.iter().map(|&time| generator.next(time).to_string()).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        assert!(ids.iter().all(|id| id.len() == LENGTH));
    }

    #[test]
    fn two_processes_never_share_an_id() {
        let now = SystemTime::now();
        assert_ne!(Generator::default().next(now), Generator::default().next(now));
    }
}
