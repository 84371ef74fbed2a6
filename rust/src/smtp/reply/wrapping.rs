//! The text of a reply in lines that are as long as they may be, in either form.

use std::io::Write as _;

use super::Form;

/// Appends text in a form that the client can be told.
#[inline]
pub(super) fn push_text(out: &mut Vec<u8>, text: &str, form: Form) {
    if form.utf8 || text.is_ascii() {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for character in text.chars() {
        if character.is_ascii() {
            out.push(u8::try_from(character).unwrap_or(b'?'));
        } else {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "\\x{{{:02X}}}", u32::from(character));
        }
    }
}

/// Octets that a character takes, as [`push_text`] writes it.
fn width(character: char, form: Form) -> usize {
    if form.utf8 || character.is_ascii() {
        return character.len_utf8();
    }
    let digits = u32::from(character).ilog2() / 4 + 1;
    r"\x{}".len() + digits as usize
}

/// Text cut at spaces into lines that fit.
pub(super) struct Wrapped<'a> {
    pub(super) rest: Option<&'a str>,
    pub(super) width: usize,
    pub(super) form: Form,
}

impl Wrapped<'_> {
    /// How much of the text, whole characters all, fits into a line.
    #[inline]
    fn fitting(&self, text: &str) -> usize {
        // A character that is not ASCII takes up to four times the octets that it has here.
        if text.len() <= self.width / 4 || (text.is_ascii() && text.len() <= self.width) {
            return text.len();
        }
        let mut room = self.width;
        let over = text.char_indices().find(|&(_, character)| {
            let left = room.checked_sub(width(character, self.form));
            room = left.unwrap_or(0);
            left.is_none()
        });
        over.map_or(text.len(), |(at, _)| at)
    }
}

impl<'a> Iterator for Wrapped<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.take()?;
        let fitting = self.fitting(rest);
        let Some(head) = rest.get(..fitting).filter(|head| head.len() < rest.len()) else {
            return Some(rest);
        };
        let cut = head.rfind(' ').filter(|&at| at > 0).unwrap_or(fitting);
        let (line, tail) = rest.split_at_checked(cut)?;
        self.rest = Some(tail.strip_prefix(' ').unwrap_or(tail));
        Some(line)
    }
}
