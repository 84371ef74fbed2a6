//! Peers that break the protocol, or whose octets somebody changes.

use std::io::Write;
use std::ops::BitXorAssign;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{AlertDescription, ClientConnection, ConnectionTrafficSecrets};

use super::*;

#[test]
fn what_is_no_record_fails_with_an_alert_that_says_why() {
    for (version, alert_octets) in [("tls1.2", HEAD + 8 + 2 + 16), ("tls1.3", HEAD + 2 + 1 + 16)] {
        let alert = AlertDescription::BadRecordMac;
        let (mut client, mut server) = Place::new(version).pair(NAME);
        let mut ticket = Vec::new();
        server.encrypt(&[], &mut ticket).unwrap();
        hear(&mut client, &ticket).unwrap();
        client.writer().write_all(b"NOOP\r\n").unwrap();
        let mut octets = said(&mut client);
        *octets.last_mut().unwrap() ^= 1;
        let mut plaintext = Vec::new();
        let error = server.decrypt(&mut octets, &mut plaintext).unwrap_err();
        assert!(matches!(error, Error::DecryptError), "{version}: {error}");
        assert_eq!(plaintext, b"");
        let mut answer = Vec::new();
        server.encrypt(&[], &mut answer).unwrap();
        // It is said once: rustls was not asked for the same record again.
        assert_eq!((answer.len(), server.connection.wants_write()), (alert_octets, false));
        let heard = hear(&mut client, &answer).unwrap_err();
        assert!(matches!(heard, Error::AlertReceived(is) if is == alert), "{version}: {heard}");
        assert!(server.decrypt(&mut [23, 3, 3, 0, 1, 0], &mut plaintext).is_err());
    }
    let mut server = Place::new("tls1.3").server();
    assert!(server.decrypt(&mut b"EHLO client.example\r\n".to_owned(), &mut Vec::new()).is_err());
}

#[test]
fn what_was_changed_on_the_way_is_never_heard() {
    let place = Place::new("tls1.3");
    let mut random = 1_u64;
    let mut below = |count: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % count
    };
    let text = text(1_000);
    for round in 0..600 {
        let (mut client, mut server) = (place.client(NAME), place.server());
        let (mut heard, mut has_to_be_seen) = (Vec::new(), false);
        // In the hello, in the end of the handshake, or in what is said behind it.
        let (turn, piece) = (round % 3, 1 + below(400));
        for now in 0..3 {
            if now == 2 {
                client.writer().write_all(&text).unwrap();
            }
            let mut octets = said(&mut client);
            if now == turn {
                let (whole, place) = (octets.clone(), below(octets.len()));
                match below(3) {
                    0 => octets
                        .get_mut(place)
                        .unwrap()
                        .bitxor_assign(u8::try_from(1 + below(255)).unwrap()),
                    1 => drop(octets.remove(place)),
                    _ => octets.insert(place, u8::try_from(below(256)).unwrap()),
                }
                // The version in a record's head says nothing (RFC 8446 §5.1), nor does what comes behind it all.
                let says_something = !(1..3).contains(&place) && !octets.starts_with(&whole);
                has_to_be_seen = turn == 2 && says_something;
            }
            let is_over = octets
                .chunks_mut(piece)
                .any(|octets| !matches!(server.decrypt(octets, &mut heard), Ok(true)));
            let mut answer = Vec::new();
            server.encrypt(&[], &mut answer).unwrap();
            if is_over || hear(&mut client, &answer).is_err() {
                break;
            }
        }
        assert!(text.starts_with(&heard), "{round}");
        assert!(!has_to_be_seen || heard.len() < text.len(), "{round}: nobody saw the change");
        let _ = server.encrypt(b"250 OK\r\n", &mut Vec::new());
        let _ = server.close(&mut Vec::new());
    }
}

