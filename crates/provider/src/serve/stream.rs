//! A download: slices out, vouchers in, with at most the credit window between them.

use super::{Handler, PAY_WAIT_MS, no, trace};
use crate::{credit::Credit, packs::StoreError, terms::Terms, uptime::Uptime, vouchers::Vouchers};
use bytes::Bytes;
use commonware_macros::select;
use commonware_runtime::{Blob, Clock};
use futures::FutureExt as _;
use posync_client::rpc::{Incoming, Provider};
use posync_protocol::{
    Account, AgreementId, Bounded, Hash,
    limits::SLICE_BYTES,
    shard,
    wire::provider::{Ask, Get, ProviderAnswer, Refusal, Refused, Slice},
};
use std::{ops::Range, time::Duration};

const UNPAID: &str =
    "the credit window is used up; send a voucher for what arrived, earlier downloads included";
const SPENT: &str = "the agreement's quota, rate cap or voucher reserve is used up; top up or open another";

/// A shard in memory with the hashes that prove its slices.
struct Source {
    data: Bytes,
    outboard: Vec<Hash>,
}

impl Source {
    fn slice(&self, offset: u64, end: u64) -> Option<Slice> {
        let shard_bytes = self.data.len() as u64;
        let next = (offset + SLICE_BYTES).min(shard_bytes);
        let path = Bounded::new(shard::prove_slice(shard_bytes, offset, &self.outboard)?)?;
        let range = usize::try_from(offset).ok()?..usize::try_from(next).ok()?;
        let data = Bounded::new(self.data.get(range)?.to_vec())?;
        Some(Slice { shard_bytes, offset, data, path, last: next >= end })
    }
}

/// The bytes that a request covers, from a slice boundary; `None` if it is misaligned or outside the shard.
fn range(get: &Get, shard_bytes: u64) -> Option<Range<u64>> {
    let aligned = get.offset.is_multiple_of(SLICE_BYTES);
    let inside = get.offset < shard_bytes.max(1);
    let end = if get.length == 0 { shard_bytes } else { get.offset.checked_add(get.length)? };
    (aligned && inside && end <= shard_bytes).then_some(get.offset..end)
}

/// A running download. Dropping it, even when the caller hung up, notes its end in the voucher store and gives
/// back credit for bytes that did not leave.
struct Download<'a> {
    vouchers: &'a Vouchers,
    uptime: &'a Uptime,
    agreement: AgreementId,
    /// Bytes for which credit was drawn and that were not yet passed to the connection.
    drawn: u64,
}

impl<'a> Download<'a> {
    fn begin(vouchers: &'a Vouchers, uptime: &'a Uptime, terms: &Terms) -> Self {
        let now = uptime.now();
        vouchers.with(|state| state.begin(terms.id, terms.disputed_bytes(), now));
        Self { vouchers, uptime, agreement: terms.id, drawn: 0 }
    }
}

impl Drop for Download<'_> {
    fn drop(&mut self) {
        let now = self.uptime.now();
        self.vouchers.with(|state| {
            state.give_back(&self.agreement, self.drawn);
            state.end(&self.agreement, now);
        });
    }
}

impl<E: Clock, B: Blob> Handler<E, B> {
    /// Streams a range. Returns `Ok` when it is done or the caller is gone.
    pub(super) async fn stream(&self, call: &mut Incoming<Provider>, get: Get) -> Result<(), Refused> {
        let terms = self.admit(call.peer(), &get.agreement).await?;
        let length = self.parts.store.length(&get.shard).ok_or_else(unknown)?;
        let range = range(&get, length.into()).ok_or_else(|| {
            no(Refusal::Shape, format!("offset in steps of 64 KiB, range within the shard's {length} bytes"))
        })?;
        let turn = self.turn(call.peer(), [1, length.into(), range.end - range.start]).await?;
        let data = self.parts.store.get(&get.shard).await.map_err(|error| match error {
            StoreError::Unknown => unknown(),
            error if error.is_away() => no(Refusal::Busy, format!("{error}; read another")),
            _ => no(Refusal::Damaged, "the shard is damaged on this provider's disk; read another"),
        })?;
        let source = Source { outboard: shard::outboard(&data), data };
        let mut offset = range.start;
        let mut download = Download::begin(&self.parts.vouchers, self.uptime(), &terms);
        loop {
            let slice = source.slice(offset, range.end).ok_or_else(unknown)?;
            let (bytes, last) = (slice.data.len() as u64, slice.last);
            self.wait_for_credit(call, &terms, bytes).await?;
            download.drawn = bytes;
            if call.send(&ProviderAnswer::Slice(slice)).await.is_err() {
                return Ok(());
            }
            download.drawn = 0;
            offset += bytes;
            if last {
                drop(turn);
                return self.linger(call).await;
            }
        }
    }

