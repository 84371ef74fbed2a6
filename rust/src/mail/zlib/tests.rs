//! The compressed form is what went in, and always the same.

use std::io::Read;

use flate2::read::ZlibDecoder;
use proptest::prelude::*;

fn compress(parts: &[&[u8]]) -> Vec<u8> {
    super::compress(parts).unwrap_or_else(|error| panic!("{error}"))
}

fn inflated(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = ZlibDecoder::new(octets).read_to_end(&mut out);
    assert!(read.is_ok(), "no whole zlib stream: {read:?}");
    out
}

/// Octets that no compressor makes shorter.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..count).map(next).collect()
}

#[test]
fn nothing_is_a_stream_too() {
    let octets = compress(&[]);
    assert_eq!(inflated(&octets), b"");
    assert_eq!(octets, compress(&[b"", b""]));
}

#[test]
fn large_and_incompressible_input_comes_back() {
    for count in [1, 511, 512, 65_535, 65_536, 3_000_000] {
        for input in [noise(count), vec![b'X'; count]] {
            let octets = compress(&[&input]);
            assert!(octets.len() < count + count / 100 + 64, "{} of {count}", octets.len());
            assert!(inflated(&octets) == input, "{count} octets");
        }
    }
}

#[test]
fn text_becomes_shorter() {
    let text = b"Received: from mail.example.org by mx.example.com\r\n".repeat(100);
    assert!(compress(&[&text]).len() < text.len() / 10);
}

proptest! {
    #[test]
    fn every_split_gives_the_same(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3_000), 0..5),
        other in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let octets = compress(&slices);
        prop_assert_eq!(inflated(&octets), parts.concat());
        // Whatever was compressed in between leaves nothing behind.
        compress(&[&other]);
        prop_assert_eq!(&octets, &compress(&[&parts.concat()]));
        let again = std::thread::spawn(move || compress(&[&parts.concat()]));
        prop_assert_eq!(Some(octets), again.join().ok());
    }
}
