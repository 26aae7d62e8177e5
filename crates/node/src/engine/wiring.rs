//! Builds the actors of one node over a runtime and a transport, and starts them.
//!
//! The diagram is in [`super`]; this module decides which actor reports to which. Every actor writes to
//! partitions that start with the node's prefix and uses one channel of the transport.

use super::{
    AUTHORITIES_MAX, Block, Database, Digest, Finalization, Marshal, Pacer, PrivateKey, PublicKey, Runtime,
    Scheme, Seeds, StoreOperation, Taking, Variant,
    forgiving::Forgiving,
    gate::Gated,
    pacer::Pace,
    recent::Recent,
    sizes::{
        BUFFER, FETCH_RETRY, FETCH_TIMEOUT, Files, ITEMS_PER_SECTION, MAILBOX, PENDING_ACKS,
        RESHARE_NAMESPACE, SYNC_BATCH, VIEWS_KEPT, prune_config, sync_config,
    },
    terms,
};
use crate::{
    application::{Application, Setup},
    epoch::{Authorities, Directory, Peers, Registrar, Schemes, Weights, elector::Hybrid, secrets::Secrets},
    equivocation::{self, EquivocationWatcher, Overheard},
    genesis::Genesis,
    handle::{Handle, Operations},
    outcomes::Outcomes,
    own_key::{
        self, OwnKey, Word,
        votes::{Muted, Noted},
    },
    rules::Versions,
};
use commonware_broadcast::buffered;
use commonware_consensus::{
    Reporters,
    marshal::{
        self,
        core::Actor as MarshalActor,
        resolver::p2p as marshal_resolver,
        standard::{Deferred, Standard},
    },
    types::{Epoch, FixedEpocher},
};
use commonware_cryptography::{
    Digested, Digestible as _, Signer as _,
    bls12381::{
        dkg::feldman_desmedt::Reveal,
        primitives::sharing::{Mode, ModeVersion},
    },
    certificate::ConstantProvider,
};
use commonware_glue::{
    dkg::{
        self,
        fence::Fence,
        orchestrator, probe, reshare,
        state_sync::{Config as StateSyncConfig, Plan as StateSyncPlan, StateSync},
        types::Payload,
    },
    stateful::{Config as StatefulConfig, Stateful, SyncPlan, db::p2p as state_resolver},
};
use commonware_p2p::{AddressableManager, Blocker, Receiver, Sender};
use commonware_parallel::Sequential;
use commonware_runtime::Handle as Task;
use commonware_storage::{archive::prunable, mmr, translator::EightCap};
use commonware_utils::{NZDuration, NZUsize};
use posync_client::watch;
use posync_protocol::{
    limits::{BLOCKS_KEPT, DKG_BYTES_MAX, Parameters},
    rules::Rules,
};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

/// A sender and a receiver of one channel.
type Channel<S, R> = (S, R);

/// A channel of consensus.
type Voting<S, R> = Channel<Muted<S>, Gated<Noted<R>>>;

/// The network, as the engine needs it: one pair for each channel of [`channels::ENGINE`], in order.
pub(crate) struct Transport<M, B, S, R> {
    /// Receives the peers to keep, with their addresses.
    pub manager: M,
    /// Receives the peers to cut off.
    pub blocker: B,
    /// Senders and receivers, in the order of [`channels::ENGINE`].
    pub channels: Vec<(S, R)>,
}

/// The inputs from which a node is built.
pub(crate) struct Parts {
    /// Genesis of the network that the node joins.
    pub genesis: Arc<Genesis>,
    /// Private key of this authority.
    pub key: PrivateKey,
    /// Store of this authority's shares of the network key.
    pub secrets: Secrets,
    /// Source of operations for its proposals.
    pub operations: Arc<dyn Operations>,
    /// Milliseconds between blocks while no operation waits, if that is more than `block_ms`.
    pub quiet_ms: u64,
    /// Prefix of all its storage partitions.
    pub prefix: String,
    /// Pages of storage that stay in memory.
    pub page_cache_pages: NonZeroUsize,
    /// If true, nothing is pruned.
    pub archive: bool,
    /// Versions of the rules that the program knows.
    pub rules: Rules,
    /// The operator's word about the key.
    pub word: Word,
    /// If true, a node without state fetches a recent one from its peers instead of replaying all blocks.
    pub state_sync: bool,
}

