//! A command line parsed into a command (RFC 5321 §4.1).

use super::address::{Address, PathKind, parse_helo, parse_parameters, parse_path};
use super::chunk::Chunk;
use super::error::PeerError;
use super::xclient::XClient;

mod parameters;

pub use parameters::{BodyType, MailParameters, RcptParameters};

/// Octets of the longest verb, STARTTLS.
const LONGEST_VERB: usize = 8;

/// A command with everything it says, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// HELO with its argument.
    Helo(String),
    /// EHLO with its argument.
    Ehlo(String),
    /// MAIL.
    Mail {
        /// With all parameters, as they were sent.
        reverse_path: Address,
        /// What they ask for.
        parameters: MailParameters,
    },
    /// RCPT.
    Rcpt {
        /// With all parameters, as they were sent.
        forward_path: Address,
        /// What they ask for.
        parameters: RcptParameters,
    },
    /// DATA.
    Data,
    /// BDAT (RFC 3030).
    Bdat(Chunk),
    /// RSET.
    Rset,
    /// NOOP; its argument means nothing.
    Noop,
    /// VRFY; whom it asks about means nothing, since nobody is told.
    Vrfy,
    /// HELP; its argument means nothing.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// XCLIENT: what a proxy says of its client.
    XClient(Box<XClient>),
}

impl Command {
    /// Parses a line without its CRLF. Verbs match whole, in any case.
    pub fn parse(line: &[u8]) -> Result<Self, PeerError> {
        let line = line.trim_ascii_end();
        let (verb, argument) = match memchr::memchr(b' ', line) {
            Some(space) => line.split_at_checked(space).unwrap_or((line, &[])),
            None => (line, &[][..]),
        };
        let mut buffer = [0_u8; LONGEST_VERB];
        let upper = buffer.get_mut(..verb.len()).ok_or(PeerError::UnknownCommand)?;
        upper.copy_from_slice(verb);
        upper.make_ascii_uppercase();
        match &*upper {
            b"HELO" => helo(argument).map(Self::Helo),
            b"EHLO" => helo(argument).map(Self::Ehlo),
            b"MAIL" => mail(argument),
            b"RCPT" => rcpt(argument),
            b"DATA" => alone(argument, Self::Data),
            b"BDAT" => Chunk::parse(argument).map(Self::Bdat),
            b"RSET" => alone(argument, Self::Rset),
            b"QUIT" => alone(argument, Self::Quit),
            b"NOOP" => Ok(Self::Noop),
            b"HELP" => Ok(Self::Help),
            b"VRFY" if argument.is_empty() => Err(PeerError::MissingArgument),
            b"VRFY" => Ok(Self::Vrfy),
            b"STARTTLS" if argument.is_empty() => Ok(Self::StartTls),
            b"STARTTLS" => Err(PeerError::StartTlsArgument),
            b"XCLIENT" => XClient::parse(argument)
                .map(|said| Self::XClient(Box::new(said)))
                .ok_or(PeerError::XClientSyntax),
            _ => Err(PeerError::UnknownCommand),
        }
    }
}

fn alone(argument: &[u8], command: Command) -> Result<Command, PeerError> {
    if argument.is_empty() { Ok(command) } else { Err(PeerError::UnexpectedArgument) }
}

fn helo(argument: &[u8]) -> Result<String, PeerError> {
    parse_helo(argument.trim_ascii()).map(str::to_owned).ok_or(PeerError::BadHelo)
}

fn mail(argument: &[u8]) -> Result<Command, PeerError> {
    let path = after_keyword(argument, b"FROM:").ok_or(PeerError::MailSyntax)?;
    let (reverse_path, rest) = parse_path(path, PathKind::Reverse)?;
    if rest.is_empty() {
        return Ok(Command::Mail { reverse_path, parameters: MailParameters::default() });
    }
    let given = parse_parameters(rest)?;
    let parameters = MailParameters::read(&given)?;
    Ok(Command::Mail { reverse_path: reverse_path.with_parameters(given), parameters })
}

