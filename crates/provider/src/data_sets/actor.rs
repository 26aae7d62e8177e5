//! Checks changes one by one, makes a group of them durable with one sync, then signs.

use super::state::{Change, Kept, No, State, Variant};
use crate::{
    condition::Condition,
    journal::{self, Journal},
    terms::Terms,
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Handle, Spawner};
use commonware_storage::Context;
use commonware_utils::{
    channel::{mpsc, oneshot},
    sync::Mutex,
};
use posync_protocol::{
    AgreementId, Bounded, Hash, Signature,
    block::with_chain,
    encoded,
    operation::{DATA_SET_NAMESPACE, DataSetClaim, sign},
    record::{DataSet, Version},
    tagged,
    wire::provider::{SIGN_SHARDS_MAX, Sign},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Changes that wait for the writer; with full lists they take 10 MiB.
const MAILBOX: usize = 32;

/// Pause between attempts to open the journal on a volume that accepts no writes.
const RETRY: Duration = Duration::from_secs(1);

/// Reasons for which the data sets refuse a call.
#[derive(Debug, thiserror::Error)]
pub enum DataSetsError {
    /// The disk failed, and the writer ended.
    #[error("the data sets' journal failed: {0}; check the volume, then start again")]
    Disk(#[from] journal::Error),
    /// The volume accepts no writes: nothing was signed or dropped, and a later attempt may succeed.
    #[error("the volume is full; nothing was written, try again")]
    NoSpace,
    /// The writer ended, so no call succeeds any more.
    #[error("the data sets are closed")]
    Closed,
}

encoded! {
    /// Journal record of a version that was signed.
    Signed {
        claim: DataSetClaim,
        signature: Signature,
        height: u64,
        parent: (u64, Hash),
        adds: Bounded<(Hash, u64), SIGN_SHARDS_MAX>,
        removes: Bounded<u32, SIGN_SHARDS_MAX>,
    }
}

encoded! {
    /// A part of a kept version's shards, in a snapshot.
    Part {
        agreement: AgreementId,
        version: (u64, Hash),
        signature: Option<Signature>,
        height: u64,
        shards: Bounded<(Hash, u64), SIGN_SHARDS_MAX>,
    }
}

encoded! {
    /// The versions that the ledger has in force and as `next`.
    Moved {
        agreement: AgreementId,
        data: DataSet,
    }
}

tagged! {
    /// A record of the data sets' journal.
    Record {
        0 => Signed(Signed),
        1 => Moved(Moved),
        2 => Ended(AgreementId),
        3 => Part(Part),
        4 => Damaged(bool),
    }
}

type Signing = Result<Signature, No>;

/// Returns the length of a shard that the agreement holds durably; called when a signature is decided.
pub(crate) type Held = Arc<dyn Fn(&AgreementId, &Hash) -> Option<u32> + Send + Sync>;

enum Command {
    Sign { terms: Box<Terms>, ask: Box<Sign>, height: u64, done: oneshot::Sender<Signing> },
    Note { agreement: AgreementId, data: DataSet, height: u64, done: oneshot::Sender<()> },
    End { agreement: AgreementId, done: oneshot::Sender<Vec<Hash>> },
}

/// A handle on the data sets: cheap to clone.
#[derive(Clone)]
pub struct DataSets {
    state: Arc<Mutex<State>>,
    mailbox: mpsc::Sender<Command>,
}

impl DataSets {
    /// Opens the journal and starts the writer.
    ///
    /// # Errors
    /// `Disk`.
    pub async fn open<E>(
        context: E,
        partition: &str,
        key: PrivateKey,
        chain: Hash,
        held: Held,
    ) -> Result<(Self, Handle<Result<(), DataSetsError>>), DataSetsError>
    where
        E: Context + Spawner,
    {
        let open = Journal::open(context.child("data_sets"), partition, apply, snapshot, hurt);
        let (mut journal, mut state) = open.await?;
        state.leaving.clear();
        if journal.is_long(state.size()) {
            journal.snapshot(snapshot(&state)).await?;
        }
        let state = Arc::new(Mutex::new(state));
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        let writer = Writer { journal, state: state.clone(), partition: partition.into(), key, chain, held };
        let task = context.child("data_sets_writer").spawn(move |context| writer.run(context, commands));
        Ok((Self { state, mailbox }, task))
    }

    /// Signs a version at a certified height, once it has passed all checks and is durable.
    ///
    /// # Errors
    /// `Closed`, `NoSpace`; the inner result says what the consumer has to change.
    pub async fn sign(&self, terms: Terms, ask: Sign, height: u64) -> Result<Signing, DataSetsError> {
        let (terms, ask) = (Box::new(terms), Box::new(ask));
        self.ask(|done| Command::Sign { terms, ask, height, done }).await
    }

    /// Notes the versions that the ledger has in force at `height`. The shards that they let go wait for
    /// [`Self::release`], so the caller may be gone before the answer.
    ///
    /// # Errors
    /// `Closed`, `NoSpace`.
    pub async fn note(
        &self,
        agreement: AgreementId,
        data: DataSet,
        height: u64,
    ) -> Result<(), DataSetsError> {
        self.ask(|done| Command::Note { agreement, data, height, done }).await
    }

    /// Takes the shards that may leave the disk by the audit of height `at`, which asks the reads `asked` again (slots
    /// and shards). The caller unlinks them, then calls [`Self::gone`].
    pub fn release(&self, at: u64, asked: &BTreeSet<(u32, Hash)>) -> BTreeMap<AgreementId, Vec<Hash>> {
        self.state.lock().release(at, asked)
    }

    /// Forgets an agreement that is gone from the ledger; returns its shards.
    ///
    /// # Errors
    /// `Closed`, `NoSpace`.
    pub(crate) async fn end(&self, agreement: AgreementId) -> Result<Vec<Hash>, DataSetsError> {
        self.ask(|done| Command::End { agreement, done }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, DataSetsError> {
        let (done, answer) = oneshot::channel();
        self.mailbox.send(command(done)).await.map_err(|_| DataSetsError::Closed)?;
        answer.await.map_err(|_| DataSetsError::NoSpace)
    }

    /// Runs `work` on the current state.
    pub fn with<R>(&self, work: impl FnOnce(&State) -> R) -> R {
        work(&self.state.lock())
    }

    /// Notes loose shards, which no version of the terms of `height` holds: they wait for [`Self::release`].
    pub fn let_go(&self, agreement: AgreementId, shards: Vec<Hash>, height: u64) {
        self.state.lock().let_go(agreement, shards, height);
    }

    /// Takes back a shard that is put again. Returns `false` if it is being removed.
    pub(crate) fn take_back(&self, agreement: AgreementId, shard: Hash) -> bool {
        self.state.lock().take_back(agreement, shard)
    }

    /// Notes that shards were removed from the disk.
    pub fn gone(&self, agreement: AgreementId, shards: &[Hash]) {
        self.state.lock().gone(agreement, shards);
    }
}

struct Writer<E: Context> {
    journal: Journal<E, Record>,
    state: Arc<Mutex<State>>,
    partition: String,
    key: PrivateKey,
    chain: Hash,
    held: Held,
}

type Reply = Box<dyn FnOnce() + Send>;

impl<E: Context> Writer<E> {
    async fn run(mut self, context: E, mut commands: mpsc::Receiver<Command>) -> Result<(), DataSetsError> {
        let mut condition =
            Condition::new("the volume takes no writes: no data set is signed, and consumers retry");
        loop {
            let done = match self.journal.next(&context, &mut commands).await {
                Ok(Some(first)) => self.group(first, &mut commands).await,
                Ok(None) => return Ok(()),
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => drop(condition.ended()),
                // No signature was sent: fall back to the durable state.
                Err(error) if journal::is_full(&error) => {
                    condition.holds(&error);
                    self.reopen(&context).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Decides the waiting commands, makes them durable with one sync, then answers.
    async fn group(
        &mut self,
        first: Command,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), journal::Error> {
        let (mut replies, mut dirty, mut next) = (vec![], false, Some(first));
        while let Some(command) = next {
            let (record, reply) = self.decide(command);
            if let Some(record) = record {
                self.journal.append(record).await?;
                dirty = true;
            }
            replies.push(reply);
            next = if replies.len() < MAILBOX { commands.try_recv().ok() } else { None };
        }
        if dirty {
            self.journal.sync().await?;
        }
        replies.into_iter().for_each(|reply| reply());
        let long = self.journal.is_long(self.state.lock().size());
        if long {
            let now = snapshot(&self.state.lock());
            self.journal.snapshot(now).await?;
        }
        Ok(())
    }

    /// Reads the journal again after a failed write.
    async fn reopen(&mut self, context: &E) -> Result<(), DataSetsError> {
        let mut condition = Condition::new("the data sets' journal cannot be opened");
        loop {
            let again = context.child("again");
            match Journal::open(again, &self.partition, apply, snapshot, hurt).await {
                Ok((journal, state)) => {
                    self.journal = journal;
                    self.state.lock().go_back(state);
                    return Ok(());
                }
                Err(error) if journal::is_full(&error) => drop(condition.holds(&error)),
                Err(error) => return Err(error.into()),
            }
            context.sleep(RETRY).await;
        }
    }

    /// Changes the state; the reply is sent once the record is durable.
    fn decide(&self, command: Command) -> (Option<Record>, Reply) {
        let mut state = self.state.lock();
        match command {
            Command::Sign { terms, ask, height, done } => {
                let held = |shard: &Hash| (self.held)(&terms.id, shard);
                match state.judge(&terms, &ask, &self.chain, held) {
                    Err(no) => (None, reply(done, Err(no))),
                    Ok(change) => {
                        state.keep(&change, height);
                        let message = with_chain(&self.chain, &change.claim);
                        let signature = sign(&self.key, DATA_SET_NAMESPACE, &message);
                        (Some(signed(change, *ask, height)), reply(done, Ok(signature)))
                    }
                }
            }
            Command::Note { agreement, data, height, done } => {
                let (record, going) = observe(&mut state, agreement, data);
                let shared = self.state.clone();
                let let_go = move || {
                    shared.lock().let_go(agreement, going, height);
                    // A caller that is gone needs no answer.
                    let _ = done.send(());
                };
                (record, Box::new(let_go))
            }
            Command::End { agreement, done } => {
                let known = state.data_sets.contains_key(&agreement);
                (known.then_some(Record::Ended(agreement)), reply(done, state.end(&agreement)))
            }
        }
    }
}

/// Notes the ledger's versions; returns the record of that, and the shards that are let go once it is durable.
fn observe(state: &mut State, agreement: AgreementId, data: DataSet) -> (Option<Record>, Vec<Hash>) {
    let ledgers =
        |state: &State| state.data_sets.get(&agreement).map(|versions| (versions.in_force, versions.next));
    let before = ledgers(state);
    let going = state.observe(agreement, &data);
    let moved = before != ledgers(state);
    (moved.then_some(Record::Moved(Moved { agreement, data })), going)
}

fn reply<T: Send + 'static>(done: oneshot::Sender<T>, answer: T) -> Reply {
    Box::new(move || drop(done.send(answer)))
}

fn signed(change: Change, ask: Sign, height: u64) -> Record {
    Record::Signed(Signed {
        claim: change.claim,
        signature: change.signature,
        height,
        parent: change.parent,
        adds: ask.adds,
        removes: ask.removes,
    })
}

/// Notes that records were lost: the provider may owe shards that no data set names.
fn hurt(state: &mut State) {
    state.damaged = true;
}

fn snapshot(state: &State) -> Vec<Record> {
    let mut records = vec![];
    records.extend(state.damaged.then_some(Record::Damaged(true)));
    for (agreement, versions) in &state.data_sets {
        for (version, kept) in &versions.versions {
            let (version, Kept { tree, signature, height }) = (*version, kept);
            let parts = tree.shards().chunks(SIGN_SHARDS_MAX).map(<[_]>::to_vec);
            let parts = parts.chain(tree.is_empty().then(Vec::new));
            records.extend(parts.filter_map(Bounded::new).map(|shards| {
                let (agreement, signature, height) = (*agreement, *signature, *height);
                Record::Part(Part { agreement, version, signature, height, shards })
            }));
        }
        let of = |(version, root): Variant| Version { version, root, ..Version::default() };
        let data = DataSet { current: of(versions.in_force), next: versions.next.map(of) };
        records.push(Record::Moved(Moved { agreement: *agreement, data }));
    }
    records
}

fn apply(state: &mut State, record: Record) {
    match record {
        Record::Signed(signed) => {
            let agreement = signed.claim.agreement;
            let parent = state.tree(&agreement, signed.parent).unwrap_or_default();
            let mut tree = (*parent).clone();
            if tree.change(&signed.removes, &signed.adds).is_none() || tree.root() != signed.claim.root {
                tracing::error!(version = signed.claim.version, "a signed version cannot be rebuilt");
                return;
            }
            let Signed { claim, signature, height, parent, .. } = signed;
            state.keep(&Change { claim, parent, tree: Arc::new(tree), signature }, height);
        }
        Record::Moved(moved) => {
            state.data_sets.entry(moved.agreement).or_default();
            state.observe(moved.agreement, &moved.data);
        }
        Record::Ended(agreement) => {
            state.end(&agreement);
        }
        Record::Damaged(damaged) => state.damaged = damaged,
        Record::Part(part) => {
            let versions = state.data_sets.entry(part.agreement).or_default();
            let kept = versions.versions.entry(part.version).or_default();
            (kept.signature, kept.height) = (part.signature, part.height);
            let fits = Arc::make_mut(&mut kept.tree).change(&[], &part.shards);
            if fits.is_none() {
                tracing::error!("a kept version does not fit its bounds");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{CHAIN, id, provider, sign_of, terms},
        power_cut::{CUTS, Cut, power_cut},
    };
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
    use posync_protocol::{Account, operation::SignatureCheck, record::Version};

    fn shard(tag: u8) -> (Hash, u64) {
        ([tag; 32], 700)
    }

    fn all() -> Held {
        Arc::new(|_, _| Some(700))
    }

    fn steps() -> Vec<Sign> {
        let base: Vec<_> = (1..=4).map(shard).collect();
        vec![
            sign_of(1, &[], &[], &base),
            sign_of(2, &base, &[1], &[shard(9)]),
            sign_of(2, &base, &[], &[shard(8)]),
            sign_of(3, &[shard(1), shard(3), shard(4), shard(9)], &[0], &[]),
        ]
    }

    fn data(claim: &DataSetClaim) -> DataSet {
        let DataSetClaim { version, root, leaves, bytes, .. } = *claim;
        DataSet { current: Version { version, root, leaves, bytes, grown_at: 0 }, next: None }
    }

    async fn work(context: Cut<deterministic::Context>) -> (Vec<DataSetClaim>, u64) {
        let (mut signed, mut in_force) = (vec![], 0);
        let Ok((data_sets, _task)) = DataSets::open(context, "books", provider(), CHAIN, all()).await else {
            return (signed, in_force);
        };
        for (step, ask) in steps().into_iter().enumerate() {
            let claim = ask.claim;
            match data_sets.sign(terms(), ask, 0).await {
                Ok(answer) => {
                    let check = SignatureCheck {
                        namespace: DATA_SET_NAMESPACE,
                        message: with_chain(&CHAIN, &claim),
                        key: id().provider,
                        signature: answer.expect("right"),
                    };
                    assert!(check.verify());
                    signed.push(claim);
                }
                Err(_) => break,
            }
            if step == 1 {
                if data_sets.note(id(), data(&signed[0]), 0).await.is_err() {
                    break;
                }
                in_force = 1;
            }
        }
        (signed, in_force)
    }

    #[test]
    fn what_was_signed_survives_a_power_cut_at_every_operation() {
        for cut in CUTS {
            let mut operation = 0;
            while !power_cut(operation, cut, work, |context, (signed, in_force)| async move {
                let open = DataSets::open(context.child("again"), "books", provider(), CHAIN, all());
                let (data_sets, _task) = open.await.expect("recovers");
                for claim in signed {
                    let tree = data_sets.with(|state| state.tree(&id(), (claim.version, claim.root)));
                    let tree = tree.expect("kept");
                    assert_eq!((tree.root(), tree.leaves()), (claim.root, claim.leaves));
                }
                let now = data_sets
                    .with(|state| state.data_sets.get(&id()).map_or(0, |versions| versions.in_force.0));
                assert!(now >= in_force);
            }) {
                operation += 1;
            }
            assert!(operation > 6, "{operation}");
        }
    }

    #[test]
    fn a_snapshot_holds_the_same_state() {
        let mut state = State::default();
        for ask in steps() {
            let change = state.judge(&terms(), &ask, &CHAIN, |_| Some(700)).expect("follows");
            state.keep(&change, 7);
        }
        let (current, next) = (data(&steps()[0].claim), data(&steps()[1].claim));
        state.observe(id(), &DataSet { next: Some(next.current), ..current });
        assert_eq!(state.data_sets[&id()].versions.len(), 3, "in force, next, and one above");
        let other = AgreementId { provider: Account([5; 32]), ..id() };
        state.data_sets.entry(other).or_default().versions.insert((1, [0; 32]), Kept::default());
        state.leaving.clear();
        let mut again = State::default();
        snapshot(&state).into_iter().for_each(|record| apply(&mut again, record));
        again.leaving.clear();
        assert_eq!(again, state);
    }

    #[test]
    fn a_wrong_claim_is_answered_and_leaves_nothing() {
        deterministic::Runner::default().start(|context| async move {
            let none: Held = Arc::new(|_, _| None);
            let (data_sets, _task) =
                DataSets::open(context, "books", provider(), CHAIN, none).await.expect("opens");
            let ask = sign_of(1, &[], &[], &[shard(1)]);
            let answer = data_sets.sign(terms(), ask, 0).await.expect("open");
            assert!(answer.is_err_and(|(_, text)| text.contains("put it first")));
            assert_eq!(data_sets.with(State::size), 0);
        });
    }

    #[test]
    fn a_full_volume_signs_nothing_and_signs_again_when_there_is_room() {
        deterministic::Runner::default().start(|context| async move {
            let fuse = crate::power_cut::Fuse::after(1_000_000);
            let cut = Cut::new(context.child("cut"), fuse.clone());
            let (data_sets, _task) =
                DataSets::open(cut, "books", provider(), CHAIN, all()).await.expect("opens");
            let steps = steps();
            data_sets.sign(terms(), steps[0].clone(), 0).await.expect("open").expect("right");
            fuse.set_full(true);
            for _ in 0..3 {
                let signed = data_sets.sign(terms(), steps[1].clone(), 0).await;
                assert!(matches!(signed, Err(DataSetsError::NoSpace)), "{signed:?}");
                let claim = steps[1].claim;
                let known = data_sets.with(|state| state.tree(&id(), (claim.version, claim.root)).is_some());
                assert!(!known, "what is not durable is not known");
            }
            fuse.set_full(false);
            data_sets.sign(terms(), steps[1].clone(), 0).await.expect("open").expect("right");
            assert!(data_sets.with(|state| !state.is_damaged()));
        });
    }
}
