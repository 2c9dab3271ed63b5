//! libFuzzer's entry to [`millstream_fuzz::canary`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_fuzz::canary::run(bytes));
