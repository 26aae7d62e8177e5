//! Decides what may be signed and what may go: pure.

use crate::terms::Terms;
use posync_protocol::{
    AgreementId, Hash, Signature,
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

/// Versions of one agreement that may wait above what the ledger has.
pub(super) const VERSIONS_MAX: usize = 32;

/// Names a version: two may share a number until the ledger takes one.
pub type Variant = (u64, Hash);

/// A version that is kept whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) tree: Arc<SumTree>,
    /// The consumer's signature, with which it can be brought to the ledger; `None` for what the
    /// consumer brought without us: the empty set.
    pub(super) signature: Option<Signature>,
    /// The certified height at which we signed it.
    pub(super) height: u64,
}

/// The versions of one agreement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Book {
    pub(super) in_force: Variant,
    /// What takes effect on the ledger after the open challenge.
    pub(super) next: Option<Variant>,
    pub(super) versions: BTreeMap<Variant, Kept>,
    /// The ledger is at a version that this provider never saw (a shrink by the consumer alone).
    pub(super) unknown: bool,
}

impl Book {
    fn shards(&self) -> BTreeSet<Hash> {
        let all = self.versions.values().flat_map(|kept| kept.tree.shards());
        all.map(|(shard, _)| *shard).collect()
    }

    /// The tree of a version; an empty one is known without having been signed here.
    fn tree(&self, variant: Variant) -> Option<Arc<SumTree>> {
        let kept = self.versions.get(&variant).map(|kept| kept.tree.clone());
        kept.or_else(|| (variant.1 == EMPTY_ROOT).then(Arc::default))
    }

    /// The ledger's newest version: what is at or below it can never stand there (DS-1).
    fn last(&self) -> Variant {
        self.next.unwrap_or(self.in_force)
    }

    /// Versions that may still be brought, in their order.
    fn waiting(&self) -> impl Iterator<Item = (&Variant, &Kept)> {
        let last = self.last().0;
        self.versions.iter().filter(move |(variant, _)| variant.0 > last)
    }
}

/// All books, and the shards that wait for a signature or for their removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) books: BTreeMap<AgreementId, Book>,
    /// Being taken off the disk: may not be signed for.
    pub(super) leaving: BTreeSet<(AgreementId, Hash)>,
    /// Slots and shards of reads that the ledger asks again: they stay, whatever is in force (RD-7).
    asked: BTreeSet<(u32, Hash)>,
    /// Held for nothing but a read that is asked again.
    pub(super) lingering: BTreeSet<(AgreementId, Hash)>,
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
    /// By the storage key.
    pub signature: Signature,
}

