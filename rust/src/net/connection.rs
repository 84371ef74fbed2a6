//! One connection: the loop over its session's steps, and what each step waits for.
//!
//! The driver owns every deadline and every octet on its way. Between two reads it holds no buffer:
//! all connections read into one of the thread's, borrowed only while one of them is polled.

mod authenticating;
mod messages;
mod misbehaving;
mod opening;
mod pace;
mod reading;
mod sending;
mod signals;
mod waiting;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, sleep_until};

use self::pace::Data;
use self::sending::Rest;
use self::signals::Signals;
use super::live::Place;
use super::stream::Stream;
use super::tls::Records;
use super::turns::Heard;
use crate::backends::Spools;
use crate::buffer::Body;
use crate::config::ServerConfig;
use crate::delivery::{Client, refusal};
use crate::events::Event;
use crate::few::Few;
use crate::log::{Level, Message};
use crate::server::Shared;
use crate::smtp::{BodyAnswer, Reply, Session, Step, Verdict};

/// One read; large enough that a 100 KiB mail takes two.
const READ_BUFFER: usize = 64 << 10;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER].into_boxed_slice());
    /// What one read decrypts to.
    static PLAINTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// What the sessions of the thread write their replies to: one after the other, since what is written is sent
    /// before another connection has its turn, or stays with its connection.
    static OUTPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The same in records of TLS.
    static RECORDS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Serves one connection to its end. A panic in it ends it alone, with 421.
///
/// No `async fn`, here and below: that keeps what it is given twice, as its argument and as its variable.
#[allow(clippy::manual_async_fn)] // That would keep its argument twice.
pub(super) fn run(mut connection: Box<Connection>) -> impl Future<Output = ()> + Send {
    async move {
        let outcome = {
            let mut serving = pin!(connection.serve());
            poll_fn(|context| {
                match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(context))) {
                    Ok(polled) => polled.map(Some),
                    Err(_) => Poll::Ready(None),
                }
            })
            .await
        };
        if outcome.is_none() {
            connection.panicked();
        }
        // Cut off between the verdict and the write.
        connection.shared.stats.answers_lost.add_many(connection.owed.into());
        connection.log_replied(false);
        connection.tell(Event::Closed);
    }
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The session said so.
    Closed,
    /// The peer closed, or the connection broke.
    Lost(io::Error),
    /// The core stops, and it had not been greeted.
    Stopped,
    /// The core closes everything.
    Cut,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

pub(super) struct Connection {
    stream: Stream,
    session: Session,
    tls: Option<Box<Records>>,
    client: Arc<Client>,
    config: Arc<ServerConfig>,
    shared: Arc<Shared>,
    /// Octets read and not consumed, because a question came up before them.
    unread: Vec<u8>,
    /// Steps since the others had their turn.
    steps: u8,
    heard: Heard,
    /// When the peer must have sent a whole command, or its next octets of a message.
    deadline: Instant,
    /// The message that is being received. Boxed: most connections are idle.
    data: Option<Box<Data>>,
    /// Octets that the socket did not take yet.
    rest: Option<Box<Rest>>,
    /// Messages answered 2xx whose answer has not been sent yet.
    owed: u32,
    /// Messages whose reply has not been sent yet, for the log.
    replied: Few<Message>,
    place: Place,
}

impl Connection {
    pub(super) fn new(
        stream: Stream,
        client: Client,
        config: Arc<ServerConfig>,
        shared: Arc<Shared>,
        place: Place,
    ) -> Self {
        let mut session = Session::new(Arc::clone(&config.session));
        // What the socket's own peer may, whoever it says it speaks for.
        let may_be_proxy = client.remote_ip.is_empty() || !config.trusted_proxies.is_empty();
        if may_be_proxy && config.trusts(client.remote_ip.parse().ok()) {
            session.trust();
        }
        let deadline = Instant::now() + config.timeout;
        let client = Arc::new(client);
        Self {
            stream,
            session,
            tls: None,
            client,
            config,
            shared,
            unread: Vec::new(),
            steps: 0,
            heard: Heard::default(),
            deadline,
            data: None,
            rest: None,
            owed: 0,
            replied: Few::default(),
            place,
        }
    }

    #[allow(clippy::manual_async_fn)] // That would keep its argument twice.
    fn serve(&mut self) -> impl Future<Output = ()> + Send {
        async move {
            let shared = Arc::clone(&self.shared);
            let shutdown = shared.shutdown.as_ref();
            let changed = pin!(shutdown.changed());
            let timer = pin!(sleep_until(self.deadline));
            let mut signals = Signals { timer, changed, shutdown };
            self.log(Level::Debug, format_args!("connected"));
            self.tell(Event::Opened);
            let end = match self.converse(&mut signals).await {
                Ok(()) => End::Closed,
                Err(end) => end,
            };
            self.log_end(&end);
        }
    }

    fn log_end(&self, end: &End) {
        match end {
            End::Closed => self.log(Level::Debug, format_args!("closed")),
            End::Lost(error) => self.log(Level::Debug, format_args!("lost: {error}")),
            End::Stopped => self.log(Level::Debug, format_args!("closed by the shutdown")),
            End::Cut => self.log(Level::Warning, format_args!("cut off by the shutdown")),
        }
    }

