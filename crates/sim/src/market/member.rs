//! A provider and its manner: the data it holds, and its answer when it is drawn.

use crate::ledger::Ledger;
use posync_protocol::{
    Account, AgreementId, Bounded, Class, Hash,
    audit::{Prover, Question, Share},
    operation::{
        EndedRead, MissingRead, ProvedRead, ReadAnswer, Reasked, Redemption, StillMissing, StorageProof,
    },
    record::{Audit, Challenge, DataSet, Endings, RoundInfo},
    shard,
    tree::{ShardRead, SumTree},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How a provider behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Always answers, and declares the reads that it lacks.
    Truthful,
    /// Answers only when it holds all four reads.
    OnlyWhenLucky,
    /// Never answers a challenge.
    Silent,
}

/// The promises of a provider.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How the provider behaves.
    pub(crate) manner: Manner,
    /// Number of shards in its data set; with 0 it only registers.
    pub(crate) shards: u32,
    /// Bytes of each shard.
    pub(crate) shard_bytes: u32,
    /// Epoch at which its agreement ends.
    pub(crate) end_epoch: u64,
}

impl Terms {
    /// Forty shards of 16 KiB for as long as agreements last.
    pub(crate) const fn new(manner: Manner) -> Self {
        Self { manner, shards: 40, shard_bytes: 16 << 10, end_epoch: 700 }
    }
}

/// Bytes of a shard, and the hashes that prove its leaves.
struct Shard {
    data: Vec<u8>,
    outboard: Vec<Hash>,
}

/// A provider of the market.
#[derive(Clone)]
pub(crate) struct Member {
    /// Account that it registered with.
    pub(crate) account: Account,
    /// Index of its leaf in the fee tree.
    pub(crate) index: u32,
    /// Slot of its agreement.
    pub(crate) slot: u32,
    /// Height at which the agreement was opened.
    pub(crate) opened: u64,
    /// Its manner and the size of its promise.
    pub(crate) terms: Terms,
    /// The tree of its current data set.
    pub(crate) tree: SumTree,
    /// Vouchers that its next storage proof carries.
    pub(crate) vouchers: Vec<Redemption>,
    all: Arc<Vec<(Hash, u64)>>,
    shards: Arc<BTreeMap<Hash, Shard>>,
    missing: BTreeSet<Hash>,
}

impl Member {
    pub(super) fn new(index: u32, terms: Terms) -> Self {
        let mut account = Account([100; 32]);
        account.0[..4].copy_from_slice(&index.to_be_bytes());
        let (mut shards, mut names) = (BTreeMap::new(), Vec::new());
        for number in 0..terms.shards {
            let mut data = vec![0; terms.shard_bytes as usize];
            let mut hasher = blake3::Hasher::new();
            hasher.update(&index.to_be_bytes()).update(&number.to_be_bytes());
            hasher.finalize_xof().fill(&mut data);
            let name = shard::name(&data);
            names.push((name, data.len() as u64));
            shards.insert(name, Shard { outboard: shard::outboard(&data), data });
        }
        let tree = SumTree::new(&names).expect("few short shards");
        Self {
            account,
            index,
            slot: 0,
            opened: 0,
            terms,
            tree,
            vouchers: Vec::new(),
            all: Arc::new(names),
            shards: Arc::new(shards),
            missing: BTreeSet::new(),
        }
    }

    /// Identifier of its agreement.
    pub(crate) const fn agreement(&self) -> AgreementId {
        AgreementId { provider: self.account, slot: self.slot, opened: self.opened }
    }

    pub(super) const fn quota_leaves(&self) -> u64 {
        2 * self.terms.shards as u64 * (self.terms.shard_bytes as u64).div_ceil(1024)
    }

    /// Loses `count` shards, chosen by `seed`.
    pub(crate) fn lose(&mut self, count: usize, seed: u64) {
        let mut order: Vec<(Hash, Hash)> = self
            .shards
            .keys()
            .map(|name| {
                let mut hasher = blake3::Hasher::new();
                (*hasher.update(&seed.to_be_bytes()).update(name).finalize().as_bytes(), *name)
            })
            .collect();
        order.sort_unstable();
        self.missing.extend(order.into_iter().take(count).map(|(_, name)| name));
    }

    /// Replaces its data set by its first `shards` shards, or by all of them again.
    pub(crate) fn hold(&mut self, shards: usize) {
        let names: Vec<(Hash, u64)> = self.all.iter().take(shards).copied().collect();
        self.tree = SumTree::new(&names).expect("few short shards");
    }

    /// The challenge that is open for it.
    pub(crate) fn challenge(&self, ledger: &Ledger) -> Option<Challenge> {
        ledger.record::<Audit>(Audit::key(&self.account))?.challenge
    }

