//! What stands between 354 and the end: CRLF.CRLF ends it and nothing else does, `keep` stores what was sent after
//! unstuffing, `fix` has no bare CR or LF left; whole, octet by octet, cut, and in a file.

use super::driver::{Received, cut, files, memory, receive};
use super::oracle::{EOM, POLICIES, cut_at_the_end, has_bare_newline, stuff, unstuff, with_crlf};
use guerrilla::smtp::{BareNewline, Ending};

/// Checks one input: the first octet says by which policy, how the rest is cut, and whether it goes to a file.
pub fn check(input: &[u8]) {
    let Some((&how, octets)) = input.split_first() else { return };
    let policy = POLICIES[usize::from(how) % POLICIES.len()];
    let received = receive_each_way(policy, octets, how);
    let ended = [octets, EOM].concat();
    let (message, rest) = cut_at_the_end(&ended).expect("an end is there");
    let whole = receive(memory(), policy, &[&ended]);
    check_message(policy, &whole, &message, rest);
    if let Some((message, rest)) = cut_at_the_end(octets) {
        check_message(policy, &received, &message, rest);
    } else {
        assert_eq!((received.left, received.ending), (0, Ending::Open));
        assert!(whole.stored.starts_with(&received.stored), "what is stored stays");
    }
}

fn receive_each_way(policy: BareNewline, octets: &[u8], how: u8) -> Received {
    let whole = receive(memory(), policy, &[octets]);
    let pieces: Vec<&[u8]> = octets.chunks(1).collect();
    assert_eq!(receive(memory(), policy, &pieces), whole, "octet by octet, {policy:?}");
    let sizes = [1 + usize::from(how % 16), 1 + usize::from(how / 16)];
    let pieces = cut(octets, &sizes);
    assert_eq!(receive(memory(), policy, &pieces), whole, "cut at {sizes:?}, {policy:?}");
    if how % 8 == 7 {
        assert_eq!(receive(files(), policy, &pieces), whole, "in a file, {policy:?}");
    }
    whole
}

fn check_message(policy: BareNewline, received: &Received, message: &[u8], rest: &[u8]) {
    assert_eq!((received.left, received.ending), (rest.len(), Ending::Complete));
    let kept = unstuff(message);
    assert_eq!(received.bare_newline, has_bare_newline(&kept), "{policy:?}");
    let expected = if policy == BareNewline::Fix { with_crlf(&kept) } else { kept };
    assert_eq!(received.stored, expected, "{policy:?}");
    // Sent once more it is the same again, and by then there is nothing to fix.
    let again = receive(memory(), policy, &[&stuff(&expected)]);
    assert_eq!(again.stored, expected, "{policy:?}");
    assert!(policy != BareNewline::Fix || !again.bare_newline);
}
