//! Bounds and genesis parameters, each with its reason. Assertions below relate them at compile time.

use crate::amount::{Amount, ONE};
use crate::number::{count, index, saturate, wide, widest};
use crate::{PerClass, Units};

/// Size of a leaf, a BLAKE3 chunk: the unit that is drawn, proved and paid for.
pub const LEAF_BYTES: u64 = 1024;
/// Most slots, and so agreements, of one provider.
pub const SLOTS_MAX: u32 = 1 << 20;
/// Distinct end epochs in a slot tree: more than the longest agreement, so that the agreements that live
/// in an epoch are one range of the tree (RD-12).
pub const ENDS_RING: u32 = 1 << 10;
/// Places of a provider's slot tree, ordered by end epoch and slot: 30 levels.
pub const PLACES_MAX: u32 = ENDS_RING * SLOTS_MAX;
/// Most providers in the fee tree: 20 levels.
pub const PROVIDERS_MAX: u32 = 1 << 20;
/// Largest shard, so that one frame carries it.
pub const SHARD_BYTES_MAX: u64 = 4 << 20;
/// Most levels of the sum path in one data set, which limits it to 2^20 shards.
pub const SUM_LEVELS_MAX: usize = 20;
/// Most levels of the path from a 1 KiB leaf to the hash of a 4 MiB shard.
pub const LEAF_LEVELS_MAX: usize = 12;
/// Dependent reads of one challenge.
pub const READS: usize = 4;
/// Most missing reads that a provider's record remembers.
pub const MISSING_MAX: usize = 4;
/// Number of drawn reads, and of answers, in the history: one 64-bit word each.
pub const HISTORY: u32 = 64;
/// Challenges in which a remembered read is asked again.
pub const REASKS: u8 = 3;
/// Number of drawn reads after which a provider loses its second place in the turn line.
pub const NEWCOMER_READS: u32 = 64;
/// Number of closed challenges after which it loses that place too. A provider that holds nothing has no
/// reads drawn.
pub const NEWCOMER_CLOSED: u8 = 64;
/// Most endings that one storage proof crosses, each a record. More can be due only if as many epochs were
/// not settled.
pub const ENDINGS_MAX: usize = 64;
/// Epochs, counted from the last one crossed, in which a provider's agreements may end: a ring of bits
/// in one record. It exceeds the longest agreement by the time that a provider may be away.
pub const ENDING_RING: u64 = 1920;
/// Span of epochs in which faulty rounds are at most [`FAULT_ROUNDS_SHARE`] of all rounds.
pub const FAULT_EPOCHS: usize = 64;
/// Number of rounds, back from the newest faulty one, for which one record of bits keeps whether they
/// were faulty. It exceeds the longest time that a challenge may be pending.
pub const FAULT_RING: u64 = 1920;
/// Share above which missing answers to a round's draws by fee make the round faulty (NF-1).
pub const FAULT_MISSED_SHARE: u64 = ONE / 5;
/// Largest share of faulty rounds in any [`FAULT_EPOCHS`] epochs (NF-2). An attacker that silences
/// others for longer does so at their expense.
pub const FAULT_ROUNDS_SHARE: u64 = ONE / 10;
/// A restitution burns one part in this many, rounded up (RD-7).
pub const RESTITUTION_BURN: u128 = 10;
/// Most slots whose pending data set one storage proof applies, and most slots of one `Settle`.
pub const SETTLE_SLOTS_MAX: usize = 64;
/// Most vouchers in one storage proof.
pub const STORAGE_PROOF_VOUCHERS_MAX: usize = 64;
/// Most vouchers in one `Redeem`: as many as fit an operation, each with a claim.
pub const REDEEM_VOUCHERS_MAX: usize = 160;
/// Most bytes of one encoded operation; a full storage proof is below 23 kB.
pub const OPERATION_BYTES_MAX: usize = 32 << 10;
/// Most bytes of the operations in a body.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Most operations in a body.
pub const OPERATIONS_MAX: usize = 4096;
/// Bytes of a body reserved for storage proofs, reserved operations and upkeep.
pub const FREE_LANE_BYTES: usize = BODY_BYTES_MAX / 2;
/// Most bytes of paid operations in a body: a full paid lane.
pub const PAID_LANE_BYTES: usize = BODY_BYTES_MAX - FREE_LANE_BYTES;
/// Number of writable records, summed over paid operations, that fills the paid lane (AC-5).
pub const PAID_LANE_KEYS: usize = KEYS_MAX / 2;
/// Most reserved operations of one account in a body; a seat reveals its audits in several.
pub const RESERVED_PER_ACCOUNT: usize = 2;
/// Most draws in a body.
pub const DRAWS_MAX: usize = 8;
/// Most bytes of the DKG payload in a body.
pub const DKG_BYTES_MAX: usize = 256 << 10;
/// Most records that one block may name; each takes 3 us.
pub const KEYS_MAX: usize = 16_384;
/// Bytes charged for each record that an operation names as writable.
pub const FEE_BYTES_PER_KEY: u64 = 512;
/// Bytes of an operator's name, padded with zeros.
pub const OPERATOR_BYTES: usize = 32;
/// Most bytes of one provider address in text form: host name or IP address, and port.
pub const ADDRESS_BYTES_MAX: usize = 120;
/// Most addresses of a provider.
pub const ADDRESSES_MAX: usize = 2;
/// Places in the list of nodes without a seat: a client reads all of them at each reading, in four proven reads, and
/// the nodes that stand there in as many.
pub const NODES_MAX: u32 = 256;
/// Least deposit of a node without a seat: a tenth of the lowest bond of a provider. The whole list costs
/// 25,600 SYNC to fill.
pub const NODE_DEPOSIT_MIN: Amount = Amount::sync(100);
/// A taken place needs a deposit that is higher by one part in this many, so that every change of hands
/// locks more money.
pub const NODE_RAISE_DIVISOR: u128 = 4;
/// Most bytes of a region's name.
pub const REGION_BYTES_MAX: usize = 24;
/// Most bytes of a file's name in a gateway's catalogue.
pub const NAME_BYTES_MAX: usize = 1024;
/// Number of epochs for which a provider's row stays in the state.
pub const SETTLEMENT_RING: u64 = 512;
/// Number of peers that count the bytes which a provider sends while it is measured.
pub const PROBE_PEERS: usize = 8;
/// Fewest counts for a measurement: with fewer, the lower median of eight is zero.
pub const PROBE_QUORUM: usize = 5;
/// Length in milliseconds of the window in which all providers are measured at the same time.
pub const PROBE_WINDOW_MS: u64 = 2_000;
/// Bytes of one message that a measured provider sends.
pub const PROBE_BYTES: usize = 64 << 10;
/// Number of epochs for which a measurement counts as egress offered to the market (CP-6).
pub const MEASURED_FRESH_EPOCHS: u64 = 8;
/// The market counts a provider's storage as offered if it answered a challenge in one of this many
/// epochs, including the closed one (MK-3).
pub const ANSWERED_FRESH_EPOCHS: u64 = 8;
/// Most bytes of a frame on an authenticated channel.
pub const FRAME_BYTES_MAX: usize = (4 << 20) + (64 << 10);
/// Milliseconds within which both ends of a channel must prove their keys.
pub const HANDSHAKE_MS_MAX: u64 = 5_000;
/// Most milliseconds by which two clocks may differ at the handshake of a channel to a provider or a gateway: two days.
/// Keys decide, so this only needs an end. Node services take a caller with any clock: a machine whose clock is wrong
/// asks them for the time, and learns by how much.
pub const HANDSHAKE_SKEW_MS_MAX: u64 = 48 * 60 * 60 * 1_000;
/// Most milliseconds by which the clocks of two authorities may differ at the handshake of their connection: the times
/// of blocks go ahead with the clock of an authority that is ahead (BL-2).
pub const PEER_SKEW_MS_MAX: u64 = 2 * 60 * 60 * 1_000;
/// Milliseconds without traffic after which a side sends an empty frame: a third of the socket's
/// timeout.
pub const KEEP_ALIVE_MS: u64 = 20_000;
/// Most connections of one listener; its memory is this many times a frame.
pub const CONNECTIONS_MAX: usize = 256;
/// Most calls that are open at once on a connection.
pub const CALLS_MAX: usize = 64;
/// Most messages of a call, in one direction, that the receiver has not taken: 2 MiB of slices.
pub const CALL_WINDOW: usize = 32;
/// Most frames of a connection that wait to be written.
pub const FRAMES_QUEUED_MAX: usize = 8;
/// Most bytes of messages that all connections of one listener hold. Beyond it, reading pauses.
pub const CALL_BYTES_MAX: usize = 64 << 20;
/// Milliseconds for which a connection may wait for memory before it is closed.
pub const CALL_MEMORY_MS_MAX: u64 = 60_000;
/// Bytes of a slice, the part of a download that is verified at once.
pub const SLICE_BYTES: u64 = 64 << 10;
/// Lower bound of an agreement's credit window, which is a sixteenth of the paid bytes (VO-5). It is one
/// slice, so that a window is always useful.
pub const CREDIT_MIN: u64 = SLICE_BYTES;
/// Upper bound of an agreement's credit window.
pub const CREDIT_MAX: u64 = 4 << 20;
/// Most bytes that downloads may leave unpaid beyond a sixteenth of the paid bytes before nothing more
/// is sent. With the window open at that time, a loss is four slices: less than opening an agreement
/// burns.
pub const CREDIT_LOST_MAX: u64 = 3 * SLICE_BYTES;
/// A block's time is at least its parent's, and at most this many milliseconds later.
pub const TIME_STEP_MS_MAX: u64 = 10_000;
/// Number of recent blocks that an authority keeps.
pub const BLOCKS_KEPT: u64 = 4096;
/// Most bytes of waiting operations in the mempool.
pub const MEMPOOL_BYTES: usize = 16 << 20;
/// Most of those bytes for free operations: 180 full storage proofs, or 9 minutes of draws.
pub const MEMPOOL_FREE_BYTES: usize = 4 << 20;
/// Most bytes of the free part for upkeep by anyone; storage proofs displace it when they need room.
pub const MEMPOOL_SETTLE_BYTES: usize = 1 << 20;
/// Bytes of waiting upkeep that one account signed.
pub const MEMPOOL_SETTLE_PER_ACCOUNT: usize = 64 << 10;
/// Bytes that only reserved operations may fill: a third of the reveals of 256 seats for an epoch, which
/// the seats offer again within the epoch's first round.
pub const MEMPOOL_RESERVED_BYTES: usize = 4 << 20;
/// Most waiting reserved operations of one account: all batches of a seat, and evidence.
pub const MEMPOOL_RESERVED_PER_ACCOUNT: usize = REPORT_BATCHES_MAX + 4;
/// Most waiting evidence of one account: two faults may come to light at once.
pub const MEMPOOL_EVIDENCE_PER_ACCOUNT: usize = 2;
/// Most bytes of paid operations that wait for an earlier nonce of their account, so that no block can
/// hold them yet.
pub const MEMPOOL_GAP_BYTES: usize = 1 << 20;
/// Most of those bytes signed by one account.
pub const MEMPOOL_GAP_BYTES_PER_ACCOUNT: usize = 64 << 10;
/// Most of those operations signed by one account.
pub const MEMPOOL_GAP_PER_ACCOUNT: usize = 16;
/// Most waiting paid operations of one account.
pub const MEMPOOL_PER_ACCOUNT: usize = 64;
/// An operation replaces a waiting one with the same nonce if its fee rate is at least this percentage
/// of the other's.
pub const MEMPOOL_REPLACE_PERCENT: u128 = 110;
/// Number of own proposals that may leave out a storage proof, or a party's upkeep, before it is dropped.
pub const MEMPOOL_REFUSALS_MAX: u8 = 4;
/// Most bytes of one batch of operations that authorities send each other.
pub const GOSSIP_BYTES_MAX: usize = 256 << 10;
/// Milliseconds for which operations are collected into one batch of signatures and of gossip.
pub const GATHER_MS: u64 = 10;
/// Most operations that wait to be checked, in each lane; the node answers further ones that it is busy.
pub const INGRESS_QUEUED_MAX: usize = 1024;
/// Most headers from a block to the next certificate; the engine finalizes most blocks by their own.
pub const HEADERS_MAX: usize = 64;
/// Most events in one part of an answer, which keeps it below a megabyte.
pub const EVENTS_MAX: usize = 4096;
/// Milliseconds for which a node delays its answer about a receipt that does not exist yet.
pub const RECEIPT_WAIT_MS: u64 = 10_000;
/// Milliseconds to wait for a node's answer, including the time for which it may delay it.
pub const ANSWER_MS_MAX: u64 = RECEIPT_WAIT_MS + 5_000;
/// Number of attempts at a question, to one node after the other, before the caller gets an error.
pub const ASK_ATTEMPTS: u32 = 12;
/// Milliseconds before the second attempt. The pause doubles with each attempt, up to 2 s.
pub const ASK_PAUSE_MS: u64 = 50;
/// Number of blocks by which a proven read may lag behind the newest header seen.
pub const STALE_BLOCKS_MAX: u64 = 16;
/// Most signatures of a body under one nonce, and most nonces tried, after expiry or a taken nonce.
pub const SIGN_ATTEMPTS: u32 = 16;
/// Number of epochs for which evidence of a fault is accepted: less than any unbonding time.
pub const EVIDENCE_EPOCHS_MAX: u64 = 14;
/// Most seats that the ledger's records have room for; all of them are paid in one block. It exceeds
/// [`AUTHORITIES_MAX`] because it is the width of the sets of seats in records, whose bytes must not change when
/// the engine learns to carry more authorities.
pub const SEATS_MAX: u32 = 256;
/// Most authorities of a term: bounds every set that the engine decodes, and the seats of a genesis. With more,
/// a term's dealings and the queues for its peers grow with the square.
pub const AUTHORITIES_MAX: u32 = 64;
/// Most peers that wait for a seat and follow consensus meanwhile.
pub const WAITING_MAX: u32 = 8;
/// Fewest seats that removals leave, and fewest that hold shares of the network's key: the smallest
/// number that tolerates a fault.
pub const SEATS_MIN: u32 = 4;
/// Most keys in one proven read.
pub const READ_KEYS_MAX: usize = 64;
/// Most auditors of a provider. With 61, 30 % of all seats outvote the rest in 1 of 2,000 epochs.
pub const AUDITORS_MAX: usize = 61;
/// Number of providers that an epoch's service audit draws for each seat.
pub const SERVICE_DRAWS: u32 = 4;
/// Most reports in one reveal, and number of strata in one batch.
pub const REPORTS_MAX: usize = 64;
/// Most batches of a commitment: all strata of 256 seats.
pub const REPORT_BATCHES_MAX: usize = 16;
/// Most reports on a provider in one record.
pub const REPORTS_PER_PART: usize = 21;
/// Bytes of one read by an auditor: a verified slice.
pub const AUDIT_READ_BYTES: u64 = SLICE_BYTES;
/// Number of latency bands in a report.
pub const LATENCY_BANDS: usize = 10;
/// Number of throughput bands in a report.
pub const THROUGHPUT_BANDS: usize = 7;

