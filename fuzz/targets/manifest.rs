//! libFuzzer's entry to [`millstream_fuzz::manifest`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_fuzz::manifest::run(bytes));
