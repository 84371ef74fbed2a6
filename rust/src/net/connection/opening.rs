//! What comes before commands: whom a proxy speaks for, the handshake, the wait before the greeting.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::signals::Signals;
use super::{Connection, End, READ};
use crate::log::Level;
use crate::mail::delivery_header::rfc5322_date;
use crate::net::clients::Refusal;
use crate::net::live::Activity;
use crate::net::proxy::{self, Endpoints, Parsed};
use crate::net::tls::Records;
use crate::smtp::{Protocol, Reply, Said, Stage, XClient};

impl Refusal {
    pub(in crate::net) fn reply(self) -> Reply {
        match self {
            Self::TooMany => Reply::too_many_from_address(),
            Self::TooFast => Reply::too_fast_from_address(),
        }
    }
}

impl Connection {
    /// Everything before the greeting, and the greeting, or why there is none.
    pub(super) async fn open(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        let mut refusal = None;
        if self.config.proxy_protocol {
            refusal = self.read_proxy_header(signals).await?;
        }
        let implicit_tls = self.config.tls.as_ref().is_some_and(|tls| tls.always_on);
        if let Some(refusal) = refusal {
            // A handshake only to refuse would cost more than the refusal is worth.
            if !implicit_tls {
                self.session.end(&refusal.reply());
            }
            return if implicit_tls { Err(End::Closed) } else { Ok(()) };
        }
        if implicit_tls {
            self.handshake(signals).await?;
            self.place.turn_to(Activity::Opening);
        }
        if !self.config.greet_delay.is_zero() && !self.is_quiet(signals).await? {
            self.shared.stats.early_talkers.add();
            self.log(Level::Info, format_args!("refused: it spoke before the greeting"));
            self.unread = Vec::new();
            self.session.end(&Reply::early_talker());
            return Ok(());
        }
        if let Some(refusal) = self.suffer(signals, Stage::Connect).await? {
            self.unread = Vec::new();
            self.session.end(&refusal);
            return Ok(());
        }
        self.greet();
        Ok(())
    }

