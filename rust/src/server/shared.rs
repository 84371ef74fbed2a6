//! What all tasks and workers of a core share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::backends::{Backend, DEFAULT};
use crate::bell::Bell;
use crate::buffer::{Budget, Spiller};
use crate::config::{CoreConfig, Swap};
use crate::delivery::Place as SpoolPlace;
use crate::events::Events;
use crate::faults::Faults;
use crate::log::{Level, Log};
use crate::net::Shutdown;
use crate::pending::{Pending, Wakes};
use crate::queued_id::Generator;
use crate::shared::{Part, Tenant};
use crate::smtp::Reply;
use crate::spool::{OpenError, Settings as SpoolSettings, Spool};
use crate::stats::{Replies, Stats};

/// What every task and every worker shares.
#[derive(Debug)]
pub struct Shared {
    /// The settings.
    pub config: Swap<CoreConfig>,
    /// All backends that have not ended; some may be no longer in the settings.
    backends: Mutex<Vec<Arc<Backend>>>,
    /// Records on their way to Python.
    pub log: Arc<Log>,
    /// What this process counts where others can see it.
    pub(crate) tenant: Arc<Tenant>,
    /// Replies by code.
    pub replies: Part<Replies>,
    /// Events on their way to Python.
    pub events: Events,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Counters.
    pub stats: Part<Stats>,
    /// Memory for bodies.
    pub budget: Arc<Budget>,
    pub(crate) memory_freed: Arc<Notify>,
    pub(crate) bell: Bell,
    pub(crate) ids: Generator,
    pub(crate) shutdown: Arc<Shutdown>,
    /// Where its spool is, once there is one.
    pub(crate) spool_place: SpoolPlace,
    wakes: Wakes,
    retained_warned: AtomicBool,
}

impl Shared {
    /// With these settings; who waits for an answer is woken by what `wakes` leads to.
    pub(super) fn new(config: CoreConfig, tenant: Tenant, wakes: Wakes) -> Self {
        let stats = tenant.stats();
        let log = Arc::new(Log::new(config.log_level));
        // Made in any case, since a reload may turn it on.
        let spiller = Spiller::new(config.spill_size.max(1), None, &stats, &log);
        let budget = Budget::spilling(config.max_memory, spiller);
        budget.set_spill_size(config.spill_size);
        let memory_freed = Arc::new(Notify::new());
        let freed = Arc::clone(&memory_freed);
        budget.on_release(move || freed.notify_waiters());
        let shared = Self {
            backends: Mutex::default(),
            log,
            replies: tenant.replies(),
            tenant: Arc::new(tenant),
            events: Events::default(),
            faults: Faults::default(),
            stats,
            budget,
            memory_freed,
            bell: Bell::default(),
            ids: Generator::default(),
            shutdown: Arc::default(),
            spool_place: SpoolPlace::default(),
            wakes,
            retained_warned: AtomicBool::new(false),
            config: Swap::new(config),
        };
        shared.obey(&shared.config.load());
        shared
    }

    /// The answer a message waits for.
    pub(crate) fn pending_save(&self, backend: &Backend) -> Pending {
        let patience = backend.limits().save_timeout;
        Pending::new(patience, Some(self.wakes.clone()), Some(self.stats.clone()))
    }

    /// The answer a recipient waits for.
    pub(crate) fn pending_check(&self, backend: &Backend) -> Pending {
        Pending::new(backend.limits().check_timeout, Some(self.wakes.clone()), None)
    }

    /// The answer that credentials wait for.
    pub(crate) fn pending_login(&self, backend: &Backend) -> Pending {
        Pending::new(backend.limits().auth_timeout, Some(self.wakes.clone()), None)
    }

    /// Its spool, where it has one.
    pub fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool_place.get()
    }

    /// Opens the spool; one that is open stays, and obeys these limits.
    pub fn open_spool(&self, settings: SpoolSettings) -> Result<(), OpenError> {
        if let Some(spool) = self.spool() {
            spool.obey(settings);
            return Ok(());
        }
        let spool = Spool::open(settings, Arc::clone(&self.log))?;
        // Whoever came first has the lock of the folder: there is no second one to be lost here.
        let _ = self.spool_place.set(spool);
        Ok(())
    }

    /// The backend of that name, for who answers it; none where the settings have none.
    pub fn backend(&self, name: &str) -> Option<Arc<Backend>> {
        self.config.load().backend(name).map(|backend| backend.answering())
    }

    pub(super) fn all_backends(&self) -> MutexGuard<'_, Vec<Arc<Backend>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the backends of a config obey it, and knows those that are new.
    pub(super) fn obey(&self, config: &CoreConfig) {
        let mut all = self.all_backends();
        all.retain(|backend| !backend.has_ended());
        for (asking, limits) in &config.backends {
            asking.obey(limits.clone());
            let backend = asking.answering();
            if !all.iter().any(|known| Arc::ptr_eq(known, &backend)) {
                all.push(backend);
            }
        }
    }

    pub(crate) fn count_reply(&self, reply: &Reply) {
        let counter = match reply.code() / 100 {
            2 => &self.stats.messages_accepted,
            4 => &self.stats.messages_deferred,
            _ => &self.stats.messages_rejected,
        };
        counter.add();
    }

    /// Says once that answered messages are held in a number that looks like a leak.
    pub(crate) fn watch_retained(&self) {
        let (retained, limit) = (self.budget.retained(), self.budget.limit());
        if retained > limit / 2 && !self.retained_warned.swap(true, Ordering::Relaxed) {
            self.log.write(
                Level::Warning,
                "core",
                format_args!(
                    "{retained} octets of answered mails are still held, beside max_memory ({limit}): \
                     does a processor keep envelopes or views of their data?"
                ),
            );
        }
    }

    /// Every counter and gauge by its name.
    pub fn snapshot(&self) -> Vec<(String, u64)> {
        let mut figures = self.stats.snapshot();
        figures.extend([
            ("refused_for_memory", self.budget.refused()),
            ("log_records_dropped", self.log.dropped()),
            ("events_dropped", self.events.dropped()),
            ("memory_limit", self.budget.limit()),
            ("memory_used", self.budget.used()),
            ("memory_retained", self.budget.retained()),
        ]);
        figures.extend(self.spool().map(|spool| spool.snapshot()).unwrap_or_default());
        // The others' are told by themselves.
        figures.extend(self.backend(DEFAULT).map(|backend| backend.snapshot()).unwrap_or_default());
        let named = figures.into_iter().map(|(name, value)| (name.to_owned(), value));
        named.chain(self.replies.snapshot()).collect()
    }
}
