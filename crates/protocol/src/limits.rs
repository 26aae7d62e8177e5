//! Every bound and every genesis parameter, with its reason. They argue at compile time below.

use crate::amount::{Amount, ONE};

/// A BLAKE3 chunk: the unit that is drawn, proved and paid for.
pub const LEAF_BYTES: u64 = 1024;
/// Slots of one provider.
pub const SLOTS_MAX: u32 = 1 << 20;
/// End epochs that a slot tree tells apart: above the longest agreement, so that what lives in an
/// epoch is one range of the tree (RD-12).
pub const ENDS_RING: u32 = 1 << 10;
/// Places of a provider's slot tree, by end epoch and slot: 30 levels.
pub const PLACES_MAX: u32 = ENDS_RING * SLOTS_MAX;
/// Providers the fee tree can hold: 20 levels.
pub const PROVIDERS_MAX: u32 = 1 << 20;
/// Largest shard: what one frame carries.
pub const SHARD_BYTES_MAX: u64 = 4 << 20;
/// Shards of one data set: the sum path has at most this many levels (2^20 shards).
pub const SUM_LEVELS_MAX: usize = 20;
/// Path from a 1 KiB chunk to the hash of a 4 MiB shard.
pub const CHUNK_LEVELS_MAX: usize = 12;
/// Dependent reads of one challenge.
pub const READS: usize = 4;
/// Missing reads that a provider's record remembers.
pub const MISSING_MAX: usize = 4;
/// Drawn reads and answers in the history: one 64-bit word each.
pub const HISTORY: u32 = 64;
/// Challenges in which a remembered read is asked again.
pub const REASKS: u8 = 3;
/// Drawn reads after which a provider no longer stands in the turn line twice.
pub const NEWCOMER_READS: u32 = 64;
/// Closed challenges after which it does not either: a provider that holds nothing has no reads drawn.
pub const NEWCOMER_CLOSED: u8 = 64;
/// Endings that one statement crosses (a record each). More can only wait in an interval that was
/// not settled for as many epochs.
pub const ENDINGS_MAX: usize = 64;
/// Epochs, from the last one crossed, in which agreements of a provider may end: a ring of bits
/// in one record. Above the longest agreement by what a provider may be away.
pub const ENDING_RING: u64 = 1920;
/// Epochs in which faulty rounds are counted: at most [`FAULT_ROUNDS_SHARE`] of their rounds.
pub const FAULT_EPOCHS: usize = 64;
/// Rounds back from the newest faulty one for which it is known whether they were: one record of
/// bits, above the longest time that a challenge may be pending.
pub const FAULT_RING: u64 = 1920;
/// A round is faulty when more than this share of its draws by fee were not answered on time.
pub const FAULT_MISSED_SHARE: u64 = ONE / 5;
/// At most this share of the rounds of any [`FAULT_EPOCHS`] epochs are faulty: who silences others
/// for longer than that silences them at their cost.
pub const FAULT_ROUNDS_SHARE: u64 = ONE / 10;
/// One part in so many of a restitution is burned, rounded up.
pub const RESTITUTION_BURN: u128 = 10;
/// Slots whose pending data set one statement applies, and slots of one `Settle`.
pub const SETTLE_SLOTS_MAX: usize = 64;
/// Vouchers in a statement and in a `Redeem`.
pub const STATEMENT_VOUCHERS_MAX: usize = 64;
/// Vouchers in a `Redeem`: as many as fit an operation, each with a claim.
pub const REDEEM_VOUCHERS_MAX: usize = 160;
/// Encoded size of one operation; a full statement is below 23 kB.
pub const OPERATION_BYTES_MAX: usize = 32 << 10;
/// Operations' bytes in a body.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Operations in a body.
pub const OPERATIONS_MAX: usize = 4096;
/// Bytes of a body that only statements, reserved operations and upkeep may fill.
pub const FREE_LANE_BYTES: usize = BODY_BYTES_MAX / 2;
/// Bytes of a body that paid operations may fill: a full lane.
pub const PAID_LANE_BYTES: usize = BODY_BYTES_MAX - FREE_LANE_BYTES;
/// Writable records, summed over paid operations, at which the paid lane counts as full (AC-5).
pub const PAID_LANE_KEYS: usize = KEYS_MAX / 2;
/// Operations of one account in the reserved lane of a body: a seat reveals its audits in several.
pub const RESERVED_PER_ACCOUNT: usize = 2;
/// Draws in a body.
pub const DRAWS_MAX: usize = 8;
/// Bytes of the DKG payload in a body.
pub const DKG_BYTES_MAX: usize = 256 << 10;
/// Records one block may name: 3 us each.
pub const KEYS_MAX: usize = 16_384;
/// Bytes charged for each record that an operation names as writable.
pub const FEE_BYTES_PER_KEY: u64 = 512;
/// Operator names, zero padded.
pub const OPERATOR_BYTES: usize = 32;
/// One address of a provider, as text: a host name or number and a port.
pub const ADDRESS_BYTES_MAX: usize = 120;
/// Addresses of a provider.
pub const ADDRESSES_MAX: usize = 2;
/// A region's name.
pub const REGION_BYTES_MAX: usize = 24;
/// A file's name in a gateway's catalogue.
pub const NAME_BYTES_MAX: usize = 1024;
/// Epochs for which a provider's row stays in state.
pub const SETTLEMENT_RING: u64 = 512;
/// Peers that count what a provider sends when it is measured.
pub const PROBE_PEERS: usize = 8;
/// Counts that a measurement needs: of fewer the lower median of eight is zero.
pub const PROBE_QUORUM: usize = 5;
/// Milliseconds for which everybody is measured at the same time.
pub const PROBE_SLOT_MS: u64 = 2_000;
/// Bytes of one message that is sent to be counted.
pub const PROBE_BYTES: usize = 64 << 10;
/// Epochs for which a measurement tells the market what is offered.
pub const MEASURED_FRESH_EPOCHS: u64 = 8;
/// The market counts a provider's storage as offered if it answered a challenge in one of this many
/// epochs, the closed one included (MK-3).
pub const ANSWERED_FRESH_EPOCHS: u64 = 8;
/// A frame on any authenticated channel.
pub const FRAME_BYTES_MAX: usize = (4 << 20) + (64 << 10);
/// Milliseconds within which both ends of a channel prove their keys.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;
/// How far two clocks may differ at a handshake: keys decide, so this only needs to end some day.
pub const HANDSHAKE_SKEW_MS_MAX: u64 = 2 * 60 * 60 * 1_000;
/// Milliseconds of silence after which a side sends an empty frame: a third of the socket's patience.
pub const KEEP_ALIVE_MS: u64 = 20_000;
/// Connections of one listener: times a frame each, its memory.
pub const CONNECTIONS_MAX: usize = 256;
/// Calls open at once on a connection.
pub const CALLS_MAX: usize = 64;
/// Messages of a call, in one direction, that the receiver has not taken: 2 MiB of slices.
pub const CALL_WINDOW: usize = 32;
/// Frames of a connection that wait to be written.
pub const FRAMES_QUEUED_MAX: usize = 8;
/// Bytes of messages that all connections of one listener hold: beyond it nobody is read from.
pub const CALL_BYTES_MAX: usize = 64 << 20;
/// Milliseconds for which a connection may wait for memory.
pub const CALL_MEMORY_MS_MAX: u64 = 60_000;
/// A verified slice of a download.
pub const SLICE_BYTES: u64 = 64 << 10;
/// Credit window of an agreement: paid bytes / 16, within these (VO-5). A slice at least, so
/// that a window is always of use.
pub const CREDIT_MIN: u64 = SLICE_BYTES;
/// Upper bound of the credit window.
pub const CREDIT_MAX: u64 = 4 << 20;
/// What downloads may leave unpaid beyond a sixteenth of what was paid before nothing more is sent.
/// With the window that is open then: four slices, worth less than opening an agreement burns.
pub const CREDIT_LOST_MAX: u64 = 3 * SLICE_BYTES;
/// A block's time lies within the parent's and this many milliseconds after it.
pub const TIME_STEP_MS_MAX: u64 = 10_000;
/// Blocks that an authority keeps.
pub const BLOCKS_KEPT: u64 = 4096;
/// Bytes that wait for a block, in all.
pub const MEMPOOL_BYTES: usize = 16 << 20;
/// Bytes of them that only free operations may fill: 180 full statements, or 9 minutes of draws.
pub const MEMPOOL_FREE_BYTES: usize = 4 << 20;
/// Bytes of the free part that upkeep of anyone may fill; statements take it back when they need it.
pub const MEMPOOL_SETTLE_BYTES: usize = 1 << 20;
/// Bytes of waiting upkeep that one account signed.
pub const MEMPOOL_SETTLE_PER_ACCOUNT: usize = 64 << 10;
/// Bytes that only operations of the reserved lane may fill: a third of what 256 seats reveal of an
/// epoch, within whose first round they offer it again.
pub const MEMPOOL_RESERVED_BYTES: usize = 4 << 20;
/// Operations of the reserved lane that wait of one account: all batches of a seat, and evidence.
pub const MEMPOOL_RESERVED_PER_ACCOUNT: usize = REPORT_BATCHES_MAX + 4;
/// Evidence among them: two faults may come to light at once.
pub const MEMPOOL_EVIDENCE_PER_ACCOUNT: usize = 2;
/// Bytes that paid operations may fill which wait for an earlier nonce of their account: no block can
/// hold them yet.
pub const MEMPOOL_GAP_BYTES: usize = 1 << 20;
/// Bytes of them that one account signed.
pub const MEMPOOL_GAP_BYTES_PER_ACCOUNT: usize = 64 << 10;
/// Operations of one account among them.
pub const MEMPOOL_GAP_PER_ACCOUNT: usize = 16;
/// Paid operations of one account that wait.
pub const MEMPOOL_PER_ACCOUNT: usize = 64;
/// A waiting operation with the same nonce gives way to one that offers this much more, in percent.
pub const MEMPOOL_REPLACE_PERCENT: u128 = 110;
/// Own proposals that may leave out a statement before it is dropped.
pub const MEMPOOL_REFUSALS_MAX: u8 = 4;
/// Bytes of one batch that authorities send each other.
pub const GOSSIP_BYTES_MAX: usize = 256 << 10;
/// Milliseconds in which operations gather for one batch of signatures and of gossip.
pub const GATHER_MS: u64 = 10;
/// Operations that wait to be checked; more are told that the node is busy.
pub const INGRESS_QUEUED_MAX: usize = 1024;
/// Headers from a block to the next certificate: the engine finalizes most blocks by their own.
pub const HEADERS_MAX: usize = 64;
/// Events in one part of an answer: below a megabyte.
pub const EVENTS_MAX: usize = 4096;
/// Milliseconds for which a node holds a question about a receipt that is not there yet.
pub const RECEIPT_WAIT_MS: u64 = 10_000;
/// Milliseconds for an answer of a node, beyond what it may hold a question.
pub const ANSWER_MS_MAX: u64 = RECEIPT_WAIT_MS + 5_000;
/// Times a question is put, to one node after the other, before the caller is told.
pub const ASK_ATTEMPTS: u32 = 12;
/// Milliseconds before the second attempt; doubled each time up to 2 s.
pub const ASK_PAUSE_MS: u64 = 50;
/// Blocks that a proven read may lag behind the newest header seen.
pub const STALE_BLOCKS_MAX: u64 = 16;
/// Times that an operation is signed anew after it expired or its nonce was taken.
pub const SIGN_ATTEMPTS: u32 = 16;
/// Epochs for which evidence of a fault counts: below any unbonding time.
pub const EVIDENCE_EPOCHS_MAX: u64 = 14;
/// Seats of authorities: all of them are paid in one block.
pub const SEATS_MAX: u32 = 256;
/// Seats of authorities that no removal goes below, and fewest that hold shares of the network's key: the
/// least that tolerate a fault.
pub const SEATS_MIN: u32 = 4;
/// Keys in one proven read.
pub const READ_KEYS_MAX: usize = 64;
/// Auditors of a provider: at 61 drawn ones, 30 % of all seats outvote the rest in 1 of 2,000 epochs.
pub const AUDITORS_MAX: usize = 61;
/// Providers that an epoch's service audit draws for each seat.
pub const SERVICE_DRAWS: u32 = 4;
/// Reports in one reveal, and strata of one batch.
pub const REPORTS_MAX: usize = 64;
/// Batches of a commitment: all strata of 256 seats.
pub const REPORT_BATCHES_MAX: usize = 16;
/// Reports on a provider that one record holds.
pub const REPORTS_PER_PART: usize = 21;
/// Bytes of one read of an auditor: a verified slice.
pub const AUDIT_READ_BYTES: u64 = SLICE_BYTES;
/// Latency bands of a report.
pub const LATENCY_BANDS: usize = 10;
/// Throughput bands of a report.
pub const THROUGHPUT_BANDS: usize = 7;