/// A claim that this provider can bring to the ledger by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bringing {
    /// What both signed.
    pub claim: DataSetClaim,
    /// By the storage key.
    pub signature: Signature,
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
        let last = book.last().0.max(terms.data.next.unwrap_or(terms.data.current).version);
        if ask.claim.version <= last {
            return claim(format!("the ledger has version {last}; a new one is above it"));
        }
        if book.waiting().count() >= VERSIONS_MAX && !book.versions.contains_key(&variant(&ask.claim)) {
            return claim(format!(
                "{VERSIONS_MAX} signed versions wait for the ledger; bring one there first"
            ));
        }
        find_parent(book, terms, ask)
    }

    /// Keeps a version that is signed at a certified height.
    pub fn keep(&mut self, change: &Change, height: u64) {
        let book = self.books.entry(change.claim.agreement).or_default();
        let kept = Kept { tree: change.tree.clone(), signature: Some(change.signature), height };
        book.versions.entry(variant(&change.claim)).or_insert(kept);
    }

    /// Takes note of what the ledger has in force and as `next`: these two stay, and what is above
    /// both; the rest can never stand there any more (DS-1) and goes. Returns the shards that no kept
    /// version holds; they may leave the disk.
    pub fn observe(&mut self, agreement: AgreementId, data: &DataSet) -> Vec<Hash> {
        let (current, next) = (of(&data.current), data.next.as_ref().map(of));
        let Some(book) = self.books.get_mut(&agreement) else { return vec![] };
        let number = |next: Option<Variant>| next.map_or(0, |next| next.0);
        let is_new = (current.0, number(next)) > (book.in_force.0, number(book.next));
        if !is_new {
            return vec![];
        }
        let both = || [Some(current), next].into_iter().flatten();
        book.unknown = both().any(|variant| book.tree(variant).is_none());
        if book.unknown {
            return vec![];
        }
        let before = book.shards();
        for variant in both().filter(|variant| variant.0 > 0) {
            book.versions.entry(variant).or_default();
        }
        (book.in_force, book.next) = (current, next);
        let last = book.last().0;
        book.versions.retain(|variant, _| variant.0 > last || both().any(|kept| kept == *variant));
        let after = book.shards();
        self.let_go(agreement, before.difference(&after).copied().collect())
    }

    /// Forgets an agreement that is gone from the ledger; returns its shards.
    pub fn end(&mut self, agreement: &AgreementId) -> Vec<Hash> {
        let mut shards = self.books.remove(agreement).map(|book| book.shards()).unwrap_or_default();
        let (theirs, rest) =
            std::mem::take(&mut self.lingering).into_iter().partition(|(id, _)| id == agreement);
        self.lingering = rest;
        let theirs: BTreeSet<(AgreementId, Hash)> = theirs;
        shards.extend(theirs.into_iter().map(|(_, shard)| shard));
        self.leave(*agreement, shards.into_iter().collect())
    }

    /// Marks shards as leaving, those that some kept version holds excepted. What is asked again
    /// lingers until it is not asked any more.
    pub fn let_go(&mut self, agreement: AgreementId, shards: Vec<Hash>) -> Vec<Hash> {
        let kept = self.books.get(&agreement).map(Book::shards).unwrap_or_default();
        let free = shards.into_iter().filter(|shard| !kept.contains(shard));
        let (asked, going) = free.partition(|shard| self.asked.contains(&(agreement.slot, *shard)));
        let asked: Vec<Hash> = asked;
        self.lingering.extend(asked.into_iter().map(|shard| (agreement, shard)));
        self.leave(agreement, going)
    }

    fn leave(&mut self, agreement: AgreementId, going: Vec<Hash>) -> Vec<Hash> {
        self.leaving.extend(going.iter().map(|shard| (agreement, *shard)));
        going
    }

    /// Takes note of the reads that the ledger asks again, as slots and shards. Returns the shards
    /// that were held for an earlier one alone; they may leave the disk.
    pub fn ask(&mut self, asked: BTreeSet<(u32, Hash)>) -> Vec<(AgreementId, Hash)> {
        if self.asked == asked {
            return vec![];
        }
        self.asked = asked;
        let lingered = std::mem::take(&mut self.lingering);
        let mut going = vec![];
        for (agreement, shard) in lingered {
            let left = self.let_go(agreement, vec![shard]);
            going.extend(left.into_iter().map(|shard| (agreement, shard)));
        }
        going
    }

    /// The newest claim that the ledger lacks, and the provider's pay for the rounds up to `height` in
    /// which it held more than the ledger has (DS-1): of each version from its signature to the next
    /// one's. `None` if it holds no more, or less than is in force, which may not be brought at once.
    pub fn missed(&self, terms: &Terms, height: u64, parameters: &Parameters) -> Option<(Bringing, u128)> {
        let book = self.books.get(&terms.id).filter(|book| !book.unknown)?;
        let DataSet { current, next } = &terms.data;
        let known = (book.in_force, book.next);
        let base = next.unwrap_or(*current).leaves.max(current.leaves);
        let waiting: Vec<(&Variant, &Kept)> =
            book.waiting().filter(|(_, kept)| kept.signature.is_some()).collect();
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
        let rate = u128::from(agreement.storage_price.min(agreement.storage_slow));
        let share = ONE.saturating_sub(parameters.burn).saturating_sub(parameters.committee);
        let fees = leaf_rounds.saturating_mul(rate) / UNIT;
        let missed = mul_div(fees, share.into(), ONE.into()).unwrap_or(u128::MAX);
        let (version, root) = *newest;
        let (leaves, bytes) = (kept.tree.leaves(), kept.tree.bytes());
        let claim = DataSetClaim { agreement: terms.id, version, root, leaves, bytes };
        Some((Bringing { claim, signature: kept.signature? }, missed))
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
fn find_parent(book: &Book, terms: &Terms, ask: &Sign) -> Result<Change, No> {
    let Some(before) = ask.claim.version.checked_sub(1) else {
        return claim("version 0 is the empty data set; the first version is 1");
    };
    let mut known = false;
    let candidates = book.versions.keys().filter(|variant| variant.0 == before);
    // The consumer may have emptied it alone, a moment ago.
    let DataSet { current, next } = &terms.data;
    let ledgers = [Some(current), next.as_ref()].into_iter().flatten().map(of);
    let is_empty = before == 0 || ledgers.into_iter().any(|variant| variant == (before, EMPTY_ROOT));
    for parent in candidates.copied().chain(is_empty.then_some((before, EMPTY_ROOT))) {
        let Some(tree) = book.tree(parent) else { continue };
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
        book.in_force.0
    ))
}

