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
    ffi::OsStr,
    fs,
    os::unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
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
    // It reads the beginning of a request, then sends frames of standard error, 60,000 bytes each, without end.
    let flood = r"head -c 4 >/dev/null; while :; do printf '\144\352\000\000\002\340\324\003'; head -c 60000 /dev/zero; done";
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
    let kept = code(cache.path());
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].mode & 0o777, 0o600, "others have rights on it");
    assert_eq!(run(), first);
    assert_eq!(code(cache.path()), kept, "the code was made anew");
    // It was read, too: code that is damaged is made anew.
    fs::write(&kept[0].path, "no code").expect("it is ours");
    let damaged = code(cache.path());
    assert_eq!(run(), first);
    assert_ne!(code(cache.path()), damaged, "the code was not read");
}

#[test]
fn machine_code_that_a_killed_lane_left_half_written_is_removed() {
    let cache = tempfile::tempdir().expect("a directory");
    let module = wat(include_str!("corpus/nans.wat"));
    let ready = || lane(Some(cache.path())).ready(&module, WITHIN).expect("it is accepted");
    ready();
    let kept = code(cache.path()).pop().expect("it is kept").path;
    fs::remove_file(&kept).expect("it is ours");
    let half = kept.with_extension("wip-atomic-write-mod");
    let write_half = |at: SystemTime| {
        let file = fs::File::create(&half).expect("there is room");
        file.set_modified(at).expect("it is ours");
    };
    write_half(SystemTime::now());
    ready();
    assert!(half.exists() && !kept.exists(), "another lane may be at work on it");
    write_half(SystemTime::now() - Duration::from_secs(3_600));
    ready();
    assert!(!half.exists() && kept.exists(), "its module is compiled each time");
}

/// A file of machine code: one that was written again has another number or time.
#[derive(Debug, PartialEq, Eq)]
struct Code {
    path: PathBuf,
    inode: u64,
    modified: (i64, i64),
    mode: u32,
}

/// Files of machine code in a cache, without the statistics that stand beside each.
fn code(cache: &Path) -> Vec<Code> {
    let mut all = Vec::new();
    for compiler in fs::read_dir(cache.join("modules")).expect("it is there") {
        for entry in fs::read_dir(compiler.expect("an entry").path()).expect("it is there") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none() {
                let found = fs::metadata(&path).expect("it is there");
                let modified = (found.mtime(), found.mtime_nsec());
                all.push(Code { path, inode: found.ino(), modified, mode: found.mode() });
            }
        }
    }
    all
}

#[test]
fn names_that_a_module_chooses_reach_nobody_unread() {
    // The name of an export that is there twice is quoted in the refusal: here a screen is cleared, and more.
    let name = format!(r"\1b[2J\e2\80\ae{}", "long ".repeat(10_000));
    let exports = format!(r#"(export "{name}" (func 0))"#).repeat(2);
    let module = wat(&format!("(module (func) {exports} (func (export \"_start\")))"));
    let Err(LaneError::Refused(why)) = lane(None).ready(&module, WITHIN) else { panic!("it is accepted") };
    assert!(why.contains("duplicate export"), "{why}");
    assert!(!why.contains(|letter: char| letter.is_control() || letter == '\u{202e}'), "{why:?}");
    assert!(why.len() < 2_000, "{} bytes", why.len());
}