fn rcpt(argument: &[u8]) -> Result<Command, PeerError> {
    let path = after_keyword(argument, b"TO:").ok_or(PeerError::RcptSyntax)?;
    let (forward_path, rest) = parse_path(path, PathKind::Forward)?;
    if rest.is_empty() {
        return Ok(Command::Rcpt { forward_path, parameters: RcptParameters::default() });
    }
    let given = parse_parameters(rest)?;
    let parameters = RcptParameters::read(&given)?;
    Ok(Command::Rcpt { forward_path: forward_path.with_parameters(given), parameters })
}

/// What follows ` FROM:` or ` TO:`, in any case.
fn after_keyword<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (head, path) = argument.strip_prefix(b" ")?.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then_some(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::smtp::ParameterError;

    #[test]
    fn verbs_match_whole_and_in_any_case() {
        assert_eq!(Command::parse(b"quit"), Ok(Command::Quit));
        assert_eq!(Command::parse(b"Quit  "), Ok(Command::Quit));
        for line in [
            &b"QUITE"[..],
            b"QUI",
            b"",
            b" QUIT",
            b"MAILFROM:<a@b>",
            b"RCPTTO:<a@b>",
            b"\xff\xfe\xfd\xfc",
            b"GET / HTTP/1.1",
        ] {
            assert_eq!(Command::parse(line), Err(PeerError::UnknownCommand), "{line:?}");
        }
    }

    #[test]
    fn arguments_are_refused_where_none_belongs() {
        for line in [&b"DATA x"[..], b"RSET x", b"QUIT x"] {
            assert_eq!(Command::parse(line), Err(PeerError::UnexpectedArgument));
        }
        assert_eq!(Command::parse(b"NOOP x"), Ok(Command::Noop));
        assert_eq!(Command::parse(b"VRFY"), Err(PeerError::MissingArgument));
        assert_eq!(Command::parse(b"EHLO"), Err(PeerError::BadHelo));
        assert_eq!(Command::parse(b"HELO  "), Err(PeerError::BadHelo));
        assert_eq!(Command::parse(b"starttls "), Ok(Command::StartTls));
        assert_eq!(Command::parse(b"STARTTLS now"), Err(PeerError::StartTlsArgument));
        assert_eq!(Command::parse(b"XCLIENT"), Err(PeerError::XClientSyntax));
    }

    #[test]
    fn mail_takes_size_and_body() {
        let parsed = Command::parse(b"mail from:<a@b.example> size=42 BODY=8bitmime").unwrap();
        let Command::Mail { reverse_path, parameters } = parsed else { panic!("{parsed:?}") };
        assert_eq!(reverse_path.to_string(), "a@b.example");
        assert_eq!(reverse_path.parameters().len(), 2);
        let asked =
            MailParameters { size: Some(42), body: BodyType::EightBitMime, ..Default::default() };
        assert_eq!(parameters, asked);
        for (line, error) in [
            (&b"MAIL <a@b>"[..], PeerError::MailSyntax),
            (b"MAIL", PeerError::MailSyntax),
            (b"MAIL FROM:<a@b> SIZE=x", PeerError::BadParameter),
            (b"MAIL FROM:<a@b> SIZE=123456789012345678901", PeerError::BadParameter),
            (b"MAIL FROM:<a@b> SIZE", PeerError::Parameters(ParameterError::Syntax)),
            (b"MAIL FROM:<a@b> BODY=16BIT", PeerError::BadParameter),
            (b"MAIL FROM:<a@b> SMTPUTF8", PeerError::UnknownParameter("SMTPUTF8".to_owned())),
            (
                b"MAIL FROM:<a@b> SIZE=1 size=2",
                PeerError::Parameters(ParameterError::Repeated("SIZE".to_owned())),
            ),
            (b"RCPT TO:<a@b> NOTIFY=NEVER", PeerError::UnknownParameter("NOTIFY".to_owned())),
            (b"RCPT FROM:<a@b>", PeerError::RcptSyntax),
        ] {
            assert_eq!(Command::parse(line), Err(error), "{}", String::from_utf8_lossy(line));
        }
        assert!(matches!(
            Command::parse(b"MAIL FROM:<a@b> SIZE=99999999999999999999"),
            Ok(Command::Mail { parameters: MailParameters { size: Some(u64::MAX), .. }, .. })
        ));
    }
}
