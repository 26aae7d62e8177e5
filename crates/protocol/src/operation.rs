//! What members ask of the ledger: a closed set of operations in a signed envelope.
//!
//! The id of an operation is SHA-256 of its bytes. Signatures are checked outside, in batches,
//! once per node ([`crate::wire::node`] carries the bytes). Only operations of the paid lane have a
//! nonce; free ones (`Statement`, `Settle`) have `max_fee` 0, too.

mod lane;
mod service;
mod signatures;
mod structure;

pub use lane::Lane;
pub use service::{
    AUDIT_NAMESPACE, AuditCommit, AuditReveal, REPORT_NAMESPACE, Report, batch_of, digest_of, reveals,
};
pub use signatures::{SignatureCheck, sign};
pub(crate) use structure::body_fits;
pub use structure::check_structure;

use crate::{
    Account, AgreementId, Amount, Bounded, Hash, Signature,
    block::Header,
    fenwick::slot_at,
    limits::{
        ADDRESSES_MAX, CHUNK_LEVELS_MAX, ENDINGS_MAX, LEAF_BYTES, MISSING_MAX, OPERATOR_BYTES, PROBE_PEERS,
        READS, REDEEM_VOUCHERS_MAX, REGION_BYTES_MAX, SETTLE_SLOTS_MAX, STATEMENT_VOUCHERS_MAX,
        SUM_LEVELS_MAX,
    },
    record::Address,
};

/// Namespace of an operation's signature, before the chain id.
pub const OPERATION_NAMESPACE: &[u8] = b"posync/op/1";
/// Namespace of a voucher's signature.
pub const VOUCHER_NAMESPACE: &[u8] = b"posync/voucher/1";
/// Namespace of a data set's signatures.
pub const DATA_SET_NAMESPACE: &[u8] = b"posync/data-set/1";
/// Namespace of a provider's signature under a refused placement.
pub const REFUSAL_NAMESPACE: &[u8] = b"posync/refusal/1";
/// Namespace of a receiver's signature under what it counted.
pub const PROBE_NAMESPACE: &[u8] = b"posync/probe/1";
/// Namespace of the second signature of a close.
pub const CLOSE_NAMESPACE: &[u8] = b"posync/close/1";

encoded! {
    /// Moves money.
    Transfer {
        /// To whom.
        to: Account,
        /// How much.
        amount: Amount,
    }
}

encoded! {
    /// A provider's standing offer: registering it is consent to any opening within it.
    RegisterProvider {
        /// Declared operator, zero padded UTF-8.
        operator: [u8; OPERATOR_BYTES],
        /// Money to lock.
        bond: Amount,
        /// Leaves offered.
        capacity: u64,
        /// Egress offered, bytes an epoch.
        capacity_egress: u64,
        /// Gas offered, an epoch.
        capacity_gas: u64,
        /// Least storage price.
        reserve_storage: u64,
        /// Least egress price.
        reserve_egress: u64,
        /// Least gas price.
        reserve_gas: u64,
        /// Longest agreement that it takes, in epochs.
        term_max: u32,
        /// Where it is reached.
        addresses: Bounded<Address, ADDRESSES_MAX>,
        /// Region.
        region: Bounded<u8, REGION_BYTES_MAX>,
    }
}

encoded! {
    /// Changes an offer, adds to the bond, or announces the exit.
    UpdateProvider {
        /// Added to the bond.
        bond_add: Amount,
        /// New capacity, not below what is sold.
        capacity: u64,
        /// New egress offered, not below what is sold.
        capacity_egress: u64,
        /// New gas offered, not below what is sold.
        capacity_gas: u64,
        /// New least storage price.
        reserve_storage: u64,
        /// New least egress price.
        reserve_egress: u64,
        /// New least gas price.
        reserve_gas: u64,
        /// New longest agreement, in epochs.
        term_max: u32,
        /// New addresses.
        addresses: Bounded<Address, ADDRESSES_MAX>,
        /// Its index, checked.
        index: u32,
        /// Announce the exit.
        leave: bool,
        /// Complete the exit: the epoch of its registration, checked (names its rows).
        exit: Option<u64>,
    }
}

