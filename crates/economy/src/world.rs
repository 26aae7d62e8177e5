//! Members, money and the close of an epoch, computed with the rules' own functions.
//!
//! ```text
//!   deals -> split_fee -> burn, committee pool, provider        marks -> quality -> score, history
//!                                 base x least of 8 qualities = weight -> usage_pool -> pay_pool
//! ```
//!
//! **Invariant:** after every close, all money sums to the supply, to the grain.

use posync_protocol::economics::pool::{self, Payout};
use posync_protocol::{
    amount::{Amount, ONE, SYNC},
    economics::{score, split::floor_carry},
    fees::split_fee,
};

/// Epochs whose least quality weighs a provider's pay.
pub(crate) const QUALITY_EPOCHS: usize = 8;

/// The figure that caps the usage subsidy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cap {
    /// The burn of the quality-weighted base: the rule.
    Weighted,
    /// The burn of the whole base: a mutant under which paying oneself can pay off.
    Aggregate,
}

/// The parameters of epoch accounting; ratios are in parts per billion.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Share of a base that is burned.
    pub burn: u64,
    /// Share of a base that goes to the committee.
    pub committee: u64,
    /// The most subsidy per burned grain.
    pub kappa: u64,
    /// Share of the emission that may subsidise usage.
    pub gamma: u64,
    /// An epoch emits the reserve divided by this.
    pub divisor: u128,
    /// The figure that caps the subsidy.
    pub(crate) cap: Cap,
}

impl Terms {
    /// The default parameters of the network.
    pub const DEFAULT: Self = Self {
        burn: ONE / 5,
        committee: ONE / 20,
        kappa: ONE / 10 * 4,
        gamma: ONE / 2,
        divisor: 4096,
        cap: Cap::Weighted,
    };
}

/// A settled fee: payer, provider, and the provider's base (the fee at the lower price of its pair).
#[derive(Clone, Copy, Debug)]
pub struct Deal {
    /// Index of the consumer.
    pub payer: usize,
    /// Index of the provider.
    pub provider: usize,
    /// Grains that the payer paid.
    pub paid: u128,
    /// Part of `paid` that is the provider's base, in grains.
    pub base: u128,
}

impl Deal {
    /// A fee at a price that equals the slow price.
    pub const fn plain(payer: usize, provider: usize, paid: u128) -> Self {
        Self { payer, provider, paid, base: paid }
    }
}

/// Measurements of a provider in one epoch, parts per billion.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Share of drawn reads that passed.
    pub correct: u64,
    /// Share of draws that were answered in time.
    pub available: u64,
    /// Score of its read latency.
    pub latency: u64,
}

impl Mark {
    /// A provider without any fault.
    pub const PERFECT: Self = Self { correct: ONE, available: ONE, latency: ONE };

    /// A mark whose quality is about `quality`, lowered by availability alone.
    pub(crate) const fn of(quality: u64) -> Self {
        Self { correct: ONE, available: quality, latency: ONE }
    }

    /// Quality that the rules compute from the three figures.
    pub(crate) fn quality(self) -> u64 {
        score::quality(self.correct, self.available, self.latency)
    }
}

/// A provider of the model.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Grains that the provider holds.
    pub balance: u128,
    /// Sync score, parts per billion.
    pub score: u64,
    /// Qualities of the last epochs; `None` for an unmeasured epoch.
    pub history: [Option<u64>; QUALITY_EPOCHS],
    /// Weight of its share of the committee's pool.
    pub credit: u128,
}

impl Node {
    fn new(credit: u128) -> Self {
        Self { balance: 0, score: score::SCORE_START, history: [None; QUALITY_EPOCHS], credit }
    }

    fn mark(&mut self, epoch: u64, mark: Option<Mark>) {
        let quality = mark.map(Mark::quality);
        let place = usize::try_from(epoch % QUALITY_EPOCHS as u64).expect("below eight");
        self.history[place] = quality;
        let failed = mark.is_some_and(|mark| mark.correct < score::CORRECTNESS_MIN);
        self.score = score::update(self.score, quality, failed);
    }

    /// The qualities of the measured epochs.
    pub(crate) fn measured(&self) -> Vec<u64> {
        self.history.iter().flatten().copied().collect()
    }
}

/// A provider's line in the accounting of a closed epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// Sum of its settled bases, in grains.
    pub base: u128,
    /// Its part of the fees, in grains.
    pub pay: u128,
    /// The measured qualities; the least of them weighs its base.
    pub qualities: Vec<u64>,
    /// Weight in the split of the subsidy.
    pub weight: u128,
    /// Usage subsidy, in grains.
    pub subsidy: u128,
    /// Its part of the committee's pool, in grains.
    pub seat: u128,
}

/// The accounting of a closed epoch.
#[derive(Clone, Debug)]
pub struct ClosedEpoch {
    /// Reserve and carry before the close.
    pub before: (u128, u128),
    /// The fees that were settled.
    pub fees: Vec<Deal>,
    /// The usage pool, in grains.
    pub pool: u128,
    /// Grains drawn from the reserve.
    pub drawn: u128,
    /// Grains burned in this epoch.
    pub burned: u128,
    /// One line per provider.
    pub(crate) lines: Vec<Line>,
}

