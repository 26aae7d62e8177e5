//! Operations that are sent beside the reconciler's other work: none may delay the answer to a challenge.
//! Each gets one attempt; its effect shows in the next state.

use super::Reconciler;
use crate::{
    condition::Condition,
    ledger::{Ledger, LedgerError},
};
use commonware_runtime::{Blob, Handle, Spawner};
use commonware_storage::Context;
use commonware_utils::sync::Mutex;
use posync_protocol::Body;
use std::{collections::BTreeMap, sync::Arc};

/// The condition of a provider whose registration fails, for lack of money for instance.
pub(super) const UNREGISTERED: &str = "the provider is not registered, gets no data and earns nothing: the ledger did not take its registration";

/// The condition of a provider whose offer or address the ledger does not have as configured.
pub(super) const UNDECLARED: &str = "the offer or the address could not be declared again now";

/// Conditions of failed sends; each is logged when it begins and when it ends.
#[derive(Clone, Default)]
pub(super) struct FailedSends(Arc<Mutex<BTreeMap<&'static str, Condition>>>);

impl FailedSends {
    /// Notes that a send succeeded or failed; `failed` names its condition.
    pub(super) fn note(&self, failed: &'static str, done: Result<(), LedgerError>) {
        let mut all = self.0.lock();
        let condition = all.entry(failed).or_insert_with(|| Condition::new(failed));
        match done {
            Ok(()) => condition.ended(),
            Err(error) => condition.holds(&error),
        };
    }
}

impl FailedSends {
    /// True if the last send of this condition failed.
    pub(super) fn is_held(&self, failed: &'static str) -> bool {
        self.0.lock().get(failed).is_some_and(Condition::is_held)
    }
}

#[cfg(test)]
impl FailedSends {
    /// The conditions that hold now.
    pub(super) fn held(&self) -> Vec<&'static str> {
        let all = self.0.lock();
        all.iter().filter(|(_, condition)| condition.is_held()).map(|(failed, _)| *failed).collect()
    }
}

/// An operation that is being sent, or none.
pub(super) struct Sending(Option<Handle<()>>);

impl Sending {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    /// True while it is being sent.
    pub(super) fn is_busy(&mut self) -> bool {
        let is_over = |task: &mut Handle<()>| futures::FutureExt::now_or_never(task).is_some();
        // A finished task may not be polled again.
        self.0 = self.0.take().and_then(|mut task| (!is_over(&mut task)).then_some(task));
        self.0.is_some()
    }
}

impl<E: Spawner + Context, B: Blob, L: Ledger> Reconciler<E, B, L> {
    /// Sends a paid operation once; logs `failed` if that fails.
    pub(super) fn pay_beside(&self, body: Body, failed: &'static str) -> Sending {
        let (ledger, failures) = (self.ledger.clone(), self.failed_sends.clone());
        let task = self.context.child("pay").spawn(move |_| async move {
            let done = ledger.pay(body).await;
            failures.note(failed, done);
        });
        Sending(Some(task))
    }

    /// Sends a free operation once; logs `failed` if that fails.
    pub(super) fn send_beside(&self, body: Body, failed: &'static str) -> Sending {
        let (ledger, failures) = (self.ledger.clone(), self.failed_sends.clone());
        let task = self.context.child("send").spawn(move |_| async move {
            let done = ledger.send(body).await;
            failures.note(failed, done);
        });
        Sending(Some(task))
    }
}
