//! The hostile corpus: programs that trap, never end, fill what can be filled, and probe every bound.
//!
//! `corpus/outcomes.txt` records how each ends, its gas, and its memory and output. The record is part of the
//! profile: a change of it changes the results of jobs. `CONFORMANCE=write` writes it anew.

mod common;

use common::{Engines, job, on_engines, wat};
use posync_compute::{Exit, limits};
use std::{env, fmt::Write as _, fs, path::Path};

const GAS: u64 = 10_000_000;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("the corpus is there") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "wat") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let module = wat::parse_file(&path).unwrap_or_else(|error| panic!("{error}"));
            all.push((name, module));
        }
    }
    all.sort();
    all
}

fn outcomes(engines: &Engines) -> String {
    let mut text = String::new();
    for (name, module) in corpus() {
        let outcome = engines.run(&name, &module, &job(GAS));
        let hash = blake3::Hash::from(outcome.memory).to_hex();
        let output = blake3::Hash::from(outcome.output_hash()).to_hex();
        writeln!(
            text,
            "{name}: {}, gas {}, stdout {}, stderr {}, memory {}, output {}",
            outcome.exit,
            outcome.gas,
            outcome.stdout.len(),
            outcome.stderr.len(),
            &hash[..16],
            &output[..16]
        )
        .expect("a string takes it");
    }
    text
}

#[test]
fn every_hostile_program_ends_as_recorded_on_both_engines() {
    on_engines(|engines| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/outcomes.txt");
        let now = outcomes(engines);
        if env::var_os("CONFORMANCE").is_some() {
            fs::write(&path, &now).expect("the tree can be written");
        }
        let recorded = fs::read_to_string(&path).expect("the record is there");
        for (now, recorded) in now.lines().zip(recorded.lines()) {
            assert_eq!(now, recorded);
        }
        assert_eq!(now.lines().count(), recorded.lines().count(), "programs were added or removed");
        for end in ["out of gas", "out of stack", "exit 0", "trap: "] {
            assert!(now.contains(end), "no program ends with {end}");
        }
    });
}

#[test]
fn a_job_stops_at_each_amount_of_gas_and_uses_no_more() {
    on_engines(|engines| {
        let module = wat(include_str!("corpus/branch_table.wat"));
        let whole = engines.run("whole", &module, &job(GAS));
        assert_eq!(whole.exit, Exit::Code(0));
        let first = whole.gas - 120;
        for gas in [0, 1, first / 2].into_iter().chain(first..whole.gas) {
            let cut = engines.run("cut", &module, &job(gas));
            assert_eq!((cut.exit, cut.gas), (Exit::OutOfGas, gas), "at {gas} of {}", whole.gas);
        }
        assert_eq!(engines.run("exact", &module, &job(whole.gas)), whole);
        assert_eq!(engines.run("most", &module, &job(limits::GAS_MAX)), whole);
    });
}

#[test]
fn output_and_memory_stop_at_the_bounds_of_the_job() {
    on_engines(|engines| {
        let out = engines.run("stdout", &wat(include_str!("corpus/flood_stdout.wat")), &job(GAS));
        assert_eq!(out.stdout.len(), 1 << 20);
        assert_eq!(out.exit, Exit::Code(51), "no space is left");
        let err = engines.run("stderr", &wat(include_str!("corpus/flood_stderr.wat")), &job(GAS));
        assert_eq!(err.stderr.len(), limits::STDERR_BYTES_MAX);
        let grow = wat(include_str!("corpus/grow_until_refused.wat"));
        let mut small = job(GAS);
        small.pages = 10;
        assert_ne!(engines.run("small", &grow, &small).memory, engines.run("large", &grow, &job(GAS)).memory);
    });
}

#[test]
fn paths_out_of_the_tree_are_errors_and_leave_nothing() {
    on_engines(|engines| {
        let outcome = engines.run("escapes", &wat(include_str!("corpus/path_escapes.wat")), &job(GAS));
        assert_eq!(outcome.exit, Exit::Code(0));
        assert_eq!(outcome.files, [("made".to_owned(), Some(Vec::new()))]);
    });
}

