//! Proofs of a real record store under a real threshold key: accepted unchanged, rejected after any change.

use super::*;
use bytes::Bytes;
use commonware_consensus::{
    simplex::types::{Finalize, Proposal},
    types::{Epoch, Round, View},
};
use commonware_cryptography::{
    Signer as _,
    bls12381::{dkg::feldman_desmedt::deal, primitives::sharing::Mode},
};
use commonware_runtime::{Runner as _, Supervisor as _, buffer::paged::CacheRef, deterministic};
use commonware_storage::{
    journal::contiguous::fixed::Config as LogConfig,
    merkle::full::Config as MerkleConfig,
    qmdb::{
        current::{FixedConfig, ordered::fixed},
        floor::Proportional,
    },
    translator::EightCap,
};
use commonware_utils::{N3f1, NZU16, NZU64, NZUsize, TestRng, non_empty, ordered::Set};
use posync_protocol::{
    Account, Amount, Bounded, Record as _,
    block::{HEADER_NAMESPACE, sha256},
    books::tree,
    operation::sign,
    record::{AccountState, Audit, Books, Settlement},
};

pub(crate) type Database =
    fixed::Db<Family, deterministic::Context, sha256::Digest, Slot, Sha256, EightCap, 32, Sequential>;

pub(crate) const CHAIN: Hash = [7; 32];

/// Four authorities that share a network key.
pub(crate) struct Committee {
    pub(crate) network_key: NetworkKey,
    schemes: Vec<Scheme>,
}

impl Committee {
    pub(crate) fn new(seed: u64) -> Self {
        let players = Set::from_iter_dedup((0..4).map(|i| ed25519::PrivateKey::from_seed(i).public_key()));
        let (output, shares) =
            deal::<MinSig, _, N3f1>(TestRng::new(seed), Mode::NonZeroCounter, players.clone())
                .expect("deals");
        let network_key = *output.public().public();
        let scheme = |player| {
            let share = shares.get_value(player).expect("every player has one").clone();
            Scheme::signer(&consensus_namespace(&CHAIN), players.clone(), output.public().clone(), share)
        };
        let schemes =
            players.iter().map(|player| scheme(player).expect("the share is the player's")).collect();
        Self { network_key, schemes }
    }

    pub(crate) fn finalize(&self, header: &Header) -> Bounded<u8, 256> {
        self.finalize_in(header, header.term, (header.view, header.parent_view))
    }

    /// Certifies the header in a round that may differ from its own.
    fn finalize_in(&self, header: &Header, term: u64, (view, parent): (u64, u64)) -> Bounded<u8, 256> {
        let round = Round::new(Epoch::new(term), View::new(view));
        let proposal = Proposal::new(round, View::new(parent), digest(header.digest()));
        let votes: Vec<_> = self.schemes[..3]
            .iter()
            .map(|scheme| Finalize::sign(scheme, proposal.clone()).expect("signs"))
            .collect();
        let finalization =
            Finalization::from_finalizes(&self.schemes[0], non_empty![@votes.iter()], &Sequential);
        Bounded::new(finalization.expect("a quorum").encode().to_vec()).expect("132 bytes")
    }
}

fn account(number: u64) -> Account {
    Account(sha256(&number.to_be_bytes()))
}

fn state(number: u64) -> AccountState {
    AccountState { nonce: number, balance: Amount::sync(number) }
}

const EPOCH: u64 = 700;

fn row(number: u64) -> Settlement {
    Settlement { epoch: EPOCH, pay: Amount::sync(number), ..Settlement::default() }
}

fn leaves() -> Vec<Hash> {
    (0..7).map(|number| tree::leaf(&account(number), &row(number).to_slot())).collect()
}

fn books() -> Books {
    Books { epoch: EPOCH, rows: 7, root: tree::root_of(&leaves()), ..Books::default() }
}

