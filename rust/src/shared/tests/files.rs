//! What a memory file is, and what is none.

use std::io::Write;
use std::os::fd::OwnedFd;

use super::*;

fn trouble(file: impl Into<OwnedFd>) -> String {
    Memory::attach(file.into()).unwrap_err().to_string()
}

fn trouble_after(change: impl FnOnce(&Header)) -> String {
    let memory = Memory::create(2).unwrap();
    change(memory.header());
    trouble(memory.file().unwrap().try_clone_to_owned().unwrap())
}

#[test]
fn what_is_counted_at_one_place_is_seen_at_another() {
    let tenants = processes(2);
    tenants[0].stats().connections_accepted.add_many(3);
    tenants[0].replies().count(b"250 OK\r\n");
    let seen = tenants[1].memory.snapshot(Some(0)).unwrap();
    assert!(seen.contains(&("connections_accepted".to_owned(), 3)));
    assert!(seen.contains(&("replies_250".to_owned(), 1)));
    assert_eq!([0, 1].map(|place| tenants[place].number_connection()), [1, 2]);
}

#[test]
fn a_file_that_can_shrink_is_none_whatever_it_says() {
    let memory = Memory::create(1).unwrap();
    let mut octets = vec![0; memory.layout.size()];
    let file: File = memory.file().unwrap().try_clone_to_owned().unwrap().into();
    file.read_exact_at(&mut octets, 0).unwrap();
    let on_disk = tempfile::tempfile().unwrap();
    let in_memory = rustix::fs::memfd_create("copy", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    for mut copy in [on_disk, in_memory.into()] {
        copy.write_all(&octets).unwrap();
        assert!(trouble(copy).contains("no memory file of guerrilla: it is not sealed"));
    }
    assert!(trouble(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).contains("not sealed"));
}

#[test]
fn a_file_of_somebody_else_or_of_another_build_is_refused() {
    let zero = trouble_after(|header| header.magic.store(0, Ordering::Relaxed));
    assert!(zero.contains("it does not begin as one"));
    let other = trouble_after(|header| header.version.store(VERSION + 1, Ordering::Relaxed));
    assert!(other.contains("another build"));
    for places in [0, 1_025, u64::MAX] {
        let places = trouble_after(|header| header.places.store(places, Ordering::Relaxed));
        assert!(places.contains("no number of processes"));
    }
    let places = trouble_after(|header| header.places.store(3, Ordering::Relaxed));
    assert!(places.contains("should have") && places.contains("damaged"));
    let size = trouble_after(|header| header.size.store(1, Ordering::Relaxed));
    assert!(size.contains("damaged"));
}

#[test]
fn a_place_is_there_and_has_one_tenant() {
    let memory = Memory::create(2).unwrap();
    let none = memory.claim(2).unwrap_err().to_string();
    assert!(none.contains("no place 2 in this memory file: it has 0 to 1"));
    assert!(memory.bury(2).is_err() && memory.snapshot(Some(2)).is_err());
    let first = memory.claim(1).unwrap();
    let taken = attach(&memory).claim(1).unwrap_err().to_string();
    assert!(taken.contains(&format!("that of process {}", std::process::id())));
    drop(first);
    let second = memory.claim(1).unwrap();
    memory.bury(1).unwrap();
    let third = memory.claim(1).unwrap();
    // It was buried: nothing is its to leave.
    second.leave();
    third.leave();
    third.leave();
    assert!(memory.claim(1).is_ok());
    for number in [0, 1_025] {
        assert!(Memory::create(number).unwrap_err().to_string().contains("1 to 1024"));
    }
}

#[test]
fn everything_lies_beside_everything_else_on_pages_of_its_own() {
    for places in [1, 2, 3, 7, 64, 1_024] {
        let layout = Layout::new(places).unwrap();
        let mut end = Layout::counted(places + 1);
        for place in 0..places {
            assert_eq!(layout.tables(place).0, end);
            for kind in Kind::ALL {
                let (offset, count) = layout.table(kind, place);
                assert_eq!((offset, offset % layout::PAGE), (end, 0));
                assert!(count.is_power_of_two());
                end += count * size_of::<Set>();
            }
        }
        assert_eq!(end, layout.size());
        assert!(end <= 90 << 20, "{places}: {end}");
    }
    let size = Layout::new(1).unwrap().size();
    assert!(size <= 30 << 20, "{size}");
}

#[test]
fn what_nobody_touches_takes_no_memory() {
    let memory = Memory::create(64).unwrap();
    let file: File = memory.file().unwrap().try_clone_to_owned().unwrap().into();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
    assert!(blocks * 512 <= 64 << 10, "{blocks}");
}
