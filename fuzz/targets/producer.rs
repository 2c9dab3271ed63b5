//! libFuzzer's entry to [`millstream_fuzz::producer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_fuzz::producer::run(bytes));
