#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| guerrilla_fuzz::rfc2047::check(input));
