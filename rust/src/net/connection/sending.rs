//! Octets to the peer: replies, as records where there is TLS.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::signals::Signals;
use super::{Connection, End, OUTPUT, RECORDS};
use crate::net::stream::Sent;
use crate::net::turns;

/// A larger buffer for replies is not kept: few connections need it.
const LARGEST_KEPT: usize = 64 << 10;

/// Octets on their way, of which the first have been sent.
pub(super) struct Rest {
    octets: Vec<u8>,
    sent: usize,
}

impl Rest {
    fn of(octets: Vec<u8>) -> Self {
        Self { octets, sent: 0 }
    }
}

impl Connection {
    /// Whether there is something to be sent.
    pub(super) fn has_output(&self) -> bool {
        self.session.has_output() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what the session wrote. A peer that does not read has `timeout`.
    pub(super) async fn flush(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        if self.flush_now()? {
            return Ok(());
        }
        let deadline = Instant::now() + self.config.timeout;
        loop {
            let room = poll_fn(|context| self.poll_room(context, signals, deadline)).await;
            if room.is_err() {
                self.note_sent(false);
            }
            room?;
            if self.flush_now()? {
                return Ok(());
            }
        }
    }

    /// Behind the last reply, which has been sent: nothing more comes.
    pub(super) async fn close(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        if !self.session.said_bye() {
            return self.linger(signals).await;
        }
        // Not left to the close of the socket: where octets are there that nobody reads, that sends nothing more.
        self.stream.finish_writing();
        Ok(())
    }

    /// Sends these.
    pub(super) async fn send(
        &mut self,
        signals: &mut Signals<'_, '_>,
        octets: Vec<u8>,
    ) -> Result<(), End> {
        self.rest = Some(Box::new(Rest::of(octets)));
        self.flush(signals).await
    }

    /// Sends what the session wrote; whether the socket took all of it.
    pub(super) fn flush_now(&mut self) -> Result<bool, End> {
        let mut rest = match self.rest.take() {
            Some(rest) => *rest,
            None if self.has_output() => Rest::of(self.take_output()?),
            None => return Ok(true),
        };
        let sent = self.push(&mut rest);
        if let Ok(false) = sent {
            self.rest = Some(Box::new(rest));
        } else {
            if rest.octets.capacity() <= LARGEST_KEPT {
                if self.tls.is_some() { &RECORDS } else { &OUTPUT }.set(rest.octets);
            }
            self.note_sent(sent.is_ok());
        }
        Ok(sent?)
    }

    /// What the session wrote, as it goes on the wire.
    fn take_output(&mut self) -> io::Result<Vec<u8>> {
        let output = self.session.take_output();
        turns::replied(self.shared.replies.count(&output));
        let Some(tls) = &mut self.tls else { return Ok(output) };
        let mut records = RECORDS.take();
        records.clear();
        tls.encrypt(&output, &mut records)?;
        if output.capacity() <= LARGEST_KEPT {
            OUTPUT.set(output);
        }
        if self.session.is_closed() {
            tls.close(&mut records)?;
        }
        Ok(records)
    }

    /// Gives the socket what it takes; whether that was all. The last reply goes with the word that it was the last:
    /// in one segment, where the peer takes it.
    fn push(&self, rest: &mut Rest) -> io::Result<bool> {
        let how = if self.session.is_closed() { Sent::WithTheEnd } else { Sent::Now };
        while let Some(octets) = rest.octets.get(rest.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.try_send(octets, how) {
                Ok(count) => rest.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The replies have been sent, or will not be.
    fn note_sent(&mut self, sent: bool) {
        let owed = std::mem::take(&mut self.owed);
        if sent {
            // A command must be complete within `timeout` of the last reply.
            self.deadline = self.next_deadline();
        } else {
            self.shared.stats.answers_lost.add_many(owed.into());
        }
        self.log_replied(sent);
    }

    /// Ready when the socket takes more, or when it is too late for that.
    fn poll_room(
        &self,
        context: &mut Context<'_>,
        signals: &mut Signals<'_, '_>,
        deadline: Instant,
    ) -> Poll<Result<(), End>> {
        if self.shared.shutdown.is_closing() {
            return Poll::Ready(Err(End::Cut));
        }
        signals.poll_changed(context);
        if signals.poll_deadline(context, deadline).is_ready() {
            self.shared.stats.timeouts.add();
            return Poll::Ready(Err(End::Lost(io::ErrorKind::TimedOut.into())));
        }
        self.stream.poll_write_ready(context).map_err(End::Lost)
    }
}
