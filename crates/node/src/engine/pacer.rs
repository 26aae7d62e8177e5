//! The layer between consensus and the block pipeline that records seeds and keeps the pace of blocks.
//!
//! Consensus reports certificates to the same object that it asks for proposals, so the seed of a round is
//! kept here for the header of the next block. A leader also waits here: for the pace after the parent's
//! arrival, for the parent's seed, and while no operation waits for some time more, so that a quiet network takes
//! less processor time. As it waits before the state machine is asked, it never delays a finalization.
//!
//! Invariants:
//! 1. `verify` and `certify` are never delayed.
//! 2. A wait ends when consensus drops the request for the proposal.
//! 3. Both tables are bounded. A lost seed is fetched from the block store; a lost arrival costs no wait.

use super::{Context, Digest, Finalization, Marshal, PublicKey, Runtime, Scheme, Seed, Variant};
use crate::{handle::Operations, own_key::OwnKey};
use commonware_actor::Feedback;
use commonware_consensus::{
    Automaton, CertifiableAutomaton, Handoff, Relay, Reporter,
    simplex::{Plan, scheme::bls12381_threshold::vrf::Seedable as _, types::Activity},
    types::{Round, View},
};
use commonware_cryptography::bls12381::primitives::variant::Variant as BlsVariant;
use commonware_macros::select;
use commonware_utils::channel::oneshot;
use commonware_utils::sync::Mutex;
use posync_client::watch;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Rounds whose seeds are kept in memory.
const SEEDS_MAX: usize = 512;
/// Blocks whose arrivals are kept in memory.
const ARRIVALS_MAX: usize = 64;

type Signature = <Variant as BlsVariant>::Signature;

/// The seeds of recent rounds.
#[derive(Clone)]
pub(crate) struct Seeds {
    table: Arc<Mutex<BTreeMap<Round, Signature>>>,
    changed: watch::Sender<()>,
}

impl Default for Seeds {
    fn default() -> Self {
        Self { table: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Seeds {
    /// The seed of `round`, if a certificate of that round was seen.
    pub(crate) fn peek(&self, round: Round) -> Option<Signature> {
        let table = self.table.lock();
        table.get(&round).copied()
    }

    fn add(&self, seed: Seed) {
        let mut table = self.table.lock();
        table.insert(seed.round(), seed.signature);
        while table.len() > SEEDS_MAX {
            table.pop_first();
        }
        drop(table);
        self.changed.send_replace(());
    }

    /// Waits until a certificate of `round` is seen.
    async fn wait(&self, round: Round) {
        let mut changed = self.changed.subscribe();
        while self.peek(round).is_none() {
            changed.changed().await.expect("the sender lives in self");
        }
    }
}

/// For each recent block, a timer of one pace that starts when the block is first seen here. As it is a timer
/// and not a timestamp, a clock that steps back delays no block.
#[derive(Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<VecDeque<(Digest, Due)>>>);

/// Becomes true once a block is one pace old.
type Due = watch::Receiver<bool>;

impl Arrivals {
    fn note<E: Runtime>(&self, digest: Digest, context: &E, pace: Duration) {
        let mut arrivals = self.0.lock();
        if arrivals.iter().any(|(seen, _)| *seen == digest) {
            return;
        }
        if arrivals.len() == ARRIVALS_MAX {
            arrivals.pop_front();
        }
        let due = watch::Sender::new(false);
        arrivals.push_back((digest, due.subscribe()));
        drop(arrivals);
        context.child("pace").spawn(move |clock| async move {
            clock.sleep(pace).await;
            due.send_replace(true);
        });
    }

    /// Waits until a block is one pace old; returns at once for a block that was not seen.
    async fn wait(&self, digest: &Digest) {
        let due = {
            let arrivals = self.0.lock();
            arrivals.iter().find(|(seen, _)| seen == digest).map(|(_, due)| due.clone())
        };
        if let Some(mut due) = due {
            // A timer that is gone delays no one.
            let _ = due.wait_for(|due| *due).await;
        }
    }
}

/// The time from a block to its child.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// The least time, with operations or without.
    pub least: Duration,
    /// The time that is added while no operation waits.
    pub quiet: Duration,
}

/// Wraps the block pipeline `D` of a node running on `E`.
pub(crate) struct Pacer<E, D> {
    context: Arc<E>,
    inner: D,
    marshal: Marshal,
    seeds: Seeds,
    own_key: OwnKey,
    arrivals: Arrivals,
    operations: Arc<dyn Operations>,
    pace: Pace,
}

impl<E, D: Clone> Clone for Pacer<E, D> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            inner: self.inner.clone(),
            marshal: self.marshal.clone(),
            seeds: self.seeds.clone(),
            own_key: self.own_key.clone(),
            arrivals: self.arrivals.clone(),
            operations: self.operations.clone(),
            pace: self.pace,
        }
    }
}

