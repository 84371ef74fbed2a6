//! Changes of several words.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use super::sequence::{PATIENCE, Sequence};
use super::*;

#[test]
fn nobody_sees_half_of_a_change() {
    let sequence = Sequence::default();
    let words: [AtomicU64; 64] = std::array::from_fn(|_| AtomicU64::new(0));
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                sequence.write(|| {
                    for word in &words {
                        word.store(number, Ordering::Relaxed);
                    }
                });
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                // Whoever looks needs time for it.
                (0..200).for_each(|_| std::hint::spin_loop());
            }
        });
        let look = || words.each_ref().map(|word| word.load(Ordering::Relaxed));
        // A change whose thread is not given its turn is waited for in vain.
        let looks = (0..20_000).filter_map(|_| sequence.read(PATIENCE, look));
        let halves = looks.filter(|(_, words)| words.iter().any(|word| *word != words[0])).count();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(halves, 0);
    });
}

#[test]
fn a_change_that_does_not_end_is_not_waited_for_without_end() {
    let sequence = Sequence::default();
    assert_eq!((sequence.last(), sequence.read(PATIENCE, || 7)), (Some(0), Some((0, 7))));
    let _ = std::panic::catch_unwind(|| sequence.write(|| panic!("killed")));
    assert_eq!((sequence.last(), sequence.read(PATIENCE, || 7)), (None, None));
    sequence.write(|| ());
    assert_eq!((sequence.last(), sequence.read(PATIENCE, || 7)), (Some(2), Some((2, 7))));
}
