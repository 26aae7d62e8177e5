//! Decides what may be signed and what may go: pure.

use crate::terms::Terms;
use posync_protocol::{
    AgreementId, Hash,
    block::with_chain,
    operation::{DATA_SET_NAMESPACE, DataSetClaim, SignatureCheck},
    record::DataSet,
    tree::SumTree,
    wire::provider::{Refusal, Sign},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Versions of one agreement that are kept at once.
pub(super) const VERSIONS_MAX: usize = 32;

/// Names a version: two may share a number until the ledger takes one.
pub type Variant = (u64, Hash);

/// The versions of one agreement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Book {
    pub(super) in_force: Variant,
    pub(super) versions: BTreeMap<Variant, Arc<SumTree>>,
    /// The ledger is at a version that this provider never saw (a shrink by the consumer alone).
    pub(super) unknown: bool,
}

impl Book {
    fn shards(&self) -> BTreeSet<Hash> {
        let all = self.versions.values().flat_map(|tree| tree.shards());
        all.map(|(shard, _)| *shard).collect()
    }

    fn tree(&self, variant: Variant) -> Option<Arc<SumTree>> {
        if variant.0 == 0 { Some(Arc::default()) } else { self.versions.get(&variant).cloned() }
    }
}

/// All books, and the shards that wait for a signature or for their removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) books: BTreeMap<AgreementId, Book>,
    /// Being taken off the disk: may not be signed for.
    pub(super) leaving: BTreeSet<(AgreementId, Hash)>,
}

/// A version that may be signed.
#[derive(Clone, Debug)]
pub struct Change {
    /// What is claimed.
    pub claim: DataSetClaim,
    /// The version that it changes.
    pub parent: Variant,
    /// Its tree.
    pub tree: Arc<SumTree>,
}

/// Why not: the reason and its words.
pub(super) type No = (Refusal, String);

fn claim<T>(text: impl Into<String>) -> Result<T, No> {
    Err((Refusal::Claim, text.into()))
}

