//! Operations: the closed set of requests that members send to the ledger, each in a signed envelope.
//!
//! The list `operations!` declares each kind once: its number, fields, lane, checks, money, records,
//! effect and signatures. An operation's id is the SHA-256 of its bytes. Signatures are verified outside this module, in
//! batches, once per node ([`crate::wire::node`] carries the bytes). Outside the paid lane ([`Lane`])
//! `nonce` is 0. In free operations (`StorageProof`, `Settle`) `max_fee` is 0 as well.

#[macro_use]
mod declare;
mod lane;
mod service;
mod signatures;
pub(crate) mod structure;

pub use lane::Lane;
pub use service::{
    AUDIT_NAMESPACE, AuditCommit, AuditReveal, REPORT_NAMESPACE, Report, batch_of, digest_of, reveals,
};
pub use signatures::{SignatureCheck, sign};
pub use structure::check_structure;

use crate::number::bound;
use crate::{
    Account, AgreementId, Amount, Bounded, Hash, Metered, PerClass, Signature, Units, account, agreement,
    authority,
    block::Header,
    capacity, data_set,
    fenwick::slot_at,
    limits::{
        ADDRESSES_MAX, ENDINGS_MAX, LEAF_BYTES, LEAF_LEVELS_MAX, MISSING_MAX, OPERATOR_BYTES, PROBE_PEERS,
        READS, REDEEM_VOUCHERS_MAX, REGION_BYTES_MAX, SETTLE_SLOTS_MAX, STORAGE_PROOF_VOUCHERS_MAX,
        SUM_LEVELS_MAX,
    },
    node, provider,
    record::Address,
    reputation, settlement, storage_proof,
};
use alloc::vec::Vec;

/// Namespace of an operation's signature; the chain id follows it.
pub const OPERATION_NAMESPACE: &[u8] = b"posync/op/1";
/// Namespace of a voucher's signature.
pub const VOUCHER_NAMESPACE: &[u8] = b"posync/voucher/1";
/// Namespace of both parties' signatures on a data set.
pub const DATA_SET_NAMESPACE: &[u8] = b"posync/data-set/1";
/// Namespace of a provider's signature on a refused placement.
pub const REFUSAL_NAMESPACE: &[u8] = b"posync/refusal/1";
/// Namespace of a receiver's signature on the bytes that it counted.
pub const PROBE_NAMESPACE: &[u8] = b"posync/probe/1";
/// Namespace of the other party's signature on a close.
pub const CLOSE_NAMESPACE: &[u8] = b"posync/close/1";

encoded! {
    #[json]
    /// Moves money from the signer to another account.
    Transfer {
        /// Account that receives the money.
        to: Account,
        /// Money to move; must be above zero.
        amount: Amount,
    }
}

encoded! {
    #[json]
    /// A provider's offer. Registering it is consent to any opening within it (PV-1).
    RegisterProvider {
        /// Declared operator, zero padded UTF-8.
        #[json(text)]
        operator: [u8; OPERATOR_BYTES],
        /// Bond to lock, taken from the signer's balance.
        bond: Amount,
        /// Capacity offered: leaves, egress bytes per epoch, gas per epoch.
        #[json(units("capacity", "capacity_egress", "capacity_gas"))]
        capacity: PerClass<u64>,
        /// Lowest price of each class at which it sells.
        #[json(prices("reserve_storage", "reserve_egress", "reserve_gas"))]
        reserve: PerClass<u64>,
        /// Longest agreement that it accepts, in epochs.
        term_max: u32,
        /// Addresses at which clients reach it, preferred one first.
        #[json("address", first)]
        #[json("addresses")]
        addresses: Bounded<Address, ADDRESSES_MAX>,
        /// Name of its region, UTF-8.
        region: Bounded<u8, REGION_BYTES_MAX>,
    }
}

