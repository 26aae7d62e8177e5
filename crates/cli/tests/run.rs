//! `posync run --local`: a program's output, exit code, files and gas reach the user of the command, and what is wrong
//! with a program or its input is said before or after it, never instead.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Copies standard input to standard output and standard error, and to `/out/made/copy`; exits with 7.
const COPY: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\00\10\00\00\00\10\00\00")
  (data (i32.const 64) "out/madeout/made/copy")
  (func (export "_start")
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 4) (i32.load (i32.const 16)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 16)))
    (drop (call $mkdir (i32.const 3) (i32.const 64) (i32.const 8)))
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 72) (i32.const 13) (i32.const 1) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 20)))
    (drop (call $write (i32.load (i32.const 20)) (i32.const 0) (i32.const 1) (i32.const 16)))
    (call $exit (i32.const 7))))"#;
const ENDLESS: &str = r#"(module (func (export "_start") (loop $l (br $l))))"#;

/// Leaves a file of 128 MiB.
const LARGE: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $resize (param i32 i64) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "out/large")
  (func (export "_start")
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 9) (i32.const 1) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 20)))
    (drop (call $resize (i32.load (i32.const 20)) (i64.const 134217728)))))"#;

struct Sandbox(tempfile::TempDir);

impl Sandbox {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn module(&self, text: &str) -> PathBuf {
        let path = self.path("program.wasm");
        fs::write(&path, wat::parse_str(text).expect("it is right")).expect("there is room");
        path
    }

