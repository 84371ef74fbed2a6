//! What a connection looks at whenever it is polled, beside what it waits for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::futures::Notified;
use tokio::time::{Instant, Sleep};

use crate::net::shutdown::Shutdown;

/// The timer and the word of a shutdown, both pinned beside the connection.
pub(super) struct Signals<'p, 's> {
    pub(super) timer: Pin<&'p mut Sleep>,
    pub(super) changed: Pin<&'p mut Notified<'s>>,
    pub(super) shutdown: &'s Shutdown,
}

impl Signals<'_, '_> {
    /// Ready once `deadline` has passed. The timer is moved only when it fires, not at each command:
    /// moving it costs more than the command.
    pub(super) fn poll_deadline(
        &mut self,
        context: &mut Context<'_>,
        deadline: Instant,
    ) -> Poll<()> {
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Polls the task again when a shutdown says its next word.
    pub(super) fn poll_changed(&mut self, context: &mut Context<'_>) {
        if self.changed.as_mut().poll(context).is_ready() {
            self.changed.set(self.shutdown.changed());
            context.waker().wake_by_ref();
        }
    }
}
