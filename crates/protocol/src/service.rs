//! Service quality: the findings of drawn auditors, who read like any consumer.
//!
//! ```text
//!   epoch e                                   first round of e + 1         slices of e + 1
//!   seed -> providers and auditors            AuditReveal: checked,        pass 1: quorum, medians,
//!   auditors read, pay, AuditCommit (hidden)  kept per provider            figures, seat credits
//! ```
//!
//! The assignment of auditors follows from the seed of the epoch's first block that has one: one index in
//! each of `m` strata of providers, and for each of them one seat in each of `a` strata of seats. The ledger
//! checks from that record that a report is from an assigned auditor about a drawn provider; it never
//! searches. Until the reveal it holds only a hash of the reports.
//!
//! Invariants
//! 1. Draws follow from the round's record alone. At most one report of an auditor on a provider counts, and
//!    only if it was committed to before the epoch ended (SQ-1, SQ-4).
//! 2. A report counts only as far as vouchers under its own key paid for the reads (SQ-5).
//! 3. While fewer than a third of a provider's auditors lie, no figure leaves the range of the other reports
//!    (SQ-6).

mod audit;
mod median;

pub(crate) use audit::{
    commit, forget, open_round, reveal, touches_commit, touches_forget, touches_reveal, touches_round,
};
pub use median::{PAID_WITHIN, Verdict, is_quorum};
pub(crate) use median::{close, event};

use crate::number::{bound_u32, count, saturate_u8};
use crate::{
    Hash,
    amount::ONE,
    economics::score,
    limits::{AUDITORS_MAX, LATENCY_BANDS, SERVICE_DRAWS, THROUGHPUT_BANDS},
    record::ServiceRound,
};

/// Upper bounds of the latency bands in milliseconds, from the request to the first verified slice; the last
/// band has no upper bound.
pub const LATENCY_BOUNDS_MS: [u64; LATENCY_BANDS - 1] = [200, 300, 400, 500, 700, 900, 1_200, 1_500, 1_800];
/// At this latency or below, the score is `ONE`.
pub const LATENCY_LOW_MS: u64 = 200;
/// At this latency or above, the score is zero.
pub const LATENCY_HIGH_MS: u64 = 2_000;
/// Lower bounds of the throughput bands in bytes per second; the lowest band begins at zero.
pub const THROUGHPUT_BOUNDS: [u64; THROUGHPUT_BANDS - 1] =
    [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];

/// The band of a latency in milliseconds.
pub fn latency_band(milliseconds: u64) -> u8 {
    saturate_u8(count(LATENCY_BOUNDS_MS.iter().take_while(|bound| **bound < milliseconds).count()))
}

/// The band of a throughput in bytes per second.
pub fn throughput_band(bytes_per_second: u64) -> u8 {
    saturate_u8(count(THROUGHPUT_BOUNDS.iter().take_while(|bound| **bound <= bytes_per_second).count()))
}

/// The score of a latency band, parts per billion: that of its upper bound (SQ-7).
pub fn latency_score(band: u8) -> u64 {
    let bound = LATENCY_BOUNDS_MS.get(usize::from(band));
    bound.map_or(0, |bound| score::latency(*bound, LATENCY_LOW_MS, LATENCY_HIGH_MS))
}

/// The ratio `part` / `whole`, parts per billion; zero if `whole` is zero.
pub fn share(part: u16, whole: u16) -> u64 {
    (u64::from(part) * ONE).checked_div(whole.into()).unwrap_or(0)
}

/// The first index of stratum `stratum` of `strata` over `whole` indices.
fn bound(stratum: u32, strata: u32, whole: u32) -> u32 {
    let first = u64::from(stratum) * u64::from(whole) / u64::from(strata.max(1));
    u32::try_from(first).unwrap_or(u32::MAX)
}

/// The stratum, of `strata` over `whole` indices, that holds `index`; `None` if `index` is not below `whole`.
fn stratum_of(index: u32, strata: u32, whole: u32) -> Option<u32> {
    (index < whole && strata > 0).then_some(())?;
    let above = (u64::from(index) + 1) * u64::from(strata);
    u32::try_from(above.div_ceil(u64::from(whole)) - 1).ok()
}

impl ServiceRound {
    /// Number of providers that the round draws: at most [`SERVICE_DRAWS`] per seat.
    pub fn drawn(&self) -> u32 {
        self.providers.min(self.seats.saturating_mul(SERVICE_DRAWS))
    }

    /// Number of auditors of each drawn provider.
    pub fn auditors(&self) -> u32 {
        self.seats.min(bound_u32(AUDITORS_MAX))
    }

    /// The index that is drawn in `stratum` (SQ-1); `None` if there is no such stratum.
    pub fn provider(&self, stratum: u32) -> Option<u32> {
        let drawn = self.drawn();
        (stratum < drawn).then_some(())?;
        let bounds = (bound(stratum, drawn, self.providers), bound(stratum + 1, drawn, self.providers));
        pick(&self.seed, b"posync/service/1", &[stratum], bounds)
    }

    /// The stratum in which `index` is drawn; `None` if it is not drawn.
    pub fn stratum(&self, index: u32) -> Option<u32> {
        let stratum = stratum_of(index, self.drawn(), self.providers)?;
        (self.provider(stratum) == Some(index)).then_some(stratum)
    }

    /// The seat that is auditor number `auditor` of the provider drawn in `stratum` (SQ-2).
    pub fn seat(&self, stratum: u32, auditor: u8) -> Option<u32> {
        let (auditor, auditors) = (u32::from(auditor), self.auditors());
        (stratum < self.drawn() && auditor < auditors).then_some(())?;
        let bounds = (bound(auditor, auditors, self.seats), bound(auditor + 1, auditors, self.seats));
        pick(&self.seed, b"posync/auditor/1", &[stratum, auditor], bounds)
    }

    /// The auditor number of `seat` for the provider drawn in `stratum`; `None` if it is not drawn.
    pub fn auditor(&self, stratum: u32, seat: u32) -> Option<u8> {
        let auditor = u8::try_from(stratum_of(seat, self.auditors(), self.seats)?).ok()?;
        (self.seat(stratum, auditor) == Some(seat)).then_some(auditor)
    }

    /// The audits of a seat: strata and provider indices. It goes through all drawn providers, so it is for
    /// auditors; the ledger checks with [`Self::provider`] and [`Self::seat`].
    pub fn assigned(&self, seat: u32) -> impl Iterator<Item = (u16, u32)> + '_ {
        let own = (0..self.drawn()).filter(move |stratum| self.auditor(*stratum, seat).is_some());
        own.filter_map(|stratum| Some((u16::try_from(stratum).ok()?, self.provider(stratum)?)))
    }
}

/// The index in `[first, end)` that the seed draws.
fn pick(seed: &Hash, tag: &[u8], numbers: &[u32], (first, end): (u32, u32)) -> Option<u32> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(tag).update(seed);
    for number in numbers {
        hasher.update(&number.to_be_bytes());
    }
    let offset = crate::audit::reduce(hasher.finalize(), u128::from(end.checked_sub(first)?))?;
    Some(first + u32::try_from(offset).ok()?)
}
