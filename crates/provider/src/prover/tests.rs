//! The prover against the real rules: every storage proof goes through `ledger::execute`.

use super::*;
use crate::{
    data_sets::DataSets,
    packs::{Store, extents},
    terms::Terms,
};
use crate::{
    fixtures::{claim, data, disk, open_body, register_body, set_body, sign_body, terms_at},
    world::{World, account, key},
};
use commonware_runtime::{Runner as _, tokio};
use posync_protocol::{
    AgreementId, Body, Code, Units,
    ledger::Event,
    operation::{StorageProof, Voucher},
    record::{Audit, Endings, Offer, Provider, Reputation, RoundInfo},
};
use std::path::Path;

type TokioBlob = <tokio::Context as commonware_runtime::Storage>::Blob;

/// A provider `paul` and a consumer `carol` on a ledger in memory, with a real store and data sets.
struct Bench {
    world: World,
    store: Store<TokioBlob>,
    data_sets: DataSets,
    version: u64,
    shards: Vec<(Hash, u64)>,
    id: AgreementId,
}

impl Bench {
    async fn new(context: &tokio::Context, epochs: u64) -> Self {
        let mut world = World::new(&["paul", "carol"]);
        // The first block of a round writes its anchor: the genesis has none.
        while world.height < world.parameters.round_blocks {
            world.block(&[]).expect("an empty block is valid");
        }
        let (store, data_sets) = disk(context, world.chain).await;
        let register = Body::RegisterProvider(register_body());
        submit(&mut world, "paul", register);
        let id = open(&mut world, 0, epochs);
        world.draws = true;
        Self { world, store, data_sets, version: 0, shards: vec![], id }
    }

    /// Stores shards and puts a data set with them on the ledger.
    async fn grow(&mut self, shards: &[Vec<u8>]) {
        let mut adds = vec![];
        for data in shards {
            let name = *blake3::hash(data).as_bytes();
            self.store.put(self.id, name, data.clone().into()).await.expect("fits");
            adds.push((name, data.len() as u64));
        }
        self.shards.extend(&adds);
        self.set(&[], &adds).await;
    }

    async fn set(&mut self, removes: &[u32], adds: &[(Hash, u64)]) {
        self.version += 1;
        let claim = claim(self.id, self.version, &self.shards);
        let ask = sign_body(&self.world.chain, claim, removes, adds);
        let terms = self.terms(self.id.slot).expect("open");
        let signature =
            self.data_sets.sign(terms, ask, self.world.height).await.expect("open").expect("right");
        let body = set_body(&self.world, claim, Some(signature));
        submit(&mut self.world, "carol", body);
        self.observe().await;
    }

    async fn observe(&self) {
        if let Some(terms) = self.terms(self.id.slot) {
            self.data_sets.note(self.id, terms.data, terms.height).await.expect("open");
        }
    }

    fn terms(&self, slot: u32) -> Option<Terms> {
        terms_at(&self.world, slot)
    }

    fn case(&self) -> Case {
        let (world, paul) = (&self.world, account("paul"));
        let audit: Audit = world.get(Audit::key(&paul)).expect("registered");
        let parameters = world.parameters;
        let round = audit.challenge.map_or(0, |challenge| parameters.round(challenge.height));
        let info: Option<RoundInfo> = world.get(RoundInfo::key(round % parameters.round_ring));
        Case {
            account: paul,
            parameters,
            height: world.height,
            provider: world.get(Provider::key(&paul)).expect("registered"),
            offer: world.get(Offer::key(&paul)).expect("registered"),
            audit,
            reputation: world.get(Reputation::key(&paul)),
            endings: world.get(Endings::key(&paul)),
            anchor: info.map_or([0; 32], |info| info.anchor),
            terms: self.terms(0).into_iter().map(|terms| (0, terms)).collect(),
        }
    }

