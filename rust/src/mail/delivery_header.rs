//! The header a delivery adds: `Delivered-To` and the time stamp line `Received` (RFC 5321 §4.4).
//!
//! What a client chose (its HELO name, the recipient) is made harmless here, whatever was checked
//! before: no line can be broken, no comment opened or closed by it.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::digits::push_digits;

/// The longest domain (RFC 5321 §4.5.3.1.2). A HELO name is cut there, so that the line stays far
/// below 998 bytes.
const MAX_NAME: usize = 255;

/// 23:59:59 on 31 December 9999: a later date has no form in RFC 5322.
const LAST_SECOND: u64 = 253_402_300_799;

const SECONDS_A_DAY: u64 = 86_400;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How a message came in, as its `Received` field tells it.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// The name the client gave with HELO or EHLO; may be empty.
    pub helo: &'a str,
    /// The client's address, as text; empty when it came over a unix socket.
    pub remote: &'a str,
    /// The client's host name, where a proxy gave it.
    pub remote_name: Option<&'a str>,
    /// The name of this host.
    pub by: &'a str,
    /// The protocol by its registered name (RFC 3848): `SMTP`, `ESMTP`, `ESMTPS`, …
    pub protocol: &'a str,
    /// The id of the message here.
    pub id: &'a str,
    /// When the message was received, in seconds since 1970 began (UTC).
    pub received_at: u64,
    /// The cipher suite of a TLS connection.
    pub cipher: Option<&'a str>,
    /// The version of a TLS connection, as `TLSv1.3`.
    pub tls_version: Option<&'a str>,
}

/// Builds the delivery header, each line ended by CRLF.
///
/// `delivered_to` is set in one recipient's own copy only, so that no copy discloses another
/// recipient.
pub fn delivery_header(trace: &Trace<'_>, delivered_to: Option<&str>) -> Vec<u8> {
    let mut header = String::with_capacity(512);
    if let Some(recipient) = delivered_to {
        header.push_str("Delivered-To: ");
        header.extend(recipient.chars().map(|char| if breaks_line(char) { '?' } else { char }));
        header.push_str("\r\n");
    }
    header.push_str("Received: from ");
    push_name(&mut header, trace.helo);
    push_remote(&mut header, trace.remote_name, trace.remote);
    push_tls(&mut header, trace.tls_version, trace.cipher);
    header.push_str("\r\n\tby ");
    push_name(&mut header, trace.by);
    header.push_str(" with ");
    push_word(&mut header, trace.protocol);
    header.push_str(" id ");
    push_word(&mut header, trace.id);
    header.push_str(";\r\n\t");
    push_date(&mut header, trace.received_at);
    header.push_str("\r\n");
    header.into_bytes()
}

/// The time as RFC 5322 §3.3 writes it, in UTC: `Mon, 23 Nov 2026 03:46:14 +0000`.
///
/// A time after the year 9999 is given as the last second of that year.
pub fn rfc5322_date(unix_seconds: u64) -> String {
    let mut date = String::with_capacity(31);
    push_date(&mut date, unix_seconds);
    date
}

fn push_date(out: &mut String, unix_seconds: u64) {
    let seconds = unix_seconds.min(LAST_SECOND);
    let (days, time) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
    let (year, month, day) = civil_from_days(days);
    let weekday = match days % 7 {
        0 => "Thu", // 1 January 1970
        1 => "Fri",
        2 => "Sat",
        3 => "Sun",
        4 => "Mon",
        5 => "Tue",
        _ => "Wed",
    };
    let month = MONTHS.get(usize::try_from(month - 1).unwrap_or(0)).unwrap_or(&"");
    out.extend([weekday, ", "]);
    push_digits(out, day, if day < 10 { 1 } else { 10 });
    out.extend([" ", month, " "]);
    push_digits(out, year, 1_000);
    for (before, number) in [(' ', time / 3600), (':', time / 60 % 60), (':', time % 60)] {
        out.push(before);
        push_digits(out, number, 10);
    }
    out.push_str(" +0000");
}

/// Year, month from 1 and day of the month, from days since 1 January 1970.
///
/// Years are counted from March, so that the leap day comes last and the months before it have
/// fixed starts; eras are 400 years, after which the calendar repeats. (H. Hinnant,
/// "chrono-compatible low-level date algorithms".)
pub(crate) fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const DAYS_AN_ERA: u64 = 146_097;
    const FROM_MARCH_0000_TO_1970: u64 = 719_468;
    let days = days + FROM_MARCH_0000_TO_1970;
    let (era, day) = (days / DAYS_AN_ERA, days % DAYS_AN_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month_of_year, years) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + years, month_of_year, day - (153 * month + 2) / 5 + 1)
}

/// Writes the TCP-info of RFC 5321 §4.4: `[192.0.2.1]`, `[IPv6:2001:db8::1]` or `local`, behind a name where
/// there is one, in parentheses.
fn push_remote(out: &mut String, name: Option<&str>, remote: &str) {
    out.push_str(" (");
    if let Some(name) = name {
        push_name(out, name);
        out.push(' ');
    }
    // A link-local address may have a zone after it.
    let address = remote.split('%').next().unwrap_or_default();
    let _ = match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => write!(out, "[{ip}])"),
        Ok(IpAddr::V6(ip)) => write!(out, "[IPv6:{ip}])"),
        Err(_) if remote.is_empty() && name.is_none() => write!(out, "local)"),
        Err(_) => write!(out, "unknown)"),
    };
}

fn push_tls(out: &mut String, version: Option<&str>, cipher: Option<&str>) {
    if version.is_none() && cipher.is_none() {
        return;
    }
    out.push_str("\r\n\t(using ");
    push_word(out, version.unwrap_or("TLS"));
    if let Some(cipher) = cipher {
        out.push_str(" with cipher ");
        push_word(out, cipher);
    }
    out.push(')');
}

/// Writes a host name or an address literal.
fn push_name(out: &mut String, name: &str) {
    if let Some(literal) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        out.push('[');
        push_safe(out, literal, |char| matches!(char, '.' | '-' | ':'));
        out.push(']');
    } else {
        push_word(out, name);
    }
}

/// Writes a word that can be nothing but a word, `unknown` in place of an empty one.
fn push_word(out: &mut String, word: &str) {
    let word = if word.is_empty() { "unknown" } else { word };
    push_safe(out, word, |char| matches!(char, '.' | '-' | '_' | '+' | '@'));
}

/// Writes ASCII letters, digits and the characters `allowed`, and `?` in place of each other one.
fn push_safe(out: &mut String, text: &str, allowed: impl Fn(char) -> bool) {
    let safe = |char: char| {
        if char.is_ascii_alphanumeric() || allowed(char) { char } else { '?' }
    };
    out.extend(text.chars().take(MAX_NAME).map(safe));
}

/// Whether a program may take the character as the end of a line, or of the text.
fn breaks_line(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests;