encoded! {
    #[json]
    /// Changes an offer, adds to the bond, announces the exit, or completes it.
    UpdateProvider {
        /// Money to add to the bond.
        bond_add: Amount,
        /// New capacity, in no class below what is sold: leaves, egress bytes per epoch, gas per epoch.
        #[json(units("capacity", "capacity_egress", "capacity_gas"))]
        capacity: PerClass<u64>,
        /// New lowest price of each class.
        #[json(prices("reserve_storage", "reserve_egress", "reserve_gas"))]
        reserve: PerClass<u64>,
        /// New longest agreement, in epochs.
        term_max: u32,
        /// New addresses, preferred one first.
        #[json("address", first)]
        #[json("addresses")]
        addresses: Bounded<Address, ADDRESSES_MAX>,
        /// The provider's fee-tree index; a hint that must match its record.
        index: u32,
        /// True to announce the exit (PV-3).
        leave: bool,
        /// `Some` completes the exit and changes nothing else. The value is the epoch of registration: a
        /// hint that names the provider's rows and must match.
        exit: Option<u64>,
    }
}

encoded! {
    #[json]
    /// Opens an agreement. Its escrow is the storage reserve, computed from the terms, plus the voucher
    /// reserve (AG-3).
    Open {
        /// Provider to contract with.
        provider: Account,
        /// Free slot of that provider which the agreement takes.
        slot: u32,
        /// Key that signs vouchers and nothing else.
        session_key: Account,
        /// Key that signs data sets.
        storage_key: Account,
        /// Highest posted price of each class that the consumer accepts.
        #[json(prices("max_storage_price", "max_egress_price", "max_gas_price"))]
        price_max: PerClass<u64>,
        /// Quotas: leaves held at once, egress bytes and gas over the whole term.
        #[json(units("quota_leaves", "quota_egress", "quota_gas"))]
        quota: PerClass<u64>,
        /// Rate caps, in egress bytes and gas per round (VO-2).
        #[json(units("rate_egress", "rate_gas"))]
        rate: Units,
        /// Epoch in which the agreement ends, exclusive.
        end_epoch: u64,
        /// Money to lock for vouchers.
        voucher_reserve: Amount,
        /// Upper bound on the storage reserve that the opening may lock.
        storage_reserve_max: Amount,
    }
}

encoded! {
    #[json]
    /// Adds to an agreement's voucher reserve (AG-8).
    TopUp {
        /// Agreement to top up.
        agreement: AgreementId,
        /// Money to lock for further vouchers.
        amount: Amount,
        /// Highest prices that the consumer accepts for units beyond the new boundaries.
        #[json(prices("max_egress_price", "max_gas_price"))]
        price_max: Metered<u64>,
    }
}

encoded! {
    #[json]
    /// Ends an agreement at once, signed by the sender and by the other party (AG-5).
    Close {
        /// Agreement to end at once.
        agreement: AgreementId,
        /// The agreement's consumer; a hint that must match its record.
        consumer: Account,
        /// The provider's index; a hint that names the fee tree's path and must match.
        index: u32,
        /// The agreement's end epoch; a hint that names the ending record and must match.
        end_epoch: u64,
        /// Last height at which the second signature is valid.
        last: u64,
        /// The other party's signature over chain id, agreement id and `last`, in `CLOSE_NAMESPACE`.
        #[json(skip)]
        second: Signature,
    }
}

encoded! {
    #[json]
    /// Ends an agreement on one party's word. Vouchers stay redeemable for the redemption window.
    CloseAlone {
        /// Agreement to close; its records stay for the redemption window.
        agreement: AgreementId,
    }
}

encoded! {
    #[json]
    /// Replaces the session key. Vouchers of the old one stay redeemable for the redemption window.
    RotateKey {
        /// Agreement whose key is replaced.
        agreement: AgreementId,
        /// Session key that signs vouchers from now on.
        session_key: Account,
    }
}

