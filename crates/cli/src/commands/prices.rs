//! `posync prices`: the prices of storage and egress, now and in past epochs, and what moves them.
//!
//! A posted price follows use: it rises while more than the target share of the offered capacity is used,
//! and falls below that (MK-1 to MK-3). An agreement keeps the two prices at which it was opened.

use crate::{
    failure::Outcome,
    ledger::Ledger,
    net::{Access, Net},
    output::{Output, table},
    session,
};
use posync_protocol::{
    Class,
    amount::ONE,
    books::pair,
    economics::price::TARGET_FLOW,
    json::digits,
    limits::Parameters,
    record::{Books, Market},
};
use serde_json::{Value, json};

/// Most closed epochs that one answer may show.
const EPOCHS_MAX: u64 = 512;

/// The classes and the units of their prices: 2^20 leaves of 1 KiB kept for a round, 2^20 bytes sent.
const CLASSES: [(Class, &str); 2] = [(Class::Storage, "GiB and round"), (Class::Egress, "MiB")];

/// Command-line arguments of `posync prices`.
#[derive(Debug, clap::Args)]
pub(crate) struct Prices {
    /// How many closed epochs to show
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=EPOCHS_MAX))]
    epochs: u64,
}

impl Prices {
    /// Prints the posted prices and those of the newest closed epochs.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let keys = CLASSES.iter().map(|(class, ..)| Market::key(*class)).collect();
            let markets = ledger.read_all::<Market>(keys).await?;
            let epoch = ledger.parameters().epoch(ledger.height().await?);
            let keys = (epoch.saturating_sub(self.epochs)..epoch).map(Books::key).collect();
            let closed: Vec<Books> = ledger.read_all(keys).await?.into_iter().flatten().collect();
            let now: Vec<Now> = CLASSES
                .into_iter()
                .zip(markets)
                .map(|(class, market)| Now::of(class, market, ledger.parameters()))
                .collect();
            let value = json!({ "now": now.iter().map(Now::to_json).collect::<Vec<_>>(),
                "epochs": closed.iter().map(epoch_json).collect::<Vec<_>>() });
            output.answer(&value, || format!("{}\n\n{}", now_text(&now), epochs_text(&closed)))
        })
    }
}

/// The posted price of a class, and the figures that it follows.
struct Now {
    name: &'static str,
    unit: &'static str,
    target: u64,
    price: u64,
    slow: u64,
    /// Offer and use of the last closed epoch; `None` before the first epoch is closed.
    market: Option<Market>,
}

impl Now {
    fn of((class, unit): (Class, &'static str), market: Option<Market>, parameters: &Parameters) -> Self {
        let pair = pair(market.clone(), class, parameters);
        Self { name: class.name(), unit, target: TARGET_FLOW, price: pair.price, slow: pair.slow, market }
    }

    /// Used share of the offered capacity in percent, and its epoch; `None` while none is offered.
    fn used(&self) -> Option<(f64, u64)> {
        let market = self.market.as_ref().filter(|market| market.capacity > 0)?;
        Some((market.used as f64 * 100.0 / market.capacity as f64, market.epoch))
    }

    fn used_text(&self) -> String {
        match self.used() {
            Some((percent, epoch)) => format!("{percent:.1} % in epoch {epoch}"),
            None if self.market.is_none() => "no epoch is closed yet".into(),
            None => "nothing is offered".into(),
        }
    }

    fn to_json(&self) -> Value {
        let (used, epoch) = self.used().unzip();
        json!({ "class": self.name, "price": digits(&self.price), "slow_price": digits(&self.slow), "grains_per": self.unit,
            "used_percent": used, "target_percent": percent(self.target), "epoch": epoch })
    }
}

fn percent(share: u64) -> u64 {
    share / (ONE / 100)
}

fn epoch_json(books: &Books) -> Value {
    let classes = CLASSES.map(|(class, _)| {
        json!({ "class": class.name(), "price": digits(&books.prices[class]),
            "slow_price": digits(&books.slow[class]) })
    });
    json!({ "epoch": books.epoch, "classes": classes })
}

fn now_text(now: &[Now]) -> String {
    let rows = now.iter().map(|now| {
        vec![
            now.name.into(),
            now.price.to_string(),
            now.slow.to_string(),
            now.unit.into(),
            now.used_text(),
            format!("{} %", percent(now.target)),
        ]
    });
    table(&["class", "price", "slow price", "grains per", "used", "target"], &rows.collect::<Vec<_>>())
}

fn epochs_text(closed: &[Books]) -> String {
    if closed.is_empty() {
        return "no epoch is closed yet: an epoch's prices stand three epochs after it".into();
    }
    let rows = closed.iter().map(|books| {
        let pair = |class: Class| [books.prices[class].to_string(), books.slow[class].to_string()];
        let mut row = vec![books.epoch.to_string()];
        row.extend(CLASSES.iter().flat_map(|(class, ..)| pair(*class)));
        row
    });
    table(&["epoch", "storage", "slow", "egress", "slow"], &rows.collect::<Vec<_>>())
}
