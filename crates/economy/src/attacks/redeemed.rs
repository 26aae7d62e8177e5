//! Attacks on vouchers, on the ledger itself: use that its consumer never pays for, and audits
//! without any reads.

use crate::{
    audit::Answers,
    ledger::{Bench, account, key, signed},
    row::{Row, Runs},
};
use posync_protocol::{
    Account, Body, Class, Operation, Record,
    amount::UNIT,
    limits::{AUDIT_READ_BYTES, Parameters},
    operation::{AuditCommit, AuditReveal, Report, digest_of, reveals},
    record::{Provider, Seat, ServiceRound, Usage},
};

/// Bytes that a consumer reads and signs for in a block.
const PER_BLOCK: u64 = 1 << 25;
/// Epoch in which the consumer tries to void its debt.
const ACTS: u64 = 3;
/// Epoch by which all agreements and redemptions are over.
const OVER: u64 = 10;

/// Ways in which a consumer tries to void its signed vouchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Closes the agreement alone.
    Close,
    /// Replaces its session key, and replaces it again as soon as allowed.
    Rotate,
    /// Replaces its session key, then closes.
    RotateClose,
    /// Lets the agreement end.
    End,
}

const WAYS: [Way; 4] = [Way::Close, Way::Rotate, Way::RotateClose, Way::End];

/// When the provider redeems: in epochs with `epoch % every == phase`, from block `block` of the epoch on.
#[derive(Clone, Copy, Debug)]
struct Redeems {
    every: u64,
    phase: u64,
    block: u64,
}

/// Profit of a consumer that reads all it can, signs for it, and acts in block `at` of its epoch:
/// the worth of the bytes it read, minus its loss of money.
fn voided(way: Way, at: u64, redeems: Redeems, window: u64) -> i128 {
    let mut bench = Bench::new(1, &["x", "p"]);
    bench.stage.world.parameters.redemption_epochs = window;
    bench.holder("p", Answers::Always);
    bench.play("p register");
    let before = bench.fortune(&["x"]);
    let end = if way == Way::End { ACTS + 1 } else { 40 };
    bench.play(&format!(
        "x open p quota=0 quota_egress=8000000000 quota_gas=0 rate=4000000000 reserve=1000s end={end}"
    ));
    let blocks = bench.world().parameters.epoch_blocks();
    let stops = if way == Way::End { (ACTS + 1) * blocks } else { ACTS * blocks + at };
    let opened = bench.world().height;
    let taken = |height: u64| (height.min(stops) - opened) * PER_BLOCK;
    let (mut acted, mut redeemed) = (0, 0);
    while bench.world().epoch() < OVER {
        let height = bench.world().height + 1;
        let (epoch, block) = (height / blocks, height % blocks);
        if epoch > redeemed && epoch % redeems.every == redeems.phase && block >= redeems.block {
            redeemed = epoch;
            bench.attempt(&format!("p redeem p/0 egress={}", taken(height)));
        } else if let Some(line) = way.line(acted).filter(|_| height >= stops + acted / 2 * 2 * blocks) {
            acted += 1;
            bench.attempt(line);
        } else {
            bench.block(&[]);
        }
    }
    let taken = taken(u64::MAX);
    finish(&mut bench);
    let value = u128::from(taken) * bench.world().parameters.prices[Class::Egress] / UNIT;
    signed(value) - (before - bench.fortune(&["x"]))
}

impl Way {
    /// The operations that the consumer sends, in order: two at once, the third when the first key
    /// can no longer redeem.
    fn line(self, place: u64) -> Option<&'static str> {
        let lines: &[&str] = match self {
            Self::Close => &["x closealone p/0"],
            Self::Rotate => &["x rotate p/0 second", "x rotate p/0 third", "x rotate p/0 third"],
            Self::RotateClose => &["x rotate p/0 second", "x closealone p/0"],
            Self::End => &[],
        };
        lines.get(usize::try_from(place).ok()?).copied()
    }
}

