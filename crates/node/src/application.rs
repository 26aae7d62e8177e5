//! The thin layer between consensus and the rules: pick operations, read the records they name, run, commit.
//!
//! ```text
//! propose: draw ─► candidates ─► fit ─► touches ─► get_many ─► execute ─► write ─► merkleize ─► sign
//! process: check header ─► signatures ─► touches ─► get_many ─► execute ─► write ─► compare roots
//! ```
//!
//! `posync_protocol::ledger` judges operations; this module checks only a header's position, times, beacon
//! and roots.
//!
//! Invariants:
//! 1. `process` never waits on a clock and rejects only blocks that can never become valid.
//! 2. Writes are made in key order, and only where a record changed: the root depends on the sequence.
//! 3. The state root in a header is the store's canonical root. The operations root and range, which
//!    state sync needs, are in the header as well and are compared too.
//! 4. A block's beacon is its parent's seed, checked against the network key; the first block of a
//!    term has none, because its parent belongs to another term's views.

use crate::{
    engine::{
        Block, Context, Database, Digest, Payload, PrivateKey, PublicKey, Runtime, Scheme, Seed, Seeds,
        dkg_bytes,
    },
    epoch::Secrets,
    equivocation::EquivocationWatcher,
    genesis::{Genesis, hash},
    guard::{Condemned, culprit, guarded, hex, sparing},
    handle::Operations,
    ingress,
    outcomes::{BlockOutcome, Outcomes},
    own_key::OwnKey,
    rules::Versions,
};
use commonware_codec::{Copying, Encode as _};
use commonware_consensus::{
    Heightable as _,
    marshal::ancestry::Ancestry,
    types::{Epoch, Round, View},
};
use commonware_cryptography::{Digestible as _, Signer as _};
use commonware_glue::{
    dkg::{ReshareBlock as _, reshare, types::EpochOutcome},
    stateful::{
        Application as Stateful, Finality, Input, Proposed,
        db::{DatabaseSet, Reader, Shared, Unmerkleized as _},
    },
};
use futures::StreamExt as _;
use posync_client::watch;
use posync_protocol::{
    Account, Bounded, Broken, Hash, Key, Operation, Record as _, Slot,
    audit::Resolver,
    block::{BlockBody, Draw, Header, Receipts, sha256},
    ledger::{self, BlockContext, ClosingSet, Invalid, Mode, Outcome, Records},
    limits::TIME_STEP_MS_MAX,
    record::System,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
    time::UNIX_EPOCH,
};

type Batch<E> = <Shared<Database<E>> as DatabaseSet<E>>::Unmerkleized;
type Sealed<E> = <Shared<Database<E>> as DatabaseSet<E>>::Merkleized;
/// The reshare layer's input to a proposal.
pub(crate) type ProposalInput =
    reshare::Input<(), crate::engine::Variant, PrivateKey, crate::epoch::Directory>;

/// The parts that an application is built from.
pub(crate) struct Setup<E: Runtime> {
    /// Genesis of the network, with the records that block 1 finds.
    pub genesis: Arc<Genesis>,
    /// Key that signs this node's headers.
    pub key: PrivateKey,
    /// Durable record of the views that this node has signed for.
    pub secrets: Secrets,
    /// Seeds of recent rounds, for the beacon of the next header.
    pub seeds: Seeds,
    /// Verifier of beacons under the network key.
    pub verifier: Scheme,
    /// Source of candidate operations.
    pub operations: Arc<dyn Operations>,
    /// Store of receipts and events of applied blocks.
    pub outcomes: Outcomes<E>,
    /// Publishes the height of each applied block.
    pub applied: watch::Sender<u64>,
    /// Receives every proposed, checked and final block, to find double signatures.
    pub equivocation: EquivocationWatcher,
    /// Receives every checked and final header, to find another process with this node's key.
    pub own_key: OwnKey,
    /// Versions of the rules by height.
    pub(crate) versions: Versions,
}

