//! libFuzzer's entry to [`millstream_fuzz::sum`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_fuzz::sum::run(bytes));
