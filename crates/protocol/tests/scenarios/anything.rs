//! Any operation of any actor, sensible or not, on a ledger in which everything is in use: draws,
//! data sets with real answers, upkeep, measurements, audits, evidence, jail. `World::block` checks
//! the whole state and every sum after each block, and that proposer and verifier agree.

use crate::{
    capacity::measure_of,
    model_provider::{ModelProvider, bytes},
    script::Stage,
    service::{GOOD, audited, batch, report, seat_name},
    world::{World, account, key},
};
use posync_protocol::{
    Body, Code, Operation, Record,
    audit::is_expired,
    operation::{AuditCommit, AuditReveal, digest_of},
    record::{Provider, Reputation},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use std::{cell::RefCell, collections::BTreeMap};

const ACTORS: [&str; 4] = ["a", "b", "p", "q"];
const PROVIDERS: [&str; 2] = ["p", "q"];
const SEATS: usize = 3;

/// An action of some actor.
#[derive(Clone, Debug)]
enum Move {
    /// A line of a script, as in `script.rs`.
    Line(String),
    /// Both sign a new version; any party submits it, with or without the provider's signature.
    Set {
        of: usize,
        slot: u32,
        remove: bool,
        add: Option<usize>,
        above: u64,
        by: &'static str,
        signed: bool,
    },
    /// Submits again any version that was signed before.
    Again {
        claim: prop::sample::Index,
        by: &'static str,
    },
    /// A provider answers its open challenge, if it has one.
    Answer(usize),
    Settle {
        of: usize,
        slot: u32,
        by: &'static str,
    },
    /// Waits until the open challenge of a provider can no longer be answered, and requests its close.
    Expire {
        of: usize,
        by: &'static str,
    },
    Measure {
        of: usize,
        bytes: u64,
    },
    Commit(usize),
    /// Commits in the epoch of the audit, and reveals in the first round of the next.
    Reveal(usize),
    /// A provider loses every n-th leaf of its data.
    Lose(usize, u64),
    Blocks(u64),
}

/// A number as a script writes it: small, large, or near the largest possible.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..200_000_u64).prop_map(|number| number.to_string()),
        4 => (1..30_u64).prop_map(|number| number.to_string()),
        1 => Just("max".to_string()),
        1 => Just((u64::MAX - 1).to_string()),
    ]
}

fn line() -> impl Strategy<Value = Move> {
    let actor = prop::sample::select(ACTORS.to_vec());
    let provider = prop::sample::select(PROVIDERS.to_vec());
    (actor, provider, 0..16_u8, 0..5_u32, number(), 1..30_u64).prop_map(
        |(actor, provider, verb, slot, number, small)| {
            Move::Line(match verb {
                0 => format!("{actor} send {provider} {small}"),
                1 => format!("{actor} register capacity={number}"),
                2 => format!("{provider} update capacity={number} bond={small}s"),
                3 => format!("{provider} leave"),
                4 => format!("{actor} open {provider} slot={slot} quota={number} end={small}"),
                5 | 6 => format!("{actor} open {provider} slot={slot} quota=900 reserve={small} end={small}"),
                7 => format!("{actor} open {provider} slot={slot} quota={small} end={number}"),
                8 => format!("{actor} topup {provider}/{slot} {small}"),
                9 => format!("{actor} close {provider}/{slot} second={provider}"),
                10 => format!("{actor} closealone {provider}/{slot}"),
                11 => format!("{actor} rotate {provider}/{slot} fresh"),
                12 => format!("{provider} redeem {provider}/{slot} egress={number} gas={small}"),
                13 => format!("{actor} refusal {provider} leaves={number}"),
                14 => format!("{actor} evidence s view={slot}"),
                _ => format!("{provider} unjail bond={small}s"),
            })
        },
    )
}

/// Two actors that list nodes at one place, and withdraw them.
fn nodes() -> impl Strategy<Value = Move> {
    (prop::sample::select(vec!["a", "b"]), 100..150_u32, any::<bool>()).prop_map(
        |(actor, deposit, leaves)| {
            Move::Line(if leaves {
                format!("{actor} withdraw")
            } else {
                format!("{actor} node deposit={deposit}s")
            })
        },
    )
}

