//! What the connections of one thread share: what they count, and the clock that they wait by.

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Semaphore;

use super::tally::Tally;
use super::tickets::{Ticket, Tickets};

/// Connections that are being opened at a time before the start: more than the queue of a listener holds
/// would wait for a second SYN.
const OPENING: usize = 64;

/// One thread's.
#[derive(Debug)]
pub(super) struct Lane {
    tally: Mutex<Tally>,
    timer: tokio::sync::Mutex<Timer>,
    pub(super) opening: Semaphore,
}

impl Lane {
    /// Within the runtime of its thread.
    pub(super) fn timer() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = File::from(timerfd_create(TimerfdClockId::Monotonic, flags)?);
        Ok(Timer { file: timer.try_clone()?, receiver: Receiver::from_file_unchecked(timer)? })
    }

    pub(super) fn new(timer: Timer) -> Self {
        Self {
            tally: Mutex::default(),
            timer: tokio::sync::Mutex::new(timer),
            opening: Semaphore::new(OPENING),
        }
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message, when it is due. Who has waited longest is first.
    pub(super) async fn next(&self, tickets: &Tickets) -> Option<Ticket> {
        if !tickets.is_paced() {
            return tickets.take();
        }
        let timer = self.timer.lock().await;
        let ticket = tickets.take()?;
        timer.wait_until(ticket.due).await.ok()?;
        Some(ticket)
    }
}

/// One that is right to some microseconds: tokio's own counts whole milliseconds, which is longer than
/// many a message takes.
#[derive(Debug)]
pub(super) struct Timer {
    file: File,
    /// It is no pipe, but is read as one: of what tokio waits for, this is what takes a file of any kind.
    receiver: Receiver,
}

impl Timer {
    async fn wait_until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Ok(());
        }
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.file, TimerfdTimerFlags::empty(), &times)?;
        loop {
            self.receiver.readable().await?;
            match self.receiver.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(|_| ()),
            }
        }
    }
}
