//! Text that is nearly always short: it lies where it is kept then, and takes no memory beside that. A message has
//! several such texts, and allocating them would cost more than parsing them does.

use std::fmt;
use std::ops::Deref;

/// Octets that have their place: enough for an address as most are, for an id, and for the reply to a message that
/// was saved.
const SHORT: usize = 46;

/// Text that does not change.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ShortText(Kept);

/// Each text has one form, so that two of them can be compared as they are.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Kept {
    /// With NULs behind it.
    Here(u8, [u8; SHORT]),
    /// It has more octets than that.
    Elsewhere(Box<str>),
}

impl ShortText {
    /// These texts, one behind the other.
    #[must_use]
    pub fn joined(parts: &[&str]) -> Self {
        let here = Kept::here(parts);
        Self(here.unwrap_or_else(|| Kept::Elsewhere(parts.concat().into())))
    }

    /// These octets, one behind the other, where they are UTF-8.
    #[must_use]
    pub fn from_octets(parts: &[&[u8]]) -> Option<Self> {
        match Kept::here(parts) {
            // All of them at once, whatever the length: quicker than to look for UTF-8.
            Some(Kept::Here(length, octets)) if octets.is_ascii() => {
                Some(Self(Kept::Here(length, octets)))
            }
            _ => String::from_utf8(parts.concat()).ok().map(Self::from),
        }
    }
}

impl Kept {
    fn here<T: AsRef<[u8]>>(parts: &[T]) -> Option<Self> {
        let mut octets = [0; SHORT];
        let mut length = 0;
        for part in parts.iter().map(AsRef::as_ref) {
            let behind = length + part.len();
            octets.get_mut(length..behind)?.copy_from_slice(part);
            length = behind;
        }
        Some(Self::Here(u8::try_from(length).ok()?, octets))
    }
}

impl Deref for ShortText {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Kept::Here(length, octets) => {
                let octets = octets.get(..usize::from(*length)).unwrap_or_default();
                // It was text, and is.
                std::str::from_utf8(octets).unwrap_or_default()
            }
            Kept::Elsewhere(text) => text,
        }
    }
}

impl Default for ShortText {
    fn default() -> Self {
        Self(Kept::Here(0, [0; SHORT]))
    }
}

impl From<&str> for ShortText {
    fn from(text: &str) -> Self {
        Self::joined(&[text])
    }
}

impl From<String> for ShortText {
    fn from(text: String) -> Self {
        if text.len() > SHORT { Self(Kept::Elsewhere(text.into())) } else { Self::joined(&[&text]) }
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_text_however_it_was_made_and_however_long_it_is() {
        for length in [0, 1, SHORT - 1, SHORT, SHORT + 1, 255, 256, 300, 65_536 + 3] {
            let text = "\u{e9}".repeat(length / 2) + if length % 2 == 1 { "x" } else { "" };
            assert_eq!(text.len(), length);
            let kept = ShortText::from(text.as_str());
            assert_eq!((&*kept, &kept), (text.as_str(), &ShortText::from(text.clone())));
            for at in (0..=length).filter(|at| text.is_char_boundary(*at)).take(60) {
                let (head, tail) = text.split_at(at);
                assert_eq!(ShortText::joined(&[head, tail]), kept, "{length} cut at {at}");
            }
            assert_ne!(ShortText::joined(&[&text, "x"]), kept);
            let (head, tail) = text.as_bytes().split_at(length / 3);
            assert_eq!(ShortText::from_octets(&[head, tail]), Some(kept));
            assert_eq!(ShortText::from_octets(&[head, tail, b"\xff"]), None);
        }
        assert_eq!(ShortText::default(), ShortText::from(""));
    }

    #[test]
    fn one_takes_as_much_as_two_strings() {
        assert_eq!(size_of::<ShortText>(), 2 * size_of::<String>());
        assert_eq!(size_of::<Option<ShortText>>(), size_of::<ShortText>());
    }
}
