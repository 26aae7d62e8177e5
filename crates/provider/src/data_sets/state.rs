//! Decides which versions may be signed and which shards may be removed: pure.

use crate::terms::Terms;
use posync_protocol::{
    AgreementId, Class, Hash, Signature,
    amount::{ONE, UNIT, mul_div},
    block::with_chain,
    limits::Parameters,
    operation::{DATA_SET_NAMESPACE, DataSetClaim, SignatureCheck},
    record::{DataSet, Version},
    tree::{EMPTY_ROOT, SumTree},
    wire::provider::{Refusal, Sign},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Versions of one agreement that may wait above the ledger's newest.
pub(super) const VERSIONS_MAX: usize = 32;
/// Waiting versions from which on the ledger is looked at before another one is signed: it may have taken
/// some of them since the last look.
const VERSIONS_LOOK: usize = VERSIONS_MAX / 2;

/// Names a version by number and root: two may share a number until the ledger accepts one.
pub(crate) type Variant = (u64, Hash);

/// A version that is kept whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) tree: Arc<SumTree>,
    /// The consumer's signature, needed to submit the claim; `None` for the empty set, which the
    /// consumer submits alone.
    pub(super) signature: Option<Signature>,
    /// Certified height at which the provider signed it.
    pub(super) height: u64,
}

/// The versions of one agreement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) in_force: Variant,
    /// The version that takes effect on the ledger after the open challenge.
    pub(super) next: Option<Variant>,
    pub(super) versions: BTreeMap<Variant, Kept>,
    /// The ledger is at a version that this provider never saw (the consumer alone shrank the set).
    pub(super) unknown: bool,
}

impl Versions {
    fn shards(&self) -> BTreeSet<Hash> {
        let all = self.versions.values().flat_map(|kept| kept.tree.shards());
        all.map(|(shard, _)| *shard).collect()
    }

    /// The tree of a version; the empty one is known without a signature here.
    fn tree(&self, variant: Variant) -> Option<Arc<SumTree>> {
        let kept = self.versions.get(&variant).map(|kept| kept.tree.clone());
        kept.or_else(|| (variant.1 == EMPTY_ROOT).then(Arc::default))
    }

    /// The ledger's newest version: no version at or below it can take effect any more (DS-1).
    fn last(&self) -> Variant {
        self.next.unwrap_or(self.in_force)
    }

    /// True if the ledger's versions are newer than those that are noted.
    fn is_behind(&self, data: &DataSet) -> bool {
        let number = |next: Option<u64>| next.unwrap_or(0);
        let theirs = (data.current.version, number(data.next.as_ref().map(|next| next.version)));
        theirs > (self.in_force.0, number(self.next.map(|next| next.0)))
    }

    /// Versions that may still be submitted, in ascending order.
    fn waiting(&self) -> impl Iterator<Item = (&Variant, &Kept)> {
        let last = self.last().0;
        self.versions.iter().filter(move |(variant, _)| variant.0 > last)
    }
}

/// All data sets, and the shards that wait for a signature or for their removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) data_sets: BTreeMap<AgreementId, Versions>,
    /// Shards that are being removed from the disk; they may not be signed for.
    pub(super) leaving: BTreeSet<(AgreementId, Hash)>,
    /// Shards that no kept version holds, each with the height of the terms that show it. Such a shard stays until
    /// an audit that is as new asks no read of it again (RD-7).
    pub(super) unheld: BTreeMap<(AgreementId, Hash), u64>,
    /// Records of the journal were lost once: the provider may owe shards that no data set names.
    pub(super) damaged: bool,
}

/// A version that may be signed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The claim to be signed.
    pub claim: DataSetClaim,
    /// The version on which the change is based.
    pub parent: Variant,
    /// Sum tree of the claimed version, computed here.
    pub tree: Arc<SumTree>,
    /// The consumer's signature, by its storage key.
    pub signature: Signature,
}

/// A claim that this provider can submit to the ledger by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bringing {
    /// The claim that both parties signed.
    pub claim: DataSetClaim,
    /// The consumer's signature, by its storage key.
    pub signature: Signature,
}

/// A refusal: its reason and a text for the consumer.
pub(super) type No = (Refusal, String);

fn claim<T>(text: impl Into<String>) -> Result<T, No> {
    Err((Refusal::Claim, text.into()))
}

