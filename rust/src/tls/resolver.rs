//! Which certificate a client is shown: the one for the name it asks for (SNI, RFC 6066 §3).

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

thread_local! {
    /// The name that the last handshake on this thread asked for: rustls tells nobody else of it.
    static ASKED: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// The name that the handshake asked for which this thread was just at, lower-cased.
pub(crate) fn take_asked_name() -> Option<Box<str>> {
    ASKED.take()
}

/// Certificates by name; the first one is for everybody else.
#[derive(Debug)]
pub(super) struct Resolver {
    all: Vec<Arc<CertifiedKey>>,
    /// Lower-cased names, `*.example.com` among them.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Resolver {
    pub(super) fn new(keys: Vec<CertifiedKey>) -> Self {
        let all: Vec<Arc<CertifiedKey>> = keys.into_iter().map(Arc::new).collect();
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        for key in &all {
            for name in key.cert.first().map(|first| dns_names(first)).unwrap_or_default() {
                by_name.entry(name).or_default().push(Arc::clone(key));
            }
        }
        Self { all, by_name }
    }

    fn named(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            // A wildcard stands for one label (RFC 9525 §6.3).
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.server_name().map(str::to_ascii_lowercase).map(Into::into));
        let keys = hello.server_name().and_then(|name| self.named(name)).unwrap_or(&self.all);
        // One name may have an RSA and an ECDSA certificate: the first that the client can verify.
        let schemes = hello.signature_schemes();
        let fits = keys.iter().find(|key| key.key.choose_scheme(schemes).is_some());
        fits.or_else(|| keys.first()).cloned()
    }
}

/// The DNS names of a certificate, lower-cased.
fn dns_names(certificate: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some((_, names))) = certificate.tbs_certificate().get_extension::<SubjectAltName>()
    else {
        return Vec::new();
    };
    let name = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    };
    names.0.iter().filter_map(name).collect()
}
