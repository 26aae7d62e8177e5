//! Builds the actors of a node without a seat: the block store and the state, without consensus.
//!
//! ```text
//!  follower::source ──blocks──► Staged ──┐
//!                   └─certificate──► marshal ──in order──► Stateful ──► Application (rules, QMDB)
//! ```
//!
//! The block store finds every block of a run in [`Staged`]: the last by its certificate, the others by their
//! children's hashes. So it asks nobody for a block, and nothing reaches the state that is not certified.
//! A node without state begins at a recent block, and takes the state there from [`Origin`].

use super::{
    Block, Digest, Finalization, Marshal, PrivateKey, PublicKey, Runtime, Scheme, Seeds, Taking,
    sizes::{Files, MAILBOX, prune_config, sync_config},
    wiring::{Running, Sync, open_marshal},
};
use crate::{
    application::{Application, Setup},
    epoch::{Weights, secrets::Secrets},
    equivocation::EquivocationWatcher,
    follower::state::{Floor, Origin, Parts},
    genesis::Genesis,
    handle::{Handle, Operations},
    outcomes::Outcomes,
    own_key::{OwnKey, Word},
    rules::Versions,
};
use commonware_actor::Feedback;
use commonware_consensus::{
    Reporter as _,
    marshal::{
        core::Buffer,
        resolver::handler::{self, Annotation},
        standard::Standard,
    },
    simplex::types::Activity,
    types::Round,
};
use commonware_cryptography::{Digest as _, Digested, Digestible as _, Signer as _};
use commonware_glue::stateful::{Config as StatefulConfig, Stateful};
use commonware_p2p::Recipients;
use commonware_parallel::Sequential;
use commonware_resolver::{Fetch, Resolver, TargetedResolver};
use commonware_utils::{channel::oneshot, sync::Mutex, vec::NonEmptyVec};
use posync_client::watch;
use posync_protocol::{Hash, Operation, ledger::BlockContext, limits::HEADERS_MAX, rules::Rules};
use std::{
    collections::BTreeMap,
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
};

/// Blocks of the run that is being applied, and of the next one.
const STAGED_MAX: usize = 2 * HEADERS_MAX;

/// The inputs from which a node without a seat is built.
pub(crate) struct FollowerParts {
    /// Genesis of the network that the node follows.
    pub genesis: Arc<Genesis>,
    /// Private key of this node; it signs nothing on the ledger.
    pub key: PrivateKey,
    /// Prefix of all its storage partitions.
    pub prefix: String,
    /// Pages of storage that stay in memory.
    pub page_cache_pages: NonZeroUsize,
    /// If true, nothing is pruned.
    pub archive: bool,
    /// Where a node without state takes one from.
    pub(crate) origin: Origin,
}

/// Verified blocks on their way into the block store, at most two runs of them; clones share them.
#[derive(Clone, Default)]
pub(super) struct Staged(Arc<Mutex<BTreeMap<Digest, Digested<Block>>>>);

impl Staged {
    /// Drops the blocks up to `applied` and adds those of a verified run.
    ///
    /// # Panics
    /// If the blocks of more than two runs are not applied yet.
    fn put(&self, applied: u64, blocks: Vec<Block>) {
        let mut staged = self.0.lock();
        staged.retain(|_, block| block.inner().header().height > applied);
        for block in blocks {
            let digest = block.digest();
            staged.insert(digest, Digested::precomputed(block, digest));
        }
        assert!(staged.len() <= STAGED_MAX, "the source waits until a run is applied");
    }

    fn find(&self, digest: &Digest) -> Option<Digested<Block>> {
        self.0.lock().get(digest).cloned()
    }
}

impl Buffer<Standard<Block>> for Staged {
    type PublicKey = PublicKey;

    async fn find_by_digest(&self, digest: Digest) -> Option<Digested<Block>> {
        self.find(&digest)
    }

    async fn find_by_commitment(&self, digest: Digest) -> Option<Digested<Block>> {
        self.find(&digest)
    }

    fn subscribe_by_digest(&self, _: Digest) -> Option<oneshot::Receiver<Digested<Block>>> {
        None
    }

    fn subscribe_by_commitment(&self, _: Digest) -> Option<oneshot::Receiver<Digested<Block>>> {
        None
    }

    fn send(&self, _: Round, _: Digested<Block>, _: Recipients<PublicKey>) {}
}

/// Fetches nothing: the source brings every block by itself, in order, from the applied height on.
#[derive(Clone)]
struct Unasked {
    /// Keeps the block store's receiver open.
    _handler: handler::Handler<Digest>,
}

impl Resolver for Unasked {
    type Key = handler::Key<Digest>;
    type Subscriber = Annotation;

    fn fetch<F>(&mut self, _: F) -> Feedback
    where
        F: Into<Fetch<Self::Key, Annotation>> + Send,
    {
        Feedback::Ok
    }

    fn fetch_all<F>(&mut self, _: Vec<F>) -> Feedback
    where
        F: Into<Fetch<Self::Key, Annotation>> + Send,
    {
        Feedback::Ok
    }

    fn retain(&mut self, _: impl Fn(&Self::Key, &Annotation) -> bool + Send + 'static) -> Feedback {
        Feedback::Ok
    }
}

impl TargetedResolver for Unasked {
    type PublicKey = PublicKey;

