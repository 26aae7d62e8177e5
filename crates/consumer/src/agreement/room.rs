//! A shard's way into a data set, from the reserved room to the provider's signature.

use super::{OwnAgreement, state::State};
use crate::{
    catalogue::row::Added,
    peer::{Error, Parcel},
};
use commonware_utils::channel::oneshot;
use posync_protocol::{Hash, wire::provider::Refusal};
use std::{sync::Arc, time::Duration};

/// Time for which an agreement whose provider has no room is passed over.
const CROWDED: Duration = Duration::from_secs(60);

/// Reserved room for one shard; dropping it gives the room back unless a shard took it.
pub struct Room {
    pub(super) agreement: Arc<OwnAgreement>,
    pub(super) bytes: u64,
    pub(super) kept: bool,
}

/// A shard that the provider stored and has not signed for. Dropping this gives the shard up.
pub struct Unsigned {
    agreement: Arc<OwnAgreement>,
    name: Hash,
    answer: oneshot::Receiver<bool>,
}

impl Room {
    /// Agreement in which the room is reserved.
    pub const fn agreement(&self) -> &Arc<OwnAgreement> {
        &self.agreement
    }

    /// As [`Self::give`], with bytes that are offered to this provider alone.
    ///
    /// # Errors
    /// As [`Self::give`].
    pub async fn store(self, added: Added, bytes: Vec<u8>) -> Result<Unsigned, Error> {
        let wrong = Error::Wrong(self.agreement.provider(), "a shard above 4 MiB is offered");
        self.give(added, &Parcel::new(bytes).ok_or(wrong)?).await
    }

    /// Sends the shard to the provider. On success its signature is under way.
    ///
    /// # Errors
    /// [`Error`]; the room is then free again.
    pub async fn give(mut self, added: Added, parcel: &Parcel) -> Result<Unsigned, Error> {
        if let Err(error) = self.agreement.peer.put(self.agreement.id, added.name, parcel).await {
            if matches!(error, Error::Refused(_, Refusal::Space, _)) {
                crowd(&self.agreement);
            }
            return Err(error);
        }
        self.kept = true;
        let (agreement, name) = (self.agreement.clone(), added.name);
        let (waiter, answer) = oneshot::channel();
        agreement.waiters.lock().insert(name, waiter);
        agreement.with_state(|state| state.queue(added));
        agreement.wake.notify_one();
        Ok(Unsigned { agreement, name, answer })
    }
}

/// Treats an agreement as full for [`CROWDED`], because its provider reports no room whatever is counted
/// here. Meanwhile other agreements are filled or opened.
fn crowd(agreement: &Arc<OwnAgreement>) {
    if !agreement.with_state(State::crowd) {
        return;
    }
    tracing::info!(provider = %agreement.provider(), agreement = agreement.number,
        "a provider has no room under an agreement; other providers are used");
    let (agreement, pause) = (agreement.clone(), agreement.common.environment.sleep(CROWDED));
    agreement.clone().common.environment.spawn(async move {
        pause.await;
        agreement.with_state(State::uncrowd);
    });
}

impl Unsigned {
    /// Waits for the provider's signature; `false` if it will not come.
    pub async fn signed(mut self) -> bool {
        (&mut self.answer).await.unwrap_or(false)
    }
}

impl Drop for Unsigned {
    fn drop(&mut self) {
        self.agreement.waiters.lock().remove(&self.name);
        self.agreement.with_state(|state| state.unqueue(&self.name));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.kept {
            self.agreement.with_state(|state| state.release(self.bytes));
        }
    }
}
