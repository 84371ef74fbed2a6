//! Where a disk can fail: tests have it fail there. In what is shipped there is nothing.

use std::io;

/// A place that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// A body is written.
    Write,
    /// A file is synced.
    Sync,
    /// A file is renamed.
    Rename,
    /// A folder is synced.
    SyncFolder,
    /// A body is unlinked, or what was set aside.
    Unlink,
    /// The message of what was set aside is unlinked, whose note is gone.
    UnlinkMessage,
    /// A file is given a second name.
    Link,
}

/// The failures that are to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    #[cfg(test)]
    planned: std::sync::Mutex<Vec<(Point, i32)>>,
    #[cfg(test)]
    held: std::sync::Mutex<Option<(Point, std::sync::mpsc::Receiver<()>)>>,
    #[cfg(test)]
    passed: std::sync::Mutex<Vec<Point>>,
}

impl Faults {
    /// Fails where that was planned.
    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the tests' twin needs both")]
    pub(super) fn at(&self, _point: Point) -> io::Result<()> {
        Ok(())
    }

    /// Fails where that was planned.
    #[cfg(test)]
    pub(super) fn at(&self, point: Point) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let until = held.take_if(|(at, _)| *at == point);
        drop(held);
        if let Some((_, until)) = until {
            let _ = until.recv();
        }
        self.passed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(point);
        let mut planned = self.planned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match planned.iter().position(|(at, _)| *at == point) {
            Some(index) => Err(io::Error::from_raw_os_error(planned.remove(index).1)),
            None => Ok(()),
        }
    }

    /// Has the next pass of a point wait until the other end is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self, point: Point, until: std::sync::mpsc::Receiver<()>) {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *held = Some((point, until));
    }

    /// How often a point was passed.
    #[cfg(test)]
    pub(super) fn passes(&self, point: Point) -> usize {
        let passed = self.passed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        passed.iter().filter(|at| **at == point).count()
    }

    /// Has the next pass of a point fail.
    #[cfg(test)]
    pub(super) fn plan(&self, point: Point, code: i32) {
        let mut planned = self.planned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        planned.push((point, code));
    }
}