/// A store with the accounts 0..600, written in several batches, some of them twice.
pub(crate) async fn store(context: &deterministic::Context) -> Database {
    let cache = CacheRef::new(NZU16!(4096), NZUsize!(64));
    let config = FixedConfig {
        merkle_config: MerkleConfig {
            journal_partition: "nodes".into(),
            metadata_partition: "pinned".into(),
            items_per_blob: NZU64!(4096),
            write_buffer: NZUsize!(65_536),
            replay_buffer: NZUsize!(65_536),
            strategy: Sequential,
            page_cache: cache.clone(),
        },
        journal_config: LogConfig {
            partition: "log".into(),
            items_per_blob: NZU64!(4096),
            page_cache: cache,
            write_buffer: NZUsize!(65_536),
            replay_buffer: NZUsize!(65_536),
        },
        grafted_metadata_partition: "grafted".into(),
        translator: EightCap,
        init_cache: None,
        init_buffer: NZUsize!(65_536),
        init_concurrency: (),
    };
    let mut database = Database::init(context.child("store"), config, None).await.expect("opens");
    for (from, to) in [(0, 200), (200, 450), (100, 300), (450, 600)] {
        let mut batch = database.new_batch();
        for number in from..to {
            let key: sha256::Digest = AccountState::key(&account(number)).0.into();
            batch = batch.write(key, Some(state(number).to_slot()));
        }
        let key: sha256::Digest = Books::key(EPOCH).0.into();
        batch = batch.write(key, Some(books().to_slot()));
        let batch = batch.merkleize(&database, None, &mut Proportional).await.expect("computes");
        database = database.apply_batch(batch).await.expect("applies").commit().await.expect("commits");
    }
    database
}

pub(crate) fn header(height: u64, parent: Hash, state_root: Hash) -> Header {
    let key = ed25519::PrivateKey::from_seed(1);
    let mut header = Header {
        version: 1,
        chain: CHAIN,
        term: 3,
        view: height + 5,
        leader: Account::of(&key.public_key()),
        parent_view: height + 4,
        parent,
        height,
        time_ms: 1_790_000_000_000 + height,
        beacon: Some([9; 48]),
        body_root: [2; 32],
        receipts_root: [3; 32],
        state_root,
        ops_root: [4; 32],
        range_start: 1,
        range_end: 1000,
        signature: [0; 64],
    };
    header.signature = sign(&key, HEADER_NAMESPACE, &header.signed_bytes());
    header
}

/// A chain of `length` headers: the first has the store's root, the last is certified.
fn certified(committee: &Committee, state_root: Hash, length: u64) -> Certified {
    let mut headers = vec![header(100, [1; 32], state_root)];
    for height in 101..100 + length {
        headers.push(header(height, headers.last().expect("not empty").digest(), [8; 32]));
    }
    let finalization = committee.finalize(headers.last().expect("not empty"));
    Certified { headers: Bounded::new(headers).expect("few"), finalization }
}

pub(crate) async fn proven(database: &Database, key: Key) -> ProvenRecord {
    let key: sha256::Digest = key.0.into();
    let slot = database.get(&key).await.expect("reads");
    let proof: Bytes = match slot {
        Some(_) => database.key_value_proof(key).await.expect("proves").encode(),
        None => database.exclusion_proof(&key).await.expect("proves").encode(),
    };
    ProvenRecord { slot, proof: Bounded::new(proof.to_vec()).expect("within the bound") }
}

async fn read(database: &Database, committee: &Committee, numbers: &[u64], length: u64) -> (Vec<Key>, Read) {
    let root: Hash = database.root().as_ref().try_into().expect("32 bytes");
    let mut records = Vec::new();
    for number in numbers {
        records.push(proven(database, AccountState::key(&account(*number))).await);
    }
    let keys = numbers.iter().map(|number| AccountState::key(&account(*number))).collect();
    let records = Bounded::new(records).expect("few");
    (keys, Read { certified: certified(committee, root, length), records })
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(deterministic::Context) -> F) {
    deterministic::Runner::default().start(test);
}

#[test]
fn records_and_their_absence_are_believed() {
    run(|context| async move {
        let (database, committee) = (store(&context).await, Committee::new(1));
        let light = Light::new(CHAIN, committee.network_key);
        for length in [1, 2, 10] {
            let (keys, read) = read(&database, &committee, &[0, 150, 599, 600, 12_345], length).await;
            let slots = light.read(&keys, &read).expect("believed");
            let records: Vec<_> = slots
                .iter()
                .map(|slot| slot.map(|slot| AccountState::from_slot(&slot).expect("decodes")))
                .collect();
            assert_eq!(records, [Some(state(0)), Some(state(150)), Some(state(599)), None, None]);
        }
    });
}

