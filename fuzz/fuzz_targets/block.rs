//! Fuzz target: any bytes as the parts of a block.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posync_fuzz::run("block", data));
