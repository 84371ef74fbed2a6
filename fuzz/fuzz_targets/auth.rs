#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| guerrilla_fuzz::auth::check(input));
