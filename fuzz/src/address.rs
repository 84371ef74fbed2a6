//! Paths, parameters and HELO names: what is taken is within the limits and printable, and is read again as the
//! same once it is written.

use guerrilla::smtp::{
    Address, AddressError, Charset, PathKind, parse_helo, parse_parameters_in, parse_path_in,
};

const MAX_PATH: usize = 256;
const MAX_LOCAL_PART: usize = 128;
const MAX_DOMAIN: usize = 255;

/// Checks one input.
pub fn check(input: &[u8]) {
    for charset in [Charset::Ascii, Charset::Utf8] {
        for kind in [PathKind::Reverse, PathKind::Forward] {
            if let Ok((address, rest)) = parse_path_in(input, kind, charset) {
                assert!(input.ends_with(rest) && rest.len() < input.len());
                assert!(input.len() - rest.len() <= MAX_PATH + 1, "a path too long is taken");
                assert!(charset == Charset::Utf8 || address.is_ascii());
                let ascii = parse_path_in(input, kind, Charset::Ascii);
                assert_eq!(ascii.is_ok(), address.is_ascii(), "ASCII means the same in UTF-8");
                check_address(&address, kind);
                check_parameters(rest, charset);
            }
        }
        check_parameters(input, charset);
    }
    if let Some(name) = parse_helo(input) {
        assert!(!name.is_empty() && name.len() <= MAX_DOMAIN);
        assert!(name.bytes().all(|octet| octet.is_ascii_graphic()), "{name:?}");
        assert_eq!(parse_helo(name.as_bytes()), Some(name));
    }
    if let Ok(address) =
        std::str::from_utf8(input).map_or(Err(AddressError::NonAscii), Address::parse)
    {
        check_address(&address, PathKind::Forward);
    }
}

fn check_address(address: &Address, kind: PathKind) {
    let (user, host) = (address.user(), address.host());
    let printable = |text: &str| text.chars().all(|one| !one.is_control() && one != '\u{2028}');
    assert!(address.ascii_host().is_ascii(), "{host:?} has no A-form");
    assert!(user.len() <= MAX_LOCAL_PART && printable(user), "{user:?}");
    assert!(host.len() <= MAX_DOMAIN && printable(host) && !host.contains(' '), "{host:?}");
    assert_eq!(address.ip().is_some(), host.starts_with('['));
    assert!(!host.is_empty() || address.is_null() || address.is_postmaster());
    let text = address.to_string();
    let plain = address.clone().with_route(Vec::new()).with_parameters(Vec::new());
    if text.len() + 2 > MAX_PATH {
        // An IPv6 literal is written in full where the client had left out zeros.
        assert!(address.ip().is_some(), "{text} has grown");
        return;
    }
    assert_eq!(Address::parse(&text).as_ref(), Ok(&plain), "{text}");
    let path = format!("<{text}>");
    let kind = if address.is_null() { PathKind::Reverse } else { kind };
    assert_eq!(
        parse_path_in(path.as_bytes(), kind, Charset::Utf8),
        Ok((plain, &b""[..])),
        "{path}"
    );
}

fn check_parameters(rest: &[u8], charset: Charset) {
    let Ok(parameters) = parse_parameters_in(rest, charset) else { return };
    let mut text = String::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let keyword = &parameter.keyword;
        assert_eq!(keyword, &keyword.to_ascii_uppercase());
        assert!(parameters[..index].iter().all(|earlier| earlier.keyword != *keyword));
        text.push(' ');
        text.push_str(keyword);
        if let Some(value) = &parameter.value {
            assert!(
                !value.is_empty()
                    && value.chars().all(|one| one.is_ascii_graphic() || !one.is_ascii())
            );
            assert!(charset == Charset::Utf8 || value.is_ascii());
            text.push('=');
            text.push_str(value);
        }
    }
    assert_eq!(parse_parameters_in(text.as_bytes(), charset), Ok(parameters), "{text}");
}