/// All members and all money of the model.
#[derive(Clone, Debug)]
pub struct World {
    /// The parameters of epoch accounting.
    pub terms: Terms,
    /// Grains that are not emitted yet.
    pub reserve: u128,
    /// Grains drawn and not yet paid; they are used first.
    pub carry: u128,
    /// The committee's pool between closes, in grains: the carry of its split.
    pub committee: u128,
    /// Grains burned since the start.
    pub burned: u128,
    /// Balances of the consumers, in grains.
    pub consumers: Vec<u128>,
    /// The providers, by index.
    pub(crate) nodes: Vec<Node>,
    /// Number of closed epochs.
    pub epoch: u64,
    supply: u128,
}

impl World {
    /// A world of `nodes` providers and `consumers` consumers. The first `seats` providers share
    /// the committee's pool equally. Each consumer has a billion SYNC, the reserve ten billion.
    pub fn new(terms: Terms, nodes: usize, seats: usize, consumers: usize) -> Self {
        let reserve = 10_000_000_000 * SYNC;
        let purse = 1_000_000_000 * SYNC;
        Self {
            terms,
            reserve,
            carry: 0,
            committee: 0,
            burned: 0,
            consumers: vec![purse; consumers],
            nodes: (0..nodes).map(|index| Node::new(u128::from(index < seats))).collect(),
            epoch: 0,
            supply: reserve + purse * consumers as u128,
        }
    }

    /// Adds a provider and returns its index.
    pub(crate) fn join(&mut self) -> usize {
        self.nodes.push(Node::new(0));
        self.nodes.len() - 1
    }

    /// Burns a ledger fee of a consumer.
    pub(crate) fn burn(&mut self, consumer: usize, grains: u128) {
        self.consumers[consumer] -= grains;
        self.burned += grains;
    }

    /// Sum of the balances of some providers and consumers, in grains.
    pub(crate) fn wealth(&self, nodes: &[usize], consumers: &[usize]) -> u128 {
        let nodes: u128 = nodes.iter().map(|index| self.nodes[*index].balance).sum();
        nodes + consumers.iter().map(|index| self.consumers[*index]).sum::<u128>()
    }

    /// True if all money sums to the supply.
    pub(crate) fn conserved(&self) -> bool {
        let nodes: u128 = self.nodes.iter().map(|node| node.balance).sum();
        let consumers: u128 = self.consumers.iter().sum();
        self.reserve + self.carry + self.committee + self.burned + nodes + consumers == self.supply
    }

    fn settle(&mut self, deal: &Deal, line: &mut Line) {
        let amount = |grains| Amount::new(grains).expect("below the supply");
        let (burn, committee) = (self.terms.burn, self.terms.committee);
        let split = split_fee(amount(deal.paid), amount(deal.base), burn, committee);
        let split = split.expect("the base is at most what was paid");
        self.consumers[deal.payer] -= deal.paid;
        self.nodes[deal.provider].balance += split.pay.grains();
        self.committee += split.committee.grains();
        self.burned += split.burn.grains();
        line.base += deal.base;
        line.pay += split.pay.grains();
    }

    fn subsidise(&mut self, lines: &mut [Line]) -> (u128, u128) {
        let weights: Vec<u128> = lines.iter().map(|line| line.weight).collect();
        let capped = match self.terms.cap {
            Cap::Weighted => weights.iter().sum(),
            Cap::Aggregate => lines.iter().map(|line| line.base).sum(),
        };
        let Terms { divisor, gamma, kappa, burn, .. } = self.terms;
        let (_, target) = pool::usage_pool(self.reserve, divisor, gamma, kappa, burn, capped);
        let Payout { shares, drawn, carry } = pool::pay_pool(target, self.carry, &weights);
        (self.reserve, self.carry) = (self.reserve - drawn, carry);
        for ((line, node), share) in lines.iter_mut().zip(&mut self.nodes).zip(shares) {
            line.subsidy = share;
            node.balance += share;
        }
        (target, drawn)
    }

    fn seat(&mut self, lines: &mut [Line]) {
        let credits: Vec<u128> = self.nodes.iter().map(|node| node.credit).collect();
        let (shares, left) = floor_carry(self.committee, &credits);
        self.committee = left;
        for ((line, node), share) in lines.iter_mut().zip(&mut self.nodes).zip(shares) {
            line.seat = share;
            node.balance += share;
        }
    }

    /// Closes an epoch. Providers beyond the end of `marks` are unmeasured.
    pub fn close(&mut self, deals: Vec<Deal>, marks: &[Option<Mark>]) -> ClosedEpoch {
        let (before, burned) = ((self.reserve, self.carry), self.burned);
        let mut lines = vec![Line::default(); self.nodes.len()];
        for deal in &deals {
            self.settle(deal, &mut lines[deal.provider]);
        }
        let epoch = self.epoch;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.mark(epoch, marks.get(index).copied().flatten());
            let line = &mut lines[index];
            line.qualities = node.measured();
            line.weight = pool::weight(line.base, &line.qualities);
        }
        let (pool, drawn) = self.subsidise(&mut lines);
        self.seat(&mut lines);
        self.epoch += 1;
        assert!(self.conserved(), "epoch {epoch}: money was made or lost");
        ClosedEpoch { before, fees: deals, pool, drawn, burned: self.burned - burned, lines }
    }
}
