//! Runs test programs with one mutant switched on, and stops at the first test that fails.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// A test program to run.
pub struct Program {
    /// Path of the program file.
    pub path: PathBuf,
    /// Name of the program, without cargo's hash.
    pub name: String,
}

/// Tests of one program that run in one process.
pub struct Batch {
    /// Path of the test program.
    pub program: PathBuf,
    /// Full names of the tests.
    pub tests: Vec<String>,
    /// Seconds that they take together without a mutant.
    pub seconds: f64,
}

/// The result of a mutant.
pub enum Fate {
    /// A test failed; the text names it, or the program if it failed otherwise.
    Killed(String),
    /// The tests did not end within a multiple of their usual time.
    Hung(String),
    /// Every test passed, so no test notices the mutant.
    Survived,
}

/// Tests with a digest of everything, which any change of behaviour changes. They run last, so that
/// the report shows the mutants that only they notice.
const GOLDEN: [&str; 2] = ["no_byte_changed", "history::"];

fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(program).args(["--test-threads", "1"]).current_dir(directory);
    command.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command.env_remove("CONFORMANCE").stderr(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Measures the seconds of each test without a mutant.
///
/// # Errors
/// If a test fails without a mutant, or if the program does not start.
pub fn baseline(program: &Program, directory: &Path) -> Result<BTreeMap<String, f64>, String> {
    let mut child = command(&program.path, directory).spawn().map_err(|error| error.to_string())?;
    let output = BufReader::new(child.stdout.take().ok_or("no output")?);
    let (mut times, mut last) = (BTreeMap::new(), Instant::now());
    for line in output.lines().map_while(Result::ok) {
        let Some((name, verdict)) = verdict(&line) else { continue };
        if verdict == "FAILED" {
            return Err(format!("{name} fails without a mutant"));
        }
        times.insert(name.to_string(), last.elapsed().as_secs_f64());
        last = Instant::now();
    }
    child.wait().map_err(|error| error.to_string())?;
    Ok(times)
}

/// Parses `test a::b ... ok` into name and verdict.
fn verdict(line: &str) -> Option<(&str, &str)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.split(" - ").next()?, verdict))
}

/// All tests in running order: quick ones first, those with a golden digest last.
pub fn batches(all: &[(PathBuf, BTreeMap<String, f64>)]) -> Vec<Batch> {
    let golden = |name: &str| GOLDEN.iter().any(|golden| name.contains(golden));
    let class = |name: &str, seconds: f64| match seconds {
        _ if golden(name) => 3,
        seconds if seconds < 0.3 => 0,
        seconds if seconds < 2.0 => 1,
        _ => 2,
    };
    let mut batches = Vec::new();
    for wanted in 0..4 {
        for (program, times) in all {
            let chosen = times.iter().filter(|(name, seconds)| class(name, **seconds) == wanted);
            let (tests, seconds): (Vec<String>, Vec<f64>) =
                chosen.map(|(name, seconds)| (name.clone(), *seconds)).unzip();
            if !tests.is_empty() {
                batches.push(Batch { program: program.clone(), tests, seconds: seconds.iter().sum() });
            }
        }
    }
    batches
}

/// True if the programs read the switch: a word instead of a number must then make a test fail.
pub fn knows_switch(batches: &[Batch], directory: &Path) -> bool {
    batches.iter().any(|batch| !matches!(try_batch("canary", batch, directory), Fate::Survived))
}

/// Runs the batches with mutant `number` until one fails or hangs.
pub fn fate(number: u32, batches: &[Batch], directory: &Path) -> Fate {
    for batch in batches {
        match try_batch(&number.to_string(), batch, directory) {
            Fate::Survived => {}
            fate => return fate,
        }
    }
    Fate::Survived
}

fn try_batch(mutant: &str, batch: &Batch, directory: &Path) -> Fate {
    let limit = Duration::from_secs_f64(30.0 + 10.0 * batch.seconds);
    let program = batch.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = command(&batch.program, directory);
    command.arg("--exact").args(&batch.tests).env("MUTANT", mutant);
    let Ok(mut child) = command.spawn() else { return Fate::Killed(format!("{program} does not start")) };
    let Some(output) = child.stdout.take() else { return Fate::Killed(format!("{program} is mute")) };
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let (start, mut last) = (Instant::now(), String::from("its first test"));
    let fate = loop {
        match lines.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) => match verdict(&line) {
                Some((name, "FAILED")) => break Fate::Killed(name.to_string()),
                Some((name, _)) => last = name.to_string(),
                None => {}
            },
            Err(mpsc::RecvTimeoutError::Timeout) => break Fate::Hung(format!("{program} after {last}")),
            Err(mpsc::RecvTimeoutError::Disconnected) => break Fate::Survived,
        }
    };
    if !matches!(fate, Fate::Survived) {
        let _ = child.kill();
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    let _ = reader.join();
    match fate {
        Fate::Survived if !succeeded => Fate::Killed(format!("{program} died after {last}")),
        fate => fate,
    }
}
