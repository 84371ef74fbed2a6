//! Internationalised host names: one name in its A-form, however it is written (RFC 5890, UTS #46).
//!
//! Nothing is asked of the tables for a name that is ASCII: it is its own A-form, but for the case.

use std::borrow::Cow;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// Of ASCII, what no host name has; underscores are in real ones.
const DENIED: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// The A-form, in lower case, of a name in either form: `bücher.example` and `XN--BCHER-KVA.example` are
/// `xn--bcher-kva.example`.
///
/// `None` for a name with characters that no host name has. A name that is ASCII is taken as it is.
#[must_use]
pub fn to_ascii(host: &str) -> Option<Cow<'_, str>> {
    if !host.is_ascii() {
        let bytes = host.as_bytes();
        return Uts46::new()
            .to_ascii(bytes, DENIED, Hyphens::CheckFirstLast, DnsLength::Verify)
            .ok();
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Some(Cow::Owned(host.to_ascii_lowercase()))
    } else {
        Some(Cow::Borrowed(host))
    }
}

/// A pattern for host names with each label in its A-form.
///
/// `None` where a label is not ASCII and has a wildcard too: part of a name is not part of its A-form.
pub(super) fn pattern_to_ascii(pattern: &str) -> Option<Cow<'_, str>> {
    if pattern.is_ascii() {
        return Some(Cow::Borrowed(pattern));
    }
    let labels = pattern.split('.').map(|label| match label.contains(['*', '?', '[', ']']) {
        true if !label.is_ascii() => None,
        true => Some(Cow::Borrowed(label)),
        false => to_ascii(label),
    });
    let labels: Option<Vec<_>> = labels.collect();
    labels.map(|labels| Cow::Owned(labels.join(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_form_has_one_a_form() {
        for host in [
            "b\u{fc}cher.example",
            "B\u{dc}CHER.Example",
            "bu\u{308}cher.example",
            "xn--bcher-kva.example",
            "XN--BCHER-KVA.example",
        ] {
            assert_eq!(to_ascii(host).as_deref(), Some("xn--bcher-kva.example"), "{host}");
        }
        assert_eq!(to_ascii("\u{4f8b}\u{3048}.jp").as_deref(), Some("xn--r8jz45g.jp"));
        // Not as in 2003, when it was ss.
        assert_eq!(to_ascii("stra\u{df}e.de").as_deref(), Some("xn--strae-oqa.de"));
        assert_eq!(to_ascii("my_host.b\u{fc}.de").as_deref(), Some("my_host.xn--b-eha.de"));
        assert!(matches!(to_ascii("plain.example"), Some(Cow::Borrowed("plain.example"))));
    }

    #[test]
    fn what_is_no_host_name() {
        let long = "\u{fc}".repeat(64);
        for host in [
            "\u{fc} b.example",
            "\u{fc}@b",
            "\u{fc}..b",
            "-\u{fc}.b",
            "\u{fc}-.b",
            "\u{301}a.b",
            "a\u{200b}\u{ff0f}.b",
            "\u{fc}.xn--zzzzzzzz99999.b",
            "\u{5d0}a.b",
            long.as_str(),
        ] {
            assert_eq!(to_ascii(host), None, "{host:?}");
        }
    }

    #[test]
    fn patterns_label_by_label() {
        let table = [
            ("*.b\u{fc}cher.example", Some("*.xn--bcher-kva.example")),
            ("*.example", Some("*.example")),
            ("mx?.\u{4f8b}\u{3048}.jp", Some("mx?.xn--r8jz45g.jp")),
            ("b\u{fc}*.example", None),
            ("[\u{e4}-\u{fc}].example", None),
        ];
        for (pattern, expected) in table {
            assert_eq!(pattern_to_ascii(pattern).as_deref(), expected, "{pattern}");
        }
    }
}
