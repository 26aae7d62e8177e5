//! Measured capacity: the rate at which a provider can send, as counted by the receivers.
//!
//! ```text
//!   first round of e            the window of e (the same for all)            window over .. end of e + 1
//!   seed, providers fixed  -->  provider --bytes--> eight drawn peers     -->  Measure: their signed counts
//!                                        <--count--                            --> ring of three, median
//! ```
//!
//! All providers are measured at the same time, so that one rented line cannot be shown under many names. A
//! measurement earns nothing: it caps a provider's sales and gives the market the real capacity.
//!
//! Invariants
//! 1. Slot and peers follow from a seed that no member knew when it registered (CP-1, CP-2).
//! 2. Up to three peers that do not answer, or up to four that lie upwards, change nothing beyond an honest
//!    peer's count (CP-3).
//! 3. What is sold of a class is the sum of what the agreements take of it, and at most what is declared
//!    (AG-9).
//! 4. A measurement moves no money.

use crate::number::{count, saturate, saturate_u8, widest};
use crate::{
    Account, Broken, Class, Code, Halt, Key, PerClass,
    agreement::Seen,
    audit::reduce,
    bodies::{Measure, ProbeCount},
    event::Event,
    limits::{MEASURED_FRESH_EPOCHS, PROBE_PEERS, PROBE_QUORUM, PROBE_WINDOW_MS, PROVIDERS_MAX, Parameters},
    provider::sellable,
    record::{Agreement, MEASURED, Measured, Offer, PROBE_RING, Probe, Provider, ProviderAt, Reputation},
    working::{BlockContext, Touched, Working},
};
use core::ops::Range;

impl Parameters {
    /// Blocks of the window in which all providers are measured: two seconds.
    pub const fn probe_blocks(&self) -> u64 {
        let blocks = PROBE_WINDOW_MS.div_ceil(if self.block_ms == 0 { 1 } else { self.block_ms });
        if blocks < self.epoch_blocks() { blocks } else { 1 }
    }

    /// Bytes an epoch at a rate of `bytes` a second, at the pace of `block_ms`.
    pub const fn bytes_per_epoch(&self, bytes: u64) -> u64 {
        let ms = widest(self.block_ms) * widest(self.epoch_blocks());
        let all = ms.saturating_mul(widest(bytes)) / 1_000;
        saturate(all)
    }

    /// The rate in bytes a second that gives `bytes` bytes an epoch.
    pub const fn bytes_per_second(&self, bytes: u64) -> u64 {
        let ms = widest(self.block_ms) * widest(self.epoch_blocks());
        let rate = widest(bytes) * 1_000 / if ms == 0 { 1 } else { ms };
        saturate(rate)
    }
}

impl Probe {
    /// The key of the window record of `epoch`, in a ring.
    pub fn of(epoch: u64) -> Key {
        Self::key(epoch % PROBE_RING)
    }

    /// Heights in which all providers are measured: a window within the epoch after its second round, at a
    /// place that the seed decides (CP-1).
    pub fn window(&self, parameters: &Parameters) -> Range<u64> {
        let first = self.epoch.saturating_mul(parameters.epoch_blocks());
        let early = parameters.round_blocks.saturating_mul(2);
        let length = parameters.probe_blocks();
        let places = parameters.epoch_blocks().saturating_sub(early).saturating_sub(length);
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"posync/probe-slot/1").update(&self.seed);
        let place = reduce(hasher.finalize(), u128::from(places) + 1).unwrap_or(0);
        let start = first.saturating_add(early).saturating_add(u64::try_from(place).unwrap_or(0));
        start..start.saturating_add(length)
    }

    /// The index of the peer that counts the bytes of the provider at `index` in one of its eight draws,
    /// never itself; `None` if there are fewer than two providers (CP-2).
    pub fn peer(&self, sender: &Account, index: u32, draw: u8) -> Option<u32> {
        if self.providers < 2 || usize::from(draw) >= PROBE_PEERS {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"posync/probe-peer/1").update(&self.seed).update(&sender.0).update(&[draw]);
        let drawn = u32::try_from(reduce(hasher.finalize(), self.providers.into())?).ok()?;
        Some(if drawn == index { (drawn + 1) % self.providers } else { drawn })
    }
}

impl Measured {
    /// The lower median of the last three measurements, in bytes an epoch; `None` before the third.
    pub fn median(&self) -> Option<u64> {
        let mut rates = self.rates;
        rates.sort_unstable();
        (usize::from(self.taken) >= MEASURED).then_some(rates[(MEASURED - 1) / 2])
    }

