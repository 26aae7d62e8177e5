//! The table at the end of `cargo xtask test`: each part, its result and its time.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// The parts that ran or were skipped, in order.
#[derive(Default)]
pub(crate) struct Summary {
    rows: Vec<Part>,
}

struct Part {
    name: String,
    outcome: Outcome,
}

enum Outcome {
    Passed(Duration),
    Failed(Duration),
    /// Not run, with the reason.
    Skipped(String),
}

impl Summary {
    /// Runs a part and records its time; returns true if it passed.
    pub(crate) fn time(&mut self, name: &str, part: impl FnOnce() -> bool) -> bool {
        let start = Instant::now();
        let passed = part();
        let time = start.elapsed();
        let outcome = if passed { Outcome::Passed(time) } else { Outcome::Failed(time) };
        self.rows.push(Part { name: name.into(), outcome });
        passed
    }

    /// Records that a part cannot run on this machine.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        self.rows.push(Part { name: name.into(), outcome: Outcome::Skipped(reason.into()) });
    }

    fn total(&self) -> Duration {
        let times = self.rows.iter().filter_map(|row| match row.outcome {
            Outcome::Passed(time) | Outcome::Failed(time) => Some(time),
            Outcome::Skipped(_) => None,
        });
        times.sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default().max("total".len());
        let line = |f: &mut fmt::Formatter<'_>, name: &str, result: &str, time: Duration| {
            writeln!(f, "  {name:width$}  {result:7}  {:7.1} s", time.as_secs_f64())
        };
        for row in &self.rows {
            match &row.outcome {
                Outcome::Passed(time) => line(f, &row.name, "passed", *time)?,
                Outcome::Failed(time) => line(f, &row.name, "FAILED", *time)?,
                Outcome::Skipped(reason) => writeln!(f, "  {:width$}  skipped  {reason}", row.name)?,
            }
        }
        line(f, "total", "", self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_result_and_time() {
        let timed = |name: &str, outcome| Part { name: name.into(), outcome };
        let mut summary = Summary {
            rows: vec![
                timed("format", Outcome::Passed(Duration::from_millis(1_500))),
                timed("history, as released", Outcome::Failed(Duration::from_secs(93))),
            ],
        };
        summary.skip("fuzzing", "no compiler");
        let expected = "  format                passed       1.5 s
  history, as released  FAILED      93.0 s
  fuzzing               skipped  no compiler
  total                             94.5 s
";
        assert_eq!(summary.to_string(), expected);
    }

    #[test]
    fn a_part_that_fails_is_recorded() {
        let mut summary = Summary::default();
        assert!(summary.time("a", || true));
        assert!(!summary.time("b", || false));
        assert!(summary.to_string().contains("FAILED"));
    }
}
