//! The ledger's audits as an integer process: draws, four dependent reads, pending, pay.
//!
//! ```text
//!   each block, two draws: one by fee, one in turn (newcomers stand in the line twice)
//!   drawn -> four reads -> pending until answered -> pays the interval at passed / 4
//!                             `-> past its limit: expired, the interval is unpaid, four missing
//! ```
//!
//! Two mutants remove a rule each: answering becomes optional, or reads are drawn by bytes.

use crate::chance::Chance;
use posync_protocol::amount::ONE;

/// Blocks for which a challenge may stay open.
pub(crate) const PENDING_BLOCKS_MAX: u64 = 120;
/// A read that was declared missing is asked again in this many challenges.
const REASKS: u8 = 3;
const HISTORY: u32 = 64;
/// Number of agreements that make up a lot.
const AGREEMENTS: u64 = 16;

/// The rules that are in force.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// A mutant: an unanswered challenge is forgotten, and the next answer pays the interval.
    pub optional: bool,
    /// A mutant: reads are weighted by bytes.
    pub by_bytes: bool,
}

/// How a provider answers a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// It always answers, and declares the reads that are missing.
    Always,
    /// It answers only when it holds all four reads.
    Complete,
}

/// Data under one price.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lot {
    /// Fee per block, in grains.
    pub fee: u64,
    /// Number of leaves in the lot.
    pub leaves: u64,
    /// Share that the provider does not hold, parts per billion.
    pub missing: u64,
}

/// A provider under audit.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The lots that it is paid for.
    pub lots: Vec<Lot>,
    /// How it answers challenges.
    pub answers: Answers,
    /// Grains of storage fees earned, before the split.
    pub earned: u128,
    /// Grains of its bond that were paid back to the agreements.
    pub restitution: u128,
    reads: u32,
    passed: u64,
    challenge: Option<(u64, u32)>,
    settled: u64,
    remembered: Option<u8>,
    failed: u64,
    /// Number of draws so far.
    pub drawn: u64,
}

impl Member {
    /// A member with `lots` that answers as `answers` says.
    pub(crate) fn new(lots: Vec<Lot>, answers: Answers) -> Self {
        Self {
            lots,
            answers,
            earned: 0,
            restitution: 0,
            reads: 0,
            passed: 0,
            challenge: None,
            settled: 0,
            remembered: None,
            failed: 0,
            drawn: 0,
        }
    }

    /// Fee per block of all lots, in grains.
    pub(crate) fn fee(&self) -> u64 {
        self.lots.iter().map(|lot| lot.fee).sum()
    }

    /// Correctness: the share of the last 64 drawn reads that passed.
    pub(crate) fn correct(&self) -> u64 {
        if self.reads == 0 { ONE } else { u64::from(self.passed.count_ones()) * ONE / u64::from(self.reads) }
    }

    fn read(&self, chance: &mut Chance, rules: Rules) -> bool {
        let weight = |lot: &Lot| if rules.by_bytes { lot.leaves } else { lot.fee };
        let mut place = chance.below(self.lots.iter().map(weight).sum());
        let lot = self.lots.iter().find(|lot| match place.checked_sub(weight(lot)) {
            Some(rest) => {
                place = rest;
                false
            }
            None => true,
        });
        chance.below(ONE) >= lot.expect("a place below the sum").missing
    }

    fn remember(&mut self, passed: u32) {
        for read in 0..4 {
            self.passed = self.passed << 1 | u64::from(read < passed);
        }
        self.reads = (self.reads + 4).min(HISTORY);
    }

    /// A declared read stays missing: it is asked again beside three challenges, then twice its
    /// agreement's epoch fee is paid back. This happens once for each of the lot's agreements,
    /// because a read that failed for good is repaired elsewhere.
    fn reask(&mut self, passed: u32, epoch_blocks: u64) {
        self.remembered = match self.remembered {
            Some(times) if times + 1 >= REASKS => {
                let lot = self.lots.iter().filter(|lot| lot.missing > 0).map(|lot| lot.fee).max();
                let penalty = 2 * u128::from(lot.unwrap_or(0) / AGREEMENTS * epoch_blocks);
                self.restitution += if self.failed < AGREEMENTS { penalty } else { 0 };
                self.failed += 1;
                None
            }
            Some(times) => Some(times + 1),
            None => (passed < 4).then_some(0),
        };
    }

    fn draw(&mut self, height: u64, rules: Rules, epoch_blocks: u64, chance: &mut Chance) {
        if let Some((since, _)) = self.challenge {
            if height - since <= PENDING_BLOCKS_MAX {
                return;
            }
            // Expired: four reads count as missing, and the interval is unpaid.
            self.remember(0);
            self.settled = height;
            self.challenge = None;
        }
        self.drawn += 1;
        let passed: u32 = (0..4).map(|_| u32::from(self.read(chance, rules))).sum();
        if self.answers == Answers::Complete && passed < 4 {
            self.challenge = (!rules.optional).then_some((height, passed));
            return;
        }
        self.earned += u128::from(self.fee()) * u128::from(height - self.settled) * u128::from(passed) / 4;
        self.settled = height;
        self.remember(passed);
        self.reask(passed, epoch_blocks);
    }
}

/// The members of an audited network and their draws.
#[derive(Debug)]
pub(crate) struct Audits {
    /// Providers that can be drawn.
    pub members: Vec<Member>,
    rules: Rules,
    height: u64,
    turn: usize,
    epoch_blocks: u64,
    chance: Chance,
}

impl Audits {
    /// A network whose draws come from `chance`.
    pub(crate) fn new(members: Vec<Member>, rules: Rules, epoch_blocks: u64, chance: Chance) -> Self {
        Self { members, rules, height: 0, turn: 0, epoch_blocks, chance }
    }

    /// Runs one block: one draw by fee, and one in turn.
    pub(crate) fn block(&mut self) {
        self.height += 1;
        let total: u64 = self.members.iter().map(Member::fee).sum();
        let mut place = self.chance.below(total);
        let by_fee = self.members.iter().position(|member| match place.checked_sub(member.fee()) {
            Some(rest) => {
                place = rest;
                false
            }
            None => true,
        });
        self.drawn(by_fee.expect("a place below the sum"));
        self.turn = (self.turn + 1) % self.members.len();
        self.drawn(self.turn);
    }

    fn drawn(&mut self, index: usize) {
        let (height, rules, blocks) = (self.height, self.rules, self.epoch_blocks);
        self.members[index].draw(height, rules, blocks, &mut self.chance);
    }

    /// Runs the blocks of one epoch.
    pub(crate) fn epoch(&mut self) {
        for _ in 0..self.epoch_blocks {
            self.block();
        }
    }
}
