//! Modules from seeds: both engines must give the same exit, gas, output and memory.
//!
//! `POSYNC_COMPUTE_SEEDS=A..B` chooses the seeds; the gate runs a few, `cargo xtask outside` a thousand.

mod common;

use arbitrary::Unstructured;
use common::{job, on_engines, wat};
use posync_compute::{Exit, Program};
use rand_chacha::{ChaCha20Rng, rand_core::Rng as _, rand_core::SeedableRng as _};
use std::{collections::BTreeMap, env, ops::Range};
use wasm_smith::{Config, Module};

/// Bytes of chance that a module is drawn from.
const BYTES: usize = 20_000;
const GAS: u64 = 6_000_000;
/// Seeds of the gate.
const GATE: u64 = 60;

const EXPORTS: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";
const IMPORTS: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_readdir" (func (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#;

/// The profile as the generator knows it. It leaves NaNs as they are: the engines must agree on them.
fn config() -> Config {
    Config {
        allow_start_export: false,
        bulk_memory_enabled: true,
        canonicalize_nans: false,
        exceptions_enabled: false,
        gc_enabled: false,
        max_imports: 9,
        max_memories: 1,
        max_memory32_bytes: 4 << 20,
        max_table_elements: 1_000,
        max_tables: 2,
        memory64_enabled: false,
        min_funcs: 3,
        multi_value_enabled: true,
        reference_types_enabled: true,
        relaxed_simd_enabled: false,
        saturating_float_to_int_enabled: true,
        sign_extension_ops_enabled: true,
        simd_enabled: true,
        tail_call_enabled: false,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        custom_page_sizes_enabled: false,
        generate_custom_sections: false,
        ..Config::default()
    }
}

/// A drawn module. It may call the shim with any arguments.
fn drawn(seed: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; BYTES];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    let mut config = config();
    config.reference_types_enabled = seed % 4 == 0;
    config.exports = Some(wat(EXPORTS));
    config.available_imports = Some(wat(IMPORTS));
    Module::new(config, &mut Unstructured::new(&bytes)).ok().map(|module| module.to_bytes())
}

fn seeds() -> Range<u64> {
    let Ok(chosen) = env::var("POSYNC_COMPUTE_SEEDS") else { return 0..GATE };
    let bounds = chosen.split_once("..").expect("seeds have the form A..B");
    bounds.0.parse().expect("a number")..bounds.1.parse().expect("a number")
}

#[test]
fn random_modules_end_equally_on_both_engines() {
    on_engines(|engines| {
        let (mut ends, mut drawn_ones) = (BTreeMap::<&str, u32>::new(), 0);
        for seed in seeds() {
            let Some(module) = drawn(seed) else { continue };
            drawn_ones += 1;
            // References to the host are drawn too, and refused.
            if Program::new(&module).is_err() {
                *ends.entry("refused").or_default() += 1;
                continue;
            }
            let outcome = engines.run(&format!("seed {seed}"), &module, &job(GAS));
            let end = match outcome.exit {
                Exit::Code(_) => "exit",
                Exit::Trap(_) => "trap",
                Exit::OutOfGas => "out of gas",
                Exit::OutOfStack => "out of stack",
            };
            *ends.entry(end).or_default() += 1;
        }
        println!("{drawn_ones} modules: {ends:?}");
        let ran = drawn_ones - ends.get("refused").copied().unwrap_or(0);
        assert!(ran * 2 > drawn_ones, "most of the modules must run: {ends:?}");
        for end in ["exit", "trap"] {
            assert!(ends.contains_key(end), "no module ends by {end}: {ends:?}");
        }
    });
}
