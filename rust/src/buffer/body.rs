//! The octets of one message: in memory, on their way to a file, or mapped from it.

use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::oneshot::Receiver;

use super::budget::{Budget, Chunk, FIRST, SMALLEST};
use super::spill::{CHUNK, SpillFile, Spiller, StoredFile, Written};

/// From here a body grows by this much instead of doubling.
const LARGEST_STEP: usize = 4 << 20;
/// Input that a body in memory is given at once where it may go to a file: a read of the socket.
const READ: usize = 64 << 10;
/// What that may take at most: each octet may become two, and room comes in steps.
const WORST_READ: usize = 3 * READ + 16;

/// Why a body holds nothing although octets were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Over the size limit.
    TooLarge,
    /// The budget had no room for it.
    NoMemory,
    /// The file for it could not be made, written or read.
    NoStorage,
}

/// Where the octets are. What the file does not have is in the buffer.
enum Store {
    /// All in the buffer.
    Memory,
    /// All in the buffer, which is over its share: to be handed over at the end of the read.
    Due,
    /// The file is here, the buffer takes more.
    Filling(SpillFile),
    /// File and buffer are with the thread.
    Writing(Receiver<Written>),
    /// All in the file, mapped.
    Mapped(SpillFile),
    /// All in a file of the spool, mapped.
    Stored(StoredFile),
}

/// The octets of one message.
///
/// Where the budget spills, it goes to a file once it is over the size for that, or once the budget has
/// no more for it: what it holds is written out, and the buffer is used again. That takes no more memory
/// than it has, so a message that was begun is not refused for want of it.
pub struct Body {
    buffer: Vec<u8>,
    store: Store,
    budget: Arc<Budget>,
    reserved: usize,
    /// Octets that were handed to the file.
    in_file: u64,
    /// Octets that stand for its envelope.
    overhead: usize,
    limit: u64,
    /// Whether it may go to a file, as it was when it began.
    spills: bool,
    fault: Option<Fault>,
    header_end: Option<usize>,
    released: AtomicBool,
}

impl Body {
    /// Takes the first step of the budget for a message of `declared` octets, of at most `limit`
    /// (0: no limit). `None` when there is no room now.
    pub fn take(budget: &Arc<Budget>, declared: Option<u64>, limit: u64) -> Option<Self> {
        let declared = declared.and_then(|size| usize::try_from(size).ok());
        let first = declared.map_or(FIRST, |size| size.clamp(SMALLEST, FIRST));
        if !budget.reserve_first(first) {
            return None;
        }
        let mut buffer = budget.take(first);
        // A free buffer may have grown in its last use: it counts whole, or is not taken.
        let extra = buffer.capacity().saturating_sub(first);
        let fits = extra == 0 || budget.reserve_more(extra);
        if !fits {
            buffer = Vec::with_capacity(first);
        }
        let reserved = if fits { first + extra } else { first };
        Some(Self::new(buffer, Arc::clone(budget), reserved, limit))
    }

    /// A body of octets that came from elsewhere, outside every budget.
    pub fn detached(octets: Vec<u8>) -> Self {
        let body = Self::new(octets, Budget::new(0), 0, 0);
        body.released.store(true, Ordering::SeqCst);
        body
    }

    /// A body in a file of the spool, outside every budget: it is mapped, not read.
    pub fn stored(file: &File) -> io::Result<Self> {
        let stored = StoredFile::map(file)?;
        let mut body = Self::detached(Vec::new());
        body.in_file = stored.mapped().len() as u64;
        body.store = Store::Stored(stored);
        Ok(body)
    }

    fn new(buffer: Vec<u8>, budget: Arc<Budget>, reserved: usize, limit: u64) -> Self {
        let spills = budget.spiller().is_some_and(|spiller| spiller.size() > 0);
        Self {
            buffer,
            store: Store::Memory,
            budget,
            reserved,
            in_file: 0,
            overhead: 0,
            limit,
            spills,
            fault: None,
            header_end: None,
            released: AtomicBool::new(false),
        }
    }

    /// Counts `octets` for its envelope too, or drops the message: an envelope of many recipients takes
    /// more than the message does.
    pub fn cover(&mut self, octets: usize) {
        if self.budget.reserve_more(octets) {
            self.overhead += octets;
        } else {
            self.refuse();
        }
    }

