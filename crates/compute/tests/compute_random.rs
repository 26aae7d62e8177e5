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
/// Most draws of a module from one seed.
const DRAWS_MAX: u32 = 100;
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
        // The generator would draw references to the host with them. The corpus has instructions of tables.
        reference_types_enabled: false,
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

/// The first module of the profile that a seed gives. It may call the shim with any arguments.
fn drawn(seed: u64) -> Vec<u8> {
    let mut chance = ChaCha20Rng::seed_from_u64(seed);
    let mut config = config();
    config.exports = Some(wat(EXPORTS));
    config.available_imports = Some(wat(IMPORTS));
    let mut bytes = vec![0; BYTES];
    // The generator may draw a second memory beside the exported one, which is refused.
    for _ in 0..DRAWS_MAX {
        chance.fill_bytes(&mut bytes);
        let Ok(module) = Module::new(config.clone(), &mut Unstructured::new(&bytes)) else { continue };
        let module = module.to_bytes();
        if Program::new(&module).is_ok() {
            return module;
        }
    }
    panic!("seed {seed} gives no module of the profile in {DRAWS_MAX} draws");
}

fn seeds() -> Range<u64> {
    let Ok(chosen) = env::var("POSYNC_COMPUTE_SEEDS") else { return 0..GATE };
    let bounds = chosen.split_once("..").expect("seeds have the form A..B");
    bounds.0.parse().expect("a number")..bounds.1.parse().expect("a number")
}

#[test]
fn random_modules_end_equally_on_both_engines() {
    on_engines(|engines| {
        let mut ends = BTreeMap::<&str, u32>::new();
        let mut gas = 0;
        for seed in seeds() {
            let outcome = engines.run(&format!("seed {seed}"), &drawn(seed), &job(GAS));
            let end = match outcome.exit {
                Exit::Code(_) => "exit",
                Exit::Trap(_) => "trap",
                Exit::OutOfGas => "out of gas",
                Exit::OutOfStack => "out of stack",
            };
            *ends.entry(end).or_default() += 1;
            gas += outcome.gas;
        }
        println!("{} modules, {gas} gas: {ends:?}", ends.values().sum::<u32>());
        for end in ["exit", "trap", "out of gas", "out of stack"] {
            assert!(ends.contains_key(end), "no module ends by {end}: {ends:?}");
        }
    });
}
