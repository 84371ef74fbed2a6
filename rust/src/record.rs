//! The record of an envelope: everything of it but the message, as one JSON object.
//!
//! `Envelope.to_bytes` writes it before the message, and the spool keeps it beside the message. Nothing of
//! it needs Python: what a processor put into `values` comes and goes as JSON that is already written.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::delivery::{Client, Delivery, TlsInfo};
use crate::smtp::{Address, Dialect, Parameter, Transaction};

#[cfg(test)]
mod tests;

/// What stages have added to an envelope.
#[derive(Clone, Debug)]
pub struct Added {
    /// One a recipient, once Hasher has made them.
    pub hashes: Vec<String>,
    /// The host of the delivery header, once Header has named it.
    pub primary_mail_host: Option<String>,
    /// Whole fields with their CRLF, newest first.
    pub headers: String,
    /// `Envelope.values`, a JSON object.
    pub values: Box<RawValue>,
}

impl Default for Added {
    fn default() -> Self {
        Self {
            hashes: Vec::new(),
            primary_mail_host: None,
            headers: String::new(),
            values: no_values().to_owned(),
        }
    }
}

/// The JSON of an envelope without values.
fn no_values() -> &'static RawValue {
    serde_json::from_str("{}").unwrap_or(RawValue::NULL)
}

/// An envelope that was read, but for its message.
#[derive(Debug)]
pub struct Envelope {
    /// Who sent it.
    pub client: Client,
    /// Its transaction.
    pub transaction: Transaction,
    /// Its id.
    pub queued_id: String,
    /// When the final dot came.
    pub received_at: SystemTime,
    /// Octets of its header section that are looked at.
    pub max_header_size: usize,
    /// Octets of its message.
    pub size: usize,
    /// What stages had added.
    pub added: Added,
}

impl Default for Envelope {
    /// Nobody's.
    fn default() -> Self {
        Self {
            client: Client::default(),
            transaction: Transaction::default(),
            queued_id: String::new(),
            received_at: UNIX_EPOCH,
            max_header_size: 0,
            size: 0,
            added: Added::default(),
        }
    }
}

/// Why octets are no record: where, and what.
#[derive(Debug)]
pub struct Damaged(String);

impl Damaged {
    /// For that reason.
    pub fn new(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damaged {}

/// The record of an envelope.
pub fn write(delivery: &Delivery, added: &Added) -> Vec<u8> {
    let Delivery { client, transaction, .. } = delivery;
    let record = Record {
        queued_id: (&*delivery.queued_id).into(),
        received_at: since_epoch(delivery.received_at),
        size: delivery.body.as_slice().len(),
        max_header_size: delivery.max_header_size,
        client_id: client.id,
        server: (&*client.server).into(),
        host_name: (&*client.host_name).into(),
        remote_ip: (&*client.remote_ip).into(),
        remote_port: client.remote_port,
        remote_name: client.remote_name.as_deref().map(Into::into),
        local: client.local.map(|local| local.to_string().into()),
        auth: client.auth.as_deref().map(Into::into),
        tls: client.tls.as_deref().map(Tls::of),
        helo: (&*transaction.helo).into(),
        protocol: transaction.dialect.name().into(),
        mail_from: Mailbox::of(&transaction.mail_from),
        rcpt_to: transaction.rcpt_to.iter().map(Mailbox::of).collect(),
        hashes: added.hashes.iter().map(|hash| hash.as_str().into()).collect(),
        primary_mail_host: added.primary_mail_host.as_deref().map(Into::into),
        added_headers: (&*added.headers).into(),
        values: &added.values,
    };
    // Text and numbers into memory: there is nothing in it that could fail.
    serde_json::to_vec(&record).unwrap_or_default()
}

/// Reads a record; of what is unknown in it, nothing.
pub fn read(json: &[u8]) -> Result<Envelope, Damaged> {
    let record: Record<'_> =
        serde_json::from_slice(json).map_err(|error| Damaged(format!("damaged: {error}")))?;
    let values = record.values.get();
    if !values.starts_with('{') {
        return Err(Damaged("values: not an object".to_owned()));
    }
    let client = Client {
        id: record.client_id,
        server: record.server.into(),
        host_name: record.host_name.into(),
        remote_ip: record.remote_ip.into(),
        remote_port: record.remote_port,
        remote_name: record.remote_name.map(Into::into),
        local: record.local.map(|text| socket_address(&text)).transpose()?,
        tls: record.tls.map(|tls| Box::new(tls.into_info())),
        auth: record.auth.map(Into::into),
    };
    let transaction = Transaction {
        helo: record.helo.into(),
        dialect: dialect(&record.protocol)?,
        mail_from: record.mail_from.into_address(),
        rcpt_to: record.rcpt_to.into_iter().map(Mailbox::into_address).collect(),
    };
    Ok(Envelope {
        client,
        transaction,
        queued_id: record.queued_id.into(),
        received_at: time(record.received_at)?,
        max_header_size: record.max_header_size,
        size: record.size,
        added: Added {
            hashes: record.hashes.into_iter().map(Into::into).collect(),
            primary_mail_host: record.primary_mail_host.map(Into::into),
            headers: record.added_headers.into(),
            values: record.values.to_owned(),
        },
    })
}

/// Seconds since the epoch.
pub fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The inverse of [`since_epoch`].
pub fn time(seconds: f64) -> Result<SystemTime, Damaged> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|since| UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| Damaged(format!("not a time since the epoch: {seconds}")))
}

