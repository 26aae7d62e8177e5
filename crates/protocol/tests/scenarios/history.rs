//! One long, mixed history ends in the same bytes in every thread, profile and machine.
//!
//! `history.txt` holds the digest of all changes, receipts and events of its blocks. It ties
//! profiles and machines together. `cargo test` checks it with the dev profile and debug
//! assertions; `cargo xtask test` runs this test again with the release profile's settings for the
//! rules; `cargo test --release` checks it, too. So no thread, optimisation, assertion or machine
//! changes a byte of the state. A rule that changes behaviour changes the digest, and is decided
//! like a format change: `CONFORMANCE=write cargo test --package posync-protocol no_byte_changed`.

use crate::{
    audits::{holding, submit},
    capacity,
    model_provider::{ModelProvider, bytes},
    service,
    world::{World, account},
};
use posync_protocol::{Body, Code, Hash, Operation, block::sha256};
use std::collections::BTreeSet;

/// Number of threads that run the history at the same time.
const THREADS: usize = 4;
/// Steps of the market, which take several epochs.
const STEPS: u64 = 1_200;

/// A small generator, because the history must repeat.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Two providers that answer draws, one of which loses a tenth; consumers, seats and leaders; and
/// operations of most kinds, sensible or not.
fn market() -> World {
    let (mut stage, mut p) = holding(&[70_000, 3_000]);
    stage.world.draws = false;
    stage.play("q register\n b open q quota=100000 end=700");
    let mut q = ModelProvider::new("q");
    let set = q.change(&stage.world, 0, &[], &[bytes(9, 150_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    for name in ["s", "t", "u", "v"] {
        stage.world.seat(name);
    }
    stage.world.leaders = ["s", "t", "u", "v", "s"].map(account).to_vec();
    stage.world.draws = true;
    p.lose_tenths(1);
    let (members, mut dice, mut codes) = ([p, q], Dice(2), BTreeSet::new());
    for _ in 0..STEPS {
        if dice.below(3) > 0 {
            let storage_proofs = members.iter().filter_map(|member| {
                let storage_proof = member.storage_proof(&stage.world).filter(|_| dice.below(8) > 0)?;
                Some(stage.world.sign(&member.name, Body::StorageProof(storage_proof)))
            });
            let storage_proofs: Vec<Operation> = storage_proofs.collect();
            stage.world.block(&storage_proofs).expect("an answered block is valid");
            continue;
        }
        codes.extend(stage.attempt(&line(&mut dice)));
    }
    assert!(codes.len() >= 15, "a mixed history: {codes:?}");
    stage.world
}

fn line(dice: &mut Dice) -> String {
    let actor = ["a", "b", "p", "q"][dice.below(4) as usize];
    let to = ["p", "q"][dice.below(2) as usize];
    let (slot, number, small) = (dice.below(4), dice.below(3_000_000), 1 + dice.below(12));
    match dice.below(14) {
        0 => format!("{actor} send {to} {number}"),
        1 => format!("{to} update capacity=200000 bond={small}s"),
        2..=4 => format!("{actor} open {to} slot={slot} quota={small} reserve={number} end={}", 12 + small),
        5 => format!("{actor} topup {to}/{slot} {number}"),
        6 => format!("{actor} close {to}/{slot} second={to}"),
        7 => format!("{actor} closealone {to}/{}", slot + 1),
        8 => format!("{actor} rotate {to}/{slot} fresh"),
        9 | 10 => format!("{to} redeem {to}/{slot} egress={number} gas={small} claim={number}0"),
        11 => format!("{actor} refusal {to} leaves={small}"),
        12 => format!("{actor} evidence {} view={small}", ["s", "t", "u"][dice.below(3) as usize]),
        _ => format!("{to} unjail bond={small}s"),
    }
}

fn history() -> Hash {
    let digests = [market(), service::judged(), capacity::measured_thrice()].map(|world| world.history);
    sha256(&digests.concat())
}

#[test]
fn no_byte_changed_in_a_long_history_in_any_thread_or_profile() {
    let digests: Vec<Hash> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS).map(|_| scope.spawn(history)).collect();
        running.into_iter().map(|thread| thread.join().expect("it ran to its end")).collect()
    });
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "one history, one end");
    let now: String = digests[0].iter().map(|byte| format!("{byte:02x}")).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/history.txt");
    if std::env::var("CONFORMANCE").as_deref() == Ok("write") {
        std::fs::write(path, format!("{now}\n")).expect("the crate's directory is writable");
    }
    let written = std::fs::read_to_string(path).expect("history.txt is part of the crate");
    assert_eq!(written.trim(), now, "what the rules do changed, or a profile or machine differs");
}
