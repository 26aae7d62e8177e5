//! Fuzz target: any bytes as a record of every kind.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posync_fuzz::run("record", data));
