//! The four dependent reads of a challenge, for the ledger that asks and the provider that answers.

use super::{NO_LEAF, reduce};
use crate::{
    Account, Bounded, Hash,
    bodies::ReadAnswer,
    fenwick,
    limits::{Parameters, READS},
    record::Challenge,
    shard,
    tree::{ShardRead, SumTree},
};
use alloc::vec::Vec;
use core::convert::Infallible;

/// The part of a provider's slot tree that lives in the epoch of a draw (RD-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Weight of all slots, ended ones included.
    slot_weight: u128,
    /// Weight of the places before the first live one.
    start: u128,
    /// Weight of the live places.
    weight: u128,
}

impl Live {
    /// Builds the live part of a tree that weighs `slot_weight` (phi in RD-12) and whose places before `place`
    /// weigh `below(place)`; first and last place as of [`fenwick::window`].
    ///
    /// # Errors
    /// The errors of `below`.
    pub fn new<E>(
        slot_weight: u128,
        (first, last): (u32, u32),
        mut below: impl FnMut(u32) -> Result<u128, E>,
    ) -> Result<Self, E> {
        let (start, end) = (below(first)?, below(last)?);
        let around = if first < last { 0 } else { slot_weight };
        let weight = around.saturating_add(end).saturating_sub(start);
        Ok(Self { slot_weight, start, weight })
    }

    /// The live weight: sum of `rate x leaves`.
    pub const fn weight(&self) -> u128 {
        self.weight
    }

    /// The unit of the whole tree that is unit `number` of the live part.
    const fn place(&self, number: u128) -> u128 {
        let to_end = self.slot_weight.saturating_sub(self.start);
        if number < to_end { self.start.saturating_add(number) } else { number - to_end }
    }
}

/// Walks through the reads of a challenge: [`Self::index`] is the current one, [`Self::next`] goes on.
#[derive(Clone, Debug)]
pub struct Reads {
    seed: Hash,
    provider: Account,
    live: Live,
    number: u32,
    index: u128,
}

impl Reads {
    /// The first read of a provider's challenge; `None` if nothing of the provider lives (RD-11).
    pub fn new(challenge: &Challenge, provider: &Account, live: Live) -> Option<Self> {
        let index = draw(&challenge.seed, provider, 0, None, live)?;
        Some(Self { seed: challenge.seed, provider: *provider, live, number: 0, index })
    }

    /// The unit of `rate x leaves`, counted over the places in order, that is read.
    pub const fn index(&self) -> u128 {
        self.index
    }

    /// The read after this one, given the `answer` to this one; `None` after the fourth.
    pub fn next(self, answer: &ReadAnswer) -> Option<Self> {
        let leaf = match answer {
            ReadAnswer::Proved(read) => shard::name(&read.leaf),
            ReadAnswer::Missing(_) | ReadAnswer::Ended(_) => NO_LEAF,
        };
        let number = self.number + 1;
        (crate::number::index(number) < READS).then_some(())?;
        let index = draw(&self.seed, &self.provider, self.number, Some(&leaf), self.live)?;
        Some(Self { number, index, ..self })
    }
}

fn draw(seed: &Hash, provider: &Account, number: u32, leaf: Option<&Hash>, live: Live) -> Option<u128> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"posync/read/1").update(seed).update(&provider.0).update(&number.to_be_bytes());
    if let Some(leaf) = leaf {
        hasher.update(leaf);
    }
    reduce(hasher.finalize(), live.weight).map(|number| live.place(number))
}

/// The weight of one slot in its provider's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The slot of the agreement at its provider.
    pub slot: u32,
    /// The agreement's storage price at opening.
    pub rate: u64,
    /// Leaves in force (`DataSet::current`).
    pub leaves: u64,
    /// The agreement's end: from that epoch on it is not drawn.
    pub end_epoch: u64,
}

impl Share {
    const fn place(&self) -> u32 {
        fenwick::place(self.end_epoch, self.slot)
    }

    fn weight(&self) -> u128 {
        u128::from(self.rate).saturating_mul(u128::from(self.leaves))
    }
}

/// A read that the provider must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The slot of the agreement that is read.
    pub slot: u32,
    /// The place of the slot in the tree, which the answer names.
    pub place: u32,
    /// The leaf of its data set in force: [`SumTree::find`] gives the shard and the leaf's number in it.
    pub leaf: u64,
    /// True if the agreement had ended when the challenge was drawn and was not cleared before its end came
    /// round again: the answer is `Ended`, nothing else (RD-9).
    pub ended: bool,
}

/// Builds the answers of a storage proof: the provider looks up each question and answers it.
#[derive(Clone, Debug)]
pub struct Prover {
    reads: Option<Reads>,
    shares: Vec<Share>,
    epoch: u64,
    answers: Vec<ReadAnswer>,
}

