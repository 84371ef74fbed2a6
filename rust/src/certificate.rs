//! Self-signed certificates: enough for a trial, and for opportunistic TLS (RFC 7435), where senders
//! encrypt and do not ask who signed.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

/// A century: what is longer is a mistake, and the year has to have four digits (RFC 5280 §4.1.2.5).
const MAX_DAYS: u32 = 36_500;
const DAY: Duration = Duration::from_hours(24);
/// It is valid from so long ago on: clocks differ.
const LEEWAY: Duration = Duration::from_hours(1);
/// Octets of a host name and of a label of it, RFC 1035 §2.3.4.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;
/// Characters of a common name, RFC 5280 appendix A.1.
const MAX_COMMON_NAME: usize = 64;

/// A private key and its self-signed certificate.
#[derive(Debug)]
pub struct Pair {
    /// The private key as PEM, PKCS#8.
    pub key: String,
    /// The certificate as PEM.
    pub certificate: String,
}

/// Why there is no certificate.
#[derive(Debug)]
pub enum CertificateError {
    /// Without a host it would be for nobody.
    NoHost,
    /// A host that a certificate cannot be for, and why.
    Host(String, &'static str),
    /// Not between 1 and [`MAX_DAYS`].
    Days,
    /// The library refused.
    Make(rcgen::Error),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHost => f.write_str("expected at least one host"),
            Self::Host(host, reason) => {
                write!(f, "'{}' is no host for a certificate: {reason}", host.escape_debug())
            }
            Self::Days => write!(f, "expected 1 to {MAX_DAYS} days"),
            Self::Make(error) => write!(f, "the certificate cannot be made: {error}"),
        }
    }
}

impl std::error::Error for CertificateError {}

/// A new P-256 key, and a certificate for `hosts`, valid from now on for `days`.
///
/// A host is a DNS name, a wildcard such as `*.example.com`, an IP address, or an address literal of
/// RFC 5321. The certificate is for a server alone, and signs no other.
pub fn self_signed(hosts: &[String], days: u32) -> Result<Pair, CertificateError> {
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(CertificateError::Days);
    }
    let mut names = Vec::new();
    for host in hosts {
        let name = san(host).map_err(|reason| CertificateError::Host(host.clone(), reason))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let first = names.first().ok_or(CertificateError::NoHost)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(first);
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let epoch = date_time_ymd(1970, 1, 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = epoch + now.saturating_sub(LEEWAY);
    params.not_after = epoch + now + DAY * days;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CertificateError::Make)?;
    let certificate = params.self_signed(&key).map_err(CertificateError::Make)?;
    Ok(Pair { key: key.serialize_pem(), certificate: certificate.pem() })
}

/// For people; clients look at the alternative names (RFC 6125 §6.4.4).
fn subject(first: &SanType) -> DistinguishedName {
    let name = match first {
        SanType::DnsName(name) => name.as_str().to_owned(),
        SanType::IpAddress(ip) => ip.to_string(),
        _ => String::new(),
    };
    let mut subject = DistinguishedName::new();
    let fits = (1..=MAX_COMMON_NAME).contains(&name.len());
    subject.push(DnType::CommonName, if fits { name } else { "guerrilla".to_owned() });
    subject
}

/// What stands in the certificate for a host, or why it cannot.
fn san(host: &str) -> Result<SanType, &'static str> {
    if let Some(ip) = address(host)? {
        return Ok(SanType::IpAddress(ip));
    }
    let name = dns_name(host)?;
    name.try_into().map(SanType::DnsName).map_err(|_| "its name is not ASCII")
}

/// An IP address, plain or as a literal: `192.0.2.1`, `[192.0.2.1]`, `2001:db8::1`, `[2001:db8::1]`,
/// `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3). `None` for what is no address.
fn address(host: &str) -> Result<Option<IpAddr>, &'static str> {
    let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return Ok(host.parse().ok());
    };
    let tagged = literal.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    let found = if tagged {
        literal.get(5..).and_then(|rest| rest.parse::<Ipv6Addr>().ok()).map(IpAddr::V6)
    } else {
        literal.parse().ok()
    };
    found.map(Some).ok_or("no address stands in the brackets")
}

