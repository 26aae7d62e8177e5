//! A blocker that blocks nobody, for the reshare.
//!
//! The engine takes an acknowledgement that does not match its own dealing for a lie, and blocks the peer for hours. But a
//! copied or restored authority may have dealt in this term before, with another seed, from its first machine: all honest
//! peers still acknowledge that dealing. It would cut off every peer, so that nobody could answer it any more that its key
//! signs elsewhere, or that it may sign again. What a lying peer sends instead is ignored, at the pace of its quota.

use super::PublicKey;
use commonware_actor::Feedback;
use commonware_p2p::{BlockedSubscription, Blocker};
use commonware_utils::{NZUsize, channel::ring};

/// A blocker that blocks nobody, whatever it is asked.
#[derive(Clone, Debug)]
pub(super) struct Forgiving;

impl Blocker for Forgiving {
    type PublicKey = PublicKey;

    fn block(&mut self, _: PublicKey) -> Feedback {
        Feedback::Ok
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        let (_, nobody) = ring::channel(NZUsize!(1));
        nobody
    }
}
