//! A load generator: what `guerrillad bench` sends, and what it hears.
//!
//! | file | what it holds |
//! |---|---|
//! | [`client`] | what one connection says and hears: bytes in, bytes out; no socket, no clock |
//! | [`mails`] | the messages: made to a size, or given |
//! | `tickets`, `lane` | which message is next, and when it is due |
//! | `link`, `trust` | a socket with or without TLS; whose certificate is taken |
//! | `sender`, `connection` | one connection after another, message after message; counts what becomes of them |
//! | [`load`] | all of them in threads: start, figures, stop |
//! | [`histogram`], [`timeline`], [`tally`] | what is counted |
//!
//! Everything has an end: each wait has a time limit, messages are counted, and the run has a duration.

pub mod client;
mod connection;
pub mod histogram;
mod lane;
mod link;
pub mod load;
pub mod mails;
mod sender;
pub mod tally;
mod tickets;
pub mod timeline;
mod trust;

pub use load::{End, Figures, Load, Plan, Target, Tls};
