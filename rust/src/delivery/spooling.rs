//! A message's way into the spool, and out of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::Delivery;
use crate::backends::Backend;
use crate::record::{self, Added};
use crate::smtp::{Reply, Verdict};
use crate::spool::{Incoming, Lease, Refusal, Settled, Spool};

/// What a message has to do with the spool.
#[derive(Debug, Default)]
pub enum Spooling {
    /// Nothing.
    #[default]
    None,
    /// It can go there, where there is one by then: a reload may open it while the message waits.
    Into(Inlet),
    /// It comes from there, where it stays until it is answered.
    From(Lease),
}

/// The spool of a core, once it has one.
pub type Place = Arc<OnceLock<Arc<Spool>>>;

/// Where a message goes that is spooled.
#[derive(Debug)]
pub struct Inlet {
    place: Place,
    /// What works on it later.
    backend: Arc<Backend>,
    /// The spool has it, and answers.
    handed_over: AtomicBool,
}

impl Inlet {
    /// The way of a message of that backend.
    pub fn new(place: &Place, backend: Arc<Backend>) -> Self {
        Self { place: Arc::clone(place), backend, handed_over: AtomicBool::new(false) }
    }
}

impl Spooling {
    /// Whether the spool has it, and answers.
    pub fn is_handed_over(&self) -> bool {
        matches!(self, Self::Into(inlet) if inlet.handed_over.load(Ordering::SeqCst))
    }
}

impl Delivery {
    /// Hands it to the spool, which answers once it is saved; `false` where there is none.
    pub fn spool(self: &Arc<Self>, added: &Added) -> bool {
        let Spooling::Into(inlet) = &self.spooling else { return false };
        let Some(spool) = inlet.place.get() else { return false };
        if !inlet.handed_over.swap(true, Ordering::SeqCst) {
            let record = record::write(self, added);
            spool.insert(Box::new(Entry { delivery: Arc::clone(self), record }));
        }
        true
    }

    /// Spools it as it came, where nothing is to be done before: no worker sees it until it is answered.
    pub fn spool_at_once(self: &Arc<Self>) {
        self.fetched.store(true, Ordering::SeqCst);
        self.course.fetch();
        self.pending.claim();
        self.spool(&Added::default());
    }
}

/// The reply to a message that the spool does not take.
pub fn refusal(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Full => Reply::no_storage(),
        Refusal::Broken => Reply::save_failed(),
    }
}

/// What is to become of a message that was spooled, by what its sender would have been told.
pub(super) fn settled(verdict: Verdict) -> Settled {
    let reply = verdict.fold();
    match reply.code() / 100 {
        2 => Settled::Done,
        5 => Settled::Failed(reply.to_string()),
        _ => Settled::Deferred(reply.to_string()),
    }
}

/// A message on its way to the disk.
struct Entry {
    delivery: Arc<Delivery>,
    record: Vec<u8>,
}

impl Incoming for Entry {
    fn backend(&self) -> &str {
        match &self.delivery.spooling {
            Spooling::Into(inlet) => &inlet.backend.name,
            Spooling::None | Spooling::From(_) => "",
        }
    }

    fn queued_id(&self) -> &str {
        &self.delivery.queued_id
    }

    fn received_at(&self) -> SystemTime {
        self.delivery.received_at
    }

    fn record(&self) -> &[u8] {
        &self.record
    }

    fn octets(&self) -> &[u8] {
        self.delivery.body.as_slice()
    }

    fn is_wanted(&self) -> bool {
        !self.delivery.pending.is_over()
    }

    fn settle(self: Box<Self>, outcome: Result<(), Refusal>) {
        let reply = outcome.map_or_else(refusal, |()| self.delivery.accepted());
        self.delivery.answer(Verdict::All(reply));
    }
}

/// One that the spool drops is not saved.
impl Drop for Entry {
    fn drop(&mut self) {
        if !self.delivery.pending.is_settled() {
            self.delivery.answer(Verdict::All(Reply::save_failed()));
        }
    }
}
