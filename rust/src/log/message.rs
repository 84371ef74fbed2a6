//! The line of a message: what it was, what its sender was told, what its time went into.
//!
//! What a sender wrote stands in it as a value that nothing in it can leave: quoted in a line, a string
//! in JSON.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use crate::course::Times;
use crate::delivery::Client;
use crate::smtp::{Address, Reply, Transaction};

/// Recipients that are named; the others are only counted.
const NAMED: usize = 5;

/// What is told of one message.
#[derive(Debug)]
pub struct Message {
    client: Arc<Client>,
    /// Its first few recipients.
    transaction: Arc<Transaction>,
    recipients: usize,
    /// Its id; none for one that was refused before it had any.
    queued_id: Option<String>,
    size: u64,
    /// None where its sender was gone before there was one.
    reply: Option<Reply>,
    /// Whether the reply could be sent.
    sent: bool,
    times: Times,
}

impl Message {
    /// Of a message whose reply is not sent yet. It keeps none of its octets, and few recipients.
    pub fn new(
        client: Arc<Client>,
        transaction: &Arc<Transaction>,
        size: u64,
        reply: Option<Reply>,
    ) -> Self {
        let recipients = transaction.rcpt_to.len();
        let transaction = if recipients <= NAMED {
            Arc::clone(transaction)
        } else {
            let Transaction { helo, esmtp, mail_from, rcpt_to } = transaction.as_ref();
            Arc::new(Transaction {
                helo: helo.clone(),
                esmtp: *esmtp,
                mail_from: mail_from.clone(),
                rcpt_to: rcpt_to.iter().take(NAMED).cloned().collect(),
            })
        };
        let times = Times::default();
        Self { client, transaction, recipients, queued_id: None, size, reply, sent: false, times }
    }

    /// Of one that came to the queue.
    #[must_use]
    pub fn queued(mut self, queued_id: &str, times: Times) -> Self {
        self.queued_id = Some(queued_id.to_owned());
        self.times = times;
        self
    }

    /// Its reply has been sent, or could not be.
    #[must_use]
    pub fn sent(mut self, sent: bool) -> Self {
        self.sent = sent && self.reply.is_some();
        self
    }

    /// `listen_interface` of the server that took it.
    pub fn server(&self) -> &Arc<str> {
        &self.client.server
    }

    fn id(&self) -> &str {
        self.queued_id.as_deref().unwrap_or("-")
    }

    fn peer(&self) -> String {
        let Client { remote_ip, remote_port, .. } = self.client.as_ref();
        match remote_ip {
            ip if ip.is_empty() => "local".to_owned(),
            ip if ip.contains(':') => format!("[{ip}]:{remote_port}"),
            ip => format!("{ip}:{remote_port}"),
        }
    }

    fn reply(&self) -> String {
        self.reply.as_ref().map_or_else(|| "-".to_owned(), Reply::to_string)
    }

    /// The line: `ID key=value …`, values quoted where they hold anything but visible ASCII.
    pub fn line(&self) -> String {
        let mut out = String::with_capacity(320);
        out.push_str(self.id());
        let Client { id, server, tls, .. } = self.client.as_ref();
        let Transaction { helo, mail_from, rcpt_to, .. } = self.transaction.as_ref();
        // Writing to a text does not fail.
        let _ = write!(out, " client=#{id}");
        pair(&mut out, "server", server);
        pair(&mut out, "peer", &self.peer());
        pair(&mut out, "helo", helo);
        pair(&mut out, "from", &path(mail_from));
        for recipient in rcpt_to {
            pair(&mut out, "to", &path(recipient));
        }
        let _ = write!(out, " recipients={} size={}", self.recipients, self.size);
        pair(&mut out, "tls", tls.as_ref().map_or("-", |tls| tls.version.as_str()));
        pair(&mut out, "reply", &self.reply());
        if !self.sent {
            out.push_str(" sent=no");
        }
        let _ = write!(out, " queue={}", Seconds(self.times.queue));
        if !self.times.stages.is_empty() {
            let stages = self.times.stages.iter();
            let told: Vec<_> =
                stages.map(|visit| format!("{}:{}", visit.stage, Seconds(visit.took))).collect();
            pair(&mut out, "stages", &told.join(","));
        }
        let _ = write!(out, " total={}", Seconds(self.times.total));
        out
    }

