//! What a peer did wrong, and the one place where that becomes a reply.

use super::address::{AddressError, ParameterError};
use super::fixed;
use super::reply::Reply;

/// A command that cannot be obeyed, by what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// Not a verb we know.
    UnknownCommand,
    /// An argument where none belongs.
    UnexpectedArgument,
    /// No argument where one belongs.
    MissingArgument,
    /// HELO or EHLO without a domain or address literal.
    BadHelo,
    /// MAIL without `FROM:`.
    MailSyntax,
    /// RCPT without `TO:`.
    RcptSyntax,
    /// A path that does not parse, or is too long.
    Address(AddressError),
    /// Parameters that do not parse, or repeat.
    Parameters(ParameterError),
    /// A parameter that is not known, or not offered.
    UnknownParameter(String),
    /// A known parameter with a value it cannot have.
    BadParameter,
    /// BDAT whose size cannot be read: what follows cannot be told from commands.
    ChunkSyntax,
    /// BDAT where it is not offered: the same is true of what follows.
    ChunksNotOffered,
    /// The parameter named, with a value it cannot have, none included.
    BadValue(&'static str),
    /// An octet over 127 outside a transaction with SMTPUTF8, which is offered.
    NeedsSmtpUtf8,
    /// STARTTLS with an argument (RFC 3207 §4).
    StartTlsArgument,
    /// AUTH without a mechanism, or with more than it has.
    AuthSyntax,
    /// AUTH with a mechanism that is not offered.
    UnknownMechanism,
    /// HELO or EHLO, where LMTP is spoken (RFC 2033 §4.1).
    NotLmtp,
    /// XCLIENT with anything but attributes and values that it has.
    XClientSyntax,
}

impl PeerError {
    /// The reply a peer gets for it.
    pub fn reply(&self) -> Reply {
        match self {
            Self::UnknownCommand => fixed::UNRECOGNIZED,
            Self::UnexpectedArgument | Self::StartTlsArgument => fixed::NO_ARGUMENT,
            Self::MissingArgument => fixed::NEEDS_ARGUMENT,
            Self::ChunkSyntax => fixed::CHUNK_SYNTAX,
            Self::ChunksNotOffered => fixed::CHUNKS_NOT_OFFERED,
            Self::BadHelo => fixed::BAD_HELO,
            Self::AuthSyntax => fixed::AUTH_SYNTAX,
            Self::UnknownMechanism => fixed::UNKNOWN_MECHANISM,
            Self::NotLmtp => fixed::LHLO_ONLY,
            Self::XClientSyntax => fixed::XCLIENT_SYNTAX,
            Self::MailSyntax => fixed::MAIL_SYNTAX,
            Self::RcptSyntax => fixed::RCPT_SYNTAX,
            Self::Address(AddressError::Syntax) => fixed::INVALID_ADDRESS,
            Self::Address(AddressError::PathTooLong) => fixed::PATH_TOO_LONG,
            Self::Address(AddressError::LocalPartTooLong) => fixed::LOCAL_TOO_LONG,
            Self::Address(AddressError::DomainTooLong) => fixed::DOMAIN_TOO_LONG,
            Self::Address(AddressError::NonAscii) => fixed::NON_ASCII,
            Self::Address(AddressError::NotUtf8) => fixed::NOT_UTF8,
            Self::NeedsSmtpUtf8 => fixed::NEEDS_SMTPUTF8,
            Self::BadValue(keyword) => {
                Reply::made(501, (5, 5, 4), format!("Invalid value of parameter {keyword}"))
            }
            Self::Parameters(ParameterError::Repeated(keyword)) => {
                Reply::made(501, (5, 5, 4), format!("Parameter {keyword} is repeated"))
            }
            Self::Parameters(ParameterError::Syntax) | Self::BadParameter => fixed::BAD_PARAMETER,
            Self::UnknownParameter(keyword) => Reply::made(
                555,
                (5, 5, 4),
                format!("Parameter {keyword} is not recognized or not offered"),
            ),
        }
    }
}

impl From<PeerError> for Reply {
    fn from(error: PeerError) -> Self {
        error.reply()
    }
}

impl From<AddressError> for PeerError {
    fn from(error: AddressError) -> Self {
        Self::Address(error)
    }
}

impl From<ParameterError> for PeerError {
    fn from(error: ParameterError) -> Self {
        Self::Parameters(error)
    }
}