/// Removes the agreement, which frees the consumer's money.
fn finish(bench: &mut Bench) {
    let member = &bench.holders["p"].member;
    if member.agreement(bench.world(), 0).is_none() {
        return;
    }
    let settle = member.settle(bench.world(), &[0]);
    let operation = bench.stage.world.sign("x", Body::Settle(settle));
    if bench.block(&[operation]).is_empty() {
        bench.play("x close p/0 second=p");
    }
}

/// The best of [`voided`] against a provider that redeems in every `every`-th epoch.
fn voided_best(every: u64, window: u64) -> i128 {
    let last = Bench::new(1, &["x"]).world().parameters.epoch_blocks() - 1;
    let redemptions = (0..every).flat_map(|phase| [0, last].map(|block| Redeems { every, phase, block }));
    let profits = redemptions.flat_map(|redeems| {
        WAYS.into_iter().flat_map(move |way| [0, 1, last].map(|at| voided(way, at, redeems, window)))
    });
    profits.max().expect("some plans")
}

/// Auditors of the provider `p`: four seats, the first of them lazy.
const AUDITORS: [&str; 4] = ["s0", "s1", "s2", "s3"];
/// Epoch whose reads are audited.
const AUDITED: u64 = 1;
/// Number of reads in an honest audit.
const READS: u16 = 4;

/// The plan of an auditor that does not read.
#[derive(Clone, Copy, Debug)]
struct Lazy {
    /// Reads that it claims to have asked for, and how many of them it claims were correct.
    said: (u16, u16),
    /// Number of reads that it signs a voucher for.
    signs: u64,
    /// Grains that it sets aside for them.
    reserve: u128,
}

/// Price of `reads` audit reads, in grains.
fn price_of(reads: u16) -> u128 {
    u128::from(reads) * u128::from(AUDIT_READ_BYTES) * Parameters::LOCAL.prices[Class::Egress] / UNIT
}

impl Lazy {
    /// An auditor that makes the reads it reports, and pays for them.
    fn honest(reads: u16) -> Self {
        Self { said: (reads, reads), signs: reads.into(), reserve: price_of(reads) }
    }
}

/// The first auditor's money after everyone was paid. `unpaid` selects the mutant in which unpaid
/// use counts.
fn audit(seed: u64, plan: Lazy, unpaid: bool) -> i128 {
    let mut bench = Bench::new(seed, &["c", "p", "s0", "s1", "s2", "s3"]);
    AUDITORS.iter().for_each(|name| bench.stage.world.seat(name));
    bench.play("p register");
    // A consumer's fees fill the committee's pool.
    bench.play(
        "c open p slot=9 quota=0 quota_egress=64000000000 quota_gas=0 rate=4000000000 reserve=1000s end=40",
    );
    bench.run_to(AUDITED);
    bench.stage.world.draws = true;
    bench.block(&[]);
    bench.stage.world.draws = false;
    for (slot, name) in (0..).zip(AUDITORS) {
        let Lazy { signs, reserve, .. } = if slot == 0 { plan } else { Lazy::honest(READS) };
        bench.play(&format!(
            "{name} open p slot={slot} session=key{slot} quota=0 quota_egress=1000000 quota_gas=0 reserve={reserve} end=5"
        ));
        bench.attempt(&format!("p redeem p/{slot} session=key{slot} egress={}", signs * AUDIT_READ_BYTES));
    }
    if unpaid {
        give(&mut bench, u64::from(plan.said.1) * AUDIT_READ_BYTES);
    }
    bench.play("p redeem p/9 egress=4000000000");
    let reveals: Vec<(&str, AuditReveal)> = (0..)
        .zip(AUDITORS)
        .map(|(slot, name)| {
            (name, reveal(&bench, slot, name, if slot == 0 { plan.said } else { (READS, READS) }))
        })
        .collect();
    let commits: Vec<Operation> = reveals.iter().map(|(name, reveal)| commit(&bench, name, reveal)).collect();
    bench.block(&commits);
    bench.run_to(AUDITED + 1);
    let world = &bench.stage.world;
    let said: Vec<Operation> =
        reveals.into_iter().map(|(name, reveal)| world.sign(name, Body::AuditReveal(reveal))).collect();
    bench.block(&said);
    bench.run_to(AUDITED + 3);
    bench.block(&[]);
    bench.play("s0 close p/0 second=p");
    bench.fortune(&["s0"])
}