encoded! {
    /// Opens an agreement. Escrow = storage reserve (from the terms) + voucher reserve.
    Open {
        /// With whom.
        provider: Account,
        /// The slot to use.
        slot: u32,
        /// Signs vouchers.
        session_key: Account,
        /// Signs data sets.
        storage_key: Account,
        /// Highest storage price accepted.
        max_storage_price: u64,
        /// Highest egress price accepted.
        max_egress_price: u64,
        /// Highest gas price accepted.
        max_gas_price: u64,
        /// Leaves.
        quota_leaves: u64,
        /// Egress bytes.
        quota_egress: u64,
        /// Gas.
        quota_gas: u64,
        /// Egress bytes per round.
        rate_egress: u64,
        /// Gas per round.
        rate_gas: u64,
        /// Epoch of the end.
        end_epoch: u64,
        /// Money for vouchers.
        voucher_reserve: Amount,
        /// Most that may be locked in the storage reserve.
        storage_reserve_max: Amount,
    }
}

encoded! {
    /// Adds to an agreement's voucher reserve.
    TopUp {
        /// Which.
        agreement: AgreementId,
        /// How much.
        amount: Amount,
        /// Highest egress price accepted for what is not redeemed yet.
        max_egress_price: u64,
        /// Highest gas price accepted, likewise.
        max_gas_price: u64,
    }
}

encoded! {
    /// Ends an agreement at once: signed by the sender and the other party.
    Close {
        /// Which.
        agreement: AgreementId,
        /// The consumer, checked.
        consumer: Account,
        /// The provider's index, checked (names the fee tree's path).
        index: u32,
        /// Its end epoch, checked (names the ending record).
        end_epoch: u64,
        /// Last height at which the second signature is good.
        last: u64,
        /// The other party's signature over id and `last`, namespace `CLOSE_NAMESPACE`.
        second: Signature,
    }
}

encoded! {
    /// Ends an agreement by one party: vouchers stay redeemable for the redemption window.
    CloseAlone {
        /// Which.
        agreement: AgreementId,
    }
}

encoded! {
    /// Replaces the session key; the old one redeems for the redemption window.
    RotateKey {
        /// Which.
        agreement: AgreementId,
        /// The new key.
        session_key: Account,
    }
}

encoded! {
    /// What both sides sign when a data set changes.
    #[derive(Copy)]
    DataSetClaim {
        /// The agreement.
        agreement: AgreementId,
        /// Above that of the last one on the ledger.
        version: u64,
        /// Root of the Merkle-sum tree; zeros when empty.
        root: Hash,
        /// Chunks.
        leaves: u64,
        /// Bytes.
        bytes: u64,
    }
}

encoded! {
    /// Puts a data set in force (or in `next` while a challenge is pending). Sent by either party.
    SetDataSet {
        /// What is claimed.
        claim: DataSetClaim,
        /// The provider's index, checked (names the fee tree's path).
        index: u32,
        /// The end epoch, checked (names the ending record).
        end_epoch: u64,
        /// The agreement's storage key, checked.
        storage_key: Account,
        /// By the storage key, over chain id and claim.
        consumer_signature: Signature,
        /// By the provider, needed when it grows.
        provider_signature: Option<Signature>,
    }
}

encoded! {
    /// A path from a leaf to the root of a Merkle-sum tree, leaf side first.
    SumPath {
        /// Bit j is set when the sibling at level j stands on the left.
        lefts: u32,
        /// The siblings and their sums.
        siblings: Bounded<(Hash, u64), SUM_LEVELS_MAX>,
    }
}

encoded! {
    /// A drawn chunk and its way to the signed root.
    ProvedRead {
        /// The place in the slot tree that holds the drawn index: names the agreement's slot and,
        /// modulo the ring, its end.
        place: u32,
        /// The shard's name: its plain BLAKE3 hash.
        shard: Hash,
        /// The shard's exact length.
        length: u64,
        /// From the shard to the data set's root.
        position: SumPath,
        /// The chunk's bytes.
        chunk: Bounded<u8, { LEAF_BYTES as usize }>,
        /// Sibling chaining values from the chunk to the shard's hash.
        path: Bounded<Hash, CHUNK_LEVELS_MAX>,
    }
}

encoded! {
    /// A read that the provider declares missing. The shard and its place are still proved.
    MissingRead {
        /// The place in the slot tree that holds the drawn index.
        place: u32,
        /// The shard's name.
        shard: Hash,
        /// Its exact length.
        length: u64,
        /// From the shard to the root.
        position: SumPath,
    }
}