const _: () = assert!(PROBE_QUORUM == PROBE_PEERS - (PROBE_PEERS - 1) / 2);
const _: () = assert!(FREE_LANE_BYTES / OPERATION_BYTES_MAX >= 2 * DRAWS_MAX);
const _: () = assert!(SEATS_MAX as usize * 3 < KEYS_MAX / 4);
const _: () = assert!(SHARD_BYTES_MAX / LEAF_BYTES == 1 << CHUNK_LEVELS_MAX);
const _: () = assert!(FRAME_BYTES_MAX as u64 > SHARD_BYTES_MAX);
const _: () = assert!(MEMPOOL_FREE_BYTES >= FREE_LANE_BYTES && MEMPOOL_SETTLE_BYTES < MEMPOOL_FREE_BYTES);
const _: () = assert!(
    MEMPOOL_BYTES - MEMPOOL_FREE_BYTES - MEMPOOL_RESERVED_BYTES - MEMPOOL_GAP_BYTES >= 4 * BODY_BYTES_MAX
);
const _: () = assert!(MEMPOOL_GAP_BYTES_PER_ACCOUNT >= OPERATION_BYTES_MAX);
const _: () = assert!(CALL_BYTES_MAX >= 4 * FRAME_BYTES_MAX);
const _: () = assert!((SEATS_MAX * SERVICE_DRAWS) as usize <= REPORTS_MAX * REPORT_BATCHES_MAX);
const _: () = assert!(AUDITORS_MAX <= 3 * REPORTS_PER_PART);

