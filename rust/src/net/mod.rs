//! Sockets: listeners, one task a connection, every deadline.
//!
//! | file | what it holds |
//! |---|---|
//! | `bound` | listening sockets, bound here or handed over, and the files of unix sockets |
//! | `inherited` | those that somebody else has bound, until a server asks for them |
//! | `listener` | the accept loop |
//! | `listeners` | which of them run, and how a reload changes that |
//! | `live` | a server that runs: what it obeys, who is connected, who is refused |
//! | `addresses` | which address of a client is counted |
//! | `clients` | limits of one client address |
//! | `logins` | logins of one client address that failed |
//! | `proxy` | the PROXY header |
//! | `connection` | the loop over a session's steps, and what each step waits for |
//! | `stream` | TCP and unix sockets as one type |
//! | `tls` | the records of one connection |
//! | `turns` | the turns of the I/O thread, and its naps between them under load |
//! | `shutdown` | how an end is told to every task, and how many are left |

mod addresses;
mod bound;
mod clients;
mod connection;
mod inherited;
mod listener;
mod listeners;
mod live;
mod logins;
pub mod proxy;
mod shutdown;
mod stream;
mod tls;
pub(crate) mod turns;

pub(crate) use bound::Bound;
pub(crate) use inherited::Inherited;
pub(crate) use listeners::{Failures, Listeners, bind_all};
pub(crate) use shutdown::Shutdown;
pub(crate) use stream::Stream;
