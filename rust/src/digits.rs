//! Numbers of a known length, as texts that are made for each message have them: without the machinery of `fmt`.

/// Writes a number with leading zeros; `first` is the power of ten of its first digit.
pub(crate) fn push_digits(out: &mut String, number: u64, first: u64) {
    let mut divisor = first;
    while divisor > 0 {
        let digit = u8::try_from(number / divisor % 10).unwrap_or(0);
        out.push(char::from(b'0' + digit));
        divisor /= 10;
    }
}
