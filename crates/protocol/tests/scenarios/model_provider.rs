//! A provider as the rules see it: it keeps real bytes, signs data sets, and proves drawn leaves.

use super::world::{World, account, key};
use posync_protocol::{
    AgreementId, Bounded, Class, Hash,
    audit::{Prover, Question, Share},
    block::with_chain,
    limits::ENDINGS_MAX,
    operation::{
        DATA_SET_NAMESPACE, DataSetClaim, EndedRead, FoundRead, MissingRead, ProvedRead, ReadAnswer, Reasked,
        SetDataSet, Settle, StillMissing, StorageProof, sign,
    },
    record::{Agreement, Audit, DataSet, Endings, Missing, Provider, RoundInfo, Version},
    shard,
    tree::SumTree,
};
use std::collections::{BTreeMap, BTreeSet};

/// The data of a provider, and the leaves that it lost.
#[derive(Clone, Default)]
pub(crate) struct ModelProvider {
    pub(crate) name: String,
    /// Number of slots that it watches, from 0.
    pub(crate) slots: u32,
    /// Every tree that it signed, by root.
    trees: BTreeMap<Hash, SumTree>,
    shards: BTreeMap<Hash, Vec<u8>>,
    /// Leaves that it no longer has, by shard and number.
    pub(crate) lost: BTreeSet<(Hash, u64)>,
}

/// `length` bytes, derived from `seed`.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
    let mut bytes = vec![0; length];
    reader.fill(&mut bytes);
    bytes
}

