//! Answers about recipients that are kept for a while: one that is kept costs no crossing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::smtp::{Address, Reply};
use crate::stats::Counter;

/// Answers that are kept at most; over it the oldest goes.
pub const MOST_ANSWERS: usize = 65_536;

/// Octets of an answer that is kept: all of them together stay small.
const LONGEST_REPLY: usize = 512;

#[derive(Debug, Default)]
struct Inner {
    /// Which chains gave the answers: those of others are not kept.
    generation: u64,
    answers: HashMap<Arc<str>, (Reply, Instant)>,
    /// Oldest first; all are kept equally long.
    order: VecDeque<(Arc<str>, Instant)>,
}

impl Inner {
    fn drop_oldest(&mut self) {
        if let Some((key, until)) = self.order.pop_front()
            && self.answers.get(&key).is_some_and(|(_, kept)| *kept == until)
        {
            self.answers.remove(&key);
        }
    }
}

/// The answers of one backend.
#[derive(Debug, Default)]
pub struct Answers {
    inner: Mutex<Inner>,
    /// Recipients that were answered from here.
    pub hits: Counter,
    /// Recipients that had to be asked about.
    pub misses: Counter,
}

/// Hosts match in any case and either form of IDNA; a local part is its host's affair.
fn key(recipient: &Address) -> Arc<str> {
    format!("{}@{}", recipient.user(), recipient.ascii_host()).into()
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that is kept, if any.
    pub fn get(&self, recipient: &Address, now: Instant) -> Option<Reply> {
        let key = key(recipient);
        let found = match self.lock().answers.get(&key) {
            Some((reply, until)) if *until > now => Some(reply.clone()),
            _ => None,
        };
        if found.is_some() {
            self.hits.add();
        } else {
            self.misses.add();
        }
        found
    }

    /// Keeps an answer of the chains of that generation for `ttl`, where it is one for good.
    pub fn put(
        &self,
        generation: u64,
        recipient: &Address,
        reply: &Reply,
        ttl: Duration,
        now: Instant,
    ) {
        let for_good = matches!(reply.code() / 100, 2 | 5);
        if !for_good || reply.text().len() > LONGEST_REPLY {
            return;
        }
        let (key, until) = (key(recipient), now + ttl);
        let mut inner = self.lock();
        if inner.generation != generation {
            return;
        }
        while inner.order.len() >= MOST_ANSWERS
            || inner.order.front().is_some_and(|(_, until)| *until <= now)
        {
            inner.drop_oldest();
        }
        inner.answers.insert(Arc::clone(&key), (reply.clone(), until));
        inner.order.push_back((key, until));
    }

    /// Forgets all; gives the generation whose answers are kept from now on.
    pub fn renew(&self) -> u64 {
        let mut inner = self.lock();
        let generation = inner.generation + 1;
        *inner = Inner { generation, ..Inner::default() };
        generation
    }

    /// How many are kept; some may be too old.
    pub fn len(&self) -> usize {
        self.lock().answers.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_mins(1);

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn no() -> Reply {
        Reply::new(550, None, "no").unwrap()
    }

    #[test]
    fn what_is_for_good_is_kept_for_its_time() {
        let (answers, now) = (Answers::default(), Instant::now());
        let to = address("a@Example.com");
        assert_eq!(answers.get(&to, now), None);
        answers.put(0, &to, &no(), TTL, now);
        assert_eq!(answers.get(&address("a@eXample.com"), now), Some(no()));
        assert_eq!(answers.get(&address("A@example.com"), now), None);
        assert_eq!(answers.get(&to, now + TTL), None);
        let later = Reply::new(450, None, "later").unwrap();
        answers.put(0, &address("b@example.com"), &later, TTL, now);
        let long = Reply::new(550, None, "x".repeat(LONGEST_REPLY + 1)).unwrap();
        answers.put(0, &address("c@example.com"), &long, TTL, now);
        assert_eq!((answers.len(), answers.hits.get(), answers.misses.get()), (1, 1, 3));
    }

    #[test]
    fn the_oldest_goes_where_there_are_too_many_and_what_is_too_old_goes_first() {
        let (answers, now) = (Answers::default(), Instant::now());
        for number in 0..=MOST_ANSWERS {
            answers.put(0, &address(&format!("{number}@example.com")), &no(), TTL, now);
        }
        assert_eq!(answers.len(), MOST_ANSWERS);
        assert_eq!(answers.get(&address("0@example.com"), now), None);
        assert_eq!(answers.get(&address("1@example.com"), now), Some(no()));
        answers.put(0, &address("new@example.com"), &no(), TTL, now + TTL);
        assert_eq!(answers.len(), 1);
    }

    #[test]
    fn an_answer_of_chains_that_were_replaced_is_not_kept() {
        let (answers, now) = (Answers::default(), Instant::now());
        let to = address("a@example.com");
        answers.put(0, &to, &no(), TTL, now);
        assert_eq!(answers.renew(), 1);
        assert!(answers.is_empty());
        answers.put(0, &to, &no(), TTL, now);
        assert!(answers.is_empty());
        answers.put(1, &to, &no(), TTL, now);
        assert_eq!(answers.get(&to, now), Some(no()));
    }
}