encoded! {
    #[json]
    /// A new version of an agreement's data set, as both parties sign it.
    #[derive(Copy)]
    DataSetClaim {
        /// Agreement that the data set belongs to.
        agreement: AgreementId,
        /// Version number, above every earlier one on the ledger (DS-1).
        version: u64,
        /// Root of the Merkle-sum tree; zeros for an empty set.
        root: Hash,
        /// Size of the set in leaves of 1 KiB.
        leaves: u64,
        /// Size of the set in bytes, at most `leaves` x 1 KiB.
        bytes: u64,
    }
}

encoded! {
    #[json]
    /// Puts a data set in force, or in `next` while the provider is not at a settled point (DS-4).
    /// Either party may send it.
    SetDataSet {
        /// The new version, which both signatures cover.
        claim: DataSetClaim,
        /// The provider's index; a hint that names the fee tree's path and must match.
        index: u32,
        /// The agreement's end epoch; a hint that names the ending record and must match.
        end_epoch: u64,
        /// The agreement's storage key; a hint that must match.
        storage_key: Account,
        /// Signature by the storage key over chain id and claim.
        #[json(skip)]
        consumer_signature: Signature,
        /// Signature by the provider over the same bytes; required unless the set is empty (DS-3).
        #[json(skip)]
        provider_signature: Option<Signature>,
    }
}

encoded! {
    /// A path from a leaf to the root of a Merkle-sum tree, starting at the leaf.
    SumPath {
        /// Bit j is set when the sibling at level j is on the left.
        lefts: u32,
        /// Hash and sum of the sibling at each level.
        siblings: Bounded<(Hash, u64), SUM_LEVELS_MAX>,
    }
}

encoded! {
    #[json]
    /// A drawn leaf with its proof up to the signed root of the data set (RD-2).
    ProvedRead {
        /// Place in the slot tree that holds the drawn index. It names the agreement's slot and, modulo
        /// the ring, its end epoch.
        #[json("slot", slot)]
        place: u32,
        /// Name of the shard: its plain BLAKE3 hash.
        shard: Hash,
        /// Exact length of the shard, in bytes.
        length: u64,
        /// Path from the shard to the data set's root.
        #[json(skip)]
        position: SumPath,
        /// Content of the leaf, at most 1 KiB.
        #[json(skip)]
        leaf: Bounded<u8, { bound(LEAF_BYTES) }>,
        /// Sibling chaining values from the leaf to the shard's hash.
        #[json(skip)]
        path: Bounded<Hash, LEAF_LEVELS_MAX>,
    }
}

encoded! {
    #[json]
    /// A read that the provider declares missing. It still proves the shard and its place.
    MissingRead {
        /// Place in the slot tree that holds the drawn index.
        #[json("slot", slot)]
        place: u32,
        /// Name of the shard: its plain BLAKE3 hash.
        shard: Hash,
        /// Exact length of the shard, in bytes.
        length: u64,
        /// Path from the shard to the data set's root.
        #[json(skip)]
        position: SumPath,
    }
}

encoded! {
    #[json]
    /// A read in the slot of an agreement that had ended before the challenge was drawn, and that was
    /// not cleared before its place came into range again (RD-9). It never passes; anyone can free the
    /// slot with `Settle`.
    #[derive(Copy)]
    EndedRead {
        /// Place in the slot tree that holds the drawn index.
        #[json("slot", slot)]
        place: u32,
    }
}

tagged! {
    #[json]
    /// The answer to one of a challenge's four dependent reads (RD-1).
    ReadAnswer {
        /// The leaf, with its proof.
        #[json("read" = "proved")]
        0 => Proved(ProvedRead),
        /// The provider lacks the leaf.
        #[json("read" = "missing")]
        1 => Missing(MissingRead),
        /// The agreement of the drawn slot has ended.
        #[json("read" = "ended")]
        2 => Ended(EndedRead),
    }
}

impl ReadAnswer {
    /// Place in the slot tree that this answer is about.
    pub const fn place(&self) -> u32 {
        match self {
            Self::Proved(read) => read.place,
            Self::Missing(read) => read.place,
            Self::Ended(read) => read.place,
        }
    }

