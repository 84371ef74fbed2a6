//! What is one over all processes: counters, clients, keys of TLS tickets.
//!
//! A daemon of several processes has a file without a name in memory, which the first one makes and passes to
//! all others. Each has a place in it that it alone writes; whoever wants a total adds up all places. So
//! there are no locks that a process that is killed could keep, and what it leaves behind is where everyone
//! can see it. A core that is alone has the same in memory of its own.
//!
//! | file | what it holds |
//! |---|---|
//! | `mapping` | the mapping, and all that is unsafe about it |
//! | `layout` | what lies where |
//! | `sequence` | changes of several words that nobody sees half of |
//! | `table` | what a process has of each client address |
//! | `tenant` | who has a place, and what it counts there of its clients |
//! | `burial` | what is left of a process that is gone, and the sum of all counters |
//! | `tickets` | keys of TLS tickets |

mod burial;
mod layout;
mod mapping;
mod sequence;
mod table;
mod tenant;
#[cfg(test)]
mod tests;
mod tickets;

use std::fmt::{self, Debug, Display, Formatter};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};

use layout::{Counted, Header, Layout, MAGIC, MOST_PLACES, VERSION};
use mapping::Mapping;
use table::{Set, Table};

pub use mapping::Part;
pub use table::{Key, Keys, Kind};
pub use tenant::{Sum, Tenant};
pub use tickets::Tickets;

/// Milliseconds of a clock that is the same in all processes, and never steps.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let millis = now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or(0)
}

/// What all processes have in common.
pub struct Memory {
    mapping: Arc<Mapping>,
    layout: Layout,
    /// Threads that bury and rotate do it one after the other; only one process does.
    changing: Mutex<()>,
}

/// Why a memory or a place in it cannot be had.
#[derive(Debug)]
pub enum Trouble {
    /// The system does not give it.
    System(io::Error),
    /// So many processes there cannot be.
    Number(usize),
    /// It is no memory file.
    Foreign(&'static str),
    /// It is one of another build.
    Version,
    /// It has these octets, and not those that it should have.
    Size(u64, u64),
    /// There is no such place.
    Place {
        /// The one that was asked for.
        place: usize,
        /// How many there are.
        places: usize,
    },
    /// Another has the place.
    Taken {
        /// The place.
        place: usize,
        /// The number of that process.
        owner: u64,
    },
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => write!(f, "memory of all processes: {error}"),
            Self::Number(number) => {
                write!(f, "{number} processes: there can be 1 to {MOST_PLACES}")
            }
            Self::Foreign(why) => write!(
                f,
                "this is no memory file of guerrilla: {why}; pass on the descriptor that SharedMemory.create made"
            ),
            Self::Version => f.write_str(
                "this memory file is of another build of guerrilla: all processes have to be of one; \
                 upgrade or restart the daemon as a whole",
            ),
            Self::Size(found, expected) => write!(
                f,
                "this memory file has {found} octets and should have {expected}: it is damaged; restart the daemon"
            ),
            Self::Place { place, places } => {
                write!(f, "no place {place} in this memory file: it has 0 to {}", places - 1)
            }
            Self::Taken { place, owner } => write!(
                f,
                "place {place} of the memory file is that of process {owner}: it has to end, and to be buried, before \
                 another has it"
            ),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl Memory {
    /// Of this process alone.
    fn own() -> io::Result<Self> {
        let layout = Layout { places: 1 };
        let made = Self::over(Mapping::own(layout.size())?, layout);
        made.begin();
        Ok(made)
    }

    /// For so many processes, with keys for TLS tickets.
    pub fn create(places: usize) -> Result<Arc<Self>, Trouble> {
        let layout = Layout::new(places).ok_or(Trouble::Number(places))?;
        let made = Self::over(Mapping::create(layout.size())?, layout);
        made.begin();
        // Both keys: the one before it must not be one that everybody knows.
        made.rotate_tickets()?;
        made.rotate_tickets()?;
        Ok(Arc::new(made))
    }

    /// The one that another process has made.
    pub fn attach(file: OwnedFd) -> Result<Arc<Self>, Trouble> {
        if !Mapping::is_sealed(file.as_fd()) {
            return Err(Trouble::Foreign("it is not sealed against shrinking"));
        }
        let file = File::from(file);
        let layout = read_layout(&file)?;
        Ok(Arc::new(Self::over(Mapping::of(file.into(), layout.size())?, layout)))
    }

    fn over(mapping: Mapping, layout: Layout) -> Self {
        Self { mapping: Arc::new(mapping), layout, changing: Mutex::default() }
    }

    /// Fills in the header of a new one.
    fn begin(&self) {
        let header = self.header();
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        for word in &header.hash_key {
            // `RandomState` is seeded by the operating system.
            word.store(RandomState::new().hash_one(std::process::id()), Ordering::Relaxed);
        }
        header.places.store(number(self.layout.places), Ordering::Relaxed);
        header.size.store(number(self.layout.size()), Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
    }

    /// The descriptor of its file; none where it is of one process alone.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.mapping.file()
    }

    /// Processes that it is for.
    pub fn places(&self) -> usize {
        self.layout.places
    }

    /// Whether it has such a place.
    pub fn check(&self, place: usize) -> Result<(), Trouble> {
        let places = self.places();
        if place < places { Ok(()) } else { Err(Trouble::Place { place, places }) }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn header(&self) -> &Header {
        self.mapping.one(0)
    }

    /// Of a place that was checked, or of those that are gone.
    fn counted(&self, place: usize) -> &Counted {
        self.mapping.one(Layout::counted(place))
    }

    fn counted_part(&self, place: usize) -> Part<Counted> {
        self.mapping.part(Layout::counted(place))
    }

    /// What those that are gone have counted.
    fn gone(&self) -> &Counted {
        self.counted(self.places())
    }

    fn sets(&self, kind: Kind, place: usize) -> &[Set] {
        let (offset, count) = self.layout.table(kind, place);
        self.mapping.many(offset, count)
    }

    fn table(&self, kind: Kind, place: usize) -> Table<'_> {
        Table(self.sets(kind, place))
    }

    fn discard_tables(&self, place: usize) -> bool {
        let (offset, size) = self.layout.tables(place);
        self.mapping.discard(offset, size)
    }

    fn keys(&self, kind: Kind, server: &str) -> Keys {
        let secret = self.header().hash_key.each_ref().map(|word| word.load(Ordering::Relaxed));
        Keys::new(kind, server, secret)
    }
}

impl Debug for Memory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("places", &self.places()).finish_non_exhaustive()
    }
}

/// Reads the first words of a file before anything of it is mapped.
fn read_layout(file: &File) -> Result<Layout, Trouble> {
    let mut words = [0; 4];
    for (word, at) in words.iter_mut().zip([0, 8, 16, 24]) {
        let mut octets = [0; 8];
        file.read_exact_at(&mut octets, at).map_err(|_| Trouble::Foreign("it is too short"))?;
        *word = u64::from_ne_bytes(octets);
    }
    let [magic, version, places, size] = words;
    if magic != MAGIC {
        return Err(Trouble::Foreign("it does not begin as one"));
    }
    if version != VERSION {
        return Err(Trouble::Version);
    }
    let layout = usize::try_from(places).ok().and_then(Layout::new);
    let layout = layout.ok_or(Trouble::Foreign("it says that it is for no number of processes"))?;
    let expected = u64::try_from(layout.size()).unwrap_or(u64::MAX);
    let found = file.metadata()?.len();
    if size != expected || found != expected {
        return Err(Trouble::Size(found, expected));
    }
    Ok(layout)
}
