//! A client of rustls' own, and nothing between the two but octets.

#![allow(clippy::unwrap_used)]

mod hostile;

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use super::*;
use crate::certificate::self_signed;
use crate::tls::{ClientAuth, Settings, certificates};

const VERSIONS: [&str; 2] = ["tls1.2", "tls1.3"];
pub(in crate::net) const NAME: &str = "mx.example.com";

/// What a server and its clients have in common.
pub(in crate::net) struct Place {
    context: Context,
    config: Arc<ClientConfig>,
}

impl Place {
    pub(in crate::net) fn new(version: &str) -> Self {
        Self::with(version, &[])
    }

    fn with(version: &str, curves: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hosts = [NAME, "*.example.net", "127.0.0.1"].map(str::to_owned);
        let pair = self_signed(&hosts, 1).unwrap();
        let (key, certificate) = (folder.path().join("key"), folder.path().join("certificate"));
        std::fs::write(&key, &pair.key).unwrap();
        std::fs::write(&certificate, &pair.certificate).unwrap();
        let settings = Settings {
            certificates: vec![(key, certificate)],
            root_cas_file: None,
            client_auth: ClientAuth::None,
            protocols: vec![version.to_owned()],
            ciphers: Vec::new(),
            curves: curves.iter().map(|&curve| curve.to_owned()).collect(),
            prefer_server_ciphers: true,
        };
        let mut roots = RootCertStore::empty();
        for one in certificates(pair.certificate.as_bytes()).unwrap() {
            roots.add(one).unwrap();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
        config.enable_secret_extraction = true;
        Self { context: Context::new(settings).unwrap(), config: Arc::new(config) }
    }

    fn client(&self, name: &'static str) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.config), ServerName::try_from(name).unwrap())
            .unwrap()
    }

    fn server(&self) -> Records {
        Records::new(self.context.accept().unwrap())
    }

    /// Both, behind their handshake.
    pub(in crate::net) fn pair(&self, name: &'static str) -> (ClientConnection, Records) {
        let (mut client, mut server) = (self.client(name), self.server());
        loop {
            give(&mut client, &mut server, usize::MAX).unwrap();
            if server.is_settled() {
                break;
            }
            let mut answer = Vec::new();
            server.encrypt(&[], &mut answer).unwrap();
            hear(&mut client, &answer).unwrap();
        }
        (client, server)
    }
}

/// What a client has to send.
pub(in crate::net) fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut octets = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut octets).unwrap();
    }
    octets
}

/// Gives that to the server, in pieces of so many octets; what it decrypts to.
fn give(
    client: &mut ClientConnection,
    server: &mut Records,
    piece: usize,
) -> Result<Vec<u8>, Error> {
    let mut plaintext = Vec::new();
    for octets in said(client).chunks_mut(piece) {
        server.decrypt(octets, &mut plaintext)?;
    }
    Ok(plaintext)
}

/// Gives a client what the server has to send; what it decrypts to.
fn hear(client: &mut ClientConnection, mut octets: &[u8]) -> Result<Vec<u8>, Error> {
    let mut plaintext = Vec::new();
    while !octets.is_empty() {
        client.read_tls(&mut octets).unwrap();
        client.process_new_packets()?;
        // It would block where nothing more is there.
        let _ = client.reader().read_to_end(&mut plaintext);
    }
    Ok(plaintext)
}

fn text(count: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(count).collect()
}

/// Whatever a connection keeps while nothing is under way.
fn kept(server: &Records) -> usize {
    server.begun.capacity() + server.outgoing.capacity()
}

#[test]
fn what_is_said_is_heard_however_it_is_cut() {
    // With one group that the client has no share of, its hello comes twice (RFC 8446 §4.1.4).
    for (version, curves) in [("tls1.2", &[][..]), ("tls1.3", &[]), ("tls1.3", &["P384"])] {
        let place = Place::with(version, curves);
        for piece in [1, 4, 5, 6, 21, 1_000, 16_384, 20_000, usize::MAX] {
            let (mut client, mut server) = (place.client(NAME), place.server());
            while client.is_handshaking() {
                assert_eq!(give(&mut client, &mut server, piece).unwrap(), b"");
                let mut answer = Vec::new();
                server.encrypt(&[], &mut answer).unwrap();
                hear(&mut client, &answer).unwrap();
            }
            assert_eq!(give(&mut client, &mut server, piece).unwrap(), b"");
            assert!(server.is_settled());
            let is_twice =
                client.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
            // All but the first resume its session.
            assert_eq!(is_twice, piece == 1 && !curves.is_empty());
            for count in [1, 30, 16_384, 16_385, 100_000] {
                let text = text(count);
                client.set_buffer_limit(None);
                client.writer().write_all(&text).unwrap();
                client.writer().write_all(b"\r\n.\r\n").unwrap();
                let heard = give(&mut client, &mut server, piece).unwrap();
                assert_eq!(heard, [&text[..], b"\r\n.\r\n"].concat(), "{version} {piece} {count}");
                let mut answer = b"before ".to_vec();
                server.encrypt(&text, &mut answer).unwrap();
                let answer = answer.strip_prefix(b"before ").unwrap();
                assert_eq!(hear(&mut client, answer).unwrap(), text);
            }
            server.encrypt(&[], &mut Vec::new()).unwrap();
            assert_eq!(kept(&server), 0);
        }
    }
}

