//! Mutation testing of `crates/protocol`: checks that a test fails when one place of the rules is wrong.
//!
//! ```text
//!   sources --sites--> sample by seed --schema--> one copy of the crate --cargo--> test programs
//!   for each mutant: quick tests, slow tests, golden digests; the first failure kills it
//! ```
//! All mutants of a sample are compiled into one program, and an environment variable selects one.
//! Results are kept in `<target>/mutants`, so that a stopped run can continue. `--skip PROGRAM`
//! leaves out a test program, for a quick look.

mod run;
mod schema;
mod sites;

use run::{Fate, Program};
use sites::Site;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// Files of the crate or the repository that its tests read.
const COPIED: [&str; 6] =
    ["Cargo.lock", "rustfmt.toml", "clippy.toml", ".cargo/config.toml", "crates/protocol", "fuzz/corpus"];
/// Test programs that are skipped, because they check source text and not behaviour.
const SKIPPED: [&str; 1] = ["rules"];

struct Options {
    sample: usize,
    seed: u64,
    skipped: Vec<String>,
    root: PathBuf,
    target: PathBuf,
}

fn options() -> Result<Options, String> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut options = Options { sample: 300, seed: 1, skipped: Vec::new(), root, target };
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        if name == "--skip" {
            options.skipped.push(value);
            continue;
        }
        let number: u64 = value.parse().map_err(|_| format!("{name} needs a number, not '{value}'"))?;
        match name.as_str() {
            "--sample" => options.sample = number as usize,
            "--seed" => options.seed = number,
            _ => {
                return Err(format!(
                    "unknown option '{name}'; there are --sample N, --seed N and --skip PROGRAM"
                ));
            }
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options().and_then(|options| work(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A mutant, as its file and its site.
type Mutant = (PathBuf, Site);

fn work(options: &Options) -> Result<(), String> {
    let sources = options.root.join("crates/protocol/src");
    let all = all_mutants(&sources)?;
    let mut chosen = sample(&all, options);
    println!("{} places, {} of them by seed {}", all.len(), chosen.len(), options.seed);
    let scratch = options.target.join("mutants/scratch");
    let mut programs = build(&sources, &scratch, options, &mut chosen)?;
    programs.retain(|program| !options.skipped.contains(&program.name));
    let directory = scratch.join("crates/protocol");
    let mut times = Vec::new();
    for program in &programs {
        let start = Instant::now();
        times.push((program.path.clone(), run::baseline(program, &directory)?));
        println!("{}: {:.1} s without a mutant", program.name, start.elapsed().as_secs_f64());
    }
    let batches = run::batches(&times);
    if !run::knows_switch(&batches, &directory) {
        return Err("the test programs hold no mutants: something else was built in their place".into());
    }
    judge(options, &chosen, &batches, &directory)
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

fn all_mutants(sources: &Path) -> Result<Vec<Mutant>, String> {
    let (mut paths, mut all) = (Vec::new(), Vec::new());
    files(sources, &mut paths)?;
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let relative = path.strip_prefix(sources).map_err(|error| error.to_string())?.to_path_buf();
        let found = sites::find(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        all.extend(found.into_iter().map(|site| (relative.clone(), site)));
    }
    Ok(all)
}

/// A sample of all mutants by seed: shuffles them, takes the first, and restores the order of the sources.
fn sample(all: &[Mutant], options: &Options) -> BTreeMap<u32, Mutant> {
    let (mut places, mut state) = ((0..all.len()).collect::<Vec<_>>(), options.seed.wrapping_add(1));
    for last in (1..places.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        places.swap(last, (state >> 33) as usize % (last + 1));
    }
    let mut taken = places[..options.sample.min(places.len())].to_vec();
    taken.sort_unstable();
    (1..).zip(taken.into_iter().map(|place| all[place].clone())).collect()
}

/// Contents of the copy to compile, by file: the crate in a workspace of its own.
fn copy(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("reading {}: {error}", root.display());
    let (mut copy, mut paths) = (BTreeMap::new(), Vec::new());
    for from in COPIED.map(|name| root.join(name)) {
        match from.is_dir() {
            true => files(&from, &mut paths)?,
            false => paths.extend(from.exists().then_some(from)),
        }
    }
    for path in paths {
        let name = path.strip_prefix(root).map_err(|error| error.to_string())?.to_path_buf();
        copy.insert(name, fs::read(&path).map_err(failed)?);
    }
    for name in SKIPPED {
        copy.remove(Path::new(&format!("crates/protocol/tests/{name}.rs")));
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml")).map_err(failed)?;
    let own = manifest
        .lines()
        .filter(|line| !line.starts_with("default-members") && !line.starts_with("exclude"))
        .map(|line| if line.starts_with("members") { "members = [\"crates/protocol\"]" } else { line });
    copy.insert("Cargo.toml".into(), own.collect::<Vec<_>>().join("\n").into_bytes());
    let source = Path::new("crates/protocol/src");
    let library = copy.get_mut(&source.join("lib.rs")).ok_or("crates/protocol has no src/lib.rs")?;
    let text = String::from_utf8_lossy(library).replace("#![no_std]", "#![no_std]\n#![allow(warnings)]");
    *library = format!("{text}\nmod mutant;\n").into_bytes();
    copy.insert(source.join("mutant.rs"), schema::SWITCH.into());
    Ok(copy)
}

/// Makes the directory equal to `copy`. Unchanged files keep their time, so that a continued run
/// compiles nothing again.
fn lay_out(copy: &BTreeMap<PathBuf, Vec<u8>>, scratch: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the copy in {}: {error}", scratch.display());
    for (name, bytes) in copy {
        let to = scratch.join(name);
        if fs::read(&to).is_ok_and(|there| there == *bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(scratch)).map_err(failed)?;
        fs::write(to, bytes).map_err(failed)?;
    }
    let mut there = Vec::new();
    files(scratch, &mut there)?;
    let stale =
        there.iter().filter(|path| path.strip_prefix(scratch).is_ok_and(|name| !copy.contains_key(name)));
    stale.filter(|path| !path.ends_with("proptest-regressions")).try_for_each(fs::remove_file).map_err(failed)
}

/// Writes the mutants into the copy. Returns the written texts by file.
fn write(
    copy: &mut BTreeMap<PathBuf, Vec<u8>>,
    sources: &Path,
    chosen: &BTreeMap<u32, Mutant>,
) -> Result<BTreeMap<PathBuf, String>, String> {
    let mut written = BTreeMap::new();
    let of: BTreeSet<&PathBuf> = chosen.values().map(|(path, _)| path).collect();
    for path in of {
        let text = fs::read_to_string(sources.join(path)).map_err(|error| error.to_string())?;
        let own = chosen.iter().filter(|(_, (file, _))| file == path);
        let numbered: Vec<schema::Numbered<'_>> = own.map(|(number, (_, site))| (*number, site)).collect();
        let text = schema::render(&text, &numbered);
        copy.insert(Path::new("crates/protocol/src").join(path), text.clone().into_bytes());
        written.insert(path.clone(), text);
    }
    Ok(written)
}

/// Compiles the copy, and removes the mutants that do not compile.
fn build(
    sources: &Path,
    scratch: &Path,
    options: &Options,
    chosen: &mut BTreeMap<u32, Mutant>,
) -> Result<Vec<Program>, String> {
    for _ in 0..20 {
        let mut copy = copy(&options.root)?;
        let written = write(&mut copy, sources, chosen)?;
        lay_out(&copy, scratch)?;
        let output = Command::new("nice")
            .args([
                "-n",
                "19",
                "cargo",
                "test",
                "--no-run",
                "--package",
                "posync-protocol",
                "--lib",
                "--tests",
            ])
            .args(["--jobs", "1", "--message-format", "short"])
            .current_dir(scratch)
            // A separate directory, because cargo gives the programs of the copy and of the crate
            // the same names.
            .env("CARGO_TARGET_DIR", options.target.join("mutants/build"))
            .stdout(Stdio::null())
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let told = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(programs(&told));
        }
        let wrong = wrong(&told, &written);
        if wrong.is_empty() {
            return Err(format!("the copy does not compile:\n{told}"));
        }
        println!("{} do not compile and are left out", wrong.len());
        chosen.retain(|number, _| !wrong.contains(number));
    }
    Err("after 20 rounds there are still mutants that do not compile".into())
}

/// Lines around an error that are searched if its own line holds no mutant. The compiler reports a
/// removed storage proof where its value is used.
const NEAR: usize = 12;

/// Parses `crates/protocol/src/a.rs:12:34: error..` into the mutants on those lines, else those near them.
fn wrong(told: &str, written: &BTreeMap<PathBuf, String>) -> BTreeSet<u32> {
    let errors = told.lines().filter(|line| line.contains(" error"));
    let places = errors.filter_map(|line| {
        let (path, rest) = line.split_once(":")?;
        let path = path.strip_prefix("crates/protocol/src/").or_else(|| path.strip_prefix("src/"))?;
        Some((PathBuf::from(path), rest.split(':').next()?.parse::<usize>().ok()?))
    });
    let blamed = places.filter_map(|(path, line)| {
        let text = written.get(&path)?;
        let own = schema::blamed(text, line);
        let near = || (line.saturating_sub(NEAR)..line + NEAR).flat_map(|line| schema::blamed(text, line));
        Some(if own.is_empty() { near().collect() } else { own })
    });
    blamed.flatten().collect()
}

/// Parses `  Executable tests/economics.rs (target/debug/deps/economics-0123)`.
fn programs(told: &str) -> Vec<Program> {
    let executables = told.lines().filter(|line| line.trim_start().starts_with("Executable"));
    let paths = executables.filter_map(|line| line.rsplit_once('(')?.1.strip_suffix(')'));
    let mut programs: Vec<Program> = paths
        .map(|path| {
            let stem = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _)| name).to_string();
            Program { path: PathBuf::from(path), name }
        })
        .collect();
    programs.sort_by_key(|program| (program.name == "scenarios", program.name.clone()));
    programs
}

fn judge(
    options: &Options,
    chosen: &BTreeMap<u32, Mutant>,
    batches: &[run::Batch],
    directory: &Path,
) -> Result<(), String> {
    // Results of a part of the tests are kept apart: a mutant that survives it may not survive all.
    let part = if options.skipped.is_empty() { "" } else { "-part" };
    let path = options.target.join(format!("mutants/results-{}{part}.tsv", options.seed));
    let before = fs::read_to_string(&path).unwrap_or_default();
    let known: BTreeMap<&str, &str> = before.lines().filter_map(|line| line.split_once('\t')).collect();
    let mut file =
        fs::OpenOptions::new().create(true).append(true).open(&path).map_err(|error| error.to_string())?;
    let (start, mut killed, mut survived, mut ran) = (Instant::now(), 0, Vec::new(), 0_u32);
    println!("| mutant | change | killed by |\n| --- | --- | --- |");
    for (number, (file_name, site)) in chosen {
        let name = format!("{}:{}:{}", file_name.display(), site.line, site.column);
        let key = format!("{name} {}", site.change);
        let told = match known.get(key.as_str()) {
            Some(told) => (*told).to_string(),
            None => {
                ran += 1;
                let told = match run::fate(*number, batches, directory) {
                    Fate::Killed(test) => format!("`{test}`"),
                    Fate::Hung(place) => format!("hung: {place}"),
                    Fate::Survived => "SURVIVED".into(),
                };
                writeln!(file, "{key}\t{told}").map_err(|error| error.to_string())?;
                told
            }
        };
        println!("| {name} | {} | {told} |", site.change);
        if told == "SURVIVED" { survived.push(key) } else { killed += 1 }
    }
    let each = start.elapsed().as_secs_f64() / f64::from(ran.max(1));
    println!("\n{killed} of {} killed, {each:.1} s each; survivors:", chosen.len());
    survived.iter().for_each(|key| println!("- {key}"));
    println!("kept in {}", path.display());
    Ok(())
}