encoded! {
    /// A read in the slot of an agreement that had ended when the challenge was drawn: one that
    /// nobody cleared until its end came round again. It never passes (anyone may free the slot by
    /// `Settle`).
    #[derive(Copy)]
    EndedRead {
        /// The place in the slot tree that holds the drawn index.
        place: u32,
    }
}

tagged! {
    /// One of the four dependent reads.
    Answer {
        /// Proved.
        0 => Proved(ProvedRead),
        /// Declared missing.
        1 => Missing(MissingRead),
        /// Its agreement has ended.
        2 => Ended(EndedRead),
    }
}

impl Answer {
    /// The place in the slot tree that it speaks of.
    pub const fn place(&self) -> u32 {
        match self {
            Self::Proved(read) => read.place,
            Self::Missing(read) => read.place,
            Self::Ended(read) => read.place,
        }
    }

    /// The slot at that place.
    pub const fn slot(&self) -> u32 {
        slot_at(self.place())
    }
}

tagged! {
    /// A read that is asked again.
    Reasked {
        /// Found again.
        0 => Proved(FoundRead),
        /// Still missing.
        1 => Missing(StillMissing),
    }
}

encoded! {
    /// A chunk that was declared missing and is there again. Its place was proved then: the path to
    /// the shard's name is enough.
    FoundRead {
        /// The agreement's slot.
        slot: u32,
        /// The shard's name.
        shard: Hash,
        /// The shard's exact length.
        length: u64,
        /// The chunk's bytes.
        chunk: Bounded<u8, { LEAF_BYTES as usize }>,
        /// Sibling chaining values from the chunk to the shard's hash.
        path: Bounded<Hash, CHUNK_LEVELS_MAX>,
    }
}

encoded! {
    /// Nothing to say about a read that is still missing, or whose agreement has ended, but which
    /// one it is.
    #[derive(Copy)]
    StillMissing {
        /// The agreement's slot.
        slot: u32,
    }
}

encoded! {
    /// Cumulative use of one agreement, by the session key (protocol 4).
    #[derive(Copy)]
    Voucher {
        /// The agreement, whole.
        agreement: AgreementId,
        /// Egress bytes since the opening.
        egress: u64,
        /// Gas since the opening.
        gas: u64,
        /// Ed25519 by the session key over chain id and the fields above.
        signature: Signature,
    }
}

encoded! {
    /// A voucher and, optionally, what the provider claims beyond it.
    #[derive(Copy)]
    Redemption {
        /// The voucher.
        voucher: Voucher,
        /// The key that signed it, checked against the agreement's session key.
        session_key: Account,
        /// Egress bytes and gas that the provider says it gave since the opening, at or above the
        /// voucher's: what is above is never paid, only counted as disputed, once.
        claim: Option<(u64, u64)>,
    }
}

encoded! {
    /// The answer to a challenge: free, keyed (provider, height), idempotent.
    Statement {
        /// Height of the block that drew it.
        height: u64,
        /// Digest of the block that was final when it was drawn: the round's anchor.
        anchor: Hash,
        /// The provider's index, checked (names the fee tree's path).
        index: u32,
        /// The four reads in order; empty when nothing lived.
        answers: Bounded<Answer, READS>,
        /// Answers to reads asked again, in the order of the record.
        reasked: Bounded<Reasked, MISSING_MAX>,
        /// Vouchers, each judged apart.
        vouchers: Bounded<Redemption, STATEMENT_VOUCHERS_MAX>,
        /// Slots whose `next` takes effect, with consumer and end epoch, checked.
        apply: Bounded<(u32, Account, u64), SETTLE_SLOTS_MAX>,
        /// End epochs to cross, ascending.
        endings: Bounded<u64, ENDINGS_MAX>,
    }
}

encoded! {
    /// Redeems vouchers for a fee, outside a challenge.
    Redeem {
        /// Vouchers, each judged apart.
        vouchers: Bounded<Redemption, REDEEM_VOUCHERS_MAX>,
    }
}

encoded! {
    /// Free upkeep of anyone: expires a stale challenge, applies `next`, charges and removes ended agreements.
    /// Sent by the provider itself, with no challenge open, it also puts it back into the fee tree.
    Settle {
        /// The provider.
        provider: Account,
        /// Its index, checked.
        index: u32,
        /// Slots, with consumer and end epoch, checked.
        slots: Bounded<(u32, Account, u64), SETTLE_SLOTS_MAX>,
        /// End epochs to cross, ascending.
        endings: Bounded<u64, ENDINGS_MAX>,
    }
}

