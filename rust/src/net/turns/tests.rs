#![allow(clippy::unwrap_used)]

use std::cell::Cell;

use super::*;

use load::{Load, MICROSECOND, SECOND, busy, waiting};

mod load;

/// Begins to count on this thread.
pub(in crate::net) fn begin() {
    TURNS.set(Turns { window_number: 1, ..Turns::default() });
}

/// How many connections were heard several times in this window, how many octets there were, and how many replies they got.
pub(in crate::net) fn counted() -> (u64, u64, u64) {
    let window = TURNS.with_borrow(|turns| turns.window);
    (window.connections, window.octets, window.replies)
}

#[test]
fn senders_that_are_busy_get_the_longest_naps() {
    let mut load = Load::new();
    let (_, napped) = load.run(SECOND / 10, 500, busy(60_000.0));
    assert!(napped > 0.5, "{napped} of the first tenth of a second");
    let (rate, napped) = load.run(10 * SECOND, 500, busy(60_000.0));
    assert_eq!(load.turns.nap, LONGEST);
    assert!((59_900.0..60_100.0).contains(&rate), "{rate} replies a second");
    // In 120 of 128 windows, but for 30 µs a turn.
    assert!((0.87..0.9).contains(&napped), "{napped} of the time");
}

/// The rate of so many connections that send a command so many µs after each reply, as a part of that without naps: in the
/// first two seconds, and in a minute after that.
fn kept(connections: u32, between: u32) -> [f64; 2] {
    let without = f64::from(connections) / f64::from(between) * 1e6;
    let mut load = Load::new();
    load.connections = connections.into();
    [2, 60].map(|seconds| {
        let (rate, _) = load.run(seconds * SECOND, 500, waiting(connections, between));
        rate / without
    })
}

#[test]
fn few_connections_that_wait_for_their_replies_lose_nothing() {
    for (connections, between) in
        [(1, 66), (2, 160), (8, 160), (3, 160), (4, 300), (30, 390), (30, 740)]
    {
        let kept = kept(connections, between);
        assert!(kept.iter().all(|kept| *kept > 0.99), "{kept:?} for {connections}");
    }
}

#[test]
fn a_slow_moment_of_few_connections_does_not_bring_them_naps() {
    // Twenty that are fast, and eight others in each window. Every tenth of a second they all are slow for a window.
    let time = Cell::new(Duration::ZERO);
    let uneven = |nap: Duration| {
        let is_slow = time.get().as_millis() % 100 < 5;
        let took = nap + if is_slow { 1_000 } else { 200 } * MICROSECOND;
        time.set(time.get() + took);
        (took, 20.0)
    };
    let mut load = Load::new();
    (load.connections, load.once) = (20, 8);
    let (_, napped) = load.run(20 * SECOND, 500, uneven);
    assert!(napped == 0.0, "{napped} of the time");
}

#[test]
fn connections_that_wait_lose_less_than_a_naps_share_of_their_time() {
    // Here all of them wait for the whole nap; where each comes at its own time, it is half of that.
    let least = 1.0 - 1.0 / f64::from(SHARE + 1);
    for (connections, between) in [(30, 2_900), (30, 1_700)] {
        let kept = kept(connections, between);
        assert!(kept.iter().all(|kept| (least..0.97).contains(kept)), "{kept:?} at {between}");
    }
}

#[test]
fn naps_that_cost_more_than_a_quarter_end() {
    // Twenty at a time, of which each is another one for every fifth reply.
    let mut load = Load::new();
    load.connections = 25;
    load.run(2 * SECOND, 500, waiting(20, 700));
    let (rate, _) = load.run(60 * SECOND, 500, waiting(20, 700));
    assert!(rate > 0.97 * 28_571.0, "{rate} replies a second");
}

#[test]
fn naps_that_leave_too_little_for_a_load_end() {
    // 3,077 replies a second with the longest.
    let mut load = Load::new();
    let (rate, _) = load.run(60 * SECOND, 500, waiting(2, 160));
    assert!(rate > 0.97 * 12_500.0, "{rate} replies a second");
}