/// The engine proposes the last block of a term again, unchanged, until a view makes it final.
#[test]
fn a_block_that_only_a_later_view_made_final_is_believed() {
    run(|context| async move {
        let (database, committee) = (store(&context).await, Committee::new(1));
        let light = Light::new(CHAIN, committee.network_key);
        for length in [1, 3] {
            let (keys, mut answer) = read(&database, &committee, &[5, 7], length).await;
            let last = answer.certified.headers.last().expect("one at least");
            let rounds = (last.view + 3, last.view + 2);
            answer.certified.finalization = committee.finalize_in(last, last.term, rounds);
            assert!(light.read(&keys, &answer).is_ok(), "{length} headers");
        }
    });
}

/// Each row changes one part of an honest answer; none may be accepted.
#[test]
fn answers_that_differ_are_refused() {
    type Change = fn(&mut Vec<Key>, &mut Read, &Committee);
    fn with(read: &mut Read, change: impl FnOnce(&mut Vec<Header>)) {
        let mut headers = read.certified.headers.to_vec();
        change(&mut headers);
        read.certified.headers = Bounded::new(headers).expect("few");
    }
    fn record(read: &mut Read, change: impl FnOnce(&mut Vec<ProvenRecord>)) {
        let mut records = read.records.to_vec();
        change(&mut records);
        read.records = Bounded::new(records).expect("few");
    }
    let table: [(&str, Error, Change); 16] = [
        ("no header", Error::Headers, |_, read, _| with(read, Vec::clear)),
        ("another chain", Error::Chain, |_, read, _| with(read, |h| h[0].chain = [0; 32])),
        ("a header left out", Error::Headers, |_, read, _| {
            with(read, |h| h.retain(|header| header.height != 101))
        }),
        ("headers swapped", Error::Headers, |_, read, _| with(read, |h| h.swap(0, 1))),
        ("a height skipped", Error::Headers, |_, read, _| with(read, |h| h[0].height -= 1)),
        ("another state root", Error::Headers, |_, read, _| with(read, |h| h[0].state_root = [0; 32])),
        ("the last header changed", Error::Certificate, |_, read, _| with(read, |h| h[2].time_ms += 1)),
        ("the certificate of the first", Error::Certificate, |_, read, committee| {
            read.certified.finalization = committee.finalize(&read.certified.headers[0]);
        }),
        ("another committee", Error::Certificate, |_, read, _| {
            read.certified.finalization = Committee::new(2).finalize(&read.certified.headers[2]);
        }),
        ("a view before its own", Error::Certificate, |_, read, committee| {
            let last = &read.certified.headers[2];
            let finalization = committee.finalize_in(last, last.term, (last.view - 1, last.parent_view - 1));
            read.certified.finalization = finalization;
        }),
        ("another term", Error::Certificate, |_, read, committee| {
            let last = &read.certified.headers[2];
            let finalization = committee.finalize_in(last, last.term + 1, (last.view, last.parent_view));
            read.certified.finalization = finalization;
        }),
        ("no certificate", Error::Malformed("the certificate"), |_, read, _| {
            read.certified.finalization = Bounded::default();
        }),
        ("another key", Error::Proof, |keys, _, _| keys.swap(0, 1)),
        ("a record less", Error::Question, |_, read, _| record(read, |r| drop(r.pop()))),
        ("a record denied", Error::Malformed("a proof"), |_, read, _| record(read, |r| r[0].slot = None)),
        ("a record changed", Error::Proof, |_, read, _| {
            record(read, |r| r[0].slot.as_mut().expect("there")[20] ^= 1);
        }),
    ];
    run(|context| async move {
        let (database, committee) = (store(&context).await, Committee::new(1));
        let light = Light::new(CHAIN, committee.network_key);
        for (name, error, change) in table {
            let (mut keys, mut answer) = read(&database, &committee, &[5, 7, 700], 3).await;
            light.read(&keys, &answer).expect("believed as made");
            change(&mut keys, &mut answer, &committee);
            assert_eq!(light.read(&keys, &answer), Err(error), "{name}");
        }
        let other = Light::new(CHAIN, Committee::new(2).network_key);
        let (keys, answer) = read(&database, &committee, &[5], 1).await;
        assert_eq!(other.read(&keys, &answer), Err(Error::Certificate), "another network key");
    });
}

async fn sync_proof(database: &Database, committee: &Committee, number: u64) -> SyncProof {
    let (_, read) = read(database, committee, &[number], 1).await;
    let subject = Subject::of_account::<AccountState>(&account(number));
    SyncProof::new(subject, read.certified, read.records[0].clone())
}

