//! The exchange behind AUTH: what is asked, and what the answers say (RFC 4954 §4, RFC 4616).
//!
//! It lasts for two lines at most, and what it holds between them is a name.

use zeroize::{Zeroize, Zeroizing};

use super::auth::{Credentials, Mechanism, Secret};
use super::fixed;
use super::reply::Reply;

/// Octets of a name. RFC 4616 §2: at least 255 are to be taken. A password is as long as its line lets it.
const MAX_NAME: usize = 255;

/// What is asked.
#[derive(Debug)]
pub(super) enum Exchange {
    /// PLAIN: for all at once.
    Message,
    /// LOGIN: for the name.
    Name,
    /// LOGIN: for the password of this one.
    Password(String),
}

/// What comes of an answer.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The next question.
    Ask(Exchange),
    /// Everything is there.
    Done(Credentials),
    /// It is over.
    Refused(Reply),
}

impl Exchange {
    /// The first question.
    pub(super) fn new(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Message,
            Mechanism::Login => Self::Name,
        }
    }

    /// The question as it goes on the wire: 3xx carries no enhanced code (RFC 2034 §4).
    pub(super) fn challenge(&self) -> &'static [u8] {
        match self {
            Self::Message => b"334 \r\n",
            // `Username:` and `Password:`, which clients look for.
            Self::Name => b"334 VXNlcm5hbWU6\r\n",
            Self::Password(_) => b"334 UGFzc3dvcmQ6\r\n",
        }
    }

    /// The answer that came with the command; `=` is an empty one (RFC 4954 §4).
    pub(super) fn begin(self, initial: &Secret) -> Outcome {
        match initial.expose() {
            "=" => self.take(Zeroizing::default()),
            text => self.answer(text.as_bytes()),
        }
    }

    /// The answer that is a line.
    pub(super) fn answer(self, line: &[u8]) -> Outcome {
        if line == b"*" {
            return Outcome::Refused(fixed::AUTH_CANCELLED);
        }
        match decode(line) {
            Some(answer) => self.take(answer),
            None => Outcome::Refused(fixed::NOT_BASE64),
        }
    }

    fn take(self, mut answer: Zeroizing<Vec<u8>>) -> Outcome {
        let taken = match self {
            Self::Message => plain(&answer).map(Outcome::Done),
            Self::Name => name(&answer).map(|name| Outcome::Ask(Self::Password(name))),
            Self::Password(username) => password(&answer).map(|password| {
                Outcome::Done(Credentials {
                    mechanism: Mechanism::Login,
                    username,
                    authorization_identity: String::new(),
                    password,
                })
            }),
        };
        answer.zeroize();
        taken.unwrap_or(Outcome::Refused(fixed::NO_CREDENTIALS))
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 §2).
fn plain(message: &[u8]) -> Option<Credentials> {
    let mut parts = message.splitn(3, |&octet| octet == 0);
    let (identity, username, secret) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Credentials {
        mechanism: Mechanism::Plain,
        username: name(username)?,
        authorization_identity: if identity.is_empty() { String::new() } else { name(identity)? },
        password: password(secret)?,
    })
}

/// A name goes into logs and headers: no controls, which `SASLprep` forbids as well (RFC 4013 §2.3).
fn name(octets: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(octets).ok()?;
    let fits = (1..=MAX_NAME).contains(&name.len());
    (fits && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

/// Not prepared: what is compared is for who compares to say (RFC 4616 §2).
fn password(octets: &[u8]) -> Option<Secret> {
    let text = std::str::from_utf8(octets).ok()?;
    (!text.is_empty() && !text.contains('\0')).then(|| Secret::new(text.to_owned()))
}

/// Base64 as RFC 4648 §4 has it: padded, nothing else in it, no bits left over.
fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|&&octet| octet == b'=').count();
    let digits = text.get(..text.len() - padding)?;
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3));
    let (mut bits, mut count) = (0_u32, 0_u32);
    for &digit in digits {
        bits = bits << 6 | u32::from(value(digit)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0).then_some(out)
}

fn value(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(octets: &[u8]) -> Option<String> {
        decode(octets).map(|found| String::from_utf8_lossy(&found).into_owned())
    }

    #[test]
    fn base64_is_read_strictly() {
        // RFC 4648 §10.
        for (encoded, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(text(encoded.as_bytes()).as_deref(), Some(plain), "{encoded}");
        }
        assert_eq!(decode(b"/+//").as_deref(), Some(&vec![0xff, 0xef, 0xff]));
        for wrong in [
            "=", "====", "Z===", "Zg=", "Zg", "Zh==", "Zm9=", "Zg==Zg==", "Zm 9", "Zm9v\n", "Zm-_",
            " Zg==", "Z=g=", "Zm\u{f6}",
        ] {
            assert_eq!(text(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn every_octet_survives_base64() {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for octet in 0..=255_u8 {
            let digit = |index: u8| *ALPHABET.get(usize::from(index)).unwrap();
            let encoded = [digit(octet >> 2), digit((octet & 3) << 4), b'=', b'='];
            assert_eq!(decode(&encoded).as_deref(), Some(&vec![octet]));
        }
    }

    #[test]
    fn a_plain_message_has_two_nuls_and_no_empty_name_or_password() {
        let credentials = plain(b"\0joe\0secret").unwrap();
        assert_eq!((credentials.username.as_str(), credentials.identity()), ("joe", "joe"));
        assert_eq!(credentials.password.expose(), "secret");
        assert_eq!(plain("J\0joe\0s\u{e9}".as_bytes()).unwrap().identity(), "J");
        let longest = "x".repeat(MAX_NAME);
        assert!(plain(format!("{longest}\0{longest}\0{longest}").as_bytes()).is_some());
        for wrong in [
            &b""[..],
            b"\0",
            b"\0\0",
            b"joe\0secret",
            b"\0joe\0",
            b"\0\0secret",
            b"\0joe\0secret\0",
            b"\0joe\0\xff",
            b"\0\xff\0secret",
            b"\xff\0joe\0secret",
            b"\0j\noe\0secret",
            b"j\x7f\0joe\0secret",
        ] {
            assert_eq!(plain(wrong), None, "{wrong:?}");
        }
        assert_eq!(plain(format!("\0{longest}x\0secret").as_bytes()), None);
        assert_eq!(plain(format!("{longest}x\0joe\0secret").as_bytes()), None);
    }

    #[test]
    fn login_asks_for_a_name_and_a_password() {
        let asked = Exchange::new(Mechanism::Login).answer(b"am9l");
        let Outcome::Ask(next @ Exchange::Password(_)) = asked else { panic!("{asked:?}") };
        let Outcome::Done(credentials) = next.answer(b"c2VjcmV0") else { panic!() };
        assert_eq!(
            (credentials.username.as_str(), credentials.mechanism),
            ("joe", Mechanism::Login)
        );
        for empty in [Exchange::Name, Exchange::Password("joe".to_owned()), Exchange::Message] {
            assert!(matches!(empty.begin(&Secret::new("=".to_owned())), Outcome::Refused(_)));
        }
    }
}