impl Prover {
    /// Prepares the answers to a provider's open challenge. `shares` are all slots with leaves, ended ones
    /// included, in any order.
    pub fn new(
        challenge: &Challenge,
        provider: &Account,
        parameters: &Parameters,
        mut shares: Vec<Share>,
    ) -> Self {
        shares.sort_unstable_by_key(Share::place);
        let epoch = parameters.epoch(challenge.height);
        let (first, last) = fenwick::window(epoch, parameters.agreement_epochs_max);
        let sum = |kept: &dyn Fn(&Share) -> bool| {
            let kept = shares.iter().filter(|share| kept(share));
            kept.fold(0_u128, |sum, share| sum.saturating_add(share.weight()))
        };
        let below = |place| Ok(sum(&|share| share.place() < place));
        let live: Result<Live, Infallible> = Live::new(sum(&|_| true), (first, last), below);
        let reads = live.ok().and_then(|live| Reads::new(challenge, provider, live));
        Self { reads, shares, epoch, answers: Vec::new() }
    }

    /// The read to answer now; `None` when all are answered.
    pub fn question(&self) -> Option<Question> {
        let mut rest = self.reads.as_ref()?.index();
        for share in &self.shares {
            let weight = share.weight();
            if rest < weight {
                let leaf = u64::try_from(rest / u128::from(share.rate)).ok()?;
                let (slot, place, ended) = (share.slot, share.place(), share.end_epoch <= self.epoch);
                return Some(Question { slot, place, leaf, ended });
            }
            rest -= weight;
        }
        None
    }

    /// Records the answer to the current question.
    pub fn answer(&mut self, answer: ReadAnswer) {
        self.reads = self.reads.take().and_then(|reads| reads.next(&answer));
        self.answers.push(answer);
    }

    /// The answers of the storage proof, once [`Self::question`] is `None`.
    pub fn finish(self) -> Option<Bounded<ReadAnswer, READS>> {
        Bounded::new(self.answers)
    }
}

impl SumTree {
    /// The shard and leaf that a question of this data set asks for, with the path to the root.
    pub fn read(&self, leaf: u64) -> Option<ShardRead> {
        let (position, leaf) = self.find(leaf)?;
        let (shard, length) = *self.shards().get(position)?;
        Some(ShardRead { shard, length, leaf, position: self.path(position)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PLACES_MAX;
    use alloc::collections::{BTreeMap, BTreeSet};
    use proptest::prelude::*;

    /// Longest term of an agreement, in epochs.
    const SPAN: u64 = 720;

    /// (end, slot, weight) of the slots that may stand in a tree in epoch `drawn_in`: none ends later than
    /// the longest agreement, and one that ended at most 303 epochs before may not have been cleared yet.
    fn slots(drawn_in: u64) -> impl Strategy<Value = Vec<(u64, u64)>> {
        let ahead = prop_oneof![Just(1), Just(SPAN), 1..=SPAN].prop_map(move |more| drawn_in + more);
        let past =
            prop_oneof![Just(0), Just(303), 0..=303_u64].prop_map(move |less| drawn_in.saturating_sub(less));
        prop::collection::vec((prop_oneof![ahead, past], 0..6_u64), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        /// Compares with a count of every unit one by one, in the ledger's own nodes.
        #[test]
        fn what_is_drawn_from_is_what_lives_and_each_unit_of_it_once(
            (drawn_in, ends) in (0..3_000_u64).prop_flat_map(|epoch| (Just(epoch), slots(epoch))),
            seed in any::<[u8; 32]>(),
        ) {
            let mut nodes: BTreeMap<u32, u128> = BTreeMap::new();
            let mut slot_weight = 0;
            let shares: Vec<Share> = ends
                .iter()
                .zip(0..)
                .map(|((end_epoch, leaves), slot)| Share { slot, rate: 1, leaves: *leaves, end_epoch: *end_epoch })
                .collect();
            for share in &shares {
                slot_weight += share.weight();
                for node in fenwick::update_path(share.place(), PLACES_MAX) {
                    *nodes.entry(node).or_default() += share.weight();
                }
            }
            let below = |place| {
                fenwick::prefix(place, (), |node| Ok(nodes.get(&node).copied().unwrap_or_default()))
            };
            let live = Live::new(slot_weight, fenwick::window(drawn_in, SPAN), below).unwrap();
            let lives = |share: &&Share| share.end_epoch > drawn_in;
            let expected: u128 = shares.iter().filter(lives).map(Share::weight).sum();
            prop_assert_eq!(live.weight(), expected);
            let mut drawn = BTreeSet::new();
            for number in 0..expected {
                let at = live.place(number);
                let owner = shares.iter().find(|share| {
                    below(share.place()).unwrap() <= at && at < below(share.place() + 1).unwrap()
                });
                prop_assert!(owner.is_some_and(|owner| owner.end_epoch > drawn_in), "unit {} has ended", at);
                prop_assert!(drawn.insert(at), "unit {} is drawn twice", at);
            }
            // The provider computes the same reads from its own records.
            let parameters = Parameters { agreement_epochs_max: SPAN, ..Parameters::LOCAL };
            let challenge = Challenge { height: drawn_in * parameters.epoch_blocks(), seed, by_fee: false };
            let provider = Account([9; 32]);
            let asked = Reads::new(&challenge, &provider, live);
            let prover = Prover::new(&challenge, &provider, &parameters, shares.clone());
            prop_assert_eq!(asked.is_some(), prover.question().is_some());
            if let (Some(asked), Some(question)) = (asked, prover.question()) {
                prop_assert_eq!(below(question.place).unwrap() + u128::from(question.leaf), asked.index());
                prop_assert!(!question.ended);
            }
        }
    }
}