impl ModelProvider {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.into(), slots: 8, ..Self::default() }
    }

    pub(crate) fn audit(&self, world: &World) -> Audit {
        world.get(Audit::key(&account(&self.name))).unwrap_or_default()
    }

    pub(crate) fn provider(&self, world: &World) -> Provider {
        world.get(Provider::key(&account(&self.name))).expect("it is registered")
    }

    pub(crate) fn agreement(&self, world: &World, slot: u32) -> Option<Agreement> {
        world.get(Agreement::key(&account(&self.name), slot))
    }

    pub(crate) fn data_set(&self, world: &World, slot: u32) -> DataSet {
        world.get(DataSet::key(&account(&self.name), slot)).unwrap_or_default()
    }

    fn tree(&self, version: &Version) -> SumTree {
        self.trees.get(&version.root).cloned().unwrap_or_default()
    }

    /// Removes shards from the newest data set of a slot, and adds others. Both sides sign.
    pub(crate) fn change(
        &mut self,
        world: &World,
        slot: u32,
        removes: &[u32],
        adds: &[Vec<u8>],
    ) -> SetDataSet {
        let data_set = self.data_set(world, slot);
        let last = data_set.next.unwrap_or(data_set.current);
        self.sign(world, slot, (last.root, last.version + 1), removes, adds)
    }

    /// Signs, with the consumer, any version on top of any set that it signed before. The pair is
    /// the root of the old set and the version of the new one.
    pub(crate) fn sign(
        &mut self,
        world: &World,
        slot: u32,
        (root, version): (Hash, u64),
        removes: &[u32],
        adds: &[Vec<u8>],
    ) -> SetDataSet {
        let mut tree = self.trees.get(&root).cloned().unwrap_or_default();
        let named: Vec<(Hash, u64)> =
            adds.iter().map(|data| (shard::name(data), data.len() as u64)).collect();
        for (data, (name, _)) in adds.iter().zip(&named) {
            self.shards.insert(*name, data.clone());
        }
        tree.change(removes, &named).expect("positions and lengths that fit");
        let set = self.claim(world, slot, version, &tree);
        self.trees.insert(tree.root(), tree);
        set
    }

    /// Deletes every set but these, and the shards that none of them contains.
    pub(crate) fn prune(&mut self, kept: &BTreeSet<Hash>) {
        self.trees.retain(|root, _| kept.contains(root));
        let named: BTreeSet<Hash> =
            self.trees.values().flat_map(|tree| tree.shards().iter().map(|(name, _)| *name)).collect();
        self.shards.retain(|name, _| named.contains(name));
    }

    /// Signs a claim with both keys.
    pub(crate) fn claim(&self, world: &World, slot: u32, version: u64, tree: &SumTree) -> SetDataSet {
        let provider = account(&self.name);
        let terms = self.agreement(world, slot);
        let opened = terms.as_ref().map_or(0, |terms| terms.opened);
        let claim = DataSetClaim {
            agreement: AgreementId { provider, slot, opened },
            version,
            root: tree.root(),
            leaves: tree.leaves(),
            bytes: tree.bytes(),
        };
        let signed = |name: &str| sign(&key(name), DATA_SET_NAMESPACE, &with_chain(&world.chain, &claim));
        SetDataSet {
            claim,
            index: self.provider(world).index,
            end_epoch: terms.map_or(0, |terms| terms.end_epoch),
            storage_key: account("storage"),
            consumer_signature: signed("storage"),
            provider_signature: Some(signed(&self.name)),
        }
    }

    /// The weights of its slots, as the provider computes them.
    pub(crate) fn shares(&self, world: &World) -> Vec<Share> {
        let share = |slot| {
            let terms = self.agreement(world, slot)?;
            let leaves = self.data_set(world, slot).current.leaves;
            Some(Share { slot, rate: terms.prices[Class::Storage].price, leaves, end_epoch: terms.end_epoch })
        };
        (0..self.slots).filter_map(share).filter(|share| share.leaves > 0).collect()
    }

    /// The storage proof for the open challenge, if one is open.
    pub(crate) fn storage_proof(&self, world: &World) -> Option<StorageProof> {
        let (provider, audit) = (self.provider(world), self.audit(world));
        let challenge = audit.challenge?;
        let parameters = &world.parameters;
        let mut prover = Prover::new(&challenge, &account(&self.name), parameters, self.shares(world));
        while let Some(question) = prover.question() {
            prover.answer(self.answer(world, question)?);
        }
        let round = parameters.round(challenge.height);
        let info: RoundInfo = world.get(RoundInfo::key(round % parameters.round_ring))?;
        let reasked = audit.missing.iter().map(|missing| self.again(missing)).collect();
        let waiting = (0..self.slots).filter(|slot| self.data_set(world, *slot).next.is_some());
        let apply = waiting.filter_map(|slot| {
            let terms = self.agreement(world, slot)?;
            Some((slot, terms.consumer, terms.end_epoch))
        });
        Some(StorageProof {
            height: challenge.height,
            anchor: info.anchor,
            index: provider.index,
            answers: prover.finish()?,
            reasked: Bounded::new(reasked)?,
            vouchers: Bounded::new(vec![])?,
            apply: Bounded::new(apply.collect())?,
            endings: Bounded::new(self.endings(world))?,
        })
    }

    /// Endings that a storage proof in the next block crosses.
    fn endings(&self, world: &World) -> Vec<u64> {
        let endings: Option<Endings> = world.get(Endings::key(&account(&self.name)));
        endings.map_or(vec![], |endings| endings.due(world.epoch()).take(ENDINGS_MAX).collect())
    }

    /// Answers a read. `None` for a data set that this provider never signed, because tests may skip
    /// signatures.
    fn answer(&self, world: &World, question: Question) -> Option<ReadAnswer> {
        let Question { slot, place, leaf, ended } = question;
        if ended {
            return Some(ReadAnswer::Ended(EndedRead { place }));
        }
        let tree = self.tree(&self.data_set(world, slot).current);
        let read = tree.read(leaf)?;
        if self.lost.contains(&(read.shard, read.leaf)) {
            let posync_protocol::tree::ShardRead { shard, length, position, .. } = read;
            return Some(ReadAnswer::Missing(MissingRead { place, shard, length, position }));
        }
        Some(ReadAnswer::Proved(self.prove(place, &tree, read.shard, read.leaf)))
    }

    fn prove(&self, place: u32, tree: &SumTree, shard: Hash, index: u64) -> ProvedRead {
        let data = &self.shards[&shard];
        let length = data.len() as u64;
        let at = tree.shards().iter().position(|(name, _)| *name == shard).expect("it is in the set");
        let position = tree.path(at).expect("it is in the set");
        let (leaf, path) = self.leaf(data, index);
        ProvedRead { place, shard, length, position, leaf, path }
    }

    fn leaf<const LEAF: usize, const PATH: usize>(
        &self,
        data: &[u8],
        index: u64,
    ) -> (Bounded<u8, LEAF>, Bounded<Hash, PATH>) {
        let start = (index / 16 * shard::GROUP_BYTES) as usize;
        let group = &data[start..data.len().min(start + shard::GROUP_BYTES as usize)];
        let (leaf, path) =
            shard::prove_leaf(data.len() as u64, index, group, &shard::outboard(data)).expect("a leaf of it");
        (Bounded::new(leaf).expect("a leaf"), Bounded::new(path).expect("a path"))
    }

    /// Answers a read that is asked again: it needs only the shard's bytes, in force or not (RD-7).
    fn again(&self, missing: &Missing) -> Reasked {
        let Missing { slot, shard, leaf, .. } = *missing;
        let held = self.shards.get(&shard).filter(|_| !self.lost.contains(&(shard, leaf.into())));
        let Some(data) = held else { return Reasked::Missing(StillMissing { slot }) };
        let (leaf, path) = self.leaf(data, leaf.into());
        Reasked::Proved(FoundRead { slot, shard, length: data.len() as u64, leaf, path })
    }

    /// Number of shards in the newest data set of a slot.
    pub(crate) fn held(&self, world: &World, slot: u32) -> u32 {
        let data_set = self.data_set(world, slot);
        self.tree(&data_set.next.unwrap_or(data_set.current)).len().try_into().expect("few shards")
    }

    /// Loses every `n`-th leaf of its data.
    pub(crate) fn lose_every(&mut self, n: u64) {
        self.lose(|place| place % n == 0);
    }

    /// Loses `tenths` of every ten leaves, scattered.
    pub(crate) fn lose_tenths(&mut self, tenths: u64) {
        self.lose(|place| place * 7 % 10 < tenths);
    }

    fn lose(&mut self, is_lost: impl Fn(u64) -> bool) {
        let leaves = self
            .shards
            .iter()
            .flat_map(|(name, data)| (0..shard::leaves(data.len() as u64)).map(move |leaf| (*name, leaf)));
        let lost = (0..).zip(leaves).filter(|(place, _)| is_lost(*place)).map(|(_, leaf)| leaf);
        self.lost.extend(lost);
    }

    /// Upkeep of the slots that crosses every ending before the settled round.
    pub(crate) fn settle(&self, world: &World, slots: &[u32]) -> Settle {
        let provider = self.provider(world);
        let parameters = &world.parameters;
        let hint = |slot: &u32| {
            let terms = self.agreement(world, *slot);
            let (consumer, end) = terms.map_or_else(Default::default, |t| (t.consumer, t.end_epoch));
            (*slot, consumer, end)
        };
        let mut endings = self.endings(world);
        endings.retain(|epoch| parameters.epoch_start(*epoch) <= provider.settled_round);
        Settle {
            provider: account(&self.name),
            index: provider.index,
            slots: Bounded::new(slots.iter().map(hint).collect()).expect("few slots"),
            endings: Bounded::new(endings).expect("few endings"),
        }
    }
}
