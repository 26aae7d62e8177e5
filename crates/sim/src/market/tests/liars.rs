//! Providers that lie to the ledger: the code that refuses them, and the money they keep.

use super::LOCAL;
use crate::market::{ANSWER_BLOCKS, CONSUMER, Manner, Market, Terms};
use posync_protocol::{
    AgreementId, Amount, Body, Bounded, Class, Code, Hash, Units,
    ledger::Event,
    operation::{MissingRead, ReadAnswer, Redemption, Settle, StorageProof, Voucher},
    record::{Audit, Challenge, Usage},
};

/// A market whose first provider was just drawn and has not answered.
fn drawn(seed: u64) -> (Market, Challenge) {
    let mut market = Market::new(seed, LOCAL, &[Terms::new(Manner::Truthful); 4]);
    market.reach(2 * LOCAL.epoch_blocks()).expect("the rules hold");
    let after = market.height;
    market.members[0].terms.manner = Manner::Silent;
    let challenge = wait_for_draw(&mut market, after);
    (market, challenge)
}

fn wait_for_draw(market: &mut Market, after: u64) -> Challenge {
    loop {
        market.block().expect("the rules hold");
        match market.members[0].challenge(&market.ledger) {
            Some(challenge) if challenge.height > after => return challenge,
            // A challenge from before is answered first.
            Some(_) => market.members[0].terms.manner = Manner::Truthful,
            None => market.members[0].terms.manner = Manner::Silent,
        }
        assert!(market.height < 10_000, "never drawn");
    }
}

fn truth(market: &Market, challenge: &Challenge) -> StorageProof {
    let member = &market.members[0];
    let answers = member.answers(&market.ledger, challenge).expect("it holds everything");
    member.stating(&market.ledger, challenge, market.height + 1, answers)
}

/// Changes the read at `place` of a true storage proof.
fn with_read(
    storage_proof: &StorageProof,
    place: usize,
    change: impl FnOnce(&mut ReadAnswer),
) -> StorageProof {
    let mut answers: Vec<ReadAnswer> = storage_proof.answers.to_vec();
    change(&mut answers[place]);
    StorageProof { answers: Bounded::new(answers).expect("still four"), ..storage_proof.clone() }
}

fn flip<const MAX: usize>(bytes: &Bounded<u8, MAX>) -> Bounded<u8, MAX> {
    let mut bytes = bytes.to_vec();
    bytes[0] ^= 1;
    Bounded::new(bytes).expect("as many")
}

fn flip_hash<const MAX: usize>(path: &Bounded<Hash, MAX>) -> Bounded<Hash, MAX> {
    let mut path = path.to_vec();
    path[0][0] ^= 1;
    Bounded::new(path).expect("as many")
}

#[test]
fn a_forged_storage_proof_is_refused_and_says_why() {
    let (market, challenge) = drawn(1);
    let truth = truth(&market, &challenge);
    let proved = |place, change: fn(&mut posync_protocol::operation::ProvedRead)| {
        with_read(&truth, place, |answer| match answer {
            ReadAnswer::Proved(read) => change(read),
            other => panic!("{other:?}"),
        })
    };
    let first = truth.answers[0].clone();
    let missing = |answer: &mut ReadAnswer| {
        if let ReadAnswer::Proved(read) = answer.clone() {
            let (place, shard, length, position) = (read.place, read.shard, read.length, read.position);
            *answer = ReadAnswer::Missing(MissingRead { place, shard, length, position });
        }
    };
    let table = [
        ("the truth", truth.clone(), Code::Done),
        ("another leaf's bytes", proved(0, |read| read.leaf = flip(&read.leaf)), Code::ReadLeaf),
        ("a forged way to the shard", proved(0, |read| read.path = flip_hash(&read.path)), Code::ReadLeaf),
        ("a shard of no data set", proved(0, |read| read.shard[0] ^= 1), Code::ReadPath),
        ("another length", proved(0, |read| read.length += 1), Code::ReadPath),
        ("another side of the tree", proved(0, |read| read.position.lefts ^= 1), Code::ReadPath),
        ("an empty slot", proved(0, |read| read.place += 1), Code::ReadOutsideSlot),
        ("the first read four times", with_read(&truth, 1, |answer| *answer = first.clone()), Code::ReadPath),
        ("held, yet declared missing", with_read(&truth, 3, missing), Code::Done),
        (
            "missing in the middle, the rest as if it were there",
            with_read(&truth, 0, missing),
            Code::ReadPath,
        ),
        ("three reads", cut(&truth), Code::BadShape),
        ("another block as the anchor", StorageProof { anchor: [9; 32], ..truth.clone() }, Code::WrongAnchor),
        (
            "a height that drew nobody",
            StorageProof { height: challenge.height + 1, ..truth.clone() },
            Code::NotDrawn,
        ),
        ("another's index", StorageProof { index: 1, ..truth.clone() }, Code::BadShape),
    ];
    for (what, storage_proof, code) in table {
        let operation = market.free(market.members[0].account, Body::StorageProof(storage_proof));
        assert_eq!(market.verdict(&operation), code, "{what}");
    }
    let other = market.free(market.members[1].account, Body::StorageProof(truth));
    assert_ne!(market.verdict(&other), Code::Done, "another provider's answer");
}

