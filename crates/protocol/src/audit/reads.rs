//! The four dependent reads of a challenge, for who asks and for who answers.

use super::{NO_LEAF, reduce};
use crate::{
    Account, Bounded, Hash, chunk,
    limits::READS,
    operation::Answer,
    record::Challenge,
    tree::{ShardRead, SumTree},
};
use alloc::vec::Vec;

/// Walks through the reads of a challenge: [`Self::index`] is asked, [`Self::next`] goes on.
#[derive(Clone, Debug)]
pub struct Reads {
    seed: Hash,
    provider: Account,
    phi: u128,
    number: u32,
    index: u128,
}

impl Reads {
    /// The first read of a provider's challenge; `None` when it is paid for nothing.
    pub fn new(challenge: &Challenge, provider: &Account, phi: u128) -> Option<Self> {
        let index = draw(&challenge.seed, provider, 0, None, phi)?;
        Some(Self { seed: challenge.seed, provider: *provider, phi, number: 0, index })
    }

    /// Which unit of `rate x leaves`, counted over the slots in order, is read.
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
        let index = draw(&self.seed, &self.provider, self.number, Some(&leaf), self.phi)?;
        Some(Self { number, index, ..self })
    }
}

fn draw(seed: &Hash, provider: &Account, number: u32, leaf: Option<&Hash>, phi: u128) -> Option<u128> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"posync/read/1").update(seed).update(&provider.0).update(&number.to_be_bytes());
    if let Some(leaf) = leaf {
        hasher.update(leaf);
    }
    reduce(hasher.finalize(), phi)
}

/// What one slot weighs in its provider's `phi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The slot.
    pub slot: u32,
    /// The agreement's storage price at opening.
    pub rate: u64,
    /// Leaves in force (`DataSet::current`).
    pub leaves: u64,
    /// The agreement's end: reads drawn in that epoch pass without a proof.
    pub end_epoch: u64,
}

/// A read that the provider must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The slot.
    pub slot: u32,
    /// The leaf of its data set in force: [`SumTree::find`] says which chunk of which shard.
    pub leaf: u64,
    /// The agreement ended in the epoch of the draw: the answer is `Ended`, nothing else.
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
    /// For a provider's open challenge, drawn in `epoch`; `shares` are all slots with leaves, in
    /// any order.
    pub fn new(challenge: &Challenge, provider: &Account, epoch: u64, mut shares: Vec<Share>) -> Self {
        shares.sort_unstable_by_key(|share| share.slot);
        let weights = shares.iter().map(|share| u128::from(share.rate) * u128::from(share.leaves));
        let phi = weights.sum();
        Self { reads: Reads::new(challenge, provider, phi), shares, epoch, answers: Vec::new() }
    }

    /// What is asked now; `None` when all is answered.
    pub fn question(&self) -> Option<Question> {
        let mut rest = self.reads.as_ref()?.index();
        for share in &self.shares {
            let weight = u128::from(share.rate) * u128::from(share.leaves);
            if rest < weight {
                let leaf = u64::try_from(rest / u128::from(share.rate)).ok()?;
                return Some(Question { slot: share.slot, leaf, ended: share.end_epoch == self.epoch });
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
