//! Runs real programs, once bare and once as a lane runs them, and prints the cost of counting, of equal NaNs and of a
//! start: `cargo xtask outside` fetches the programs and starts it with their directory.
//!
//! With the argument `lane` it is a lane, for the tests of this crate.

use posync_compute::{
    Exit, Job, Outcome, Program,
    cranelift::Cranelift,
    lane::{self, EngineKind, Lane},
    limits,
};
use std::{
    env, fs,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

/// Runs of each variant; the fastest counts.
const RUNS: usize = 3;
/// Starts of each module; the middle one counts.
const STARTS: usize = 101;
/// Time within which a lane must answer.
const WITHIN: Duration = Duration::from_secs(600);
/// The smallest program: a page of memory, and a `_start` that does nothing.
const SMALLEST: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A program and a job that ends by itself.
struct Task {
    name: &'static str,
    file: &'static str,
    job: Job,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lane"] => lane::serve(None),
        ["lane", cache] => lane::serve(Some(Path::new(cache))),
        [directory] => {
            let directory = directory.to_owned();
            match lane::with_stack(move || measure_all(Path::new(&directory))) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => {
            eprintln!("usage: outside DIRECTORY");
            ExitCode::from(2)
        }
    }
}

fn measure_all(directory: &Path) -> Fallible<()> {
    println!(
        "| program | module | check and meter | compile bare | compile | bare | counted | counted, equal NaNs | gas | end |"
    );
    println!("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --- |");
    let mut ratios = Vec::new();
    for task in tasks() {
        let module = match fs::read(directory.join(task.file)) {
            Ok(module) => module,
            Err(error) => {
                println!("| {} | not there: {error} |", task.name);
                continue;
            }
        };
        ratios.push(measure(&task, &module)?);
    }
    let mean = (ratios.iter().map(|ratio: &f64| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    println!("\ngeometric mean of counted / bare: {mean:.2}\n");
    println!(
        "| start of a known module | memory | in this process | through a lane | of it, the digest of the memory |"
    );
    println!("| --- | --: | --: | --: | --: |");
    starts("the smallest", SMALLEST)?;
    for file in ["python.wasm", "resvg.wasm", "esbuild.wasm"] {
        if let Ok(module) = fs::read(directory.join(file)) {
            starts(file, &module)?;
        }
    }
    Ok(())
}

/// Prints the time from a job to its outcome, if the gas ends with the first instruction: a new instance, the digest
/// of its memory, and its end.
fn starts(name: &str, module: &[u8]) -> Fallible<()> {
    let program = Arc::new(Program::new(module)?);
    let mut job = job(&[], Vec::new());
    job.gas = program.start_gas();
    let engine = Cranelift::new(None)?;
    let compiled = engine.compile(program.clone())?;
    let run = || engine.run(&compiled, job.clone(), Box::new(|_| ()));
    let end = run()?.exit;
    if end != Exit::OutOfGas {
        return Err(format!("{name}: a start ended with {end}").into());
    }
    let here = middle(|| Ok(run()?))?;
    let mut lane = Lane::start(&env::current_exe()?, &["lane".as_ref()])?;
    let ready = lane.ready(module, WITHIN)?;
    let there = middle(|| Ok(lane.run(ready, EngineKind::Cranelift, job.clone(), WITHIN, &mut |_| ())?))?;
    let memory = vec![1; program.pages() as usize * (64 << 10)];
    let digest = middle(|| Ok(blake3::hash(std::hint::black_box(&memory))))?;
    let [here, there, digest] = [here, there, digest].map(|time| time.as_secs_f64() * 1e3);
    let kib = program.pages() * 64;
    println!("| {name} | {kib} KiB | {here:.3} ms | {there:.3} ms | {digest:.3} ms |");
    Ok(())
}

/// The middle time of many runs of `work`.
fn middle<T>(mut work: impl FnMut() -> Fallible<T>) -> Fallible<Duration> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        std::hint::black_box(work()?);
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[STARTS / 2])
}

/// Prints a program's line, and returns what counting its gas multiplies its time with.
fn measure(task: &Task, module: &[u8]) -> Fallible<f64> {
    let begun = Instant::now();
    let counted = Arc::new(Program::new(module)?);
    let metering = begun.elapsed();
    let (usual, plain) = (Cranelift::new(None)?, Cranelift::plain()?);
    let bare = time(&plain, Arc::new(Program::uncounted(module)?), &task.job)?;
    let gas = time(&plain, counted.clone(), &task.job)?;
    let both = time(&usual, counted, &task.job)?;
    if bare.outcome.stdout != both.outcome.stdout || bare.outcome.files != both.outcome.files {
        return Err(format!("{}: bare and counted runs differ", task.name).into());
    }
    let ratio = |run: &Timed| run.run.as_secs_f64() / bare.run.as_secs_f64();
    println!(
        "| {} | {:.1} MB | {:.2} s | {:.2} s | {:.2} s | {:.2} s | {:.2} x | {:.2} x | {:.2} G | {}, {} bytes |",
        task.name,
        module.len() as f64 / 1e6,
        metering.as_secs_f64(),
        bare.compile.as_secs_f64(),
        both.compile.as_secs_f64(),
        bare.run.as_secs_f64(),
        ratio(&gas),
        ratio(&both),
        both.outcome.gas as f64 / 1e9,
        both.outcome.exit,
        both.outcome.stdout.len()
            + both.outcome.files.iter().filter_map(|(_, file)| file.as_ref()).map(Vec::len).sum::<usize>(),
    );
    Ok(ratio(&gas))
}

struct Timed {
    compile: Duration,
    run: Duration,
    outcome: Outcome,
}

fn time(engine: &Cranelift, program: Arc<Program>, job: &Job) -> Fallible<Timed> {
    let begun = Instant::now();
    let compiled = engine.compile(program)?;
    let compile = begun.elapsed();
    let mut best: Option<Timed> = None;
    for _ in 0..RUNS {
        let begun = Instant::now();
        let outcome = engine.run(&compiled, job.clone(), Box::new(|_| ()))?;
        let run = begun.elapsed();
        if outcome.exit != Exit::Code(0) {
            return Err(format!("{}: {}", outcome.exit, String::from_utf8_lossy(&outcome.stderr)).into());
        }
        if best.as_ref().is_none_or(|best| run < best.run) {
            best = Some(Timed { compile, run, outcome });
        }
    }
    best.ok_or_else(|| "no run".into())
}

fn job(args: &[&str], files: Vec<(String, Vec<u8>)>) -> Job {
    Job {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        stdin: Vec::new(),
        files,
        gas: limits::GAS_MAX,
        pages: limits::PAGES_MAX,
        output: limits::OUTPUT_BYTES_MAX as u64,
        seed: [0; 32],
    }
}

fn tasks() -> Vec<Task> {
    let sum = "print(sum(i * i % 7 for i in range(1_000_000)))";
    let hello = "print('hello')";
    vec![
        Task { name: "CPython, hello", file: "python.wasm", job: job(&["-c", hello], Vec::new()) },
        Task { name: "CPython, a million steps", file: "python.wasm", job: job(&["-c", sum], Vec::new()) },
        Task {
            name: "resvg, 1,500 circles",
            file: "resvg.wasm",
            job: job(&["/in.svg", "/out/made.png"], vec![("/in.svg".into(), circles(1_500).into_bytes())]),
        },
        Task {
            name: "esbuild, minify 1.2 MB",
            file: "esbuild.wasm",
            job: job(
                &["--minify", "/in.js", "--outfile=/out/made.js"],
                vec![("/in.js".into(), script(12_000).into_bytes())],
            ),
        },
    ]
}

/// A picture of translucent circles.
fn circles(count: u32) -> String {
    let mut svg = String::from("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1000\" height=\"1000\">");
    for index in 0..count {
        let (x, y, r) = (index * 7919 % 1000, index * 104_729 % 1000, index % 60 + 5);
        let colour = index * 2_654_435 % 0x00ff_ffff;
        svg +=
            &format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"#{colour:06x}\" fill-opacity=\"0.5\"/>");
    }
    svg + "</svg>"
}

/// A program of many functions.
fn script(count: u32) -> String {
    (0..count)
        .map(|index| {
            format!("export function name{index}(first, second) {{\n  // a comment\n  const value = first * {index} + second;\n  return value > 10 ? value : name{}(value, first);\n}}\n", index / 2)
        })
        .collect()
}