    /// Grows the data set while no challenge is open.
    async fn grow_at_once(&mut self, shards: &[Vec<u8>]) {
        while self.case().audit.challenge.is_some() {
            self.answer().await;
        }
        self.world.draws = false;
        self.grow(shards).await;
        self.world.draws = true;
        assert!(self.case().audit.challenge.is_none());
    }

    fn wait_for_draw(&mut self) {
        for _ in 0..200 {
            if self.case().audit.challenge.is_some() {
                return;
            }
            self.world.block(&[]).expect("an empty block is valid");
        }
        panic!("never drawn");
    }

    async fn storage_proof(
        &self,
        vouchers: Vec<posync_protocol::operation::Redemption>,
    ) -> Result<StorageProof, NoStorageProof> {
        let (case, reader) = (self.case(), Reader { store: &self.store, data_sets: &self.data_sets });
        let answers = reader.answers(&case).await?;
        case.storage_proof(answers, reader.reasked(&case).await?, vouchers)
    }

    /// Answers the next draw; returns the passed reads and all reads.
    async fn answer(&mut self) -> (u8, u8) {
        self.wait_for_draw();
        let storage_proof = self.storage_proof(vec![]).await.expect("complete");
        let code = self.world.submit(&self.world.sign("paul", Body::StorageProof(storage_proof)));
        assert_eq!(code, Ok(Code::Done));
        self.observe().await;
        let audited = self.world.events.iter().find_map(|event| match event {
            Event::Audited { passed, reads, on_time: true, .. } => Some((*passed, *reads)),
            _ => None,
        });
        audited.expect("an event tells")
    }
}

fn submit(world: &mut World, who: &str, body: Body) {
    let operation = world.sign(who, body);
    assert_eq!(world.submit(&operation), Ok(Code::Done));
}

fn open(world: &mut World, slot: u32, epochs: u64) -> AgreementId {
    let body = Body::Open(open_body(world, slot, epochs));
    submit(world, "carol", body);
    AgreementId { provider: account("paul"), slot, opened: world.height }
}

fn run<F, Fut>(work: F)
where
    F: FnOnce(tokio::Context, std::path::PathBuf) -> Fut,
    Fut: Future<Output = ()>,
{
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_path_buf();
    let config = tokio::Config::default().with_storage_directory(&path);
    tokio::Runner::new(config).start(|context| work(context, path));
}

/// Flips a byte in every 16 KiB of a shard on disk.
fn damage(path: &Path, shard: &Hash) {
    use std::os::unix::fs::FileExt as _;
    let extent = extents(path).expect("readable").into_iter().find(|extent| extent.shard == *shard);
    let extent = extent.expect("stored");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&extent.path).expect("writable");
    for offset in (extent.offset..extent.offset + extent.length).step_by(16 << 10) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("there");
        file.write_all_at(&[byte[0] ^ 1], offset).expect("there");
    }
}

/// From then on a shard that the disk fails to read is answered as missing.
#[test]
fn an_answer_is_pressed_when_half_of_its_deadline_is_over() {
    run(|context, _| async move {
        let mut bench = Bench::new(&context, 100).await;
        bench.grow_at_once(&[data(5, 300_000)]).await;
        bench.wait_for_draw();
        let drawn = bench.case().audit.challenge.expect("drawn").height;
        let half = drawn + bench.world.parameters.deadline_blocks / 2;
        while bench.case().height < half {
            assert!(!bench.case().is_pressed(), "at {}, drawn at {drawn}", bench.case().height);
            bench.world.block(&[]).expect("an empty block is valid");
        }
        assert!(bench.case().is_pressed());
        bench.answer().await;
        assert!(!bench.case().is_pressed(), "no challenge is open");
    });
}

