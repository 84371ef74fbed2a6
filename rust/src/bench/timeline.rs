//! What happened when: counts of equal parts of time, as many as a picture has room for.

use std::time::Duration;

/// The first width.
const WIDTH: Duration = Duration::from_millis(50);
/// More parts than this become half as many of twice the width.
const PARTS: usize = 600;

/// Counts by time since the start.
#[derive(Clone, Debug)]
pub struct Timeline {
    width: Duration,
    /// What was accepted, and what was not.
    parts: Vec<(u64, u64)>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width: WIDTH, parts: Vec::new() }
    }
}

impl Timeline {
    /// Counts one that ended so long after the start.
    pub fn add(&mut self, since: Duration, is_accepted: bool) {
        let mut index = self.index(since);
        while index >= PARTS {
            self.widen();
            index = self.index(since);
        }
        if self.parts.len() <= index {
            self.parts.resize(index + 1, (0, 0));
        }
        if let Some((accepted, other)) = self.parts.get_mut(index) {
            *(if is_accepted { accepted } else { other }) += 1;
        }
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while self.width < other.width {
            self.widen();
        }
        while other.width < self.width {
            other.widen();
        }
        if self.parts.len() < other.parts.len() {
            self.parts.resize(other.parts.len(), (0, 0));
        }
        for (part, (accepted, failed)) in self.parts.iter_mut().zip(other.parts) {
            part.0 += accepted;
            part.1 += failed;
        }
    }

    /// How long a part is.
    pub fn width(&self) -> Duration {
        self.width
    }

    /// Of each part what was accepted, and what was not.
    pub fn parts(&self) -> &[(u64, u64)] {
        &self.parts
    }

    fn index(&self, since: Duration) -> usize {
        let index = since.as_nanos() / self.width.as_nanos().max(1);
        usize::try_from(index).unwrap_or(usize::MAX)
    }

    fn widen(&mut self) {
        self.width = self.width.saturating_mul(2);
        let sum = |pair: &[(u64, u64)]| {
            pair.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
        };
        self.parts = self.parts.chunks(2).map(sum).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_as_many_parts_as_there_is_room_for_however_long_it_goes() {
        let mut line = Timeline::default();
        for second in 0..10_000 {
            line.add(Duration::from_secs(second), second % 10 != 0);
        }
        assert!(line.parts().len() <= PARTS);
        let sums = line.parts().iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        assert_eq!(sums, (9_000, 1_000));
        line.add(Duration::MAX, true);
        assert!(line.parts().len() <= PARTS);
    }

    #[test]
    fn lines_of_different_widths_add_up() {
        let (mut short, mut long) = (Timeline::default(), Timeline::default());
        short.add(Duration::from_millis(70), true);
        long.add(Duration::from_mins(1), false);
        let width = long.width();
        short.merge(&long);
        assert_eq!(short.width(), width);
        assert_eq!(short.parts().first(), Some(&(1, 0)));
        assert_eq!(short.parts().last(), Some(&(0, 1)));
        long.merge(&Timeline::default());
        assert_eq!(long.width(), width);
    }
}