impl State {
    /// Checks a claimed version: the consumer's signature, the shards, and the root, which is
    /// computed here from the kept version before it. `held` returns the length of a shard that the
    /// agreement holds durably.
    ///
    /// # Errors
    /// The refusal, with what the consumer has to change.
    pub(crate) fn judge(
        &self,
        terms: &Terms,
        ask: &Sign,
        chain: &Hash,
        held: impl Fn(&Hash) -> Option<u32>,
    ) -> Result<Change, No> {
        let signed = SignatureCheck {
            namespace: DATA_SET_NAMESPACE,
            message: with_chain(chain, &ask.claim),
            key: terms.agreement.storage_key,
            signature: ask.signature,
        };
        if ask.claim.agreement != terms.id || !signed.verify() {
            return claim("the claim is not signed by the agreement's storage key");
        }
        if ask.claim.leaves > terms.agreement.quota[Class::Storage] {
            let (leaves, quota) = (ask.claim.leaves, terms.agreement.quota[Class::Storage]);
            return Err((Refusal::Space, format!("{leaves} leaves exceed the agreement's quota of {quota}")));
        }
        for (shard, length) in ask.adds.iter() {
            let there = held(shard).is_some_and(|known| u64::from(known) == *length);
            if !there || self.leaving.contains(&(terms.id, *shard)) {
                return claim(format!(
                    "shard {} is not stored under this agreement; put it first",
                    hex(shard)
                ));
            }
        }
        let empty = Versions::default();
        let versions = self.data_sets.get(&terms.id).unwrap_or(&empty);
        let last = versions.last().0.max(terms.data.next.unwrap_or(terms.data.current).version);
        if ask.claim.version <= last {
            return claim(format!("the ledger has version {last}; a new one is above it"));
        }
        if versions.waiting().count() >= VERSIONS_MAX && !versions.versions.contains_key(&variant(&ask.claim))
        {
            // This is temporary: a version on the ledger makes room.
            return Err((
                Refusal::Busy,
                format!("{VERSIONS_MAX} signed versions wait for the ledger; bring one there first"),
            ));
        }
        find_parent(versions, terms, ask)
    }

    /// True if so many signed versions of an agreement wait that the next one may find no place.
    pub(crate) fn is_crowded(&self, agreement: &AgreementId) -> bool {
        let versions = self.data_sets.get(agreement);
        versions.is_some_and(|versions| versions.waiting().count() >= VERSIONS_LOOK)
    }

    /// True if the ledger has versions of an agreement that are not noted here yet.
    pub(crate) fn is_behind(&self, agreement: &AgreementId, data: &DataSet) -> bool {
        self.data_sets.get(agreement).is_some_and(|versions| versions.is_behind(data))
    }

    /// Keeps a version that is signed at a certified height.
    pub(crate) fn keep(&mut self, change: &Change, height: u64) {
        let versions = self.data_sets.entry(change.claim.agreement).or_default();
        let kept = Kept { tree: change.tree.clone(), signature: Some(change.signature), height };
        versions.versions.entry(variant(&change.claim)).or_insert(kept);
        // The height of older terms without these shards says nothing about their next end.
        for (shard, _) in change.tree.shards() {
            self.unheld.remove(&(change.claim.agreement, *shard));
        }
    }

    /// Notes the versions that the ledger has in force and as `next`. These two stay, and so do all above
    /// both; the others can never take effect any more (DS-1) and are dropped. Returns the shards that were
    /// only in those: the caller lets them go.
    pub(crate) fn observe(&mut self, agreement: AgreementId, data: &DataSet) -> Vec<Hash> {
        let (current, next) = (of(&data.current), data.next.as_ref().map(of));
        let Some(versions) = self.data_sets.get_mut(&agreement) else { return vec![] };
        if !versions.is_behind(data) {
            return vec![];
        }
        let both = || [Some(current), next].into_iter().flatten();
        versions.unknown = both().any(|variant| versions.tree(variant).is_none());
        if versions.unknown {
            return vec![];
        }
        let before = versions.shards();
        for variant in both().filter(|variant| variant.0 > 0) {
            versions.versions.entry(variant).or_default();
        }
        (versions.in_force, versions.next) = (current, next);
        let last = versions.last().0;
        versions.versions.retain(|variant, _| variant.0 > last || both().any(|kept| kept == *variant));
        let after = versions.shards();
        before.difference(&after).copied().collect()
    }

