//! What goes wrong on purpose, for tests of programs that send mail: see `guerrilla.testing`.
//!
//! A core has none unless it is asked for some; until then all there is of it is the look at one flag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::smtp::{Reply, Stage};

/// How a connection ends without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// By a FIN.
    Close,
    /// By a RST.
    Reset,
}

/// One thing that goes wrong: later, and then as usual, or with this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// How much later.
    pub delay: Duration,
    /// What is said.
    pub reply: Option<Reply>,
    /// How the connection ends instead.
    pub cut: Option<Cut>,
}

/// Those that are to come.
#[derive(Debug, Default)]
pub struct Faults {
    armed: AtomicBool,
    planned: Mutex<Planned>,
}

#[derive(Debug, Default)]
struct Planned {
    faults: Vec<(Stage, Option<u32>, Fault)>,
    /// By the id of the message behind whose save the connection ends.
    cuts: HashMap<String, Cut>,
}

impl Faults {
    /// Whether there is any.
    pub fn are_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// Plans one for the next `count` times, or for each, behind those that are planned.
    pub fn plan(&self, stage: Stage, count: Option<u32>, fault: Fault) {
        self.change(|planned| {
            if count != Some(0) {
                planned.faults.push((stage, count, fault));
            }
        });
    }

    /// Plans that the sender of a message does not hear what became of it.
    pub fn plan_cut(&self, queued_id: &str, cut: Cut) {
        self.change(|planned| {
            planned.cuts.insert(queued_id.to_owned(), cut);
        });
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.change(|planned| *planned = Planned::default());
    }

    /// Takes the next one of a stage.
    pub(crate) fn take(&self, stage: Stage) -> Option<Fault> {
        self.change(|planned| {
            let index = planned.faults.iter().position(|(at, ..)| *at == stage)?;
            let (_, left, fault) = planned.faults.get_mut(index)?;
            let fault = fault.clone();
            if let Some(left) = left {
                *left -= 1;
                if *left == 0 {
                    planned.faults.remove(index);
                }
            }
            Some(fault)
        })
    }

    /// Takes what was planned for a message.
    pub(crate) fn take_cut(&self, queued_id: &str) -> Option<Cut> {
        self.change(|planned| planned.cuts.remove(queued_id))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Planned) -> T) -> T {
        let mut planned: MutexGuard<'_, Planned> =
            self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let found = change(&mut planned);
        let armed = !planned.faults.is_empty() || !planned.cuts.is_empty();
        self.armed.store(armed, Ordering::Release);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(seconds: u64) -> Fault {
        Fault { delay: Duration::from_secs(seconds), ..Fault::default() }
    }

    #[test]
    fn faults_of_a_stage_are_used_up_in_order_and_then_there_are_none() {
        let faults = Faults::default();
        assert!(!faults.are_armed());
        faults.plan(Stage::Mail, Some(2), delay(1));
        faults.plan(Stage::Rcpt, Some(1), delay(2));
        faults.plan(Stage::Mail, Some(0), delay(3));
        faults.plan(Stage::Mail, Some(1), delay(4));
        assert_eq!(faults.take(Stage::Connect), None);
        let taken = [(); 4].map(|()| faults.take(Stage::Mail));
        assert_eq!(taken, [Some(delay(1)), Some(delay(1)), Some(delay(4)), None]);
        assert!(faults.are_armed());
        assert_eq!(faults.take(Stage::Rcpt), Some(delay(2)));
        assert!(!faults.are_armed());
        faults.plan_cut("a", Cut::Reset);
        assert_eq!(faults.take_cut("b"), None);
        assert_eq!(faults.take_cut("a"), Some(Cut::Reset));
        assert_eq!(faults.take_cut("a"), None);
        assert!(!faults.are_armed());
    }

    #[test]
    fn what_comes_each_time_goes_by_a_clear() {
        let faults = Faults::default();
        faults.plan(Stage::Data, None, delay(1));
        faults.plan_cut("a", Cut::Close);
        assert!([(); 9].iter().all(|()| faults.take(Stage::Data) == Some(delay(1))));
        faults.clear();
        assert!(!faults.are_armed());
        assert_eq!((faults.take(Stage::Data), faults.take_cut("a")), (None, None));
    }
}