    /// Runs `posync run` with the arguments, and gives it `input`.
    fn run(&self, arguments: &[&str], module: &Path, input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_posync"))
            .args(arguments)
            .arg("run")
            .arg(module)
            .args(["--local", "--stdin", "-"])
            .env("XDG_CACHE_HOME", self.path("cache"))
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // A command that refuses its arguments does not read.
        let _ = child.stdin.take().expect("piped").write_all(input);
        child.wait_with_output().expect("it ends")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn output_errors_files_and_exit_code_of_a_program_reach_the_user() {
    let place = Sandbox::new();
    let module = place.module(COPY);
    let out = place.path("made");
    let mut ran = Command::new(env!("CARGO_BIN_EXE_posync"));
    ran.args(["run", "--local", "--file", "in.txt=program.wasm", "--env", "A=B"])
        .arg(&module)
        .arg("--out")
        .arg(&out)
        .args(["--stdin", "words", "--", "one", "--two"])
        .env("XDG_CACHE_HOME", place.path("cache"))
        .current_dir(place.0.path());
    fs::write(place.path("words"), "some words\n").expect("there is room");
    let ran = ran.output().expect("it ends");
    assert_eq!(ran.status.code(), Some(7), "{}", text(&ran.stderr));
    assert_eq!(text(&ran.stdout), "some words\n");
    let said = text(&ran.stderr);
    assert!(said.starts_with("some words\n") && said.contains("exit 7: gas "), "{said}");
    assert_eq!(fs::read_to_string(out.join("made/copy")).expect("it was written"), "some words\n");
    assert!(fs::read_dir(place.path("cache/posync/compute")).is_ok(), "machine code is kept");

    let again = place.run(&["--json"], &module, b"others");
    let answer: Value = serde_json::from_slice(&again.stdout).expect("one value");
    assert_eq!(answer["exit"], serde_json::json!({"kind": "exit", "detail": 7}));
    assert_eq!((answer["stdout"].as_str(), again.status.code()), (Some("others"), Some(7)));
    assert!(answer["gas"].as_u64().is_some_and(|gas| gas > 50_000), "{answer}");
}

#[test]
fn machine_code_is_neither_kept_nor_taken_where_others_have_rights() {
    let place = Sandbox::new();
    let module = place.module(COPY);
    let cache = place.path("cache/posync/compute");
    for mode in [0o777, 0o755, 0o710, 0o702] {
        fs::create_dir_all(&cache).expect("there is room");
        fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).expect("it is ours");
        let ran = place.run(&[], &module, b"words");
        let said = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(7), "{said}");
        assert_eq!(fs::read_dir(&cache).expect("it is there").count(), 0, "{mode:o}: machine code was kept");
        assert!(said.contains("remove it") && !said.contains("chmod"), "{said}");
        fs::remove_dir(&cache).expect("it is empty");
    }
    // The advice helps: a new directory is made, for this user alone.
    assert_eq!(place.run(&[], &module, b"words").status.code(), Some(7));
    assert_ne!(fs::read_dir(&cache).expect("it is there").count(), 0, "nothing was kept");
    assert_eq!(fs::metadata(&cache).expect("it is there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn gas_ends_a_program_that_never_ends() {
    let place = Sandbox::new();
    let module = place.module(ENDLESS);
    let path = module.to_str().expect("text");
    let run = |gas: &str| {
        Command::new(env!("CARGO_BIN_EXE_posync"))
            .args(["run", "--local", path, "--gas", gas])
            .env("XDG_CACHE_HOME", place.path("cache"))
            .output()
            .expect("it ends")
    };
    for gas in ["0", "1", "100000000"] {
        let ran = run(gas);
        assert_eq!(ran.status.code(), Some(152), "{}", text(&ran.stderr));
        assert!(
            text(&ran.stderr).contains(&format!("out of gas: gas {gas} of {gas}")),
            "{}",
            text(&ran.stderr)
        );
    }
    let most = run(&u64::MAX.to_string());
    assert_eq!(most.status.code(), Some(2), "{}", text(&most.stderr));
    assert!(text(&most.stderr).contains("64000000000"), "{}", text(&most.stderr));
}

#[test]
fn a_command_that_cannot_run_a_program_says_why_and_what_next() {
    let place = Sandbox::new();
    let module = place.module(COPY);
    let path = module.to_str().expect("text");
    fs::write(place.path("no.wasm"), "#!/bin/sh\n").expect("there is room");
    fs::create_dir(place.path("full")).expect("there is room");
    fs::write(place.path("full/file"), "").expect("there is room");
    symlink("full", place.path("link")).expect("there is room");
    let no_start = place.path("none.wasm");
    fs::write(&no_start, wat::parse_str("(module)").expect("it is right")).expect("there is room");
    for (arguments, code, words) in [
        (vec!["run", path], 2, "add --local"),
        (vec!["run", "--local", "no.wasm"], 5, "not WebAssembly"),
        (vec!["run", "--local", "none.wasm"], 5, "_start"),
        (vec!["run", "--local", "missing.wasm"], 8, "missing.wasm"),
        (vec!["run", "--local", path, "--out", "full"], 8, "not empty"),
        (vec!["run", "--local", path, "--out", "."], 8, "without a name"),
        (vec!["run", "--local", path, "--out", "link"], 8, "something else"),
        (vec!["run", "--local", path, "--out", "none/made"], 8, "none"),
        (vec!["run", "--local", path, "--file", "../x=words"], 8, "words"),
        (vec!["run", "--local", path, "--file", "../x=no.wasm"], 2, ".."),
        (vec!["run", "--local", path, "--env", "=x"], 2, "NAME=VALUE"),
    ] {
        let ran = Command::new(env!("CARGO_BIN_EXE_posync"))
            .args(&arguments)
            .env("XDG_CACHE_HOME", place.path("cache"))
            .current_dir(place.0.path())
            .output()
            .expect("it ends");
        let said = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(ran.stdout.is_empty(), "{arguments:?}");
    }
    assert_eq!(fs::read_dir(place.path("full")).expect("it is there").count(), 1, "its file stays alone");
}

#[test]
fn a_signal_while_files_are_written_leaves_all_of_them_or_nothing() {
    let place = Sandbox::new();
    place.module(LARGE);
    let beside = || {
        let entries = fs::read_dir(place.0.path()).expect("it is there").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".posync-out-")).count()
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_posync"))
        .args(["run", "--local", "program.wasm", "--out", "made"])
        .env("XDG_CACHE_HOME", place.path("cache"))
        .current_dir(place.0.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let has_ended = loop {
        let ended = child.try_wait().expect("it is ours").is_some();
        if ended || beside() > 0 {
            break ended;
        }
        std::thread::yield_now();
    };
    // Once it was waited for, its number may be another's.
    if !has_ended {
        let process = Pid::from_raw(child.id().cast_signed()).expect("a process");
        kill_process(process, Signal::TERM).expect("it was not waited for");
    }
    let ended = child.wait_with_output().expect("it ends");
    let said = text(&ended.stderr);
    assert_eq!(beside(), 0, "a directory is left: {said}");
    assert!(matches!(ended.status.code(), Some(0 | 143)), "{}: {said}", ended.status);
    // A signal that comes once the files have their name finds all of them there.
    let is_there = place.path("made").exists();
    assert!(is_there || ended.status.code() == Some(143), "{said}");
    if is_there {
        assert_eq!(fs::metadata(place.path("made/large")).expect("it is there").len(), 128 << 20);
    }
}