/// How a client greeted, by its name.
pub fn dialect(name: &str) -> Result<Dialect, Damaged> {
    Dialect::parse(name)
        .ok_or_else(|| Damaged(format!("protocol: not SMTP, ESMTP or LMTP: {name}")))
}

fn socket_address(text: &str) -> Result<SocketAddr, Damaged> {
    text.parse().map_err(|_| Damaged(format!("local: no address with a port: {text}")))
}

/// The object itself; text that has no escapes is not copied.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    queued_id: Cow<'a, str>,
    received_at: f64,
    size: usize,
    max_header_size: usize,
    client_id: u64,
    #[serde(borrow)]
    server: Cow<'a, str>,
    #[serde(borrow)]
    host_name: Cow<'a, str>,
    #[serde(borrow)]
    remote_ip: Cow<'a, str>,
    remote_port: u16,
    remote_name: Option<Cow<'a, str>>,
    local: Option<Cow<'a, str>>,
    auth: Option<Cow<'a, str>>,
    tls: Option<Tls<'a>>,
    #[serde(borrow)]
    helo: Cow<'a, str>,
    #[serde(borrow)]
    protocol: Cow<'a, str>,
    #[serde(borrow)]
    mail_from: Mailbox<'a>,
    rcpt_to: Vec<Mailbox<'a>>,
    hashes: Vec<Cow<'a, str>>,
    primary_mail_host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    added_headers: Cow<'a, str>,
    #[serde(borrow)]
    values: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct Tls<'a> {
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    cipher: Cow<'a, str>,
    server_name: Option<Cow<'a, str>>,
    client_subject: Option<Cow<'a, str>>,
    client_verified: bool,
}

impl<'a> Tls<'a> {
    fn of(info: &'a TlsInfo) -> Self {
        Self {
            version: (&*info.version).into(),
            cipher: (&*info.cipher).into(),
            server_name: info.server_name.as_deref().map(Into::into),
            client_subject: info.client_subject.as_deref().map(Into::into),
            client_verified: info.client_verified,
        }
    }

    fn into_info(self) -> TlsInfo {
        TlsInfo {
            version: self.version.into(),
            cipher: self.cipher.into(),
            server_name: self.server_name.map(Into::into),
            client_subject: self.client_subject.map(Into::into),
            client_verified: self.client_verified,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Mailbox<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    host: Cow<'a, str>,
    route: Vec<Cow<'a, str>>,
    parameters: Parameters<'a>,
}

impl<'a> Mailbox<'a> {
    fn of(address: &'a Address) -> Self {
        Self {
            user: address.user().into(),
            host: address.host().into(),
            route: address.route().iter().map(|host| host.as_str().into()).collect(),
            parameters: Parameters(address.parameters().into()),
        }
    }

    fn into_address(self) -> Address {
        let route = self.route.into_iter().map(Into::into).collect();
        let address = Address::new(self.user, self.host).with_route(route);
        address.with_parameters(self.parameters.0.into_owned())
    }
}

/// An object in the order of the command.
struct Parameters<'a>(Cow<'a, [Parameter]>);

impl Serialize for Parameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for Parameter { keyword, value } in self.0.as_ref() {
            map.serialize_entry(keyword, &value.as_deref())?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Parameters<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<Parameter>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("parameters by keyword")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut found = Vec::new();
                while let Some((mut keyword, value)) = map.next_entry::<String, Option<String>>()? {
                    keyword.make_ascii_uppercase();
                    found.push(Parameter { keyword: keyword.into(), value: value.map(Into::into) });
                }
                Ok(found)
            }
        }

        deserializer.deserialize_map(InOrder).map(|found| Self(found.into()))
    }
}
