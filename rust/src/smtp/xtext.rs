//! Text within parameters, as xtext (RFC 3461 §4) and in the forms for UTF-8 (RFC 6533 §3).

/// Decodes xtext: `+2B` is one octet. Only what is printable ASCII then is taken, since it goes into logs
/// and headers.
pub(super) fn decode(value: &[u8]) -> Option<String> {
    String::from_utf8(octets(value)?).ok().filter(|text| text.bytes().all(is_graphic))
}

/// Decodes an address in xtext, whose octets may be UTF-8: Postfix 3.7 writes `rfc822;j+C3+B6rg@…` for the
/// recipient of a mail with SMTPUTF8, where RFC 6533 has `utf-8`.
pub(super) fn decode_address(value: &[u8]) -> Option<String> {
    String::from_utf8(octets(value)?).ok().filter(|text| !text.contains(is_unprintable))
}

/// The octets that xtext stands for; those that are written as themselves are printable ASCII.
///
/// The grammar has upper-case digits only.
fn octets(value: &[u8]) -> Option<Vec<u8>> {
    let mut found = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&octet, behind)) = rest.split_first() {
        let (octet, behind) = match octet {
            b'+' => escaped(behind)?,
            _ if is_graphic(octet) => (octet, behind),
            _ => return None,
        };
        found.push(octet);
        rest = behind;
    }
    Some(found)
}

fn is_graphic(octet: u8) -> bool {
    (b' '..=b'~').contains(&octet)
}

/// Decodes `utf-8-addr-xtext` and `utf-8-addr-unitext`: `\x{FC}` is one character, and others that are not
/// ASCII stand for themselves. A `+` is `\x{2B}`; `+2B`, as in xtext, is taken too.
pub(super) fn decode_utf8(value: &str) -> Option<String> {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(character) = rest.chars().next() {
        let behind = rest.get(character.len_utf8()..)?;
        let (character, behind) = match character {
            '\\' => embedded(behind)?,
            '+' => {
                let (octet, _) = escaped(behind.as_bytes())?;
                (char::from(octet), behind.get(2..)?)
            }
            other => (other, behind),
        };
        if is_unprintable(character) {
            return None;
        }
        text.push(character);
        rest = behind;
    }
    Some(text)
}

/// Whether a program may take it for the end of a line, or do something at it.
pub(super) fn is_unprintable(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Behind a `+`: an octet in two digits, and what is behind them.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, behind) = text.split_at_checked(2)?;
    // `from_str_radix` would take a sign and lower case.
    let hex = digits.iter().all(|d| d.is_ascii_digit() || (b'A'..=b'F').contains(d));
    let digits = str::from_utf8(digits).ok().filter(|_| hex)?;
    Some((u8::from_str_radix(digits, 16).ok()?, behind))
}

/// Behind a `\`: a character as `x{FC}`, and what is behind it.
fn embedded(text: &str) -> Option<(char, &str)> {
    let (digits, behind) = text.strip_prefix("x{")?.split_once('}')?;
    let hex = (2..=6).contains(&digits.len())
        && digits.bytes().all(|d| d.is_ascii_digit() || (b'A'..=b'F').contains(&d));
    let character = u32::from_str_radix(digits, 16).ok().filter(|_| hex)?;
    Some((char::from_u32(character)?, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_printable_ascii() {
        let table = [
            ("a+2Bb@c", Some("a+b@c")),
            ("a+20b", Some("a b")),
            ("", Some("")),
            ("+", None),
            ("+2", None),
            ("+2b", None),
            ("++2", None),
            ("+0D", None),
            ("+7F", None),
            ("+E9", None),
            ("+C3+A9", None),
            ("\u{e9}", None),
        ];
        for (value, expected) in table {
            assert_eq!(decode(value.as_bytes()).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn an_address_in_xtext_may_be_utf_8() {
        let table = [
            ("a+2Bb@c", Some("a+b@c")),
            ("j+C3+B6rg@b", Some("j\u{f6}rg@b")),
            ("+F0+9F+98+80", Some("\u{1f600}")),
            ("j\u{f6}rg@b", None),
            ("+E9", None),
            ("+C3", None),
            ("+0D", None),
            ("+7F", None),
            ("+C2+85", None),
            ("+E2+80+A8", None),
        ];
        for (value, expected) in table {
            assert_eq!(decode_address(value.as_bytes()).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn utf_8_is_itself_or_embedded() {
        let table = [
            ("j\u{f6}rg@b", Some("j\u{f6}rg@b")),
            (r"j\x{F6}rg\x{2B}a@\x{4F8B}\x{1F600}", Some("j\u{f6}rg+a@\u{4f8b}\u{1f600}")),
            ("a+2Bb", Some("a+b")),
            (r"\x{F6", None),
            (r"\x{}", None),
            (r"\x{F}", None),
            (r"\x{f6}", None),
            (r"\x{+F6}", None),
            (r"\x{D800}", None),
            (r"\x{110000}", None),
            (r"\x{0000041}", None),
            (r"\x{0A}", None),
            (r"\x{85}", None),
            (r"\x{2028}", None),
            (r"\y", None),
            ("\\", None),
            ("+\u{f6}", None),
            ("+", None),
        ];
        for (value, expected) in table {
            assert_eq!(decode_utf8(value).as_deref(), expected, "{value}");
        }
    }
}