impl<E: Runtime, D> Pacer<E, D> {
    /// Wraps `inner`: this node's own blocks come at `pace` after their parents, and only while its key may sign.
    pub(crate) fn new(
        context: E,
        inner: D,
        marshal: Marshal,
        (seeds, own_key): (Seeds, OwnKey),
        operations: Arc<dyn Operations>,
        pace: Pace,
    ) -> Self {
        Self {
            context: Arc::new(context),
            inner,
            marshal,
            seeds,
            own_key,
            arrivals: Arrivals::default(),
            operations,
            pace,
        }
    }

    /// Waits until a child of the parent in `context` may be built.
    async fn ready(&self, context: &Context) {
        self.own_key.may_sign().await;
        let (parent_view, parent) = context.parent;
        if parent_view != View::zero() {
            let round = Round::new(context.round.epoch(), parent_view);
            if self.seeds.peek(round).is_none()
                && let Some(finalization) = self.finalization(&parent).await
            {
                self.seeds.add(finalization.seed());
            }
            self.seeds.wait(round).await;
        }
        self.arrivals.wait(&parent).await;
        if !self.pace.quiet.is_zero() {
            select! {
                () = self.context.sleep(self.pace.quiet) => {},
                () = self.operations.waiting() => {},
            }
        }
    }

    async fn finalization(&self, digest: &Digest) -> Option<Finalization> {
        let (height, _) = self.marshal.get_info(digest).await?;
        self.marshal.get_finalization(height).await
    }
}

impl<E, D> Automaton for Pacer<E, D>
where
    E: Runtime,
    D: Automaton<Context = Context, Digest = Digest> + Sync,
{
    type Context = Context;
    type Digest = Digest;

    async fn propose(&mut self, context: Context) -> oneshot::Receiver<Digest> {
        let (mut sender, receiver) = oneshot::channel();
        let mut pacer = self.clone();
        self.context.child("propose").spawn(move |_| async move {
            let build = async {
                pacer.ready(&context).await;
                pacer.inner.propose(context).await.await
            };
            select! {
                () = sender.closed() => {},
                built = build => {
                    if let Ok(digest) = built {
                        pacer.arrivals.note(digest, &*pacer.context, pacer.pace.least);
                        let _ = sender.send(digest);
                    }
                },
            }
        });
        receiver
    }

    async fn verify(&mut self, context: Context, digest: Digest) -> oneshot::Receiver<bool> {
        self.arrivals.note(digest, &*self.context, self.pace.least);
        self.inner.verify(context, digest).await
    }
}

impl<E, D> CertifiableAutomaton for Pacer<E, D>
where
    E: Runtime,
    D: CertifiableAutomaton<Context = Context, Digest = Digest> + Sync,
{
    async fn prepare(&mut self, context: Context) -> oneshot::Receiver<Handoff<Digest>> {
        self.inner.prepare(context).await
    }

    async fn certify(&mut self, round: Round, digest: Digest) -> oneshot::Receiver<bool> {
        self.inner.certify(round, digest).await
    }
}

impl<E, D> Relay for Pacer<E, D>
where
    E: Runtime,
    D: Relay<Digest = Digest, PublicKey = PublicKey, Plan = Plan<PublicKey>>,
{
    type Digest = Digest;
    type PublicKey = PublicKey;
    type Plan = Plan<PublicKey>;

    fn broadcast(&mut self, digest: Digest, plan: Self::Plan) -> Feedback {
        self.inner.broadcast(digest, plan)
    }
}

impl<E, D> Reporter for Pacer<E, D>
where
    E: Runtime,
    D: Reporter<Activity = Activity<Scheme, Digest>>,
{
    type Activity = Activity<Scheme, Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        match &activity {
            Activity::Notarization(certificate) | Activity::Certification(certificate) => {
                self.seeds.add(certificate.seed());
            }
            Activity::Finalization(certificate) => self.seeds.add(certificate.seed()),
            _ => {}
        }
        self.inner.report(activity)
    }
}