/// A node whose actors have been started.
pub(crate) struct Running {
    /// Access to blocks and state, for the services.
    pub handle: Handle,
    /// The node's right to sign; once it is refused, the node must end.
    pub(crate) own_key: OwnKey,
    /// The versions of the rules; at an unknown one, the node must end.
    pub(crate) versions: Versions,
    /// The actors; if one ends, the node must end.
    pub actors: Vec<Task<()>>,
}

type Verifiers = ConstantProvider<Scheme, Epoch>;
type Certificates<E> = prunable::Archive<EightCap, E, Digest, Finalization>;
type Blocks<E> = prunable::Archive<EightCap, E, Digest, Arc<Block>>;
pub(super) type MarshalStore<E> = MarshalActor<
    E,
    Standard<Block>,
    Verifiers,
    Recent<Certificates<E>, Finalization>,
    Recent<Blocks<E>, Arc<Block>>,
    FixedEpocher,
    Sequential,
>;
pub(super) type Sync<E> = SyncPlan<E, Scheme, Standard<Block>>;
type Synced = StateSync<Scheme, Digest, Variant, Directory>;
type ReshareSync = StateSyncPlan<Scheme, Digest, Variant, Directory>;

type StateResolver<E> = state_resolver::Mailbox<Database<E>, mmr::Family, StoreOperation, Digest>;

/// The inputs that all builders below share.
struct Node<E, M, B> {
    context: E,
    parts: Parts,
    peers: Peers<M>,
    blocker: B,
    weights: Weights,
    schemes: Schemes,
    files: Files,
    term: NonZeroU64,
    genesis: Digested<Block>,
    equivocation: EquivocationWatcher,
    own_key: OwnKey,
    versions: Versions,
}

