//! The line of a message: what it was, what its sender was told, what its time went into.
//!
//! What a sender wrote stands in it as a value that nothing in it can leave: quoted in a line, a string
//! in JSON.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use crate::course::Times;
use crate::delivery::Client;
use crate::digits::push_digits;
use crate::events::{Event, Mail};
use crate::smtp::{Reply, Transaction};

/// Recipients that are named; the others are only counted.
const NAMED: usize = 5;

/// What is told of one message.
#[derive(Debug)]
pub struct Message {
    client: Arc<Client>,
    /// Its first few recipients.
    transaction: Arc<Transaction>,
    /// With all of them, where somebody hears of it.
    whole: Option<Arc<Transaction>>,
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
        for_event: bool,
    ) -> Self {
        let whole = for_event.then(|| Arc::clone(transaction));
        let recipients = transaction.rcpt_to.len();
        let transaction = if recipients <= NAMED {
            Arc::clone(transaction)
        } else {
            let Transaction { helo, dialect, mail_from, rcpt_to } = transaction.as_ref();
            Arc::new(Transaction {
                helo: helo.clone(),
                dialect: *dialect,
                mail_from: mail_from.clone(),
                rcpt_to: rcpt_to.iter().take(NAMED).cloned().collect(),
            })
        };
        let times = Times::default();
        Self {
            client,
            transaction,
            whole,
            recipients,
            queued_id: None,
            size,
            reply,
            sent: false,
            times,
        }
    }

    /// Of one that came to the queue.
    #[must_use]
    pub fn queued(mut self, queued_id: &str, times: Times) -> Self {
        self.queued_id = Some(queued_id.to_owned());
        self.times = times;
        self
    }

    /// What an embedder hears of it: nothing, where its sender was gone before there was a reply.
    pub fn event(&self) -> Option<Event> {
        Some(Event::Mail(Mail {
            client: Arc::clone(&self.client),
            transaction: Arc::clone(self.whole.as_ref()?),
            queued_id: self.queued_id.clone(),
            size: self.size,
            reply: self.reply.clone()?,
        }))
    }

    /// Its reply has been sent, or could not be.
    pub fn set_sent(&mut self, sent: bool) {
        self.sent = sent && self.reply.is_some();
    }

    /// `listen_interface` of the server that took it.
    pub fn server(&self) -> &Arc<str> {
        &self.client.server
    }

    fn id(&self) -> &str {
        self.queued_id.as_deref().unwrap_or("-")
    }

    /// The line: `ID key=value …`, values quoted where they hold anything but visible ASCII.
    pub fn write_line(&self, out: &mut String) {
        let Client { id, server, tls, .. } = self.client.as_ref();
        let Transaction { helo, mail_from, rcpt_to, .. } = self.transaction.as_ref();
        let mut value = String::with_capacity(128);
        out.reserve(400);
        out.push_str(self.id());
        // Writing to a text does not fail.
        let _ = write!(out, " client=#{id}");
        pair(out, "server", server);
        pair(out, "peer", made(&mut value, format_args!("{}", Peer(&self.client))));
        pair(out, "helo", helo);
        pair(out, "from", made(&mut value, format_args!("<{mail_from}>")));
        for recipient in rcpt_to.iter() {
            pair(out, "to", made(&mut value, format_args!("<{recipient}>")));
        }
        let _ = write!(out, " recipients={} size={}", self.recipients, self.size);
        pair(out, "tls", tls.as_ref().map_or("-", |tls| tls.version.as_str()));
        match &self.reply {
            Some(reply) => pair(out, "reply", made(&mut value, format_args!("{reply}"))),
            None => out.push_str(" reply=-"),
        }
        if !self.sent {
            out.push_str(" sent=no");
        }
        out.push_str(" queue=");
        push_seconds(out, self.times.queue);
        if !self.times.stages.is_empty() {
            value.clear();
            for visit in &self.times.stages {
                let comma = if value.is_empty() { "" } else { "," };
                value.extend([comma, &visit.stage, ":"]);
                push_seconds(&mut value, visit.took);
            }
            pair(out, "stages", &value);
        }
        out.push_str(" total=");
        push_seconds(out, self.times.total);
    }

    /// The same as the members of a JSON object, without its braces, in ASCII.
    pub fn write_members(&self, out: &mut String) {
        let Client { id, server, tls, .. } = self.client.as_ref();
        let Transaction { helo, mail_from, rcpt_to, .. } = self.transaction.as_ref();
        let mut value = String::with_capacity(128);
        let mut reply = String::new();
        out.reserve(600);
        if let Some(said) = &self.reply {
            let _ = write!(reply, "{said}");
        }
        let told = if self.reply.is_none() { "-" } else { &reply };
        out.push_str("\"message\": ");
        string(out, made(&mut value, format_args!("{}: {told}", self.id())));
        maybe(out, "id", self.queued_id.as_deref());
        let _ = write!(out, ", \"client\": {id}");
        member(out, "server", server);
        member(out, "peer", made(&mut value, format_args!("{}", Peer(&self.client))));
        member(out, "helo", helo);
        member(out, "from", made(&mut value, format_args!("{mail_from}")));
        out.push_str(", \"to\": [");
        for (index, recipient) in rcpt_to.iter().enumerate() {
            out.push_str(if index > 0 { ", " } else { "" });
            string(out, made(&mut value, format_args!("{recipient}")));
        }
        let _ = write!(out, "], \"recipients\": {}, \"size\": {}", self.recipients, self.size);
        maybe(out, "tls", tls.as_ref().map(|tls| tls.version.as_str()));
        maybe(out, "reply", self.reply.as_ref().map(|_| reply.as_str()));
        let (sent, times) = (self.sent, &self.times);
        let _ = write!(out, ", \"sent\": {sent}, \"queue\": ");
        push_seconds(out, times.queue);
        out.push_str(", \"stages\": [");
        for (index, visit) in times.stages.iter().enumerate() {
            out.push_str(if index > 0 { ", {\"stage\": " } else { "{\"stage\": " });
            string(out, &visit.stage);
            out.push_str(", \"seconds\": ");
            push_seconds(out, visit.took);
            out.push('}');
        }
        out.push_str("], \"total\": ");
        push_seconds(out, times.total);
    }
}

