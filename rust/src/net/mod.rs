//! Sockets: listeners, one task a connection, every deadline.
//!
//! | file | what it holds |
//! |---|---|
//! | `listener` | binding, the accept loop, `max_clients` |
//! | `connection` | the loop over a session's steps, and what each step waits for |
//! | `stream` | TCP and unix sockets as one type |
//! | `shutdown` | how an end is told to every task, and how many are left |

mod connection;
mod listener;
mod shutdown;
mod stream;

pub(crate) use listener::{Bound, serve};
pub(crate) use shutdown::Shutdown;
