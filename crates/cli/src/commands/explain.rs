//! `posync explain reward`: a provider's pay for an epoch, line by line. Every line names
//! its formula, its inputs, its rounding and the block that it comes from, and is computed
//! once more here, so that a reader with paper can follow each one.

mod faults;
mod service;

use self::service::Service;
use super::recompute::sealing_block;
use crate::{
    failure::{Exit, Failure, Outcome},
    ledger::Ledger,
    net::{Access, Net},
    output::{Output, table},
    session,
};
use faults::Faults;
use posync_protocol::{
    Account, Amount,
    amount::{ONE, mul_div},
    economics::{pool, score},
    ledger::Event,
    limits::{Parameters, SETTLEMENT_RING},
    record::{Books, Provider, QUALITIES, Settlement, UNMEASURED},
};
use serde_json::{Value, json};

/// Command-line arguments of `posync explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Explain a provider's pay for an epoch
    Reward {
        /// The provider: `sync1...`, a member's name such as provider-3, or its operator
        provider: String,
        /// The epoch; its books must be closed
        epoch: u64,
    },
}

impl Explain {
    /// Prints the computation; fails if a line differs from the ledger's record.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        let What::Reward { provider, epoch } = self.what;
        let account = net.resolve(&provider)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let reward = explain(&ledger, &account, epoch).await?;
            output.answer(&reward.to_json(), || reward.to_text())?;
            reward.judge()
        })
    }
}

/// One step of the computation.
struct Line {
    /// The name of the figure.
    name: &'static str,
    /// The formula with this provider's numbers.
    formula: String,
    /// The result of the formula.
    value: u128,
    /// The same figure in the ledger's record.
    recorded: u128,
    /// The block in which the ledger computed it.
    block: u64,
}

/// A fee that was settled in the epoch.
struct Fee {
    block: u64,
    what: String,
    fee: Amount,
    burn: Amount,
    committee: Amount,
    pay: Amount,
}

/// A provider's pay for an epoch, with the lines that lead to it.
pub(crate) struct Reward {
    account: Account,
    epoch: u64,
    fees: Vec<Fee>,
    /// Reports of auditors about the provider.
    service: Service,
    lines: Vec<Line>,
    /// Rounds and challenges that the histories leave out for network faults.
    faults: Faults,
    /// The sum of its pay for the epoch.
    amount: Amount,
    /// Amounts that its consumers signed for, and that it claimed beyond: shown, but not part of its pay.
    signed: [Amount; 2],
}

/// Heights at which the books of an epoch are computed, step by step.
struct Times {
    measured: u64,
    pooled: u64,
    paid: u64,
    sealed: u64,
}

impl Times {
    fn new(parameters: &Parameters, epoch: u64, index: u32) -> Self {
        let first = |ahead: u64| (epoch + ahead) * parameters.epoch_blocks();
        let slice = parameters.round_blocks + u64::from(index) / parameters.closing_slice;
        Self { measured: first(1) + slice, pooled: first(2), paid: first(2) + slice, sealed: first(3) }
    }
}

/// Computes the pay of `account` for `epoch`, with all its lines.
pub(crate) async fn explain(ledger: &Ledger, account: &Account, epoch: u64) -> Outcome<Reward> {
    let parameters = *ledger.parameters();
    let missing =
        |what: &str, why: String, next: &str| Failure::new(Exit::NotFound, what.to_owned(), why, next);
    let Some(provider) = ledger.read::<Provider>(Provider::key(account)).await? else {
        let next = "see `posync providers`";
        return Err(missing("there is no such provider", format!("{account} is none"), next));
    };
    sealing_block(ledger, epoch).await?;
    let Some(books) = ledger.read::<Books>(Books::key(epoch)).await? else {
        let why = "the node that answered is a block behind".to_owned();
        return Err(missing("the epoch's books are not there yet", why, "repeat the command"));
    };
    let rows = rows(ledger, account, epoch).await?;
    let Some(row) = rows.first().cloned().flatten() else {
        let why = format!("{account} has none for epoch {epoch}; rows stay for {SETTLEMENT_RING} epochs");
        return Err(missing("there is no such row", why, "name an epoch in which it was registered"));
    };
    let times = Times::new(&parameters, epoch, provider.index);
    let mut lines = Vec::new();
    let (fees, faults) = fees(ledger, account, epoch).await?;
    sum_fees(&mut lines, &fees, &row, &parameters, epoch);
    let service = Service::read(ledger, account, epoch, &times).await?;
    service.lines(&mut lines, &row, &times);
    measure(&mut lines, &row, &rows, &times);
    share(&mut lines, &row, &books, &parameters, &times);
    let amount = row.pay.checked_add(row.subsidy).unwrap_or(Amount::MAX);
    let signed = [row.signed, row.disputed];
    Ok(Reward { account: *account, epoch, fees, service, lines, faults, amount, signed })
}