    /// Octets of input that it can be given before the next [`settle`](Self::settle), each of which may
    /// become two; 0 while it [is behind](Self::is_behind).
    pub fn appetite(&self) -> usize {
        match &self.store {
            _ if self.fault.is_some() || !self.spills => usize::MAX,
            Store::Memory if !self.is_short() => READ,
            Store::Memory | Store::Due | Store::Filling(_) => self.room() / 2,
            Store::Writing(_) | Store::Mapped(_) | Store::Stored(_) => 0,
        }
    }

    fn spiller(&self) -> Option<&Arc<Spiller>> {
        self.budget.spiller().filter(|_| self.spills)
    }

    fn room(&self) -> usize {
        self.reserved.saturating_sub(self.buffer.len())
    }

    /// Whether there might be no memory for the next read, where a file could take it.
    fn is_short(&self) -> bool {
        let more = WORST_READ.saturating_sub(self.room());
        more > 0 && !self.budget.has(more) && self.spills && self.fault.is_none()
    }

    /// Whether it is too large to stay in memory.
    fn is_over(&self) -> bool {
        self.spiller().is_some_and(|spiller| self.buffer.len() > spiller.size())
    }

    fn is_half_full(&self) -> bool {
        self.buffer.len() >= self.reserved / 2
    }

    /// Appends octets, or drops all of them once they are too many. Never waits.
    pub fn push(&mut self, octets: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let held = self.buffer.len() + octets.len();
        if self.limit > 0 && self.in_file + held as u64 > self.limit {
            self.drop_all(Fault::TooLarge);
        } else if held > self.reserved && !self.make_room(held) {
            self.refuse();
        } else {
            self.buffer.extend_from_slice(octets);
        }
    }

    fn make_room(&mut self, held: usize) -> bool {
        match (&self.store, self.spiller()) {
            (Store::Memory, Some(spiller)) if held > spiller.size() => self.stretch(held),
            (Store::Memory, Some(_)) => self.grow(held) || self.stretch(held),
            (Store::Memory, None) => self.grow(held),
            (Store::Due | Store::Filling(_), _) => self.stretch(held),
            // Nobody pushes then; an octet too many must not be lost in silence.
            (Store::Writing(_) | Store::Mapped(_) | Store::Stored(_), _) => false,
        }
    }

    fn grow(&mut self, needed: usize) -> bool {
        let step = self.reserved.clamp(FIRST, LARGEST_STEP);
        let mut target = needed.max(self.reserved + step);
        if let Some(spiller) = self.spiller() {
            target = target.min(spiller.size().max(needed));
        }
        if let Some(limit) = usize::try_from(self.limit).ok().filter(|limit| *limit > 0) {
            target = target.min(limit.max(needed));
        }
        if !self.budget.reserve_more(target - self.reserved) {
            return false;
        }
        let Some(larger) = self.budget.take_large(target) else { return self.enlarge(target) };
        let smaller = std::mem::replace(&mut self.buffer, larger);
        self.buffer.extend_from_slice(&smaller);
        self.budget.give_back(smaller);
        self.reserved = self.buffer.capacity();
        true
    }

    /// Room for the rest of what was read, before all of it goes to the file.
    fn stretch(&mut self, needed: usize) -> bool {
        let target = needed.max(self.reserved + READ);
        if matches!(self.store, Store::Memory) {
            self.store = Store::Due;
        }
        self.budget.reserve_first(target - self.reserved) && self.enlarge(target)
    }

    fn enlarge(&mut self, target: usize) -> bool {
        self.reserved = target;
        self.buffer.reserve_exact(target.saturating_sub(self.buffer.len()));
        true
    }

    /// Before a read: hands what it holds to the file, if it is time for that.
    pub fn settle(&mut self) {
        let due = match &self.store {
            Store::Memory => self.is_over() || (self.is_half_full() && self.is_short()),
            Store::Due => true,
            Store::Filling(_) => self.is_half_full(),
            Store::Writing(_) | Store::Mapped(_) | Store::Stored(_) => false,
        };
        if due {
            self.hand_over(false);
        }
    }

    /// After the last read: hands the rest to the file, if there is one or is to be one.
    pub fn end(&mut self) {
        let due = match &self.store {
            Store::Memory => self.is_over(),
            Store::Due | Store::Filling(_) => true,
            Store::Writing(_) | Store::Mapped(_) | Store::Stored(_) => false,
        };
        if due {
            self.hand_over(true);
        }
    }

