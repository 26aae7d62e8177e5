//! Builds a storage proof from proven records: pure.

use super::NoStorageProof;
use crate::terms::Terms;
use commonware_codec::EncodeSize as _;
use posync_protocol::{
    Account, Bounded, Class, Hash,
    audit::{Prover, Share, is_awake},
    limits::{
        ENDINGS_MAX, LEAF_BYTES, MISSING_MAX, OPERATION_BYTES_MAX, Parameters, READS, SETTLE_SLOTS_MAX,
    },
    operation::{FoundRead, MissingRead, ProvedRead, ReadAnswer, Reasked, Redemption, Settle, StorageProof},
    record::{Audit, Challenge, Endings, Missing, Offer, Provider, Reputation},
    shard,
    tree::ShardRead,
};
use std::collections::BTreeMap;

/// Bytes of an operation around its body, with a margin.
const ENVELOPE_BYTES: usize = 512;

/// The ledger's records about a provider, all read while one challenge was open.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Account of the provider.
    pub account: Account,
    /// Protocol parameters from the genesis.
    pub parameters: Parameters,
    /// Height of the last of these reads.
    pub height: u64,
    /// Registration record: bond and sums.
    pub provider: Provider,
    /// Declared prices and capacity.
    pub offer: Offer,
    /// Audit state, with the open challenge and missing reads.
    pub audit: Audit,
    /// Score, warnings, jail and suspension.
    pub reputation: Option<Reputation>,
    /// Ends of agreements that a settlement must cross.
    pub endings: Option<Endings>,
    /// The anchor of the challenge's round.
    pub anchor: Hash,
    /// Terms of every slot that a data set names.
    pub terms: BTreeMap<u32, Terms>,
}

impl Case {
    /// The open challenge.
    ///
    /// # Errors
    /// `NotDrawn`.
    pub(crate) fn challenge(&self) -> Result<Challenge, NoStorageProof> {
        self.audit.challenge.ok_or(NoStorageProof::NotDrawn)
    }

    /// True if at most half of the time to answer the open challenge is left.
    pub(crate) fn is_pressed(&self) -> bool {
        let half = self.parameters.deadline_blocks / 2;
        self.audit.challenge.is_some_and(|challenge| self.height >= challenge.height.saturating_add(half))
    }

    fn shares(&self) -> Vec<Share> {
        let share = |(slot, terms): (&u32, &Terms)| Share {
            slot: *slot,
            rate: terms.agreement.prices[Class::Storage].price,
            leaves: terms.data.current.leaves,
            end_epoch: terms.agreement.end_epoch,
        };
        self.terms.iter().map(share).collect()
    }

    /// The reads of the open challenge.
    ///
    /// # Errors
    /// `NotDrawn`, `Incomplete`.
    pub(crate) fn prover(&self) -> Result<Prover, NoStorageProof> {
        let (challenge, shares) = (self.challenge()?, self.shares());
        let known = shares.iter().map(|share| u128::from(share.rate) * u128::from(share.leaves)).sum();
        let slot_weight = self.provider.slot_weight;
        if known != slot_weight {
            return Err(NoStorageProof::Incomplete { known, slot_weight });
        }
        Ok(Prover::new(&challenge, &self.account, &self.parameters, shares))
    }

    /// Slots whose `next` waits for this settlement, with consumer and end.
    pub(crate) fn apply(&self) -> Bounded<(u32, Account, u64), SETTLE_SLOTS_MAX> {
        let epoch = self.parameters.epoch(self.height);
        let waits = |terms: &&Terms| terms.data.next.is_some() && epoch < terms.agreement.end_epoch;
        let named = self.terms.values().filter(waits).map(name);
        up_to(named)
    }

    /// End epochs that the interval crosses, and the next one in case the block is late.
    pub(crate) fn endings(&self) -> Bounded<u64, ENDINGS_MAX> {
        let epoch = self.parameters.epoch(self.height) + 1;
        up_to(self.endings.iter().flat_map(|endings| endings.due(epoch)))
    }

    /// Builds the storage proof, with as many of `vouchers` as fit, in their order.
    ///
    /// # Errors
    /// `NotDrawn`.
    pub(crate) fn storage_proof(
        &self,
        answers: Bounded<ReadAnswer, READS>,
        reasked: Bounded<Reasked, MISSING_MAX>,
        vouchers: Vec<Redemption>,
    ) -> Result<StorageProof, NoStorageProof> {
        let mut storage_proof = StorageProof {
            height: self.challenge()?.height,
            anchor: self.anchor,
            index: self.provider.index,
            answers,
            reasked,
            vouchers: up_to([]),
            apply: self.apply(),
            endings: self.endings(),
        };
        let room = OPERATION_BYTES_MAX.saturating_sub(ENVELOPE_BYTES + storage_proof.encode_size());
        let each = vouchers.first().map_or(1, |voucher| voucher.encode_size() + 17);
        storage_proof.vouchers = up_to(vouchers.into_iter().take(room / each));
        Ok(storage_proof)
    }

