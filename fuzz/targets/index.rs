//! libFuzzer's entry to [`millstream_fuzz::index`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_fuzz::index::run(bytes));