/// Where a client came from: `192.0.2.1:5678`, `[2001:db8::1]:5678`, `local`.
struct Peer<'a>(&'a Client);

impl fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Client { remote_ip, remote_port, .. } = self.0;
        match remote_ip {
            ip if ip.is_empty() => f.write_str("local"),
            ip if ip.contains(':') => write!(f, "[{ip}]:{remote_port}"),
            ip => write!(f, "{ip}:{remote_port}"),
        }
    }
}

/// Writes seconds to the microsecond; five of them in a line, so without the machinery of `fmt`.
fn push_seconds(out: &mut String, time: Duration) {
    match time.as_secs() {
        seconds @ 0..10 => push_digits(out, seconds, 1),
        seconds => {
            let _ = write!(out, "{seconds}");
        }
    }
    out.push('.');
    push_digits(out, time.subsec_micros().into(), 100_000);
}

/// A text that is made where the one before it was.
fn made<'a>(value: &'a mut String, text: fmt::Arguments<'_>) -> &'a str {
    value.clear();
    let _ = value.write_fmt(text);
    value
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
    let _ = write!(out, ", \"{key}\": ");
    string(out, value);
}

fn maybe(out: &mut String, key: &str, value: Option<&str>) {
    match value {
        Some(value) => member(out, key, value),
        None => {
            let _ = write!(out, ", \"{key}\": null");
        }
    }
}

/// A JSON string in ASCII (RFC 8259 §7).
pub(super) fn string(out: &mut String, value: &str) {
    out.push('"');
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if value.bytes().all(is_plain) {
        out.extend([value, "\""]);
        return;
    }
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
    use crate::smtp::{Address, Dialect, PathKind, parse_path};

    fn address(text: &str) -> Address {
        parse_path(format!("<{text}>").as_bytes(), PathKind::Forward).unwrap().0
    }

    fn message(helo: &str, recipients: usize, sent: bool) -> Message {
        let client = Client {
            id: 7,
            server: "127.0.0.1:25".into(),
            remote_ip: "::1".into(),
            remote_port: 9,
            ..Client::default()
        };
        let transaction = Transaction {
            helo: helo.into(),
            dialect: Dialect::Esmtp,
            mail_from: Address::null(),
            rcpt_to: (0..recipients).map(|n| address(&format!("\"a {n}\"@example.com"))).collect(),
        };
        let reply = Reply::new(250, Some("2.0.0"), "OK").unwrap();
        let stages = vec![Visit { stage: "SQL".into(), took: Duration::from_micros(1_000_002) }];
        let times = Times { queue: Duration::ZERO, stages, total: Duration::from_secs(3) };
        let transaction = Arc::new(transaction);
        let message = Message::new(Arc::new(client), &transaction, 12, Some(reply), false);
        let mut message = message.queued("abc", times);
        message.set_sent(sent);
        message
    }

    fn line(message: &Message) -> String {
        let mut out = String::new();
        message.write_line(&mut out);
        out
    }

    #[test]
    fn a_line_has_every_field_and_a_few_recipients() {
        assert_eq!(
            line(&message("mail.example", 1, true)),
            "abc client=#7 server=127.0.0.1:25 peer=[::1]:9 helo=mail.example from=<> \
             to=\"<\\\"a 0\\\"@example.com>\" recipients=1 size=12 tls=- reply=\"250 2.0.0 OK\" \
             queue=0.000000 stages=SQL:1.000002 total=3.000000"
        );
        let line = line(&message("mail.example", 100, false));
        assert_eq!(line.matches(" to=").count(), NAMED);
        assert!(line.contains(" recipients=100 ") && line.contains(" sent=no "), "{line}");
    }

    #[test]
    fn no_sender_forges_a_field() {
        let line = line(&message("a reply=\"250 OK\"\r\n\u{2028}\\", 1, true));
        assert!(
            line.contains(" helo=\"a reply=\\\"250 OK\\\"\\u000d\\u000a\\u2028\\\\\" from"),
            "{line}"
        );
        let mut members = String::new();
        message("\", \"size\": 0, \"\u{1f600}", 6, true).write_members(&mut members);
        let helo = r#""helo": "\", \"size\": 0, \"\ud83d\ude00", "from""#;
        assert!(members.contains(helo), "{members}");
        assert!(members.is_ascii(), "{members}");
        assert!(members.contains("\"recipients\": 6, \"size\": 12"), "{members}");
    }
}
