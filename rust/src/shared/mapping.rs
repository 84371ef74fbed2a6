//! The mapping itself, and all that is unsafe about it.

// `unsafe` is needed here to lend as a reference what other processes write to while it is read. Hence three rules,
// which this file keeps. What is mapped are atomics and nothing else (`Plain`): any content is a value of theirs, and
// any change at any time is allowed. The file cannot become shorter: it is sealed, so that no access meets a page that
// is not there. And every reference keeps the mapping that it leads to (`Part`), or is borrowed from it.
#![allow(unsafe_code)]

use std::fmt::{self, Debug, Formatter};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::{io, slice};

use memmap2::{Advice, MmapMut, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use super::layout::{Counted, Header, PAGE};
use super::table::Set;

/// What may be read and written by several processes at a time.
///
/// # Safety
///
/// It consists of atomics alone: any octets are one, it needs no drop, and it is aligned to a page at most.
pub(super) unsafe trait Plain: Sync {}

// SAFETY: all their fields are `AtomicU64`, structures and arrays of it.
unsafe impl Plain for Header {}
// SAFETY: as above.
unsafe impl Plain for Counted {}
// SAFETY: as above.
unsafe impl Plain for Set {}

/// Memory of this process, or of all that have its file.
pub(super) struct Mapping {
    raw: MmapRaw,
    file: Option<OwnedFd>,
}

impl Mapping {
    /// Of this process alone.
    pub(super) fn own(size: usize) -> io::Result<Self> {
        let mapped = MmapMut::map_anon(size)?;
        // Tables are touched here and there: a large page for each of them would fill the memory.
        let _ = mapped.advise(Advice::NoHugePage);
        Ok(Self { raw: mapped.into(), file: None })
    }

    /// A new file without a name, of zeros, which nobody can make shorter or longer.
    pub(super) fn create(size: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("guerrilla", flags)?;
        rustix::fs::ftruncate(&file, u64::try_from(size).map_err(io::Error::other)?)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::of(file, size)
    }

    /// Whether nobody can take from us what is mapped of this file.
    pub(super) fn is_sealed(file: BorrowedFd<'_>) -> bool {
        rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
    }

    /// A file that is sealed, and has this size.
    pub(super) fn of(file: OwnedFd, size: usize) -> io::Result<Self> {
        let has = rustix::fs::fstat(&file)?.st_size;
        if !Self::is_sealed(file.as_fd()) || usize::try_from(has).is_ok_and(|has| has < size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let raw = memmap2::MmapOptions::new().len(size).map_raw(&file)?;
        Ok(Self { raw, file: Some(file) })
    }

    /// The descriptor of its file.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// Where `count` of these are; the layout says where. What lies outside is a bug of the layout, which
    /// nothing from outside can bring about: it is made of a number that was checked.
    fn find<T: Plain>(&self, offset: usize, count: usize) -> NonNull<T> {
        let inside = size_of::<T>()
            .checked_mul(count)
            .and_then(|size| size.checked_add(offset))
            .is_some_and(|end| end <= self.raw.len());
        assert!(inside && offset.is_multiple_of(align_of::<T>()) && align_of::<T>() <= PAGE);
        // SAFETY: `offset` is inside of the mapping, as was just seen, which begins at no null pointer.
        unsafe { NonNull::new_unchecked(self.raw.as_mut_ptr().add(offset).cast()) }
    }

    /// The one at this offset.
    pub(super) fn one<T: Plain>(&self, offset: usize) -> &T {
        // SAFETY: it is inside, aligned (a mapping begins with a page), and `Plain`; it lives as long as `self`.
        unsafe { self.find::<T>(offset, 1).as_ref() }
    }

    /// So many from this offset on.
    pub(super) fn many<T: Plain>(&self, offset: usize, count: usize) -> &[T] {
        // SAFETY: as of `one`, for each of them.
        unsafe { slice::from_raw_parts(self.find::<T>(offset, count).as_ptr(), count) }
    }

    /// The one at this offset, for who outlives the borrow.
    pub(super) fn part<T: Plain>(self: &Arc<Self>, offset: usize) -> Part<T> {
        Part { at: self.find(offset, 1), mapping: Arc::clone(self) }
    }

    /// Makes zeros of whole pages, and gives them back to the system; `false` where it cannot.
    pub(super) fn discard(&self, offset: usize, size: usize) -> bool {
        let (Ok(offset), Ok(size)) = (u64::try_from(offset), u64::try_from(size)) else {
            return false;
        };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.file
            .as_ref()
            .is_some_and(|file| rustix::fs::fallocate(file, flags, offset, size).is_ok())
    }
}

/// A part of a mapping, which stays as long as it is used. A look at it costs what one at an `Arc` does.
pub struct Part<T> {
    at: NonNull<T>,
    mapping: Arc<Mapping>,
}

// SAFETY: it is a shared reference, with what keeps it alive; a mapping may be used and ended by any thread.
unsafe impl<T: Sync> Send for Part<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Part<T> {}

impl<T> Part<T> {
    /// A part of the part.
    pub(super) fn map<U>(self, inner: impl FnOnce(&T) -> &U) -> Part<U> {
        let at = NonNull::from(inner(&self));
        Part { at, mapping: self.mapping }
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: it was found in this mapping, or is a part of what was, and the mapping is there.
        unsafe { self.at.as_ref() }
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self { at: self.at, mapping: Arc::clone(&self.mapping) }
    }
}

impl<T: Debug> Debug for Part<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
