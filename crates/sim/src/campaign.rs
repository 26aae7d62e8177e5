//! Many drawn plans, run once or twice each: reports every loss with the seed that repeats it.

use crate::{
    drawn::Kind,
    plan::Plan,
    world::{Report, run},
};
use commonware_utils::sync::Mutex;
use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The result of one seed.
#[derive(Debug)]
pub struct Seed {
    /// Seed that the plan was drawn from.
    pub seed: u64,
    /// True if the seed was run twice.
    pub twice: bool,
    /// The report of every run, or the failure.
    pub result: Result<Box<Report>, String>,
}

/// The sums of a campaign.
#[derive(Debug, Default)]
pub struct Totals {
    /// Number of seeds that were run.
    pub seeds: u64,
    /// Number of them that were run twice.
    pub twice: u64,
    /// Number of blocks, counting one run of each seed that held.
    pub blocks: u64,
    /// Number of faults by kind, counting one run of each seed that held.
    pub faults: BTreeMap<&'static str, u32>,
    /// Number of puts that were refused while the network had faults.
    pub refused: u32,
    /// Seeds that failed, with the reason.
    pub open: Vec<(u64, String)>,
}

impl Totals {
    fn add(&mut self, seed: Seed) {
        self.seeds += 1;
        self.twice += u64::from(seed.twice);
        match seed.result {
            Ok(report) => {
                self.blocks += report.height;
                self.refused += report.refused;
                for (kind, count) in report.faults {
                    *self.faults.entry(kind).or_default() += count;
                }
            }
            Err(reason) => self.open.push((seed.seed, reason)),
        }
    }

    /// Number of faults of all kinds.
    pub fn faults(&self) -> u32 {
        self.faults.values().sum()
    }
}

/// Runs the plan of a seed once, or twice: then both runs must have the same result.
pub(crate) fn judge(seed: u64, kinds: &[Kind], twice: bool) -> Seed {
    let once = || {
        let run = catch_unwind(AssertUnwindSafe(|| run(Plan::drawn_of(seed, kinds))));
        let result = run.map_err(|panic| format!("a process panicked: {}", message(&*panic)))?;
        result.map_err(|failure| failure.to_string())
    };
    let result = once().and_then(|first| match twice.then(once) {
        None => Ok(Box::new(first)),
        Some(Ok(second)) if second == first => Ok(Box::new(first)),
        Some(Ok(_)) => Err("two runs of this seed differ".into()),
        Some(Err(reason)) => Err(format!("only the second run failed: {reason}")),
    });
    Seed { seed, twice, result }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// Runs every seed on `jobs` threads, and every `again`-th one twice. The callback gets each result as it becomes
/// available.
///
/// # Panics
/// If the callback panics, or if `again` is 0.
pub fn campaign(
    seeds: Range<u64>,
    jobs: usize,
    kinds: &[Kind],
    again: u64,
    report: impl Fn(&Seed) + Sync,
) -> Totals {
    let (left, totals) = (Mutex::new(seeds), Mutex::new(Totals::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = left.lock().next();
                    let Some(seed) = next else { return };
                    let seed = judge(seed, kinds, seed % again == 0);
                    report(&seed);
                    totals.lock().add(seed);
                }
            });
        }
    });
    let mut totals = totals.into_inner();
    totals.open.sort();
    totals
}
