//! Attacks with names and seats, on the ledger itself: reputation that outlives its owner, and
//! evidence against oneself.

use crate::{
    audit::Answers,
    ledger::{Bench, account, shards},
    row::{Row, Runs},
};
use posync_protocol::{
    Class, Record,
    economics::slash::REPORTER_DIVISOR,
    ledger::Event,
    record::{Reputation, Seat},
};

/// Storage price at which a few leaves are worth more than an operation's fee.
const PRICE: u128 = 1 << 44;
/// Egress that the new name's consumer redeems in an epoch, in bytes.
const EGRESS: u64 = 1 << 32;
const EPOCHS: u64 = 4;

/// The successor of a provider that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heir {
    /// A new account at another index: the base of the comparison.
    Nobody,
    /// The same account, registered again.
    Itself,
    /// A new account at the old provider's index.
    Index,
}

/// Money of an owner whose provider served well and left, and that registers again `gap` epochs
/// later. `keeps` selects the mutant in which the newcomer inherits the reputation of the provider
/// that left.
fn heir(seed: u64, heir: Heir, gap: u64, keeps: bool) -> i128 {
    let mut bench = Bench::new(seed, &["a", "c", "o", "n", "g"]);
    bench.stage.world.parameters.prices[Class::Storage] = PRICE;
    for name in ["o", "g"] {
        bench.provider(name, Answers::Always);
        bench.play(&format!(
            "c open {name} quota=64 quota_egress=0 quota_gas=0 reserve=0 end=60 storage_max=100000s"
        ));
        bench.store("c", name, 0, &shards(1, 4, 4096));
    }
    bench.stage.world.draws = true;
    bench.play("o leave");
    bench.run_to(4 + bench.world().parameters.exit_epochs);
    bench.close("c", "o", &[0]);
    let left = reputation(&bench, "o").expect("it is registered");
    while bench.attempt("o leave") != "Done" {
        let next = bench.world().epoch() + 1;
        bench.run_to(next);
    }
    bench.stage.world.draws = true;
    let back = bench.world().epoch() + gap;
    bench.run_to(back);
    let name = if heir == Heir::Itself { "o" } else { "n" };
    if heir != Heir::Index {
        // Another account takes the vacant index first, or a different one.
        let others = ["a register", &format!("{name} register")].map(str::to_owned);
        let order = if heir == Heir::Nobody { [0, 1] } else { [1, 0] };
        order.into_iter().for_each(|place| bench.play(&others[place]));
    } else {
        bench.play("n register\n a register");
    }
    if keeps && heir != Heir::Nobody {
        bench.stage.world.state.insert(Reputation::key(&account(name)), left.to_slot());
    }
    serve(&mut bench, name);
    bench.fortune(&["o", "n"])
}

fn reputation(bench: &Bench, name: &str) -> Option<Reputation> {
    bench.world().get(Reputation::key(&account(name)))
}

/// The consumer reads from the newcomer, which redeems in every epoch.
fn serve(bench: &mut Bench, name: &str) {
    bench.play(&format!(
        "c open {name} slot=1 quota=0 quota_egress={} rate={EGRESS} reserve=1000s end=90",
        EGRESS * 8
    ));
    for epoch in 1..=EPOCHS {
        bench.play(&format!("{name} redeem {name}/1 egress={}", epoch * EGRESS));
        let next = bench.world().epoch() + 1;
        bench.run_to(next);
    }
    let paid = bench.world().epoch() + 3;
    bench.run_to(paid);
}

/// The best profit of inheriting, per epoch, above coming as a new account.
fn inherited(seed: u64, keeps: bool) -> i128 {
    let plans = (0..4).flat_map(|gap| [Heir::Itself, Heir::Index].map(|who| (who, gap)));
    let profit = |(who, gap)| heir(seed, who, gap, keeps) - heir(seed, Heir::Nobody, gap, keeps);
    plans.map(profit).max().expect("some plans") / i128::from(EPOCHS)
}

/// A plan by which an owner of seats reports itself.
#[derive(Clone, Copy, Debug)]
struct Fault {
    seats: usize,
    offenders: usize,
    /// Number of epochs in which each offends.
    epochs: u64,
    /// Epochs between an offence and its report.
    delay: u64,
}

/// Profit of an owner of all offenders that reports them itself. `generous` selects the mutant in
/// which the reporter gets a quarter of the bond instead of a quarter of the slashed amount.
fn self_slash(plan: Fault, generous: bool) -> i128 {
    let names: Vec<String> = (0..plan.seats).map(|seat| format!("s{seat}")).collect();
    let mut actors = vec!["r"];
    actors.extend(names.iter().map(String::as_str));
    let mut bench = Bench::new(1, &actors);
    names.iter().for_each(|name| bench.stage.world.seat(name));
    let before = bench.fortune(&actors);
    bench.run_to(1);
    for epoch in 1..=plan.epochs {
        let term = bench.world().parameters.epoch_rounds / bench.world().parameters.term_rounds * epoch;
        bench.run_to(epoch + plan.delay);
        for seat in 0..plan.offenders {
            report(&mut bench, seat, term, generous);
        }
    }
    let closed = bench.world().epoch() + 4;
    bench.run_to(closed);
    bench.fortune(&actors) - before
}

/// Submits evidence against a seat.
fn report(bench: &mut Bench, seat: usize, term: u64, generous: bool) {
    let name = format!("s{seat}");
    let bond = bench.world().get::<Seat>(Seat::key(&account(&name))).map_or(0, |seat| seat.bond.grains());
    let line = bench.evidence("r", &name, term);
    bench.block(&[line]);
    let taken = bench.world().events.iter().find_map(|event| match event {
        Event::Slashed { amount, .. } => Some(amount.grains()),
        _ => None,
    });
    if let (true, Some(taken)) = (generous, taken) {
        bench.grant("r", (bond - taken) / REPORTER_DIVISOR);
    }
}

/// The best profit of reporting oneself.
fn self_slash_best(generous: bool) -> i128 {
    let sizes = [(4, 1), (4, 4), (16, 1), (16, 6), (64, 1)];
    let plans = sizes.into_iter().flat_map(|(seats, offenders)| {
        [(1, 0), (2, 0), (1, 3)].map(|(epochs, delay)| Fault { seats, offenders, epochs, delay })
    });
    plans.map(|plan| self_slash(plan, generous)).max().expect("some plans")
}

/// The rows of this module.
pub(crate) fn rows(seed: u64) -> Vec<Row> {
    let rows = [
        Row::attack(
            "A14 slot inheritance",
            "the same account or the same index, 0 to 3 epochs after the exit",
            inherited(seed, false),
        ),
        Row::attack(
            "A15 self-slash",
            "1 to all of 4 to 64 seats, one or two faults, reported at once or late",
            self_slash_best(false),
        )
        .unit("grains"),
        Row::mutant("mutant: reputation outlives the exit", "A14", inherited(seed, true)),
        Row::mutant("mutant: a quarter of the bond to the reporter", "A15", self_slash_best(true))
            .unit("grains"),
    ];
    rows.map(|row| row.runs(Runs::Ledger)).into()
}