struct Inner<E: Runtime> {
    setup: Setup<E>,
    chain: Hash,
    genesis_block: Block,
    genesis_records: BTreeMap<Key, Slot>,
    condemned: Condemned,
}

/// Executes the ledger's rules for consensus; clones share one state.
pub(crate) struct Application<E: Runtime>(Arc<Inner<E>>);

impl<E: Runtime> Clone for Application<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The content of a proposal, and the result of running it.
struct Plan {
    draws: Vec<Option<Draw>>,
    operations: Vec<Operation>,
    records: Records,
    outcome: Outcome,
    /// Ids of the operations that the rules refused during selection.
    refused: Vec<Hash>,
}

/// Most selections in one proposal. Each leaves out the operations refused in the selections before it.
pub(crate) const SELECTIONS_MAX: usize = 4;

/// The result of a proposed or checked block.
struct Executed<E: Runtime> {
    sealed: Sealed<E>,
    outcome: Outcome,
}

impl<E: Runtime> Application<E> {
    /// Builds the application, with the genesis block and records at hand.
    pub(crate) fn new(setup: Setup<E>) -> Self {
        Self(Arc::new(Inner {
            chain: setup.genesis.chain(),
            genesis_block: setup.genesis.block::<E>(),
            genesis_records: setup.genesis.records(),
            condemned: Condemned::default(),
            setup,
        }))
    }

    /// The facts about a block that the rules need before it runs.
    fn context(&self, header: &Header) -> BlockContext {
        BlockContext {
            chain: self.0.chain,
            parameters: self.0.setup.genesis.parameters,
            height: header.height,
            leader: header.leader,
            parent: header.parent,
            seed: header.beacon.map(|beacon| sha256(&beacon)),
        }
    }

    /// The state that a block at `height` starts from: its parent's, or the genesis records.
    fn open(&self, mut batch: Batch<E>, height: u64) -> Batch<E> {
        if height == 1 {
            for (key, slot) in &self.0.genesis_records {
                batch = batch.write(digest(key), Some(*slot));
            }
        }
        batch
    }

    /// Runs the operations of this node's own proposal. Operations on which the rules panic are removed,
    /// logged, and not tried again.
    async fn run(
        &self,
        batch: &Batch<E>,
        context: &BlockContext,
        (system, closing_set): (&System, &ClosingSet),
        draws: &[Option<Draw>],
        operations: &mut Vec<Operation>,
    ) -> Result<(Records, Outcome), Refused> {
        let name =
            |operations: &[Operation]| ledger::touches(context, system, closing_set, draws, operations);
        let (keys, spared) = sparing(operations, name).map_err(Refused::Panic)?;
        self.0.condemned.add(context.height, &spared);
        let records = fetch::<E>(batch, keys?).await;
        let run =
            |operations: &[Operation]| ledger::execute(context, draws, operations, &records, Mode::Propose);
        let (outcome, spared) = sparing(operations, run).map_err(Refused::Panic)?;
        self.0.condemned.add(context.height, &spared);
        Ok((records, outcome?))
    }

    /// Runs another leader's block. If the rules panic on it, it is rejected and gets no vote of this node.
    async fn verify(
        &self,
        batch: Batch<E>,
        context: &BlockContext,
        draws: &[Option<Draw>],
        operations: &[Operation],
    ) -> Result<Executed<E>, Refused> {
        let system = parse_system(fetch::<E>(&batch, vec![System::key()]).await)?;
        let closing_set = self.closing_set(&batch, context, &system).await?;
        let name =
            |operations: &[Operation]| ledger::touches(context, &system, &closing_set, draws, operations);
        let keys = judge(context, operations, name)??;
        let records = fetch::<E>(&batch, keys).await;
        let run =
            |operations: &[Operation]| ledger::execute(context, draws, operations, &records, Mode::Verify);
        let outcome = judge(context, operations, run)??;
        Ok(seal::<E>(batch, &records, outcome).await)
    }

