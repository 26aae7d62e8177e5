//! The start of a node without a seat that has no state: it takes a recent one from the upstream nodes, instead of
//! running every block since genesis.
//!
//! ```text
//!  newest certified header ──► floor: that block ──► the root of its state
//!                                                         │ proves
//!  upstream nodes ──parts of the state, in any order──────► store ──► follows from the floor on
//! ```
//!
//! Invariants
//! 1. Only a part that is proved against the state's root in a certified header reaches the store. A node that sends
//!    another one is left.
//! 2. The floor is durable before the first part is asked for: a node that is killed meanwhile goes on with it, or
//!    with a newer one.
//! 3. A state that no upstream node keeps any more ends the node; its next start takes a newer one. Every trusted
//!    node that answers must have said so, twice, with a pause between.
//! 4. All blocks are run only if two trusted nodes prove that there are few, or the only one that was given does: an old
//!    block of one node would start a run that may never end.

use super::source::Condition;
use crate::engine::{Block, Database, Digest, Finalization, Runtime, StoreOperation};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_consensus::{Epochable as _, Viewable as _, types::Round};
use commonware_cryptography::Sha256;
use commonware_glue::stateful::db::{AttachableResolver, Shared};
use commonware_storage::{
    mmr::Family,
    qmdb::{
        sync::source::{self, Request, Response, Source},
        verify_proof, verify_proof_and_pinned_nodes,
    },
};
use futures::{FutureExt as _, future::BoxFuture, lock::Mutex};
use posync_client::{
    connection::{Connection, Endpoint, Error, Heard},
    light, watch,
};
use posync_protocol::{
    Account, Bounded,
    block::Header,
    wire::node::{STATE_OPERATIONS_MAX, Unavailable},
};
use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

/// Trusted nodes that must prove a low height before all blocks are run.
const CONFIRMERS: usize = 2;
/// Rounds in which all trusted nodes that answer must say that a state is gone, before it counts as gone.
const GONE_ROUNDS: u32 = 2;
/// Least pause between two such rounds: a node that is restarted answers again.
const GONE_PAUSE: Duration = Duration::from_secs(5);

type Sleep = dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync;
/// A part of the state, with its proof.
type Part = Response<Family, StoreOperation, Digest>;

/// A certified block at which a node without state begins, and its certificate.
pub(crate) struct Floor {
    pub(crate) block: Block,
    pub(crate) certificate: Finalization,
}

/// The upstream nodes, as the source of a state; clones share them.
#[derive(Clone)]
pub(crate) struct Origin {
    connection: Connection,
    /// Accounts of the nodes that the settings name.
    given: Arc<BTreeSet<Account>>,
    sleep: Arc<Sleep>,
    /// Most blocks that are run instead; `None` if all are.
    replayed_max: Option<u64>,
    lost: watch::Sender<bool>,
    /// Held by the one request that is repeated after nodes said that the state is gone: it alone tries the silent nodes
    /// again, and the others see what it found.
    again: Arc<Mutex<()>>,
}

impl Origin {
    /// Takes states over `connection`, where more than `replayed_max` blocks are missing. `given` are the nodes that the
    /// settings name.
    pub(crate) fn new<E: Runtime>(
        context: E,
        connection: Connection,
        given: &[Endpoint],
        replayed_max: Option<u64>,
    ) -> Self {
        let sleep = move |time| context.sleep(time).boxed();
        let given = Arc::new(given.iter().map(|node| node.account).collect());
        let (lost, again) = (watch::Sender::new(false), Arc::default());
        Self { connection, given, sleep: Arc::new(sleep), replayed_max, lost, again }
    }