    fn hand_over(&mut self, last: bool) {
        let Some(spiller) = self.budget.spiller() else { return };
        let file = match std::mem::replace(&mut self.store, Store::Memory) {
            Store::Memory | Store::Due => SpillFile::new(spiller),
            Store::Filling(file) => file,
            other @ (Store::Writing(_) | Store::Mapped(_) | Store::Stored(_)) => {
                self.store = other;
                return;
            }
        };
        self.in_file += self.buffer.len() as u64;
        let share = self.reserved - SMALLEST;
        let chunk = Chunk::new(std::mem::take(&mut self.buffer), share, &self.budget);
        self.reserved = SMALLEST;
        self.store = Store::Writing(spiller.write(file, chunk, last));
    }

    /// Whether its file has to take what it was given before there can be more.
    pub fn is_behind(&self) -> bool {
        matches!(self.store, Store::Writing(_))
    }

    /// Ready once it is [behind](Self::is_behind) no longer; see [`fault`](Self::fault) then.
    pub fn poll_caught_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Store::Writing(receiver) = &mut self.store {
            let written = ready!(Pin::new(receiver).poll(context)).ok();
            self.take_back(written);
        }
        Poll::Ready(())
    }

    /// Ready once all octets can be [seen](Self::as_slice), or there is a [fault](Self::fault).
    pub fn poll_finished(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match &self.store {
                Store::Memory | Store::Due | Store::Mapped(_) | Store::Stored(_) => {
                    return Poll::Ready(());
                }
                Store::Filling(_) => self.hand_over(true),
                Store::Writing(_) => ready!(self.poll_caught_up(context)),
            }
        }
    }

    /// Blocks until it has caught up: for a driver that is no task.
    pub fn catch_up(&mut self) {
        match std::mem::replace(&mut self.store, Store::Memory) {
            Store::Writing(receiver) => self.take_back(receiver.blocking_recv().ok()),
            other => self.store = other,
        }
    }

    /// Blocks until it is finished: for a driver that is no task.
    pub fn finish(&mut self) {
        while self.poll_finished(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.catch_up();
        }
    }

    /// Waits for the file no longer: drops the message.
    pub fn give_up(&mut self) {
        self.drop_all(Fault::NoStorage);
    }

    fn take_back(&mut self, written: Option<Written>) {
        match written {
            None => self.drop_all(Fault::NoStorage),
            Some(Written { file, chunk: None }) => self.store = Store::Mapped(file),
            Some(Written { file, chunk: Some(chunk) }) => {
                self.store = Store::Filling(file);
                let (buffer, share) = chunk.into_parts();
                self.buffer = buffer;
                self.reserved += share;
                // A small buffer would mean many short writes.
                let more = CHUNK.saturating_sub(self.reserved);
                if more > 0 && self.budget.reserve_more(more) {
                    self.enlarge(CHUNK);
                }
            }
        }
    }

    fn refuse(&mut self) {
        self.budget.count_refusal();
        self.drop_all(Fault::NoMemory);
    }

    fn drop_all(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.header_end = None;
        self.store = Store::Memory;
        let buffer = std::mem::take(&mut self.buffer);
        self.budget.give_back(buffer);
        self.budget.release(std::mem::take(&mut self.reserved));
    }

    /// Why it holds nothing, if so.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether it went to a file, all or a part of it.
    pub fn is_spilled(&self) -> bool {
        !matches!(self.store, Store::Memory | Store::Due)
    }

    /// The octets; of one that [is spilled](Self::is_spilled) none, until it is finished.
    pub fn as_slice(&self) -> &[u8] {
        match &self.store {
            Store::Memory | Store::Due => &self.buffer,
            Store::Filling(_) | Store::Writing(_) => &[],
            Store::Mapped(file) => file.mapped(),
            Store::Stored(file) => file.mapped(),
        }
    }

    /// Octets of the header section with its empty line, where its end was seen.
    pub fn header_end(&self) -> Option<usize> {
        self.header_end
    }

    pub(crate) fn set_header_end(&mut self, end: Option<usize>) {
        self.header_end = end;
    }

    /// Moves its octets from the budget to the `retained` counter: its sender has been answered, so it
    /// no longer stands in anyone's way, but someone may hold it for as long as they like.
    pub fn release(&self) {
        if !self.released.swap(true, Ordering::SeqCst) {
            self.budget.retained.fetch_add(self.counted() as u64, Ordering::SeqCst);
            self.budget.release(self.counted());
        }
    }

    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    fn counted(&self) -> usize {
        self.reserved + self.overhead
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.buffer));
        if self.released.load(Ordering::SeqCst) {
            self.budget.retained.fetch_sub(self.counted() as u64, Ordering::SeqCst);
        } else {
            self.budget.release(self.counted());
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("len", &(self.in_file + self.buffer.len() as u64))
            .field("spilled", &self.is_spilled())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}
