//! SMTP as a value: bytes in, replies and questions out (RFC 5321).
//!
//! Nothing here knows a socket, a clock, a log or Python. A [`Session`] is driven by
//! [`Session::step`] and [`Session::resume`]; whoever drives it owns the I/O and the time.
//!
//! | file | what it holds |
//! |---|---|
//! | `session` | the one place where state moves |
//! | `offer` | the answer to EHLO |
//! | `line` | command lines out of a byte stream |
//! | `command` | a line parsed into a [`Command`] |
//! | `address`, `hosts` | paths, parameters, and which hosts mail is taken for |
//! | `xclient` | what a proxy says of its client |
//! | `chunk` | what BDAT announces, and its octets |
//! | `data` | the end of a message, unstuffing, bare newlines |
//! | `transaction` | what MAIL and RCPT gave |
//! | `reply`, `fixed` | replies as values, and every one of our own |
//! | `limits` | the settings a session obeys, and the limits that are fixed |
//! | `extensions` | which extensions are offered |
//! | `error` | what a peer did wrong, mapped to a reply once |

mod address;
mod chunk;
mod command;
mod data;
mod error;
mod extensions;
mod fixed;
mod hosts;
mod limits;
mod line;
mod offer;
mod reply;
mod session;
mod transaction;
mod xclient;

pub use address::{
    Address, AddressError, Parameter, ParameterError, PathKind, parse_helo, parse_parameters,
    parse_path,
};
pub use chunk::{Chunk, ChunkReader};
pub use command::{BodyType, Command, MailParameters, RcptParameters};
pub use data::{DataReader, Ending};
pub use error::PeerError;
pub use extensions::Extensions;
pub use hosts::{Glob, HostList, HostListError};
pub use limits::{Auth, BareNewline, MAX_COMMAND_LINE, Protocol, Settings};
pub use line::{Beginning, Line, LineReader};
pub use reply::{Enhanced, Reply, ReplyError, Verdict};
pub use session::{BodyAnswer, Phase, Refused, Session, Stage, Step};
pub use transaction::{Dialect, Transaction};
pub use xclient::{Said, XClient};