#[test]
fn what_comes_behind_the_handshake_at_once_is_heard() {
    for version in VERSIONS {
        let place = Place::new(version);
        for (turn, piece) in [7, usize::MAX].into_iter().enumerate() {
            let (mut client, mut server) = (place.client(NAME), place.server());
            client.writer().write_all(b"EHLO client.example\r\n").unwrap();
            let mut heard = Vec::new();
            while heard.is_empty() {
                heard = give(&mut client, &mut server, piece).unwrap();
                let mut answer = Vec::new();
                server.encrypt(&[], &mut answer).unwrap();
                hear(&mut client, &answer).unwrap();
            }
            assert_eq!(heard, b"EHLO client.example\r\n");
            let kind = if turn == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(client.handshake_kind(), Some(kind), "{version}");
            assert_eq!(server.describe(&place.context).server_name.as_deref(), Some(NAME));
        }
    }
}

#[test]
fn the_ticket_waits_for_the_first_reply() {
    let place = Place::new("tls1.3");
    let (mut client, mut server) = place.pair(NAME);
    assert!(server.has_ticket && !server.wants_write());
    let alone = {
        let (_, mut other) = place.pair(NAME);
        other.outgoing.clear();
        let mut answer = Vec::new();
        other.encrypt(b"250 OK\r\n", &mut answer).unwrap();
        answer.len()
    };
    let mut answer = Vec::new();
    server.encrypt(b"250 OK\r\n", &mut answer).unwrap();
    assert!(answer.len() > alone + 50);
    assert_eq!(hear(&mut client, &answer).unwrap(), b"250 OK\r\n");
}

#[test]
fn each_connection_is_told_the_name_that_its_own_client_asked_for() {
    for version in VERSIONS {
        let place = Place::new(version);
        let names = [Some(NAME), Some("MX1.Example.net"), None];
        let mut both: Vec<_> = names
            .iter()
            .map(|name| (place.client(name.unwrap_or("127.0.0.1")), place.server()))
            .collect();
        // All begin before any ends.
        for _ in 0..3 {
            for (client, server) in &mut both {
                give(client, server, 10).unwrap();
                let mut answer = Vec::new();
                server.encrypt(&[], &mut answer).unwrap();
                hear(client, &answer).unwrap();
            }
        }
        assert!(both.iter().all(|(client, _)| !client.is_handshaking()));
        for ((_, server), name) in both.iter().zip(names) {
            let name = name.map(str::to_ascii_lowercase);
            assert_eq!(server.describe(&place.context).server_name, name);
        }
    }
}

#[test]
fn new_keys_are_used_from_when_the_peer_asks_for_them() {
    let place = Place::new("tls1.3");
    for piece in [1, 9, usize::MAX] {
        let (mut client, mut server) = place.pair(NAME);
        for _ in 0..3 {
            client.refresh_traffic_keys().unwrap();
            client.writer().write_all(b"NOOP\r\n").unwrap();
            assert_eq!(give(&mut client, &mut server, piece).unwrap(), b"NOOP\r\n");
            // The server's own are new too, behind the word of it.
            let mut answer = Vec::new();
            server.encrypt(b"250 OK\r\n", &mut answer).unwrap();
            assert_eq!(hear(&mut client, &answer).unwrap(), b"250 OK\r\n");
        }
    }
}

#[test]
fn behind_the_word_that_nothing_more_comes_nothing_counts() {
    for version in VERSIONS {
        let (mut client, mut server) = Place::new(version).pair(NAME);
        client.writer().write_all(b"QUIT\r\n").unwrap();
        client.send_close_notify();
        let mut octets = said(&mut client);
        octets.extend_from_slice(&[23, 3, 3, 0]);
        let mut plaintext = Vec::new();
        assert!(!server.decrypt(&mut octets, &mut plaintext).unwrap());
        assert_eq!(plaintext, b"QUIT\r\n");
        assert!(!server.decrypt(&mut vec![1; 100_000], &mut plaintext).unwrap());
        assert_eq!((plaintext.len(), server.begun.len()), (6, 0));
        // We may still answer, and then say the same.
        let mut answer = Vec::new();
        server.encrypt(b"221 Bye\r\n", &mut answer).unwrap();
        server.close(&mut answer).unwrap();
        assert_eq!(hear(&mut client, &answer).unwrap(), b"221 Bye\r\n");
        assert_eq!(client.reader().read(&mut [0; 1]).unwrap(), 0, "not closed as it should be");
        assert!(!server.decrypt(&mut [1; 10], &mut plaintext).unwrap());
    }
}

#[test]
fn before_the_handshake_has_ended_nothing_is_said() {
    let place = Place::new("tls1.3");
    let (mut client, mut server) = (place.client(NAME), place.server());
    let mut answer = Vec::new();
    assert!(server.encrypt(b"220 mx\r\n", &mut answer).is_err());
    assert!(server.close(&mut answer).is_err());
    give(&mut client, &mut server, usize::MAX).unwrap();
    server.encrypt(&[], &mut answer).unwrap();
    let before = answer.len();
    assert!(server.encrypt(b"220 mx\r\n", &mut answer).is_err());
    assert_eq!(answer.len(), before);
}