    /// Slot of the agreement at that place.
    pub const fn slot(&self) -> u32 {
        slot_at(self.place())
    }
}

tagged! {
    #[json]
    /// The answer to a read that is asked again (RD-7).
    Reasked {
        /// The leaf is back, with its proof.
        #[json("read" = "proved")]
        0 => Proved(FoundRead),
        /// The leaf is still missing, or its agreement has ended.
        #[json("read" = "missing")]
        1 => Missing(StillMissing),
    }
}

encoded! {
    #[json]
    /// A leaf that was declared missing and has been found. Its place was proved when it was declared,
    /// so the path to the shard's name suffices (RD-7).
    FoundRead {
        /// Slot of the agreement.
        slot: u32,
        /// Name of the shard: its plain BLAKE3 hash.
        shard: Hash,
        /// Exact length of the shard, in bytes.
        length: u64,
        /// Content of the leaf, at most 1 KiB.
        #[json(skip)]
        leaf: Bounded<u8, { bound(LEAF_BYTES) }>,
        /// Sibling chaining values from the leaf to the shard's hash.
        #[json(skip)]
        path: Bounded<Hash, LEAF_LEVELS_MAX>,
    }
}

encoded! {
    #[json]
    /// Names a remembered read that is still missing, or whose agreement has ended, and proves nothing.
    #[derive(Copy)]
    StillMissing {
        /// Slot of the agreement.
        slot: u32,
    }
}

encoded! {
    #[json]
    /// Cumulative use of one agreement, signed by its session key (VO-1).
    #[derive(Copy)]
    Voucher {
        /// Full id of the agreement, so that a reused slot voids it.
        agreement: AgreementId,
        /// Egress bytes and gas since the opening.
        #[json(units("egress", "gas"))]
        units: Units,
        /// Ed25519 signature by the session key over chain id and the fields above.
        #[json(skip)]
        signature: Signature,
    }
}

encoded! {
    #[json]
    /// A voucher with an optional claim by the provider beyond it (BK-8).
    #[derive(Copy)]
    Redemption {
        /// The voucher to redeem.
        #[json(flat)]
        voucher: Voucher,
        /// Key that signed it; must be the agreement's session key, or the old one within its window.
        session_key: Account,
        /// Egress bytes and gas that the provider says it has served since the opening, each at least
        /// the voucher's. The excess is never paid; it counts as disputed, once.
        #[json(claimed)]
        claim: Option<Units>,
    }
}

encoded! {
    #[json]
    /// A storage proof: the answer to a challenge. Free, keyed by (provider, height), idempotent (RD-8).
    #[derive(Default)]
    StorageProof {
        /// Height of the block that drew the challenge.
        height: u64,
        /// Anchor of that block's round: digest of the block that was final when the challenge was drawn
        /// (RD-3).
        anchor: Hash,
        /// The provider's index; a hint that names the fee tree's path and must match.
        index: u32,
        /// The four answers in order; empty if no agreement lived (RD-11).
        answers: Bounded<ReadAnswer, READS>,
        /// Answers to reads asked again, in the order of the provider's record.
        reasked: Bounded<Reasked, MISSING_MAX>,
        /// Vouchers to redeem, each judged on its own (VO-4).
        vouchers: Bounded<Redemption, STORAGE_PROOF_VOUCHERS_MAX>,
        /// Slots whose `next` takes effect; consumer and end epoch are hints that must match.
        #[json(slots)]
        apply: Bounded<(u32, Account, u64), SETTLE_SLOTS_MAX>,
        /// End epochs to cross, ascending (ST-5).
        endings: Bounded<u64, ENDINGS_MAX>,
    }
}

encoded! {
    #[json]
    /// Redeems vouchers for a fee, independently of any challenge.
    Redeem {
        /// Vouchers to redeem, each judged on its own (VO-4).
        vouchers: Bounded<Redemption, REDEEM_VOUCHERS_MAX>,
    }
}

