#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| guerrilla_fuzz::mime::check(input));
