//! Certificates, keys and authorities out of PEM files; every error names the file and what to do.

use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::Problem;

/// The contents of every file, so that what was looked at is what is used.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) pairs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) roots: Option<Vec<u8>>,
}

impl Files {
    pub(super) fn read(
        pairs: &[(PathBuf, PathBuf)],
        roots: Option<&Path>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut read = |key: &'static str, path: &Path| match std::fs::read(path) {
            Ok(octets) => octets,
            Err(error) => {
                problems.push(problem(key, path, &format!("cannot be read: {error}")));
                Vec::new()
            }
        };
        let mut contents = Vec::with_capacity(pairs.len());
        for (key, certificate) in pairs {
            let key = read("private_key_file", key);
            contents.push((key, read("public_key_file", certificate)));
        }
        let roots = roots.map(|path| read("root_cas_file", path));
        if problems.is_empty() { Ok(Self { pairs: contents, roots }) } else { Err(problems) }
    }
}

fn problem(key: &'static str, path: &Path, what: &str) -> Problem {
    Problem { key, text: format!("{}: {what}", path.display()) }
}

/// A certificate chain with the key that belongs to it.
pub(super) fn certified_key(
    paths: &(PathBuf, PathBuf),
    contents: &(Vec<u8>, Vec<u8>),
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Problem> {
    let ((key_path, chain_path), (key, chain)) = (paths, contents);
    let chain =
        certificates(chain).map_err(|what| problem("public_key_file", chain_path, &what))?;
    let bad_key = |what: &str| problem("private_key_file", key_path, what);
    if memchr::memmem::find(key, b"ENCRYPTED").is_some() {
        return Err(bad_key("the key is encrypted; write it without a passphrase"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        bad_key(&format!("holds no private key in PEM (PKCS#1, PKCS#8 or SEC1): {error}"))
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => bad_key(&format!(
            "the key does not fit the certificate in {}; name the pair that belongs together",
            chain_path.display()
        )),
        Error::InvalidCertificate(_) => {
            problem("public_key_file", chain_path, &format!("a bad certificate: {error}"))
        }
        error => bad_key(&format!("cannot be used: {error}")),
    })
}

/// The authorities that client certificates are verified against.
pub(super) fn roots(path: &Path, octets: &[u8]) -> Result<RootCertStore, Problem> {
    let bad = |what: &str| problem("root_cas_file", path, what);
    let mut store = RootCertStore::empty();
    for certificate in certificates(octets).map_err(|what| bad(&what))? {
        store.add(certificate).map_err(|error| bad(&format!("a bad certificate: {error}")))?;
    }
    Ok(store)
}

pub(crate) fn certificates(octets: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(octets)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not PEM: {error}"))?;
    if chain.is_empty() { Err("holds no certificate in PEM".to_owned()) } else { Ok(chain) }
}
