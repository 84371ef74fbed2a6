//! What goes to Python: messages, recipients and credentials, each with who sent it and the answer
//! it waits for.

mod spooling;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

pub use self::spooling::{Inlet, Place, Spooling, refusal};

use crate::backends::Backend;
use crate::buffer::Body;
use crate::course::Course;
use crate::pending::Pending;
use crate::queue::Queue;
use crate::short::ShortText;
use crate::smtp::{Address, Credentials, Dialect, Reply, Transaction, Verdict};
use crate::spool::Settled;

/// Who is on the other side of a connection.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The number of the connection, from 1.
    pub id: u64,
    /// `listen_interface` of the server that took it.
    pub server: Arc<str>,
    /// `host_name` of that server.
    pub host_name: Arc<str>,
    /// Its IP address; empty for a unix socket, and where a proxy does not know it.
    pub remote_ip: String,
    /// Its port.
    pub remote_port: u16,
    /// Its host name, where a proxy gave it.
    pub remote_name: Option<Box<str>>,
    /// Where it connected to; none for a unix socket.
    pub local: Option<std::net::SocketAddr>,
    /// What TLS was negotiated. Boxed: most connections have none, and an idle one is to be small.
    pub tls: Option<Box<TlsInfo>>,
    /// Who it authenticated as.
    pub auth: Option<String>,
}

/// What was negotiated with the peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsInfo {
    /// `TLSv1.3`, say.
    pub version: String,
    /// The cipher suite.
    pub cipher: String,
    /// The name the client asked for (SNI).
    pub server_name: Option<String>,
    /// The subject of the client's certificate.
    pub client_subject: Option<String>,
    /// Whether that certificate was verified.
    pub client_verified: bool,
}

/// A message that waits for its answer.
#[derive(Debug)]
pub struct Delivery {
    /// Who sent it.
    pub client: Arc<Client>,
    /// Its transaction.
    pub transaction: Arc<Transaction>,
    /// Its octets.
    pub body: Body,
    /// Its id.
    pub queued_id: ShortText,
    /// When the final dot came.
    pub received_at: SystemTime,
    /// Octets of its header section that are looked at.
    pub max_header_size: usize,
    /// Its answer.
    pub pending: Pending,
    /// Where its time goes.
    pub course: Course,
    /// Whether a worker has it, and may hold its octets for as long as it likes.
    pub fetched: AtomicBool,
    /// What it has to do with the spool.
    pub spooling: Spooling,
}

impl Delivery {
    /// A worker takes it out of the queue; whether that is worth its while.
    pub fn fetch(&self) -> bool {
        self.fetched.store(true, Ordering::SeqCst);
        self.course.fetch();
        self.pending.is_open()
    }

    /// The default answer: `250 2.0.0 OK: queued as ID`.
    pub fn accepted(&self) -> Reply {
        Reply::made(250, (2, 0, 0), ShortText::joined(&["OK: queued as ", &self.queued_id]))
    }

    /// Answers it and moves its octets off the budget.
    pub fn answer(&self, verdict: Verdict) -> bool {
        if let Spooling::From(lease) = &self.spooling {
            // Its sender was answered long ago. Told each time: of a worker that was given up and came
            // back, the spool still takes a success.
            lease.settle(spooling::settled(verdict.clone()));
        }
        // Only LMTP can tell the recipients apart; with all others the sender keeps the mail for all.
        let verdict = match self.transaction.dialect {
            Dialect::Lmtp => verdict,
            Dialect::Smtp | Dialect::Esmtp => Verdict::All(verdict.fold()),
        };
        let first = self.pending.answer(verdict);
        self.body.release();
        first
    }
}

/// A recipient that waits for its answer.
#[derive(Debug)]
pub struct Check {
    /// Who asks.
    pub client: Arc<Client>,
    /// The transaction so far.
    pub transaction: Arc<Transaction>,
    /// The recipient.
    pub recipient: Address,
    /// Its answer.
    pub pending: Pending,
    /// Which chains have it: see [`Answers`](crate::backends::cache::Answers).
    pub generation: AtomicU64,
}