    /// The accounts at the indices that the block closes. They are read first, as they name further records.
    async fn closing_set(
        &self,
        batch: &Batch<E>,
        context: &BlockContext,
        system: &System,
    ) -> Result<ClosingSet, Refused> {
        let keys = guarded(|| ledger::closing_set_keys(context, system)).map_err(Refused::Panic)?;
        let records = fetch::<E>(batch, keys).await;
        Ok(guarded(|| ClosingSet::new(context, system, &records)).map_err(Refused::Panic)??)
    }

    /// Builds a proposal: the draws of the beacon, resolved by searching the state, and the waiting
    /// operations that fit a block. An operation that the rules refuse frees its room for those behind it;
    /// otherwise an account could keep others out at no cost with operations that are always refused (LE-3).
    async fn plan(&self, batch: &Batch<E>, context: &BlockContext) -> Result<Plan, Refused> {
        let system = parse_system(fetch::<E>(batch, vec![System::key()]).await)?;
        let mut resolver = guarded(|| Resolver::new(context, &system)).map_err(Refused::Panic)?;
        while let Some(keys) = guarded(|| resolver.needs()).map_err(Refused::Panic)? {
            let records = fetch::<E>(batch, keys).await;
            guarded(|| resolver.feed(&records)).map_err(Refused::Panic)?;
        }
        let draws = guarded(|| resolver.draws()).map_err(Refused::Panic)?;
        let base_fee = ledger::base_fee(&system, &context.parameters);
        let mut candidates = self.0.setup.operations.candidates(context, base_fee);
        self.0.condemned.filter(&mut candidates);
        let closing_set = self.closing_set(batch, context, &system).await?;
        let (mut refused, mut left) = (BTreeSet::new(), SELECTIONS_MAX);
        loop {
            left -= 1;
            let select =
                |candidates: &[Operation]| ledger::select(context, &system, &closing_set, &draws, candidates);
            let (chosen, spared) = sparing(&mut candidates, select).map_err(Refused::Panic)?;
            self.0.condemned.add(context.height, &spared);
            let mut operations: Vec<Operation> =
                chosen.into_iter().map(|place| candidates[place].clone()).collect();
            let judges = (&system, &closing_set);
            let (records, outcome) = self.run(batch, context, judges, &draws, &mut operations).await?;
            let kept: BTreeSet<usize> = outcome.kept.iter().copied().collect();
            let dropped = operations.iter().enumerate().filter(|(place, _)| !kept.contains(place));
            refused.extend(dropped.map(|(_, operation)| operation.id()));
            let all_stand = kept.len() == operations.len();
            if left == 0 || all_stand || operations.len() == candidates.len() {
                let operations = kept.into_iter().map(|place| operations[place].clone()).collect();
                let refused = refused.into_iter().collect();
                return Ok(Plan { draws, operations, records, outcome, refused });
            }
            candidates.retain(|operation| !refused.contains(&operation.id()));
        }
    }

    /// True if every signature verifies. Those that this node verified on ingress are skipped.
    fn check_signatures(&self, rng: &mut E, operations: &[Operation]) -> bool {
        let known = &self.0.setup.operations;
        let unknown = operations.iter().filter(|operation| !known.verified(&operation.id()));
        guarded(|| ingress::verify_all(rng, &self.0.chain, unknown)).unwrap_or_else(|cause| {
            tracing::error!(
                cause,
                "the rules panicked on the signatures of a block: it gets no vote of this node"
            );
            false
        })
    }

    /// Runs a finalized block again, on the state it started from, for its receipts and events.
    async fn recall(&self, block: &Block, state: &Reader<Database<E>>) -> BlockOutcome {
        let (context, body) = (self.context(block.header()), block.body());
        let genesis = (context.height == 1).then_some(&self.0.genesis_records);
        let system = parse_system(read(state, genesis, vec![System::key()]).await)
            .expect("a finalized block has a parent's state");
        let closing_set = read(state, genesis, ledger::closing_set_keys(&context, &system)).await;
        let keys = ClosingSet::new(&context, &system, &closing_set)
            .and_then(|closing_set| {
                ledger::touches(&context, &system, &closing_set, &body.draws, &body.operations)
            })
            .expect("a finalized block keeps the rules");
        let records = read(state, genesis, keys).await;
        let outcome = ledger::execute(&context, &body.draws, &body.operations, &records, Mode::Verify);
        let outcome = outcome.expect("a finalized block keeps the rules");
        BlockOutcome { receipts: outcome.receipts, events: outcome.events }
    }