fn cut(storage_proof: &StorageProof) -> StorageProof {
    let answers = Bounded::new(storage_proof.answers[..3].to_vec()).expect("three");
    StorageProof { answers, ..storage_proof.clone() }
}

#[test]
fn an_answer_counts_once_and_an_old_one_never_again() {
    let (mut market, challenge) = drawn(2);
    let storage_proof = truth(&market, &challenge);
    let account = market.members[0].account;
    let operation = market.free(account, Body::StorageProof(storage_proof));
    market.members[0].terms.manner = Manner::Truthful;
    market.reach(challenge.height + ANSWER_BLOCKS).expect("the rules hold");
    assert_eq!(market.verdict(&operation), Code::AnsweredAlready);
    wait_for_draw(&mut market, challenge.height);
    assert_eq!(market.verdict(&operation), Code::AnsweredAlready);
}

#[test]
fn an_old_data_set_proves_nothing_once_a_newer_one_is_in_force() {
    let mut terms = [Terms::new(Manner::Truthful); 4];
    terms[0].shards = 60;
    let mut market = Market::new(3, LOCAL, &terms);
    // Version 2 drops the last third; the provider still answers from version 1.
    market.reach(4 * LOCAL.epoch_blocks()).expect("the rules hold");
    let old = market.members[0].clone();
    market.members[0].hold(40);
    let body = Body::SetDataSet(market.members[0].data_set(2));
    market.members[0].hold(60);
    market.submit(CONSUMER, body);
    let set = || posync_protocol::record::DataSet::key(&old.account, 0);
    while market.ledger.record::<posync_protocol::record::DataSet>(set()).map(|set| set.current.version)
        != Some(2)
    {
        market.block().expect("the rules hold");
        assert!(market.height < 10_000, "version 2 never came into force");
    }
    let after = market.height;
    let challenge = wait_for_draw(&mut market, after);
    let replay = {
        let answers = old.answers_from(&market.ledger, &challenge, old.tree.leaves()).expect("it holds them");
        old.stating(&market.ledger, &challenge, market.height + 1, answers)
    };
    let operation = market.free(old.account, Body::StorageProof(replay));
    assert!(matches!(market.verdict(&operation), Code::ReadPath | Code::ReadOutsideSlot));
    market.members[0].hold(40);
    let operation = market.free(old.account, Body::StorageProof(truth(&market, &challenge)));
    assert_eq!(market.verdict(&operation), Code::Done);
}

