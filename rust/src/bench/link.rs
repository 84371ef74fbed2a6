//! A socket to the target, with or without TLS.

use std::future::poll_fn;
use std::io::{BufRead, ErrorKind, Write as _};
use std::sync::Arc;
use std::task::{Poll, ready};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::net::{TcpStream, UnixStream};

use super::client::Client;
use super::load::Target;
use super::tally::Failure;
use crate::net::Stream;

/// Octets of a read. Replies are short; a record of TLS has 16 KiB at most.
const READ: usize = 4_096;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    tls: Option<Box<ClientConnection>>,
    sealed: Vec<u8>,
}

impl Link {
    pub(super) async fn connect(target: &Target) -> Result<Self, Failure> {
        let stream = match target {
            // One after the other, as a name may have several and nobody may listen at the first.
            Target::Tcp(addresses) => Stream::Tcp(TcpStream::connect(addresses.as_slice()).await?),
            Target::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        };
        stream.set_nodelay()?;
        Ok(Self { stream, tls: None, sealed: Vec::new() })
    }

    /// The handshake; what comes right behind it is the client's.
    pub(super) async fn secure(
        &mut self,
        settings: &Arc<ClientConfig>,
        name: &ServerName<'static>,
        client: &mut Client,
    ) -> Result<(), Failure> {
        let mut tls = ClientConnection::new(Arc::clone(settings), name.clone())?;
        // What is written is bounded by a portion of a message.
        tls.set_buffer_limit(None);
        self.tls = Some(Box::new(tls));
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.write(&mut Vec::new()).await?;
            if let Err(failure) = self.read_some(client).await {
                // The other side may want to know why.
                let _ = self.write(&mut Vec::new()).await;
                return Err(failure);
            }
        }
        self.write(&mut Vec::new()).await
    }

    /// Writes all of it, and leaves it empty.
    pub(super) async fn write(&mut self, plaintext: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(tls) = &mut self.tls else { return put(&mut self.stream, plaintext).await };
        tls.writer().write_all(plaintext)?;
        plaintext.clear();
        while tls.wants_write() {
            tls.write_tls(&mut self.sealed)?;
        }
        put(&mut self.stream, &mut self.sealed).await
    }

    /// Waits for something that the client can read.
    pub(super) async fn read(&mut self, client: &mut Client) -> Result<(), Failure> {
        while !self.read_some(client).await? {}
        Ok(())
    }

    /// Waits for anything; whether there was something for the client in it.
    async fn read_some(&mut self, client: &mut Client) -> Result<bool, Failure> {
        let Self { stream, tls, .. } = self;
        poll_fn(|context| {
            // On the stack: a connection that waits holds no buffer.
            let mut buffer = [0; READ];
            let count = ready!(stream.poll_read(context, &mut buffer))?;
            let octets = buffer.get(..count).unwrap_or_default();
            if octets.is_empty() {
                return Poll::Ready(Err(Failure::closed()));
            }
            if let Some(tls) = tls {
                return Poll::Ready(open(tls, octets, client));
            }
            client.receive(octets);
            Poll::Ready(Ok(true))
        })
        .await
    }
}

/// Gives the client what is in it.
fn open(tls: &mut ClientConnection, sealed: &[u8], client: &mut Client) -> Result<bool, Failure> {
    let mut sealed = sealed;
    let mut any = false;
    while !sealed.is_empty() {
        if tls.read_tls(&mut sealed)? == 0 {
            break;
        }
        tls.process_new_packets()?;
        let mut reader = tls.reader();
        // An error says that nothing more is there now.
        while let Ok(plaintext) = reader.fill_buf() {
            let count = plaintext.len();
            if count == 0 {
                break;
            }
            client.receive(plaintext);
            reader.consume(count);
            any = true;
        }
    }
    Ok(any)
}

async fn put(stream: &mut Stream, octets: &mut Vec<u8>) -> Result<(), Failure> {
    let mut sent = 0;
    while let Some(rest) = octets.get(sent..).filter(|rest| !rest.is_empty()) {
        match stream.try_write(rest) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll_fn(|context| stream.poll_write_ready(context)).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    octets.clear();
    Ok(())
}
