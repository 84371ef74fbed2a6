//! One connection: the client's conversation over a socket, with a time limit for each wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::client::{Client, Due, Heard, Outcome, Stage};
use super::lane::Lane;
use super::link::Link;
use super::load::Run;
use super::tally::Failure;
use super::tickets::Ticket;

/// How long the reply to QUIT is waited for: all is said and done by then.
const GOODBYE: Duration = Duration::from_secs(1);

/// One that can be sent over.
pub(super) struct Connection {
    run: Arc<Run>,
    lane: Arc<Lane>,
    link: Link,
    client: Client,
    output: Vec<u8>,
    /// During a handshake of TLS.
    shakes: bool,
    /// When something was read last.
    heard: Instant,
    /// Messages that were begun.
    messages: u64,
}

impl Connection {
    /// Connects and says EHLO. Without one, what became of it: refused, or, where nothing is said, failed;
    /// it is counted.
    pub(super) async fn open(run: &Arc<Run>, lane: &Arc<Lane>) -> Result<Self, Option<Outcome>> {
        let plan = run.plan();
        let link = match run.within(Link::connect(&plan.target)).await {
            Ok(link) => link,
            Err(failure) => {
                lane.tally().fail(Stage::Connect, &failure);
                return Err(None);
            }
        };
        lane.tally().connections += 1;
        let is_implicit = plan.tls.as_ref().is_some_and(|tls| !tls.start);
        let mut connection = Self {
            run: Arc::clone(run),
            lane: Arc::clone(lane),
            link,
            client: Client::new(Arc::clone(&plan.script), is_implicit),
            output: Vec::new(),
            shakes: false,
            heard: Instant::now(),
            messages: 0,
        };
        match connection.greet(is_implicit).await {
            Ok(()) if connection.is_open() => Ok(connection),
            Ok(()) => Err(Some(Outcome::Refused)),
            Err(failure) => {
                connection.note(&failure);
                Err(None)
            }
        }
    }

    /// Sends a message, and counts how long it took.
    pub(super) async fn send(&mut self, ticket: &Ticket) -> Result<Outcome, Failure> {
        let run = Arc::clone(&self.run);
        let mails = &run.plan().mails;
        self.messages += 1;
        self.client.begin(mails.is_8bit(ticket.number), &mut self.output);
        self.converse().await?;
        if self.client.due() != Due::Message {
            return Ok(self.client.outcome());
        }
        let mut more = true;
        for portion in 0.. {
            if !more {
                break;
            }
            more = mails.write(ticket.number, portion, &mut self.output);
            run.within(self.link.write(&mut self.output)).await?;
        }
        let sent = Instant::now();
        self.client.sent();
        self.converse().await?;
        let mut tally = self.lane.tally();
        tally.replied.add(self.heard.saturating_duration_since(sent));
        tally.due.add(self.heard.saturating_duration_since(ticket.due));
        Ok(self.client.outcome())
    }

    /// Whether another message can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.client.due() == Due::Ready
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Counts what has ended it.
    pub(super) fn note(&self, failure: &Failure) {
        let stage = if self.shakes { Stage::Tls } else { self.client.stage() };
        self.lane.tally().fail(stage, failure);
    }

    /// Says goodbye. How that ends changes nothing.
    pub(super) async fn leave(mut self) {
        if self.is_open() {
            self.client.quit(&mut self.output);
            if let Ok(Ok(heard)) = timeout(GOODBYE, self.hear()).await {
                self.lane.tally().hear(&heard);
            }
        }
    }

    async fn greet(&mut self, is_implicit: bool) -> Result<(), Failure> {
        if is_implicit {
            self.shake().await?;
        }
        self.converse().await?;
        if self.client.due() == Due::Handshake {
            self.shake().await?;
            self.client.secured(&mut self.output);
            self.converse().await?;
        }
        Ok(())
    }

    async fn shake(&mut self) -> Result<(), Failure> {
        let run = Arc::clone(&self.run);
        if let Some(tls) = &run.plan().tls {
            self.shakes = true;
            run.within(self.link.secure(&tls.settings, &tls.name, &mut self.client)).await?;
            self.shakes = false;
        }
        Ok(())
    }

    /// Goes on until something else is due than a reply. Each reply has its own time, however its octets
    /// drip in.
    async fn converse(&mut self) -> Result<(), Failure> {
        let run = Arc::clone(&self.run);
        while self.client.due() == Due::Reply {
            let heard = run.within(self.hear()).await?;
            self.lane.tally().hear(&heard);
        }
        Ok(())
    }

    async fn hear(&mut self) -> Result<Heard, Failure> {
        loop {
            if let Some(heard) = self.client.hear(&mut self.output)? {
                return Ok(heard);
            }
            if !self.output.is_empty() {
                self.link.write(&mut self.output).await?;
            }
            self.link.read(&mut self.client).await?;
            self.heard = Instant::now();
        }
    }
}
