//! Octets from the peer: what is read, and the step of the session that it leads to.

use std::io;
use std::task::{Context, Poll};

use tokio::time::Instant;
use zeroize::Zeroize;

use super::signals::Signals;
use super::{Connection, End, OUTPUT, PLAINTEXT, READ};
use crate::smtp::Step;

/// Steps of one connection, each of a read or of as many replies as are sent at once, before the others
/// have their turn. With replies to send as well: a flood of short commands costs more than one of octets.
const STEPS_A_TURN: u8 = 16;

impl Connection {
    /// The session's next step: out of what is left unread, else out of the socket.
    pub(super) fn poll_step(
        &mut self,
        context: &mut Context<'_>,
        signals: &mut Signals<'_, '_>,
    ) -> Poll<Result<Step, End>> {
        // Before all else: its last reply waits for the end of the connection.
        if self.session.is_closed() {
            return Poll::Ready(Ok(Step::Close));
        }
        if self.shared.shutdown.is_closing() {
            return Poll::Ready(Err(End::Cut));
        }
        if !self.session.in_transaction()
            && let Some(reply) = self.between_transactions()
        {
            self.unread = Vec::new();
            self.session.end(&reply);
            return Poll::Ready(Ok(Step::Close));
        }
        if self.steps >= STEPS_A_TURN {
            return self.poll_others(context);
        }
        self.steps += 1;
        if !self.unread.is_empty() || self.session.may_go_on() {
            let mut unread = std::mem::take(&mut self.unread);
            let step = self.consume(&unread);
            self.wipe(&mut unread);
            return Poll::Ready(Ok(step));
        }
        self.poll_socket(context, signals)
    }

