//! What a sender asks of delivery status notifications (RFC 3461), and for UTF-8 (RFC 6533).
//!
//! We send none: what is asked is checked, kept, and passed on by whoever relays the mail.

use super::address::Parameter;
use super::xtext;

/// Characters of an ENVID, decoded (RFC 3461 §4.4).
const MAX_ENVID: usize = 100;
/// Characters of an ORCPT, as sent (RFC 3461 §4.2).
const MAX_ORCPT: usize = 500;

/// The value of a parameter, where it was given one.
fn value<'a>(parameters: &'a [Parameter], keyword: &str) -> Option<&'a str> {
    let found = parameters.iter().find(|parameter| parameter.keyword == keyword)?;
    found.value.as_deref()
}

/// RET of MAIL: `FULL` or `HDRS`.
#[must_use]
pub fn dsn_return(parameters: &[Parameter]) -> Option<&'static str> {
    parse_return(value(parameters, "RET")?)
}

/// ENVID of MAIL, decoded.
#[must_use]
pub fn envelope_id(parameters: &[Parameter]) -> Option<String> {
    parse_envelope_id(value(parameters, "ENVID")?)
}

/// NOTIFY of RCPT: `NEVER` alone, or some of `SUCCESS`, `FAILURE` and `DELAY`, as ordered.
#[must_use]
pub fn notify(parameters: &[Parameter]) -> Option<Vec<&'static str>> {
    parse_notify(value(parameters, "NOTIFY")?)
}

/// ORCPT of RCPT, decoded: the type of the address in lower case, `;`, and the address.
#[must_use]
pub fn original_recipient(parameters: &[Parameter]) -> Option<String> {
    parse_original_recipient(value(parameters, "ORCPT")?)
}

pub(super) fn parse_return(value: &str) -> Option<&'static str> {
    ["FULL", "HDRS"].into_iter().find(|known| value.eq_ignore_ascii_case(known))
}

pub(super) fn parse_envelope_id(value: &str) -> Option<String> {
    xtext::decode(value.as_bytes()).filter(|text| text.len() <= MAX_ENVID)
}

pub(super) fn parse_notify(value: &str) -> Option<Vec<&'static str>> {
    let mut asked = Vec::new();
    for word in value.split(',') {
        let known = ["NEVER", "SUCCESS", "FAILURE", "DELAY"];
        let word = known.into_iter().find(|known| word.eq_ignore_ascii_case(known))?;
        if asked.contains(&word) {
            return None;
        }
        asked.push(word);
    }
    let alone = asked.len() == 1 || !asked.contains(&"NEVER");
    alone.then_some(asked)
}

pub(super) fn parse_original_recipient(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';').filter(|_| value.len() <= MAX_ORCPT)?;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if kind.is_empty() || !kind.bytes().all(letters) {
        return None;
    }
    let kind = kind.to_ascii_lowercase();
    let address = if kind == "utf-8" {
        xtext::decode_utf8(address)
    } else {
        xtext::decode_address(address.as_bytes())
    };
    address.filter(|address| !address.is_empty()).map(|address| format!("{kind};{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_in_any_case() {
        assert_eq!(parse_return("hdrs"), Some("HDRS"));
        assert_eq!(parse_return("Full"), Some("FULL"));
        assert_eq!(parse_return("BODY"), None);
        assert_eq!(parse_notify("never"), Some(vec!["NEVER"]));
        assert_eq!(parse_notify("Delay,FAILURE"), Some(vec!["DELAY", "FAILURE"]));
        for wrong in ["", "NEVER,DELAY", "DELAY,delay", "DELAY,", ",DELAY", "SOMETIMES", "DELAY;"] {
            assert_eq!(parse_notify(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn identifiers_and_original_recipients_are_decoded_and_bounded() {
        assert_eq!(parse_envelope_id("QQ+2B314159").as_deref(), Some("QQ+314159"));
        let long = "x".repeat(MAX_ENVID);
        assert_eq!(parse_envelope_id(&long).as_deref(), Some(&*long));
        // Counted once they are decoded.
        assert_eq!(parse_envelope_id(&"+2B".repeat(MAX_ENVID)), Some("+".repeat(MAX_ENVID)));
        assert_eq!(parse_envelope_id(&format!("{long}x")), None);
        let table = [
            ("rfc822;joe@a.example", Some("rfc822;joe@a.example")),
            ("RFC822;joe+2Bx@a", Some("rfc822;joe+x@a")),
            ("rfc822;j+C3+B6rg@b", Some("rfc822;j\u{f6}rg@b")),
            (r"utf-8;j\x{F6}rg@b\x{FC}.example", Some("utf-8;j\u{f6}rg@b\u{fc}.example")),
            ("utf-8;j\u{f6}rg@b", Some("utf-8;j\u{f6}rg@b")),
            ("x400;/S=joe/", Some("x400;/S=joe/")),
            ("rfc822;j\u{f6}rg@b", None),
            ("rfc822;a+b@c", None),
            ("rfc822;", None),
            (";a@b", None),
            ("rfc 822;a@b", None),
            ("a@b", None),
        ];
        for (value, expected) in table {
            assert_eq!(parse_original_recipient(value).as_deref(), expected, "{value}");
        }
        let long = format!("rfc822;{}", "x".repeat(MAX_ORCPT - 7));
        assert_eq!(parse_original_recipient(&long), Some(long.clone()));
        assert_eq!(parse_original_recipient(&format!("{long}x")), None);
    }
}
