//! libFuzzer's entry to [`millstream_fuzz::amqp_connection`].
#![no_main]
#![allow(clippy::disallowed_methods, reason = "libFuzzer's macro writes its own files")]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_fuzz::amqp_connection::run(bytes));
