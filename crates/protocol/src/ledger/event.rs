//! What happened in a block, for people and books. Events are not state: whoever needs them
//! replays the block.

use crate::{Account, AgreementId, Amount, Code};

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
    /// Stake moved to an agreement's storage reserve: a read was still missing after three re-asks.
    Restitution {
        /// The provider.
        provider: Account,
        /// The agreement.
        agreement: AgreementId,
        /// How much.
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