#[test]
fn a_sync_proof_says_whose_record_it_is() {
    run(|context| async move {
        let (database, committee) = (store(&context).await, Committee::new(1));
        let bytes = sync_proof(&database, &committee, 321).await.to_bytes();
        assert!(bytes.len() <= SYNC_PROOF_BYTES_MAX && bytes.len() < 1_600, "{}", bytes.len());
        let verified = SyncProof::verify(&bytes, &committee.network_key).expect("verifies");
        assert_eq!(verified.subject.key(), AccountState::key(&account(321)));
        assert_eq!(verified.header.height, 100);
        assert_eq!(verified.record::<AccountState>(), Ok(Some(state(321))));
        assert_eq!(verified.record::<Audit>(), Err(Error::Question));
        let none = sync_proof(&database, &committee, 9_999).await.to_bytes();
        let verified = SyncProof::verify(&none, &committee.network_key).expect("verifies");
        assert_eq!(verified.record::<AccountState>(), Ok(None));
    });
}

/// Flips every single bit of a real proof of a record, and one bit of each byte of a proof of absence.
#[test]
fn any_flipped_bit_is_refused() {
    run(|context| async move {
        let (database, committee) = (store(&context).await, Committee::new(1));
        for (number, step) in [(321, 1), (9_999, 9)] {
            let bytes = sync_proof(&database, &committee, number).await.to_bytes();
            assert!(SyncProof::verify(&bytes, &committee.network_key).is_ok());
            for bit in (0..bytes.len() * 8).step_by(step) {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let verdict = SyncProof::verify(&flipped, &committee.network_key);
                assert!(verdict.is_err(), "account {number}, byte {}, bit {}: {verdict:?}", bit / 8, bit % 8);
            }
            for length in 0..bytes.len() {
                assert!(
                    SyncProof::verify(&bytes[..length], &committee.network_key).is_err(),
                    "cut at {length}"
                );
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(SyncProof::verify(&longer, &committee.network_key).is_err());
        }
    });
}

async fn payout(database: &Database, committee: &Committee, number: u64) -> SyncProof {
    let root: Hash = database.root().as_ref().try_into().expect("32 bytes");
    let subject = Subject::new::<Books>(&[&EPOCH.to_be_bytes()]).expect("8 bytes");
    let books = proven(database, Books::key(EPOCH)).await;
    let path = tree::path(&leaves(), number as usize).expect("one of seven");
    SyncProof::new(subject, certified(committee, root, 1), books).with_row(ProvedRow {
        account: account(number),
        index: number as u32,
        slot: row(number).to_slot(),
        path: Bounded::new(path).expect("short"),
    })
}

#[test]
fn a_payout_of_any_epoch_is_proved_by_its_books() {
    run(|context| async move {
        let (database, committee) = (store(&context).await, Committee::new(1));
        for number in 0..7 {
            let bytes = payout(&database, &committee, number).await.to_bytes();
            assert!(bytes.len() < 2_000, "{}", bytes.len());
            let verified = SyncProof::verify(&bytes, &committee.network_key).expect("verifies");
            assert_eq!(verified.row, Some((account(number), row(number))));
        }
        let proof = payout(&database, &committee, 2).await;
        let bytes = proof.to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let verdict = SyncProof::verify(&flipped, &committee.network_key);
            assert!(verdict.is_err(), "byte {}, bit {}: {verdict:?}", bit / 8, bit % 8);
        }
        let row = proof.row.clone().expect("it has one");
        let of_another_record = sync_proof(&database, &committee, 321).await.with_row(row.clone());
        let verdict = SyncProof::verify(&of_another_record.to_bytes(), &committee.network_key);
        assert_eq!(verdict.expect_err("an account has no rows"), Error::Question);
        let of_another = proof.with_row(ProvedRow { account: account(3), ..row });
        let verdict = SyncProof::verify(&of_another.to_bytes(), &committee.network_key);
        assert_eq!(verdict.expect_err("the row is account 2's"), Error::Commitment("the row"));
    });
}

#[test]
fn bodies_and_receipts_are_checked_by_their_roots() {
    let (body, receipts) = (
        BlockBody { draws: Bounded::default(), operations: Bounded::default(), dkg: Bounded::default() },
        Receipts { rows: Bounded::default() },
    );
    let mut header = header(5, [0; 32], [0; 32]);
    assert_eq!(Light::body(&header, &body), Err(Error::Commitment("the body")));
    assert_eq!(Light::receipts(&header, &receipts), Err(Error::Commitment("the receipts")));
    (header.body_root, header.receipts_root) = (body.root(), receipts.root());
    assert_eq!(Light::body(&header, &body), Ok(()));
    assert_eq!(Light::receipts(&header, &receipts), Ok(()));
}

