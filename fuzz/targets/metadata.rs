//! libFuzzer's entry to [`millstream_fuzz::metadata`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_fuzz::metadata::run(bytes));