/// Starts a node. Returns once its state is readable.
///
/// # Panics
/// If a disk cannot be read, or if the genesis asks for terms longer than the kept blocks.
pub(crate) async fn start<E, M, B, S, R>(context: E, parts: Parts, net: Transport<M, B, S, R>) -> Running
where
    E: Runtime,
    M: AddressableManager<PublicKey = PublicKey> + std::marker::Sync,
    B: Blocker<PublicKey = PublicKey> + std::marker::Sync,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    let node = Node::new(context, parts, net.manager, net.blocker).await;
    let taking = Taking::default();
    let [votes, certificates, missing, backfill, broadcast, state, reshare, probe, sightings, own] =
        <[_; 10]>::try_from(net.channels).ok().expect("a transport carries every engine channel");
    let [votes, certificates, missing] = node.voting([votes, certificates, missing], &taking);
    let [backfill, broadcast, reshare] =
        [backfill, broadcast, reshare].map(|(sender, receiver)| (sender, Gated::new(receiver, &taking)));

    let plan = Sync::init(node.context.child("plan"), node.files.partition("engine")).await;
    let (plan, synced, probe, probe_task) = node.probe(plan, probe).await;
    let (store, marshal, floor) = node.marshal(&plan).await;
    let (gate, fence, reshare_sync) = node.reshare_sync(synced).await;
    let (ledger, readable) = watch::channel(None);
    let authorities = Authorities::new(node.parts.genesis.clone(), readable);
    let (reshare, reshare_task) = node.reshare(&marshal, fence, reshare_sync.clone(), authorities, reshare);

    let outcomes = Outcomes::open(node.context.child("outcomes"), &node.files, node.parts.archive).await;
    let (applied_sender, applied) = watch::channel(outcomes.last().await);
    node.begin(outcomes.last().await, &plan).await;
    let seeds = Seeds::default();
    let (resolver, resolver_task) = node.state_resolver(state);
    let (stateful, mailbox) = Stateful::new(
        node.context.child("stateful"),
        StatefulConfig {
            application: node.application(seeds.clone(), outcomes.clone(), applied_sender),
            db_config: node.files.store(),
            provider: (),
            marshal: (marshal.clone(), floor),
            mailbox_size: MAILBOX,
            plan,
            resolvers: resolver,
            sync_config: sync_config(),
            prune_config: (!node.parts.archive).then(prune_config),
            strategy: Sequential,
        },
    );
    let wrapped = reshare::Application::new(mailbox.clone(), reshare.clone(), node.term);
    let deferred =
        Deferred::new(node.context.child("deferred"), wrapped, marshal.clone(), FixedEpocher::new(node.term));
    let pacer = node.pacer(deferred, &marshal, seeds);
    let (orchestrator, orchestrator_mailbox) = orchestrator::Actor::new(
        node.context.child("orchestrator"),
        node.orchestrator_config(marshal.clone(), pacer, gate, reshare_sync),
    );
    let orchestrator_task = orchestrator.start(votes, certificates, missing);
    let reporters = Reporters::from((mailbox.clone(), Reporters::from((orchestrator_mailbox, reshare))));
    let (buffer, buffer_task) = node.buffer(broadcast);
    let marshal_task = store.start(reporters, buffer, node.resolver(backfill));
    probe.attach(marshal.clone());
    let stateful_task = stateful.start();

    let database = mailbox.subscribe_databases().await;
    let shared = (node.equivocation.clone(), taking);
    let genesis = node.parts.genesis.clone();
    let handle = Handle::new(genesis, marshal, database, outcomes, applied.clone(), shared);
    ledger.send_replace(Some(handle.clone()));
    let actors = vec![
        node.equivocation_task(sightings),
        node.own_key_task(handle.clone(), own),
        node.past_terms(applied),
        probe_task,
        resolver_task,
        reshare_task,
        orchestrator_task,
        buffer_task,
        marshal_task,
        stateful_task,
    ];
    Running { handle, own_key: node.own_key, versions: node.versions, actors }
}