    /// Forgets an agreement that is gone from the ledger; returns its shards.
    pub(crate) fn end(&mut self, agreement: &AgreementId) -> Vec<Hash> {
        let mut shards =
            self.data_sets.remove(agreement).map(|versions| versions.shards()).unwrap_or_default();
        let theirs = self.unheld.extract_if(.., |(id, _), _| id == agreement);
        shards.extend(theirs.map(|((_, shard), _)| shard));
        self.leave(*agreement, shards.into_iter().collect())
    }

    /// Notes that no version holds these shards, as terms of this height show.
    pub fn let_go(&mut self, agreement: AgreementId, shards: Vec<Hash>, height: u64) {
        for shard in shards {
            let since = self.unheld.entry((agreement, shard)).or_default();
            *since = height.max(*since);
        }
    }

    /// Takes back a shard that is put again, so that it is not removed. Returns `false` if it is being removed.
    pub(crate) fn take_back(&mut self, agreement: AgreementId, shard: Hash) -> bool {
        self.unheld.remove(&(agreement, shard));
        !self.leaving.contains(&(agreement, shard))
    }

    /// Takes the shards that may leave the disk now, and marks them as leaving. `asked` are the slots and shards of
    /// the reads that the audit of height `at` asks again. An audit below the terms that let a shard go does not
    /// show whether the shard was asked again when they came into force.
    pub fn release(&mut self, at: u64, asked: &BTreeSet<(u32, Hash)>) -> BTreeMap<AgreementId, Vec<Hash>> {
        let is_free = |id: &AgreementId, shard: &Hash| !asked.contains(&(id.slot, *shard));
        let free = self.unheld.extract_if(.., |(id, shard), since| *since <= at && is_free(id, shard));
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for ((agreement, shard), _) in free {
            all.entry(agreement).or_default().push(shard);
        }
        for (agreement, shards) in &mut all {
            let kept = self.data_sets.get(agreement).map(Versions::shards).unwrap_or_default();
            shards.retain(|shard| !kept.contains(shard));
            self.leaving.extend(shards.iter().map(|shard| (*agreement, *shard)));
        }
        all.retain(|_, shards| !shards.is_empty());
        all
    }

    fn leave(&mut self, agreement: AgreementId, going: Vec<Hash>) -> Vec<Hash> {
        self.leaving.extend(going.iter().map(|shard| (agreement, *shard)));
        going
    }

    /// The newest claim that the ledger lacks, and the provider's pay for the rounds up to `height` in
    /// which it held more than the ledger records (DS-1), from each version's signature to the next one's.
    /// `None` if it holds no more, or less than is in force, which may not be submitted at once.
    pub(crate) fn missed(
        &self,
        terms: &Terms,
        height: u64,
        parameters: &Parameters,
    ) -> Option<(Bringing, u128)> {
        let versions = self.data_sets.get(&terms.id).filter(|versions| !versions.unknown)?;
        let DataSet { current, next } = &terms.data;
        let known = (versions.in_force, versions.next);
        let base = next.unwrap_or(*current).leaves.max(current.leaves);
        let waiting: Vec<(&Variant, &Kept)> =
            versions.waiting().filter(|(_, kept)| kept.signature.is_some()).collect();
        let (newest, kept) = *waiting.last()?;
        if known != (of(current), next.as_ref().map(of)) || kept.tree.leaves() <= base {
            return None;
        }
        let ends = waiting.iter().skip(1).map(|(_, kept)| kept.height).chain([height]);
        let mut leaf_rounds = 0u128;
        for ((_, kept), end) in waiting.iter().zip(ends) {
            let rounds = parameters.round(end).saturating_sub(parameters.round(kept.height));
            let more = kept.tree.leaves().saturating_sub(base);
            leaf_rounds = leaf_rounds.saturating_add(u128::from(more).saturating_mul(rounds.into()));
        }
        let Terms { agreement, .. } = terms;
        let rate = u128::from(agreement.prices[Class::Storage].base());
        let share = ONE.saturating_sub(parameters.burn).saturating_sub(parameters.committee);
        let fees = leaf_rounds.saturating_mul(rate) / UNIT;
        let missed = mul_div(fees, share.into(), ONE.into()).unwrap_or(u128::MAX);
        let (version, root) = *newest;
        let (leaves, bytes) = (kept.tree.leaves(), kept.tree.bytes());
        let claim = DataSetClaim { agreement: terms.id, version, root, leaves, bytes };
        Some((Bringing { claim, signature: kept.signature? }, missed))
    }

    /// Notes that shards were removed from the disk.
    pub fn gone(&mut self, agreement: AgreementId, shards: &[Hash]) {
        for shard in shards {
            self.leaving.remove(&(agreement, *shard));
        }
    }