/// The rows of `epoch` and of the earlier epochs whose qualities count, newest first.
async fn rows(ledger: &Ledger, account: &Account, epoch: u64) -> Outcome<Vec<Option<Settlement>>> {
    let epochs: Vec<u64> = (epoch.saturating_sub(QUALITIES as u64 - 1)..=epoch).rev().collect();
    let keys = epochs.iter().map(|epoch| Settlement::key(account, epoch % SETTLEMENT_RING)).collect();
    let found = ledger.read_all::<Settlement>(keys).await?;
    Ok(found.into_iter().zip(epochs).map(|(row, epoch)| row.filter(|row| row.epoch == epoch)).collect())
}

/// The provider's fees of the epoch and its excused answers, from the epoch's blocks.
async fn fees(ledger: &Ledger, account: &Account, epoch: u64) -> Outcome<(Vec<Fee>, Faults)> {
    let blocks = ledger.parameters().epoch_blocks();
    let (mut found, mut faults) = (Vec::new(), Faults::default());
    for height in (epoch * blocks).max(1)..(epoch + 1) * blocks {
        for event in ledger.block(height).await?.events {
            faults.enter(height, account, &event);
            let Event::Settled { provider, agreement, fee, burn, committee, pay, .. } = event else {
                continue;
            };
            if provider == *account {
                let what = agreement.map_or("storage".to_owned(), |id| format!("download, slot {}", id.slot));
                found.push(Fee { block: height, what, fee, burn, committee, pay });
            }
        }
    }
    Ok((found, faults))
}

fn sum_fees(lines: &mut Vec<Line>, fees: &[Fee], row: &Settlement, parameters: &Parameters, epoch: u64) {
    let last = (epoch + 1) * parameters.epoch_blocks() - 1;
    let parts = [
        ("fees", row.fee, "sum of what consumers paid in"),
        ("burned", row.burn, "sum of up(20 % of base) + (fee - base) over"),
        ("committee", row.committee, "sum of floor(5 % of base) over"),
        ("provider's part", row.pay, "sum of fee - burned - committee over"),
    ];
    for ((name, recorded, what), part) in parts.into_iter().zip(0..) {
        let of = |fee: &Fee| [fee.fee, fee.burn, fee.committee, fee.pay][part].grains();
        let value = fees.iter().map(of).sum();
        let formula = format!("{what} {} settlements (above)", fees.len());
        lines.push(Line { name, formula, value, recorded: recorded.grains(), block: last });
    }
}

fn measure(lines: &mut Vec<Line>, row: &Settlement, rows: &[Option<Settlement>], times: &Times) {
    let mut add = |name, formula, value, recorded| {
        lines.push(Line { name, formula, value, recorded, block: times.measured });
    };
    let (a, l) = (row.available.ppb(), row.latency.ppb());
    let classes = row.correct.iter();
    let classes = classes.filter_map(|(class, c)| Some((class.name(), c.measured()?)));
    let mut qualities = Vec::new();
    for (class, c) in classes {
        let cc = times_ratio(c, c);
        let cca = times_ratio(cc, a);
        let q = if c < score::CORRECTNESS_MIN { 0 } else { times_ratio(cca, (ONE + l) / 2) };
        qualities.push((class, c, q));
    }
    let words = qualities.iter().map(|(class, c, q)| format!("{class}: C {c}, A {a}, L {l} -> {q}"));
    let words = words.collect::<Vec<_>>().join("; ");
    let least = qualities.iter().map(|(_, _, q)| *q).min();
    let formula = match least {
        Some(_) => format!(
            "least of floor(floor(floor(C x C) x A) x floor((ONE + L) / 2)), 0 if C < 0.9 ONE: {words}"
        ),
        None => "no read was drawn and no auditor reported: not measured".to_owned(),
    };
    add("quality", formula, least.unwrap_or(UNMEASURED).into(), row.quality.ppb().into());
    let recent: Vec<u64> = rows.iter().flatten().filter_map(|row| row.quality.measured()).collect();
    let lowest = recent.iter().copied().min().unwrap_or(0);
    let listed = recent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let formula = format!("least quality of the last {QUALITIES} epochs, unmeasured ones left out: {listed}");
    add("least quality", formula, lowest.into(), row.least.ppb().into());
    let formula = format!("floor(base {} x least quality {lowest} / ONE)", row.base.grains());
    let weight = mul_div(row.base.grains(), lowest.into(), ONE.into()).unwrap_or(u128::MAX);
    add("weight", formula, weight, row.weight);
}

fn times_ratio(a: u64, b: u64) -> u64 {
    u64::try_from(u128::from(a) * u128::from(b) / u128::from(ONE)).unwrap_or(u64::MAX)
}

