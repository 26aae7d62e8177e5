//! Votes as they pass: those of the others are remembered for them, and those of this node are noted before they
//! leave.
//!
//! A vote reaches this node over a connection that proves its sender's key, so its bytes are kept unread; the
//! authority that asks for them checks its own signature in them.

use super::OwnKey;
use crate::{
    engine::{Digest, PublicKey, Scheme},
    epoch::{Schemes, secrets::SignedAt},
};
use commonware_actor::{Feedback, Unreliable};
use commonware_codec::{Buf, Copying, DecodeExt as _, Error, ReadExt as _, varint::UInt};
use commonware_consensus::{
    Epochable as _, Viewable as _,
    simplex::types::{Attributable as _, Vote},
    types::Round,
};
use commonware_cryptography::certificate::Provider as _;
use commonware_p2p::{CheckedSender, LimitedSender, Message, Receiver, Recipients, Sender};
use commonware_parallel::Sequential;
use commonware_runtime::IoBufs;
use commonware_utils::ordered::Quorum as _;
use posync_protocol::Account;
use rand_core::CryptoRng;
use std::{fmt, num::NonZeroUsize, time::SystemTime};

/// Most bytes of a vote that is kept: a vote has about 150.
pub(crate) const VOTE_BYTES_MAX: usize = 256;

/// A vote that this node cannot check yet.
pub(super) struct TooNew;

/// Reads term and view of a vote of the engine's channel, up to where its content begins.
fn place(message: &mut impl Buf) -> Result<SignedAt, Error> {
    let _: u64 = UInt::read(message)?.into();
    let _kind = u8::read(message)?;
    let round = Round::read(message)?;
    Ok([round.epoch().get(), round.view().get()])
}

/// SignedAt and bytes of the vote in a message of the engine's channel.
fn vote(message: &[u8]) -> Option<(SignedAt, &[u8])> {
    let mut rest = Copying(message);
    let _: u64 = UInt::read(&mut rest).ok()?.into();
    Some((place(&mut Copying(message)).ok()?, rest.0))
}

/// Term and view of an encoded vote, if it is one of `me`; `None` if it is not.
///
/// # Errors
/// [`TooNew`]: this node does not know the vote's term yet.
pub(super) fn verified(
    rng: &mut impl CryptoRng,
    (schemes, newest): (&Schemes, u64),
    me: &PublicKey,
    bytes: &[u8],
) -> Result<Option<SignedAt>, TooNew> {
    let Ok(vote) = Vote::<Scheme, Digest>::decode(Copying(bytes)) else { return Ok(None) };
    let Some(scheme) = schemes.scheme(vote.epoch()) else {
        return if vote.epoch().get() > newest { Err(TooNew) } else { Ok(None) };
    };
    let (signer, is_signed) = match &vote {
        Vote::Notarize(vote) => (vote.signer(), vote.verify(rng, &*scheme, &Sequential)),
        Vote::Nullify(vote) => (vote.signer(), vote.verify::<_, Digest>(rng, &*scheme, &Sequential)),
        Vote::Finalize(vote) => (vote.signer(), vote.verify(rng, &*scheme, &Sequential)),
    };
    let is_own = is_signed && scheme.participants().key(signer) == Some(me);
    Ok(is_own.then(|| [vote.epoch().get(), vote.view().get()]))
}

/// A receiver of the engine. One of votes keeps the newest of each authority.
pub(crate) struct Noted<R> {
    inner: R,
    own_key: Option<OwnKey>,
}

impl<R> Noted<R> {
    /// Wraps a receiver; `own_key` keeps the votes, if it is one of votes.
    pub(crate) const fn new(inner: R, own_key: Option<OwnKey>) -> Self {
        Self { inner, own_key }
    }
}

impl<R: fmt::Debug> fmt::Debug for Noted<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Noted").field(&self.inner).finish()
    }
}

impl<R: Receiver<PublicKey = PublicKey>> Receiver for Noted<R> {
    type Error = R::Error;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, R::Error> {
        let message = self.inner.recv().await?;
        if let Some(own_key) = &self.own_key
            && let Some((place, vote)) = vote(message.1.as_ref())
        {
            own_key.state().heard(Account::of(&message.0), place, vote);
        }
        Ok(message)
    }

    fn capacity(&self) -> NonZeroUsize {
        self.inner.capacity()
    }
}

/// A sender of the engine. One of votes sends nothing while the node is silent, and notes what it sends.
#[derive(Clone, Debug)]
pub(crate) struct Muted<S> {
    inner: S,
    own_key: Option<OwnKey>,
}

impl<S> Muted<S> {
    /// Wraps a sender. One of votes is controlled by `own_key`; one of what proves itself always sends.
    pub(crate) const fn new(inner: S, own_key: Option<OwnKey>) -> Self {
        Self { inner, own_key }
    }
}

/// A checked sender of [`Muted`].
#[derive(Debug)]
pub(crate) struct Checked<C> {
    inner: C,
    /// Present while votes leave.
    notes: Option<OwnKey>,
}

impl<C: CheckedSender> CheckedSender for Checked<C> {
    type PublicKey = C::PublicKey;

    fn recipients(&self) -> Vec<C::PublicKey> {
        self.inner.recipients()
    }

    fn send(self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        let message: IoBufs = message.into();
        if let Some(own_key) = &self.notes
            && let Ok(place) = place(&mut message.clone())
        {
            own_key.state().votes(place);
        }
        self.inner.send(message, priority)
    }
}

impl<S: Sender<PublicKey = PublicKey>> LimitedSender for Muted<S> {
    type PublicKey = PublicKey;
    type Checked<'a> = Checked<S::Checked<'a>>;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Self::Checked<'_>, SystemTime> {
        let is_silent = self.own_key.as_ref().is_some_and(|own_key| !own_key.signs());
        let notes = self.own_key.clone().filter(|_| !is_silent);
        let recipients = if is_silent { Recipients::Some(Vec::new()) } else { recipients };
        Ok(Checked { inner: self.inner.check(recipients)?, notes })
    }
}
