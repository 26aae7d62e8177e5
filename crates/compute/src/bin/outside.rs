//! Runs real programs, once bare and once as a lane runs them, and prints the cost of counting, of equal NaNs and of a
//! start: `cargo xtask outside` fetches the programs and starts it with their directory.
//!
//! With the argument `lane` it is a lane, for the tests of this crate.

use posync_compute::{
    Exit, Job, Outcome, Program,
    cranelift::{Compiled, Cranelift},
    lane::{self, EngineKind, Lane},
    limits,
};
use rustix::time::{ClockId, clock_gettime};
use std::{
    env, fs,
    hint::black_box,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

/// Runs of each variant; the fastest counts.
const RUNS: usize = 5;
/// Starts of each module; the middle one counts.
const STARTS: usize = 101;
/// Time within which a lane must answer.
const WITHIN: Duration = Duration::from_secs(600);
/// The smallest program: a page of memory, and a `_start` that does nothing.
const SMALLEST: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A module, and jobs that end by themselves.
struct Subject {
    name: &'static str,
    file: &'static str,
    jobs: Vec<(&'static str, Job)>,
}

/// Lines of the tables, and the number by which counting multiplies the time of each job.
#[derive(Default)]
struct Report {
    modules: String,
    runs: String,
    ratios: Vec<f64>,
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
    let mut report = Report::default();
    let mut failed = Vec::new();
    for subject in subjects() {
        let measured = match fs::read(directory.join(subject.file)) {
            Ok(module) => measure(&subject, &module, &mut report),
            Err(error) => {
                eprintln!("{} is not there: {error}", subject.name);
                continue;
            }
        };
        if let Err(error) = measured {
            eprintln!("{}: {error}", subject.name);
            failed.push(subject.name);
        }
    }
    let smallest = Subject { name: "the smallest", file: "", jobs: Vec::new() };
    measure(&smallest, SMALLEST, &mut report)?;
    let Report { modules, runs, ratios } = report;
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    println!("Seconds and milliseconds of processor time; of compiling, that of all threads.\n");
    println!("| program | bare | counted | counted, equal NaNs | gas | end |");
    println!("| --- | --: | --: | --: | --: | --- |\n{runs}");
    println!("Geometric mean of counted / bare: {mean:.2}\n");
    println!(
        "| module | bytes | check and meter | compile bare | compile | instance | start and end | of it, digest of the memory |"
    );
    println!("| --- | --: | --: | --: | --: | --: | --: | --: |\n{modules}");
    println!("The smallest through a lane, on a clock: {:.3} ms", through_a_lane()?.as_secs_f64() * 1e3);
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// Adds a module's lines to the report.
fn measure(subject: &Subject, module: &[u8], report: &mut Report) -> Fallible<()> {
    let (counted, metering) = timed(ClockId::ThreadCPUTime, || Ok(Arc::new(Program::new(module)?)))?;
    let (usual, plain) = (Cranelift::new(None)?, Cranelift::plain()?);
    let compile = |engine: &Cranelift, program: Arc<Program>| {
        timed(ClockId::ProcessCPUTime, || Ok(engine.compile(program)?))
    };
    let (bare, bare_compile) = compile(&plain, Arc::new(Program::uncounted(module)?))?;
    let (gas, _) = compile(&plain, counted.clone())?;
    let (both, both_compile) = compile(&usual, counted.clone())?;
    for (name, job) in &subject.jobs {
        let variants = [(&plain, &bare), (&plain, &gas), (&usual, &both)];
        let [bare, gas, both] = fastest(&variants, job).map_err(|error| format!("{name}: {error}"))?;
        if bare.1.stdout != both.1.stdout || bare.1.files != both.1.files {
            return Err(format!("{name}: bare and counted runs differ").into());
        }
        let ratio = |run: &(f64, Outcome)| run.0 / bare.0;
        let files = both.1.files.iter().filter_map(|(_, file)| file.as_ref());
        report.runs += &format!(
            "| {name} | {:.3} s | {:.2} x | {:.2} x | {:.2} G | {}, {} bytes |\n",
            bare.0,
            ratio(&gas),
            ratio(&both),
            both.1.gas as f64 / 1e9,
            both.1.exit,
            both.1.stdout.len() + files.map(Vec::len).sum::<usize>(),
        );
        report.ratios.push(ratio(&gas));
    }
    let mut none = job(&[], Vec::new());
    none.gas = counted.start_gas();
    let instance = middle(|| Ok(usual.instantiate(&both, none.clone())?))?;
    let start = middle(|| start(&usual, &both, &none))?;
    let memory = vec![1; counted.pages() as usize * (64 << 10)];
    let digest = middle(|| {
        black_box(blake3::hash(black_box(&memory)));
        Ok(())
    })?;
    report.modules += &format!(
        "| {} | {} | {metering:.2} s | {bare_compile:.2} s | {both_compile:.2} s | {:.3} ms | {:.3} ms | {:.3} ms |\n",
        subject.name,
        module.len(),
        instance * 1e3,
        start * 1e3,
        digest * 1e3,
    );
    Ok(())
}

/// Runs a job whose gas ends with the first instruction: a new instance, the digest of its memory, and its end.
fn start(engine: &Cranelift, compiled: &Compiled, job: &Job) -> Fallible<()> {
    match engine.run(compiled, job.clone(), Box::new(|_| ()))?.exit {
        Exit::OutOfGas => Ok(()),
        end => Err(format!("a start ended with {end}").into()),
    }
}

/// The middle time from a job of the smallest module to its outcome from a lane.
fn through_a_lane() -> Fallible<Duration> {
    let mut lane = Lane::start(&env::current_exe()?, &["lane".as_ref()])?;
    let ready = lane.ready(SMALLEST, WITHIN)?;
    let job = job(&[], Vec::new());
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        lane.run(ready, EngineKind::Cranelift, job.clone(), WITHIN, &mut |_| ())?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[STARTS / 2])
}

/// The fastest run of a job by each variant, in seconds, and its outcome. The variants take turns, so that other work
/// of the machine meets all of them.
fn fastest(variants: &[(&Cranelift, &Compiled); 3], job: &Job) -> Fallible<[(f64, Outcome); 3]> {
    let mut best = [const { None::<(f64, Outcome)> }; 3];
    for _ in 0..RUNS {
        for (best, (engine, compiled)) in best.iter_mut().zip(variants) {
            let run = || Ok(engine.run(compiled, job.clone(), Box::new(|_| ()))?);
            let (outcome, seconds) = timed(ClockId::ThreadCPUTime, run)?;
            if outcome.exit != Exit::Code(0) {
                return Err(format!("{}: {}", outcome.exit, String::from_utf8_lossy(&outcome.stderr)).into());
            }
            if best.as_ref().is_none_or(|(fastest, _)| seconds < *fastest) {
                *best = Some((seconds, outcome));
            }
        }
    }
    Ok(best.map(|best| best.expect("each variant has run")))
}

/// The middle time of many runs of `work`, in seconds.
fn middle(mut work: impl FnMut() -> Fallible<()>) -> Fallible<f64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        times.push(timed(ClockId::ThreadCPUTime, &mut work)?.1);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[STARTS / 2])
}

