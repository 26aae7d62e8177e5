//! One asserted outcome: a figure, its bound, and the region in which the bound is claimed.

use serde::Serialize;

/// The bound of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The figure is at most this value.
    AtMost(i128),
    /// The figure is at least this value.
    AtLeast(i128),
    /// The figure is positive: a mutant that the rules exclude, or a published exception.
    Positive,
    /// The figure equals this value.
    Exactly(i128),
}

/// The part of the economics that an outcome belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Honest worlds: pay, conservation and growth.
    Honest,
    /// The price controller of a class.
    Price,
    /// Sync scores and the seats that follow from them.
    Score,
    /// An attack: the figure is its profit per epoch in grains, against honesty.
    Attack,
    /// An attack that pays and is published as an exception.
    Published,
    /// A world with one rule removed, in which the attack must pay.
    Mutant,
}

/// The code that a scenario executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Runs {
    /// The ledger's own `touches` and `execute`, block by block.
    Ledger,
    /// The rules' functions over a model of members.
    Functions,
    /// A formula in the scenario itself, about rules that exist or are planned.
    Formula,
}

impl Runs {
    /// The name that reports print.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ledger => "the ledger",
            Self::Functions => "its functions",
            Self::Formula => "a formula",
        }
    }
}

/// One asserted outcome of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Part of the economics that it belongs to.
    pub topic: Topic,
    /// Short name, the attack's number first.
    pub name: String,
    /// The region in which the bound is claimed.
    pub region: String,
    /// The measured value, in `unit`.
    pub figure: i128,
    /// Unit of the figure.
    pub unit: &'static str,
    /// The bound that the figure must satisfy.
    pub bound: Bound,
    /// The code that the scenario executes.
    pub runs: Runs,
}

impl Row {
    /// A row of any topic; it runs the rules' functions.
    pub(crate) fn new(
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
    pub(crate) fn attack(name: impl Into<String>, region: impl Into<String>, profit: i128) -> Self {
        Self::new(Topic::Attack, name, region, profit, GRAINS, Bound::AtMost(0))
    }

    /// A mutant without one rule, under which the attack must pay.
    pub(crate) fn mutant(name: impl Into<String>, region: impl Into<String>, profit: i128) -> Self {
        Self::new(Topic::Mutant, name, region, profit, GRAINS, Bound::Positive)
    }

    /// An attack that pays and is published.
    pub(crate) fn published(name: impl Into<String>, region: impl Into<String>, profit: i128) -> Self {
        Self::new(Topic::Published, name, region, profit, GRAINS, Bound::Positive)
    }

    /// Sets the code that the row executes.
    pub(crate) fn runs(self, runs: Runs) -> Self {
        Self { runs, ..self }
    }

    /// Sets the unit of the figure.
    pub(crate) fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// True if the figure satisfies its bound.
    pub fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.figure <= most,
            Bound::AtLeast(least) => self.figure >= least,
            Bound::Positive => self.figure > 0,
            Bound::Exactly(value) => self.figure == value,
        }
    }
}

/// Unit of the profits of attacks.
pub(crate) const GRAINS: &str = "grains/epoch";

/// Formats a bound for a table.
pub fn bound_text(bound: Bound) -> String {
    match bound {
        Bound::AtMost(most) => format!("<= {most}"),
        Bound::AtLeast(least) => format!(">= {least}"),
        Bound::Positive => "> 0".into(),
        Bound::Exactly(value) => format!("= {value}"),
    }
}
