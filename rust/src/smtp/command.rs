//! A command line parsed into a command (RFC 5321 §4.1).

use super::address::{
    Address, AddressError, Charset, PathKind, parse_helo, parse_parameters_in, parse_path_in,
};
use super::auth::{Mechanism, Secret};
use super::chunk::Chunk;
use super::error::PeerError;
use super::extensions::Extensions;
use super::xclient::XClient;

mod parameters;

pub use parameters::{BodyType, MailParameters};

/// Octets of the longest verb, STARTTLS.
const LONGEST_VERB: usize = 8;

/// What a command may say depends on this.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// What is offered.
    pub extensions: Extensions,
    /// Whether AUTH is.
    pub auth: bool,
    /// Whether it comes within a transaction whose MAIL said SMTPUTF8.
    pub smtputf8: bool,
}

impl Default for Scope {
    /// Everything is offered, and there is no transaction.
    fn default() -> Self {
        Self { extensions: Extensions::default(), auth: true, smtputf8: false }
    }
}

/// A command with everything it says, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// HELO with its argument.
    Helo(String),
    /// EHLO with its argument.
    Ehlo(String),
    /// LHLO with its argument (RFC 2033).
    Lhlo(String),
    /// MAIL.
    Mail {
        /// With all parameters, as they were sent.
        reverse_path: Address,
        /// What they ask for.
        parameters: MailParameters,
    },
    /// RCPT: the forward-path with all parameters, as they were sent.
    Rcpt(Address),
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
    /// AUTH (RFC 4954): the mechanism, and the initial response in base64, if it has one.
    Auth(Mechanism, Option<Secret>),
    /// XCLIENT: what a proxy says of its client.
    XClient(Box<XClient>),
}

impl Command {
    /// Parses a line where every extension is offered, outside a transaction.
    pub fn parse(line: &[u8]) -> Result<Self, PeerError> {
        Self::parse_in(line, &Scope::default())
    }