#[test]
fn a_network_key_survives_its_bytes() {
    let key = Committee::new(1).network_key;
    assert_eq!(network_key(&network_key_bytes(&key)), Ok(key));
    assert!(network_key(&[0; 96]).is_err());
}

/// A light client with the memory of another one, and a key under which nothing verifies: what it believes,
/// it remembers.
fn only_memory(light: &Light) -> Light {
    let other = Light::new(CHAIN, Committee::new(2).network_key);
    Light { scheme: other.scheme, ..light.clone() }
}

#[test]
fn a_certificate_is_checked_once_and_no_other_passes_for_it() {
    let committee = Committee::new(1);
    let light = Light::new(CHAIN, committee.network_key);
    let answer = certified(&committee, [8; 32], 3);
    assert_eq!(only_memory(&light).certified(&answer), Err(Error::Certificate), "it was not checked before");
    light.certified(&answer).expect("believed");
    only_memory(&light).certified(&answer).expect("remembered");
    // The same certificate does not stand for other headers, nor another certificate for these.
    let shorter =
        Certified { headers: Bounded::new(answer.headers[..2].to_vec()).expect("two"), ..answer.clone() };
    assert_eq!(light.certified(&shorter), Err(Error::Certificate));
    let mut changed = answer.headers.to_vec();
    changed[2].time_ms += 1;
    let changed = Certified { headers: Bounded::new(changed).expect("three"), ..answer.clone() };
    assert_eq!(light.certified(&changed), Err(Error::Certificate));
    let mut linked = answer.headers.to_vec();
    linked[0].state_root = [0; 32];
    let linked = Certified { headers: Bounded::new(linked).expect("three"), ..answer.clone() };
    assert_eq!(light.certified(&linked), Err(Error::Headers), "a known end does not prove another beginning");
    for bit in 0..8 * answer.finalization.len() {
        let mut bytes = answer.finalization.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let finalization = Bounded::new(bytes).expect("as long");
        assert!(light.certified(&Certified { finalization, ..answer.clone() }).is_err(), "bit {bit}");
    }
    let mut longer = answer.finalization.to_vec();
    longer.push(0);
    let finalization = Bounded::new(longer).expect("fits");
    assert!(light.certified(&Certified { finalization, ..answer.clone() }).is_err());
}

#[test]
fn a_certificate_that_the_own_node_verified_is_not_checked_again_and_proves_nothing_else() {
    let committee = Committee::new(1);
    let light = Light::new(CHAIN, committee.network_key);
    let answer = certified(&committee, [8; 32], 3);
    light.remember(&answer);
    light.remember(&answer);
    assert_eq!(light.remembered.0.lock().len(), 1, "a repetition takes no place");
    only_memory(&light).certified(&answer).expect("remembered");
    let other = certified(&committee, [9; 32], 3);
    assert_eq!(only_memory(&light).certified(&other), Err(Error::Certificate), "another block");
    let elsewhere = Light::new([0xee; 32], committee.network_key);
    elsewhere.remember(&answer);
    assert!(elsewhere.remembered.0.lock().is_empty(), "another network");
}

#[test]
fn the_memory_of_certificates_is_bounded_and_loses_the_oldest() {
    let committee = Committee::new(1);
    let light = Light::new(CHAIN, committee.network_key);
    let answers: Vec<_> = (1..=REMEMBERED_MAX as u64 + 1)
        .map(|height| {
            let header = header(height, [1; 32], [8; 32]);
            let finalization = committee.finalize(&header);
            Certified { headers: Bounded::new(vec![header]).expect("one"), finalization }
        })
        .collect();
    for answer in &answers {
        light.certified(answer).expect("believed");
        light.certified(answer).expect("believed again");
    }
    let memory = only_memory(&light);
    assert_eq!(memory.certified(&answers[0]), Err(Error::Certificate), "the oldest is forgotten");
    assert!(answers[1..].iter().all(|answer| memory.certified(answer).is_ok()));
    assert_eq!(light.remembered.0.lock().len(), REMEMBERED_MAX);
}