/// Counts unpaid egress in the lazy auditor's agreement.
fn give(bench: &mut Bench, egress: u64) {
    let key = Usage::key(&account("p"), 0);
    let mut usage: Usage = bench.world().get(key).expect("it is open");
    usage.redeemed.egress = usage.redeemed.egress.max(egress);
    bench.stage.world.state.insert(key, usage.to_slot());
}

/// The reveal of `name` about `p`, reporting `(asked, correct)`.
fn reveal(bench: &Bench, slot: u32, name: &str, (asked, correct): (u16, u16)) -> AuditReveal {
    let (world, provider) = (bench.world(), account("p"));
    let round: ServiceRound = world.get(ServiceRound::of(AUDITED)).expect("it was drawn");
    let index = world.get::<Provider>(Provider::key(&provider)).map_or(0, |provider| provider.index);
    let seat: Seat = world.get(Seat::key(&account(name))).expect("it has a seat");
    let stratum = round.stratum(index).expect("the only provider is drawn");
    let report = Report {
        stratum: u16::try_from(stratum).expect("few"),
        auditor: round.auditor(stratum, seat.index).expect("four seats all audit"),
        provider,
        index,
        slot,
        opened: bench.stage.id(&format!("p/{slot}")).opened,
        session_key: Account::default(),
        asked,
        answered: correct,
        correct,
        latency: 0,
        throughput: 3,
        signature: [0; 64],
    };
    let report = report.signed(&key(&format!("key{slot}")), &world.chain, AUDITED, &account(name));
    reveals(AUDITED, [9; 32], vec![report]).expect("one of a stratum").remove(0)
}

fn commit(bench: &Bench, name: &str, reveal: &AuditReveal) -> Operation {
    let digest = digest_of(core::slice::from_ref(reveal), &account(name)).expect("one batch");
    let commit = AuditCommit::signed(&key(name), &bench.world().chain, AUDITED, digest);
    bench.stage.world.sign(name, Body::AuditCommit(commit))
}

/// The best profit of an auditor that reads nothing, above reading what it reports. It signs for as
/// much as it reports, for less, or sets aside a grain; it reports the usual figures, or nothing.
fn lazy_best(seed: u64, unpaid: bool) -> i128 {
    let honest = audit(seed, Lazy::honest(READS), false);
    let all = u64::from(READS);
    let plans = [(READS, READS), (READS, 1), (READS, 0)].into_iter().flat_map(|said| {
        [(0, 0), (all, 1), (all, price_of(1)), (1, price_of(1)), (all, price_of(READS))]
            .map(|(signs, reserve)| Lazy { said, signs, reserve })
    });
    plans.map(|plan| audit(seed, plan, unpaid) - honest).max().expect("some plans")
}

/// The rows of this module.
pub(crate) fn rows(seed: u64) -> Vec<Row> {
    let once = audit(seed, Lazy::honest(1), false) - audit(seed, Lazy::honest(READS), false);
    let rows = [
        Row::attack(
            "A6 lazy auditor",
            "reads nothing; signs for all, one or none of four reads, says what everybody says, less or none",
            lazy_best(seed, false),
        ),
        Row::attack(
            "A25 close or rotate before redemption",
            "closed, rotated, both, or ended, at any time; redeemed in every epoch",
            voided_best(1, 2),
        ),
        Row::published("A6 auditor that reads once", "one read instead of four, paid for", once),
        Row::published(
            "A25 redeemed in every second epoch",
            "closed in the last block of an epoch: one whole epoch is left",
            voided_best(2, 2),
        ),
        Row::mutant("mutant: use counts unpaid", "A6", lazy_best(seed, true)),
        Row::mutant("mutant: no window to redeem", "A25", voided_best(1, 0)),
    ];
    rows.map(|row| row.runs(Runs::Ledger).unit("grains")).into()
}