#[test]
fn a_handshake_that_never_ends_takes_little_memory() {
    // A client's hello of 60,000 octets, in records of one.
    let record = |octet: u8| [22, 3, 1, 0, 1, octet];
    let mut octets: Vec<u8> = [1, 0, 0xea, 0x60].into_iter().flat_map(record).collect();
    octets.extend((0..50_000).flat_map(|_| record(0)));
    for piece in [6, 100, 4_096] {
        let mut server = Place::new("tls1.3").server();
        let mut most = 0;
        let failed = octets.clone().chunks_mut(piece).any(|octets| {
            let result = server.decrypt(octets, &mut Vec::new());
            most = most.max(server.begun.capacity());
            result.is_err()
        });
        assert!(failed, "{piece}");
        assert!((10_000..=LARGEST_HANDSHAKE).contains(&most), "{most}");
    }
}

/// The records of a client that may say anything (RFC 8446 §5.2).
struct Forger {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Forger {
    fn new(client: ClientConnection) -> Self {
        let (sequence, secrets) = client.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { unreachable!() };
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
        Self { key, iv: iv.as_ref().try_into().unwrap(), sequence }
    }

    fn record(&mut self, kind: u8, text: &[u8], padding: usize) -> Vec<u8> {
        let mut inner = [text, &[kind], &vec![0; padding]].concat();
        let length = u16::try_from(inner.len() + 16).unwrap().to_be_bytes();
        let head = [&[23, 3, 3][..], &length].concat();
        let mut nonce = self.iv;
        for (octet, count) in nonce.iter_mut().skip(4).zip(self.sequence.to_be_bytes()) {
            *octet ^= count;
        }
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(&head), &mut inner).unwrap();
        [head, inner].concat()
    }
}

#[test]
fn empty_messages_of_a_handshake_take_little_memory_and_keep_nothing_back() {
    let (client, mut server) = Place::new("tls1.3").pair(NAME);
    let mut forger = Forger::new(client);
    let (mut heard, mut said) = (Vec::new(), 0);
    // rustls keeps as many octets as they have, whichever came last, until the next message of a handshake.
    let padded = LARGEST_RECORD / 4;
    for _ in 0..3 {
        server.decrypt(&mut forger.record(22, b"", padded), &mut heard).unwrap();
        for pieces in [1, 30, 2_000, 1, 1] {
            let mut octets: Vec<u8> =
                (0..pieces).flat_map(|_| forger.record(23, b"xx", 0)).collect();
            let half = 1 + octets.len() / 2;
            for octets in octets.chunks_mut(half) {
                server.decrypt(octets, &mut heard).unwrap();
            }
            said += 2 * pieces;
            assert_eq!(heard, b"x".repeat(said), "{pieces}");
            assert!(server.begun.capacity() <= LARGEST_RECORD + octets.len());
            let mut answer = Vec::new();
            server.encrypt(b"421 mx\r\n", &mut answer).unwrap();
        }
    }
    let error = server.decrypt(&mut forger.record(22, b"", padded), &mut heard).unwrap_err();
    assert_eq!(error.to_string(), "unexpected error: too much is incomplete");
    assert!(server.decrypt(&mut forger.record(23, b"xx", 0), &mut heard).is_err());
}

#[test]
fn a_head_that_is_none_is_refused_at_once() {
    for cut in 1..HEAD {
        let (_, mut server) = Place::new("tls1.3").pair(NAME);
        let mut octets = [23, 9, 9, 0, 10];
        let (first, second) = octets.split_at_mut(cut);
        let mut plaintext = Vec::new();
        let mut is_refused = |octets: &mut [u8]| server.decrypt(octets, &mut plaintext).is_err();
        assert!(is_refused(first) || is_refused(second), "{cut}");
    }
}

#[test]
fn the_name_of_a_handshake_that_nobody_went_on_with_is_no_other_ones() {
    let place = Place::new("tls1.3");
    let mut given_up = place.context.accept().unwrap();
    let mut hello = said(&mut place.client(NAME));
    while let Ok(ConnectionState::EncodeTlsData(_)) = given_up.process_tls_records(&mut hello).state
    {
    }
    let (mut client, mut server) = (place.client("127.0.0.1"), place.server());
    give(&mut client, &mut server, 10).unwrap();
    assert_eq!(server.describe(&place.context).server_name, None);
}
