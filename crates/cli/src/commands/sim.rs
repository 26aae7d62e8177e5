//! `posync sim`: the economics at scale, without a network. Runs every scenario under one seed,
//! writes tables and plots, and fails unless every asserted outcome holds.

use crate::{
    failure::{Exit, Failure, Outcome},
    output::{Output, table},
};
use posync_economy::{
    Plan, plots,
    row::{Row, bound_text},
};
use serde_json::json;
use std::path::PathBuf;

/// Command-line arguments of `posync sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Sim {
    /// Directory for tables and plots
    #[arg(long, default_value = "sim", value_name = "DIR")]
    out: PathBuf,
    /// Seed of all scenarios
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Epochs of the conservation run
    #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: u64,
    /// Number of nodes at the end of the growth run, and in the year
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=100_000))]
    nodes: u64,
    /// Also run a year (365 epochs) with the most nodes; takes minutes
    #[arg(long)]
    year: bool,
}

impl Sim {
    /// Runs all scenarios; fails if an outcome does not hold.
    pub(crate) fn run(self, output: Output) -> Outcome {
        let nodes = usize::try_from(self.nodes).expect("at most 100,000");
        let plan = Plan { seed: self.seed, epochs: self.epochs, nodes, year: self.year };
        let (rows, sizes) = posync_economy::run(plan);
        let files = plots::write(&self.out, &rows, &sizes)
            .map_err(|error| Failure::file(&self.out, "write to", error))?;
        let failed: Vec<&str> = rows.iter().filter(|row| !row.holds()).map(|row| row.name.as_str()).collect();
        let value = json!({
            "seed": self.seed,
            "holds": failed.is_empty(),
            "outcomes": rows.iter().map(outcome).collect::<Vec<_>>(),
            "directory": self.out.display().to_string(),
            "files": files,
        });
        output.answer(&value, || {
            let tail = format!("{} outcomes, {} do not hold", rows.len(), failed.len());
            format!("{}\n\n{tail}; tables and plots in {}", outcomes(&rows), self.out.display())
        })?;
        if failed.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Failed,
            format!("{} of {} outcomes do not hold", failed.len(), rows.len()),
            failed.join("; "),
            "compare with the default seed; docs/simulation.md says what each outcome asserts",
        ))
    }
}

/// A row as JSON; the figure as text, because it may exceed the numbers that JSON readers keep exactly.
fn outcome(row: &Row) -> serde_json::Value {
    json!({
        "topic": row.topic,
        "name": row.name,
        "region": row.region,
        "figure": row.figure.to_string(),
        "unit": row.unit,
        "bound": bound_text(row.bound),
        "runs": row.runs.text(),
        "holds": row.holds(),
    })
}

fn outcomes(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let holds = if row.holds() { "yes" } else { "NO" };
        let figure = format!("{} {}", row.figure, row.unit);
        let runs = row.runs.text().into();
        vec![holds.into(), row.name.clone(), figure, bound_text(row.bound), runs, row.region.clone()]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    table(&["holds", "outcome", "figure", "asserted", "runs", "where"], &rows)
}