/// Credentials that wait for their answer.
#[derive(Debug)]
pub struct Login {
    /// Who shows them.
    pub client: Arc<Client>,
    /// How it greeted; there is no mail yet.
    pub transaction: Arc<Transaction>,
    /// What it shows.
    pub credentials: Arc<Credentials>,
    /// Its answer.
    pub pending: Pending,
}

/// A question in the hands of the Python side; dropped without an answer it has the
/// [last resort](Question::LAST_RESORT) of its kind.
#[derive(Debug)]
pub struct Asked<T: Question>(pub Arc<T>);

/// What [`Asked`] needs of a question.
pub trait Question {
    /// What is said where nobody answers: something passing.
    const LAST_RESORT: Reply;
    /// Its answer.
    fn pending(&self) -> &Pending;
    /// Where it waits for a worker.
    fn queue(backend: &Backend) -> &Queue<Asked<Self>>
    where
        Self: Sized;
    /// Answers it.
    fn settle(&self, verdict: Verdict) -> bool {
        self.pending().answer(verdict)
    }
    /// Nobody hears its answer any more, or the answer was taken.
    fn forsake(&self) {
        self.pending().peer_gone();
    }
    /// Nobody is left who could answer it.
    fn abandon(&self) {
        if !self.pending().is_settled() {
            self.settle(Verdict::All(Self::LAST_RESORT));
        }
    }
}

impl Question for Delivery {
    const LAST_RESORT: Reply = Reply::save_failed();

    fn pending(&self) -> &Pending {
        &self.pending
    }

    fn queue(backend: &Backend) -> &Queue<Asked<Self>> {
        &backend.saves
    }

    fn settle(&self, verdict: Verdict) -> bool {
        self.answer(verdict)
    }

    /// What a worker holds no longer stands in anyone's way; what is still queued does, until a worker
    /// takes it out, and what the spool has to write, until it has: else a queue that nobody empties
    /// would hold more than the budget.
    fn forsake(&self) {
        self.pending.peer_gone();
        if self.fetched.load(Ordering::SeqCst) && !self.spooling.is_handed_over() {
            self.body.release();
        }
    }

    /// What the spool has, it answers; what comes from there is tried again.
    fn abandon(&self) {
        if self.pending.is_settled() || self.spooling.is_handed_over() {
            return;
        }
        if let Spooling::From(lease) = &self.spooling {
            lease.settle(Settled::Deferred("dropped without an answer".to_owned()));
        }
        self.answer(Verdict::All(Self::LAST_RESORT));
    }
}

impl Question for Check {
    const LAST_RESORT: Reply = Reply::save_failed();

    fn pending(&self) -> &Pending {
        &self.pending
    }

    fn queue(backend: &Backend) -> &Queue<Asked<Self>> {
        &backend.checks
    }
}

impl Question for Login {
    const LAST_RESORT: Reply = Reply::authentication_failed();

    fn pending(&self) -> &Pending {
        &self.pending
    }

    fn queue(backend: &Backend) -> &Queue<Asked<Self>> {
        &backend.logins
    }
}

impl<T: Question> Drop for Asked<T> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::smtp::{Mechanism, Secret};

    #[test]
    fn a_question_that_is_dropped_is_answered_451() {
        let check = Arc::new(Check {
            client: Arc::default(),
            transaction: Arc::default(),
            recipient: Address::null(),
            pending: Pending::new(Duration::from_mins(1), None, None),
            generation: AtomicU64::new(0),
        });
        drop(Asked(Arc::clone(&check)));
        assert_eq!(
            check.pending.poll(&Context::from_waker(Waker::noop())),
            Poll::Ready(Verdict::All(Reply::save_failed()))
        );
    }

    #[test]
    fn a_login_that_is_dropped_is_answered_454() {
        let login = Arc::new(Login {
            client: Arc::default(),
            transaction: Arc::default(),
            credentials: Arc::new(Credentials {
                mechanism: Mechanism::Plain,
                username: "joe".to_owned(),
                authorization_identity: String::new(),
                password: Secret::new("secret".to_owned()),
            }),
            pending: Pending::new(Duration::from_mins(1), None, None),
        });
        assert!(!format!("{login:?}").contains("secret"));
        drop(Asked(Arc::clone(&login)));
        assert_eq!(
            login.pending.poll(&Context::from_waker(Waker::noop())),
            Poll::Ready(Verdict::All(Reply::authentication_failed()))
        );
    }
}