    /// The same as the members of a JSON object, without its braces, in ASCII.
    pub fn members(&self) -> String {
        let mut out = String::with_capacity(512);
        let Client { id, server, tls, .. } = self.client.as_ref();
        let Transaction { helo, mail_from, rcpt_to, .. } = self.transaction.as_ref();
        out.push_str("\"message\":");
        string(&mut out, &format!("{}: {}", self.id(), self.reply()));
        maybe(&mut out, "id", self.queued_id.as_deref());
        let _ = write!(out, ",\"client\":{id}");
        member(&mut out, "server", server);
        member(&mut out, "peer", &self.peer());
        member(&mut out, "helo", helo);
        member(&mut out, "from", &mail_from.to_string());
        out.push_str(",\"to\":[");
        for (index, recipient) in rcpt_to.iter().enumerate() {
            out.push_str(if index > 0 { "," } else { "" });
            string(&mut out, &recipient.to_string());
        }
        let _ = write!(out, "],\"recipients\":{},\"size\":{}", self.recipients, self.size);
        maybe(&mut out, "tls", tls.as_ref().map(|tls| tls.version.as_str()));
        maybe(&mut out, "reply", self.reply.as_ref().map(Reply::to_string).as_deref());
        let _ = write!(out, ",\"sent\":{},\"queue\":{}", self.sent, Seconds(self.times.queue));
        out.push_str(",\"stages\":[");
        for (index, visit) in self.times.stages.iter().enumerate() {
            out.push_str(if index > 0 { ",{\"stage\":" } else { "{\"stage\":" });
            string(&mut out, &visit.stage);
            let _ = write!(out, ",\"seconds\":{}}}", Seconds(visit.took));
        }
        let _ = write!(out, "],\"total\":{}", Seconds(self.times.total));
        out
    }
}

/// Seconds to the microsecond. With integers: a float costs several times as much to write.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

fn path(address: &Address) -> String {
    format!("<{address}>")
}

fn pair(out: &mut String, key: &str, value: &str) {
    out.push(' ');
    out.push_str(key);
    out.push('=');
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if !value.is_empty() && value.bytes().all(is_plain) {
        out.push_str(value);
    } else {
        string(out, value);
    }
}

fn member(out: &mut String, key: &str, value: &str) {
    let _ = write!(out, ",\"{key}\":");
    string(out, value);
}

fn maybe(out: &mut String, key: &str, value: Option<&str>) {
    match value {
        Some(value) => member(out, key, value),
        None => {
            let _ = write!(out, ",\"{key}\":null");
        }
    }
}

/// A JSON string in ASCII (RFC 8259 §7).
fn string(out: &mut String, value: &str) {
    out.push('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::course::Visit;
    use crate::smtp::{PathKind, parse_path};

    fn address(text: &str) -> Address {
        parse_path(format!("<{text}>").as_bytes(), PathKind::Forward).unwrap().0
    }

    fn message(helo: &str, recipients: usize) -> Message {
        let client = Client {
            id: 7,
            server: "127.0.0.1:25".into(),
            remote_ip: "::1".into(),
            remote_port: 9,
            ..Client::default()
        };
        let transaction = Transaction {
            helo: helo.to_owned(),
            esmtp: true,
            mail_from: Address::null(),
            rcpt_to: (0..recipients).map(|n| address(&format!("\"a {n}\"@example.com"))).collect(),
        };
        let reply = Reply::new(250, Some("2.0.0"), "OK").unwrap();
        let stages = vec![Visit { stage: "SQL".into(), took: Duration::from_micros(1_000_002) }];
        let times = Times { queue: Duration::ZERO, stages, total: Duration::from_secs(3) };
        let transaction = Arc::new(transaction);
        Message::new(Arc::new(client), &transaction, 12, Some(reply)).queued("abc", times)
    }

    #[test]
    fn a_line_has_every_field_and_a_few_recipients() {
        assert_eq!(
            message("mail.example", 1).sent(true).line(),
            "abc client=#7 server=127.0.0.1:25 peer=[::1]:9 helo=mail.example from=<> \
             to=\"<\\\"a 0\\\"@example.com>\" recipients=1 size=12 tls=- reply=\"250 2.0.0 OK\" \
             queue=0.000000 stages=SQL:1.000002 total=3.000000"
        );
        let line = message("mail.example", 100).sent(false).line();
        assert_eq!(line.matches(" to=").count(), NAMED);
        assert!(line.contains(" recipients=100 ") && line.contains(" sent=no "), "{line}");
    }

    #[test]
    fn no_sender_forges_a_field() {
        let line = message("a reply=\"250 OK\"\r\n\u{2028}\\", 1).line();
        assert!(
            line.contains(" helo=\"a reply=\\\"250 OK\\\"\\u000d\\u000a\\u2028\\\\\" from"),
            "{line}"
        );
        let members = message("\",\"size\":0,\"\u{1f600}", 6).members();
        assert!(
            members.contains(",\"helo\":\"\\\",\\\"size\\\":0,\\\"\\ud83d\\ude00\","),
            "{members}"
        );
        assert!(
            members.is_ascii() && members.contains("\"recipients\":6,\"size\":12"),
            "{members}"
        );
    }
}