const _: () = assert!(AUTHORITIES_MAX >= SEATS_MIN && AUTHORITIES_MAX <= SEATS_MAX);
const _: () = assert!(PROBE_QUORUM == PROBE_PEERS - (PROBE_PEERS - 1) / 2);
const _: () = assert!(FREE_LANE_BYTES / OPERATION_BYTES_MAX >= 2 * DRAWS_MAX);
const _: () = assert!(index(SEATS_MAX) * 3 < KEYS_MAX / 4);
const _: () = assert!(SHARD_BYTES_MAX / LEAF_BYTES == 1 << LEAF_LEVELS_MAX);
const _: () = assert!(count(FRAME_BYTES_MAX) > SHARD_BYTES_MAX);
const _: () = assert!(MEMPOOL_FREE_BYTES >= FREE_LANE_BYTES && MEMPOOL_SETTLE_BYTES < MEMPOOL_FREE_BYTES);
const _: () = assert!(
    MEMPOOL_BYTES - MEMPOOL_FREE_BYTES - MEMPOOL_RESERVED_BYTES - MEMPOOL_GAP_BYTES >= 4 * BODY_BYTES_MAX
);
const _: () = assert!(MEMPOOL_GAP_BYTES_PER_ACCOUNT >= OPERATION_BYTES_MAX);
const _: () = assert!(CALL_BYTES_MAX >= 4 * FRAME_BYTES_MAX);
const _: () = assert!(index(SEATS_MAX * SERVICE_DRAWS) <= REPORTS_MAX * REPORT_BATCHES_MAX);
const _: () = assert!(AUDITORS_MAX <= 3 * REPORTS_PER_PART);