    pub(super) fn greet(&mut self) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let protocol = match self.config.session.protocol {
            Protocol::Smtp => "SMTP",
            Protocol::Lmtp => "LMTP",
        };
        self.session.greet(format_args!(
            concat!("{} Guerrilla(", env!("CARGO_PKG_VERSION"), ") #{} ({}) {}"),
            protocol,
            self.client.id,
            self.place.server().open(),
            rfc5322_date(now),
        ));
    }

    /// One read, appended to `octets`, within the deadline.
    async fn read_more(
        &mut self,
        signals: &mut Signals<'_, '_>,
        octets: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<(), End> {
        poll_fn(|context| {
            if self.shared.shutdown.is_closing() {
                return Poll::Ready(Err(End::Cut));
            }
            if self.shared.shutdown.is_stopping() || self.place.server().is_leaving() {
                return Poll::Ready(Err(End::Stopped));
            }
            let polled = READ.with_borrow_mut(|buffer| {
                self.stream.poll_read(context, buffer).map_ok(|count| {
                    octets.extend_from_slice(buffer.get(..count).unwrap_or(&[]));
                    count
                })
            });
            match polled {
                Poll::Ready(Ok(0)) => {
                    Poll::Ready(Err(End::Lost(io::ErrorKind::UnexpectedEof.into())))
                }
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(End::Lost(error))),
                Poll::Pending => {
                    signals.poll_changed(context);
                    signals
                        .poll_deadline(context, deadline)
                        .map(|()| Err(End::Lost(io::ErrorKind::TimedOut.into())))
                }
            }
        })
        .await
    }

    /// Reads the header, and counts the client that it names.
    async fn read_proxy_header(
        &mut self,
        signals: &mut Signals<'_, '_>,
    ) -> Result<Option<Refusal>, End> {
        let deadline = Instant::now() + self.config.timeout;
        let mut octets = Vec::new();
        let (length, endpoints) = loop {
            match proxy::parse(&octets) {
                Parsed::Header(length, endpoints) => break (length, endpoints),
                Parsed::Incomplete => {}
                Parsed::Bad(why) => {
                    self.shared.stats.proxies_refused.add();
                    self.log(Level::Warning, format_args!("closed: its proxy sent {why}"));
                    return Err(End::Lost(io::ErrorKind::InvalidData.into()));
                }
            }
            if let Err(end) = self.read_more(signals, &mut octets, deadline).await {
                self.shared.stats.proxies_refused.add();
                self.log(Level::Warning, format_args!("closed: no whole PROXY header came"));
                return Err(end);
            }
        };
        self.unread = octets.split_off(length.min(octets.len()));
        let Some(Endpoints { source, destination }) = endpoints else { return Ok(None) };
        let client = Arc::make_mut(&mut self.client);
        client.remote_ip = source.ip().to_string();
        client.remote_port = source.port();
        client.local = Some(destination);
        Ok(self.count_client(source.ip()))
    }

    /// Counts the connection for the true client; why it gets none, if so.
    fn count_client(&mut self, ip: IpAddr) -> Option<Refusal> {
        match self.place.count(ip, &self.config.per_address) {
            Ok(()) => None,
            Err(refusal) => {
                self.shared.stats.connections_limited.add();
                self.log(Level::Info, format_args!("refused: a limit of its address"));
                Some(refusal)
            }
        }
    }

    /// The handshake, out of what is left unread and the socket. In the end what is left unread is
    /// plaintext.
    async fn handshake(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        let Some(tls) = self.config.tls.clone() else {
            return Err(End::Lost(io::ErrorKind::Unsupported.into()));
        };
        self.place.turn_to(Activity::Handshake);
        let connection = tls.context.accept().map_err(|e| End::Lost(io::Error::other(e)))?;
        let mut records = Box::new(Records::new(connection));
        match self.negotiate(signals, &mut records).await {
            Ok(plaintext) => self.unread = plaintext,
            // However it failed: a client that is gone by our answer has failed as well.
            Err(end) => {
                self.shared.stats.tls_failures.add();
                return Err(end);
            }
        }
        self.shared.stats.tls_handshakes.add();
        let info = records.describe(&tls.context);
        self.log(Level::Debug, format_args!("{} with {}", info.version, info.cipher));
        self.tls = Some(records);
        self.session.secured();
        let client = Arc::make_mut(&mut self.client);
        client.tls = Some(Box::new(info));
        if !self.session.is_authenticated() {
            // RFC 3207 §4.2: who it was in plaintext is not known any more.
            client.auth = None;
        }
        self.deadline = Instant::now() + self.config.timeout;
        Ok(())
    }

    /// Goes on until the handshake has ended; the plaintext that came behind it.
    async fn negotiate(
        &mut self,
        signals: &mut Signals<'_, '_>,
        records: &mut Records,
    ) -> Result<Vec<u8>, End> {
        let deadline = Instant::now() + self.config.timeout;
        let mut ciphertext = std::mem::take(&mut self.unread);
        let mut plaintext = Vec::new();
        loop {
            let taken = records.decrypt(&mut ciphertext, &mut plaintext);
            if matches!(taken, Ok(true)) && records.is_settled() {
                return Ok(plaintext);
            }
            let mut answer = Vec::new();
            records.encrypt(&[], &mut answer)?;
            if !answer.is_empty() {
                self.send(signals, answer).await?;
            }
            match taken {
                Err(error) => return Err(self.handshake_failed(signals, &error.to_string()).await),
                Ok(false) => {
                    return Err(self.handshake_failed(signals, "the client closed it").await);
                }
                Ok(true) if records.is_settled() => return Ok(plaintext),
                Ok(true) => {}
            }
            ciphertext.clear();
            self.read_more(signals, &mut ciphertext, deadline).await?;
        }
    }

    /// A failed handshake ends the connection: nothing goes on in plaintext.
    async fn handshake_failed(&mut self, signals: &mut Signals<'_, '_>, why: &str) -> End {
        self.log(Level::Info, format_args!("the TLS handshake failed: {why}"));
        self.place.turn_to(Activity::Closing);
        // So that the peer can read the alert.
        match self.linger(signals).await {
            Ok(()) => End::Lost(io::ErrorKind::InvalidData.into()),
            Err(end) => end,
        }
    }

    /// The session has said 220 to STARTTLS.
    pub(super) async fn start_tls(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        self.unread = Vec::new();
        self.handshake(signals).await
    }

    /// Whether nothing came for as long as `greet_delay`.
    async fn is_quiet(&mut self, signals: &mut Signals<'_, '_>) -> Result<bool, End> {
        let deadline = Instant::now() + self.config.greet_delay;
        while self.unread.is_empty() {
            let mut octets = Vec::new();
            match self.read_more(signals, &mut octets, deadline).await {
                Ok(()) => {}
                Err(End::Lost(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    return Ok(true);
                }
                // Greeted, it can be told that the core stops.
                Err(End::Stopped) => return Ok(true),
                Err(end) => return Err(end),
            }
            match &mut self.tls {
                None => self.unread = octets,
                Some(tls) => {
                    let open =
                        tls.decrypt(&mut octets, &mut self.unread).map_err(io::Error::other)?;
                    if !open {
                        return Err(End::Lost(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
        Ok(false)
    }

    /// A proxy says who its client is: that one is counted from now on, and greeted.
    pub(super) fn speak_for(&mut self, said: XClient) {
        let client = Arc::make_mut(&mut self.client);
        let set = |to: &mut Option<Box<str>>, said: Said<String>| match said {
            Said::Nothing => {}
            Said::Unavailable => *to = None,
            Said::Value(value) => *to = Some(value.into()),
        };
        set(&mut client.remote_name, said.name);
        match said.login {
            // What the proxy itself authenticated as is not its client's name.
            Said::Nothing if !self.session.is_authenticated() => client.auth = None,
            Said::Nothing => {}
            Said::Unavailable => client.auth = None,
            Said::Value(login) => client.auth = Some(login),
        }
        match said.port {
            Said::Nothing => {}
            Said::Unavailable => client.remote_port = 0,
            Said::Value(port) => client.remote_port = port,
        }
        let local = client.local.map(|local| (local.ip(), local.port()));
        let (ip, port) = (local.map(|(ip, _)| ip), local.map_or(0, |(_, port)| port));
        let ip = match said.dest_addr {
            Said::Nothing => ip,
            Said::Unavailable => None,
            Said::Value(ip) => Some(ip),
        };
        let port = match said.dest_port {
            Said::Nothing => port,
            Said::Unavailable => 0,
            Said::Value(port) => port,
        };
        client.local = ip.map(|ip| SocketAddr::new(ip, port));
        let refusal = match said.addr {
            Said::Nothing => None,
            Said::Unavailable => {
                client.remote_ip = String::new();
                None
            }
            Said::Value(ip) => {
                client.remote_ip = ip.to_string();
                self.count_client(ip)
            }
        };
        self.log(Level::Debug, format_args!("is who a proxy speaks for"));
        if let Some(refusal) = refusal {
            self.session.end(&refusal.reply());
        } else {
            self.greet();
        }
    }

    /// Nothing of this is needed where a connection can be greeted at once.
    pub(super) fn opens_at_once(&self) -> bool {
        let config = &self.config;
        !config.proxy_protocol
            && config.greet_delay == Duration::ZERO
            && config.tls.as_ref().is_none_or(|tls| !tls.always_on)
    }
}