    /// Free upkeep that is due while no challenge is open: endings that an expired challenge left
    /// behind, slots of ended agreements to be charged and freed (RD-9), and the return into the fee
    /// tree (DR-6). `None` if none is due.
    pub(crate) fn upkeep(&self) -> Option<Settle> {
        if self.audit.challenge.is_some() {
            return None;
        }
        let endings = self.settled_endings();
        let crossed = endings.last().copied().unwrap_or(0);
        let slots: Bounded<_, SETTLE_SLOTS_MAX> =
            up_to(self.terms.values().filter(|terms| self.may_free(terms, crossed)).map(name));
        let Provider { index, .. } = self.provider;
        let is_due = !slots.is_empty() || !endings.is_empty() || !is_awake(&self.provider);
        is_due.then_some(Settle { provider: self.account, index, slots, endings })
    }

    /// End epochs in settled rounds that no operation named yet.
    fn settled_endings(&self) -> Bounded<u64, ENDINGS_MAX> {
        let last = self.provider.settled_round / self.parameters.epoch_rounds;
        up_to(self.endings.iter().flat_map(|endings| endings.due(last)))
    }

    /// True if the agreement is closed before its end, or if its end is crossed (up to `now`, with this
    /// operation) or it is empty, and it is either still in the tree or past its redemption window.
    fn may_free(&self, terms: &Terms, now: u64) -> bool {
        let epoch = self.parameters.epoch(self.height);
        let over =
            posync_protocol::agreement::is_over(&terms.agreement, &terms.usage, epoch, &self.parameters);
        let end = terms.agreement.end_epoch;
        let crossed = self.provider.settled_round >= self.parameters.epoch_start(end)
            && self.endings.as_ref().is_none_or(|endings| endings.due(end).all(|ending| ending <= now));
        let holds = terms.data.current.leaves > 0 || terms.data.next.is_some();
        if epoch >= end { (crossed || terms.data.current.leaves == 0) && (holds || over) } else { over }
    }
}

/// The first items, up to the bound.
pub(crate) fn up_to<T, const MAX: usize>(items: impl IntoIterator<Item = T>) -> Bounded<T, MAX> {
    Bounded::new(items.into_iter().take(MAX).collect()).expect("at most MAX were taken")
}

fn name(terms: &Terms) -> (u32, Account, u64) {
    (terms.id.slot, terms.agreement.consumer, terms.agreement.end_epoch)
}

/// Proves a leaf of a whole shard: the leaf and its path to the shard's name.
fn prove(data: &[u8], index: u64) -> Option<(Vec<u8>, Vec<Hash>)> {
    let length = data.len() as u64;
    let start =
        usize::try_from(index.checked_mul(LEAF_BYTES)? / shard::GROUP_BYTES * shard::GROUP_BYTES).ok()?;
    let end = data.len().min(start + usize::try_from(shard::GROUP_BYTES).ok()?);
    shard::prove_leaf(length, index, data.get(start..end)?, &shard::outboard(data))
}

/// The answer to one read at a place of the slot tree: proved if the shard's bytes are available, else
/// declared missing.
pub(crate) fn answer(place: u32, read: ShardRead, data: Option<&[u8]>) -> ReadAnswer {
    let ShardRead { shard, length, leaf, position } = read;
    let proved = data.and_then(|data| prove(data, leaf)).and_then(|(leaf, path)| {
        let (leaf, path) = (Bounded::new(leaf)?, Bounded::new(path)?);
        Some(ProvedRead { place, shard, length, position: position.clone(), leaf, path })
    });
    proved.map_or(ReadAnswer::Missing(MissingRead { place, shard, length, position }), ReadAnswer::Proved)
}

/// The answer to a read that is asked again, from the shard's bytes `data` (RD-7), whatever the data set
/// holds by now.
pub(crate) fn reask(missing: &Missing, data: &[u8]) -> Option<Reasked> {
    let (leaf, path) = prove(data, missing.leaf.into())?;
    Some(Reasked::Proved(FoundRead {
        slot: missing.slot,
        shard: missing.shard,
        length: data.len() as u64,
        leaf: Bounded::new(leaf)?,
        path: Bounded::new(path)?,
    }))
}