    /// The tree of a version; version 0 is empty.
    pub(crate) fn tree(&self, agreement: &AgreementId, variant: Variant) -> Option<Arc<SumTree>> {
        match self.data_sets.get(agreement) {
            Some(versions) => versions.tree(variant),
            None => Versions::default().tree(variant),
        }
    }

    /// Returns the data sets to their durable state; shards that leave the disk or wait to stay noted.
    pub(super) fn go_back(&mut self, durable: Self) {
        (self.data_sets, self.damaged) = (durable.data_sets, self.damaged || durable.damaged);
    }

    /// True if every version that the ledger has of an agreement is known here.
    pub(crate) fn knows(&self, agreement: &AgreementId, data: &DataSet) -> bool {
        let both = [Some(&data.current), data.next.as_ref()];
        let mut both = both.into_iter().flatten().map(of);
        both.all(|variant| variant.0 == 0 || self.tree(agreement, variant).is_some())
    }

    /// True if records of the journal were ever lost.
    pub(crate) const fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Agreements that have data sets.
    pub(crate) fn agreements(&self) -> impl Iterator<Item = AgreementId> {
        self.data_sets.keys().copied()
    }

    /// True if the ledger is at a version that was never signed here.
    #[cfg(test)]
    pub(crate) fn is_unknown(&self, agreement: &AgreementId) -> bool {
        self.data_sets.get(agreement).is_some_and(|versions| versions.unknown)
    }

    /// Shards of the versions in force: those that a scrub must find.
    pub(crate) fn owed(&self) -> BTreeSet<Hash> {
        let in_force = |versions: &Versions| versions.tree(versions.in_force);
        let trees: Vec<_> = self.data_sets.values().filter_map(in_force).collect();
        trees.iter().flat_map(|tree| tree.shards()).map(|(shard, _)| *shard).collect()
    }

    /// Every shard of every kept version, with its agreement.
    pub fn kept(&self) -> BTreeSet<(AgreementId, Hash)> {
        let all = self
            .data_sets
            .iter()
            .flat_map(|(id, versions)| versions.shards().into_iter().map(|shard| (*id, shard)));
        all.collect()
    }

    /// True while a shard is being removed from the disk.
    #[cfg(test)]
    pub(crate) fn is_leaving(&self, agreement: &AgreementId, shard: &Hash) -> bool {
        self.leaving.contains(&(*agreement, *shard))
    }

    /// Approximate number of records in a snapshot.
    pub(super) fn size(&self) -> u64 {
        self.data_sets.values().map(|versions| 1 + versions.versions.len() as u64).sum()
    }
}

/// Builds the change from the kept version, numbered one below, from which it leads to the claimed
/// root.
fn find_parent(versions: &Versions, terms: &Terms, ask: &Sign) -> Result<Change, No> {
    let Some(before) = ask.claim.version.checked_sub(1) else {
        return claim("version 0 is the empty data set; the first version is 1");
    };
    let mut known = false;
    let candidates = versions.versions.keys().filter(|variant| variant.0 == before);
    // The consumer may have emptied the set by itself a moment ago.
    let DataSet { current, next } = &terms.data;
    let ledgers = [Some(current), next.as_ref()].into_iter().flatten().map(of);
    let is_empty = before == 0 || ledgers.into_iter().any(|variant| variant == (before, EMPTY_ROOT));
    for parent in candidates.copied().chain(is_empty.then_some((before, EMPTY_ROOT))) {
        let Some(tree) = versions.tree(parent) else { continue };
        known = true;
        let mut tree = (*tree).clone();
        if tree.change(&ask.removes, &ask.adds).is_none() {
            continue;
        }
        if (tree.root(), tree.leaves(), tree.bytes()) == (ask.claim.root, ask.claim.leaves, ask.claim.bytes) {
            let (claim, signature, tree) = (ask.claim, ask.signature, Arc::new(tree));
            return Ok(Change { claim, parent, tree, signature });
        }
    }
    if known {
        return claim("the adds and removes do not lead to the claimed root, leaves and bytes");
    }
    claim(format!(
        "version {before}, which it changes, is not kept here; the ledger has version {}",
        versions.in_force.0
    ))
}

const fn of(version: &Version) -> Variant {
    (version.version, version.root)
}

fn variant(claim: &DataSetClaim) -> Variant {
    (claim.version, claim.root)
}

/// The first eight bytes of a hash in hex, for messages.
pub(crate) fn hex(shard: &Hash) -> String {
    shard.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
