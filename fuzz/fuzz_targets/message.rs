//! Fuzz target: any bytes as a message of every service.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posync_fuzz::run("message", data));