    /// The epoch of the newest measurement.
    pub fn newest(&self) -> Option<u64> {
        (self.taken > 0).then_some(self.epochs[0])
    }

    fn take(&mut self, epoch: u64, rate: u64) {
        self.epochs.rotate_right(1);
        self.rates.rotate_right(1);
        (self.epochs[0], self.rates[0]) = (epoch, rate);
        self.taken = self.taken.saturating_add(1).min(saturate_u8(count(MEASURED)));
    }
}

/// A provider's rate, scaled from the window to an epoch: eight times the lower median of the bytes that its
/// eight peers counted. A peer that did not sign counts as zero (CP-3).
///
/// Guarantees: at most eight times the fourth lowest of the eight counts, scaled; independent of the size of
/// counts above it; zero below five counts.
pub fn rate(counts: impl IntoIterator<Item = u64>, parameters: &Parameters) -> u64 {
    let mut all = [0_u64; PROBE_PEERS];
    for (place, count) in all.iter_mut().zip(counts) {
        *place = count;
    }
    all.sort_unstable();
    let sent = u128::from(all[(PROBE_PEERS - 1) / 2]).saturating_mul(widest(count(PROBE_PEERS)));
    let scaled =
        sent.saturating_mul(parameters.epoch_blocks().into()) / u128::from(parameters.probe_blocks());
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// The part of a quota of egress or gas that an agreement takes in each of its epochs: the quota spread over
/// them, rounded up (CP-5).
pub const fn share(quota: u64, opened: u64, end_epoch: u64, parameters: &Parameters) -> u64 {
    let epochs = end_epoch.saturating_sub(parameters.epoch(opened));
    quota.div_ceil(if epochs == 0 { 1 } else { epochs })
}

/// The units that an agreement takes of what its provider may sell: the whole quota of leaves, and its shares
/// of egress and gas an epoch (AG-9).
pub fn taken(agreement: &Agreement, parameters: &Parameters) -> PerClass<u64> {
    let Agreement { quota, opened, end_epoch, .. } = agreement;
    PerClass::from_fn(|class| match class {
        Class::Storage => quota[class],
        Class::Egress | Class::Compute => share(quota[class], *opened, *end_epoch, parameters),
    })
}

/// The units that a provider may have under contract, each class at most what it declared (AG-9): leaves as
/// far as the bond covers them (PV-4), egress as far as it was measured (CP-4), gas as declared.
pub fn sellable_units(
    offer: &Offer,
    provider: &Provider,
    measured: Option<&Measured>,
    parameters: &Parameters,
) -> PerClass<u64> {
    PerClass::from_fn(|class| match class {
        Class::Storage => sellable(offer, provider, parameters),
        Class::Egress => sellable_egress(offer, measured),
        Class::Compute => offer.capacity[class],
    })
}

/// Units that an opening takes of its provider, and those that are free there.
pub(crate) struct Free {
    taken: PerClass<u64>,
    free: PerClass<u64>,
}

impl Free {
    /// Compares the opening's terms with the records that decide it.
    pub(crate) fn of(agreement: &Agreement, seen: &Seen<'_>, parameters: &Parameters) -> Self {
        let sellable = sellable_units(seen.offer, seen.provider, seen.measured, parameters);
        let free = PerClass::from_fn(|class| sellable[class].saturating_sub(seen.provider.sold[class]));
        Self { taken: taken(agreement, parameters), free }
    }

    /// Checks that what the opening takes of a class is free (AG-9).
    ///
    /// # Errors
    /// `NoCapacity`, `NoEgress` or `NoGas`.
    pub(crate) fn check(&self, class: Class) -> Result<(), Code> {
        if self.taken[class] > self.free[class] { Err(lacking(class)) } else { Ok(()) }
    }
}

/// The refusal of an opening that asks for more of a class than is free.
pub(crate) const fn lacking(class: Class) -> Code {
    match class {
        Class::Storage => Code::NoCapacity,
        Class::Egress => Code::NoEgress,
        Class::Compute => Code::NoGas,
    }
}

/// Bytes an epoch that may be under contract: the declared egress, at most the measured one. A provider with
/// fewer than three measurements sells what it declares (CP-4).
pub fn sellable_egress(offer: &Offer, measured: Option<&Measured>) -> u64 {
    let most = measured.and_then(Measured::median).unwrap_or(u64::MAX);
    offer.capacity[Class::Egress].min(most)
}

/// Bytes an epoch that the market counts as offered in `epoch`: as [`sellable_egress`], but zero unless the
/// provider was measured three times, the last time within the last epochs (CP-6).
pub fn offered_egress(offer: &Offer, measured: Option<&Measured>, epoch: u64) -> u64 {
    let fresh = measured.filter(|measured| {
        measured.newest().is_some_and(|newest| newest.saturating_add(MEASURED_FRESH_EPOCHS) >= epoch)
    });
    fresh.and_then(Measured::median).map_or(0, |most| offer.capacity[Class::Egress].min(most))
}

/// Names the record of the epoch's window in the blocks that may fix it.
pub(crate) fn touches_seed(context: &BlockContext, touched: &mut Touched) {
    let offset = context.height % context.parameters.epoch_blocks();
    if context.seed.is_some() && offset < context.parameters.round_blocks {
        touched.writable.push(Probe::of(context.epoch()));
    }
}

/// Fixes the window and the peers of an epoch in its first block that carries a seed. Without such a block in
/// the first round no provider is measured (CP-1).
pub(crate) fn fix_seed(working: &mut Working<'_>) -> Result<(), Broken> {
    let (context, providers) = (working.context, working.system.providers);
    let (epoch, key) = (context.epoch(), Probe::of(context.epoch()));
    let Some(seed) = context.seed.filter(|_| working.names(&key)) else { return Ok(()) };
    if working.get::<Probe>(key)?.is_some_and(|probe| probe.epoch == epoch) {
        return Ok(());
    }
    working.put(key, &Probe { epoch, seed, providers })
}

/// True if the counts are enough, of known indices, and about the body's epoch, each of another draw.
pub(crate) fn fits(body: &Measure) -> bool {
    let ascends = body.counts.windows(2).all(|pair| pair[0].1.draw < pair[1].1.draw);
    let each = |(index, count): &(u32, ProbeCount)| {
        *index < PROVIDERS_MAX && count.epoch == body.epoch && usize::from(count.draw) < PROBE_PEERS
    };
    body.counts.len() >= PROBE_QUORUM && ascends && body.counts.iter().all(each)
}

/// Only the measured provider may submit counts of its bytes.
///
/// # Errors
/// `WrongParty`.
pub(crate) fn check_senders(signer: &Account, body: &Measure) -> Result<(), Code> {
    let own = body.counts.iter().all(|(_, count)| count.sender == *signer);
    if own { Ok(()) } else { Err(Code::WrongParty) }
}

/// Names the records of a measurement: those of the sender, and the accounts at the drawn indices.
pub(crate) fn touches(signer: &Account, body: &Measure, touched: &mut Touched) {
    touched.writable.push(Measured::key(signer));
    touched.readable.extend([Probe::of(body.epoch), Provider::key(signer), Reputation::key(signer)]);
    for (index, count) in body.counts.iter() {
        touched.readable.extend([ProviderAt::key(*index), Reputation::key(&count.receiver)]);
    }
}

/// Records the counts of the drawn peers as the provider's measurement of an epoch (CP-2, CP-3).
///
/// # Errors
/// `ProviderUnknown`, `MeasureUndrawn`, `MeasureUntimely`, `MeasuredAlready`, `MeasurePeer`.
pub(crate) fn measure(working: &mut Working<'_>, signer: &Account, body: &Measure) -> Result<(), Halt> {
    let (context, parameters) = (working.context, &working.context.parameters);
    let provider: Provider = working.need(Provider::key(signer), Code::ProviderUnknown)?;
    let probe: Option<Probe> = working.get(Probe::of(body.epoch))?;
    let probe = probe.filter(|probe| probe.epoch == body.epoch && probe.providers >= 2);
    let probe = probe.ok_or(Code::MeasureUndrawn)?;
    let is_late = context.epoch() > body.epoch.saturating_add(1);
    if is_late || context.height < probe.window(parameters).end {
        return Err(Code::MeasureUntimely.into());
    }
    let mut measured: Measured = working.get(Measured::key(signer))?.unwrap_or_default();
    if measured.newest().is_some_and(|newest| newest >= body.epoch) {
        return Err(Code::MeasuredAlready.into());
    }
    check_before(working, signer, body.epoch)?;
    for (index, count) in body.counts.iter() {
        let at: Option<ProviderAt> = working.get(ProviderAt::key(*index))?;
        let stands = at.and_then(|at| at.account) == Some(count.receiver);
        if !stands || probe.peer(signer, provider.index, count.draw) != Some(*index) {
            return Err(Code::MeasurePeer.into());
        }
        check_before(working, &count.receiver, body.epoch)?;
    }
    let rate = rate(body.counts.iter().map(|(_, count)| count.bytes), parameters);
    measured.take(body.epoch, rate);
    let median = measured.median();
    working.events.push(Event::CapacityMeasured { epoch: body.epoch, provider: *signer, rate, median });
    Ok(working.put(Measured::key(signer), &measured)?)
}

/// Checks that `account` registered before `epoch`. A provider that registers after the seed is public could
/// grind its key until it is drawn (CP-2).
fn check_before(working: &mut Working<'_>, account: &Account, epoch: u64) -> Result<(), Halt> {
    let reputation: Option<Reputation> = working.get(Reputation::key(account))?;
    let before = reputation.is_some_and(|reputation| reputation.registered < epoch);
    if before { Ok(()) } else { Err(Code::MeasurePeer.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Parameters = Parameters::LOCAL;

    fn probe(seed: u8, providers: u32) -> Probe {
        Probe { epoch: 5, seed: [seed; 32], providers }
    }

    #[test]
    fn a_window_lies_within_its_epoch_and_moves_with_the_seed() {
        let (first, end) = (5 * P.epoch_blocks(), 6 * P.epoch_blocks());
        let starts: alloc::collections::BTreeSet<u64> = (0..=255)
            .map(|seed| {
                let window = probe(seed, 9).window(&P);
                assert!(window.start >= first + 2 * P.round_blocks && window.end <= end);
                assert_eq!(window.end - window.start, 8, "two seconds of 250 ms");
                window.start
            })
            .collect();
        assert_eq!(starts.len() as u64, P.epoch_blocks() - 2 * P.round_blocks - 8 + 1, "every place");
        assert_eq!(Parameters::PRODUCTION.probe_blocks(), 2);
    }

    #[test]
    fn a_peer_is_another_one_and_follows_from_seed_sender_and_draw() {
        for providers in 2..12 {
            for index in 0..providers {
                let sender = Account([index as u8; 32]);
                for draw in 0..8 {
                    let peer = probe(1, providers).peer(&sender, index, draw).expect("two or more");
                    assert!(peer < providers && peer != index);
                }
            }
        }
        let peers =
            |seed| [0, 1, 2, 3, 4, 5, 6, 7].map(|draw| probe(seed, 1_000).peer(&Account([3; 32]), 0, draw));
        assert_ne!(peers(1), peers(2));
        assert_eq!(probe(1, 1).peer(&Account([3; 32]), 0, 0), None, "alone");
        assert_eq!(probe(1, 9).peer(&Account([3; 32]), 0, 8), None, "eight draws");
    }

    #[test]
    fn a_rate_is_the_lower_median_of_eight() {
        let scale = 8 * P.epoch_blocks() / P.probe_blocks();
        for (counts, median) in [
            (&[][..], 0),
            (&[7; 4], 0),
            (&[7; 5], 7),
            (&[5, 6, 7, 8, 9], 5),
            (&[1, 2, 3, 4, 5, 6, 7, 8], 4),
            (&[u64::MAX, u64::MAX, u64::MAX, u64::MAX, 4, 3, 2, 1], 4),
            (&[0, 0, 0, 9, 9, 9, 9, 9], 9),
        ] {
            assert_eq!(rate(counts.iter().copied(), &P), median * scale, "{counts:?}");
        }
        assert_eq!(rate([u64::MAX; 8], &P), u64::MAX);
    }

    #[test]
    fn the_median_of_three_stands_once_there_are_three() {
        let mut measured = Measured::default();
        assert_eq!((measured.median(), measured.newest()), (None, None));
        for (epoch, rate, median) in
            [(1, 9, None), (2, 5, None), (4, 7, Some(7)), (5, 6, Some(6)), (9, 0, Some(6))]
        {
            measured.take(epoch, rate);
            assert_eq!((measured.median(), measured.newest()), (median, Some(epoch)));
        }
    }

    #[test]
    fn a_share_is_the_quota_over_the_epochs_rounded_up() {
        let epoch = P.epoch_blocks();
        for (quota, opened, end, expected) in [
            (0, 0, 10, 0),
            (100, 0, 10, 10),
            (101, 0, 10, 11),
            (100, 5 * epoch + 3, 7, 50),
            (100, epoch, 1, 100),
        ] {
            assert_eq!(share(quota, opened, end, &P), expected, "{quota} {opened} {end}");
        }
    }

    #[test]
    fn rates_a_second_and_an_epoch_are_the_same() {
        assert_eq!(P.bytes_per_epoch(1 << 20), 10 << 20);
        assert_eq!(P.bytes_per_second(10 << 20), 1 << 20);
        assert_eq!(P.bytes_per_epoch(u64::MAX), u64::MAX);
    }
}
