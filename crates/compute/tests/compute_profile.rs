//! Modules that the profile refuses, each with its reason.

mod common;

use common::wat;
use posync_compute::{Program, Refusal, limits};

fn refusal(module: &[u8]) -> Refusal {
    match Program::new(module) {
        Err(refusal) => refusal,
        Ok(_) => panic!("the module is accepted"),
    }
}

const HELLO: &str = include_str!("corpus/hello.wat");

#[test]
fn bytes_that_are_no_module_are_refused() {
    assert_eq!(refusal(b""), Refusal::NotWasm);
    assert_eq!(refusal(b"#!/bin/sh\n"), Refusal::NotWasm);
    assert_eq!(refusal(&vec![0; limits::MODULE_BYTES_MAX + 1]), Refusal::Long(limits::MODULE_BYTES_MAX + 1));
    assert_eq!(refusal(&wat("(component)")), Refusal::Component);
    let good = wat(HELLO);
    Program::new(&good).expect("whole, it is accepted");
    // A cut between two sections after the code leaves a module; every other cut is refused.
    let whole = (4..good.len()).filter(|cut| Program::new(&good[..*cut]).is_ok()).count();
    assert!(whole <= 2, "{whole} cuts are accepted");
    for cut in 4..good.len() {
        if let Err(refusal) = Program::new(&good[..cut]) {
            assert!(matches!(refusal, Refusal::Invalid(_) | Refusal::NoStart), "cut at {cut}: {refusal:?}");
        }
    }
    for at in 8..good.len() {
        // A changed byte may leave a valid module; it never leaves anything that cannot be handled.
        let mut changed = good.clone();
        changed[at] ^= 0x55;
        let _ = Program::new(&changed);
    }
}

#[test]
fn modules_without_a_start_are_refused_by_kind() {
    let started = |inner: &str| wat(&format!("(module {inner})"));
    assert_eq!(refusal(&started("")), Refusal::NoStart);
    assert_eq!(refusal(&started("(func (export \"main\"))")), Refusal::NoStart);
    assert_eq!(refusal(&started("(func (export \"_start\") (param i32))")), Refusal::NoStart);
    assert_eq!(refusal(&started("(func (export \"_start\") (result i32) (i32.const 0))")), Refusal::NoStart);
    assert_eq!(refusal(&started("(memory (export \"_start\") 1)")), Refusal::NoStart);
    assert_eq!(refusal(&started("(func (export \"_initialize\"))")), Refusal::Reactor);
    let runs = "(func $s (export \"_start\")) (start $s)";
    assert_eq!(refusal(&started(runs)), Refusal::StartFunction);
}

#[test]
fn names_and_imports_that_the_network_lacks_are_refused() {
    let with = |inner: &str| refusal(&wat(&format!("(module {inner} (func (export \"_start\")))")));
    let reserved = "(global (export \"posync:gas\") i64 (i64.const 0))";
    assert_eq!(with(reserved), Refusal::Reserved("posync:gas".into()));
    let unknown = Refusal::Import("thing".into(), "env".into());
    assert_eq!(with("(import \"env\" \"thing\" (func))"), unknown);
    assert_eq!(with("(import \"env\" \"thing\" (memory 1))"), unknown);
    assert_eq!(with("(import \"env\" \"thing\" (global i32))"), unknown);
    assert_eq!(with("(import \"env\" \"thing\" (table 1 funcref))"), unknown);
    let other = "(import \"wasi_snapshot_preview1\" \"fd_write\" (func (param i64)))";
    assert_eq!(with(other), Refusal::ImportType("fd_write".into()));
    let older = "(import \"wasi_unstable\" \"fd_write\" (func (param i32 i32 i32 i32) (result i32)))";
    assert_eq!(with(older), Refusal::Import("fd_write".into(), "wasi_unstable".into()));
}