    /// Parses a line without its CRLF. Verbs match whole, in any case.
    pub fn parse_in(line: &[u8], scope: &Scope) -> Result<Self, PeerError> {
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
            b"LHLO" => helo(argument).map(Self::Lhlo),
            b"MAIL" => mail(argument, scope),
            b"RCPT" => rcpt(argument, scope),
            b"DATA" => alone(argument, Self::Data),
            b"BDAT" => Chunk::parse(argument).map(Self::Bdat),
            b"RSET" => alone(argument, Self::Rset),
            b"QUIT" => alone(argument, Self::Quit),
            b"NOOP" => Ok(Self::Noop),
            b"HELP" => Ok(Self::Help),
            b"VRFY" if argument.is_empty() => Err(PeerError::MissingArgument),
            b"VRFY" => vrfy(argument, scope),
            b"STARTTLS" if argument.is_empty() => Ok(Self::StartTls),
            b"STARTTLS" => Err(PeerError::StartTlsArgument),
            b"AUTH" => auth(argument),
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

/// As ASCII first, which nearly all are.
fn mail(argument: &[u8], scope: &Scope) -> Result<Command, PeerError> {
    mail_in(argument, scope, Charset::Ascii)
}

fn mail_in(argument: &[u8], scope: &Scope, charset: Charset) -> Result<Command, PeerError> {
    let path = after_keyword(argument, b"FROM:").ok_or(PeerError::MailSyntax)?;
    let (mut reverse_path, rest) = match parse_path_in(path, PathKind::Reverse, charset) {
        Ok(found) => found,
        Err(error) => return mail_in_utf8(argument, scope, charset, in_scope(error, scope)),
    };
    if rest.is_empty() {
        return Ok(Command::Mail { reverse_path, parameters: MailParameters::default() });
    }
    let given = match parse_parameters_in(rest, charset) {
        Ok(given) => given,
        Err(error) => return mail_in_utf8(argument, scope, charset, error.into()),
    };
    let parameters = MailParameters::read(&given, scope)?;
    reverse_path.set_parameters(given);
    Ok(Command::Mail { reverse_path, parameters })
}

/// What failed as ASCII, as UTF-8 where that may be: what is before the keyword is not parsed yet, and it
/// may be the text of a quoted local part.
#[cold]
fn mail_in_utf8(
    argument: &[u8],
    scope: &Scope,
    charset: Charset,
    error: PeerError,
) -> Result<Command, PeerError> {
    if charset == Charset::Utf8 || argument.is_ascii() || !may_be_utf8(argument, scope) {
        return Err(error);
    }
    match mail_in(argument, scope, Charset::Utf8)? {
        Command::Mail { parameters, .. } if !parameters.smtputf8 => Err(error),
        command => Ok(command),
    }
}

fn rcpt(argument: &[u8], scope: &Scope) -> Result<Command, PeerError> {
    let path = after_keyword(argument, b"TO:").ok_or(PeerError::RcptSyntax)?;
    let charset = if scope.smtputf8 { Charset::Utf8 } else { Charset::Ascii };
    let (mut forward_path, rest) = match parse_path_in(path, PathKind::Forward, charset) {
        Ok(found) => found,
        Err(error) => return Err(in_scope(error, scope)),
    };
    if rest.is_empty() {
        return Ok(Command::Rcpt(forward_path));
    }
    let given = parse_parameters_in(rest, charset)?;
    parameters::check_rcpt(&given, scope)?;
    forward_path.set_parameters(given);
    Ok(Command::Rcpt(forward_path))
}

/// RFC 4954 §8: `AUTH SP mechanism [SP initial-response]`.
fn auth(argument: &[u8]) -> Result<Command, PeerError> {
    let mut words = argument.split(|&octet| octet == b' ').skip(1);
    let mechanism = words.next().filter(|word| !word.is_empty()).ok_or(PeerError::AuthSyntax)?;
    let initial = words.next();
    if words.next().is_some() {
        return Err(PeerError::AuthSyntax);
    }
    let mechanism = Mechanism::parse(mechanism).ok_or(PeerError::UnknownMechanism)?;
    let text = |octets| std::str::from_utf8(octets).map(|text| Secret::new(text.to_owned()));
    let initial = initial.map(text).transpose().map_err(|_| PeerError::AuthSyntax)?;
    Ok(Command::Auth(mechanism, initial))
}

/// Whom it asks about means nothing, but it is text. SMTPUTF8 behind it is for the reply: UTF-8 may be
/// there without it (RFC 6531 §3.7.4.2).
fn vrfy(argument: &[u8], scope: &Scope) -> Result<Command, PeerError> {
    if argument.is_ascii() {
        Ok(Command::Vrfy)
    } else if !scope.extensions.offers_smtputf8() {
        Err(AddressError::NonAscii.into())
    } else if std::str::from_utf8(argument).is_err() {
        Err(AddressError::NotUtf8.into())
    } else {
        Ok(Command::Vrfy)
    }
}

/// Whether SMTPUTF8 is offered and seems to be a parameter.
#[cold]
fn may_be_utf8(argument: &[u8], scope: &Scope) -> bool {
    let mut words = argument.split(|&byte| byte == b' ');
    scope.extensions.offers_smtputf8() && words.any(|word| word.eq_ignore_ascii_case(b"SMTPUTF8"))
}

/// Where SMTPUTF8 is offered the sender has only to say it.
#[cold]
fn in_scope(error: AddressError, scope: &Scope) -> PeerError {
    match error {
        AddressError::NonAscii if scope.extensions.offers_smtputf8() => PeerError::NeedsSmtpUtf8,
        error => error.into(),
    }
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
    fn auth_names_a_mechanism_and_may_have_an_answer() {
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        for (line, mechanism, initial) in [
            (&b"AUTH PLAIN"[..], Mechanism::Plain, None),
            (b"auth login ", Mechanism::Login, None),
            (b"AUTH plain =", Mechanism::Plain, secret("=")),
            (b"AUTH PLAIN AGEAYg==", Mechanism::Plain, secret("AGEAYg==")),
        ] {
            assert_eq!(Command::parse(line), Ok(Command::Auth(mechanism, initial)));
        }
        for (line, error) in [
            (&b"AUTH"[..], PeerError::AuthSyntax),
            (b"AUTH  PLAIN", PeerError::AuthSyntax),
            (b"AUTH PLAIN AGEAYg== x", PeerError::AuthSyntax),
            (b"AUTH PLAIN \xff", PeerError::AuthSyntax),
            (b"AUTH CRAM-MD5", PeerError::UnknownMechanism),
            (b"AUTH =", PeerError::UnknownMechanism),
        ] {
            assert_eq!(Command::parse(line), Err(error), "{}", String::from_utf8_lossy(line));
        }
        let shown = format!("{:?}", Command::parse(b"AUTH PLAIN AGEAYg=="));
        assert!(!shown.contains("AGEA"), "{shown}");
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
            (b"MAIL FROM:<a@b> SMTPUTF8=yes", PeerError::BadValue("SMTPUTF8")),
            (b"MAIL FROM:<a@b> RET=ALL", PeerError::BadValue("RET")),
            (b"MAIL FROM:<a@b> ENVID", PeerError::BadValue("ENVID")),
            (b"MAIL FROM:<a@b> NOTIFY=NEVER", PeerError::UnknownParameter("NOTIFY".to_owned())),
            (
                b"MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8=x",
                PeerError::Parameters(ParameterError::Repeated("SMTPUTF8".to_owned())),
            ),
            (
                b"MAIL FROM:<a@b> RET=FULL RET=FULL",
                PeerError::Parameters(ParameterError::Repeated("RET".to_owned())),
            ),
            (
                b"MAIL FROM:<a@b> SIZE=1 size=2",
                PeerError::Parameters(ParameterError::Repeated("SIZE".to_owned())),
            ),
            (b"RCPT TO:<a@b> NOTIFY=NEVER,DELAY", PeerError::BadValue("NOTIFY")),
            (b"RCPT TO:<a@b> ORCPT=a@b", PeerError::BadValue("ORCPT")),
            (b"RCPT TO:<a@b> RET=FULL", PeerError::UnknownParameter("RET".to_owned())),
            (b"RCPT FROM:<a@b>", PeerError::RcptSyntax),
        ] {
            assert_eq!(Command::parse(line), Err(error), "{}", String::from_utf8_lossy(line));
        }
        assert!(matches!(
            Command::parse(b"MAIL FROM:<a@b> SIZE=99999999999999999999"),
            Ok(Command::Mail { parameters: MailParameters { size: Some(u64::MAX), .. }, .. })
        ));
    }

    fn in_utf8(line: &str) -> Result<Command, PeerError> {
        Command::parse_in(line.as_bytes(), &Scope { smtputf8: true, ..Scope::default() })
    }

    #[test]
    fn utf_8_is_for_mail_with_smtputf8_and_what_follows_it() {
        let mail = Command::parse("MAIL FROM:<j\u{f6}rg@b\u{fc}cher.example> smtputf8".as_bytes());
        let Ok(Command::Mail { reverse_path, parameters }) = mail else { panic!("{mail:?}") };
        assert!(parameters.smtputf8 && !reverse_path.is_ascii());
        assert_eq!(reverse_path.ascii_host(), "xn--bcher-kva.example");
        let rcpt = "RCPT TO:<\"\u{fc} \u{fc}\"@\u{4f8b}\u{3048}.jp> ORCPT=utf-8;\u{fc}@b";
        let Ok(Command::Rcpt(forward_path)) = in_utf8(rcpt) else { panic!("{rcpt}") };
        assert_eq!(forward_path.user(), "\u{fc} \u{fc}");
        assert_eq!(Command::parse(rcpt.as_bytes()), Err(PeerError::NeedsSmtpUtf8));
        for (line, error) in [
            ("MAIL FROM:<\u{fc}@b>", PeerError::NeedsSmtpUtf8),
            ("MAIL FROM:<\u{fc}@b", PeerError::NeedsSmtpUtf8),
            ("MAIL FROM:<\" SMTPUTF8 \u{fc}\"@b>", PeerError::NeedsSmtpUtf8),
            ("MAIL FROM:<\u{fc}> SMTPUTF8", PeerError::Address(AddressError::Syntax)),
            ("MAIL FROM:<\u{85}@b> SMTPUTF8", PeerError::Address(AddressError::Syntax)),
            ("MAIL FROM:<\"\u{2028}\"@b> SMTPUTF8", PeerError::Address(AddressError::Syntax)),
            ("MAIL FROM:<\" SMTPUTF8 \"@b> ENVID=\u{fc}", PeerError::BadValue("ENVID")),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(error), "{line}");
        }
        assert_eq!(Command::parse("VRFY \u{fc} SMTPUTF8".as_bytes()), Ok(Command::Vrfy));
        assert_eq!(Command::parse("VRFY \u{fc}".as_bytes()), Ok(Command::Vrfy));
    }