encoded! {
    /// Leaves jail once the time is over.
    Unjail {
        /// Added to the bond.
        bond_add: Amount,
    }
}

encoded! {
    /// A provider's signed word that it did not take what it was offered. Given to who was refused;
    /// anyone may bring it to the ledger, which cuts a declaration that it contradicts.
    #[derive(Copy)]
    RefusedPlacement {
        /// Who refused.
        provider: Account,
        /// Who was refused.
        consumer: Account,
        /// Under which agreement; `None` for a quote.
        agreement: Option<AgreementId>,
        /// Leaves that it did not take.
        leaves: u64,
        /// The last certified height that it had seen.
        height: u64,
        /// Ed25519 by the provider over chain id and the fields above.
        signature: Signature,
    }
}

encoded! {
    /// Two headers that one leader signed for one view.
    Proposals {
        /// Both.
        headers: Bounded<Header, 2>,
    }
}

encoded! {
    /// Two different commitments of one seat for one epoch.
    Commitments {
        /// Who signed both.
        seat: Account,
        /// Both.
        commits: Bounded<AuditCommit, 2>,
    }
}

tagged! {
    /// Two signatures of one seat of which only one can be honest.
    Evidence {
        /// Two proposals of one view.
        1 => Proposals(Proposals),
        /// Two commitments of one epoch.
        2 => Commitments(Commitments),
    }
}

encoded! {
    /// What a drawn peer received of a provider in an epoch's slot, signed by the peer.
    #[derive(Copy)]
    ProbeCount {
        /// The epoch.
        epoch: u64,
        /// Who sent.
        sender: Account,
        /// Who counted.
        receiver: Account,
        /// The sender's draw, 0 to 7, that hit the receiver.
        draw: u8,
        /// Bytes that arrived within the slot.
        bytes: u64,
        /// Ed25519 by the receiver over chain id and the fields above.
        signature: Signature,
    }
}

encoded! {
    /// A provider's measurement of an epoch: what its drawn peers counted.
    Measure {
        /// The epoch.
        epoch: u64,
        /// Counts in the order of their draws, each with its receiver's index, checked.
        counts: Bounded<(u32, ProbeCount), PROBE_PEERS>,
    }
}

tagged! {
    /// What is asked.
    Body {
        /// Moves money.
        1 => Transfer(Transfer),
        /// Becomes a provider.
        2 => RegisterProvider(RegisterProvider),
        /// Changes an offer.
        3 => UpdateProvider(UpdateProvider),
        /// Opens an agreement.
        4 => Open(Open),
        /// Adds to a voucher reserve.
        5 => TopUp(TopUp),
        /// Ends an agreement, both.
        6 => Close(Close),
        /// Ends an agreement, one.
        7 => CloseAlone(CloseAlone),
        /// Replaces the session key.
        8 => RotateKey(RotateKey),
        /// Changes a data set.
        9 => SetDataSet(SetDataSet),
        /// Answers a challenge (free).
        10 => Statement(Statement),
        /// Redeems vouchers.
        11 => Redeem(Redeem),
        /// Upkeep (free).
        12 => Settle(Settle),
        /// Leaves jail.
        13 => Unjail(Unjail),
        /// Cuts the declared capacity of a provider that refused within it.
        14 => Refusal(RefusedPlacement),
        /// Slashes and jails a seat that signed against itself.
        15 => Evidence(Evidence),
        /// Reports what drawn peers counted of a provider's egress.
        18 => Measure(Measure),
        /// Commits to what an auditor found.
        16 => AuditCommit(AuditCommit),
        /// Reveals what it committed to.
        17 => AuditReveal(AuditReveal),
    }
}

encoded! {
    /// An operation in its envelope.
    Operation {
        /// Who asks and pays.
        signer: Account,
        /// The account's next nonce; 0 outside the paid lane.
        nonce: u64,
        /// Most that may be burned as fee; 0 for free operations.
        max_fee: Amount,
        /// Last height at which it may stand in a block.
        expires: u64,
        /// What is asked.
        body: Body,
        /// Ed25519 over `OPERATION_NAMESPACE`, chain id and the fields above.
        signature: Signature,
    }
}
