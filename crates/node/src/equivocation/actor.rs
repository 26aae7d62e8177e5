//! Reads the headers of incoming blocks, and exchanges sightings with the other authorities.

use super::{EquivocationWatcher, state::Sighting};
use crate::engine::PublicKey;
use commonware_codec::{Copying, Decode as _, Encode as _};
use commonware_macros::select;
use commonware_p2p::{Message, Receiver, Recipients, Sender};
use posync_protocol::Bounded;
use std::num::NonZeroUsize;

/// Sightings in one message: few, because each costs its receiver up to two signature checks.
const SIGHTINGS_MAX: usize = 4;

type Sightings = Bounded<Sighting, SIGHTINGS_MAX>;

/// A receiver of new blocks that also reports their headers: a block that no one votes for is never
/// verified, but it was signed.
#[derive(Debug)]
pub(crate) struct Overheard<R> {
    inner: R,
    equivocation: EquivocationWatcher,
}

impl<R> Overheard<R> {
    /// Wraps `inner` and reports its headers to `equivocation`.
    pub(crate) const fn new(inner: R, equivocation: EquivocationWatcher) -> Self {
        Self { inner, equivocation }
    }
}

impl<R: Receiver<PublicKey = PublicKey>> Receiver for Overheard<R> {
    type Error = R::Error;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, R::Error> {
        let message = self.inner.recv().await?;
        self.equivocation.overhear(message.1.as_ref());
        Ok(message)
    }

    fn capacity(&self) -> NonZeroUsize {
        self.inner.capacity()
    }
}

/// Sends and receives sightings until the node stops.
pub(crate) async fn run<S: Sender, R: Receiver>(
    equivocation: EquivocationWatcher,
    (mut sender, mut receiver): (S, R),
) {
    let mut changed = equivocation.changed.subscribe();
    loop {
        select! {
            news = changed.changed() => match news {
                Ok(()) => send(&equivocation, &mut sender),
                Err(_) => return,
            },
            message = receiver.recv() => match message {
                Ok((_, bytes)) => equivocation.hear(&decode(bytes.as_ref())),
                Err(_) => return,
            },
        }
    }
}

fn send(equivocation: &EquivocationWatcher, sender: &mut impl Sender) {
    let sightings = equivocation.state().take_outbox();
    for part in sightings.chunks(SIGHTINGS_MAX) {
        let message = Sightings::new(part.to_vec()).expect("a part of that size");
        sender.send(Recipients::All, message.encode(), false);
    }
}

/// Decodes another authority's sightings; bytes that do not decode count as none.
fn decode(bytes: &[u8]) -> Vec<Sighting> {
    Sightings::decode_cfg(Copying(bytes), &()).map(Bounded::into_inner).unwrap_or_default()
}
