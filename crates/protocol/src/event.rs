//! Events of a block, for users and statistics, and the encoding in which a node keeps them and a client reads
//! them.
//!
//! They are not part of the state: replaying a block yields its events again, and their bytes are never
//! hashed. Each event is declared once, with its number and its fields in the order of their bytes. A number is
//! never reused.

use crate::{Account, AgreementId, Amount, Class, Code, Hash};
use bytes::BufMut;
use commonware_codec::{Buf, EncodeSize, Error, Read, ReadExt as _, Write};

/// Declares [`Event`]. An entry is `number Name { fields }`, encoded as the number and the fields in order. In
/// JSON the name stands under `event`, beside the fields (`json.rs` says how they are shown).
macro_rules! events {
    (
        $($(#[$doc:meta])* $tag:literal $variant:ident {
            $($(#[doc = $fdoc:literal])* $(#[json($($how:tt)*)])* $field:ident: $type:ty,)*
        })*
    ) => {
        /// Something that happened in a block, listed in order.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event { $($(#[$doc])* $variant { $($(#[doc = $fdoc])* $field: $type,)* },)* }
        json_events! { Event { $($variant { $($field [$(($($how)*))*])* })* } }
        impl Write for Event {
            fn write(&self, buf: &mut impl BufMut) {
                match self { $(Self::$variant { $($field),* } => { u8::write(&$tag, buf); $($field.write(buf);)* })* }
            }
        }
        impl EncodeSize for Event {
            fn encode_size(&self) -> usize {
                1 + match self { $(Self::$variant { $($field),* } => 0 $(+ $field.encode_size())*,)* }
            }
        }
        impl Read for Event {
            type Cfg = ();
            fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
                match u8::read(buf)? {
                    $($tag => Ok(Self::$variant { $($field: <$type>::read_cfg(buf, &Default::default())?),* }),)*
                    tag => Err(Error::InvalidEnum(tag)),
                }
            }
        }
    };
}

events! {
    /// A fee was paid and split. For storage, `agreement` is `None` and the fee is the provider's total.
    0 Settled {
        /// Epoch whose row counts the fee.
        epoch: u64,
        /// Provider that was paid.
        provider: Account,
        /// Agreement of the voucher; `None` for storage.
        agreement: Option<AgreementId>,
        /// Fee that the consumers paid.
        fee: Amount,
        /// Part of the fee that was burned.
        burn: Amount,
        /// Part of the fee that went to the committee's pool.
        committee: Amount,
        /// Part of the fee that the provider got.
        #[json("provider_pay")]
        pay: Amount,
    }
    /// A provider was drawn and got a challenge.
    1 Drawn {
        /// Provider that was challenged.
        provider: Account,
        /// Height of the block that drew it.
        height: u64,
    }
    /// A challenge was answered, or expired (`answered` is false, and its reads count as missing and
    /// late).
    2 Audited {
        /// Provider that was challenged.
        provider: Account,
        /// Height of the block that drew the challenge.
        height: u64,
        /// True if answered, false if it expired.
        answered: bool,
        /// Number of reads that were proved, 0 to 4.
        passed: u8,
        /// Number of reads drawn: 4, or 0 if the provider was paid for nothing.
        reads: u8,
        /// True if answered within the deadline.
        on_time: bool,
        /// True if it was late in a faulty round, so that the histories leave it out (NF-3).
        excused: bool,
    }
    /// An agreement was opened, closed or deleted.
    3 Agreement {
        /// Id of the agreement that changed.
        agreement: AgreementId,
        /// Consumer of the agreement.
        consumer: Account,
        /// New state of the agreement.
        change: AgreementChange,
    }
    /// One redemption of a batch was refused; the others are unaffected (VO-4).
    4 VoucherRefused {
        /// Agreement of the refused voucher.
        agreement: AgreementId,
        /// Code that says why it was refused.
        #[json("code")]
        #[json("why", explain)]
        code: Code,
    }
    /// Money moved from a provider's bond to an agreement's storage reserve, less the tenth that is
    /// burned, because a read was still missing when it was asked for the last time (RD-7).
    5 Restitution {
        /// Provider that lacks the read.
        provider: Account,
        /// Agreement that the read belongs to.
        agreement: AgreementId,
        /// Amount that left the bond, including the burned part.
        amount: Amount,
    }
    /// A provider refused a placement within its declared capacity, which was lowered to what is sold
    /// (PV-5).
    32 CapacityCut {
        /// Provider that signed the refusal.
        provider: Account,
        /// Consumer whose placement was refused.
        consumer: Account,
        /// Declared capacity before, in leaves.
        before: u64,
        /// Declared capacity now, in leaves.
        after: u64,
    }
    /// A provider's egress was measured from its peers' counts (CP-3).
    14 CapacityMeasured {
        /// Epoch that was measured.
        epoch: u64,
        /// Provider that was measured.
        provider: Account,
        /// Measured rate, in bytes per epoch.
        #[json("bytes_per_epoch")]
        rate: u64,
        /// Lower median of the last three rates, in bytes per epoch; `None` before the third.
        median: Option<u64>,
    }
    /// All rows of an epoch are measured, and the pool that they share is fixed (BK-5).
    6 Pool {
        /// Epoch whose pool it is.
        epoch: u64,
        /// Sum of the rows' weights.
        weight: u128,
        /// Emission of the reserve for the epoch: upper bound of the pool.
        emission: Amount,
        /// Pool that the rows share by weight.
        pool: Amount,
        /// Part of the pool that was taken from the reserve.
        drawn: Amount,
    }
    /// An epoch's use moved the price of a class; in force from this block on (MK-2).
    7 Priced {
        /// Epoch whose use moved the price.
        epoch: u64,
        /// Class: 0 storage, 1 egress, 2 gas.
        class: Class,
        /// Posted price, in grains per 2^20 units.
        #[json(digits)]
        price: u64,
        /// Slow price, in grains per 2^20 units.
        #[json(digits)]
        slow: u64,
    }
    /// A provider was paid its share of an epoch's pool (BK-6).
    8 Subsidy {
        /// Epoch of the pool.
        epoch: u64,
        /// Provider that was paid.
        provider: Account,
        /// Amount credited to its balance.
        amount: Amount,
    }
    /// A provider was warned, suspended, jailed, or released.
    9 Reputation {
        /// Provider whose reputation changed.
        provider: Account,
        /// Epoch of the row that shows the reason, or in which the provider asked.
        epoch: u64,
        /// Change that was made.
        step: ReputationStep,
        /// Cause of the change.
        reason: ReputationReason,
        /// Hash of the row in the epoch's tree, or of the evidence; zeros if the provider asked.
        evidence: Hash,
        /// For a warning, the epoch of the penalty if nothing improves. For a penalty, the first epoch
        /// in which it can end. Otherwise the epoch itself.
        until: u64,
    }
    /// An auditor's report on a provider was revealed.
    16 Reported {
        /// Epoch that the report covers.
        epoch: u64,
        /// Provider that was audited.
        provider: Account,
        /// Seat that revealed the report.
        auditor: Account,
        /// Reads that the auditor requested.
        asked: u16,
        /// Reads that were answered in time.
        answered: u16,
        /// Reads whose bytes verified.
        correct: u16,
        /// Latency band of the answered reads.
        #[json("latency_band")]
        latency: u8,
        /// Throughput band of the answered reads.
        #[json("throughput_band")]
        throughput: u8,
        /// `Done` if the report counts; otherwise the reason.
        #[json("code")]
        #[json("why", explain)]
        code: Code,
    }
    /// The reports on a provider were judged (SQ-6). If `assigned` is 0, it was not drawn. A figure
    /// without a quorum is [`crate::record::UNMEASURED`], and the last value stays in force.
    13 ServiceMeasured {
        /// Epoch that was audited.
        epoch: u64,
        /// Provider that was audited.
        provider: Account,
        /// Number of auditors drawn for the provider.
        #[json("auditors")]
        assigned: u8,
        /// Number of auditors whose reports count.
        #[json("auditors_reported")]
        reported: u8,
        /// Share of its last 64 challenges answered on time, at the close; parts per billion.
        #[json(ratio)]
        on_time: u64,
        /// Median share of requested reads that were answered.
        #[json(ratio)]
        answered: u64,
        /// Median share of answered reads that verified.
        #[json(ratio)]
        correct: u64,
        /// Median latency score, in parts per billion.
        #[json(ratio)]
        latency: u64,
        /// Median throughput band of the reports.
        #[json("throughput_band", ratio)]
        throughput: u64,
        /// Answered share and latency score in force from this close on.
        #[json("answered_stands", answered)]
        #[json("latency_stands", second)]
        stands: [u64; 2],
    }
    /// A seat was paid its share of an epoch's committee pool (AU-3).
    12 CommitteePaid {
        /// Epoch of the pool.
        epoch: u64,
        /// Seat that was paid.
        seat: Account,
        /// Credits that it earned in the epoch.
        credits: u32,
        /// Amount credited to its balance.
        amount: Amount,
    }
    /// A seat lost a part of its bond, either on evidence of equivocation, which also jails it, or when
    /// the epoch of its fault was closed and the number of offenders raised the cost (AU-5, AU-6).
    11 Slashed {
        /// Seat that was slashed.
        seat: Account,
        /// Epoch of the fault.
        epoch: u64,
        /// Total cost of the fault so far, in parts per billion of the bond.
        parts: u64,
        /// Amount taken from the bond by this event.
        amount: Amount,
        /// Part of the amount that was burned.
        burned: Amount,
        /// Account that submitted the evidence and got the rest; `None` at the close of the epoch.
        reporter: Option<Account>,
        /// SHA-256 of the evidence, or at the close of the epoch, of its record of offences.
        evidence: Hash,
        /// First epoch in which the jail can end; `u64::MAX` if never.
        until: u64,
    }
    /// A round was found to be the network's fault: late answers to its draws by fee are excused (NF-1,
    /// NF-3).
    15 RoundFaulty {
        /// Number of the faulty round.
        round: u64,
        /// Challenges opened by draws in proportion to the fee.
        #[json("drawn_by_fee")]
        drawn: u32,
        /// Those of them that were answered on time.
        on_time: u32,
    }
    /// An epoch's books were sealed; they never change (BK-7).
    10 Closed {
        /// Epoch that was closed.
        epoch: u64,
        /// Number of rows under the root.
        rows: u64,
        /// Root over the rows in the order of their providers' indices.
        root: Hash,
    }
}

tags! {
    /// A change in a provider's reputation.
    ReputationStep {
        /// A penalty follows if it goes on like this.
        0 => Warned "warned",
        /// Gets no new agreements until it is back (JL-2).
        1 => Suspended "suspended",
        /// Gets new agreements again.
        2 => Resumed "resumed",
        /// Gets no new agreements until its time is over and it asks (JL-3).
        3 => Jailed "jailed",
        /// Left jail and is on probation.
        4 => Unjailed "unjailed",
    }
}

tags! {
    /// The cause of a change in a provider's reputation.
    ReputationReason {
        /// Correctness of a class below nine tenths.
        0 => Correctness "correct reads below nine tenths",
        /// Availability below one half, or above it again.
        1 => Availability "answers on time below one half",
        /// Request by the provider itself.
        2 => Request "it asked",
        /// Equivocation by the seat of the same account.
        3 => Equivocation "it has a seat and signed two proposals of one view",
    }
}

tags! {
    /// A change in the state of an agreement.
    AgreementChange {
        /// The agreement is open.
        0 => Opened "opened",
        /// Closed by one party; vouchers are redeemable for the window.
        1 => Closing "closing",
        /// Its records are deleted, and deposit and reserves returned.
        2 => Deleted "deleted",
    }
}