impl State {
    /// Judges a claimed version: the consumer's signature, the shards, and the root, which is
    /// computed here from the kept version before it. `held` gives the length of a shard that the
    /// agreement holds durably.
    ///
    /// # Errors
    /// What the consumer has to change.
    pub fn judge(
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
        if ask.claim.leaves > terms.agreement.quota_leaves {
            let (leaves, quota) = (ask.claim.leaves, terms.agreement.quota_leaves);
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
        let empty = Book::default();
        let book = self.books.get(&terms.id).unwrap_or(&empty);
        if book.versions.len() >= VERSIONS_MAX && !book.versions.contains_key(&variant(&ask.claim)) {
            return claim(format!("{VERSIONS_MAX} signed versions wait for the ledger; put one there first"));
        }
        find_parent(book, ask)
    }

    /// Keeps a version.
    pub fn keep(&mut self, change: &Change) {
        let book = self.books.entry(change.claim.agreement).or_default();
        book.versions.insert(variant(&change.claim), change.tree.clone());
    }

    /// Takes note of what the ledger has in force: versions at or below it go, but it. Returns the
    /// shards that no kept version holds any more; they may leave the disk.
    pub fn observe(&mut self, agreement: AgreementId, data: &DataSet) -> Vec<Hash> {
        let current = (data.current.version, data.current.root);
        let Some(book) = self.books.get_mut(&agreement) else { return vec![] };
        if book.in_force == current || current.0 < book.in_force.0 {
            return vec![];
        }
        book.unknown = book.tree(current).is_none();
        if book.unknown {
            return vec![];
        }
        let before = book.shards();
        book.in_force = current;
        book.versions.retain(|variant, _| variant.0 > current.0 || *variant == current);
        let after = book.shards();
        self.let_go(agreement, before.difference(&after).copied().collect())
    }

    /// Forgets an agreement that is gone from the ledger; returns its shards.
    pub fn end(&mut self, agreement: &AgreementId) -> Vec<Hash> {
        let shards = self.books.remove(agreement).map(|book| book.shards()).unwrap_or_default();
        self.let_go(*agreement, shards.into_iter().collect())
    }

    /// Marks shards as leaving, those that some kept version holds excepted.
    pub fn let_go(&mut self, agreement: AgreementId, shards: Vec<Hash>) -> Vec<Hash> {
        let kept = self.books.get(&agreement).map(Book::shards).unwrap_or_default();
        let going: Vec<Hash> = shards.into_iter().filter(|shard| !kept.contains(shard)).collect();
        self.leaving.extend(going.iter().map(|shard| (agreement, *shard)));
        going
    }

    /// The shards are off the disk.
    pub fn gone(&mut self, agreement: AgreementId, shards: &[Hash]) {
        for shard in shards {
            self.leaving.remove(&(agreement, *shard));
        }
    }

    /// The tree of a version; version 0 is empty.
    pub fn tree(&self, agreement: &AgreementId, variant: Variant) -> Option<Arc<SumTree>> {
        match self.books.get(agreement) {
            Some(book) => book.tree(variant),
            None => Book::default().tree(variant),
        }
    }

    /// Agreements with a book.
    pub fn agreements(&self) -> impl Iterator<Item = AgreementId> {
        self.books.keys().copied()
    }

    /// Whether the ledger is at a version that was never signed here.
    pub fn is_unknown(&self, agreement: &AgreementId) -> bool {
        self.books.get(agreement).is_some_and(|book| book.unknown)
    }

    /// Shards of the versions in force, with their agreements: what a scrub must find.
    pub fn owed(&self) -> BTreeSet<Hash> {
        let in_force = |book: &Book| book.tree(book.in_force);
        let trees: Vec<_> = self.books.values().filter_map(in_force).collect();
        trees.iter().flat_map(|tree| tree.shards()).map(|(shard, _)| *shard).collect()
    }

    /// Every shard of every kept version, with its agreement.
    pub fn kept(&self) -> BTreeSet<(AgreementId, Hash)> {
        let all =
            self.books.iter().flat_map(|(id, book)| book.shards().into_iter().map(|shard| (*id, shard)));
        all.collect()
    }

    /// Whether a shard is just being taken off the disk.
    pub fn is_leaving(&self, agreement: &AgreementId, shard: &Hash) -> bool {
        self.leaving.contains(&(*agreement, *shard))
    }

    /// Records that a snapshot needs, about.
    pub(super) fn size(&self) -> u64 {
        self.books.values().map(|book| 1 + book.versions.len() as u64).sum()
    }
}

/// The kept version from which the claim follows: number one below, and its change leads to the
/// claimed root.
fn find_parent(book: &Book, ask: &Sign) -> Result<Change, No> {
    let Some(before) = ask.claim.version.checked_sub(1) else {
        return claim("version 0 is the empty data set; the first version is 1");
    };
    let mut known = false;
    let candidates = book.versions.keys().filter(|variant| variant.0 == before);
    for parent in candidates.copied().chain((before == 0).then_some((0, [0; 32]))) {
        let Some(tree) = book.tree(parent) else { continue };
        known = true;
        let mut tree = (*tree).clone();
        if tree.change(&ask.removes, &ask.adds).is_none() {
            continue;
        }
        if (tree.root(), tree.leaves(), tree.bytes()) == (ask.claim.root, ask.claim.leaves, ask.claim.bytes) {
            return Ok(Change { claim: ask.claim, parent, tree: Arc::new(tree) });
        }
    }
    if known {
        return claim("the adds and removes do not lead to the claimed root, leaves and bytes");
    }
    claim(format!(
        "version {before}, which it changes, is not kept here; the ledger has version {}",
        book.in_force.0
    ))
}

fn variant(claim: &DataSetClaim) -> Variant {
    (claim.version, claim.root)
}

/// The first bytes of a name, for people.
pub(crate) fn hex(shard: &Hash) -> String {
    shard.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{CHAIN, claim_of, id, sign_of, terms};
    use posync_protocol::record::Version;

    fn shard(tag: u8) -> (Hash, u64) {
        ([tag; 32], 1_000 * u64::from(tag))
    }

    /// Everything below tag 100 is stored.
    fn held(shard: &Hash) -> Option<u32> {
        (shard[0] < 100).then_some(1_000 * u32::from(shard[0]))
    }

    fn judge(state: &State, ask: &Sign) -> Result<Change, No> {
        state.judge(&terms(), ask, &CHAIN, held)
    }

    fn in_force(claim: &DataSetClaim) -> DataSet {
        let DataSetClaim { version, root, leaves, bytes, .. } = *claim;
        DataSet { current: Version { version, root, leaves, bytes, grown_at: 0 }, next: None }
    }

    #[test]
    fn only_what_follows_from_a_kept_version_is_signed() {
        let first = sign_of(1, &[], &[], &[shard(1), shard(2)]);
        let mut state = State::default();
        state.keep(&judge(&state, &first).expect("the first version"));
        let base = [shard(1), shard(2)];
        let mut forged = sign_of(2, &base, &[], &[shard(3)]);
        forged.signature[0] ^= 1;
        let mut other = sign_of(2, &base, &[], &[shard(3)]);
        other.claim.agreement.opened += 1;
        let mut lie = sign_of(2, &base, &[], &[shard(3)]);
        lie.claim.leaves += 1;
        let lie = Sign { signature: claim_of(&lie.claim), ..lie };
        let mut huge = sign_of(2, &base, &[], &[shard(3)]);
        huge.claim.leaves = u64::MAX;
        let huge = Sign { signature: claim_of(&huge.claim), ..huge };
        for (name, ask, expected) in [
            ("grow", sign_of(2, &base, &[], &[shard(3)]), Ok((1, first.claim.root))),
            ("shrink", sign_of(2, &base, &[0], &[]), Ok((1, first.claim.root))),
            ("replace", sign_of(2, &base, &[1], &[shard(3)]), Ok((1, first.claim.root))),
            ("empty", sign_of(2, &base, &[0, 1], &[]), Ok((1, first.claim.root))),
            ("another first", sign_of(1, &[], &[], &[shard(4)]), Ok((0, [0; 32]))),
            ("the same again", first.clone(), Ok((0, [0; 32]))),
            ("forged", forged, Err(Refusal::Claim)),
            ("other agreement", other, Err(Refusal::Claim)),
            ("wrong leaves", lie, Err(Refusal::Claim)),
            ("above the quota", huge, Err(Refusal::Space)),
            ("not stored", sign_of(2, &base, &[], &[shard(100)]), Err(Refusal::Claim)),
            ("wrong length", sign_of(2, &base, &[], &[([3; 32], 1)]), Err(Refusal::Claim)),
            ("unknown parent", sign_of(3, &base, &[], &[shard(3)]), Err(Refusal::Claim)),
            ("version 0", sign_of(0, &[], &[], &[shard(3)]), Err(Refusal::Claim)),
        ] {
            let got = judge(&state, &ask).map(|change| change.parent).map_err(|no| no.0);
            assert_eq!(got, expected, "{name}");
        }
    }

    #[test]
    fn versions_are_kept_until_the_ledger_is_past_them() {
        let mut state = State::default();
        let first = sign_of(1, &[], &[], &[shard(1), shard(2)]);
        let second = sign_of(2, &[shard(1), shard(2)], &[0], &[shard(3)]);
        let other = sign_of(2, &[shard(1), shard(2)], &[], &[shard(4)]);
        let third = sign_of(3, &[shard(2), shard(3)], &[], &[shard(5)]);
        for ask in [&first, &second, &other, &third] {
            let change = judge(&state, ask).expect("follows");
            state.keep(&change);
        }
        assert!(state.observe(id(), &in_force(&first.claim)).is_empty());
        assert_eq!(state.owed(), [[1; 32], [2; 32]].into());
        assert_eq!(state.observe(id(), &in_force(&second.claim)), [[1; 32], [4; 32]]);
        assert_eq!(state.tree(&id(), (2, other.claim.root)), None);
        assert!(state.observe(id(), &in_force(&first.claim)).is_empty(), "the ledger never goes back");
        // What is leaving may not be signed for until it is put again.
        let back = sign_of(3, &[shard(2), shard(3)], &[], &[shard(1)]);
        assert_eq!(judge(&state, &back).map_err(|no| no.0).map(drop), Err(Refusal::Claim));
        state.gone(id(), &[[1; 32], [4; 32]]);
        judge(&state, &back).expect("stored again");
        assert!(state.observe(id(), &in_force(&third.claim)).is_empty());
        let mut unknown = in_force(&third.claim);
        unknown.current.version = 4;
        unknown.current.root = [9; 32];
        assert!(state.observe(id(), &unknown).is_empty());
        assert!(state.is_unknown(&id()));
        assert_eq!(state.end(&id()), [[2; 32], [3; 32], [5; 32]]);
        assert_eq!(state.size(), 0);
    }

    #[test]
    fn signed_versions_are_bounded() {
        let mut state = State::default();
        let mut shards = vec![];
        for version in 1..=VERSIONS_MAX {
            let tag = u8::try_from(version).expect("small");
            let ask = sign_of(version as u64, &shards, &[], &[shard(tag)]);
            let change = judge(&state, &ask).expect("within the bound");
            state.keep(&change);
            shards.push(shard(tag));
        }
        let ask = sign_of(VERSIONS_MAX as u64 + 1, &shards, &[], &[shard(99)]);
        let (reason, text) = judge(&state, &ask).expect_err("one too many");
        assert_eq!(reason, Refusal::Claim);
        assert!(text.contains("put one there first"), "{text}");
    }
}