    #[test]
    fn what_is_not_utf_8_is_refused() {
        let not_utf8 = Err(PeerError::Address(AddressError::NotUtf8));
        // Latin-1, overlong, a surrogate, cut off, beyond Unicode.
        for wrong in
            [&b"\xe9"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xe4\xbe", b"\xf4\x90\x80\x80", b"\xff"]
        {
            for (before, behind) in [("", "@b"), ("\"", "\"@b"), ("a@", ".example")] {
                let path = [before.as_bytes(), wrong, behind.as_bytes()].concat();
                let line = [b"MAIL FROM:<", &*path, b"> SMTPUTF8"].concat();
                assert_eq!(Command::parse(&line), not_utf8, "{line:?}");
                let line = [b"RCPT TO:<", &*path, b">"].concat();
                let scope = Scope { smtputf8: true, ..Scope::default() };
                assert_eq!(Command::parse_in(&line, &scope), not_utf8, "{line:?}");
                assert_eq!(Command::parse(&line), Err(PeerError::NeedsSmtpUtf8));
            }
            let line = [b"VRFY ", wrong, b" SMTPUTF8"].concat();
            assert_eq!(Command::parse(&line), not_utf8);
        }
    }

    #[test]
    fn what_is_not_offered_is_not_known() {
        let mut scope = Scope::default();
        scope.extensions.smtputf8 = false;
        scope.extensions.dsn = false;
        let parse = |line: &str| Command::parse_in(line.as_bytes(), &scope);
        for (line, keyword) in [
            ("MAIL FROM:<a@b> SMTPUTF8", "SMTPUTF8"),
            ("MAIL FROM:<a@b> RET=FULL", "RET"),
            ("MAIL FROM:<a@b> ENVID=x", "ENVID"),
            ("RCPT TO:<a@b> NOTIFY=?", "NOTIFY"),
            ("RCPT TO:<a@b> ORCPT=rfc822;a@b", "ORCPT"),
        ] {
            assert_eq!(parse(line), Err(PeerError::UnknownParameter(keyword.to_owned())));
        }
        let non_ascii = Err(PeerError::Address(AddressError::NonAscii));
        assert_eq!(parse("MAIL FROM:<\u{fc}@b> SMTPUTF8"), non_ascii);
        assert_eq!(parse("VRFY \u{fc} SMTPUTF8"), non_ascii);
    }
}
