//! What happened in a block, for people and books. Events are not state: whoever needs them
//! replays the block.

use crate::{Account, AgreementId, Amount, Code, Hash};

/// Something that happened, in the order of the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A fee was paid and split; `agreement` is `None` for storage (per provider).
    Settled {
        /// Epoch of the books.
        epoch: u64,
        /// The provider.
        provider: Account,
        /// The voucher agreement, if any.
        agreement: Option<AgreementId>,
        /// Paid by consumers.
        fee: Amount,
        /// Burned of it.
        burn: Amount,
        /// To the committee's pool.
        committee: Amount,
        /// To the provider.
        pay: Amount,
    },
    /// A provider was drawn.
    Drawn {
        /// The provider.
        provider: Account,
        /// At this height.
        height: u64,
    },
    /// A challenge was answered, or expired (`answered` false: four missing, late).
    Audited {
        /// The provider.
        provider: Account,
        /// Height of the draw.
        height: u64,
        /// Whether it was answered at all.
        answered: bool,
        /// Reads proved, 0 to 4.
        passed: u8,
        /// Reads drawn: 4, or 0 when nothing was paid for.
        reads: u8,
        /// Whether it was on time.
        on_time: bool,
        /// Late in a faulty round: the histories leave it out.
        excused: bool,
    },
    /// An agreement was opened, closed or deleted.
    Agreement {
        /// Which.
        agreement: AgreementId,
        /// The consumer.
        consumer: Account,
        /// What became of it.
        change: AgreementChange,
    },
    /// A redemption in a batch was refused; the rest stands.
    VoucherRefused {
        /// The agreement.
        agreement: AgreementId,
        /// Why.
        code: Code,
    },
    /// Stake moved to an agreement's storage reserve, less the tenth that is burned: a read was still
    /// missing after three re-asks.
    Restitution {
        /// The provider.
        provider: Account,
        /// The agreement.
        agreement: AgreementId,
        /// How much left the bond.
        amount: Amount,
    },
    /// A provider refused a placement within its declared capacity, which is cut to what is sold.
    CapacityCut {
        /// The provider.
        provider: Account,
        /// Who was refused.
        consumer: Account,
        /// Declared leaves before.
        before: u64,
        /// Declared leaves now.
        after: u64,
    },
    /// What a provider can send was counted by its peers.
    CapacityMeasured {
        /// The epoch.
        epoch: u64,
        /// The provider.
        provider: Account,
        /// Bytes an epoch.
        rate: u64,
        /// The lower median of the last three, once there are three.
        median: Option<u64>,
    },
    /// An epoch was measured: what its providers share of the reserve's emission.
    Pool {
        /// The epoch.
        epoch: u64,
        /// Sum of weights.
        weight: u128,
        /// What the reserve emitted.
        emission: Amount,
        /// What is shared.
        pool: Amount,
        /// Of it, what came from the reserve now.
        drawn: Amount,
    },
    /// A class's price moved by an epoch's use; in force from this block on.
    Priced {
        /// The epoch.
        epoch: u64,
        /// Its place among the classes.
        class: u8,
        /// Posted.
        price: u64,
        /// Slow.
        slow: u64,
    },
    /// A provider was paid its share of an epoch's pool.
    Subsidy {
        /// The epoch.
        epoch: u64,
        /// The provider.
        provider: Account,
        /// How much.
        amount: Amount,
    },
    /// A provider was warned, suspended, jailed or is let go again.
    Standing {
        /// The provider.
        provider: Account,
        /// The epoch whose row shows why, or in which it asked.
        epoch: u64,
        /// What happened.
        step: StandingStep,
        /// Why.
        reason: StandingReason,
        /// Hash of the row in the epoch's tree; zeros where the provider asked.
        evidence: Hash,
        /// A warning: the epoch of the penalty if nothing gets better. A penalty: the first epoch
        /// in which it can be lifted. Else the epoch itself.
        until: u64,
    },
    /// An auditor's report on a provider was revealed.
    Reported {
        /// The epoch.
        epoch: u64,
        /// The provider.
        provider: Account,
        /// The seat.
        auditor: Account,
        /// Reads asked for.
        asked: u16,
        /// Reads answered in time.
        answered: u16,
        /// Reads whose bytes verified.
        correct: u16,
        /// Latency band.
        latency: u8,
        /// Throughput band.
        throughput: u8,
        /// `Done` if it counts, or why it does not.
        code: Code,
    },
    /// The reports on a provider were judged; without auditors it was not drawn. A figure without a
    /// quorum is [`crate::record::UNMEASURED`]: the last one stands.
    ServiceMeasured {
        /// The epoch.
        epoch: u64,
        /// The provider.
        provider: Account,
        /// Auditors drawn.
        assigned: u8,
        /// Auditors whose reports count.
        reported: u8,
        /// On-time share of its last 64 challenges at the close.
        on_time: u64,
        /// Median answered share.
        answered: u64,
        /// Median correct share.
        correct: u64,
        /// Median latency score.
        latency: u64,
        /// Median throughput band.
        throughput: u64,
        /// Answered share and latency score that stand from this close on.
        stands: [u64; 2],
    },
    /// A seat was paid its share of the committee's pool of an epoch.
    CommitteePaid {
        /// The epoch.
        epoch: u64,
        /// The seat.
        seat: Account,
        /// Its credits.
        credits: u32,
        /// How much.
        amount: Amount,
    },
    /// A seat lost a part of its bond, and is jailed: it signed two things of which one must be a
    /// lie, or so many did in one epoch that each pays more.
    Slashed {
        /// The seat.
        seat: Account,
        /// Epoch of the fault.
        epoch: u64,
        /// Parts per billion of the bond that the fault costs so far, in all.
        parts: u64,
        /// Taken now.
        amount: Amount,
        /// Burned of it.
        burned: Amount,
        /// Who brought the evidence and got the rest; `None` where the epoch was closed.
        reporter: Option<Account>,
        /// SHA-256 of the evidence; where the epoch was closed, of its record of offences.
        evidence: Hash,
        /// The first epoch in which the jail can be lifted: `u64::MAX`, never.
        until: u64,
    },
    /// A round is the network's fault: what its draws by fee missed leaves the histories alone.
    RoundFaulty {
        /// The round.
        round: u64,
        /// Challenges that its draws by fee opened.
        drawn: u32,
        /// Of them, those answered on time.
        on_time: u32,
    },
    /// An epoch's books stand for ever.
    Closed {
        /// The epoch.
        epoch: u64,
        /// Rows.
        rows: u64,
        /// Root over the rows.
        root: Hash,
    },
}

/// A step in how a provider stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandingStep {
    /// It goes on like this, then the penalty follows.
    Warned,
    /// No new agreements until a good epoch.
    Suspended,
    /// Takes new agreements again.
    Resumed,
    /// No new agreements until it asks, after its time.
    Jailed,
    /// Left jail, on probation.
    Unjailed,
}

/// Why a provider's standing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandingReason {
    /// Correct reads below nine tenths.
    Correctness,
    /// Answers on time below one half.
    Availability,
    /// It asked.
    Request,
    /// It has a seat and signed against itself.
    Equivocation,
}

/// What became of an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgreementChange {
    /// Opened.
    Opened,
    /// Closed, redeemable for the window.
    Closing,
    /// Its records are gone, deposit and rest returned.
    Deleted,
}
