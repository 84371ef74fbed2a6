//! Octets to the peer: replies, as records where there is TLS.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::time::Instant;

use super::signals::Signals;
use super::{Connection, End, OUTPUT};

/// A larger buffer for replies is not kept: few connections need it.
const LARGEST_KEPT: usize = 64 << 10;

impl Connection {
    /// Whether there is something to be sent.
    pub(super) fn has_output(&self) -> bool {
        self.session.has_output() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what the session wrote. A peer that does not read has `timeout`.
    pub(super) async fn flush(&mut self, signals: &mut Signals<'_, '_>) -> Result<(), End> {
        if !self.has_output() {
            return Ok(());
        }
        let mut output = self.session.take_output();
        self.shared.replies.count(&output);
        if let Some(tls) = &mut self.tls {
            let mut records = Vec::new();
            tls.encrypt(&output, &mut records)?;
            if self.session.is_closed() {
                tls.close(&mut records)?;
            }
            output = records;
        }
        let sent = self.send(signals, &output).await;
        if output.capacity() <= LARGEST_KEPT {
            OUTPUT.set(output);
        }
        let owed = std::mem::take(&mut self.owed);
        if sent.is_err() {
            self.shared.stats.answers_lost.add_many(owed.into());
        }
        self.log_replied(sent.is_ok());
        sent
    }

    pub(super) async fn send(
        &mut self,
        signals: &mut Signals<'_, '_>,
        output: &[u8],
    ) -> Result<(), End> {
        let mut rest = output;
        let deadline = Instant::now() + self.config.timeout;
        while !rest.is_empty() {
            match self.stream.try_write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or(&[]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|context| {
                        if self.shared.shutdown.is_closing() {
                            return Poll::Ready(Err(End::Cut));
                        }
                        signals.poll_changed(context);
                        if signals.poll_deadline(context, deadline).is_ready() {
                            self.shared.stats.timeouts.add();
                            return Poll::Ready(Err(End::Lost(io::ErrorKind::TimedOut.into())));
                        }
                        self.stream.poll_write_ready(context).map_err(End::Lost)
                    })
                    .await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        // A command must be complete within `timeout` of the last reply.
        self.deadline = self.next_deadline();
        Ok(())
    }
}
