//! Listens where blocks of leaders come in, and talks to the other authorities about what they saw.

use super::{Witness, state::Sighting};
use crate::engine::PublicKey;
use commonware_codec::{Copying, Decode as _, Encode as _};
use commonware_macros::select;
use commonware_p2p::{Message, Receiver, Recipients, Sender};
use posync_protocol::Bounded;
use std::num::NonZeroUsize;

/// Sightings in a message: few, because each costs its receiver up to two signatures to check.
const TOLD_MAX: usize = 4;

type Told = Bounded<Sighting, TOLD_MAX>;

/// The receiving end of the channel of new blocks, overheard: also a block that nobody votes for,
/// and that is therefore never verified, was signed.
#[derive(Debug)]
pub struct Overheard<R> {
    inner: R,
    witness: Witness,
}

impl<R> Overheard<R> {
    /// Listens to `inner`.
    pub const fn new(inner: R, witness: Witness) -> Self {
        Self { inner, witness }
    }
}

impl<R: Receiver<PublicKey = PublicKey>> Receiver for Overheard<R> {
    type Error = R::Error;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, R::Error> {
        let message = self.inner.recv().await?;
        self.witness.overhear(message.1.as_ref());
        Ok(message)
    }

    fn capacity(&self) -> NonZeroUsize {
        self.inner.capacity()
    }
}

/// Tells and hears until the node stops.
pub async fn run<S: Sender, R: Receiver>(witness: Witness, (mut sender, mut receiver): (S, R)) {
    let mut changed = witness.changed.subscribe();
    loop {
        select! {
            news = changed.changed() => match news {
                Ok(()) => tell(&witness, &mut sender),
                Err(_) => return,
            },
            message = receiver.recv() => match message {
                Ok((_, bytes)) => witness.hear(&told(bytes.as_ref())),
                Err(_) => return,
            },
        }
    }
}

fn tell(witness: &Witness, sender: &mut impl Sender) {
    let sightings = witness.state().take_outbox();
    for part in sightings.chunks(TOLD_MAX) {
        let told = Told::new(part.to_vec()).expect("a chunk of that size");
        sender.send(Recipients::All, told.encode(), false);
    }
}

/// What another told; bytes that do not decode are nothing.
fn told(bytes: &[u8]) -> Vec<Sighting> {
    Told::decode_cfg(Copying(bytes), &()).map(Bounded::into_inner).unwrap_or_default()
}