fn share(lines: &mut Vec<Line>, row: &Settlement, books: &Books, parameters: &Parameters, times: &Times) {
    let part = |whole: u128, share: u64| mul_div(whole, share.into(), ONE.into()).unwrap_or(u128::MAX);
    let (usage, cap) = (parameters.usage_share, parameters.subsidy_cap);
    let emitted = part(books.emission.grains(), usage);
    let capped = part(part(books.weight, parameters.burn), cap);
    lines.push(Line {
        name: "pool",
        formula: format!(
            "least of floor({usage} x emission {} / ONE) = {emitted} and floor({cap} x floor({} x W {} / ONE) / ONE) = {capped}",
            books.emission.grains(),
            parameters.burn,
            books.weight
        ),
        value: emitted.min(capped),
        recorded: books.pool.grains(),
        block: times.pooled,
    });
    lines.push(Line {
        name: "subsidy",
        formula: format!("floor(pool {} x weight {} / W {})", books.pool.grains(), row.weight, books.weight),
        value: pool::share(books.pool.grains(), row.weight, books.weight),
        recorded: row.subsidy.grains(),
        block: times.paid,
    });
    lines.push(Line {
        name: "paid in all",
        formula: format!("provider's part {} + subsidy {}", row.pay.grains(), row.subsidy.grains()),
        value: row.pay.grains() + row.subsidy.grains(),
        recorded: row.pay.checked_add(row.subsidy).unwrap_or(Amount::MAX).grains(),
        block: times.sealed,
    });
}

impl Reward {
    fn holds(&self) -> bool {
        self.lines.iter().all(|line| line.value == line.recorded)
    }

    fn judge(&self) -> Outcome {
        if self.holds() {
            return Ok(());
        }
        let wrong = self.lines.iter().filter(|line| line.value != line.recorded).map(|line| line.name);
        let why = format!("not what its inputs give: {}", wrong.collect::<Vec<_>>().join(", "));
        let next = "compare with `posync recompute`, and report this with the blocks";
        Err(Failure::new(Exit::Failed, "a figure cannot be explained", why, next))
    }

    fn to_json(&self) -> Value {
        let fees: Vec<Value> = self
            .fees
            .iter()
            .map(|fee| {
                json!({ "block": fee.block, "what": fee.what, "fee": fee.fee, "burn": fee.burn,
                    "committee": fee.committee, "provider_pay": fee.pay })
            })
            .collect();
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                json!({ "name": line.name, "formula": line.formula, "block": line.block,
                    "value": line.value.to_string(), "recorded": line.recorded.to_string() })
            })
            .collect();
        json!({ "provider": self.account, "epoch": self.epoch, "amount": self.amount,
            "signed": self.signed[0], "disputed": self.signed[1],
            "fees": fees, "reports": self.service.to_json(), "lines": lines, "faults": self.faults.to_json(),
            "holds": self.holds() })
    }

    fn to_text(&self) -> String {
        let fees: Vec<Vec<String>> = self
            .fees
            .iter()
            .map(|fee| {
                let grains =
                    [fee.fee, fee.burn, fee.committee, fee.pay].map(|amount| amount.grains().to_string());
                [fee.block.to_string(), fee.what.clone()].into_iter().chain(grains).collect()
            })
            .collect();
        let mut text = format!("{} in epoch {}: {} SYNC\n\n", self.account, self.epoch, self.amount);
        text += &table(&["block", "settled", "fee", "burned", "committee", "provider"], &fees);
        text += &signed_text(self.signed);
        text += &self.service.to_text();
        text += &self.faults.to_text();
        text += "\n\n(amounts in grains, ratios in parts per billion: ONE = 1000000000)\n";
        for line in &self.lines {
            let verdict = if line.value == line.recorded { "" } else { "  THE LEDGER SAYS " };
            let other = if verdict.is_empty() { String::new() } else { line.recorded.to_string() };
            text += &format!(
                "{:<16} {}{verdict}{other}\n                   = {}   (block {})\n",
                line.name,
                number(line.value),
                line.formula,
                line.block
            );
        }
        text
    }
}

/// Signed and disputed amounts in words.
fn signed_text([signed, disputed]: [Amount; 2]) -> String {
    let beyond = if disputed == Amount::ZERO {
        "it claimed nothing beyond that".to_owned()
    } else {
        let (signed, disputed) = (signed.grains(), disputed.grains());
        let of_all = mul_div(signed, 100, signed.saturating_add(disputed)).unwrap_or(0);
        format!("it claimed {disputed} more (disputed), never paid; {of_all} % of all was signed for")
    };
    format!("\n\nits consumers signed for {} grains; {beyond}", signed.grains())
}

/// A number in digits, or "not measured".
fn number(value: u128) -> String {
    if value == u128::from(UNMEASURED) { "not measured".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::signed_text;
    use posync_protocol::Amount;

    #[test]
    fn what_was_disputed_is_told_in_words() {
        let amount = |grains| Amount::new(grains).expect("little");
        let text = signed_text([amount(900), Amount::ZERO]);
        assert!(text.ends_with("signed for 900 grains; it claimed nothing beyond that"), "{text}");
        let text = signed_text([amount(900), amount(100)]);
        assert!(text.contains("claimed 100 more (disputed), never paid; 90 % of all"), "{text}");
    }
}
