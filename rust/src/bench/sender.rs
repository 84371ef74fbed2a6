//! One of the connections that the target has at a time: opened, used, and opened again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::client::Outcome;
use super::connection::Connection;
use super::lane::Lane;
use super::load::Run;
use super::tickets::Ticket;

/// Connections in a row that could not be opened, after which a sender gives up: with the waits below, some
/// seconds, in which a server has been started anew.
const TRIES: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Sender {
    run: Arc<Run>,
    lane: Arc<Lane>,
    connection: Option<Connection>,
    /// Connections in a row that could not be opened.
    failures: u32,
}

impl Sender {
    pub(super) fn new(run: Arc<Run>, lane: Arc<Lane>) -> Self {
        Self { run, lane, connection: None, failures: 0 }
    }

    pub(super) async fn work(mut self) {
        self.open_first().await;
        let run = Arc::clone(&self.run);
        let Some(tickets) = run.begun().await else { return };
        let lane = Arc::clone(&self.lane);
        while self.failures < TRIES {
            let Some(ticket) = lane.next(tickets).await else { break };
            lane.tally().begun += 1;
            let outcome = self.deliver(&ticket).await;
            lane.tally().end(outcome, run.plan().mails.size(ticket.number), tickets.start());
            self.part().await;
            if (1..TRIES).contains(&self.failures) {
                self.wait(tickets.end()).await;
            }
        }
        if let Some(connection) = self.connection.take() {
            connection.leave().await;
        }
    }

    /// Before the clock begins to run, with those of the others, and not all at once.
    async fn open_first(&mut self) {
        let run = Arc::clone(&self.run);
        let mut opening = run.opening();
        let lane = Arc::clone(&self.lane);
        let _permit = lane.opening.acquire().await;
        self.connection = self.open().await.ok();
        opening.is_open = self.connection.is_some();
    }

    async fn open(&mut self) -> Result<Connection, Option<Outcome>> {
        let opened = Connection::open(&self.run, &self.lane).await;
        self.failures = if opened.is_ok() { 0 } else { self.failures + 1 };
        opened
    }

    /// Sends it over the connection there is, or a new one. Without an outcome it has failed.
    async fn deliver(&mut self, ticket: &Ticket) -> Option<Outcome> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.open().await {
                Ok(connection) => connection,
                Err(outcome) => return outcome,
            },
        };
        match connection.send(ticket).await {
            Ok(outcome) => {
                self.connection = Some(connection);
                Some(outcome)
            }
            Err(failure) => {
                connection.note(&failure);
                None
            }
        }
    }

    /// Parts with a connection that has had its messages, or that the server ends.
    async fn part(&mut self) {
        let most = self.run.plan().per_connection;
        let is_over = |connection: &mut Connection| {
            !connection.is_open() || (most > 0 && connection.messages() >= most)
        };
        if let Some(connection) = self.connection.take_if(is_over) {
            connection.leave().await;
        }
    }

    /// Waits before the next try, so that a target which is away is not stormed.
    async fn wait(&self, end: Instant) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(10)).min(LONGEST_WAIT);
        sleep(wait.min(end.saturating_duration_since(Instant::now()))).await;
    }
}
