#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::budget::{FIRST, SMALLEST};
use super::*;

#[test]
fn octets_are_counted_from_first_to_last() {
    let budget = Budget::new(1 << 20);
    let mut body = Body::take(&budget, None, 0).unwrap();
    assert_eq!(budget.used(), FIRST as u64);
    body.push(&vec![b'x'; FIRST + 1]);
    assert_eq!(budget.used(), 2 * FIRST as u64);
    body.release();
    body.release();
    assert_eq!((budget.used(), budget.retained()), (0, 2 * FIRST as u64));
    assert_eq!(body.as_slice().len(), FIRST + 1);
    drop(body);
    assert_eq!((budget.used(), budget.retained()), (0, 0));
}

#[test]
fn a_step_that_cannot_be_had_drops_the_body_and_frees_its_octets() {
    let budget = Budget::new(100 << 10);
    let mut body = Body::take(&budget, None, 0).unwrap();
    assert!(Body::take(&budget, None, 0).is_none());
    let small = Body::take(&budget, Some(1), 0).unwrap();
    assert_eq!(budget.used(), (FIRST + SMALLEST) as u64);
    drop(small);
    body.push(&vec![b'x'; FIRST]);
    assert_eq!(body.fault(), None);
    body.push(b"y");
    assert_eq!((body.fault(), body.as_slice().len(), budget.used()), (Some(Fault::NoMemory), 0, 0));
    body.push(b"z");
    assert!(body.as_slice().is_empty());
}

#[test]
fn a_pooled_buffer_counts_with_all_it_grew_to() {
    let budget = Budget::new(1 << 20);
    let mut grown = Body::take(&budget, None, 0).unwrap();
    grown.push(&vec![b'x'; 3 * FIRST]);
    let counted = budget.used();
    drop(grown);
    let again = Body::take(&budget, None, 0).unwrap();
    assert_eq!(budget.used(), counted);
    drop(again);
    // Where the budget has no room for the rest, a new one is taken.
    let filler = Body::take(&Budget::new(1 << 20), None, 0).unwrap();
    assert!(budget.reserve_first(900 << 10));
    let small = Body::take(&budget, None, 0).unwrap();
    assert_eq!(budget.used(), (900 << 10) + FIRST as u64);
    drop((small, filler));
}

#[test]
fn a_body_grows_into_the_buffer_of_one_that_was_as_large() {
    let budget = Budget::new(64 << 20);
    let large = |octet| {
        let mut body = Body::take(&budget, None, 0).unwrap();
        (0..16).for_each(|_| body.push(&vec![octet; FIRST]));
        assert!(body.as_slice().iter().all(|&one| one == octet));
        body
    };
    let first = large(b'x');
    let (pointer, counted) = (first.as_slice().as_ptr(), budget.used());
    drop(first);
    let second = large(b'y');
    assert_eq!((second.as_slice().as_ptr(), budget.used()), (pointer, counted));
    // It is no first step's, and none of more than the budget has.
    let small = Body::take(&budget, None, 0).unwrap();
    assert!(budget.used() < counted + (1 << 20));
    drop((second, small));
    // Nor is it taken where the budget has no room for all of it.
    assert!(budget.reserve_first((47 << 20) + (256 << 10)));
    let mut third = Body::take(&budget, None, 0).unwrap();
    third.push(&vec![b'z'; 8 * FIRST]);
    assert_eq!((third.fault(), third.reserved()), (None, 8 * FIRST));
}

#[test]
fn of_large_buffers_an_eighth_of_the_budget_is_kept() {
    let budget = Budget::new(64 << 20);
    let grown = || {
        let mut body = Body::take(&budget, None, 0).unwrap();
        body.push(&vec![b'x'; 3 << 20]);
        body
    };
    drop([(); 5].map(|()| grown()));
    let kept: Vec<_> = std::iter::from_fn(|| budget.take_large(3 << 20)).collect();
    assert_eq!(kept.len(), 2);
}

#[test]
fn an_envelope_counts_beside_its_message() {
    let budget = Budget::new(1 << 20);
    let mut body = Body::take(&budget, Some(1), 0).unwrap();
    body.cover(10_000);
    assert_eq!(budget.used(), (SMALLEST + 10_000) as u64);
    body.release();
    assert_eq!(budget.retained(), (SMALLEST + 10_000) as u64);
    drop(body);
    assert_eq!((budget.used(), budget.retained()), (0, 0));
    let mut body = Body::take(&budget, None, 0).unwrap();
    body.cover(1 << 20);
    assert_eq!((body.fault(), budget.used()), (Some(Fault::NoMemory), 0));
}

#[test]
fn growth_leaves_room_for_first_steps() {
    let budget = Budget::new(1 << 20);
    let mut body = Body::take(&budget, None, 0).unwrap();
    body.push(&vec![b'x'; 700 << 10]);
    assert_eq!(body.fault(), None);
    let mut second = Body::take(&budget, None, 0).unwrap();
    second.push(&vec![b'x'; FIRST + 1]);
    assert_eq!(second.fault(), Some(Fault::NoMemory));
    assert!(Body::take(&budget, None, 0).is_some());
}

#[test]
fn over_the_limit_is_dropped_and_at_the_limit_is_kept() {
    let budget = Budget::new(1 << 20);
    let mut body = Body::take(&budget, None, 100).unwrap();
    body.push(&[b'x'; 100]);
    assert_eq!(body.fault(), None);
    body.push(b"x");
    assert_eq!((body.fault(), budget.used()), (Some(Fault::TooLarge), 0));
}

#[test]
fn a_reused_buffer_carries_nothing_of_the_last_client() {
    let budget = Budget::new(1 << 20);
    let mut first = Body::take(&budget, None, 0).unwrap();
    first.push(b"secret");
    first.set_header_end(Some(3));
    let pointer = first.as_slice().as_ptr();
    drop(first);
    let mut second = Body::take(&budget, None, 0).unwrap();
    assert!(second.as_slice().is_empty());
    assert_eq!(second.header_end(), None);
    second.push(b"x");
    assert_eq!(second.as_slice(), b"x");
    assert_eq!(
        second.as_slice().as_ptr(),
        pointer,
        "the test shows nothing unless the buffer was reused"
    );
}

#[test]
fn a_waiter_is_told_of_a_release() {
    let budget = Budget::new(FIRST as u64);
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    budget.on_release(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    drop(Body::take(&budget, None, 0).unwrap());
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let _waiting = budget.wait();
    drop(Body::take(&budget, None, 0).unwrap());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
