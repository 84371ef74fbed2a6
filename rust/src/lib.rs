//! The core of guerrilla: an SMTP receiver whose processors are written in Python.
//!
//! ```text
//! socket → net/listener → net/connection ⇄ smtp/session          (bytes in, questions out; knows no socket)
//!                              │ CheckRecipient, Deliver
//!                         delivery (bounded in bytes) ═══════ GIL ═══════ python/core
//!                              │ receive(max) → [Envelope, …]     receive_checks(max) → [Check, …]
//!          guerrilla/worker → chain → processors/* → verdict
//!                              │ answer
//!                         delivery → session.resume(verdict) → net/connection writes it
//! ```
//!
//! | room | what lives there |
//! |---|---|
//! | [`smtp`] | the protocol: no socket, clock, log or Python |
//! | [`mail`] | header sections, encoded words, the delivery header |
//! | [`net`] | sockets, deadlines, one task a connection |
//! | [`delivery`], [`queue`], [`pending`] | what goes to Python, how it waits, what becomes of it |
//! | [`backends`] | what saves mails: its queues, its limits |
//! | [`bell`] | calls workers once for all that came in a turn |
//! | [`bench`] | a load generator, for `guerrillad bench` |
//! | [`buffer`] | bodies: in memory from one budget, or in files |
//! | [`server`] | a running core: bind, start, stop |
//! | [`shared`] | what is one over all processes: counters, clients, keys of tickets |
//! | [`spool`] | messages that were answered 250 and are still to be worked on, on a disk |
//! | [`tls`] | certificates and all else of a handshake |
//! | [`config`] | the settings it obeys |
//! | [`events`] | what embedders hear of |
//! | [`faults`] | what goes wrong on purpose, for `guerrilla.testing` |
//! | [`record`] | an envelope as JSON: for the spool, and for `to_bytes` |
//! | [`certificate`] | self-signed certificates |
//! | [`stats`], [`log`], [`queued_id`] | counters, records for Python's `logging`, ids |
//! | [`few`], [`short`], `digits` | a list that is nearly always empty, text that is nearly always short, numbers of a known length |
//! | [`course`] | what a message's time went into, for its line in the log |
//! | `python` | everything PyO3, behind the feature `python` |

mod allocator;
pub mod backends;
pub mod bell;
pub mod bench;
pub mod buffer;
pub mod certificate;
pub mod config;
pub mod course;
pub mod delivery;
mod digits;
pub mod events;
pub mod faults;
pub mod few;
pub mod log;
pub mod mail;
pub mod net;
pub mod pending;
#[cfg(feature = "python")]
mod python;
pub mod queue;
pub mod queued_id;
pub mod record;
pub mod server;
pub mod shared;
pub mod short;
pub mod smtp;
pub mod spool;
pub mod stats;
pub mod tls;
