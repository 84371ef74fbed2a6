//! What the fuzz targets check: one function a target, which panics where its invariant does not hold.
//!
//! Every octet string is an input. The targets in `fuzz_targets/` only call these functions; so does
//! `rust/tests/fuzz_corpus.rs`, on stable, with each file of `corpus/`.

#[path = "../../rust/tests/driver.rs"]
mod driver;
#[path = "../../rust/tests/oracle.rs"]
mod oracle;

pub mod address;
pub mod auth;
pub mod bdat;
pub mod command;
pub mod data;
pub mod header;
pub mod mime;
pub mod proxy;
pub mod rfc2047;
pub mod session;
pub mod xclient;

/// A target's name and its check.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 11] = [
    ("address", address::check),
    ("auth", auth::check),
    ("bdat", bdat::check),
    ("command", command::check),
    ("data", data::check),
    ("header", header::check),
    ("mime", mime::check),
    ("proxy", proxy::check),
    ("rfc2047", rfc2047::check),
    ("session", session::check),
    ("xclient", xclient::check),
];
