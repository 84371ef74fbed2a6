//! Credentials: who says whether they are good, and what becomes of those that are not.
//!
//! A guess costs its maker time and no worker: the answer that it was wrong is held back, longer each time,
//! and after some of them no more are tried.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroize;

use super::signals::Signals;
use super::{Connection, End};
use crate::delivery::Login;
use crate::log::Level;
use crate::smtp::{Credentials, Reply, Transaction, Verdict};

/// Over this no delay is doubled: a client that waits for an answer for a minute has given up.
const LONGEST_DELAY: Duration = Duration::from_secs(16);
/// Logins that wait for a worker; see `LARGEST_CHECK_BACKLOG`. What is further back would expire.
const LARGEST_LOGIN_BACKLOG: usize = 1_000;

impl Connection {
    pub(super) async fn authenticate(
        &mut self,
        signals: &mut Signals<'_, '_>,
        transaction: Arc<Transaction>,
        credentials: Credentials,
    ) -> Result<(), End> {
        if self.failed_too_often() {
            self.refuse_to_try();
            return Ok(());
        }
        let identity = credentials.identity().to_owned();
        let mechanism = credentials.mechanism;
        let verdict = self.verdict_on(signals, transaction, credentials).await?;
        if self.failed_too_often() {
            // Others of its address have failed meanwhile: what was tried beside them tells it nothing.
            self.refuse_to_try();
            return Ok(());
        }
        let reply = verdict.map_or_else(Reply::authentication_failed, Verdict::fold);
        if reply.is_success() {
            self.log(Level::Info, format_args!("is {identity:?} by {}", mechanism.name()));
            Arc::make_mut(&mut self.client).auth = Some(identity);
        } else if reply.is_transient() {
            self.log(Level::Info, format_args!("nobody says who it is: {reply}"));
        } else {
            // Not the name: now and then it is the password.
            self.log(Level::Info, format_args!("its login has failed: {reply}"));
            self.count_failure();
            self.hold(signals, self.failure_delay()).await?;
        }
        self.resume(Verdict::All(reply));
        Ok(())
    }

    fn refuse_to_try(&mut self) {
        self.shared.stats.logins_limited.add();
        self.log(Level::Info, format_args!("closed: too many of its logins have failed"));
        self.unread = Vec::new();
        self.session.end(&Reply::authentication_refused());
    }

    /// None where nobody says, or not in time.
    async fn verdict_on(
        &mut self,
        signals: &mut Signals<'_, '_>,
        transaction: Arc<Transaction>,
        credentials: Credentials,
    ) -> Result<Option<Verdict>, End> {
        let (shared, backend) = (&self.shared, Arc::clone(&self.config.backend));
        let is_asked = backend.limits().authenticate && backend.intake_is_open();
        if !is_asked || backend.logins.len() >= LARGEST_LOGIN_BACKLOG {
            shared.stats.logins_expired.add();
            return Ok(None);
        }
        let login = Arc::new(Login {
            client: Arc::clone(&self.client),
            transaction,
            credentials: Arc::new(credentials),
            pending: shared.pending_login(&backend),
        });
        shared.stats.logins.add();
        shared.bell.ask(&backend, &login);
        let verdict = self.wait_for(signals, login.as_ref()).await;
        if !matches!(verdict, Ok(Some(_))) {
            // No password waits for a worker that nobody waits for.
            backend.logins.remove(|asked| Arc::ptr_eq(&asked.0, &login));
        }
        let verdict = verdict?;
        if verdict.is_none() {
            self.shared.stats.logins_expired.add();
        }
        Ok(verdict)
    }

    /// What held a password is not left in a buffer that others read into.
    pub(super) fn wipe(&self, octets: &mut [u8]) {
        if self.session.is_authenticating() {
            octets.zeroize();
        }
    }

    /// What is counted: none for a unix socket, or where a proxy does not know it.
    fn address(&self) -> Option<IpAddr> {
        self.client.remote_ip.parse().ok()
    }

    fn failed_too_often(&self) -> bool {
        let limit = self.config.logins.max_failures;
        let prefix = self.config.per_address.ipv6_prefix;
        let logins = self.place.server().logins();
        let of_address = || self.address().map_or(0, |ip| logins.failures(ip, prefix));
        limit > 0 && (u32::from(self.session.failed_logins()) >= limit || of_address() >= limit)
    }

    fn count_failure(&self) {
        self.shared.stats.logins_failed.add();
        let prefix = self.config.per_address.ipv6_prefix;
        if let Some(ip) = self.address().filter(|_| self.config.logins.max_failures > 0) {
            self.place.server().logins().fail(ip, prefix);
        }
    }

    /// Twice as long as the one before it.
    fn failure_delay(&self) -> Duration {
        doubled(self.config.logins.failure_delay, self.session.failed_logins())
    }
}

fn doubled(first: Duration, times: u16) -> Duration {
    let factor = 1_u32.checked_shl(u32::from(times)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(LONGEST_DELAY.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound() {
        let first = Duration::from_secs(1);
        assert_eq!([0, 1, 2, 4].map(|n| doubled(first, n).as_secs()), [1, 2, 4, 16]);
        assert_eq!([5, 31, 32, u16::MAX].map(|n| doubled(first, n)), [LONGEST_DELAY; 4]);
        assert_eq!(doubled(Duration::ZERO, 9), Duration::ZERO);
        assert_eq!(doubled(Duration::from_mins(1), 9), Duration::from_mins(1));
    }
}
