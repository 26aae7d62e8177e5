//! Counts the bytes that a drawn provider sends in an epoch's window, and signs the count.

use super::{Handler, no};
use commonware_macros::select;
use commonware_runtime::{Blob, Clock};
use posync_client::rpc::{Incoming, Provider};
use posync_protocol::{
    limits::PROBE_WINDOW_MS,
    operation::ProbeCount,
    wire::provider::{Ask, Probe, Refusal, Refused},
};
use std::time::Duration;

/// Duration for which a probe may stay open, in windows: it is dialled early, and blocks may be late.
const WINDOWS_MAX: u32 = 8;

impl<E: Clock, B: Blob> Handler<E, B> {
    /// Counts until the last bytes arrived. Bytes outside the window are not counted.
    pub(super) async fn count(
        &self,
        call: &mut Incoming<Provider>,
        ask: Probe,
    ) -> Result<ProbeCount, Refused> {
        let (view, sender) = (&self.parts.view, call.peer());
        let window = view.window().filter(|window| window.takes(&sender, &ask, view.height()));
        let window =
            window.ok_or_else(|| no(Refusal::Window, "you were not drawn to be counted here, or not now"))?;
        let until = self.parts.clock.current() + Duration::from_millis(PROBE_WINDOW_MS) * WINDOWS_MAX;
        let mut bytes = 0_u64;
        loop {
            let message = select! {
                message = call.recv() => message,
                () = self.parts.clock.sleep_until(until) => return Err(no(Refusal::Window, "the window is long over")),
            };
            let Some(Ask::Filler(filler)) = message else {
                return Err(no(Refusal::Shape, "only bytes to count belong into a running probe"));
            };
            if window.counts(view.height()) {
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
