//! Lanes as real processes: what takes a lane takes nothing else.

mod common;

use common::{job, wat};
use posync_compute::{
    Exit,
    lane::{EngineKind, Lane, LaneError},
    limits,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr, fs, os::unix::process::ExitStatusExt as _, path::Path, sync::mpsc, thread, time::Duration,
};

const WITHIN: Duration = Duration::from_secs(120);
/// A deadline that has passed whenever it is looked at.
const PAST: Duration = Duration::ZERO;

fn lane(cache: Option<&Path>) -> Lane {
    let program = Path::new(env!("CARGO_BIN_EXE_outside"));
    let arguments = [Some(OsStr::new("lane")), cache.map(Path::as_os_str)];
    Lane::start(program, &arguments.into_iter().flatten().collect::<Vec<_>>()).expect("it starts")
}

#[test]
fn a_lane_runs_job_after_job_on_both_engines() {
    let mut lane = lane(None);
    let hello = lane.ready(&wat(include_str!("corpus/hello.wat")), WITHIN).expect("it is accepted");
    let trap = lane.ready(&wat(include_str!("corpus/trap_load.wat")), WITHIN).expect("it is accepted");
    for _ in 0..3 {
        for engine in [EngineKind::Cranelift, EngineKind::Interpreter] {
            let done =
                lane.run(hello, engine, job(1_000_000), WITHIN, &mut |_| {}).expect("it has an outcome");
            assert_eq!((done.exit, &done.stdout[..]), (Exit::Code(0), &b"hello\n"[..]));
            let done =
                lane.run(trap, engine, job(1_000_000), WITHIN, &mut |_| {}).expect("it has an outcome");
            assert!(matches!(done.exit, Exit::Trap(_)), "{}", done.exit);
        }
    }
    let why = lane.ready(b"no module", WITHIN).expect_err("it is refused").to_string();
    assert!(why.contains("not WebAssembly"), "{why}");
    let unknown = lane.run([1; 32], EngineKind::Cranelift, job(1), WITHIN, &mut |_| {});
    assert!(matches!(unknown, Err(LaneError::Failed(_))), "{unknown:?}");
    lane.run(hello, EngineKind::Cranelift, job(1_000_000), WITHIN, &mut |_| {})
        .expect("the lane still works");
}