encoded! {
    /// The parameters that the genesis fixes; nothing changes them later.
    #[derive(Copy)]
    Parameters {
        /// Least milliseconds between blocks: local pacing, no rule reads a clock.
        block_ms: u64,
        /// R: blocks in a round. A drawn provider needs about three.
        round_blocks: u64,
        /// T: rounds in a term (key reshare). 40 blocks give each of four dealers 10 turns.
        term_rounds: u64,
        /// E: rounds in an epoch (books), a multiple of T.
        epoch_rounds: u64,
        /// Simplex leader timeout, above the pacing.
        leader_timeout_ms: u64,
        /// Simplex certification timeout.
        certification_timeout_ms: u64,
        /// A draw in every block whose height is a multiple of this.
        draw_every_blocks: u64,
        /// Draws in such a block.
        draws: u32,
        /// Blocks within which an answer is on time.
        deadline_blocks: u64,
        /// Rounds after which an unanswered challenge expires.
        pending_rounds_max: u64,
        /// Epochs for which an old session key or a closed agreement still redeems.
        redemption_epochs: u64,
        /// Longest agreement, in epochs.
        agreement_epochs_max: u64,
        /// Epochs from a provider's notice until it may end agreements alone.
        exit_epochs: u64,
        /// Epochs from a provider's notice until its bond returns: above the age of evidence.
        unbonding_epochs: u64,
        /// RoundInfo ring: above pending_rounds_max and the longest gap.
        round_ring: u64,
        /// Mempool life of an operation, in blocks.
        expiry_blocks_max: u64,
        /// Burned share of a provider's base, parts per billion.
        burn: u64,
        /// Committee's share, parts per billion.
        committee: u64,
        /// The fee floor, in grains per unit: the base fee starts here and never falls below (AC-5).
        base_fee: Amount,
        /// Returned when an agreement's records are deleted.
        deposit: Amount,
        /// Share of the price that reserving without use costs, parts per billion (AG-7).
        reserve_share: u64,
        /// Burned by a transfer that opens an account (AC-4).
        account_burn: Amount,
        /// Least bond of a provider.
        bond_min: Amount,
        /// Bond for each declared leaf: what a leaf can earn between draws, twice.
        bond_per_leaf: Amount,
        /// Burned at registration: at least the cost of 64 audits.
        registration_burn: Amount,
        /// Storage price per 2^20 leaf-rounds; posted and slow price start equal.
        price_storage: u128,
        /// Egress price per 2^20 bytes.
        price_egress: u128,
        /// Compute price per 2^20 gas.
        price_gas: u128,
        /// Most leaves one agreement may hold.
        quota_leaves_max: u64,
        /// Most egress bytes of one agreement.
        quota_egress_max: u64,
        /// Most gas of one agreement.
        quota_gas_max: u64,
        /// Most egress bytes per round of one agreement.
        rate_egress_max: u64,
        /// Most gas per round of one agreement.
        rate_gas_max: u64,
        /// S: providers that a block closes in each pass. Registrations end where a pass would no
        /// longer fit its epoch.
        closing_slice: u64,
        /// An epoch emits the reserve divided by this: half of it in 2,839 epochs.
        emission_divisor: u64,
        /// Part of the emission that follows use, parts per billion.
        usage_share: u64,
        /// The subsidy is at most this share of the burn of what weighs: below one, so that paying
        /// oneself loses.
        subsidy_cap: u64,
        /// Burned by a provider that leaves jail.
        unjail_burn: Amount,
        /// What each authority's seat locks at genesis: ten times the least bond of a provider,
        /// because who orders blocks can harm everyone.
        seat_bond: Amount,
        /// Least challenges by fee of a round that may be found faulty: fewer say nothing of the
        /// network. A local network draws two a round, so it has no faults.
        fault_draws_min: u32,
    }
}