#[test]
fn draws_are_answered_as_long_as_the_shards_are_there() {
    run(|context, path| async move {
        let mut bench = Bench::new(&context, 100).await;
        assert_eq!(bench.answer().await, (0, 0), "nothing stored, nothing read");
        bench.grow_at_once(&[data(1, 0), data(2, 1), data(3, 1024), data(4, 1025), data(5, 300_000)]).await;
        for _ in 0..6 {
            assert_eq!(bench.answer().await, (4, 4));
        }
        let all = bench.shards.clone();
        damage(&path, &all[4].0);
        let (passed, reads) = bench.answer().await;
        assert!(passed < reads, "296 of 298 leaves are damaged");
        assert!(!bench.case().audit.missing.is_empty());
        // After a repair by a new put, the missing read is proved when it is asked again.
        bench.store.put(bench.id, all[4].0, data(5, 300_000).into()).await.expect("fits");
        assert_eq!(bench.answer().await, (4, 4));
        assert!(bench.case().audit.missing.is_empty());
    });
}

#[test]
fn a_change_under_a_challenge_is_applied_by_the_storage_proof() {
    run(|context, _| async move {
        let mut bench = Bench::new(&context, 100).await;
        bench.grow_at_once(&[data(1, 10_000)]).await;
        bench.wait_for_draw();
        bench.grow(&[data(2, 20_000)]).await;
        let waits = bench.case().terms[&0].data.clone();
        assert_eq!((waits.current.version, waits.next.map(|next| next.version)), (1, Some(2)));
        assert_eq!(bench.answer().await, (4, 4), "the draw reads the old version");
        let now = bench.case().terms[&0].data.clone();
        assert_eq!((now.current.version, now.next), (2, None));
        assert_eq!(bench.answer().await, (4, 4));
    });
}

#[test]
fn vouchers_ride_along_and_are_paid() {
    run(|context, _| async move {
        let mut bench = Bench::new(&context, 100).await;
        bench.grow_at_once(&[data(1, 10_000)]).await;
        bench.wait_for_draw();
        let voucher = Voucher::signed(&key("carol"), &bench.world.chain, bench.id, Units::egress(1 << 20));
        let kept =
            posync_protocol::operation::Redemption { voucher, session_key: account("carol"), claim: None };
        let storage_proof = bench.storage_proof(vec![kept]).await.expect("complete");
        let operation = bench.world.sign("paul", Body::StorageProof(storage_proof));
        assert_eq!(bench.world.submit(&operation), Ok(Code::Done));
        assert_eq!(bench.case().terms[&0].usage.redeemed.egress, 1 << 20);
        let again = bench.world.sign("paul", operation.body);
        assert_eq!(bench.world.submit(&again), Err(Code::AnsweredAlready), "never twice");
    });
}

#[test]
fn an_ended_agreement_is_freed_by_upkeep() {
    run(|context, _| async move {
        let mut bench = Bench::new(&context, 2).await;
        bench.grow_at_once(&[data(1, 10_000)]).await;
        let mut freed = 0;
        for _ in 0..2_000 {
            if bench.case().terms.is_empty() {
                break;
            }
            if bench.case().audit.challenge.is_some() {
                bench.answer().await;
            } else if let Some(settle) = bench.case().upkeep() {
                // The only provider of this ledger is drawn in every second block.
                bench.world.draws = false;
                submit(&mut bench.world, "paul", Body::Settle(settle));
                bench.world.draws = true;
                freed += 1;
            } else {
                bench.world.block(&[]).expect("an empty block is valid");
            }
        }
        assert!(bench.case().terms.is_empty(), "the records are gone");
        assert_eq!(freed, 2, "once out of the tree, once removed");
        assert_eq!(bench.case().provider.slot_weight, 0);
    });
}

#[test]
fn data_sets_that_lack_a_slot_give_no_storage_proof() {
    run(|context, _| async move {
        let mut bench = Bench::new(&context, 100).await;
        bench.grow_at_once(&[data(1, 10_000)]).await;
        assert_eq!(bench.case().prover().map(drop), Err(NoStorageProof::NotDrawn));
        bench.wait_for_draw();
        let mut case = bench.case();
        case.terms.clear();
        let error = case.prover().map(drop).expect_err("a slot is missing");
        assert!(matches!(error, NoStorageProof::Incomplete { known: 0, .. }), "{error}");
    });
}