encoded! {
    #[json]
    /// The parameters that the genesis fixes. Nothing changes them later.
    #[derive(Copy)]
    Parameters {
        /// Least milliseconds between blocks. This is local pacing; no rule reads a clock.
        block_ms: u64,
        /// R: blocks in a round. A drawn provider needs about three to answer.
        round_blocks: u64,
        /// T: rounds in a term, after which the key is reshared. 40 blocks give each of four dealers 10
        /// turns.
        term_rounds: u64,
        /// E: rounds in an epoch, after which the books are closed; a multiple of T.
        epoch_rounds: u64,
        /// Leader timeout of Simplex in milliseconds, above the pacing.
        leader_timeout_ms: u64,
        /// Certification timeout of Simplex in milliseconds.
        certification_timeout_ms: u64,
        /// Distance between blocks with draws: those whose height is a multiple of it.
        draw_every_blocks: u64,
        /// Number of draws in such a block.
        draws: u32,
        /// Number of blocks within which an answer is on time.
        deadline_blocks: u64,
        /// Number of rounds after which an unanswered challenge expires.
        pending_rounds_max: u64,
        /// Number of epochs in which an old session key, or a closed agreement, still redeems.
        redemption_epochs: u64,
        /// Longest agreement, in epochs.
        agreement_epochs_max: u64,
        /// Epochs from a provider's notice until it may end agreements alone (PV-3).
        exit_epochs: u64,
        /// Epochs from a provider's notice until its bond returns: more than evidence stays valid
        /// (PV-3).
        unbonding_epochs: u64,
        /// Size of the `RoundInfo` ring: above `pending_rounds_max` and the longest gap.
        round_ring: u64,
        /// Most blocks that an operation's expiry may lie ahead.
        expiry_blocks_max: u64,
        /// Burned share of a provider's base, in parts per billion.
        burn: u64,
        /// Committee's share of a provider's base, in parts per billion.
        committee: u64,
        /// The fee floor, in grains per unit: the base fee starts at it and never falls below it (AC-5).
        base_fee: Amount,
        /// Deposit of an agreement, returned when its records are deleted (AG-4).
        deposit: Amount,
        /// Share of the price that unused reservations cost, in parts per billion (AG-7).
        reserve_share: u64,
        /// Burned by a transfer that creates an account (AC-4).
        account_burn: Amount,
        /// Lowest bond of a provider.
        bond_min: Amount,
        /// Bond per declared leaf: twice the amount that a leaf can earn between draws.
        bond_per_leaf: Amount,
        /// Burned at registration: at least the cost of 64 audits (PV-1).
        registration_burn: Amount,
        /// Price of each class in grains per 2^20 units (leaf-rounds, bytes, gas). Posted and slow prices
        /// start at it.
        #[json(prices("price_storage", "price_egress", "price_gas"))]
        prices: PerClass<u128>,
        /// Largest quotas of one agreement: leaves, bytes, gas.
        #[json(units("quota_leaves_max", "quota_egress_max", "quota_gas_max"))]
        quota_max: PerClass<u64>,
        /// Highest rate caps of one agreement, in bytes and gas per round.
        #[json(units("rate_egress_max", "rate_gas_max"))]
        rate_max: Units,
        /// S: number of providers that a block closes in each pass. Registration stops when a pass would
        /// no longer fit its epoch (BK-4).
        closing_slice: u64,
        /// The emission of an epoch is the reserve divided by this, which would halve the reserve in
        /// 2,839 epochs.
        emission_divisor: u64,
        /// Part of the emission that follows use, in parts per billion.
        usage_share: u64,
        /// Largest subsidy, as a share of the burn of the fees that weigh, in parts per billion. Below
        /// one, so that a provider that pays itself loses.
        subsidy_cap: u64,
        /// Burned by a provider that leaves jail (JL-5).
        unjail_burn: Amount,
        /// Bond of each authority's seat at genesis: ten times the lowest bond of a provider, because an
        /// authority that orders blocks can harm everyone.
        seat_bond: Amount,
        /// Fewest challenges by fee of a round that may be found faulty; fewer show nothing about the
        /// network. A local network draws two per round, so it has no faults.
        fault_draws_min: u32,
    }
}