    /// Builds the header of the block that `context` asks for, with empty roots.
    fn header(&self, context: &Context, parent: &Header, now_ms: u64) -> Option<Header> {
        let (parent_view, parent_digest) = &context.parent;
        let round = Round::new(context.round.epoch(), *parent_view);
        let beacon = match parent_view.is_zero() {
            true => None,
            false => Some(self.0.setup.seeds.peek(round)?),
        };
        let times = times(parent);
        Some(Header {
            version: self.0.setup.versions.at(parent.height + 1),
            chain: self.0.chain,
            leader: Account::of(&self.0.setup.key.public_key()),
            term: context.round.epoch().get(),
            view: context.round.view().get(),
            parent_view: parent_view.get(),
            parent: hash(parent_digest),
            height: parent.height + 1,
            time_ms: now_ms.clamp(*times.start(), *times.end()),
            beacon: beacon.map(|seed| seed.encode()[..].try_into().expect("a seed has 48 bytes")),
            ..self.0.genesis_block.header().clone()
        })
    }

    /// True if everything in the header except the roots is correct.
    fn check_header(&self, block: &Block, parent: &Header) -> bool {
        let header = block.header();
        self.0.setup.versions.fits(header)
            && header.chain == self.0.chain
            && times(parent).contains(&header.time_ms)
            && self.check_beacon(header)
            && block.signed()
    }

    fn check_beacon(&self, header: &Header) -> bool {
        let Some(beacon) = header.beacon else {
            return header.parent_view == 0;
        };
        let round = Round::new(Epoch::new(header.term), View::new(header.parent_view));
        // A seed in the table comes from a certificate that consensus verified.
        let known = self.0.setup.seeds.peek(round).is_some_and(|seed| seed.encode() == beacon[..]);
        header.parent_view != 0
            && (known
                || commonware_codec::DecodeExt::decode(Copying(&beacon))
                    .is_ok_and(|signature| Seed::new(round, signature).verify(&self.0.setup.verifier)))
    }

    async fn parent(&self, block: &Block, ancestry: &mut impl Ancestry<Block>) -> Option<Header> {
        if block.header().height == 1 {
            return Some(self.0.genesis_block.header().clone());
        }
        let _ = ancestry.next().await?;
        Some(ancestry.next().await?.inner().header().clone())
    }
}

/// The times that a child of `parent` may carry; the first block sets the clock.
const fn times(parent: &Header) -> RangeInclusive<u64> {
    let step = if parent.height == 0 { u64::MAX } else { TIME_STEP_MS_MAX };
    parent.time_ms..=parent.time_ms.saturating_add(step)
}

fn digest(key: &Key) -> Digest {
    key.0.into()
}

/// Why a block is not built or not voted for.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// The block violates the rules.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The rules panicked, with this message.
    #[error("the rules panicked: {0}; this is a fault in them, report it")]
    Panic(String),
}

/// Logs a proposal that the rules refuse, and drops it: it is this node's fault, or damage.
fn log_refused<T>(result: Result<T, Refused>) -> Option<T> {
    result.inspect_err(|refused| tracing::error!(%refused, "this node cannot propose")).ok()
}

