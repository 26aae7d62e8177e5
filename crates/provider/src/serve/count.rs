//! Counts the bytes that a drawn provider sends in an epoch's slot, and signs the count.

use super::{Handler, no};
use commonware_macros::select;
use commonware_runtime::{Blob, Clock};
use posync_client::rpc::{Incoming, Provider};
use posync_protocol::{
    limits::PROBE_SLOT_MS,
    operation::ProbeCount,
    wire::provider::{Ask, Probe, Refusal, Refused},
};
use std::time::Duration;

/// Duration for which a probe may stay open, in slots: it is dialled early, and blocks may be late.
const SLOTS_MAX: u32 = 8;

impl<E: Clock, B: Blob> Handler<E, B> {
    /// Counts until the last bytes arrived. Bytes outside the slot are not counted.
    pub(super) async fn count(
        &self,
        call: &mut Incoming<Provider>,
        ask: Probe,
    ) -> Result<ProbeCount, Refused> {
        let (view, sender) = (&self.parts.view, call.peer());
        let slot = view.slot().filter(|slot| slot.takes(&sender, &ask, view.height()));
        let slot =
            slot.ok_or_else(|| no(Refusal::Slot, "you were not drawn to be counted here, or not now"))?;
        let until = self.parts.clock.current() + Duration::from_millis(PROBE_SLOT_MS) * SLOTS_MAX;
        let mut bytes = 0_u64;
        loop {
            let message = select! {
                message = call.recv() => message,
                () = self.parts.clock.sleep_until(until) => return Err(no(Refusal::Slot, "the slot is long over")),
            };
            let Some(Ask::Filler(filler)) = message else {
                return Err(no(Refusal::Shape, "only bytes to count belong into a running probe"));
            };
            if slot.counts(view.height()) {
                bytes = bytes.saturating_add(filler.data.len() as u64);
            }
            if filler.last {
                let Probe { epoch, draw, .. } = ask;
                let receiver = view.account;
                let count = ProbeCount { epoch, sender, receiver, draw, bytes, signature: [0; 64] };
                return Ok(count.signed(&self.parts.key, &view.chain));
            }
        }
    }
}
