//! Detection by chance, with fixed seeds: the time until a dropped tenth fails, and the weights of draws.

use crate::{audits::holding, world::account};
use posync_protocol::{
    Account, Bounded, Hash, Key,
    audit::{Prover, Resolver, Share},
    block::sha256,
    ledger::{BlockContext, Event, Records},
    limits::Parameters,
    operation::{EndedRead, ProvedRead, ReadAnswer, SumPath},
    record::{Challenge, System},
};
use std::collections::BTreeSet;

/// Rounds within which a provider that dropped a tenth of its data fails a read (documented).
const DETECTED_ROUNDS: u64 = 41;

/// An answer that is valid as far as the next read is concerned; any bytes stand for the leaf.
fn held(place: u32, leaf: u64) -> ReadAnswer {
    ReadAnswer::Proved(ProvedRead {
        place,
        shard: [0; 32],
        length: 0,
        position: SumPath { lefts: 0, siblings: Bounded::new(vec![]).expect("none") },
        leaf: Bounded::new(leaf.to_be_bytes().to_vec()).expect("eight bytes"),
        path: Bounded::new(vec![]).expect("none"),
    })
}

fn seed(number: u64, height: u64) -> Hash {
    sha256(&[number.to_be_bytes(), height.to_be_bytes()].concat())
}

/// An end that is in the future in every test of this file.
const END: u64 = 700;

/// True if one of the four reads of a challenge hits the missing tenth of `leaves`. Besides them
/// there are `ended` leaves of agreements that ended and were not cleared.
fn fails(challenge: &Challenge, leaves: u64, ended: u64) -> bool {
    let share = Share { slot: 0, rate: 10_000_000, leaves, end_epoch: END };
    let past = Share { slot: 1, leaves: ended, end_epoch: 0, ..share };
    let mut prover = Prover::new(challenge, &account("p"), &Parameters::LOCAL, vec![past, share]);
    while let Some(question) = prover.question() {
        if sha256(&question.leaf.to_be_bytes())[0] < 26 {
            return true;
        }
        assert_eq!(question.slot, 0, "nothing that ended is read");
        prover.answer(held(question.place, question.leaf));
    }
    false
}

/// Ten providers, eight of them with equal data, all past their first reads. The first dropped a
/// tenth and answers three blocks after each draw. Returns the block in which it failed.
fn failed_at(number: u64, ended: u64) -> u64 {
    let parameters = Parameters::LOCAL;
    let mut open_until = 0;
    let phase = number % 10;
    for event in 1.. {
        let height = event * parameters.draw_every_blocks;
        let seed = seed(number, height);
        let drawn = if event % 2 == 0 {
            u64::from_be_bytes(seed[..8].try_into().expect("eight bytes")) % 8 == 0
        } else {
            event / 2 % 10 == phase
        };
        if drawn && height > open_until {
            open_until = height + 3;
            if fails(&Challenge { height, seed, by_fee: false }, 8 << 10, ended) {
                return height;
            }
        }
    }
    unreachable!("a tenth is found at last")
}

/// The share of ended data does not matter: none, or 98.3 % as in the attack of `draws`.
#[test]
fn a_dropped_tenth_fails_within_the_documented_rounds() {
    for ended in [0, (8 << 10) * 4_096 / 69] {
        let mut rounds: Vec<u64> = (0..2_000).map(|number| failed_at(number, ended) / 8 + 1).collect();
        rounds.sort_unstable();
        let late = rounds.iter().filter(|round| **round > DETECTED_ROUNDS).count();
        assert!(late <= 4, "{late} of 2,000 later than {DETECTED_ROUNDS} rounds beside {ended} ended leaves");
        assert!(rounds[1_000] <= 8, "half of them within {} rounds", rounds[1_000]);
    }
}

