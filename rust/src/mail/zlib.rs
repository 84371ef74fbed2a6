//! The compressed form of a message (RFC 1950), for stores that count their octets.

use std::cell::RefCell;

use flate2::{Compress, CompressError, Compression, FlushCompress, Status};

/// Room that the output has at each step: less would only make more steps.
const STEP: usize = 512;

thread_local! {
    // Making its tables costs as much as compressing a small message.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), true));
}

/// The parts one after the other as one zlib stream, at the fastest level: the same parts give the
/// same octets each time, however they are split.
///
/// # Errors
///
/// None is known: the compressor reports what only a faulty caller or a fault of its own can bring.
pub fn compress(parts: &[&[u8]]) -> Result<Vec<u8>, CompressError> {
    let size: usize = parts.iter().map(|part| part.len()).sum();
    // Text becomes a third, what is compressed or encoded already stays about as long.
    let mut out = Vec::with_capacity(size / 3 + STEP);
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        for part in parts {
            feed(compressor, part, FlushCompress::None, &mut out)?;
        }
        feed(compressor, &[], FlushCompress::Finish, &mut out)
    })?;
    Ok(out)
}

/// Takes the whole of `input`; with `Finish`, until the stream has ended.
fn feed(
    compressor: &mut Compress,
    mut input: &[u8],
    flush: FlushCompress,
    out: &mut Vec<u8>,
) -> Result<(), CompressError> {
    let finishes = matches!(flush, FlushCompress::Finish);
    let mut ended = false;
    while !input.is_empty() || (finishes && !ended) {
        if out.capacity() - out.len() < STEP {
            out.reserve(out.len() / 2 + STEP);
        }
        let before = compressor.total_in();
        ended = compressor.compress_vec(input, out, flush)? == Status::StreamEnd;
        let taken = usize::try_from(compressor.total_in() - before).unwrap_or(usize::MAX);
        input = input.get(taken..).unwrap_or(&[]);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
