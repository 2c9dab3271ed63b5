//! libFuzzer's entry to [`millstream_fuzz::partition`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_fuzz::partition::run(bytes));
