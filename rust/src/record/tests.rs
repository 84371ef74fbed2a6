//! That nothing of an envelope is lost on the way, and that nothing that is damaged comes through.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::buffer::Body;
use crate::course::Course;
use crate::delivery::Spooling;
use crate::pending::Pending;

fn delivery(client: Client, transaction: Transaction, received_at: SystemTime) -> Delivery {
    Delivery {
        client: Arc::new(client),
        transaction: Arc::new(transaction),
        body: Body::detached(b"Subject: one\r\n\r\nbody\r\n".to_vec()),
        queued_id: "0abc-1".to_owned(),
        received_at,
        max_header_size: 1 << 20,
        pending: Pending::new(Duration::from_secs(1), None, None),
        course: Course::new(false),
        fetched: AtomicBool::new(true),
        spooling: Spooling::None,
    }
}

fn client() -> Client {
    Client {
        id: 7,
        server: "127.0.0.1:25".into(),
        host_name: "mx.example.com".into(),
        remote_ip: "2001:db8::1".to_owned(),
        remote_port: 4321,
        remote_name: Some("client.example.org".into()),
        local: Some("[::1]:25".parse().unwrap()),
        tls: Some(Box::new(TlsInfo {
            version: "TLSv1.3".to_owned(),
            cipher: "TLS13_AES_128_GCM_SHA256".to_owned(),
            server_name: Some("mx.example.com".to_owned()),
            client_subject: None,
            client_verified: false,
        })),
        auth: Some("joe".to_owned()),
    }
}

fn parameter(keyword: &str, value: Option<&str>) -> Parameter {
    Parameter { keyword: keyword.to_owned().into(), value: value.map(Into::into) }
}

fn transaction() -> Transaction {
    let given = vec![parameter("SIZE", Some("10")), parameter("BODY", None)];
    Transaction {
        helo: "client \"x\" \\ ü".into(),
        dialect: Dialect::Lmtp,
        mail_from: Address::new("joe \u{1F600}", "example.com").with_parameters(given),
        rcpt_to: [
            Address::new("a", "example.org").with_route(vec!["one.example".to_owned()]),
            Address::null(),
        ]
        .into_iter()
        .collect(),
    }
}

fn added() -> Added {
    Added {
        hashes: vec!["900150983cd24fb0d6963f7d28e17f72".to_owned(), String::new()],
        primary_mail_host: Some("mail.example.org".to_owned()),
        headers: "X-Ü: ü\r\n".to_owned(),
        values: RawValue::from_string(r#"{"a": [1, 2.50, "\udcff"], "b": null}"#.to_owned())
            .unwrap(),
    }
}

fn whole() -> Vec<u8> {
    write(&delivery(client(), transaction(), SystemTime::now()), &added())
}

#[test]
fn everything_comes_back() {
    let before = delivery(client(), transaction(), UNIX_EPOCH + Duration::from_millis(1_795_405));
    let json = write(&before, &added());
    let again = read(&json).unwrap();
    assert_eq!(format!("{:?}", again.client), format!("{:?}", before.client));
    assert_eq!(again.transaction, *before.transaction);
    assert_eq!(again.transaction.mail_from.parameters(), before.transaction.mail_from.parameters());
    assert_eq!(again.received_at, before.received_at);
    assert_eq!((again.size, again.max_header_size), (22, 1 << 20));
    assert_eq!(again.added.hashes, added().hashes);
    assert_eq!(again.added.primary_mail_host, added().primary_mail_host);
    assert_eq!(again.added.headers, added().headers);
    // As Python wrote it: what a Rust string cannot hold is kept too.
    assert_eq!(again.added.values.get(), added().values.get());
    assert_eq!(
        write(&delivery(again.client, again.transaction, again.received_at), &again.added),
        json
    );
}

#[test]
fn what_older_versions_wrote_is_read() {
    // As Python's json wrote it: with spaces, with escapes for all that is not ASCII.
    let json = br#"{"queued_id": "0abc-1", "received_at": 1795405574.123456, "size": 22,
        "max_header_size": 1048576, "client_id": 0, "server": "", "host_name": "localhost",
        "remote_ip": "127.0.0.1", "remote_port": 0, "remote_name": null, "local": null,
        "auth": null, "tls": null, "helo": "b\u00fccher.example", "protocol": "ESMTP",
        "mail_from": {"user": "", "host": "", "route": [], "parameters": {}},
        "rcpt_to": [{"user": "a", "host": "b", "route": [], "parameters": {"notify": "NEVER"}}],
        "hashes": [], "primary_mail_host": null, "added_headers": "", "values": {}}"#;
    let found = read(json).unwrap();
    assert_eq!(&*found.transaction.helo, "bücher.example");
    assert_eq!(found.transaction.rcpt_to[0].parameters(), [parameter("NOTIFY", Some("NEVER"))]);
    assert!((since_epoch(found.received_at) - 1_795_405_574.123_456).abs() < f64::EPSILON);
}

#[test]
fn what_is_damaged_is_named() {
    let text = String::from_utf8(whole()).unwrap();
    let table = [
        (r#""protocol":"LMTP""#, r#""protocol":"no""#, "protocol: not SMTP, ESMTP or LMTP: no"),
        (r#""local":"[::1]:25""#, r#""local":"here""#, "local: no address with a port: here"),
        (r#""remote_port":4321"#, r#""remote_port":70000"#, "damaged: invalid value"),
        (r#""server":"#, r#""serve":"#, "damaged: missing field `server`"),
        (r#""values":{"#, r#""values":["#, "damaged: "),
        (r#""received_at":"#, r#""received_at":-"#, "not a time since the epoch: -"),
    ];
    for (part, other, reason) in table {
        let damaged = text.replacen(part, other, 1);
        assert_ne!(damaged, text, "{part}");
        let error = read(damaged.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{part}: {error}");
    }
    let end = text.find(r#""values":"#).unwrap();
    let no_object = format!("{}\"values\":3}}", &text[..end]);
    assert_eq!(read(no_object.as_bytes()).unwrap_err().to_string(), "values: not an object");
}

#[test]
fn what_is_cut_off_is_refused() {
    let json = whole();
    for end in 0..json.len() {
        assert!(read(&json[..end]).is_err(), "{end}");
    }
}

proptest! {
    #[test]
    fn what_is_flipped_is_refused_or_read_and_never_a_panic(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut json = whole();
        let at = at.index(json.len());
        json[at] = octet;
        if let Ok(found) = read(&json) {
            // What came through can be written again.
            let again = delivery(found.client, found.transaction, found.received_at);
            prop_assert!(read(&write(&again, &found.added)).is_ok());
        }
    }

    #[test]
    fn octets_of_any_kind_are_no_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&octets).is_err());
    }

    #[test]
    fn text_of_any_kind_comes_back(helo in "\\PC*", user in "\\PC*", header in "\\PC*", seconds in 0_u64..1 << 40) {
        let mail_from = Address::new(user, "example.com");
        let transaction = Transaction { helo: helo.into(), mail_from, ..Transaction::default() };
        let received_at = UNIX_EPOCH + Duration::from_millis(seconds);
        let before = delivery(Client::default(), transaction, received_at);
        let added = Added { headers: header, ..Added::default() };
        let again = read(&write(&before, &added)).unwrap();
        prop_assert_eq!(&again.transaction, &*before.transaction);
        prop_assert_eq!(again.added.headers, added.headers);
        let off = since_epoch(again.received_at) - since_epoch(received_at);
        prop_assert!(off.abs() < f64::EPSILON);
    }
}