#[test]
fn a_doubt_passes_with_a_good_trial() {
    let rate = |replies| Tally { replies, time: SECOND, ..Tally::default() };
    let mut turns = Turns { allowed: LONGEST, ..Turns::default() };
    let mut judge = |napping| {
        turns.awake = rate(60_000);
        turns.napping = rate(napping);
        turns.judge();
        (turns.is_doubted, turns.nap)
    };
    assert_eq!(judge(44_000), (true, LONGEST));
    assert_eq!(judge(46_000), (false, LONGEST));
    assert_eq!(judge(44_000), (true, LONGEST));
    assert_eq!(judge(44_000), (false, LONGEST / 2));
    // There is no doubt about so much.
    assert_eq!(judge(39_000), (false, Duration::ZERO));
}

#[test]
fn some_that_wait_among_many_slow_ones_lose_nothing() {
    // Eight that are fast, and in each window fifty others.
    let mut load = Load::new();
    (load.connections, load.once) = (8, 50);
    let (_, napped) = load.run(20 * SECOND, 500, mixed);
    assert!(napped == 0.0, "{napped} of the time");
}

/// Eight connections that wait for each reply, and 10,000 replies a second for others.
fn mixed(nap: Duration) -> (Duration, f64) {
    let took = nap + 160 * MICROSECOND;
    (took, 8.0 + 10_000.0 * took.as_secs_f64())
}

#[test]
fn some_that_wait_among_many_lose_little() {
    // Where the others are read several times in a window, too, their mean says nothing about the eight.
    let mut load = Load::new();
    load.connections = 58;
    load.run(2 * SECOND, 500, mixed);
    let (rate, _) = load.run(60 * SECOND, 500, mixed);
    assert!(rate > 0.95 * 60_000.0, "{rate} replies a second");
}

#[test]
fn connections_that_are_all_slow_bear_the_longest_naps() {
    // Each is elsewhere: it says something in every second window. A few are faster.
    let mut load = Load::new();
    (load.connections, load.once) = (4, 280);
    let (_, napped) = load.run(SECOND, 500, busy(60_000.0));
    assert!(napped > 0.8, "{napped} of the time");
}

#[test]
fn who_begins_to_wait_loses_for_two_seconds() {
    let mut load = Load::new();
    load.run(5 * SECOND, 500, busy(60_000.0));
    // They are heard as if they were a hundred, as those that come for one mail each are.
    let (rate, _) = load.run(2 * SECOND, 500, waiting(8, 160));
    assert!(rate > 0.65 * 50_000.0, "{rate} replies a second in the first two");
    let (rate, _) = load.run(2 * SECOND, 500, waiting(8, 160));
    assert!(rate > 0.85 * 50_000.0, "{rate} replies a second in the next");
    load.run(60 * SECOND, 500, waiting(8, 160));
    assert_eq!(load.turns.pause, LONGEST_PAUSE);
    // And the other way round: as long as the pause was.
    load.run(12 * SECOND, 500, busy(60_000.0));
    assert_eq!((load.turns.nap, load.turns.pause), (LONGEST, 0));
}

#[test]
fn naps_that_are_found_too_long_at_once_cost_no_more_than_a_moment() {
    // The first load of all is of a few that come for one mail each, and wait.
    let mut load = Load::new();
    let (rate, _) = load.run(2 * SECOND, 500, waiting(8, 160));
    assert!(rate > 0.85 * 50_000.0, "{rate} replies a second in the first two");
}

#[test]
fn doubtful_naps_are_tried_for_half_of_the_time() {
    let mut load = Load::new();
    load.turns.is_doubted = true;
    let (_, napped) = load.run(48 * WINDOW, 500, busy(60_000.0));
    assert!((0.4..0.5).contains(&napped), "{napped} of the time");
}

#[test]
fn what_a_change_of_naps_makes_senders_do_is_not_judged() {
    // They open connections when naps begin, and finish those that they have when there are none.
    let (napped, since) = (Cell::new(false), Cell::new(Duration::ZERO));
    let opening = |nap: Duration| {
        let took = nap + 30 * MICROSECOND;
        if napped.replace(!nap.is_zero()) == nap.is_zero() {
            since.set(Duration::ZERO);
        }
        since.set(since.get() + took);
        let rate = match (since.get() < 3 * WINDOW, nap.is_zero()) {
            (true, true) => 200_000.0,
            (true, false) => 8_000.0,
            (false, _) => 60_000.0,
        };
        (took, rate * took.as_secs_f64())
    };
    let mut load = Load::new();
    load.run(10 * SECOND, 500, opening);
    assert_eq!((load.turns.nap, load.turns.pause), (LONGEST, 0));
}

