//! One asserted outcome: a figure, what it must satisfy, and where that is claimed.

use serde::Serialize;

/// What a figure must satisfy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// At most this.
    AtMost(i128),
    /// At least this.
    AtLeast(i128),
    /// Above zero: a mutant that the rules exclude, or an exception that is published.
    Positive,
    /// Exactly this.
    Exactly(i128),
}

/// Which part of the economics an outcome belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Honest worlds.
    Honest,
    /// The price controller.
    Price,
    /// Scores and seats.
    Score,
    /// An attack: the figure is its profit per epoch in grains, against honesty.
    Attack,
    /// An attack that pays and is published as such.
    Published,
    /// A rule taken out: the attack must pay.
    Mutant,
}

/// What a scenario executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Runs {
    /// The ledger's own `touches` and `execute`, block by block.
    Ledger,
    /// The rules' functions over a model of members.
    Functions,
    /// Arithmetic of its own, about what the rules say or will say.
    Formula,
}

impl Runs {
    /// The word of the reports.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ledger => "the ledger",
            Self::Functions => "its functions",
            Self::Formula => "a formula",
        }
    }
}

/// An asserted outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Part of the economics.
    pub topic: Topic,
    /// Short name, the attack's number first.
    pub name: String,
    /// The region in which the bound is claimed.
    pub region: String,
    /// The figure.
    pub figure: i128,
    /// Its unit.
    pub unit: &'static str,
    /// What it must satisfy.
    pub bound: Bound,
    /// What it executes.
    pub runs: Runs,
}

impl Row {
    /// A row of any topic.
    pub fn new(
        topic: Topic,
        name: impl Into<String>,
        region: impl Into<String>,
        figure: i128,
        unit: &'static str,
        bound: Bound,
    ) -> Self {
        Self { topic, name: name.into(), region: region.into(), figure, unit, bound, runs: Runs::Functions }
    }

    /// An attack that must not pay.
    pub fn attack(name: impl Into<String>, region: impl Into<String>, profit: i128) -> Self {
        Self::new(Topic::Attack, name, region, profit, GRAINS, Bound::AtMost(0))
    }

    /// A mutant of a rule, under which the attack must pay.
    pub fn mutant(name: impl Into<String>, region: impl Into<String>, profit: i128) -> Self {
        Self::new(Topic::Mutant, name, region, profit, GRAINS, Bound::Positive)
    }

    /// An attack that pays, and is published.
    pub fn published(name: impl Into<String>, region: impl Into<String>, profit: i128) -> Self {
        Self::new(Topic::Published, name, region, profit, GRAINS, Bound::Positive)
    }

    /// The same row, told what it executes.
    pub fn runs(self, runs: Runs) -> Self {
        Self { runs, ..self }
    }

    /// The same row with a figure of another unit.
    pub fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// Whether the figure satisfies its bound.
    pub fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.figure <= most,
            Bound::AtLeast(least) => self.figure >= least,
            Bound::Positive => self.figure > 0,
            Bound::Exactly(value) => self.figure == value,
        }
    }
}

/// The unit of profits.
pub const GRAINS: &str = "grains/epoch";

/// The bound, for a table.
pub fn bound_text(bound: Bound) -> String {
    match bound {
        Bound::AtMost(most) => format!("<= {most}"),
        Bound::AtLeast(least) => format!(">= {least}"),
        Bound::Positive => "> 0".into(),
        Bound::Exactly(value) => format!("= {value}"),
    }
}