/// Values derived from the parameters. They are defined for all values of the parameters and arguments,
/// because heights, rounds and epochs come from other parties, and so do the parameters that a node
/// reports (LE-6).
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
        // A capacity of 8 GiB (2^23 leaves) needs 5 SYNC.
        bond_per_leaf: match Amount::new(600) {
            Some(x) => x,
            None => Amount::ZERO,
        },
        registration_burn: match Amount::new(100_000_000) {
            Some(x) => x,
            None => Amount::ZERO,
        },
        prices: PerClass::new(10_000_000, 1_000_000, 1_000),
        quota_max: PerClass::new(1 << 21, 64 << 30, 10_000_000_000_000),
        rate_max: Units { egress: 4 << 30, gas: 100_000_000_000 },
        closing_slice: 64,
        emission_divisor: 4096,
        usage_share: ONE / 2,
        subsidy_cap: ONE / 5 * 2,
        unjail_burn: Amount::sync(1),
        seat_bond: Amount::sync(10_000),
        fault_draws_min: 16,
    };

    /// The production network: a block per second, a round per minute, a term per hour, an epoch per
    /// day.
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
        prices: PerClass::new(25_000, 1_000_000, 1_000),
        rate_max: Units { egress: 64 << 30, gas: 10_000_000_000_000 },
        ..Self::LOCAL
    };

    /// Number of blocks in a term.
    pub const fn term_blocks(&self) -> u64 {
        self.round_blocks.saturating_mul(self.term_rounds)
    }

    /// Number of blocks in an epoch.
    pub const fn epoch_blocks(&self) -> u64 {
        self.round_blocks.saturating_mul(self.epoch_rounds)
    }

    /// The round that contains a height.
    pub const fn round(&self, height: u64) -> u64 {
        quotient(height, self.round_blocks)
    }

    /// The epoch that contains a height.
    pub const fn epoch(&self, height: u64) -> u64 {
        quotient(height, self.epoch_blocks())
    }

    /// The epoch that contains a round.
    pub const fn epoch_of_round(&self, round: u64) -> u64 {
        quotient(round, self.epoch_rounds)
    }

    /// Number of provider indices that a closing pass can visit in an epoch: one slice in each block
    /// after the first round (BK-4).
    pub const fn indices_max(&self) -> u64 {
        let blocks = self.epoch_blocks().saturating_sub(self.round_blocks);
        let visited = blocks.saturating_mul(self.closing_slice);
        if visited < wide(PROVIDERS_MAX) { visited } else { wide(PROVIDERS_MAX) }
    }

    /// Most faulty rounds in [`FAULT_EPOCHS`] epochs (NF-2).
    pub const fn faults_max(&self) -> u64 {
        let rounds = widest(self.epoch_rounds) * widest(count(FAULT_EPOCHS));
        saturate(rounds * widest(FAULT_ROUNDS_SHARE) / widest(ONE))
    }

    /// The first round of an epoch. Saturates, because epochs come from the wire.
    pub const fn epoch_start(&self, epoch: u64) -> u64 {
        epoch.saturating_mul(self.epoch_rounds)
    }

    /// A contradiction between the parameters under which the rules would not work, if there is one.
    pub const fn contradiction(&self) -> Option<&'static str> {
        let p = self;
        if p.round_blocks == 0 || p.term_rounds == 0 || !p.epoch_rounds.is_multiple_of(p.term_rounds) {
            return Some("an epoch must be whole terms, of rounds with blocks");
        }
        if p.round_ring <= p.pending_rounds_max.saturating_add(2) {
            return Some("round_ring must be above pending_rounds_max by more than 2");
        }
        if index(p.draws) > DRAWS_MAX || p.draw_every_blocks == 0 {
            return Some("draw_every_blocks must be at least 1, and draws within the bound of a block");
        }
        if p.agreement_epochs_max >= ENDING_RING || p.agreement_epochs_max >= wide(ENDS_RING) {
            return Some("agreement_epochs_max is longer than the rings of endings");
        }
        if p.unbonding_epochs < p.exit_epochs || p.unbonding_epochs <= EVIDENCE_EPOCHS_MAX {
            return Some("unbonding_epochs must reach exit_epochs, and outlast evidence");
        }
        // A round is judged two rounds later, when none of its challenges can be answered on time any
        // more.
        if p.deadline_blocks > p.round_blocks || p.fault_draws_min == 0 {
            return Some("deadline_blocks must lie within a round, and fault_draws_min be at least 1");
        }
        if p.pending_rounds_max.saturating_add(2) >= FAULT_RING || p.epoch_rounds >= 1 << 16 {
            return Some("pending_rounds_max or epoch_rounds is above the ring of faults");
        }
        if p.leader_timeout_ms <= p.block_ms || p.certification_timeout_ms <= p.leader_timeout_ms {
            return Some("a leader needs more time than a block, and a certificate more than a leader");
        }
        if p.burn == 0 || p.burn.saturating_add(p.committee) >= ONE || p.reserve_share >= ONE {
            return Some("burn must be above zero, and burn with committee, and reserve_share, below one");
        }
        if p.subsidy_cap >= ONE || p.usage_share > ONE || p.emission_divisor == 0 {
            return Some(
                "subsidy_cap must be below one, usage_share at most one, emission_divisor above zero",
            );
        }
        // The two passes of a block name about a dozen records per provider, three more for its reports,
        // and two per seat.
        let closing = p.closing_slice.saturating_mul(15).saturating_add(2 * wide(SEATS_MAX));
        if p.closing_slice == 0 || closing >= count(KEYS_MAX) / 4 {
            return Some("closing_slice must be at least 1, and within the records of a block");
        }
        None
    }
}

/// `number / divisor`, or zero for a divisor of zero. A node may report any parameters of its network,
/// and the party that asks must not panic on them.
const fn quotient(number: u64, divisor: u64) -> u64 {
    match number.checked_div(divisor) {
        Some(quotient) => quotient,
        None => 0,
    }
}

const _: () = {
    assert!(Parameters::LOCAL.contradiction().is_none());
    assert!(Parameters::PRODUCTION.contradiction().is_none());
};
