//! The four dependent reads of a challenge, for who asks and for who answers.

use super::{NO_LEAF, reduce};
use crate::{
    Account, Bounded, Hash, chunk, fenwick,
    limits::{Parameters, READS},
    operation::Answer,
    record::Challenge,
    tree::{ShardRead, SumTree},
};
use alloc::vec::Vec;
use core::convert::Infallible;

/// The part of a provider's slot tree that lives in the epoch of a draw (RD-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// What all slots weigh, ended ones included.
    phi: u128,
    /// What the places before the first live one weigh.
    start: u128,
    /// What lives.
    weight: u128,
}

impl Live {
    /// Of a tree that weighs `phi` and in which the places before `place` weigh `below(place)`;
    /// first and last place as of [`fenwick::window`].
    ///
    /// # Errors
    /// What `below` returns.
    pub fn new<E>(
        phi: u128,
        (first, last): (u32, u32),
        mut below: impl FnMut(u32) -> Result<u128, E>,
    ) -> Result<Self, E> {
        let (start, end) = (below(first)?, below(last)?);
        let around = if first < last { 0 } else { phi };
        let weight = around.saturating_add(end).saturating_sub(start);
        Ok(Self { phi, start, weight })
    }

    /// What lives: sum of `rate x leaves`.
    pub const fn weight(&self) -> u128 {
        self.weight
    }

    /// Where unit `number` of what lives stands in the whole tree.
    const fn place(&self, number: u128) -> u128 {
        let to_end = self.phi.saturating_sub(self.start);
        if number < to_end { self.start.saturating_add(number) } else { number - to_end }
    }
}

/// Walks through the reads of a challenge: [`Self::index`] is asked, [`Self::next`] goes on.
#[derive(Clone, Debug)]
pub struct Reads {
    seed: Hash,
    provider: Account,
    live: Live,
    number: u32,
    index: u128,
}

impl Reads {
    /// The first read of a provider's challenge; `None` when nothing of it lives (RD-11).
    pub fn new(challenge: &Challenge, provider: &Account, live: Live) -> Option<Self> {
        let index = draw(&challenge.seed, provider, 0, None, live)?;
        Some(Self { seed: challenge.seed, provider: *provider, live, number: 0, index })
    }

    /// Which unit of `rate x leaves`, counted over the places in order, is read.
    pub const fn index(&self) -> u128 {
        self.index
    }

    /// The read after this one, which was answered with `answer`; `None` after the fourth.
    pub fn next(self, answer: &Answer) -> Option<Self> {
        let leaf = match answer {
            Answer::Proved(read) => chunk::name(&read.chunk),
            Answer::Missing(_) | Answer::Ended(_) => NO_LEAF,
        };
        let number = self.number + 1;
        ((number as usize) < READS).then_some(())?;
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

/// What one slot weighs in its provider's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The slot.
    pub slot: u32,
    /// The agreement's storage price at opening.
    pub rate: u64,
    /// Leaves in force (`DataSet::current`).
    pub leaves: u64,
    /// The agreement's end: from that epoch on nothing is drawn from it.
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
    /// The slot.
    pub slot: u32,
    /// Its place in the tree: what the answer names.
    pub place: u32,
    /// The leaf of its data set in force: [`SumTree::find`] says which chunk of which shard.
    pub leaf: u64,
    /// The agreement had ended when the challenge was drawn, and nobody cleared it until its end came
    /// round again: the answer is `Ended`, nothing else (RD-9).
    pub ended: bool,
}

/// Builds the answers of a statement: the provider looks each question up and answers it.
#[derive(Clone, Debug)]
pub struct Prover {
    reads: Option<Reads>,
    shares: Vec<Share>,
    epoch: u64,
    answers: Vec<Answer>,
}

impl Prover {
    /// For a provider's open challenge; `shares` are all slots with leaves, those that have ended
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

    /// What is asked now; `None` when all is answered.
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

    /// Answers what is asked now.
    pub fn answer(&mut self, answer: Answer) {
        self.reads = self.reads.take().and_then(|reads| reads.next(&answer));
        self.answers.push(answer);
    }

    /// The answers of the statement, once [`Self::question`] is `None`.
    pub fn finish(self) -> Option<Bounded<Answer, READS>> {
        Bounded::new(self.answers)
    }
}

impl SumTree {
    /// The shard and chunk that a question of this data set asks for, with the path to the root.
    pub fn read(&self, leaf: u64) -> Option<ShardRead> {
        let (position, chunk) = self.find(leaf)?;
        let (shard, length) = *self.shards().get(position)?;
        Some(ShardRead { shard, length, chunk, position: self.path(position)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PLACES_MAX;
    use alloc::collections::{BTreeMap, BTreeSet};
    use proptest::prelude::*;

    /// Longest agreement.
    const SPAN: u64 = 720;

    /// (end, slot, weight) of what may stand in a tree in epoch `drawn_in`: nothing ends later than the
    /// longest agreement; what ended at most 303 epochs before may not have been cleared yet.
    fn slots(drawn_in: u64) -> impl Strategy<Value = Vec<(u64, u64)>> {
        let ahead = prop_oneof![Just(1), Just(SPAN), 1..=SPAN].prop_map(move |more| drawn_in + more);
        let past =
            prop_oneof![Just(0), Just(303), 0..=303_u64].prop_map(move |less| drawn_in.saturating_sub(less));
        prop::collection::vec((prop_oneof![ahead, past], 0..6_u64), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        /// Against every unit counted one by one, in the ledger's own nodes.
        #[test]
        fn what_is_drawn_from_is_what_lives_and_each_unit_of_it_once(
            (drawn_in, ends) in (0..3_000_u64).prop_flat_map(|epoch| (Just(epoch), slots(epoch))),
            seed in any::<[u8; 32]>(),
        ) {
            let mut nodes: BTreeMap<u32, u128> = BTreeMap::new();
            let mut phi = 0;
            let shares: Vec<Share> = ends
                .iter()
                .zip(0..)
                .map(|((end_epoch, leaves), slot)| Share { slot, rate: 1, leaves: *leaves, end_epoch: *end_epoch })
                .collect();
            for share in &shares {
                phi += share.weight();
                for node in fenwick::update_path(share.place(), PLACES_MAX) {
                    *nodes.entry(node).or_default() += share.weight();
                }
            }
            let below = |place| {
                fenwick::prefix(place, (), |node| Ok(nodes.get(&node).copied().unwrap_or_default()))
            };
            let live = Live::new(phi, fenwick::window(drawn_in, SPAN), below).unwrap();
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
            // The provider's own view of it asks the same.
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