/// The same on the ledger itself, with draws, storage proofs and histories.
#[test]
fn the_ledger_fails_a_dropped_tenth_within_the_documented_rounds() {
    for number in 0..4_u8 {
        let (mut stage, mut member) = holding(&[60_000, 60_000, 60_000]);
        stage.world.chain[0] = number;
        member.lose_tenths(1);
        let last = stage.world.height + DETECTED_ROUNDS * 8;
        let mut failed = false;
        while stage.world.height < last && !failed {
            if crate::audits::answer(&mut stage, &member).is_none() {
                stage.world.block(&[]).expect("an empty block is valid");
            }
            failed =
                stage.world.events.iter().any(|event| {
                    matches!(event, Event::Audited { answered: true, passed: 0..4, reads: 4, .. })
                });
        }
        assert!(failed, "seed {number}");
    }
}

/// Fake data at a price of nearly nothing attracts reads by its pay, not by its size.
#[test]
fn reads_follow_what_is_paid() {
    let real = Share { slot: 0, rate: 10_000_000, leaves: 1_000, end_epoch: END };
    let fake = Share { slot: 1, rate: 10, leaves: 100_000_000, end_epoch: END };
    let (mut all, mut faked, mut leaves) = (0_u32, 0_u32, BTreeSet::new());
    for number in 0..2_000 {
        let challenge = Challenge { height: 1, seed: seed(number, 0), by_fee: false };
        let mut prover = Prover::new(&challenge, &account("p"), &Parameters::LOCAL, vec![fake, real]);
        while let Some(question) = prover.question() {
            all += 1;
            faked += question.slot;
            if question.slot == 0 {
                assert!(question.leaf < 1_000);
                leaves.insert(question.leaf);
            }
            prover.answer(held(question.place, question.leaf));
        }
    }
    assert_eq!(all, 8_000);
    // One part in eleven is 727; three standard deviations are 77.
    assert!((650..=804).contains(&faked), "{faked} of {all} reads in the fake data");
    assert!(leaves.len() > 990, "every leaf of the real data is read some day: {}", leaves.len());
}

#[test]
fn an_answer_decides_the_next_read() {
    let challenge = Challenge { height: 1, seed: [3; 32], by_fee: false };
    let share = Share { slot: 0, rate: 3, leaves: 1 << 40, end_epoch: END };
    let walk = |answers: [ReadAnswer; 3]| {
        let mut prover = Prover::new(&challenge, &account("p"), &Parameters::LOCAL, vec![share]);
        for answer in answers {
            prover.answer(answer);
        }
        prover.question().expect("the fourth read")
    };
    let ended = ReadAnswer::Ended(EndedRead { place: 0 });
    let all = [
        walk([held(0, 1), held(0, 2), held(0, 3)]),
        walk([held(0, 9), held(0, 2), held(0, 3)]),
        walk([held(0, 1), held(0, 2), ended.clone()]),
        walk([ended.clone(), ended.clone(), ended]),
    ];
    // Only the last answer and the seed decide. Earlier answers decided the questions before.
    assert_eq!(all[0], all[1]);
    assert_eq!(all[2], all[3]);
    assert_ne!(all[0], all[2]);
}

/// A million providers have as many draws as a few, and each takes a bounded number of reads.
#[test]
fn draws_are_as_many_and_as_cheap_among_a_million() {
    for (parameters, draws) in [(Parameters::LOCAL, 1), (Parameters::PRODUCTION, 8)] {
        for providers in [1, 10, 1_000, 1 << 20] {
            for height in [86_400, 86_402] {
                let context = BlockContext {
                    chain: [7; 32],
                    parameters,
                    height,
                    leader: Account::default(),
                    parent: [1; 32],
                    seed: Some(seed(height, providers.into())),
                };
                let system = System { providers, fee_weight: 1 << 90, ..System::default() };
                let mut resolver = Resolver::new(&context, &system);
                let (mut rounds, mut read) = (0, 0);
                while let Some(keys) = resolver.needs() {
                    rounds += 1;
                    read += keys.len();
                    let nothing: Records = keys.into_iter().map(|key: Key| (key, None)).collect();
                    resolver.feed(&nothing);
                }
                assert_eq!(resolver.draws().len(), draws);
                assert!(rounds <= 7 && read <= 160 * draws, "{rounds} rounds, {read} records");
            }
        }
    }
}