    /// Reads until that leads to a step.
    fn poll_socket(
        &mut self,
        context: &mut Context<'_>,
        signals: &mut Signals<'_, '_>,
    ) -> Poll<Result<Step, End>> {
        loop {
            match self.poll_read(context) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(End::Lost(error))),
                Poll::Ready(Ok(Step::NeedInput)) => {
                    if self.is_too_slow() {
                        return Poll::Ready(Ok(self.time_out("its message comes too slowly")));
                    }
                    if self.has_output() {
                        return Poll::Ready(Ok(Step::NeedInput));
                    }
                    // A chunk begins without a reply.
                    self.count();
                }
                Poll::Ready(Ok(step)) => return Poll::Ready(Ok(step)),
                Poll::Pending => {
                    self.steps = 0;
                    if signals.poll_deadline(context, self.deadline).is_ready() {
                        return Poll::Ready(Ok(self.time_out("nothing came in time")));
                    }
                    signals.poll_changed(context);
                    return Poll::Pending;
                }
            }
            if self.steps >= STEPS_A_TURN {
                // Octets that keep coming keep the timer from being looked at.
                if !self.session.in_data() && Instant::now() >= self.deadline {
                    let step = self.time_out("no command was complete in time");
                    return Poll::Ready(Ok(step));
                }
                return self.poll_others(context);
            }
            self.steps += 1;
        }
    }

    /// A sender that is always ready must not keep the others waiting.
    fn poll_others<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        self.steps = 0;
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// The step that one read leads to.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Step>> {
        let room = self.session.body().map_or(usize::MAX, |body| body.appetite());
        READ.with_borrow_mut(|buffer| {
            let room = room.clamp(1, buffer.len());
            let buffer = buffer.get_mut(..room).unwrap_or_default();
            let count = std::task::ready!(self.stream.poll_read(context, buffer))?;
            let octets = buffer.get_mut(..count).unwrap_or_default();
            if octets.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.heard.octets(count);
            if self.tls.is_some() {
                return Poll::Ready(self.consume_records(octets));
            }
            let step = self.consume(octets);
            self.wipe(octets);
            Poll::Ready(Ok(step))
        })
    }

    /// Gives what the records say to the session. What the peer broke is not mended: it ends here. A command may
    /// have a password in it, so that what is not of a message alone stays in neither buffer.
    fn consume_records(&mut self, octets: &mut [u8]) -> io::Result<Step> {
        PLAINTEXT.with_borrow_mut(|plaintext| {
            plaintext.clear();
            let was_in_data = self.session.in_data();
            let step = self.decrypt_and_consume(octets, plaintext);
            // Behind the end of a message there may be commands in the same read.
            if step.is_err() || !(was_in_data && self.session.in_data()) {
                octets.zeroize();
                plaintext.as_mut_slice().zeroize();
            }
            step
        })
    }

    fn decrypt_and_consume(
        &mut self,
        octets: &mut [u8],
        plaintext: &mut Vec<u8>,
    ) -> io::Result<Step> {
        let Some(tls) = &mut self.tls else { return Ok(Step::NeedInput) };
        let open = tls.decrypt(octets, plaintext).map_err(|error| {
            let mut alert = Vec::new();
            // It ends either way.
            let _ = tls.encrypt(&[], &mut alert).and_then(|()| self.stream.try_write(&alert));
            io::Error::other(error)
        })?;
        if plaintext.is_empty() && !open {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.consume(plaintext))
    }

    /// Gives octets to the session. A body is begun here and now where there is memory for it; only
    /// where there is none the question goes up to `converse`, which can wait.
    pub(super) fn consume(&mut self, octets: &[u8]) -> Step {
        let mut input = octets;
        self.session.ask_first(self.shared.faults.are_armed());
        self.session.ask_about_recipients(self.config.backend.is_broken());
        self.lend_output();
        loop {
            let step = self.session.step(&mut input);
            if let Step::BeginBody { declared } = step
                && let Some(answer) = self.body_answer(declared)
            {
                self.begin_body(answer);
                continue;
            }
            self.after_data_read(octets.len() - input.len());
            self.note_refused();
            self.unread = input.to_vec();
            if !self.session.has_output() {
                OUTPUT.set(self.session.take_output());
            }
            return step;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use crate::net::connection::pace::tests::connection;
    use crate::net::tls::tests::{NAME, Place, said};
    use crate::net::turns;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_is_read_and_answered_counts_for_the_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut connection, _core, client) = connection();
            let shared = Arc::clone(&connection.shared);
            let shutdown = shared.shutdown.as_ref();
            let timer = pin!(tokio::time::sleep_until(connection.deadline));
            let changed = pin!(shutdown.changed());
            let mut signals = Signals { timer, changed, shutdown };
            turns::tests::begin();
            for said in ["NOOP\r\n", "RSET\r\nNOOP\r\n"] {
                assert_eq!(client.try_write(said.as_bytes()).unwrap(), said.len());
                poll_fn(|context| connection.poll_step(context, &mut signals)).await.unwrap();
                assert!(connection.flush_now().unwrap());
            }
            assert_eq!(turns::tests::counted(), (1, 18, 3));
        });
    }

    #[test]
    fn a_password_stays_in_no_buffer_of_the_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let (mut connection, _core, _client) = connection();
        let (mut client, records) = Place::new("tls1.3").pair(NAME);
        connection.tls = Some(Box::new(records));
        // Whether it was wiped from the buffer that was read into, and from the other one.
        let mut wipes = |text: &[u8], behind: &[u8]| {
            client.writer().write_all(text).unwrap();
            let mut octets = [&said(&mut client), behind].concat();
            let step = connection.consume_records(&mut octets);
            let is_zero = |octets: &[u8]| octets.iter().all(|&octet| octet == 0);
            let other = PLAINTEXT.with_borrow(|plaintext| {
                assert_eq!(plaintext.len(), text.len());
                is_zero(plaintext)
            });
            (step.is_ok(), is_zero(&octets), other)
        };
        assert_eq!(wipes(b"HELO a\r\nAUTH PLAIN AGEAcHc=\r\n", b""), (true, true, true));
        // Behind the end of what is dropped, in the same read.
        assert_eq!(wipes(b"BDAT 5\r\nab", b""), (true, true, true));
        assert_eq!(wipes(b"c", b""), (true, false, false), "nothing but a message");
        assert_eq!(wipes(b"deAUTH PLAIN AGEAcHc=\r\n", b""), (true, true, true));
        // Before something that is no record, so that the session does not hear of it.
        assert_eq!(wipes(b"BDAT 5\r\nab", b""), (true, true, true));
        let behind = b"cdeAUTH PLAIN AGEAcHc=\r\n";
        assert_eq!(wipes(behind, &[23, 9, 9, 0, 1]), (false, true, true));
    }

    #[test]
    fn a_client_that_always_has_more_to_say_does_not_keep_the_others_waiting() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let (mut connection, _core, _client) = connection();
        let shared = Arc::clone(&connection.shared);
        let shutdown = shared.shutdown.as_ref();
        let timer = pin!(tokio::time::sleep_until(connection.deadline));
        let changed = pin!(shutdown.changed());
        let mut signals = Signals { timer, changed, shutdown };
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        // Twice: it has its turn again.
        for turn in 1..=2 {
            for _ in 0..STEPS_A_TURN {
                connection.unread = b"NOOP\r\n".to_vec();
                let step = connection.poll_step(&mut context, &mut signals);
                assert!(matches!(step, Poll::Ready(Ok(Step::NeedInput))), "{step:?}");
            }
            connection.unread = b"NOOP\r\n".to_vec();
            assert!(connection.poll_step(&mut context, &mut signals).is_pending());
            assert_eq!(woken.0.load(Ordering::SeqCst), turn);
        }
        let said = connection.session.take_output();
        assert_eq!(said, b"250 2.0.0 OK\r\n".repeat(2 * usize::from(STEPS_A_TURN)));
    }
}
