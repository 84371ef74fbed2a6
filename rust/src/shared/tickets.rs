//! Keys of TLS tickets that all processes have: a session that began at one goes on at another.
//!
//! The memory holds two secrets, the one of new tickets and the one before it; who made the memory rotates
//! them. Each server makes its own keys of them, by HKDF with its name and with what it asks of client
//! certificates: a ticket holds the client's certificate, which other authorities have to look at again.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use super::Memory;
use super::sequence::PATIENCE;
use crate::config::Swap;

/// Seconds after which a ticket is worth nothing, where keys are rotated every six hours; as rustls has it.
const LIFETIME: u32 = 12 * 60 * 60;
/// Octets before a ticket that name its key.
const NAME: usize = 16;
/// Octets of a key of AES-256.
const KEY: usize = 32;

/// 32 random octets.
#[repr(C)]
#[derive(Default)]
pub(super) struct Secret([AtomicU64; 4]);

pub(super) type Octets = Zeroizing<[u8; 32]>;

impl Secret {
    fn octets(&self) -> Octets {
        let mut octets = Zeroizing::new([0; 32]);
        for (to, from) in octets.chunks_exact_mut(8).zip(&self.0) {
            to.copy_from_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
        }
        octets
    }

    fn set(&self, octets: &Octets) {
        for (to, from) in self.0.iter().zip(octets.chunks_exact(8)) {
            let word = from.try_into().map_or(0, u64::from_ne_bytes);
            to.store(word, Ordering::Relaxed);
        }
    }

    /// One that nobody knows.
    pub(super) fn random() -> io::Result<Octets> {
        let mut octets = Zeroizing::new([0; 32]);
        rand::fill(octets.as_mut_slice()).map_err(|_| io::Error::other("no random octets"))?;
        Ok(octets)
    }
}

impl Memory {
    /// Makes a new key for tickets; those of the key before are still taken, older ones no longer.
    pub fn rotate_tickets(&self) -> io::Result<()> {
        let new = Secret::random()?;
        let _changing = self.changing();
        let header = self.header();
        let [current, previous] = &header.secrets;
        header.rotations.write(|| {
            previous.set(&current.octets());
            current.set(&new);
        });
        Ok(())
    }

    pub(super) fn secrets(&self, patience: Duration) -> Option<(u64, [Octets; 2])> {
        let header = self.header();
        header.rotations.read(patience, || header.secrets.each_ref().map(Secret::octets))
    }
}

/// What a server makes of one secret.
struct Key {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

/// The length of what is asked of HKDF.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        NAME + KEY
    }
}

impl Key {
    fn new(secret: &Octets, purpose: &[u8]) -> Option<Self> {
        let drawn = Salt::new(HKDF_SHA256, b"guerrilla tickets").extract(secret.as_slice());
        let (mut octets, purpose) = (Zeroizing::new([0; NAME + KEY]), [purpose]);
        drawn.expand(&purpose, Length).ok()?.fill(octets.as_mut_slice()).ok()?;
        let (name, key) = octets.split_first_chunk()?;
        // Two processes draw nonces that they do not tell each other: SIV, where one that comes twice costs little.
        Some(Self { name: *name, key: RandomizedNonceKey::new(&AES_256_GCM_SIV, key).ok()? })
    }

    /// Name, nonce, ciphertext with its tag.
    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(self.name), &mut sealed).ok()?;
        Some([self.name.as_slice(), nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        let mut octets = sealed.to_vec();
        let plain = self.key.open_in_place(Nonce::from(nonce), Aad::from(self.name), &mut octets);
        let length = plain.ok()?.len();
        octets.truncate(length);
        Some(octets)
    }
}

/// The keys of one server, and of which rotation they are.
struct Keys {
    rotation: u64,
    current: Key,
    previous: Key,
}

/// Tickets of one server, by keys that all processes have.
pub struct Tickets {
    memory: Arc<Memory>,
    /// A digest of what they are for.
    purpose: [u8; SHA256_OUTPUT_LEN],
    keys: Swap<Keys>,
}

impl Tickets {
    /// For one purpose: a ticket of any other is none. An error where the memory gives no keys.
    pub fn new(memory: &Arc<Memory>, purpose: &[&[u8]]) -> io::Result<Arc<Self>> {
        let mut digest = Context::new(&SHA256);
        for part in purpose {
            // With their lengths, so that no end of one is a beginning of the next.
            digest.update(&part.len().to_be_bytes());
            digest.update(part);
        }
        let mut purpose = [0; SHA256_OUTPUT_LEN];
        purpose.copy_from_slice(digest.finish().as_ref());
        let keys = make(memory, &purpose, PATIENCE)
            .ok_or_else(|| io::Error::other("no keys in memory"))?;
        Ok(Arc::new(Self { memory: Arc::clone(memory), purpose, keys: Swap::new(keys) }))
    }

    /// Those of the last rotation that has ended.
    fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.load();
        let last = self.memory.header().rotations.last();
        if last.is_none_or(|last| last == keys.rotation) {
            return keys;
        }
        // The I/O thread waits for nobody: else it has them with the next ticket.
        if let Some(new) = make(&self.memory, &self.purpose, Duration::ZERO) {
            self.keys.store(new);
        }
        self.keys.load()
    }
}

fn make(memory: &Memory, purpose: &[u8], patience: Duration) -> Option<Keys> {
    let (rotation, [current, previous]) = memory.secrets(patience)?;
    let (current, previous) = (Key::new(&current, purpose)?, Key::new(&previous, purpose)?);
    Some(Keys { rotation, current, previous })
}

impl Debug for Tickets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys().current.seal(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, sealed) = ticket.split_first_chunk::<NAME>()?;
        let keys = self.keys();
        let mut known = [&keys.current, &keys.previous].into_iter();
        known.find(|key| key.name == *name)?.open(sealed)
    }
}