    /// Awaits one thing itself: an idle connection has no room for what any other needs. So all that has
    /// to be waited for is boxed, and the step is moved there in the line behind it.
    #[allow(clippy::manual_async_fn)] // That would keep its arguments twice.
    fn converse(
        &mut self,
        signals: &mut Signals<'_, '_>,
    ) -> impl Future<Output = Result<(), End>> + Send {
        async move {
            if self.opens_at_once() && !self.shared.faults.are_armed() {
                self.lend_output();
                self.greet();
            } else {
                Box::pin(self.open(signals)).await?;
            }
            self.count();
            loop {
                let step = poll_fn(|context| self.poll_turn(context, signals)).await?;
                if Box::pin(self.pursue(signals, step)).await? {
                    return Ok(());
                }
            }
        }
    }

    /// The next step that has to be waited for; `NeedInput` where that is the socket's room.
    fn poll_turn(
        &mut self,
        context: &mut Context<'_>,
        signals: &mut Signals<'_, '_>,
    ) -> Poll<Result<Step, End>> {
        // What else the peer sent is answered in the same write, unless everything ends now.
        let waits = !self.unread.is_empty() && !self.shared.shutdown.is_closing();
        if !waits && !self.flush_now()? {
            return Poll::Ready(Ok(Step::NeedInput));
        }
        loop {
            let step = ready!(self.poll_step(context, signals))?;
            self.count();
            if !matches!(step, Step::NeedInput) || !self.flush_now()? {
                return Poll::Ready(Ok(step));
            }
        }
    }

    /// Sends what is to be sent, and does what the step is; whether that was the end.
    async fn pursue(&mut self, signals: &mut Signals<'_, '_>, step: Step) -> Result<bool, End> {
        self.flush(signals).await?;
        match step {
            Step::NeedInput => {}
            Step::Close => return self.close(signals).await.map(|()| true),
            question => {
                self.answer(signals, question).await?;
                self.count();
            }
        }
        Ok(false)
    }

    /// Counts it by what it waits for from now on.
    fn count(&mut self) {
        self.place.turn_to(self.session.phase().into());
    }

    /// Gets the session the answer to its question.
    async fn answer(&mut self, signals: &mut Signals<'_, '_>, question: Step) -> Result<(), End> {
        match question {
            Step::CheckRecipient(transaction, recipient) => {
                self.check(signals, transaction, recipient).await
            }
            Step::BeginBody { declared } => self.wait_for_memory(signals, declared).await,
            Step::CatchUp => self.catch_up(signals).await,
            Step::FinishBody(body) => match self.finish(signals, body).await? {
                Some((transaction, body)) => self.deliver(signals, transaction, body).await,
                None => Ok(()),
            },
            Step::Deliver(transaction, body) => self.deliver(signals, transaction, body).await,
            Step::Authenticate(transaction, credentials) => {
                self.authenticate(signals, transaction, credentials).await
            }
            Step::StartTls => self.start_tls(signals).await,
            Step::Before(stage) => self.answer_before(signals, stage).await,
            Step::XClient(said) => {
                self.speak_for(*said);
                Ok(())
            }
            Step::NeedInput | Step::Close => Ok(()),
        }
    }

    /// Where a session obeys a new config, and where it ends if it has to: gives the reply then.
    fn between_transactions(&mut self) -> Option<Reply> {
        if self.shared.shutdown.is_stopping() {
            return Some(Reply::shutting_down());
        }
        if self.place.server().is_leaving() {
            return Some(Reply::server_gone());
        }
        if let Some(config) = self.place.changed_config() {
            self.config = config;
            let settings = &self.config.session;
            if self.client.host_name != settings.host_name {
                Arc::make_mut(&mut self.client).host_name = Arc::clone(&settings.host_name);
            }
            self.session.configure(Arc::clone(settings));
        }
        None
    }

    /// The answer to `BeginBody` that can be given at once; none when memory must be waited for.
    fn body_answer(&self, declared: Option<u64>) -> Option<BodyAnswer> {
        if !self.config.backend.intake_is_open() {
            return Some(BodyAnswer::Refuse(Reply::intake_closed()));
        }
        if self.config.backend.limits().spools != Spools::Never
            && let Some(spool) = self.shared.spool()
            && let Err(reason) = spool.has_room(declared.unwrap_or_default())
        {
            return Some(BodyAnswer::Refuse(refusal(reason)));
        }
        Body::take(&self.shared.budget, declared, self.config.session.max_size)
            .map(BodyAnswer::Begin)
    }

    /// The session writes its next replies into the thread's buffer.
    fn lend_output(&mut self) {
        self.session.lend(OUTPUT.take());
    }

    /// The verdict on a recipient, a message or credentials.
    fn resume(&mut self, verdict: Verdict) {
        self.lend_output();
        self.session.resume(verdict);
    }

    fn begin_body(&mut self, answer: BodyAnswer) {
        if matches!(answer, BodyAnswer::Begin(_)) {
            self.data = Some(Box::new(Data::begin()));
        }
        self.session.begin_body(answer);
    }

    fn panicked(&mut self) {
        self.shared.stats.panics.add();
        self.log(Level::Error, format_args!("a panic ended this connection: this is a bug"));
        if self.tls.is_some() {
            // What the records were in the middle of is not known.
            return;
        }
        let mut reply = Vec::new();
        Reply::internal_error().write_as(self.config.session.form(), &mut reply);
        // The connection ends either way.
        let _ = self.stream.try_write(&reply);
    }

    fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        if self.shared.log.is_on(level) {
            let Client { id, server, remote_ip, remote_port, .. } = self.client.as_ref();
            let peer = if remote_ip.is_empty() { "local" } else { remote_ip };
            self.shared.log.write_for(
                server,
                level,
                "net",
                format_args!("#{id} {server} {peer}:{remote_port} {message}"),
            );
        }
    }
}
