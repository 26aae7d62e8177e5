//! Tools outside the workspace: the fuzzer and the mutants of the rules.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// Binaries of `fuzz/`, which are also the directories of its corpus.
const TARGETS: [&str; 5] = ["operation", "block", "record", "message", "execute"];

/// Coverage for libFuzzer, the checks of a debug build, and no sanitizer: there is no unsafe code
/// to check. The flags are those of `cargo fuzz build --sanitizer none`, without that tool.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks --cfg fuzzing";

/// Largest input in bytes: more than a storage proof with four reads.
const INPUT_BYTES_MAX: &str = "16384";

/// The root of the project.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

pub(crate) fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Host triple of the nightly compiler; `None` without a nightly toolchain.
fn nightly_host() -> Option<String> {
    let output =
        Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]).stderr(Stdio::null()).output();
    let told = String::from_utf8(output.ok().filter(|output| output.status.success())?.stdout).ok()?;
    told.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_string)
}

/// Names the first tool that fuzzing needs and this machine lacks.
pub(crate) fn missing_for_fuzz() -> Option<&'static str> {
    if nightly_host().is_none() {
        return Some("no nightly toolchain (rustup toolchain install nightly)");
    }
    let compiler = ["c++", "g++", "clang++"].iter().any(|name| {
        let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    });
    (!compiler).then_some("no C++ compiler for libFuzzer")
}

/// Runs each target for as many seconds, from the corpus in the tree; new inputs are kept in
/// `<target>/fuzz`. An input that breaks an invariant is reported, and fails the run.
pub(crate) fn fuzz(seconds: &str) -> ExitCode {
    if let Some(missing) = missing_for_fuzz() {
        eprintln!("fuzzing cannot run here: {missing}");
        return ExitCode::from(2);
    }
    let (host, directory) = (nightly_host().unwrap_or_default(), target_directory().join("fuzz"));
    let build = Command::new("rustup")
        .args(["run", "nightly", "cargo", "build", "--locked", "--release", "--target", &host])
        .arg("--manifest-path")
        .arg(root().join("fuzz/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &directory)
        .env("RUSTFLAGS", FLAGS)
        // The toolchain that runs this program sets them.
        .env_remove("RUSTC")
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN")
        .status();
    if !build.is_ok_and(|status| status.success()) {
        eprintln!("the fuzz targets do not build");
        return ExitCode::FAILURE;
    }
    // One value of every type in the current formats: the corpus may hold older ones only.
    let binaries = directory.join(&host).join("release");
    let seeded =
        Command::new(binaries.join("execute")).env("POSYNC_SEEDS", directory.join("corpus")).status();
    if !seeded.is_ok_and(|status| status.success()) {
        eprintln!("the seeds of the corpus could not be written");
        return ExitCode::FAILURE;
    }
    for target in TARGETS {
        let own = directory.join("corpus").join(target);
        if let Err(error) = fs::create_dir_all(&own) {
            eprintln!("{}: {error}", own.display());
            return ExitCode::FAILURE;
        }
        eprintln!("\n== fuzz {target}: {seconds} s");
        let ran = Command::new(binaries.join(target))
            .args([format!("-max_total_time={seconds}"), format!("-max_len={INPUT_BYTES_MAX}")])
            .args(["-verbosity=0", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/{target}-", directory.display()))
            .arg(&own)
            .arg(root().join("fuzz/corpus").join(target))
            .status();
        if !ran.is_ok_and(|status| status.success()) {
            eprintln!(
                "fuzz {target}: an input breaks a promise; it is in {}/{target}-*",
                directory.display()
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Runs the mutation tool in `mutants/`.
pub(crate) fn mutants(options: &[&str]) -> ExitCode {
    let status = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["run", "--quiet", "--locked", "--manifest-path"])
        .arg(root().join("mutants/Cargo.toml"))
        .arg("--target-dir")
        .arg(target_directory().join("mutants/tool"))
        .arg("--")
        .args(options)
        .env("CARGO_TARGET_DIR", target_directory())
        .status();
    if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
