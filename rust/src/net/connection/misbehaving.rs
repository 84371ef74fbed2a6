//! A connection that misbehaves because a test wants it to: see [`crate::faults`].

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::signals::Signals;
use super::{Connection, End};
use crate::delivery::Delivery;
use crate::faults::Cut;
use crate::log::Level;
use crate::smtp::{Reply, Stage};

impl Connection {
    /// The session has asked whether it may obey.
    pub(super) async fn answer_before(
        &mut self,
        signals: &mut Signals<'_, '_>,
        stage: Stage,
    ) -> Result<(), End> {
        let refusal = self.suffer(signals, stage).await?;
        self.session.proceed(refusal.as_ref());
        Ok(())
    }

    /// What is planned for a stage: the wait is over when this returns, and gives what is to be said.
    pub(super) async fn suffer(
        &mut self,
        signals: &mut Signals<'_, '_>,
        stage: Stage,
    ) -> Result<Option<Reply>, End> {
        let Some(fault) = self.shared.faults.take(stage) else { return Ok(None) };
        if !fault.delay.is_zero() {
            self.hold(signals, fault.delay).await?;
        }
        match fault.cut {
            Some(cut) => Err(self.cut(signals, cut).await),
            None => Ok(fault.reply),
        }
    }

    /// Ends the connection behind the save of a message, where that is planned; nothing is said.
    pub(super) async fn suffer_saved(
        &mut self,
        signals: &mut Signals<'_, '_>,
        delivery: &Delivery,
    ) -> Result<(), End> {
        match self.shared.faults.take_cut(&delivery.queued_id) {
            Some(cut) => Err(self.cut(signals, cut).await),
            None => Ok(()),
        }
    }

    /// Waits, unless there is nobody to wait for or the core stops.
    pub(super) async fn hold(
        &self,
        signals: &mut Signals<'_, '_>,
        delay: Duration,
    ) -> Result<(), End> {
        let until = Instant::now() + delay;
        let mut broken = None;
        poll_fn(|context| {
            if self.shared.shutdown.is_closing() {
                return Poll::Ready(Err(End::Cut));
            }
            if self.shared.shutdown.is_stopping() {
                return Poll::Ready(Ok(()));
            }
            signals.poll_changed(context);
            if self.poll_broken(context, &mut broken).is_ready() {
                return Poll::Ready(Err(End::Lost(io::ErrorKind::ConnectionReset.into())));
            }
            signals.poll_deadline(context, until).map(Ok)
        })
        .await
    }

    async fn cut(&mut self, signals: &mut Signals<'_, '_>, cut: Cut) -> End {
        self.log(Level::Info, format_args!("dropped, as was asked for: {cut:?}"));
        match cut {
            Cut::Reset => {
                self.stream.reset_on_close();
                End::Closed
            }
            // Closing a socket with unread octets in it would reset the connection.
            Cut::Close => self.linger(signals).await.err().unwrap_or(End::Closed),
        }
    }
}
