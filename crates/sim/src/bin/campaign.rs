//! The program behind `cargo xtask campaign`: runs whole networks from seeds, once or twice each, or one network in
//! which an authority that lost its disk is far behind.

use posync_sim::{
    campaign::{Seed, campaign},
    drawn::Kind,
    plan::Plan,
    world::run,
};
use std::{env, ops::Range, process::ExitCode, thread, time::Instant};

const USAGE: &str =
    "usage: campaign --seeds A..B [--jobs N] [--again N] [--only KIND,...] [--without KIND,...] [--show]
       campaign --behind BLOCKS

  kinds: lagging any-order paused majority lying disk failing slow
  --again runs every N-th seed twice, and compares the runs; 1, each, is the default
  --show prints the steps of each seed and runs nothing
  --behind runs four authorities: one loses its disk, comes back so many blocks later with its keys alone, follows, and
  signs again while another one is down
  RUST_LOG=info tells what happens, for a single seed";

struct Options {
    seeds: Range<u64>,
    jobs: usize,
    kinds: Vec<Kind>,
    again: u64,
    show: bool,
    /// Blocks that the authority of a plan without drawn faults is behind.
    behind: Option<u64>,
}

fn parse(arguments: &[String]) -> Option<Options> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut options =
        Options { seeds: 0..0, jobs, kinds: Kind::ALL.to_vec(), again: 1, show: false, behind: None };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        if name == "--show" {
            options.show = true;
            continue;
        }
        let value = rest.next()?;
        match name.as_str() {
            "--seeds" => {
                let (from, to) = value.split_once("..")?;
                options.seeds = from.parse().ok()?..to.parse().ok()?;
            }
            "--jobs" => options.jobs = value.parse().ok().filter(|jobs| (1..=256).contains(jobs))?,
            "--again" => options.again = value.parse().ok().filter(|again| *again > 0)?,
            "--only" => options.kinds = kinds(value)?,
            "--behind" => options.behind = Some(value.parse().ok()?),
            "--without" => {
                let without = kinds(value)?;
                options.kinds.retain(|kind| !without.contains(kind));
            }
            _ => return None,
        }
    }
    let has_work = options.behind.is_some() || !options.seeds.is_empty();
    (has_work && !options.kinds.is_empty()).then_some(options)
}

fn kinds(names: &str) -> Option<Vec<Kind>> {
    names.split(',').map(|name| Kind::ALL.into_iter().find(|kind| kind.name() == name)).collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some(options) = parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if options.show {
        for seed in options.seeds {
            println!("seed {seed}");
            let steps = Plan::drawn_of(seed, &options.kinds).steps;
            steps.iter().for_each(|step| println!("  {step:?}"));
        }
        return ExitCode::SUCCESS;
    }
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let start = Instant::now();
    if let Some(blocks) = options.behind {
        return behind(blocks, start);
    }
    let totals = campaign(options.seeds, options.jobs, &options.kinds, options.again, print);
    let seconds = start.elapsed().as_secs_f64();
    for (kind, count) in &totals.faults {
        println!("  {count:>6} {kind}");
    }
    println!("  {} puts refused while the network was not well", totals.refused);
    println!(
        "  {} blocks; {} of the seeds run twice; {:.3} seeds a second",
        totals.blocks,
        totals.twice,
        totals.seeds as f64 / seconds
    );
    for (seed, reason) in &totals.open {
        println!("  OPEN seed {seed}: {reason}");
    }
    println!("{} seeds, {} faults, {} open", totals.seeds, totals.faults(), totals.open.len());
    if totals.open.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the plan in which an authority is so many blocks behind.
fn behind(blocks: u64, start: Instant) -> ExitCode {
    let result = run(Plan::behind(1, blocks));
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(report) => {
            println!(
                "an authority that lost its disk was {blocks} blocks behind, and signs while another one is down: block {} is \
                 final and in the stores of all three; {seconds:.0} s",
                report.height
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("OPEN after {seconds:.0} s: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn print(seed: &Seed) {
    match &seed.result {
        Ok(report) => {
            let faults: u32 = report.faults.values().sum();
            println!("seed {}: {} blocks, {faults} faults, holds", seed.seed, report.height);
        }
        Err(reason) => println!("seed {}: OPEN: {reason}", seed.seed),
    }
}