fn moves() -> impl Strategy<Value = Move> {
    let by = || prop::sample::select(ACTORS.to_vec());
    let set = (0..2_usize, 0..5_u32, any::<bool>(), prop::option::of(1..60_000_usize), 1..4_u64, by());
    prop_oneof![
        16 => line(),
        2 => nodes(),
        8 => (set, prop::bool::weighted(0.9)).prop_map(|((of, slot, remove, add, above, by), signed)| {
            Move::Set { of, slot, remove, add, above, by, signed }
        }),
        2 => (any::<prop::sample::Index>(), by()).prop_map(|(claim, by)| Move::Again { claim, by }),
        12 => (0..2_usize).prop_map(Move::Answer),
        4 => (0..2_usize, 0..5_u32, by()).prop_map(|(of, slot, by)| Move::Settle { of, slot, by }),
        1 => (0..2_usize, by()).prop_map(|(of, by)| Move::Expire { of, by }),
        3 => (0..2_usize, prop_oneof![Just(u64::MAX), 0..1_u64 << 30])
            .prop_map(|(of, bytes)| Move::Measure { of, bytes }),
        2 => (0..SEATS).prop_map(Move::Commit),
        2 => (0..SEATS).prop_map(Move::Reveal),
        1 => (0..2_usize, 2..9_u64).prop_map(|(of, n)| Move::Lose(of, n)),
        6 => (1..30_u64).prop_map(Move::Blocks),
    ]
}

/// A ledger in full use, and how often each kind of operation was accepted.
struct Anything {
    stage: Stage,
    members: [ModelProvider; 2],
    batches: Vec<AuditReveal>,
    sets: Vec<Body>,
    done: BTreeMap<String, u32>,
    seed: u64,
}

impl Anything {
    /// Epoch 1 with its audit drawn: three seats that read from both providers, a fourth that signs
    /// two blocks of a view, and `q` in jail for two more epochs.
    fn new() -> Self {
        let mut stage = audited(SEATS, 4);
        stage.world.seat("s");
        let place = Reputation::key(&account("q"));
        let mut reputation: Reputation = stage.world.get(place).expect("it registered");
        reputation.jailed_until = stage.world.epoch() + 2;
        stage.world.state.insert(place, reputation.to_slot());
        stage.world.draws = true;
        let reports = |seat| PROVIDERS.map(|provider| report(&stage, seat, provider, GOOD)).to_vec();
        let batches = (0..SEATS).map(|seat| batch(reports(seat))).collect();
        let members = PROVIDERS.map(ModelProvider::new);
        Self { stage, members, batches, sets: vec![], done: BTreeMap::new(), seed: 0 }
    }

    fn stands(&self, of: usize) -> bool {
        self.stage.world.get::<Provider>(Provider::key(&account(PROVIDERS[of]))).is_some()
    }

    fn submit(&mut self, who: &str, body: Body) {
        let kind = format!("{body:?}");
        let kind = kind.split(['(', ' ', '{']).next().unwrap_or_default().to_string();
        let operation = self.stage.world.sign(who, body);
        if self.stage.world.submit(&operation) == Ok(Code::Done) {
            *self.done.entry(kind).or_default() += 1;
        }
    }

    fn run(&mut self, step: &Move) {
        match step {
            Move::Line(line) if self.stage.attempt(line).as_deref() == Some("Done") => {
                let verb = line.split(' ').nth(1).unwrap_or_default();
                *self.done.entry(verb.into()).or_default() += 1;
            }
            Move::Set { of, slot, remove, add, above, by, signed } if self.stands(*of) => {
                self.seed += 1;
                let adds: Vec<Vec<u8>> = add.iter().map(|length| bytes(self.seed, *length)).collect();
                let (world, member) = (&self.stage.world, &mut self.members[*of]);
                let removes: &[u32] = if *remove && member.held(world, *slot) > 0 { &[0] } else { &[] };
                let data_set = member.data_set(world, *slot);
                let last = data_set.next.unwrap_or(data_set.current);
                let version = last.version.saturating_add(*above);
                let mut set = member.sign(world, *slot, (last.root, version), removes, &adds);
                set.provider_signature = set.provider_signature.filter(|_| *signed);
                self.sets.push(Body::SetDataSet(set.clone()));
                self.submit(by, Body::SetDataSet(set));
            }
            Move::Again { claim, by } if !self.sets.is_empty() => {
                let set = self.sets[claim.index(self.sets.len())].clone();
                self.submit(by, set);
            }
            Move::Answer(of) if self.stands(*of) => {
                if let Some(storage_proof) = self.members[*of].storage_proof(&self.stage.world) {
                    self.submit(PROVIDERS[*of], Body::StorageProof(storage_proof));
                }
            }
            Move::Settle { of, slot, by } if self.stands(*of) => {
                let has = self.members[*of].agreement(&self.stage.world, *slot).is_some();
                let slots: &[u32] = if has { std::slice::from_ref(slot) } else { &[] };
                let body = Body::Settle(self.members[*of].settle(&self.stage.world, slots));
                self.submit(by, body);
            }
            Move::Expire { of, by } if self.stands(*of) => self.expire(*of, by),
            Move::Measure { of, bytes } if self.stands(*of) => {
                let (who, epoch) = (PROVIDERS[*of], self.stage.world.epoch());
                let measure = measure_of(&self.stage.world, who, epoch, &[*bytes; 8]);
                self.submit(who, Body::Measure(measure));
            }
            Move::Commit(seat) => self.commit(*seat),
            Move::Reveal(seat) => {
                if self.stage.world.epoch() == 1 {
                    self.commit(*seat);
                    self.stage.world.skip_to_epoch(2);
                }
                let body = Body::AuditReveal(self.batches[*seat].clone());
                self.submit(&seat_name(*seat), body);
            }
            Move::Lose(of, n) => self.members[*of].lose_every(*n),
            Move::Blocks(count) => {
                for _ in 0..*count {
                    self.stage.world.block(&[]).expect("an empty block is valid");
                }
            }
            _ => {}
        }
    }