const fn of(version: &Version) -> Variant {
    (version.version, version.root)
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
        state.keep(&judge(&state, &first).expect("the first version"), 0);
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
            state.keep(&change, 0);
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

    /// What the ledger has after these claims.
    fn ledger(current: &DataSetClaim, next: &DataSetClaim) -> DataSet {
        DataSet { next: Some(in_force(next).current), ..in_force(current) }
    }

    /// A chain of versions, each with one shard more, signed at ten heights a version.
    fn grown(versions: u8) -> (State, Vec<Sign>) {
        let (mut state, mut asks, mut shards) = (State::default(), vec![], vec![]);
        for version in 1..=versions {
            let ask = sign_of(version.into(), &shards, &[], &[shard(version)]);
            let change = judge(&state, &ask).expect("follows");
            state.keep(&change, 10 * u64::from(version));
            shards.push(shard(version));
            asks.push(ask);
        }
        (state, asks)
    }

    #[test]
    fn what_stands_as_next_stays_with_everything_above_it_and_nothing_between() {
        let (mut state, asks) = grown(5);
        let base = [shard(1), shard(2)];
        let other = sign_of(3, &base, &[], &[shard(30)]);
        state.keep(&judge(&state, &other).expect("another third"), 0);
        let kept = |state: &State| -> Vec<u64> { state.books[&id()].versions.keys().map(|v| v.0).collect() };
        state.observe(id(), &in_force(&asks[0].claim));
        // 2 and the other 3 can never stand on the ledger any more (DS-1).
        assert_eq!(state.observe(id(), &ledger(&asks[0].claim, &asks[2].claim)), [[30; 32]]);
        assert_eq!(kept(&state), [1, 3, 4, 5]);
        assert!(
            state.tree(&id(), (1, asks[0].claim.root)).is_some(),
            "reads fall on it until 3 takes effect"
        );
        assert!(state.observe(id(), &in_force(&asks[0].claim)).is_empty(), "an older look changes nothing");
        assert_eq!(kept(&state), [1, 3, 4, 5]);
        // It is replaced before it took effect.
        state.observe(id(), &ledger(&asks[0].claim, &asks[4].claim));
        assert_eq!(kept(&state), [1, 5]);
        state.observe(id(), &in_force(&asks[4].claim));
        assert_eq!(kept(&state), [5]);
        assert_eq!(state.owed().len(), 5);
    }

    #[test]
    fn nothing_is_signed_that_the_ledger_is_past() {
        let (mut state, asks) = grown(3);
        state.observe(id(), &ledger(&asks[0].claim, &asks[1].claim));
        let base = [shard(1)];
        let void = sign_of(2, &base, &[], &[shard(9)]);
        assert!(judge(&state, &void).is_err_and(|(_, text)| text.contains("has version 2")));
        let above = sign_of(3, &[shard(1), shard(2)], &[], &[shard(9)]);
        judge(&state, &above).expect("another third may still come");
        // The ledger was proved to be further than the books have seen.
        let mut late = terms();
        late.data = in_force(&asks[2].claim);
        let no = state.judge(&late, &above, &CHAIN, held);
        assert!(no.is_err_and(|(_, text)| text.contains("has version 3")));
    }

    #[test]
    fn a_set_that_the_consumer_emptied_alone_is_known_and_followed() {
        let (mut state, asks) = grown(2);
        state.observe(id(), &in_force(&asks[1].claim));
        let empty = sign_of(90, &[], &[], &[]);
        let mut emptied = terms();
        emptied.data = in_force(&empty.claim);
        let first = sign_of(91, &[], &[], &[shard(7)]);
        state.judge(&emptied, &first, &CHAIN, held).expect("it is proved, if not observed");
        assert_eq!(state.observe(id(), &emptied.data), [[1; 32], [2; 32]]);
        assert!(!state.is_unknown(&id()));
        assert!(state.tree(&id(), (90, EMPTY_ROOT)).is_some_and(|tree| tree.is_empty()));
        state.keep(&judge(&state, &first).expect("on the empty one"), 0);
        state.observe(id(), &in_force(&first.claim));
        assert_eq!(state.owed(), [[7; 32]].into());
    }

    #[test]
    fn a_shard_lingers_while_a_read_of_it_is_asked_again() {
        let (mut state, asks) = grown(1);
        let swap = sign_of(2, &[shard(1)], &[0], &[shard(2), shard(3)]);
        state.keep(&judge(&state, &swap).expect("follows"), 0);
        state.observe(id(), &in_force(&asks[0].claim));
        assert_eq!(state.ask([(id().slot, [1; 32]), (id().slot + 1, [3; 32])].into()), []);
        assert_eq!(state.observe(id(), &in_force(&swap.claim)), [[0; 32]; 0], "it is asked again (RD-7)");
        assert_eq!(state.let_go(id(), vec![[1; 32]]), [[0; 32]; 0], "loose or not");
        let asked = [(id().slot, [1; 32])].into();
        assert_eq!(state.ask(asked), [], "still");
        assert_eq!(state.ask([].into()), [(id(), [1; 32])], "not any more");
        assert!(state.is_leaving(&id(), &[1; 32]));
        state.gone(id(), &[[1; 32]]);
        assert_eq!(state.ask([(id().slot, [2; 32])].into()), []);
        assert_eq!(state.end(&id()), [[2; 32], [3; 32]], "an agreement that is gone asks nothing");
        assert!(state.lingering.is_empty());
    }

    #[test]
    fn the_pay_that_is_missed_counts_from_each_signature_to_the_next() {
        // 1, 2, 4 and 6 leaves more with each version, signed at heights 10, 20, 30 and 40.
        let (mut state, asks) = grown(4);
        let leaves: Vec<u64> = asks.iter().map(|ask| ask.claim.leaves).collect();
        let parameters =
            Parameters { round_blocks: 1, burn: ONE / 5, committee: ONE / 20, ..Parameters::LOCAL };
        let mut terms = terms();
        (terms.agreement.storage_price, terms.agreement.storage_slow) = (4 << 20, 8 << 20);
        let missed = |state: &State, terms: &Terms, height| {
            let found = state.missed(terms, height, &parameters);
            found.map(|(bringing, pay)| (bringing.claim.version, pay))
        };
        let all: u64 = leaves.iter().map(|leaves| leaves * 10).sum();
        assert_eq!(
            missed(&state, &terms, 50),
            Some((4, u128::from(3 * all))),
            "three quarters of four grains"
        );
        let (bringing, _) = state.missed(&terms, 50, &parameters).expect("waits");
        assert_eq!((bringing.claim, bringing.signature), (asks[3].claim, asks[3].signature));
        // What the ledger has is paid, or will be; the books must have seen it.
        terms.data = ledger(&asks[0].claim, &asks[2].claim);
        assert_eq!(missed(&state, &terms, 50), None, "the books lag behind");
        state.observe(id(), &terms.data);
        let more = u128::from(leaves[3] - leaves[2]);
        assert_eq!(missed(&state, &terms, 70), Some((4, 3 * more * 30)));
        (terms.agreement.storage_price, terms.agreement.storage_slow) = (4 << 20, 2 << 20);
        assert_eq!(missed(&state, &terms, 70), Some((4, 3 * more * 30 / 2)), "paid at the lower price");
        terms.data = in_force(&asks[3].claim);
        state.observe(id(), &terms.data);
        assert_eq!(missed(&state, &terms, 70), None);
        let shrunk = sign_of(5, &[shard(1), shard(2), shard(3), shard(4)], &[3], &[]);
        state.keep(&judge(&state, &shrunk).expect("follows"), 70);
        assert_eq!(missed(&state, &terms, 99), None, "less is the consumer's to bring");
    }

    #[test]
    fn at_most_32_versions_wait_above_what_the_ledger_has() {
        let most = u8::try_from(VERSIONS_MAX).expect("small");
        let (mut state, asks) = grown(most);
        let shards: Vec<_> = (1..=most).map(shard).collect();
        let ask = sign_of(u64::from(most) + 1, &shards, &[], &[shard(99)]);
        let (reason, text) = judge(&state, &ask).expect_err("one too many");
        assert_eq!(reason, Refusal::Claim);
        assert!(text.contains("bring one there first"), "{text}");
        // One that is brought makes room for itself and for all before it.
        state.observe(id(), &ledger(&asks[0].claim, &asks[30].claim));
        judge(&state, &ask).expect("two wait");
    }
}