    /// Its storage proof for a block of `height`; `None` if it stays silent.
    pub(crate) fn storage_proof(
        &self,
        ledger: &Ledger,
        challenge: &Challenge,
        height: u64,
    ) -> Option<StorageProof> {
        if self.terms.manner == Manner::Silent {
            return None;
        }
        let answers = self.answers(ledger, challenge)?;
        let lucky = answers.iter().all(|answer| !matches!(answer, ReadAnswer::Missing(_)));
        if self.terms.manner == Manner::OnlyWhenLucky && !lucky {
            return None;
        }
        Some(self.stating(ledger, challenge, height, answers))
    }

    /// Builds the storage proof that carries these answers.
    pub(crate) fn stating(
        &self,
        ledger: &Ledger,
        challenge: &Challenge,
        height: u64,
        answers: Vec<ReadAnswer>,
    ) -> StorageProof {
        let parameters = &ledger.parameters;
        let round = parameters.round(challenge.height);
        let anchor: Option<RoundInfo> = ledger.record(RoundInfo::key(round % parameters.round_ring));
        let audit: Audit = ledger.record(Audit::key(&self.account)).expect("a provider has its audits");
        let reasked = audit.missing.iter().map(|missing| self.ask_again(missing)).collect();
        let endings: Option<Endings> = ledger.record(Endings::key(&self.account));
        let endings = endings.iter().flat_map(|endings| endings.due(parameters.epoch(height))).collect();
        let data_set: Option<DataSet> = ledger.record(DataSet::key(&self.account, self.slot));
        let waits = data_set.is_some_and(|set| set.next.is_some());
        let apply = if waits { vec![(self.slot, super::CONSUMER, self.terms.end_epoch)] } else { Vec::new() };
        StorageProof {
            height: challenge.height,
            anchor: anchor.map_or([0; 32], |info| info.anchor),
            index: self.index,
            answers: Bounded::new(answers).expect("four reads"),
            reasked: Bounded::new(reasked).expect("as many as the record holds"),
            vouchers: Bounded::new(self.vouchers.clone()).expect("few"),
            apply: Bounded::new(apply).expect("one"),
            endings: Bounded::new(endings).expect("few"),
        }
    }

    /// Its answers to a challenge, as true as its disk allows.
    pub(crate) fn answers(&self, ledger: &Ledger, challenge: &Challenge) -> Option<Vec<ReadAnswer>> {
        let data_set: DataSet = ledger.record(DataSet::key(&self.account, self.slot)).unwrap_or_default();
        self.answers_from(ledger, challenge, data_set.current.leaves)
    }

    /// Its answers if the data set in force had `leaves` leaves.
    pub(crate) fn answers_from(
        &self,
        ledger: &Ledger,
        challenge: &Challenge,
        leaves: u64,
    ) -> Option<Vec<ReadAnswer>> {
        let share = Share {
            slot: self.slot,
            rate: u64::try_from(ledger.parameters.prices[Class::Storage]).expect("a price"),
            leaves,
            end_epoch: self.terms.end_epoch,
        };
        let mut prover = Prover::new(challenge, &self.account, &ledger.parameters, vec![share]);
        let mut answers = Vec::new();
        while let Some(question) = prover.question() {
            let answer = self.answer(&question)?;
            answers.push(answer.clone());
            prover.answer(answer);
        }
        Some(answers)
    }

    fn answer(&self, question: &Question) -> Option<ReadAnswer> {
        let place = question.place;
        if question.ended {
            return Some(ReadAnswer::Ended(EndedRead { place }));
        }
        let ShardRead { shard, length, leaf, position } = self.tree.read(question.leaf)?;
        if self.missing.contains(&shard) {
            return Some(ReadAnswer::Missing(MissingRead { place, shard, length, position }));
        }
        self.prove(&shard, leaf).map(|(bytes, path)| {
            ReadAnswer::Proved(ProvedRead { place, shard, length, position, leaf: bytes, path })
        })
    }

    fn prove<const C: usize, const P: usize>(
        &self,
        shard: &Hash,
        number: u64,
    ) -> Option<(Bounded<u8, C>, Bounded<Hash, P>)> {
        let shard = self.shards.get(shard)?;
        let start = (number * 1024 / shard::GROUP_BYTES * shard::GROUP_BYTES) as usize;
        let end = shard.data.len().min(start + shard::GROUP_BYTES as usize);
        let (bytes, path) =
            shard::prove_leaf(shard.data.len() as u64, number, &shard.data[start..end], &shard.outboard)?;
        Some((Bounded::new(bytes)?, Bounded::new(path)?))
    }

    fn ask_again(&self, missing: &posync_protocol::record::Missing) -> Reasked {
        Reasked::Missing(StillMissing { slot: missing.slot })
    }
}
