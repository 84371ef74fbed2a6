//! Go's names of protocols, cipher suites and groups.

use rustls::crypto::{SupportedKxGroup, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

/// `tls1.2` and `tls1.3`; any other name is passed over.
pub(super) fn protocols(names: &[String]) -> Vec<&'static SupportedProtocolVersion> {
    let known = [("tls1.3", &TLS13), ("tls1.2", &TLS12)];
    known.iter().filter(|(name, _)| names.iter().any(|n| n == name)).map(|(_, v)| *v).collect()
}

/// The suites that are named, in our order: first those with SHA-256, for which processors have instructions. The key
/// schedule (RFC 8446 §7.1) with SHA-384 takes a tenth of all that a session costs. As in Go, names of TLS 1.2 alone leave
/// TLS 1.3 as it is.
pub(super) fn suites(allowed: &[String]) -> Vec<SupportedCipherSuite> {
    let all = aws_lc_rs::DEFAULT_CIPHER_SUITES;
    let named = |suite: &SupportedCipherSuite| {
        let iana = suite_name(*suite);
        let short = iana.trim_end_matches("_SHA256");
        // Go has a short name for the ChaCha suites of TLS 1.2.
        allowed.iter().any(|n| *n == iana || (iana.contains("CHACHA20") && n == short))
    };
    let is_13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    let any_13 = all.iter().any(|suite| is_13(suite) && named(suite));
    let wanted = |suite: &&SupportedCipherSuite| {
        allowed.is_empty() || named(suite) || (is_13(suite) && !any_13)
    };
    let mut suites: Vec<_> = all.iter().filter(wanted).copied().collect();
    suites.sort_by_key(|suite| !suite_name(*suite).contains("AES_128"));
    suites
}

/// The groups that are named, in our order.
pub(super) fn groups(names: &[String]) -> Vec<&'static dyn SupportedKxGroup> {
    let name_of = |group: &dyn SupportedKxGroup| match group.name() {
        rustls::NamedGroup::secp256r1 => "P256",
        rustls::NamedGroup::secp384r1 => "P384",
        rustls::NamedGroup::X25519 => "X25519",
        rustls::NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "",
    };
    let wanted = |group: &&&'static dyn SupportedKxGroup| {
        names.is_empty() || names.iter().any(|name| name == name_of(**group))
    };
    aws_lc_rs::DEFAULT_KX_GROUPS.iter().filter(wanted).copied().collect()
}

/// The suite's registered name: `TLS_AES_128_GCM_SHA256`.
pub(crate) fn suite_name(suite: SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        suites(&names).into_iter().map(suite_name).collect()
    }

    #[test]
    fn no_name_is_all_and_names_of_tls12_leave_tls13() {
        assert_eq!(named(&[]).len(), aws_lc_rs::DEFAULT_CIPHER_SUITES.len());
        let some = named(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]);
        assert_eq!(some.iter().filter(|name| name.contains("ECDHE")).count(), 1);
        assert!(some.iter().any(|name| name == "TLS_AES_128_GCM_SHA256"));
        assert_eq!(named(&["TLS_AES_128_GCM_SHA256"]), ["TLS_AES_128_GCM_SHA256"]);
        let order = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"];
        assert_eq!(named(&["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]), order);
    }
}