#[test]
fn silence_pays_nothing_and_ends_with_four_failed_reads() {
    let (mut market, challenge) = drawn(4);
    let expiry = challenge.height + (LOCAL.pending_rounds_max + 1) * LOCAL.round_blocks;
    market.events.clear();
    market.reach(expiry).expect("the rules hold");
    let account = market.members[0].account;
    let settle =
        Settle { provider: account, index: 0, slots: Bounded::default(), endings: Bounded::default() };
    let audit: Audit = market.ledger.record(Audit::key(&account)).expect("registered");
    if audit.challenge == Some(challenge) {
        let operation = market.free(market.members[1].account, Body::Settle(settle));
        assert_eq!(market.verdict(&operation), Code::Done, "anyone may close a stale challenge");
    }
    market.reach(expiry + 20 * LOCAL.round_blocks).expect("the rules hold");
    let expired = market.events.iter().find_map(|(_, event)| match event {
        Event::Audited { provider, answered, passed, reads, on_time, .. } if *provider == account => {
            Some((*answered, *passed, *reads, *on_time))
        }
        _ => None,
    });
    assert_eq!(expired, Some((false, 0, 4, false)));
    assert_eq!(market.pay(0), Amount::ZERO);
    assert!(market.pay(1) > Amount::ZERO);
}

#[test]
fn what_is_claimed_beyond_signatures_is_never_paid_and_voids_no_proof() {
    let (mut market, challenge) = drawn(5);
    let agreement = market.members[0].agreement();
    let voucher = |agreement: AgreementId, egress| Voucher {
        agreement,
        units: Units::egress(egress),
        signature: [0; 64],
    };
    let redemption = |voucher, session_key, claim| Redemption { voucher, session_key, claim };
    let stranger = market.members[1].account;
    let older = AgreementId { opened: agreement.opened - 1, ..agreement };
    market.members[0].vouchers = vec![
        redemption(voucher(agreement, 10 << 20), CONSUMER, Some(Units::egress(1 << 40))),
        redemption(voucher(agreement, u64::MAX), CONSUMER, None),
        redemption(voucher(agreement, 20 << 20), stranger, None),
        redemption(voucher(older, 20 << 20), CONSUMER, None),
    ];
    market.members[0].terms.manner = Manner::Truthful;
    market.events.clear();
    market.reach(challenge.height + ANSWER_BLOCKS).expect("the rules hold");
    let paid = 10 * LOCAL.prices[Class::Egress];
    let usage: Usage = market.ledger.record(Usage::key(&agreement.provider, 0)).expect("open");
    assert_eq!(
        (usage.redeemed.egress, usage.signed.grains(), usage.disputed.grains()),
        (10 << 20, paid, paid)
    );
    let refused: Vec<Code> = market
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::VoucherRefused { code, .. } => Some(*code),
            _ => None,
        })
        .collect();
    assert_eq!(sorted(refused), [Code::BadSignature, Code::AgreementUnknown, Code::VoucherOverQuota]);
    let fees: Vec<u128> = market
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Settled { agreement: Some(_), fee, .. } => Some(fee.grains()),
            _ => None,
        })
        .collect();
    assert_eq!(fees, [paid]);
    let passed = market.events.iter().any(|(_, event)| matches!(event, Event::Audited { passed: 4, .. }));
    assert!(passed, "the proof beside them stands");
}

fn sorted(mut codes: Vec<Code>) -> Vec<Code> {
    codes.sort_unstable();
    codes
}

#[test]
fn a_read_missing_four_times_running_costs_twice_the_epochs_fee() {
    let mut market = Market::new(6, LOCAL, &[Terms::new(Manner::Truthful); 4]);
    let before = market.provider(0).bond;
    market.members[0].lose(20, 1);
    market.reach(12 * LOCAL.epoch_blocks()).expect("the rules hold");
    let weight = LOCAL.prices[Class::Storage] * u128::from(market.members[0].tree.leaves());
    let twice = Amount::new(2 * weight * u128::from(LOCAL.epoch_rounds) / (1 << 20)).expect("little");
    let taken: Vec<Amount> = market
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Restitution { provider, amount, .. } => {
                assert_eq!(*provider, market.members[0].account);
                Some(*amount)
            }
            _ => None,
        })
        .collect();
    assert!(!taken.is_empty() && taken.iter().all(|amount| *amount == twice), "{taken:?}, not {twice}");
    let sum = taken.iter().fold(Amount::ZERO, |sum, amount| sum.checked_add(*amount).expect("little"));
    assert_eq!(before.checked_sub(sum), Some(market.provider(0).bond));
}