/// Runs `work`, and returns the seconds that it took on a clock of processor time.
fn timed<T>(clock: ClockId, work: impl FnOnce() -> Fallible<T>) -> Fallible<(T, f64)> {
    let now = || {
        let time = clock_gettime(clock);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let begun = now();
    let done = work()?;
    Ok((done, now() - begun))
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

fn subjects() -> Vec<Subject> {
    let python = |script| job(&["-c", script], Vec::new());
    let steps = "print(sum(i * i % 7 for i in range(1_000_000)))";
    let picture = vec![("/in.svg".into(), circles(1_500).into_bytes())];
    let few = vec![("/in.svg".into(), circles(300).into_bytes())];
    let source = vec![("/in.js".into(), script(12_000).into_bytes())];
    let minify = ["--minify", "/in.js", "--outfile=/out/made.js"];
    vec![
        Subject {
            name: "CPython 3.12.0",
            file: "python.wasm",
            jobs: vec![
                ("CPython, hello", python("print('hello')")),
                ("CPython, a million steps", python(steps)),
            ],
        },
        Subject {
            name: "resvg 0.31.0",
            file: "resvg.wasm",
            jobs: vec![("resvg, 1,500 circles", job(&["/in.svg", "/out/made.png"], picture.clone()))],
        },
        Subject {
            name: "esbuild 0.27.2",
            file: "esbuild.wasm",
            jobs: vec![("esbuild, minify 1.2 MB", job(&minify, source))],
        },
        Subject {
            name: "bzip2 1.0.8",
            file: "bzip2.wasm",
            jobs: vec![("bzip2, 9 MB and back", job(&[], Vec::new()))],
        },
        Subject {
            name: "SQLite",
            file: "sqlite.wasm",
            jobs: vec![("SQLite, 200,000 rows", job(&[], Vec::new()))],
        },
        Subject {
            name: "zstd 1.5.7",
            file: "zstd.wasm",
            jobs: vec![("zstd, 32 MB and back", job(&[], Vec::new()))],
        },
        Subject {
            name: "usvg 0.31.0",
            file: "usvg.wasm",
            jobs: vec![("usvg, 1,500 circles", job(&["/in.svg", "/out/made.svg"], picture.clone()))],
        },
        Subject {
            name: "svg-flatten 3.3.0",
            file: "svg-flatten.wasm",
            jobs: vec![("svg-flatten, 300 circles", job(&["/in.svg", "/out/made.gbr"], few))],
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
