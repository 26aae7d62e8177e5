//! A switch that stops the node's part in consensus while its volume has no room to spare.
//!
//! While it is off, the node hears no votes, certificates or blocks, so it signs, applies and writes
//! nothing new, and still serves the data that it has. When it is on again, the node fetches the blocks
//! it missed, as after any pause.

use super::PublicKey;
use commonware_p2p::{Message, Receiver};
use posync_client::watch;
use std::{fmt, num::NonZeroUsize};

/// The switch, which starts on; clones share it.
#[derive(Clone)]
pub struct Taking(watch::Sender<bool>);

impl Default for Taking {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Taking {
    /// True while the node takes part in consensus.
    pub fn is_on(&self) -> bool {
        *self.0.subscribe().borrow()
    }

    /// Waits until the node takes part.
    pub(crate) async fn wait_on(&self) {
        let _ = self.0.subscribe().wait_for(|takes_part| *takes_part).await;
    }

    /// Switches the node's part in consensus on or off.
    pub fn set(&self, takes_part: bool) {
        self.0.send_replace(takes_part);
    }
}

/// A receiver that holds messages back while the switch is off.
pub(crate) struct Gated<R> {
    inner: R,
    open: watch::Receiver<bool>,
}

impl<R> Gated<R> {
    /// Wraps `inner`, controlled by `taking`.
    pub(crate) fn new(inner: R, taking: &Taking) -> Self {
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
        // If the switch is gone, the node is stopping.
        let _ = self.open.wait_for(|open| *open).await;
        Ok(message)
    }

    fn capacity(&self) -> NonZeroUsize {
        self.inner.capacity()
    }
}