impl<E, M, B> Node<E, M, B>
where
    E: Runtime,
    M: AddressableManager<PublicKey = PublicKey> + std::marker::Sync,
    B: Blocker<PublicKey = PublicKey> + std::marker::Sync,
{
    async fn new(context: E, parts: Parts, manager: M, blocker: B) -> Self {
        let term = parts.genesis.parameters.term_blocks();
        let kept = PENDING_ACKS.get() as u64 + 1 + BLOCKS_KEPT;
        assert!(
            kept >= term,
            "a restarted node needs the last block of the term before: {kept} blocks are kept"
        );
        let payload = Payload::<Variant, PublicKey, Directory>::max_encode_size(AUTHORITIES_MAX);
        assert!(payload <= DKG_BYTES_MAX, "a body holds {DKG_BYTES_MAX} bytes of reshare, not {payload}");
        let weights = Weights::default();
        let genesis = parts.genesis.block::<E>();
        let pages = parts.page_cache_pages;
        let files = Files::open(&context, parts.prefix.clone(), pages, parts.archive).await;
        Self {
            peers: Peers::new(manager, weights.clone()),
            files,
            term: NonZeroU64::new(term).expect("a checked genesis has blocks in a term"),
            genesis: Digested::precomputed(genesis.clone(), genesis.digest()),
            schemes: Schemes::default(),
            versions: Versions::new(parts.rules),
            equivocation: EquivocationWatcher::new(&parts.genesis),
            own_key: OwnKey::new(
                &parts.genesis,
                &parts.key.public_key(),
                parts.secrets.clone(),
                parts.word,
                weights.clone(),
            ),
            context,
            parts,
            blocker,
            weights,
        }
    }

    fn pacer<D>(&self, inner: D, marshal: &Marshal, seeds: Seeds) -> Pacer<E, D> {
        let block_ms = self.parameters().block_ms;
        let quiet_ms = self.parts.quiet_ms.saturating_sub(block_ms);
        let pace = Pace { least: Duration::from_millis(block_ms), quiet: Duration::from_millis(quiet_ms) };
        let (right, operations) = ((seeds, self.own_key.clone()), self.parts.operations.clone());
        Pacer::new(self.context.child("tap"), inner, marshal.clone(), right, operations, pace)
    }

    /// The channels of votes, of certificates and of missing ones: votes wait for the node's right to sign.
    fn voting<S, R>(&self, channels: [Channel<S, R>; 3], taking: &Taking) -> [Voting<S, R>; 3]
    where
        R: Receiver<PublicKey = PublicKey>,
    {
        let [votes, certificates, missing] = channels;
        let own_key = || Some(self.own_key.clone());
        [(votes, own_key()), (certificates, None), (missing, None)].map(|((sender, receiver), own_key)| {
            let noted = Noted::new(receiver, own_key.clone());
            (Muted::new(sender, own_key), Gated::new(noted, taking))
        })
    }

    fn parameters(&self) -> &Parameters {
        &self.parts.genesis.parameters
    }

    fn verifier(&self) -> Scheme {
        let genesis = &self.parts.genesis;
        Scheme::certificate_verifier(&genesis.namespace(), genesis.network_key())
    }

    fn application(
        &self,
        seeds: Seeds,
        outcomes: Outcomes<E>,
        applied: watch::Sender<u64>,
    ) -> Application<E> {
        Application::new(Setup {
            genesis: self.parts.genesis.clone(),
            key: self.parts.key.clone(),
            secrets: self.parts.secrets.clone(),
            verifier: self.verifier(),
            operations: self.parts.operations.clone(),
            seeds,
            outcomes,
            applied,
            equivocation: self.equivocation.clone(),
            own_key: self.own_key.clone(),
            versions: self.versions.clone(),
        })
    }

    fn orchestrator_config<A>(
        &self,
        marshal: Marshal,
        application: A,
        gate: dkg::fence::Gate,
        state_sync: ReshareSync,
    ) -> orchestrator::Config<B, Peers<M>, Schemes, Standard<Block>, Variant, A, Hybrid, Sequential> {
        orchestrator::Config {
            oracle: self.blocker.clone(),
            manager: self.peers.clone(),
            provider: self.schemes.clone(),
            marshal,
            application,
            strategy: Sequential,
            simplex: self.files.simplex(self.parameters(), Hybrid(self.weights.clone())),
            gate,
            state_sync,
            blocks_per_epoch: self.term,
            mailbox_size: MAILBOX,
            partition_prefix: self.files.partition("orchestrator"),
        }
    }

    /// Serves the start block for nodes without state, and asks for it if this node has none.
    async fn probe<S, R>(
        &self,
        mut plan: Sync<E>,
        channel: Channel<S, R>,
    ) -> (Sync<E>, Option<Synced>, probe::Mailbox<Scheme, Standard<Block>>, Task<()>)
    where
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        let info = self.parts.genesis.epoch_info();
        let (actor, mailbox) = probe::Actor::new(probe::Config {
            context: self.context.child("probe"),
            manager: self.peers.clone(),
            bootstrap: probe::Bootstrap {
                epoch: Epoch::zero(),
                participants: info.participants(),
                directory: info.directory.clone(),
            },
            floor: plan.floor().cloned(),
            verifier: self.verifier(),
            genesis: info,
            strategy: Sequential,
            blocker: self.blocker.clone(),
            blocks_per_epoch: self.term,
            retry_timeout: NZDuration!(Duration::from_millis(500)),
            mailbox_size: MAILBOX,
            block_codec_config: (),
        });
        let task = actor.start(channel);
        let mut synced = None;
        if plan.should_sync(self.parts.state_sync) {
            let artifact = mailbox.subscribe().await.expect("the probe runs as long as the node");
            plan = plan.set_floor(artifact.floor.clone()).await;
            let floor = plan.floor().expect("it was just set").clone();
            synced = Some(StateSync { info: artifact.info, floor });
        }
        (plan, synced, mailbox, task)
    }

    async fn marshal(&self, plan: &Sync<E>) -> (MarshalStore<E>, Marshal, marshal::core::Floor) {
        open_marshal(&self.context, &self.files, self.term, self.verifier(), self.genesis.clone(), plan).await
    }

    async fn reshare_sync(&self, synced: Option<Synced>) -> (dkg::fence::Gate, Fence, ReshareSync) {
        let (fence, gate) = Fence::new();
        let config = StateSyncConfig {
            partition_prefix: self.files.partition("reshare"),
            max_participants: AUTHORITIES_MAX,
            max_supported_mode: ModeVersion::v0(),
        };
        let sync = ReshareSync::init(self.context.child("reshare_sync"), config, synced).await;
        (gate, fence, sync)
    }

    fn reshare<S, R>(
        &self,
        marshal: &Marshal,
        fence: Fence,
        state_sync: ReshareSync,
        participants_provider: Authorities,
        channel: Channel<S, R>,
    ) -> (reshare::Mailbox<Block, Variant, PrivateKey>, Task<()>)
    where
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        let genesis = &self.parts.genesis;
        let (actor, mailbox) = reshare::Actor::new(
            self.context.child("reshare"),
            reshare::Config {
                signer: self.parts.key.clone(),
                manager: self.peers.clone(),
                blocker: Forgiving,
                participants_provider,
                secret_store: self.parts.secrets.clone(),
                strategy: Sequential,
                registrar: Registrar::new(
                    self.schemes.clone(),
                    genesis.namespace().into(),
                    self.own_key.clone(),
                ),
                marshal: marshal.clone(),
                state_sync,
                fence,
                namespace: RESHARE_NAMESPACE,
                sharing_mode: Mode::NonZeroCounter,
                reveal: Reveal::V1,
                mailbox_size: MAILBOX,
                partition_prefix: self.files.partition("reshare"),
                page_cache: self.files.page_cache(),
                write_buffer: BUFFER,
                replay_buffer: BUFFER,
                max_participants: AUTHORITIES_MAX,
                blocks_per_epoch: self.term,
            },
        );
        (mailbox, actor.start(channel))
    }

    fn state_resolver<S, R>(&self, channel: Channel<S, R>) -> (StateResolver<E>, Task<()>)
    where
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        let (actor, mailbox) = state_resolver::Actor::new(
            self.context.child("state_resolver"),
            state_resolver::Config {
                peer_provider: self.peers.clone(),
                blocker: self.blocker.clone(),
                database: None,
                mailbox_size: MAILBOX,
                me: Some(self.parts.key.public_key()),
                fetch_timeout: NZDuration!(FETCH_TIMEOUT),
                fetch_retry_delay: FETCH_RETRY,
                max_serve_ops: SYNC_BATCH,
                priority_requests: false,
                priority_responses: false,
            },
        );
        (mailbox, actor.start(channel))
    }

    fn buffer<S, R>(&self, channel: Channel<S, R>) -> (buffered::Mailbox<PublicKey, Block>, Task<()>)
    where
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        let (engine, mailbox) = buffered::Engine::new(
            self.context.child("broadcast"),
            buffered::Config {
                public_key: self.parts.key.public_key(),
                mailbox_size: MAILBOX,
                deque_size: 64,
                priority: false,
                codec_config: (),
                peer_provider: self.peers.clone(),
                strategy: Sequential,
            },
        );
        let (sender, receiver) = channel;
        let receiver = Overheard::new(receiver, self.equivocation.clone());
        (mailbox, engine.start((sender, receiver)))
    }

    /// Starts the task that removes the journals of past terms.
    fn past_terms(&self, applied: watch::Receiver<u64>) -> Task<()> {
        let (files, term) = (self.files.clone(), self.term);
        let run = move |context| terms::run(context, term, applied, move |term| files.consensus(term));
        self.context.child("past_terms").spawn(run)
    }

    fn equivocation_task<S, R>(&self, channel: Channel<S, R>) -> Task<()>
    where
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        let equivocation = self.equivocation.clone();
        self.context.child("equivocation").spawn(move |_| equivocation::actor::run(equivocation, channel))
    }

    fn own_key_task<S, R>(&self, handle: Handle, channel: Channel<S, R>) -> Task<()>
    where
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        let (own_key, key, schemes) =
            (self.own_key.clone(), self.parts.key.public_key(), self.schemes.clone());
        let parts = own_key::actor::Parts { own_key, key, schemes, handle };
        self.context.child("own_key").spawn(move |context| own_key::actor::run(context, parts, channel))
    }

    /// Resumes at the applied height: reads from the journals up to which view this node may have voted, before
    /// consensus writes to them.
    async fn begin(&self, applied: u64, plan: &Sync<E>) {
        self.equivocation.begin(applied);
        let floor = plan.floor().map(|floor| floor.proposal.round.epoch().get());
        let terms = terms::voted_in(applied, self.term, floor, &self.parts.secrets.shares());
        let voted = terms::newest_view(&self.context, terms, |term| self.files.consensus(term)).await;
        self.own_key.begin(applied, voted);
    }

    fn resolver<S, R>(
        &self,
        channel: Channel<S, R>,
    ) -> (marshal::resolver::handler::Receiver<Digest>, marshal_resolver::Mailbox<Digest, PublicKey>)
    where
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        marshal_resolver::init(
            self.context.child("resolver"),
            marshal_resolver::Config {
                public_key: self.parts.key.public_key(),
                peer_provider: self.peers.clone(),
                blocker: self.blocker.clone(),
                mailbox_size: MAILBOX,
                fetch_timeout: NZDuration!(FETCH_TIMEOUT),
                fetch_retry_delay: FETCH_RETRY,
                priority_requests: false,
                priority_responses: false,
            },
            channel,
        )
    }
}

