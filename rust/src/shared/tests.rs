//! Two and more processes of one memory, each played by an attachment of its own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod burials;
mod files;
mod model;
mod sequences;
mod tables;
mod tickets;

use std::sync::Arc;

use super::*;

/// So many processes, each with the file mapped once more.
fn processes(number: usize) -> Vec<Tenant> {
    let made = Memory::create(number).unwrap();
    (0..number).map(|place| attach(&made).claim(place).unwrap()).collect()
}

/// What another process has of this memory.
fn attach(memory: &Memory) -> Arc<Memory> {
    Memory::attach(memory.file().unwrap().try_clone_to_owned().unwrap()).unwrap()
}

fn key(tenant: &Tenant, text: &str) -> Key {
    tenant.keys(Kind::Address, "test").address(text.parse().unwrap())
}