/// Runs `work` on the operations of another leader's block; on a panic, logs the operation that caused it.
fn judge<T>(
    context: &BlockContext,
    operations: &[Operation],
    work: impl Fn(&[Operation]) -> T,
) -> Result<T, Refused> {
    guarded(|| work(operations)).map_err(|cause| {
        let culprit = culprit(operations, work).map(|place| hex(&operations[place].id()));
        tracing::error!(
            height = context.height,
            leader = %context.leader,
            operation = culprit.as_deref().unwrap_or("none"),
            cause,
            "the rules panicked on a block: it gets no vote of this node, and the node goes on; this is a fault \
             in the rules, report it with the operation's id"
        );
        Refused::Panic(cause)
    })
}

/// The last words of a node whose rules or records contradict a final block.
fn contradiction(header: &Header, why: &dyn std::fmt::Display) -> String {
    format!(
        "block {} is final, and this node cannot follow it: {why}; its program is older than the network's rules, or its \
         storage is damaged: take the network's version, and if that does not help fetch all blocks again",
        header.height
    )
}

/// Writes the records that a block changed, and computes the roots.
async fn seal<E: Runtime>(mut batch: Batch<E>, records: &Records, outcome: Outcome) -> Executed<E> {
    for (key, slot) in &outcome.changes {
        if records.get(key) != Some(slot) {
            batch = batch.write(digest(key), *slot);
        }
    }
    Executed { sealed: batch.merkleize().await.expect(NO_COMPETITOR), outcome }
}

/// Logs the result of a reshare: a failed one, or one that published shares, needs an operator's attention.
fn log_reshare(block: &Block) {
    let Some(Payload::EpochInfo(info)) = block.payload() else {
        return;
    };
    // A jailed authority may be away for good (AU-9), so its absence is not reported.
    let weighs = |key: &&PublicKey| info.directory.0.get_value(*key).is_none_or(|entry| entry.weight > 0);
    let (term, revealed) = (info.epoch.get(), info.output.revealed().iter().filter(weighs).count());
    if info.outcome == EpochOutcome::Failure || revealed > 0 {
        tracing::warn!(term, outcome = ?info.outcome, revealed, "authorities were missing in the key reshare");
    } else {
        tracing::info!(term, "the authorities reshared the network key");
    }
}

const NO_COMPETITOR: &str = "no competing block is finalized while this one runs";

fn parse_system(records: Records) -> Result<System, Invalid> {
    let slot = records.into_values().next().flatten();
    let missing = Broken::Missing { what: "System" };
    Ok(slot.and_then(|slot| System::from_slot(&slot).ok()).ok_or(missing)?)
}

/// Reads records of the state that a block builds on.
async fn fetch<E: Runtime>(batch: &Batch<E>, keys: Vec<Key>) -> Records {
    let digests: Vec<Digest> = keys.iter().map(digest).collect();
    let slots = batch.get_many(&digests.iter().collect::<Vec<_>>()).await.expect(NO_COMPETITOR);
    keys.into_iter().zip(slots).collect()
}

/// Reads records of the applied state; before the first block, those of `genesis`.
async fn read<E: Runtime>(
    state: &Reader<Database<E>>,
    genesis: Option<&BTreeMap<Key, Slot>>,
    keys: Vec<Key>,
) -> Records {
    if let Some(genesis) = genesis {
        return keys.into_iter().map(|key| (key, genesis.get(&key).copied())).collect();
    }
    let digests: Vec<Digest> = keys.iter().map(digest).collect();
    let slots = state.read().await.get_many(&digests.iter().collect::<Vec<_>>()).await;
    let slots = slots.expect("a node that cannot read its disk must stop");
    keys.into_iter().zip(slots).collect()
}

/// Writes the roots of the executed block into its header.
fn set_roots<E: Runtime>(header: &mut Header, executed: &Executed<E>) {
    let sealed = &executed.sealed;
    let rows = Bounded::new(executed.outcome.receipts.clone());
    header.receipts_root = Receipts { rows: rows.expect("a block has at most that many operations") }.root();
    header.state_root = hash(&sealed.root());
    header.ops_root = hash(&sealed.ops_root());
    header.range_start = *sealed.sync_boundary();
    header.range_end = *sealed.bounds().tip.size;
}

