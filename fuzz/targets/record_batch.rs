//! libFuzzer's entry to [`millstream_fuzz::record_batch`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_fuzz::record_batch::run(bytes));
