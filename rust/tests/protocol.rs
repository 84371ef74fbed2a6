//! What is tested of the core from outside, as one program: each would be linked with all it stands on, and
//! optimised as a whole, which takes longer than the tests do.

// `fuzz_corpus` has the library of `fuzz/`, a crate of its own, which takes in two of these files too.
#![allow(clippy::duplicate_mod)]

mod allocations;
mod chunking;
mod conversations;
mod driver;
mod fuzz_corpus;
mod oracle;
mod script;
mod smuggling;
