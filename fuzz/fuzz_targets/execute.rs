//! Fuzz target: bytes as blocks of operations, executed on a populated ledger.

#![no_main]

libfuzzer_sys::fuzz_target!(init: posync_fuzz::seed(), |data: &[u8]| posync_fuzz::run("execute", data));