#[test]
fn parts_of_webassembly_outside_the_profile_are_refused() {
    for (part, inner) in [
        ("threads", "(memory 1 1 shared)"),
        ("atomics", "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"),
        ("several memories", "(memory 1) (memory 1)"),
        ("memory64", "(memory i64 1)"),
        (
            "relaxed SIMD",
            "(func (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))",
        ),
        ("tail calls", "(func $f (return_call $f))"),
        ("exceptions", "(tag $t) (func (throw $t))"),
        ("GC", "(type (struct (field i32)))"),
        ("references to hosts", "(table 1 externref)"),
        ("typed references", "(type $t (func)) (func (param (ref $t)))"),
    ] {
        let refusal = refusal(&wat(&format!("(module {inner} (func (export \"_start\")))")));
        assert!(matches!(refusal, Refusal::Proposal(_)), "{part}: {refusal:?}");
        assert!(refusal.to_string().contains("posync-wasm-1"), "{part}");
    }
}

#[test]
fn bounds_of_modules_are_refused_with_the_number() {
    let with = |inner: &str| refusal(&wat(&format!("(module {inner} (func (export \"_start\")))")));
    let bound = |of, has, max| Refusal::Bound { of, has, max };
    assert_eq!(with("(memory 20000)"), bound("pages of memory at its start", 20_000, 16_384));
    assert_eq!(with("(table 2000000 funcref)"), bound("elements of tables at its start", 2_000_000, 1 << 20));
    assert_eq!(with(&"(table 1 funcref)".repeat(17)), bound("tables", 17, 16));
    let locals = format!("(func (param i32 i64) (local {}))", "i32 ".repeat(9_999));
    assert_eq!(with(&locals), bound("locals in one function", 10_001, 10_000));
    let operands = format!("(func {} {})", "(i32.const 1) ".repeat(10_001), "drop ".repeat(10_001));
    assert_eq!(with(&operands), bound("operands at once in one function", 10_001, 10_000));
    let targets = format!("(func (br_table {} (i32.const 0)))", "0 ".repeat(65_002));
    assert_eq!(with(&targets), bound("targets of one branch table", 65_001, 65_000));
    // Beyond the bound of all engines the text of the validator says it.
    let locals = format!("(func (local {}))", "i32 ".repeat(50_001));
    assert!(matches!(with(&locals), Refusal::Invalid(_)));
    let long = format!("(global i64 (i64.const 0) {})", "(i64.const 1) (i64.add)".repeat(30));
    assert_eq!(with(&long), bound("bytes in one constant expression", 93, 64));
    let place = format!("(offset (i32.const 0) {})", "(i32.const 1) (i32.add)".repeat(30));
    assert_eq!(
        with(&format!("(memory 1) (data {place})")),
        bound("bytes in one constant expression", 93, 64)
    );
    assert_eq!(
        with(&format!("(table 1 funcref) (elem {place} func)")),
        bound("bytes in one constant expression", 93, 64)
    );
}

/// A module whose `_start` has `code`, beside `globals` constants.
fn with_code(code: &[u8], globals: u32) -> Vec<u8> {
    use wasm_encoder::*;
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut constants = GlobalSection::new();
    for _ in 0..globals {
        let kind = GlobalType { val_type: ValType::I32, mutable: false, shared: false };
        constants.global(kind, &ConstExpr::i32_const(0));
    }
    let mut exports = ExportSection::new();
    exports.export("_start", ExportKind::Func, 0);
    let mut body = Function::new([]);
    body.raw(code.iter().copied());
    body.instruction(&Instruction::End);
    let mut codes = CodeSection::new();
    codes.function(&body);
    module.section(&types).section(&functions).section(&constants).section(&exports).section(&codes);
    module.finish()
}

#[test]
fn a_module_that_grows_too_large_when_its_gas_is_counted_is_refused() {
    let metered = |module: &[u8]| match refusal(module) {
        Refusal::Metered(why) => why,
        other => panic!("{other:?}"),
    };
    // `i32.const 0, br_if 0`: a run of its own each time, whose charge is longer than itself.
    let runs = [0x41, 0, 0x0d, 0].repeat(600_000);
    let why = metered(&with_code(&runs, 0));
    assert!(why.contains("size"), "{why}");
    Program::new(&with_code(&runs[..400_000], 0)).expect("a shorter one is accepted");
    let why = metered(&with_code(&[], 1_000_000));
    assert!(why.contains("globals"), "{why}");
    Program::new(&with_code(&[], 1_000)).expect("fewer are accepted");
}
