//! Operations that are sent beside the keeper's other work: none of them may delay the answer to a
//! challenge. One attempt each; whether it did anything shows in the next state.

use super::Keeper;
use crate::ledger::Ledger;
use commonware_runtime::{Blob, Handle, Spawner};
use commonware_storage::Context;
use posync_protocol::Body;

/// Something that is being sent, or nothing.
pub(super) struct Beside(Option<Handle<()>>);

impl Beside {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    /// Whether it is still being sent.
    pub(super) fn is_busy(&mut self) -> bool {
        let is_over = |task: &mut Handle<()>| futures::FutureExt::now_or_never(task).is_some();
        // One that is over may not be asked again.
        self.0 = self.0.take().and_then(|mut task| (!is_over(&mut task)).then_some(task));
        self.0.is_some()
    }
}

impl<E: Spawner + Context, B: Blob, L: Ledger> Keeper<E, B, L> {
    /// Sends a paid operation once; if that fails, tells `failed`.
    pub(super) fn pay_beside(&self, body: Body, failed: &'static str) -> Beside {
        let ledger = self.ledger.clone();
        let task = self.context.child("pay").spawn(move |_| async move {
            if let Err(error) = ledger.pay(body).await {
                tracing::warn!(%error, failed);
            }
        });
        Beside(Some(task))
    }

    /// Sends a free operation once; if that fails, tells `failed`.
    pub(super) fn send_beside(&self, body: Body, failed: &'static str) -> Beside {
        let ledger = self.ledger.clone();
        let task = self.context.child("send").spawn(move |_| async move {
            if let Err(error) = ledger.send(body).await {
                tracing::warn!(%error, failed);
            }
        });
        Beside(Some(task))
    }
}