/// What follows from the parameters is defined for every value of them and of its argument: heights,
/// rounds and epochs stand in what others send, and a node tells its parameters to whoever asks (LE-6).
impl Parameters {
    /// The local network: a block every 250 ms, an epoch of about 10 s.
    pub const LOCAL: Self = Self {
        block_ms: 250,
        round_blocks: 8,
        term_rounds: 5,
        epoch_rounds: 5,
        leader_timeout_ms: 1_000,
        certification_timeout_ms: 2_000,
        draw_every_blocks: 2,
        draws: 1,
        deadline_blocks: 8,
        pending_rounds_max: 15,
        redemption_epochs: 2,
        agreement_epochs_max: 720,
        exit_epochs: 8,
        unbonding_epochs: 21,
        round_ring: 64,
        expiry_blocks_max: 240,
        burn: ONE / 5,
        committee: ONE / 20,
        base_fee: match Amount::new(100) {
            Some(x) => x,
            None => Amount::ZERO,
        },
        deposit: match Amount::new(10_000_000) {
            Some(x) => x,
            None => Amount::ZERO,
        },
        reserve_share: ONE / 10,
        account_burn: match Amount::new(1_000_000) {
            Some(x) => x,
            None => Amount::ZERO,
        },
        bond_min: Amount::sync(1_000),
        // 8 GiB (2^23 leaves) need 5 SYNC.
        bond_per_leaf: match Amount::new(600) {
            Some(x) => x,
            None => Amount::ZERO,
        },
        registration_burn: match Amount::new(100_000_000) {
            Some(x) => x,
            None => Amount::ZERO,
        },
        price_storage: 10_000_000,
        price_egress: 1_000_000,
        price_gas: 1_000,
        quota_leaves_max: 1 << 21,
        quota_egress_max: 64 << 30,
        quota_gas_max: 10_000_000_000_000,
        rate_egress_max: 4 << 30,
        rate_gas_max: 100_000_000_000,
        closing_slice: 64,
        emission_divisor: 4096,
        usage_share: ONE / 2,
        subsidy_cap: ONE / 5 * 2,
        unjail_burn: Amount::sync(1),
        seat_bond: Amount::sync(10_000),
        fault_draws_min: 16,
    };