    fn fetch_targeted(
        &mut self,
        _: impl Into<Fetch<Self::Key, Annotation>> + Send,
        _: NonEmptyVec<PublicKey>,
    ) -> Feedback {
        Feedback::Ok
    }

    fn fetch_all_targeted<F>(&mut self, _: Vec<(F, NonEmptyVec<PublicKey>)>) -> Feedback
    where
        F: Into<Fetch<Self::Key, Annotation>> + Send,
    {
        Feedback::Ok
    }
}

/// Proposes no operations: a node without a seat never leads.
struct Nothing;

impl Operations for Nothing {
    fn candidates(&self, _: &BlockContext, _: u64) -> Vec<Operation> {
        Vec::new()
    }

    fn finalized(&self, _: u64, _: &[Operation]) {}

    fn verified(&self, _: &Hash) -> bool {
        false
    }
}

/// Where the source of a node without a seat puts what it fetched.
#[derive(Clone)]
pub(crate) struct Store {
    marshal: Marshal,
    staged: Staged,
    begins: u64,
}

impl Store {
    /// Height of the last block that needs not be put.
    pub(crate) const fn begins(&self) -> u64 {
        self.begins
    }

    /// Takes a run of verified blocks and the certificate of the last; `applied` is the applied height.
    pub(crate) fn put(&mut self, applied: u64, blocks: Vec<Block>, certificate: Finalization) {
        self.staged.put(applied, blocks);
        // The mailbox is closed only while the node stops.
        let _ = self.marshal.report(Activity::Finalization(certificate));
    }
}

/// Starts the block store and the state of a node without a seat. Returns once its state is readable.
///
/// # Panics
/// If a disk cannot be read.
pub(crate) async fn follow<E: Runtime>(context: E, parts: FollowerParts) -> (Running, Store) {
    let FollowerParts { genesis, key, prefix, page_cache_pages, archive, origin } = parts;
    let term = NonZeroU64::new(genesis.parameters.term_blocks()).expect("a checked genesis has terms");
    let files = Files::open(&context, prefix, page_cache_pages, archive).await;
    let verifier = Scheme::certificate_verifier(&genesis.namespace(), genesis.network_key());
    let first = genesis.block::<E>();
    let digest = first.digest();
    let first = Digested::precomputed(first, digest);

    let plan = Sync::init(context.child("plan"), files.partition("engine")).await;
    let staged = Staged::default();
    let (plan, resolvers) = begin(plan, &origin, &staged).await;
    let (store, marshal, floor) = open_marshal(&context, &files, term, verifier.clone(), first, &plan).await;
    let outcomes = Outcomes::open(context.child("outcomes"), &files, archive).await;
    let (applied_sender, applied) = watch::channel(outcomes.last().await);
    let equivocation = EquivocationWatcher::new(&genesis);
    equivocation.begin(*applied.borrow());
    // It signs nothing, so the right to sign is never asked for.
    let secrets = Secrets::memory();
    let own_key =
        OwnKey::new(&genesis, &key.public_key(), secrets.clone(), Word::default(), Weights::default());
    let versions = Versions::new(Rules::KNOWN);
    let application = Application::new(Setup {
        genesis: genesis.clone(),
        key,
        secrets,
        own_key: own_key.clone(),
        versions: versions.clone(),
        seeds: Seeds::default(),
        verifier,
        operations: Arc::new(Nothing),
        outcomes: outcomes.clone(),
        applied: applied_sender.clone(),
        equivocation: equivocation.clone(),
    });
    let (stateful, mailbox) = Stateful::new(
        context.child("stateful"),
        StatefulConfig {
            application,
            db_config: files.store(),
            provider: (),
            marshal: (marshal.clone(), floor),
            mailbox_size: MAILBOX,
            plan,
            resolvers,
            sync_config: sync_config(),
            prune_config: (!archive).then(prune_config),
            strategy: Sequential,
        },
    );
    let (receiver, handler) = handler::init(context.child("resolver"), MAILBOX);
    let store_task = store.start(mailbox.clone(), staged.clone(), (receiver, Unasked { _handler: handler }));
    let stateful_task = stateful.start();
    let database = mailbox.subscribe_databases().await;
    // A state that was taken has no outcome: the height of its block is the store's.
    let begins = marshal.get_processed().await.map_or(0, |processed| processed.anchor().get());
    applied_sender.send_if_modified(|applied| {
        let is_above = begins > *applied;
        *applied = begins.max(*applied);
        is_above
    });
    let parts = (equivocation, Taking::default());
    let handle = Handle::new(genesis, marshal.clone(), database, outcomes, applied, parts);
    (
        Running { handle, own_key, versions, actors: vec![store_task, stateful_task] },
        Store { marshal, staged, begins },
    )
}

/// Chooses the block at which a node without state begins, and stages it. A node that has state begins where it is.
async fn begin<E: Runtime>(mut plan: Sync<E>, origin: &Origin, staged: &Staged) -> (Sync<E>, Parts) {
    let mut root = Digest::EMPTY;
    if plan.should_sync(origin.is_wanted()) {
        let begun = plan.floor().map(|floor| floor.round());
        if let Some(Floor { block, certificate }) = origin.floor(begun).await {
            root = block.sync_target().root;
            plan = plan.set_floor(certificate).await;
            staged.put(0, vec![block]);
        }
    }
    (plan, origin.parts(root))
}