encoded! {
    #[json]
    /// Free upkeep that anyone may send (ST-7): expires a stale challenge, applies `next`, charges and
    /// removes ended agreements. Sent by the provider itself while no challenge is open, it also puts
    /// the provider back into the fee tree (DR-6).
    Settle {
        /// Provider whose records are brought up to date.
        provider: Account,
        /// Its fee-tree index; a hint that must match.
        index: u32,
        /// Slots to apply, charge or remove; consumer and end epoch are hints that must match.
        #[json(slots)]
        slots: Bounded<(u32, Account, u64), SETTLE_SLOTS_MAX>,
        /// End epochs to cross, ascending (ST-5).
        endings: Bounded<u64, ENDINGS_MAX>,
    }
}

encoded! {
    #[json]
    /// Leaves jail after the sentence, for a burned price (JL-5).
    Unjail {
        /// Money to add to the bond, which must cover the capacity again.
        bond_add: Amount,
    }
}

encoded! {
    #[json]
    /// A provider's signed refusal of a placement (PV-5). The refused consumer holds it; anyone may
    /// submit it, and the ledger then lowers the declared capacity to what is sold.
    #[derive(Copy)]
    RefusedPlacement {
        /// Provider that refused and signed.
        provider: Account,
        /// Consumer whose placement was refused.
        consumer: Account,
        /// Agreement of the placement; `None` if a quote was refused.
        agreement: Option<AgreementId>,
        /// Size of the refused placement, in leaves.
        leaves: u64,
        /// Last certified height that the provider had seen when it signed.
        height: u64,
        /// Ed25519 signature by the provider over chain id and the fields above.
        #[json(skip)]
        signature: Signature,
    }
}

encoded! {
    #[json]
    /// Two headers that one leader signed for the same view: evidence of equivocation.
    Proposals {
        /// The contradicting headers, each with its signature.
        headers: Bounded<Header, 2>,
    }
}

encoded! {
    #[json]
    /// Two different commitments of one seat for the same epoch: evidence of equivocation.
    Commitments {
        /// Seat that signed both commitments.
        #[json(skip)]
        seat: Account,
        /// The contradicting commitments, each with its signature.
        commits: Bounded<AuditCommit, 2>,
    }
}

tagged! {
    #[json("seat" = Self::offender)]
    /// Two signatures of one seat that contradict each other (AU-4).
    Evidence {
        /// Two block proposals for one view.
        1 => Proposals(Proposals),
        /// Two audit commitments for one epoch.
        2 => Commitments(Commitments),
    }
}

encoded! {
    #[json]
    /// Bytes that a drawn peer received from a provider in the epoch's slot, signed by the peer (CP-2).
    #[derive(Copy)]
    ProbeCount {
        /// Epoch in which the bytes were counted.
        epoch: u64,
        /// Provider that sent the bytes.
        sender: Account,
        /// Peer that counted them and signs.
        receiver: Account,
        /// Number of the sender's draw, 0 to 7, that selected this receiver.
        draw: u8,
        /// Bytes that arrived within the slot.
        bytes: u64,
        /// Ed25519 signature by the receiver over chain id and the fields above.
        #[json(skip)]
        signature: Signature,
    }
}

encoded! {
    #[json]
    /// A provider's measurement of its egress in an epoch, from the counts of its drawn peers (CP-3).
    Measure {
        /// Epoch that was measured.
        epoch: u64,
        /// Counts in the order of the draws. Each has its receiver's index, a hint that must match.
        #[json(counts)]
        counts: Bounded<(u32, ProbeCount), PROBE_PEERS>,
    }
}