    /// A block a second, rounds of a minute, terms of an hour, epochs of a day.
    pub const PRODUCTION: Self = Self {
        block_ms: 1_000,
        round_blocks: 60,
        term_rounds: 60,
        epoch_rounds: 1_440,
        leader_timeout_ms: 2_000,
        certification_timeout_ms: 4_000,
        draw_every_blocks: 1,
        draws: 8,
        deadline_blocks: 60,
        pending_rounds_max: 1_440,
        round_ring: 4_096,
        expiry_blocks_max: 3_600,
        price_storage: 25_000,
        rate_egress_max: 64 << 30,
        rate_gas_max: 10_000_000_000_000,
        ..Self::LOCAL
    };

    /// Blocks in a term.
    pub const fn term_blocks(&self) -> u64 {
        self.round_blocks.saturating_mul(self.term_rounds)
    }

    /// Blocks in an epoch.
    pub const fn epoch_blocks(&self) -> u64 {
        self.round_blocks.saturating_mul(self.epoch_rounds)
    }

    /// The round of a height.
    pub const fn round(&self, height: u64) -> u64 {
        quotient(height, self.round_blocks)
    }

    /// The epoch of a height.
    pub const fn epoch(&self, height: u64) -> u64 {
        quotient(height, self.epoch_blocks())
    }