#[test]
fn standard_error_comes_while_the_job_runs() {
    let text = r#"(module
      (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "\10\00\00\00\06\00\00\00")
      (data (i32.const 16) "alive\n")
      (func (export "_start")
        (drop (call $w (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
        (loop $l (br $l))))"#;
    let mut lane = lane(None);
    let module = lane.ready(&wat(text), WITHIN).expect("it is accepted");
    let mut seen = Vec::new();
    let mut endless = job(limits::GAS_MAX);
    endless.pages = 16;
    let pid = Pid::from_raw(lane.pid().cast_signed()).expect("a process");
    // The words must come before the job ends: only they end it here.
    let ended = lane.run(module, EngineKind::Cranelift, endless, WITHIN, &mut |bytes| {
        seen.extend_from_slice(bytes);
        kill_process(pid, Signal::KILL).expect("it runs");
    });
    assert!(matches!(ended, Err(LaneError::Ended(_))), "{ended:?}");
    assert_eq!(seen, b"alive\n");
}

#[test]
fn work_past_its_deadline_takes_its_lane_only() {
    let module = wat(include_str!("corpus/loop_endless.wat"));
    let mut lane = lane(None);
    let ready = lane.ready(&module, WITHIN).expect("it is accepted");
    let late = lane.run(ready, EngineKind::Interpreter, job(60_000_000_000), PAST, &mut |_| {});
    assert!(matches!(late, Err(LaneError::Late(_))), "{late:?}");
    let gone = lane.run(ready, EngineKind::Cranelift, job(1_000_000), WITHIN, &mut |_| {});
    assert!(matches!(gone, Err(LaneError::Ended(_))), "{gone:?}");
    let mut next = self::lane(None);
    let ready = next.ready(&module, WITHIN).expect("it is accepted");
    let done =
        next.run(ready, EngineKind::Cranelift, job(1_000_000), WITHIN, &mut |_| {}).expect("an outcome");
    assert_eq!(done.exit, Exit::OutOfGas);
}

/// A process that is no lane, and does what `script` says.
fn other(script: &str) -> Lane {
    Lane::start(Path::new("/bin/sh"), &[OsStr::new("-c"), OsStr::new(script)]).expect("it starts")
}

#[test]
fn a_lane_that_does_not_read_is_ended_at_the_deadline() {
    // Longer than a pipe holds.
    let late = other("exec sleep 1000000").ready(&vec![0; 1 << 20], PAST);
    assert!(matches!(late, Err(LaneError::Late(_))), "{late:?}");
}

#[test]
fn a_lane_that_closes_its_output_and_stays_is_ended() {
    let ended = other("exec sleep 1000000 >&-").ready(b"module", WITHIN);
    let Err(LaneError::Ended(status)) = ended else { panic!("{ended:?}") };
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn a_lane_that_never_stops_to_answer_is_ended() {
    // Frames of standard error, 60,000 bytes each, without end.
    let flood = r"while :; do printf '\144\352\000\000\002\340\324\003'; head -c 60000 /dev/zero; done";
    let mut said = 0;
    let garbled =
        other(flood).run([1; 32], EngineKind::Cranelift, job(1), WITHIN, &mut |bytes| said += bytes.len());
    assert!(matches!(garbled, Err(LaneError::Garbled(_))), "{garbled:?}");
    assert!(said <= limits::STDERR_BYTES_MAX, "{said}");
}

#[test]
fn a_job_with_less_memory_than_its_module_begins_with_is_refused() {
    let mut lane = lane(None);
    let hello = lane.ready(&wat(include_str!("corpus/hello.wat")), WITHIN).expect("it is accepted");
    let mut small = job(1_000_000);
    small.pages = 0;
    for engine in [EngineKind::Cranelift, EngineKind::Interpreter] {
        let refused = lane.run(hello, engine, small.clone(), WITHIN, &mut |_| {});
        let Err(LaneError::Failed(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("refused: pages of memory at the module's start: 1, and 0"), "{why}");
    }
}

#[test]
fn a_lane_ends_with_its_owner() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_outside"))
        .arg("lane")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdin.take());
    let (send, ended) = mpsc::channel();
    thread::spawn(move || send.send(child.wait().expect("it ends")));
    assert!(ended.recv_timeout(WITHIN).expect("it ends by itself").success());
}

#[test]
fn words_that_are_no_answer_end_the_lane() {
    // A process that is no lane: what it prints has a length beyond every bound.
    let mut other =
        Lane::start(Path::new("/bin/echo"), &[OsStr::new("not a frame at all")]).expect("it starts");
    let garbled = other.ready(&wat(include_str!("corpus/hello.wat")), WITHIN);
    assert!(matches!(garbled, Err(LaneError::Garbled(_) | LaneError::Ended(_))), "{garbled:?}");
    assert!(matches!(Lane::start(Path::new("/does/not/exist"), &[]), Err(LaneError::Start(_))));
}

#[test]
fn machine_code_is_kept_in_the_cache_and_found_again() {
    let cache = tempfile::tempdir().expect("a directory");
    let module = wat(include_str!("corpus/nans.wat"));
    let run = || {
        let mut lane = lane(Some(cache.path()));
        let ready = lane.ready(&module, WITHIN).expect("it is accepted");
        lane.run(ready, EngineKind::Cranelift, job(1_000_000), WITHIN, &mut |_| {}).expect("an outcome")
    };
    let first = run();
    let files = || files_below(cache.path());
    let kept = files();
    assert!(!kept.is_empty(), "nothing was kept");
    assert_eq!(run(), first);
    assert!(kept.iter().all(|file| files().contains(file)), "the code was made anew");
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { all.extend(files_below(&path)) } else { all.push(path) }
    }
    all
}
