//! How much room a disk has.
//!
//! `unsafe` is needed here: the standard library has no `statvfs`. It is given a path that ends in a NUL,
//! which lives as long as the call, and a structure of its own to fill; that is read only where the call
//! says that it did.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Octets that one who is not root may still write to the file system of `path`.
pub(super) fn free(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: see above.
    let found = unsafe {
        if libc::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    // Their width differs from system to system.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    Ok((found.f_bavail as u64).saturating_mul(found.f_frsize as u64))
}