/// The name in lower case and without the dot at its end.
fn dns_name(host: &str) -> Result<String, &'static str> {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if !name.is_ascii() {
        return Err("write it in its ASCII form, with xn--");
    }
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    // RFC 6125 §7.2: a wildcard for a whole top-level domain is matched by nobody.
    if plain.len() < name.len() && !plain.contains('.') {
        return Err("a wildcard needs a domain of two labels, as in *.example.com");
    }
    if plain.contains('*') {
        return Err("a wildcard is its whole first label, as in *.example.com");
    }
    if plain.is_empty() || name.len() > MAX_NAME {
        return Err("a name has 1 to 253 characters");
    }
    if !plain.split('.').all(is_label) {
        return Err(
            "a label has 1 to 63 letters, digits and hyphens, with no hyphen at either end",
        );
    }
    let last = plain.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err("it looks like an IPv4 address and is none");
    }
    Ok(name)
}

/// RFC 1123 §2.1.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(host: &str) -> String {
        match san(host) {
            Ok(SanType::DnsName(name)) => format!("DNS:{name}"),
            Ok(SanType::IpAddress(ip)) => format!("IP:{ip}"),
            Ok(_) => "another kind".to_owned(),
            Err(reason) => format!("error: {reason}"),
        }
    }

    #[test]
    fn hosts_of_every_kind() {
        for (host, name) in [
            ("MX1.Example.com.", "DNS:mx1.example.com"),
            ("localhost", "DNS:localhost"),
            ("*.example.com", "DNS:*.example.com"),
            ("xn--bcher-kva.example", "DNS:xn--bcher-kva.example"),
            ("192.0.2.1", "IP:192.0.2.1"),
            ("[192.0.2.1]", "IP:192.0.2.1"),
            ("2001:DB8::1", "IP:2001:db8::1"),
            ("[2001:db8::1]", "IP:2001:db8::1"),
            ("[ipv6:2001:db8::1]", "IP:2001:db8::1"),
        ] {
            assert_eq!(names(host), name, "{host}");
        }
    }

    #[test]
    fn what_is_no_host() {
        let long = format!("{}.example", "a".repeat(64));
        let longest = ["a.".repeat(130), "example".to_owned()].concat();
        for host in [
            "",
            ".",
            "a..b",
            "-a.example",
            "a-.example",
            "a_b.example",
            "a b",
            "a\r\nb",
            "bücher.example",
            "*",
            "*.com",
            "*.",
            "a.*.example",
            "a*.example.com",
            "*.*.example.com",
            "192.0.2.256",
            "192.0.2",
            "[]",
            "[mx]",
            "[IPv6:192.0.2.1]",
            "[192.0.2.1",
            "mx.example.com:25",
            "[é]",
            &long,
            &longest,
        ] {
            assert!(names(host).starts_with("error: "), "{host:?}: {}", names(host));
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let host = "a\n*".to_owned();
        let told = |hosts: &[String], days| self_signed(hosts, days).err().map(|e| e.to_string());
        assert_eq!(told(&[], 1).as_deref(), Some("expected at least one host"));
        for days in [0, MAX_DAYS + 1, u32::MAX] {
            assert_eq!(told(&["a".to_owned()], days).as_deref(), Some("expected 1 to 36500 days"));
        }
        assert_eq!(
            told(&[host], 1).as_deref(),
            Some(
                "'a\\n*' is no host for a certificate: \
                 a wildcard is its whole first label, as in *.example.com"
            )
        );
    }

    #[test]
    fn the_longest_life_and_the_longest_name() {
        let long =
            format!("{}.example", vec!["a".repeat(60); 4].join(".").get(1..).unwrap_or_default());
        let pair = self_signed(&[long], MAX_DAYS);
        assert!(pair.is_ok_and(|pair| pair.key.starts_with("-----BEGIN PRIVATE KEY-----")));
    }
}
