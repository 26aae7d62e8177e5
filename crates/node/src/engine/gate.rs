//! Whether the node takes part: it does not while its volume has no room to spare.
//!
//! A node that is not taking part hears no votes, certificates and blocks, so it signs, applies and
//! writes nothing new, and goes on to serve what it has. What the others decide meanwhile it fetches
//! when it takes part again, as after any pause.

use super::PublicKey;
use commonware_p2p::{Message, Receiver};
use posync_client::watch;
use std::{fmt, num::NonZeroUsize};

/// The switch; clones share it.
#[derive(Clone)]
pub struct Taking(watch::Sender<bool>);

impl Default for Taking {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Taking {
    /// Whether the node takes part.
    pub fn is_on(&self) -> bool {
        *self.0.subscribe().borrow()
    }

    /// Turns it on or off.
    pub fn set(&self, takes_part: bool) {
        self.0.send_replace(takes_part);
    }
}

/// A receiver that hands nothing out while the node takes no part.
pub(super) struct Gated<R> {
    inner: R,
    open: watch::Receiver<bool>,
}

impl<R> Gated<R> {
    /// Of `inner`.
    pub(super) fn new(inner: R, taking: &Taking) -> Self {
        Self { inner, open: taking.0.subscribe() }
    }
}

impl<R: fmt::Debug> fmt::Debug for Gated<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Gated").field(&self.inner).finish()
    }
}

impl<R: Receiver<PublicKey = PublicKey>> Receiver for Gated<R> {
    type Error = R::Error;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, R::Error> {
        let message = self.inner.recv().await?;
        // If the switch is gone, so is the node.
        let _ = self.open.wait_for(|open| *open).await;
        Ok(message)
    }

    fn capacity(&self) -> NonZeroUsize {
        self.inner.capacity()
    }
}
