//! A descriptor that Python hands over.

// `unsafe` is needed here, since a number says nothing of whose a descriptor is. So it is never taken for ours: what
// is taken is a duplicate, which the system has just made and nobody else knows, and which an `OwnedFd` may own.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// A duplicate of what that number stands for; an error where it stands for nothing.
pub(super) fn duplicate(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes any number, and touches no memory.
    let made = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system has just made it, so that it is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}