#[test]
fn the_end_of_a_burst_is_no_loss() {
    let mut load = Load::new();
    for _ in 0..8 {
        load.run(3 * SECOND / 2, 500, busy(60_000.0));
        load.run(3 * SECOND / 2, 500, busy(900.0));
    }
    assert_eq!((load.turns.nap, load.turns.pause), (LONGEST, 0));
}

#[test]
fn too_little_without_naps_is_not_theirs() {
    let mut load = Load::new();
    load.run(3 * WINDOW, 500, busy(60_000.0));
    load.run(2 * WINDOW, 500, busy(900.0));
    load.run(6 * WINDOW, 500, busy(60_000.0));
    assert!(load.turns.napping.is_empty());
    assert!(!load.turns.awake.is_empty());
}

#[test]
fn a_load_that_is_just_one_is_judged_by_all_of_its_windows() {
    let time = Cell::new(Duration::ZERO);
    let uneven = |nap: Duration| {
        let is_high = time.get().as_millis() % 40 < 10;
        let took = nap + 30 * MICROSECOND;
        time.set(time.get() + took);
        (took, if is_high { 10_500.0 } else { 7_000.0 } * took.as_secs_f64())
    };
    let mut load = Load::new();
    let (_, napped) = load.run(60 * SECOND, 500, uneven);
    assert_eq!((load.turns.nap, load.turns.pause), (LONGEST, 0));
    assert!(napped > 0.8, "{napped} of the time");
}

#[test]
fn many_replies_to_few_reads_are_no_load() {
    // LMTP with fifty recipients a mail, pipelined.
    let mut load = Load::new();
    (load.connections, load.replies_a_read) = (1, 50);
    let (_, napped) = load.run(SECOND, 500, busy(40_000.0));
    assert!(napped == 0.0, "{napped} of the time");
}

#[test]
fn a_fast_one_among_slow_ones_loses_nothing() {
    let mixed = |nap: Duration| {
        let took = nap + 160 * MICROSECOND;
        (took, 1.0 + 24_000.0 * took.as_secs_f64())
    };
    let mut load = Load::new();
    (load.connections, load.once) = (1, 120);
    let (_, napped) = load.run(SECOND, 500, mixed);
    assert!(napped == 0.0, "{napped} of the time");
}

#[test]
fn bursts_are_judged_when_they_are_over() {
    let mut load = Load::new();
    for _ in 0..8 {
        // Heard as if they were a hundred; 27 of a hundred replies are lost by the longest naps.
        load.run(SECOND / 5, 500, waiting(30, 1_350));
        load.run(3 * SECOND / 2, 500, busy(900.0));
    }
    assert!(load.turns.pause > 0 && load.turns.nap < LONGEST, "{:?}", load.turns);
}

#[test]
fn a_peak_of_what_is_just_no_load_does_not_bring_naps_for_good() {
    // Two that take 160 µs, or 230: 8,696 replies a second, and peaks of 12,500.
    let time = Cell::new(Duration::ZERO);
    let peaks = |nap: Duration| {
        let is_high = time.get().as_millis() % 100 < 8;
        let took = nap + if is_high { 160 } else { 230 } * MICROSECOND;
        time.set(time.get() + took);
        (took, 2.0)
    };
    let mut load = Load::new();
    load.run(10 * SECOND, 500, peaks);
    assert_eq!(load.turns.nap, Duration::ZERO);
}

#[test]
fn a_trial_without_naps_tells_nothing() {
    let mut load = Load::new();
    load.turns.nap = LONGEST / 2;
    load.turns.rest = LONGEST_PAUSE;
    load.connections = 8;
    load.run(10 * SECOND, 500, waiting(8, 160));
    assert_eq!((load.turns.nap, load.turns.rest), (LONGEST / 2, LONGEST_PAUSE));
}