impl<E: Runtime> Stateful<E> for Application<E> {
    type SigningScheme = Scheme;
    type Context = Context;
    type Block = Block;
    type Databases = Shared<Database<E>>;
    type Captured = ();
    type Provider = ();
    type Input = ProposalInput;

    fn sync_targets(block: &Block) -> <Self::Databases as DatabaseSet<E>>::SyncTargets {
        block.sync_target()
    }

    async fn genesis(&mut self) -> Block {
        self.0.genesis_block.clone()
    }

    async fn propose(
        &mut self,
        (clock, context): (E, Context),
        ancestry: impl Ancestry<Block>,
        batches: Batch<E>,
        input: Input<ProposalInput, ()>,
    ) -> Option<Proposed<Self, E>> {
        let parent = ancestry.peek()?.inner().header().clone();
        let now = clock.current().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut header = self.header(&context, &parent, now_ms)?;
        let block_context = self.context(&header);
        let batch = self.open(batches, header.height);
        let plan = log_refused(self.plan(&batch, &block_context).await)?;
        self.0.setup.operations.refused(&plan.refused);
        let executed = seal::<E>(batch, &plan.records, plan.outcome).await;
        let payload = input.upstream.payload;
        let body = BlockBody {
            draws: Bounded::new(plan.draws).expect("a block draws at most that many"),
            operations: Bounded::new(plan.operations).expect("at most that many are selected"),
            dkg: dkg_bytes(&payload),
        };
        set_roots(&mut header, &executed);
        if !self.0.setup.secrets.may_propose(header.term, header.view) {
            tracing::warn!(
                header.term,
                header.view,
                "a proposal of this view or a later one was signed before"
            );
            return None;
        }
        let block = Block::sign(header, body, payload, &self.0.setup.key);
        Some(Proposed { block, merkleized: executed.sealed })
    }

    async fn process(
        &mut self,
        (mut clock, _): (E, Context),
        mut ancestry: impl Ancestry<Block>,
        batches: Batch<E>,
        finality: Finality,
    ) -> Option<Sealed<E>> {
        let block = ancestry.peek()?.inner().clone();
        let (header, body) = (block.header(), block.body());
        if finality == Finality::Candidate {
            self.0.setup.equivocation.header(header);
            let parent = self.parent(&block, &mut ancestry).await?;
            if !self.check_header(&block, &parent) || !self.check_signatures(&mut clock, &body.operations) {
                return None;
            }
            self.0.setup.own_key.saw(header);
        } else if !self.0.setup.versions.fits(header) {
            self.0.setup.versions.end(header);
            return std::future::pending().await;
        }
        let context = self.context(header);
        let batch = self.open(batches, header.height);
        let executed = self.verify(batch, &context, &body.draws, &body.operations).await;
        if finality == Finality::Finalized
            && let Err(refused) = &executed
        {
            panic!("{}", contradiction(header, refused));
        }
        let executed = executed.ok()?;
        let mut expected = header.clone();
        set_roots(&mut expected, &executed);
        if finality == Finality::Finalized && expected != *header {
            let [own, other] = [&expected, header].map(|header| hex(&header.state_root));
            panic!(
                "{}",
                contradiction(header, &format!("its state is {own} here and {other} in its header"))
            );
        }
        (expected == *header).then_some(executed.sealed)
    }

    async fn capture(&mut self, _: (E, Context), block: &Block, _: &Sealed<E>, readers: Reader<Database<E>>) {
        let outcome = self.recall(block, &readers).await;
        self.0.setup.outcomes.put(block.height().get(), block.digest(), &outcome).await;
    }

    async fn finalized(&mut self, _: (E, Context), block: &Block, (): (), _: Reader<Database<E>>) {
        let height = block.height().get();
        log_reshare(block);
        self.0.setup.operations.finalized(height, &block.body().operations);
        self.0.setup.equivocation.block(block.header(), &block.body().operations);
        self.0.setup.own_key.saw(block.header());
        self.0.setup.applied.send_replace(height);
    }
}
