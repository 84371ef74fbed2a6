//! Tickets of one process at another.

use rustls::server::ProducesTickets;

use super::sequence::PATIENCE;
use super::*;

fn tickets(memory: &Arc<Memory>, server: &str, roots: &str) -> Arc<Tickets> {
    Tickets::new(memory, &[server.as_bytes(), roots.as_bytes()]).unwrap()
}

#[test]
fn one_is_good_at_every_process_for_the_same_server_and_roots() {
    let made = Memory::create(2).unwrap();
    let (one, two) = (attach(&made), attach(&made));
    let (here, there) = (tickets(&one, "mx", "roots"), tickets(&two, "mx", "roots"));
    assert!(here.enabled() && here.lifetime() == 12 * 3_600);
    let ticket = here.encrypt(b"state").unwrap();
    assert!(!ticket.windows(5).any(|octets| octets == b"state"));
    assert_eq!(there.decrypt(&ticket).unwrap(), b"state");
    assert_ne!(here.encrypt(b"state").unwrap(), ticket);
    for (server, roots) in [("other", "roots"), ("mx", "other"), ("mxr", "oots"), ("", "mxroots")] {
        assert_eq!(tickets(&two, server, roots).decrypt(&ticket), None);
    }
    assert_eq!(tickets(&Memory::create(2).unwrap(), "mx", "roots").decrypt(&ticket), None);
    assert!(!format!("{here:?}").contains("key"));
}

#[test]
fn one_that_was_changed_or_cut_is_none() {
    let tickets = tickets(&Memory::create(1).unwrap(), "mx", "");
    let ticket = tickets.encrypt(b"state").unwrap();
    assert!((0..ticket.len()).all(|length| tickets.decrypt(&ticket[..length]).is_none()));
    for at in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[at] ^= 1;
        assert_eq!(tickets.decrypt(&changed), None);
    }
    assert_eq!(tickets.decrypt(&tickets.encrypt(b"").unwrap()).unwrap(), b"");
}

#[test]
fn one_outlives_a_rotation_and_no_two() {
    let made = Memory::create(2).unwrap();
    let (here, there) = (tickets(&attach(&made), "mx", ""), tickets(&attach(&made), "mx", ""));
    let first = here.encrypt(b"state").unwrap();
    made.rotate_tickets().unwrap();
    assert!(there.decrypt(&first).is_some());
    let second = there.encrypt(b"state").unwrap();
    assert_ne!(first[..16], second[..16]);
    made.rotate_tickets().unwrap();
    assert_eq!(here.decrypt(&first), None);
    assert!(here.decrypt(&second).is_some());
}

#[test]
fn a_rotation_that_was_left_in_the_middle_leaves_the_keys_before_it() {
    let made = Memory::create(1).unwrap();
    let tickets = tickets(&made, "mx", "");
    let before = tickets.encrypt(b"state").unwrap();
    let _ = std::panic::catch_unwind(|| made.header().rotations.write(|| panic!("killed")));
    assert!(made.secrets(PATIENCE).is_none());
    assert_eq!(tickets.encrypt(b"state").unwrap()[..16], before[..16]);
    assert!(tickets.decrypt(&before).is_some());
    assert!(Tickets::new(&made, &[b"new"]).is_err());
    made.rotate_tickets().unwrap();
    assert_ne!(tickets.encrypt(b"state").unwrap()[..16], before[..16]);
}