    fn expire(&mut self, of: usize, by: &str) {
        let parameters = self.stage.world.parameters;
        for _ in 0..(parameters.pending_rounds_max + 2) * parameters.round_blocks {
            let open = self.members[of].audit(&self.stage.world).challenge;
            let next = self.stage.world.height + 1;
            if open.is_some_and(|open| is_expired(&open, next, &parameters)) {
                break;
            }
            self.stage.world.block(&[]).expect("an empty block is valid");
        }
        let body = Body::Settle(self.members[of].settle(&self.stage.world, &[]));
        self.submit(by, body);
    }

    fn commit(&mut self, seat: usize) {
        let (name, world) = (seat_name(seat), &self.stage.world);
        let digest =
            digest_of(std::slice::from_ref(&self.batches[seat]), &account(&name)).expect("one batch");
        let body = AuditCommit::signed(&key(&name), &world.chain, 1, digest);
        self.submit(&name, Body::AuditCommit(body));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_operation_of_anybody_conserves_to_the_grain(steps in prop::collection::vec(moves(), 1..60)) {
        let mut anything = Anything::new();
        steps.iter().for_each(|step| anything.run(step));
    }

    /// Several operations a block, one per sender: a dropped operation does not affect the others.
    #[test]
    fn any_operations_of_a_block_conserve_to_the_grain(
        blocks in prop::collection::vec(prop::collection::vec(moves(), 0..5), 1..16),
    ) {
        let mut anything = Anything::new();
        for steps in &blocks {
            let world = &anything.stage.world;
            let mut operations = signed(world, &mut anything.members, steps, &anything.stage);
            let (context, draws) = (world.context(world.height + 1), world.resolve(&world.context(world.height + 1)));
            // Malformed operations never reach a proposer.
            operations.retain(|operation| world.read(&context, &draws, std::slice::from_ref(operation)).is_ok());
            operations.sort_by_key(|operation| operation.body.lane());
            anything.stage.world.block(&operations).expect("a proposer drops what is not valid");
        }
    }
}

/// The operations of these moves, each built as if it were alone in its block.
fn signed(world: &World, members: &mut [ModelProvider; 2], steps: &[Move], stage: &Stage) -> Vec<Operation> {
    let stands = |of: usize| world.get::<Provider>(Provider::key(&account(PROVIDERS[of]))).is_some();
    let sign = |step: &Move| match step {
        Move::Line(line) => Some(stage.sign(line)),
        Move::Set { of, slot, add, by, .. } if stands(*of) => {
            let adds: Vec<Vec<u8>> = add.iter().map(|length| bytes(*length as u64, *length)).collect();
            let set = members[*of].change(world, *slot, &[], &adds);
            Some(world.sign(by, Body::SetDataSet(set)))
        }
        Move::Answer(of) if stands(*of) => {
            let storage_proof = members[*of].storage_proof(world)?;
            Some(world.sign(PROVIDERS[*of], Body::StorageProof(storage_proof)))
        }
        Move::Settle { of, slot, by } if stands(*of) => {
            Some(world.sign(by, Body::Settle(members[*of].settle(world, &[*slot]))))
        }
        _ => None,
    };
    steps.iter().filter_map(sign).collect()
}

/// The generator reaches every kind: at least one operation of each is accepted.
#[test]
fn the_generator_reaches_every_kind_of_operation() {
    let config = Config { cases: 32, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let done: RefCell<BTreeMap<String, u32>> = RefCell::default();
    let ran = runner.run(&prop::collection::vec(moves(), 50..80), |steps| {
        let mut anything = Anything::new();
        steps.iter().for_each(|step| anything.run(step));
        for (kind, count) in anything.done {
            *done.borrow_mut().entry(kind).or_default() += count;
        }
        Ok(())
    });
    assert!(ran.is_ok(), "{ran:?}");
    let done = done.into_inner();
    let lines = ["send", "register", "update", "leave", "open", "topup", "close", "closealone", "rotate"];
    let more = ["node", "withdraw", "redeem", "refusal", "evidence", "unjail"];
    let bodies = ["SetDataSet", "StorageProof", "Settle", "Measure", "AuditCommit", "AuditReveal"];
    let missing: Vec<&str> =
        lines.iter().chain(&more).chain(&bodies).copied().filter(|kind| !done.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "never accepted: {missing:?}, of {done:?}");
}
