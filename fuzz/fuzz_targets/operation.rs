//! Fuzz target: any bytes as an operation.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posync_fuzz::run("operation", data));
