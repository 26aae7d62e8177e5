//! Members, money and one epoch's close, with the rules' own functions.
//!
//! ```text
//!   deals -> split_fee -> burn, committee pool, provider        marks -> quality -> score, history
//!                                 base x least of 8 qualities = weight -> usage_pool -> pay_pool
//! ```
//!
//! **Invariant:** after every close, everything that exists sums to the supply, to the grain.

use posync_protocol::economics::pool::{self, Payout};
use posync_protocol::{
    amount::{Amount, ONE, SYNC},
    economics::{score, split::floor_carry},
    fees::split_fee,
};

/// Epochs over which the least quality weighs pay.
pub const QUALITY_EPOCHS: usize = 8;

/// What caps the usage subsidy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// The burn of the quality-weighted base: the rule.
    Weighted,
    /// The burn of the whole base: a mutant under which paying oneself can win.
    Aggregate,
}

/// The parameters of the books, ratios in parts per billion.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Burned share.
    pub burn: u64,
    /// Committee's share.
    pub committee: u64,
    /// Subsidy over burn.
    pub kappa: u64,
    /// Usage part of the emission.
    pub gamma: u64,
    /// Epochs' emission is the reserve over this.
    pub divisor: u128,
    /// The subsidy's cap.
    pub cap: Cap,
}

impl Terms {
    /// The defaults of the economics.
    pub const DEFAULT: Self = Self {
        burn: ONE / 5,
        committee: ONE / 20,
        kappa: ONE / 10 * 4,
        gamma: ONE / 2,
        divisor: 4096,
        cap: Cap::Weighted,
    };
}

/// A settled fee: who pays whom, and the provider's base (the fee at the lower price of its pair).
#[derive(Clone, Copy, Debug)]
pub struct Deal {
    /// Index of the consumer.
    pub payer: usize,
    /// Index of the provider.
    pub provider: usize,
    /// Grains paid.
    pub paid: u128,
    /// Of them, the provider's base.
    pub base: u128,
}

impl Deal {
    /// A fee at a price that equals the slow price.
    pub const fn plain(payer: usize, provider: usize, paid: u128) -> Self {
        Self { payer, provider, paid, base: paid }
    }
}

/// What an epoch measured of a provider, parts per billion.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Passed share of drawn reads.
    pub correct: u64,
    /// On-time share.
    pub available: u64,
    /// Latency score.
    pub latency: u64,
}

impl Mark {
    /// Nothing to complain about.
    pub const PERFECT: Self = Self { correct: ONE, available: ONE, latency: ONE };

    /// A mark whose quality is about `quality`: through availability alone.
    pub const fn of(quality: u64) -> Self {
        Self { correct: ONE, available: quality, latency: ONE }
    }

    /// Its quality.
    pub fn quality(self) -> u64 {
        score::quality(self.correct, self.available, self.latency)
    }
}

/// A provider.
#[derive(Clone, Debug)]
pub struct Node {
    /// Grains it holds.
    pub balance: u128,
    /// Its sync score.
    pub score: u64,
    /// Qualities of the last epochs; unmeasured ones are left out.
    pub history: [Option<u64>; QUALITY_EPOCHS],
    /// Its share of the committee's credits.
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

    /// The qualities that count.
    pub fn measured(&self) -> Vec<u64> {
        self.history.iter().flatten().copied().collect()
    }
}

/// One provider's line of a closed epoch.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Settled base.
    pub base: u128,
    /// Its part of the fees.
    pub pay: u128,
    /// The qualities that weighed it.
    pub qualities: Vec<u64>,
    /// Weight in the subsidy.
    pub weight: u128,
    /// Subsidy.
    pub subsidy: u128,
    /// Of the committee's pool.
    pub seat: u128,
}

/// A closed epoch.
#[derive(Clone, Debug)]
pub struct Books {
    /// Reserve and carry when it began to close.
    pub before: (u128, u128),
    /// Fees, and the base that a mutant's cap looks at.
    pub fees: Vec<Deal>,
    /// The usage pool.
    pub pool: u128,
    /// Drawn from the reserve.
    pub drawn: u128,
    /// Burned in this epoch.
    pub burned: u128,
    /// One line for each provider.
    pub lines: Vec<Line>,
}

/// Everything that exists.
#[derive(Clone, Debug)]
pub struct World {
    /// The parameters.
    pub terms: Terms,
    /// Not yet emitted.
    pub reserve: u128,
    /// Drawn and not yet paid, used first.
    pub carry: u128,
    /// The committee's pool: its floor carry.
    pub committee: u128,
    /// Gone.
    pub burned: u128,
    /// Consumers' purses.
    pub consumers: Vec<u128>,
    /// Providers.
    pub nodes: Vec<Node>,
    /// Epochs closed.
    pub epoch: u64,
    supply: u128,
}

impl World {
    /// `nodes` providers, of which the first `seats` share the committee's pool equally, and
    /// `consumers` with a billion SYNC each; ten billion in the reserve.
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

    /// A provider joins; the newcomer's index.
    pub fn join(&mut self) -> usize {
        self.nodes.push(Node::new(0));
        self.nodes.len() - 1
    }

    /// A consumer burns a fee of the ledger.
    pub fn burn(&mut self, consumer: usize, grains: u128) {
        self.consumers[consumer] -= grains;
        self.burned += grains;
    }

    /// What a group of providers and consumers holds.
    pub fn wealth(&self, nodes: &[usize], consumers: &[usize]) -> u128 {
        let nodes: u128 = nodes.iter().map(|index| self.nodes[*index].balance).sum();
        nodes + consumers.iter().map(|index| self.consumers[*index]).sum::<u128>()
    }

    /// Whether everything sums to the supply.
    pub fn conserved(&self) -> bool {
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

    /// Closes an epoch. `marks` beyond the given ones are unmeasured.
    pub fn close(&mut self, deals: Vec<Deal>, marks: &[Option<Mark>]) -> Books {
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
        Books { before, fees: deals, pool, drawn, burned: self.burned - burned, lines }
    }
}
