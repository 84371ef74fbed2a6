//! Log lines of faults that may repeat: of each kind one in ten seconds, with the count of the others.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::log::{Level, Log};

const LOGGER: &str = "spool";
const EVERY: Duration = Duration::from_secs(10);

/// The log, where a fault does not fill it.
#[derive(Debug)]
pub(super) struct Quiet {
    log: Arc<Log>,
    kinds: Mutex<HashMap<&'static str, (Instant, u64)>>,
}

impl Quiet {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self { log, kinds: Mutex::default() }
    }

    /// A line that cannot repeat often.
    pub(super) fn say(&self, level: Level, text: fmt::Arguments<'_>) {
        self.log.write(level, LOGGER, text);
    }

    /// A line of a fault of that kind.
    pub(super) fn fault(&self, kind: &'static str, level: Level, text: fmt::Arguments<'_>) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let hidden = match kinds.get_mut(kind) {
            Some((at, hidden)) if now.duration_since(*at) < EVERY => {
                *hidden += 1;
                return;
            }
            Some((_, hidden)) => *hidden,
            None => 0,
        };
        kinds.insert(kind, (now, 0));
        drop(kinds);
        if hidden > 0 {
            self.say(level, format_args!("{text} (and {hidden} more like this)"));
        } else {
            self.say(level, text);
        }
    }
}