#[test]
fn a_thread_that_is_never_idle_does_not_nap() {
    // Its senders are faster than it is, and a nap is all time lost.
    for connections in [8, 100, 400, 1_000] {
        let full = |nap: Duration| (nap + 8 * connections * MICROSECOND, f64::from(connections));
        let mut load = Load::new();
        load.connections = connections.into();
        load.waits = false;
        let (_, napped) = load.run(60 * SECOND, 500, full);
        // What is small beside a long turn would not show in the rate.
        assert!(napped == 0.0, "{napped} of the time for {connections}");
    }
    // Thirty with TLS: a nap would be less than a third of what lies between two replies, and cost less than a quarter.
    let mut load = Load::new();
    load.connections = 30;
    load.waits = false;
    let (_, napped) = load.run(60 * SECOND, 500, |nap| (nap + 30 * 60 * MICROSECOND, 30.0));
    assert!(napped == 0.0, "{napped} of the time");
}

#[test]
fn without_load_there_is_no_nap() {
    let mut load = Load::new();
    let (_, napped) = load.run(5 * SECOND, 500, busy(9_000.0));
    assert!(napped == 0.0, "{napped} of the time");
    let (_, napped) = load.run(SECOND, 500, busy(60_000.0));
    assert!(napped > 0.8, "{napped} of the time");
    // The load has ended, for some windows or for good; what comes then is not kept waiting.
    load.now += 2 * WINDOW;
    load.turns.window.replies += 1_000;
    assert_eq!(load.turns.end_turn(load.now), Duration::ZERO);
    load.now += GAP;
    assert_eq!(load.turns.end_turn(load.now), Duration::ZERO);
    assert_eq!(load.turns.windows, 0);
    assert!(load.turns.awake.is_empty() && load.turns.napping.is_empty());
    let (_, napped) = load.run(SECOND, 500, busy(100.0));
    assert!(napped == 0.0, "{napped} of the time");
}

#[test]
fn a_connection_counts_once_in_each_window_in_which_it_is_read_again() {
    begin();
    let mut heard = [Heard::default(), Heard::default(), Heard::default()];
    let [first, second, third] = &mut heard;
    for (heard, octets) in [(first, 1), (second, 2)] {
        for _ in 0..3 {
            heard.octets(octets);
        }
    }
    third.octets(3);
    let reads = || TURNS.with_borrow(|turns| (turns.window.reads, turns.window.rereads));
    assert_eq!((counted(), reads()), ((2, 12, 0), (7, 4)));
    TURNS.with_borrow_mut(|turns| turns.window_number += 1);
    for _ in 0..2 {
        third.octets(1);
    }
    assert_eq!((counted(), reads()), ((3, 14, 0), (9, 5)));
}

#[test]
fn what_comes_during_a_nap_fits_the_cache() {
    let longest = Cell::new(Duration::ZERO);
    let turn = busy(60_000.0);
    // 450 MB/s: 131,072 octets in 291 µs.
    Load::new().run(2 * SECOND, 7_500, |nap| {
        longest.set(nap.max(longest.get()));
        turn(nap)
    });
    let longest = longest.get();
    assert!((270 * MICROSECOND..320 * MICROSECOND).contains(&longest), "{longest:?}");
    let mut load = Load::new();
    let (_, napped) = load.run(2 * SECOND, 25_000, busy(60_000.0));
    assert!(napped == 0.0, "{napped} of the time");
}

#[test]
fn a_turn_ends_with_a_nap() {
    let now = Instant::now();
    let napping = Turns {
        began: Some(now),
        is_napping: true,
        nap: LONGEST,
        allowed: SECOND,
        ..Turns::default()
    };
    TURNS.set(napping);
    end_turn();
    // What the system adds is no promise.
    assert!(now.elapsed() >= LONGEST.saturating_sub(SLACK), "{:?}", now.elapsed());
}

#[test]
fn the_runtime_ends_turns() {
    begin();
    let naps = runtime().unwrap().block_on(async {
        let began = Instant::now();
        let is_napping = || TURNS.with_borrow(|turns| turns.is_napping);
        while !is_napping() && began.elapsed() < 20 * SECOND {
            replied(30);
            (0..40).for_each(|_| Heard::default().octets(1));
            tokio::time::sleep(MICROSECOND).await;
        }
        is_napping()
    });
    assert!(naps, "not once");
}