encoded! {
    #[json]
    /// Lists the signer's node, changes its entry, or withdraws it (ND-1).
    AnnounceNode {
        /// Address of its node service, `host:port`; `None` withdraws the node and returns its deposit.
        address: Option<Address>,
        /// True if it keeps every block.
        archive: bool,
        /// Name of its region, UTF-8; may be empty.
        region: Bounded<u8, REGION_BYTES_MAX>,
        /// Place in the list to take; once the node is listed, a hint that must match. Zero for a seat.
        place: u32,
        /// Money to add to the node's deposit; zero for a seat.
        deposit_add: Amount,
        /// The node that stands at the place and is displaced; a hint that must match.
        displaces: Option<Account>,
    }
}

operations! {
    |body, signer, context, chain, touched, working|

    /// Moves money between two accounts.
    1 Transfer(Transfer): Paid {
        fits: structure::amount_fits(body.amount),
        check: Ok(()),
        moves: body.amount,
        touches: account::touches(body, touched),
        apply: account::transfer(working, signer, body),
        signatures: [],
    }
    /// Registers the signer as a provider.
    2 RegisterProvider(RegisterProvider): Paid {
        fits: provider::registration_fits(body),
        check: Ok(()),
        moves: body.bond,
        touches: provider::touches_register(signer, touched),
        apply: provider::register(working, signer, body),
        signatures: [],
    }
    /// Changes a provider's offer, or announces or completes its exit.
    3 UpdateProvider(UpdateProvider): Paid {
        fits: provider::update_fits(body),
        check: Ok(()),
        moves: body.bond_add,
        touches: provider::touches_update(context, signer, body, touched),
        apply: provider::update(working, signer, body),
        signatures: [],
    }
    /// Opens an agreement with a provider.
    4 Open(Open): Paid {
        fits: agreement::open_fits(body, &context.parameters),
        check: Ok(()),
        moves: body.voucher_reserve,
        touches: agreement::touches_open(body, touched),
        apply: agreement::open(working, signer, body),
        signatures: [],
    }
    /// Adds to an agreement's voucher reserve.
    5 TopUp(TopUp): Paid {
        fits: agreement::top_up_fits(body),
        check: Ok(()),
        moves: body.amount,
        touches: agreement::touches_top_up(body, touched),
        apply: agreement::top_up(working, signer, body),
        signatures: [],
    }
    /// Ends an agreement, signed by both parties.
    6 Close(Close): Paid {
        fits: agreement::close_fits(body),
        check: Ok(()),
        moves: Amount::ZERO,
        touches: agreement::touches_close(body, touched),
        apply: agreement::close(working, signer, body),
        signatures: [body.check(chain, signer)],
    }
    /// Ends an agreement, signed by one party.
    7 CloseAlone(CloseAlone): Paid {
        fits: structure::id_fits(&body.agreement),
        check: Ok(()),
        moves: Amount::ZERO,
        touches: agreement::touches_close_alone(body, touched),
        apply: agreement::close_alone(working, signer, body),
        signatures: [],
    }
    /// Replaces an agreement's session key.
    8 RotateKey(RotateKey): Paid {
        fits: structure::id_fits(&body.agreement),
        check: Ok(()),
        moves: Amount::ZERO,
        touches: agreement::touches_rotate(body, touched),
        apply: agreement::rotate(working, signer, body),
        signatures: [],
    }
    /// Changes an agreement's data set.
    9 SetDataSet(SetDataSet): Paid {
        fits: data_set::fits(body),
        check: Ok(()),
        moves: Amount::ZERO,
        touches: data_set::touches(body, touched),
        apply: data_set::apply(working, body),
        signatures: body.signatures(chain),
    }
    /// Answers a challenge; free.
    10 StorageProof(StorageProof): StorageProof {
        fits: storage_proof::fits(body, context),
        check: structure::check_redemptions(signer, &body.vouchers),
        moves: Amount::ZERO,
        touches: storage_proof::touches(context, signer, body, touched),
        apply: storage_proof::apply(working, signer, body),
        signatures: signatures::of_redemptions(&body.vouchers, chain),
    }
    /// Redeems vouchers outside a challenge.
    11 Redeem(Redeem): Paid {
        fits: structure::redemptions_fit(&body.vouchers),
        check: agreement::check_redeem(signer, body),
        moves: Amount::ZERO,
        touches: agreement::touches_redeem(context, signer, &body.vouchers, touched),
        apply: agreement::redeem(working, &body.vouchers).map(|_| ()),
        signatures: signatures::of_redemptions(&body.vouchers, chain),
    }
    /// Brings a provider's records up to date; free.
    12 Settle(Settle): Upkeep {
        fits: settlement::fits(body, context),
        check: Ok(()),
        moves: Amount::ZERO,
        touches: settlement::touches(context, signer, body, touched),
        apply: settlement::apply(working, signer, body),
        signatures: [],
    }
    /// Ends a provider's time in jail.
    13 Unjail(Unjail): Paid {
        fits: true,
        check: Ok(()),
        moves: body.bond_add,
        touches: reputation::touches_unjail(signer, touched),
        apply: reputation::unjail(working, signer, body),
        signatures: [],
    }
    /// Lowers the declared capacity of a provider that refused a placement within it.
    14 Refusal(RefusedPlacement): Paid {
        fits: provider::refusal_fits(body),
        check: Ok(()),
        moves: Amount::ZERO,
        touches: provider::touches_cut(body, touched),
        apply: provider::cut(working, body),
        signatures: [body.check(chain)],
    }
    /// Slashes and jails a seat that signed contradicting messages.
    15 Evidence(Evidence): Reserved {
        fits: true,
        check: authority::check(body, &context.chain),
        moves: Amount::ZERO,
        touches: authority::touches_evidence(body, &context.parameters, touched),
        apply: authority::apply(working, signer, body),
        signatures: body.signatures(chain),
    }
    /// Commits an auditor to its reports of an epoch.
    16 AuditCommit(AuditCommit): Reserved {
        fits: true,
        check: Ok(()),
        moves: Amount::ZERO,
        touches: crate::service::touches_commit(signer, body, touched),
        apply: crate::service::commit(working, signer, body),
        signatures: [body.check(chain, *signer)],
    }
    /// Reveals a batch of the reports that an auditor committed to.
    17 AuditReveal(AuditReveal): Reserved {
        fits: body.fits(),
        check: Ok(()),
        moves: Amount::ZERO,
        touches: crate::service::touches_reveal(signer, body, touched),
        apply: crate::service::reveal(working, signer, body),
        signatures: body.signatures(chain, signer),
    }
    /// Submits the drawn peers' counts of a provider's egress.
    18 Measure(Measure): Paid {
        fits: capacity::fits(body),
        check: capacity::check_senders(signer, body),
        moves: Amount::ZERO,
        touches: capacity::touches(signer, body, touched),
        apply: capacity::measure(working, signer, body),
        signatures: body.signatures(chain),
    }
    /// Lists a node that serves the network's state, or withdraws it.
    19 AnnounceNode(AnnounceNode): Paid {
        fits: node::announcement_fits(body),
        check: Ok(()),
        moves: body.deposit_add,
        touches: node::touches(signer, body, touched),
        apply: node::announce(working, signer, body),
        signatures: [],
    }
}

encoded! {
    #[json("id" = Self::id, "kind" = |operation: &Self| operation.body.name())]
    /// A request in its signed envelope.
    Operation {
        /// Account that sends the operation and pays its fee.
        signer: Account,
        /// The signer's next nonce; 0 outside the paid lane.
        nonce: u64,
        /// Upper bound on the fee that may be burned; 0 for free operations.
        max_fee: Amount,
        /// Last height at which a block may hold it.
        expires: u64,
        /// The request, which decides the lane.
        #[json("fields")]
        body: Body,
        /// Ed25519 signature in `OPERATION_NAMESPACE` over chain id and the fields above.
        #[json(skip)]
        signature: Signature,
    }
}