    /// True if a node without state may take one.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.replayed_max.is_some()
    }

    /// Waits until no upstream node keeps the state that is being taken.
    pub(crate) async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        // The sender lives in self.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// The floor for a node without state; `None` if it runs all blocks. `begun` is the round of the floor with which
    /// it began before. Waits for as long as the upstream nodes give none.
    pub(crate) async fn floor(&self, begun: Option<Round>) -> Option<Floor> {
        let mut condition = Condition::new("the newest block", 0);
        loop {
            match self.newest(begun).await {
                Ok(found) => {
                    condition.over();
                    return found;
                }
                Err(error) => (self.sleep)(condition.log(&error)).await,
            }
        }
    }

    async fn newest(&self, begun: Option<Round>) -> Result<Option<Floor>, Error> {
        let heard = self.connection.survey().await;
        let ahead =
            heard.iter().filter_map(|node| node.newest.as_ref().ok()).map(|header| header.height).max();
        let ahead = ahead.ok_or_else(|| Error::Unreachable("none proves its newest block".into()))?;
        // Not from the node's own newest: the run begins at the highest of all, so an old header is no answer.
        let run = self.connection.follow(ahead).next_run().await?;
        let header: Header = run.headers.last().expect("a run has a header").clone();
        if begun.is_none() && self.replayed_max.is_none_or(|most| header.height <= most) {
            let is_sure = self.replayed_max.is_none() || self.is_confirmed(&heard);
            let few = "one alone proves that the chain is short, and a second one is waited for";
            return if is_sure { Ok(None) } else { Err(Error::Unreachable(few.into())) };
        }
        let certificate = Finalization::decode(Copying(&run.certificate)).expect("it was verified");
        let round = Round::new(certificate.proposal.epoch(), certificate.proposal.view());
        if begun.is_some_and(|begun| round < begun) {
            return Err(Error::Behind { height: header.height, floor: ahead });
        }
        let body = self.connection.body(&header).await?;
        // The authorities certified what this program cannot read.
        let unread = |_| Error::from(light::Error::Malformed("a certified block"));
        let block = Block::assemble(header, body).map_err(unread)?;
        let height = block.header().height;
        tracing::info!(
            height,
            "this node has no state: it takes that of a recent block from the upstream nodes"
        );
        Ok(Some(Floor { block, certificate }))
    }

    /// True if [`CONFIRMERS`] trusted nodes answered, or the only one that was given.
    fn is_confirmed(&self, heard: &[Heard]) -> bool {
        let answered: BTreeSet<Account> =
            heard.iter().filter(|node| node.newest.is_ok()).map(|node| node.endpoint.account).collect();
        let seats = self.connection.learned().into_iter().filter(|node| node.has_seat);
        let mut trusted: BTreeSet<Account> = seats.map(|node| node.endpoint.account).collect();
        trusted.extend(self.given.iter());
        let is_only = self.given.len() == 1 && !answered.is_disjoint(&self.given);
        is_only || answered.intersection(&trusted).count() >= CONFIRMERS
    }

    /// A source of the parts of the state with this root.
    pub(crate) fn parts(&self, root: Digest) -> Parts {
        Parts { origin: self.clone(), root }
    }
}

/// A source of the parts of one state.
#[derive(Clone)]
pub(crate) struct Parts {
    origin: Origin,
    root: Digest,
}

impl Source for Parts {
    type Family = Family;
    type Digest = Digest;
    type Op = StoreOperation;
    type Error = Infallible;

    async fn serve(&self, request: Request<Family>) -> source::Result<Self> {
        let asked = Bounded::new(request.encode().to_vec()).expect("a request has 29 bytes");
        let (mut condition, mut gone) = (Condition::new("a part of the state", 0), 0);
        loop {
            let judge = |bytes: &[u8]| proved(&request, &self.root, bytes);
            let turn = if gone > 0 { Some(self.origin.again.lock().await) } else { None };
            let part = self.origin.connection.state_part(&asked, judge).await;
            drop(turn);
            let error = match part {
                Ok(part) => {
                    condition.over();
                    return Ok((part, None));
                }
                Err(error) => error,
            };
            let mut pause = condition.log(&error);
            if matches!(error, Error::Unavailable(Unavailable::Pruned)) {
                gone += 1;
                pause = pause.max(GONE_PAUSE);
            }
            if gone >= GONE_ROUNDS {
                self.origin.lost.send_replace(true);
            }
            (self.origin.sleep)(pause).await;
        }
    }
}

impl<E: Runtime> AttachableResolver<Database<E>> for Parts {
    async fn attach_database(&self, _: Shared<Database<E>>) {}
}

/// The part in an answer, if it fits the request and its proof leads to the root.
fn proved(request: &Request<Family>, root: &Digest, bytes: &[u8]) -> Option<Part> {
    use commonware_codec::Decode as _;
    let most = request.max_ops().get().min(STATE_OPERATIONS_MAX) as usize;
    let part = Part::decode_cfg(Copying(bytes), &(most, ())).ok()?;
    let is_proved = match (request, &part) {
        (Request::Operations { start, .. }, Response::Operations { proof, operations }) => {
            !operations.is_empty() && verify_proof::<Sha256, _, _>(proof, *start, operations, root)
        }
        (Request::Boundary { start, .. }, Response::Boundary { proof, op, pinned_nodes }) => {
            let operations = std::slice::from_ref(op);
            verify_proof_and_pinned_nodes::<Sha256, _, _>(proof, *start, operations, pinned_nodes, root)
        }
        _ => false,
    };
    is_proved.then_some(part)
}