#[test]
fn a_frame_counts_the_values_that_a_compiler_may_keep_in_it() {
    on_engines(|engines| {
        // Each call computes the same values before and after the one within it, so that a compiler keeps them.
        let values: String = (0..400)
            .map(|index| {
                let (at, factor) = (8 * index, 1_000_003 + 2 * index);
                format!("(i64.store offset={at} (i32.const 0) (i64.mul (local.get 0) (i64.const {factor})))")
            })
            .collect();
        let deeper = "(call $deeper (i64.add (local.get 0) (i64.const 1)))";
        let module = wat(&format!(
            "(module (memory (export \"memory\") 1) (func $deeper (param i64) {values} {deeper} {values})
               (func (export \"_start\") (call $deeper (i64.const 0))))"
        ));
        // With this much gas the frames of the machine would take several hundred megabytes.
        let outcome = engines.run("kept values", &module, &job(400_000_000));
        assert_eq!(outcome.exit, Exit::OutOfStack);
    });
}

#[test]
fn memory_is_paid_for_before_it_grows() {
    on_engines(|engines| {
        let grow = wat(include_str!("corpus/grow_until_refused.wat"));
        // The start with its page, the entry of `_start`, then 73 rounds: 1,004 for the instructions, and a page. What
        // is left pays the instructions of one more round, and not its page.
        let gas = 50_000 + 65_536 + 1 + 73 * (1_004 + 65_536) + 65_000;
        let outcome = engines.run("unpaid", &grow, &job(gas));
        assert_eq!(outcome.exit, Exit::OutOfGas);
        assert_eq!(outcome.memory, *blake3::hash(&vec![0; 74 << 16]).as_bytes());
    });
}

/// A function of `count` operands of 8 or 16 bytes that are all there at once, and as many locals of the same type.
fn at_the_bounds(kind: &str, load: &str, add: &str, store: &str) -> String {
    let count = limits::OPERANDS_MAX;
    let each = |text: &dyn Fn(u32) -> String| (0..count).map(text).collect::<String>();
    let loads = each(&|index| format!("({load} offset={index} (i32.const 0)) "));
    let sets = each(&|index| format!("(local.set {index} ({load} offset={index} (i32.const 7)))"));
    let adds = format!("({add}) ").repeat(count as usize - 1);
    let last = limits::LOCALS_MAX - 1;
    format!(
        r#"(module (memory (export "memory") 1) (data (i32.const 1) "some bytes that are no zeros")
          (func $all (result {kind}) (local {locals})
            {sets} {loads} {adds} (local.set {last}) (local.get {last}) (local.get 5) ({add}))
          (func (export "_start") (i32.const 65520) (call $all) ({store})))"#,
        locals = format!("{kind} ").repeat(limits::LOCALS_MAX as usize),
    )
}

#[test]
fn functions_at_the_bounds_of_the_profile_run_on_both_engines() {
    on_engines(|engines| {
        let kinds =
            [("i64", "i64.load", "i64.add", "i64.store"), ("v128", "v128.load", "i64x2.add", "v128.store")];
        for (kind, load, add, store) in kinds {
            let outcome = engines.run(kind, &wat(&at_the_bounds(kind, load, add, store)), &job(GAS));
            assert_eq!(outcome.exit, Exit::Code(0), "{kind}");
        }
    });
}

#[test]
fn calls_and_branches_at_the_bounds_of_webassembly_run_on_both_engines() {
    on_engines(|engines| {
        // The most parameters and results of a function, each of 16 bytes; its call gives it a frame and a block.
        let (all, get) = ("v128 ".repeat(1_000), |index| format!("(local.get {index}) "));
        let values = format!(
            r#"(module (memory (export "memory") 1)
              (func $none)
              (func $turn (param {all}) (result {all}) (call $none) {turned})
              (func (export "_start") (i32.const 0)
                {given} (call $turn) (call $turn) {added} (v128.store)))"#,
            turned = (0..1_000).rev().map(get).collect::<String>(),
            given = (0..1_000).map(|index| format!("(v128.const i64x2 {index} 1) ")).collect::<String>(),
            added = "(i64x2.add) ".repeat(999),
        );
        assert_eq!(engines.run("values", &wat(&values), &job(GAS)).exit, Exit::Code(0));
        let table = format!(
            r#"(module (memory (export "memory") 1) (func (export "_start") (local i32)
              (loop $l (block $b (br_table {targets} (local.set 0 (i32.add (local.get 0) (i32.const 30000))) (local.get 0)))
                (i32.store (i32.const 0) (local.get 0)))))"#,
            targets = "$l $b ".repeat(limits::TARGETS_MAX as usize / 2) + "$b",
        );
        assert_eq!(engines.run("targets", &wat(&table), &job(GAS)).exit, Exit::Code(0));
        let nested = format!(
            r#"(module (func (export "_start") {} i32.const 1 br_if 10000 {}))"#,
            "block ".repeat(10_001),
            "end ".repeat(10_001)
        );
        assert_eq!(engines.run("nested", &wat(&nested), &job(GAS)).exit, Exit::Code(0));
    });
}
