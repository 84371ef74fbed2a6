//! What a message says about itself: its header section, and the header a delivery adds to it.
//!
//! Everything here works on bytes that a stranger wrote. Nothing panics on them, nothing of them is
//! lost, and every function is linear in their length.
//!
//! - [`header`]: finds the end of the header section and its fields, without copying them
//! - [`rfc2047`]: decodes the encoded words in a field's value
//! - [`mime`]: the parts of a message, within bounds
//! - [`address_list`]: the mailboxes in a `From`, `To` or `Reply-To` value
//! - [`delivery_header`]: the `Delivered-To` and `Received` fields of a delivery
//! - [`zlib`]: the compressed form of all of it

pub mod address_list;
pub mod delivery_header;
pub mod header;
pub mod mime;
pub mod rfc2047;
pub mod zlib;