    /// The epoch of a round.
    pub const fn epoch_of_round(&self, round: u64) -> u64 {
        quotient(round, self.epoch_rounds)
    }

    /// Provider indices that a closing pass can visit within an epoch: one slice in each block
    /// after the first round.
    pub const fn indices_max(&self) -> u64 {
        let blocks = self.epoch_blocks().saturating_sub(self.round_blocks);
        let visited = blocks.saturating_mul(self.closing_slice);
        if visited < PROVIDERS_MAX as u64 { visited } else { PROVIDERS_MAX as u64 }
    }

    /// Most faulty rounds in [`FAULT_EPOCHS`] epochs.
    pub const fn faults_max(&self) -> u64 {
        let rounds = self.epoch_rounds as u128 * FAULT_EPOCHS as u128;
        (rounds * FAULT_ROUNDS_SHARE as u128 / ONE as u128) as u64
    }

    /// The first round of an epoch; saturates, because epochs come from the wire.
    pub const fn epoch_start(&self, epoch: u64) -> u64 {
        epoch.saturating_mul(self.epoch_rounds)
    }
}

/// `number / divisor`; zero for a divisor of zero: a node that is asked for its network's parameters
/// may answer anything, and who asks must not stop on it.
const fn quotient(number: u64, divisor: u64) -> u64 {
    match number.checked_div(divisor) {
        Some(quotient) => quotient,
        None => 0,
    }
}

const _: () = {
    let mut i = 0;
    while i < 2 {
        let p = if i == 0 { Parameters::LOCAL } else { Parameters::PRODUCTION };
        assert!(p.epoch_rounds.is_multiple_of(p.term_rounds));
        assert!(p.round_ring > p.pending_rounds_max + 2);
        assert!(p.draws as usize <= DRAWS_MAX && p.draw_every_blocks > 0);
        assert!(p.agreement_epochs_max < ENDING_RING && p.agreement_epochs_max < ENDS_RING as u64);
        assert!(p.unbonding_epochs >= p.exit_epochs && p.unbonding_epochs > EVIDENCE_EPOCHS_MAX);
        assert!(p.reserve_share < ONE);
        // A round is judged two rounds later, when nothing of it can be answered on time any more.
        assert!(p.deadline_blocks <= p.round_blocks && p.fault_draws_min > 0);
        assert!(p.pending_rounds_max + 2 < FAULT_RING && p.epoch_rounds < 1 << 16);
        assert!(p.leader_timeout_ms > p.block_ms && p.certification_timeout_ms > p.leader_timeout_ms);
        assert!(p.burn > 0 && p.burn + p.committee < ONE);
        assert!(p.subsidy_cap < ONE && p.usage_share <= ONE && p.emission_divisor > 0);
        // Both passes of a block name about a dozen records for each provider, its reports in
        // three more, and every seat's two.
        let closing = p.closing_slice as usize * 15 + 2 * SEATS_MAX as usize;
        assert!(p.closing_slice > 0 && closing < KEYS_MAX / 4);
        i += 1;
    }
};