/// Opens the store of blocks and certificates, which checks both under the network key.
pub(super) async fn open_marshal<E: Runtime>(
    context: &E,
    files: &Files,
    term: NonZeroU64,
    verifier: Scheme,
    genesis: Digested<Block>,
    plan: &Sync<E>,
) -> (MarshalStore<E>, Marshal, marshal::core::Floor) {
    let certificates = Certificates::init(context.child("certificates"), files.archive("certificates"));
    let blocks = Blocks::init(context.child("blocks"), files.archive("blocks"));
    let config = marshal::Config {
        provider: Verifiers::new(verifier),
        epocher: FixedEpocher::new(term),
        start: plan.marshal_start(genesis),
        partition_prefix: files.partition("marshal"),
        mailbox_size: MAILBOX,
        view_retention: VIEWS_KEPT,
        prunable_items_per_section: ITEMS_PER_SECTION,
        page_cache: files.page_cache(),
        replay_buffer: BUFFER,
        key_write_buffer: BUFFER,
        value_write_buffer: BUFFER,
        block_codec_config: (),
        max_repair: NZUsize!(64),
        max_pending_acks: PENDING_ACKS,
        strategy: Sequential,
    };
    let certificates = certificates.await.expect("a node that cannot read its disk must stop");
    let blocks = blocks.await.expect("a node that cannot read its disk must stop");
    let (certificates, blocks) = (Recent::new(certificates), Recent::new(blocks));
    MarshalActor::init(context.child("marshal"), certificates, blocks, config).await
}
