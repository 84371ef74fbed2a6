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
//! | `auth`, `sasl` | what a client shows to authenticate, and how it does |
//! | `idn` | host names that are not ASCII |
//! | `dsn`, `xtext` | what is asked of delivery status notifications |
//! | `xclient` | what a proxy says of its client |
//! | `chunk` | what BDAT announces, and its octets |
//! | `data`, `plain` | the end of a message, unstuffing, bare newlines |
//! | `transaction` | what MAIL and RCPT gave |
//! | `reply`, `fixed` | replies as values, and every one of our own |
//! | `limits` | the settings a session obeys, and the limits that are fixed |
//! | `extensions` | which extensions are offered |
//! | `error` | what a peer did wrong, mapped to a reply once |

mod address;
mod auth;
mod chunk;
mod command;
mod data;
pub mod dsn;
mod error;
mod extensions;
mod fixed;
mod hosts;
pub mod idn;
mod limits;
mod line;
mod offer;
mod plain;
mod reply;
mod sasl;
mod session;
mod transaction;
mod xclient;
mod xtext;

pub use address::{
    Address, AddressError, Charset, Parameter, ParameterError, PathKind, parse_helo,
    parse_parameters, parse_parameters_in, parse_path, parse_path_in,
};
pub use auth::{Credentials, Mechanism, Secret};
pub use chunk::{Chunk, ChunkReader};
pub use command::{BodyType, Command, MailParameters, Scope};
pub use data::{DataReader, Ending};
pub use error::PeerError;
pub use extensions::Extensions;
pub use hosts::{Glob, HostList, HostListError};
pub use limits::{Auth, BareNewline, MAX_AUTH_LINE, MAX_COMMAND_LINE, Protocol, Settings};
pub use line::{Beginning, Line, LineReader, Longest};
pub use reply::{Enhanced, Form, Reply, ReplyError, Verdict};
pub use session::{BodyAnswer, Phase, Refused, Session, Stage, Step};
pub use transaction::{Dialect, Recipients, Transaction};
pub use xclient::{Said, XClient};