    /// Draws credit for the next slice; reads vouchers until there is some.
    async fn wait_for_credit(
        &self,
        call: &mut Incoming<Provider>,
        terms: &Terms,
        bytes: u64,
    ) -> Result<(), Refused> {
        while let Some(message) = call.recv().now_or_never() {
            self.take(call.peer(), message).await?;
        }
        let until = self.parts.clock.current() + Duration::from_millis(PAY_WAIT_MS);
        let mut is_fresh = false;
        loop {
            let view = &self.parts.view;
            let terms = view.kept(&terms.id).unwrap_or_else(|| terms.clone());
            let gas = self
                .parts
                .vouchers
                .with(|state| state.voucher(&terms.id).map_or(0, |kept| kept.voucher.units.gas));
            let ceiling = terms.egress_ceiling(gas, view.round(), &view.parameters);
            let trust = terms.trust(&view.parameters);
            let credit = select! {
                credit = self.parts.vouchers.draw(terms.id, bytes, trust, ceiling) => credit,
                message = call.recv() => {
                    self.take(call.peer(), message).await?;
                    continue;
                },
                () = self.parts.clock.sleep_until(until) => Credit::Pay(bytes),
            };
            return match credit {
                Credit::Send => Ok(()),
                // The reserve may have been topped up since the terms were proved.
                Credit::Never if !is_fresh => {
                    is_fresh = true;
                    self.terms(&terms.id, true).await?;
                    continue;
                }
                Credit::Never => Err(no(Refusal::Credit, SPENT)),
                Credit::Pay(_) => Err(no(Refusal::Credit, UNPAID)),
            };
        }
    }

    /// Handles a message of the caller during a stream; only vouchers are valid.
    async fn take(&self, peer: Account, message: Option<Ask>) -> Result<(), Refused> {
        message.iter().for_each(|message| trace(&peer, message));
        match message {
            Some(Ask::Pay(voucher)) => self.pay(peer, &voucher).await,
            Some(_) => Err(no(Refusal::Shape, "only vouchers belong into a running download")),
            None => Err(no(Refusal::Shape, "the caller gave up")),
        }
    }

    /// After the last slice: reads vouchers until the caller hangs up.
    async fn linger(&self, call: &mut Incoming<Provider>) -> Result<(), Refused> {
        let until = self.parts.clock.current() + Duration::from_millis(PAY_WAIT_MS);
        loop {
            let message = select! {
                message = call.recv() => message,
                () = self.parts.clock.sleep_until(until) => None,
            };
            message.iter().for_each(|message| trace(&call.peer(), message));
            match message {
                Some(Ask::Pay(voucher)) => self.pay(call.peer(), &voucher).await?,
                _ => return Ok(()),
            }
        }
    }
}

fn unknown() -> Refused {
    no(Refusal::Unknown, "this provider does not store that shard")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::id;

    #[test]
    fn ranges_are_whole_slices_within_the_shard() {
        const S: u64 = SLICE_BYTES;
        for (offset, length, bytes, expected) in [
            (0, 0, 0, Some(0..0)),
            (0, 0, 1, Some(0..1)),
            (0, 0, 3 * S, Some(0..3 * S)),
            (S, 0, 3 * S, Some(S..3 * S)),
            (S, 1, 3 * S, Some(S..S + 1)),
            (2 * S, S, 3 * S, Some(2 * S..3 * S)),
            (2 * S, S + 1, 3 * S, None),
            (3 * S, 0, 3 * S, None),
            (1, 0, 3 * S, None),
            (S, u64::MAX, 3 * S, None),
            (0, 1, 0, None),
        ] {
            let get = Get { agreement: id(), shard: [0; 32], offset, length };
            assert_eq!(range(&get, bytes), expected, "{offset} {length} {bytes}");
        }
    }
}
