//! Which octets of a message are stored as they are: the one thing that is done with each octet.
//!
//! Blocks are judged by the compiler's own SIMD, of the least that a processor of this kind has. Where it has AVX2 the
//! same code is there a second time, compiled for that: half the instructions, and half the time.
//!
//! `unsafe` is needed here to call what is compiled for AVX2.

#![allow(unsafe_code)]

/// Octets that are judged at once, each with the one before it: a power of two, so that the compiler makes SIMD
/// compares of them with none left over.
const BLOCK: usize = 256;
/// As many are judged at once where a block is not plain, so that few are looked at one by one.
pub(super) const SMALL_BLOCK: usize = 32;

/// How many octets from `at` on, in whole blocks, are stored as they are, behind the one before them: no bare newline,
/// no dot behind a newline.
pub(super) fn plain_blocks(all: &[u8], at: usize) -> usize {
    let Some(befores) = at.checked_sub(1).and_then(|before| all.get(before..)) else { return 0 };
    let octets = all.get(at..).unwrap_or_default();
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has AVX2, and that is all the function asks for.
        return unsafe { plain_by_avx2(befores, octets) };
    }
    plain(befores, octets)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn plain_by_avx2(befores: &[u8], octets: &[u8]) -> usize {
    plain(befores, octets)
}

#[inline(always)]
fn plain(befores: &[u8], octets: &[u8]) -> usize {
    let large = plain_in::<BLOCK>(befores, octets);
    let (befores, octets) = (befores.get(large..), octets.get(large..));
    large + plain_in::<SMALL_BLOCK>(befores.unwrap_or_default(), octets.unwrap_or_default())
}

#[inline(always)]
fn plain_in<const SIZE: usize>(befores: &[u8], octets: &[u8]) -> usize {
    let mut length = 0;
    for (befores, octets) in befores.as_chunks::<SIZE>().0.iter().zip(octets.as_chunks::<SIZE>().0)
    {
        let mut odd = 0;
        for (&before, &octet) in befores.iter().zip(octets) {
            odd |= is_odd(before, octet);
        }
        if odd != 0 {
            break;
        }
        length += SIZE;
    }
    length
}

/// Not 0 where the octet cannot be stored as it is, whatever stood before the one before it. Arithmetic, so that
/// a block is judged without a branch an octet.
#[inline(always)]
fn is_odd(before: u8, octet: u8) -> u8 {
    let half_a_newline = u8::from(before == b'\r') ^ u8::from(octet == b'\n');
    let leading_dot = u8::from(before == b'\n') & u8::from(octet == b'.');
    half_a_newline | leading_dot
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of octets that means something, at every place of a block and across its borders, is seen by both.
    #[test]
    fn with_avx2_and_without_the_same_is_plain() {
        const MEANT: [u8; 5] = [b'\r', b'\n', b'.', 0, 0x8d];
        for at in 1..2 * BLOCK + 2 * SMALL_BLOCK {
            for (before, octet) in MEANT.iter().flat_map(|a| MEANT.iter().map(move |b| (*a, *b))) {
                let mut all = vec![b'x'; 2 * BLOCK + 2 * SMALL_BLOCK + 9];
                for (place, octet) in all.iter_mut().skip(at - 1).zip([before, octet]) {
                    *place = octet;
                }
                let found = plain_blocks(&all, 1);
                let (befores, octets) =
                    (all.get(..).unwrap_or_default(), all.get(1..).unwrap_or_default());
                assert_eq!(found, plain(befores, octets), "{before} {octet} at {at}");
                let odd = befores.iter().zip(octets).position(|(&a, &b)| is_odd(a, b) != 0);
                let odd = odd.unwrap_or(octets.len());
                assert!(found <= odd && odd < found + SMALL_BLOCK, "{before} {octet} at {at}");
            }
        }
    }
}
