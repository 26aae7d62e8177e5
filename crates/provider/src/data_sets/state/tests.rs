//! Rules of the data sets: signing, keeping, submitting and removing versions.

use super::*;
use crate::fixtures::{CHAIN, claim_of, id, sign_of, terms};
use posync_protocol::{Class, record::Version};

fn shard(tag: u8) -> (Hash, u64) {
    ([tag; 32], 1_000 * u64::from(tag))
}

/// Length of a stored shard; every tag below 100 is stored.
fn held(shard: &Hash) -> Option<u32> {
    (shard[0] < 100).then_some(1_000 * u32::from(shard[0]))
}

fn judge(state: &State, ask: &Sign) -> Result<Change, No> {
    state.judge(&terms(), ask, &CHAIN, held)
}

fn in_force(claim: &DataSetClaim) -> DataSet {
    let DataSetClaim { version, root, leaves, bytes, .. } = *claim;
    DataSet { current: Version { version, root, leaves, bytes, grown_at: 0 }, next: None }
}

#[test]
fn only_what_follows_from_a_kept_version_is_signed() {
    let first = sign_of(1, &[], &[], &[shard(1), shard(2)]);
    let mut state = State::default();
    state.keep(&judge(&state, &first).expect("the first version"), 0);
    let base = [shard(1), shard(2)];
    let mut forged = sign_of(2, &base, &[], &[shard(3)]);
    forged.signature[0] ^= 1;
    let mut other = sign_of(2, &base, &[], &[shard(3)]);
    other.claim.agreement.opened += 1;
    let mut lie = sign_of(2, &base, &[], &[shard(3)]);
    lie.claim.leaves += 1;
    let lie = Sign { signature: claim_of(&lie.claim), ..lie };
    let mut huge = sign_of(2, &base, &[], &[shard(3)]);
    huge.claim.leaves = u64::MAX;
    let huge = Sign { signature: claim_of(&huge.claim), ..huge };
    for (name, ask, expected) in [
        ("grow", sign_of(2, &base, &[], &[shard(3)]), Ok((1, first.claim.root))),
        ("shrink", sign_of(2, &base, &[0], &[]), Ok((1, first.claim.root))),
        ("replace", sign_of(2, &base, &[1], &[shard(3)]), Ok((1, first.claim.root))),
        ("empty", sign_of(2, &base, &[0, 1], &[]), Ok((1, first.claim.root))),
        ("another first", sign_of(1, &[], &[], &[shard(4)]), Ok((0, [0; 32]))),
        ("the same again", first.clone(), Ok((0, [0; 32]))),
        ("forged", forged, Err(Refusal::Claim)),
        ("other agreement", other, Err(Refusal::Claim)),
        ("wrong leaves", lie, Err(Refusal::Claim)),
        ("above the quota", huge, Err(Refusal::Space)),
        ("not stored", sign_of(2, &base, &[], &[shard(100)]), Err(Refusal::Claim)),
        ("wrong length", sign_of(2, &base, &[], &[([3; 32], 1)]), Err(Refusal::Claim)),
        ("unknown parent", sign_of(3, &base, &[], &[shard(3)]), Err(Refusal::Claim)),
        ("version 0", sign_of(0, &[], &[], &[shard(3)]), Err(Refusal::Claim)),
    ] {
        let got = judge(&state, &ask).map(|change| change.parent).map_err(|no| no.0);
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn versions_are_kept_until_the_ledger_is_past_them() {
    let mut state = State::default();
    let first = sign_of(1, &[], &[], &[shard(1), shard(2)]);
    let second = sign_of(2, &[shard(1), shard(2)], &[0], &[shard(3)]);
    let other = sign_of(2, &[shard(1), shard(2)], &[], &[shard(4)]);
    let third = sign_of(3, &[shard(2), shard(3)], &[], &[shard(5)]);
    for ask in [&first, &second, &other, &third] {
        let change = judge(&state, ask).expect("follows");
        state.keep(&change, 0);
    }
    assert!(state.observe(id(), &in_force(&first.claim)).is_empty());
    assert_eq!(state.owed(), [[1; 32], [2; 32]].into());
    assert_eq!(state.observe(id(), &in_force(&second.claim)), [[1; 32], [4; 32]]);
    assert_eq!(state.tree(&id(), (2, other.claim.root)), None);
    assert!(state.observe(id(), &in_force(&first.claim)).is_empty(), "the ledger never goes back");
    // A shard that is leaving may not be signed for until it is put again.
    let going = vec![[1; 32], [4; 32]];
    assert_eq!(released(&mut state, (going.clone(), 7), 7, &[]), going);
    let back = sign_of(3, &[shard(2), shard(3)], &[], &[shard(1)]);
    assert_eq!(judge(&state, &back).map_err(|no| no.0).map(drop), Err(Refusal::Claim));
    state.gone(id(), &[[1; 32], [4; 32]]);
    judge(&state, &back).expect("stored again");
    assert!(state.observe(id(), &in_force(&third.claim)).is_empty());
    let mut unknown = in_force(&third.claim);
    unknown.current.version = 4;
    unknown.current.root = [9; 32];
    assert!(state.observe(id(), &unknown).is_empty());
    assert!(state.is_unknown(&id()));
    assert_eq!(state.end(&id()), [[2; 32], [3; 32], [5; 32]]);
    assert_eq!(state.size(), 0);
}

/// The ledger's data set record after these claims.
fn ledger(current: &DataSetClaim, next: &DataSetClaim) -> DataSet {
    DataSet { next: Some(in_force(next).current), ..in_force(current) }
}

/// A chain of versions, each with one more shard, signed ten heights apart.
fn grown(versions: u8) -> (State, Vec<Sign>) {
    let (mut state, mut asks, mut shards) = (State::default(), vec![], vec![]);
    for version in 1..=versions {
        let ask = sign_of(version.into(), &shards, &[], &[shard(version)]);
        let change = judge(&state, &ask).expect("follows");
        state.keep(&change, 10 * u64::from(version));
        shards.push(shard(version));
        asks.push(ask);
    }
    (state, asks)
}

#[test]
fn what_stands_as_next_stays_with_everything_above_it_and_nothing_between() {
    let (mut state, asks) = grown(5);
    let base = [shard(1), shard(2)];
    let other = sign_of(3, &base, &[], &[shard(30)]);
    state.keep(&judge(&state, &other).expect("another third"), 0);
    let kept = |state: &State| -> Vec<u64> { state.data_sets[&id()].versions.keys().map(|v| v.0).collect() };
    state.observe(id(), &in_force(&asks[0].claim));
    // 2 and the other 3 can never take effect any more (DS-1).
    assert_eq!(state.observe(id(), &ledger(&asks[0].claim, &asks[2].claim)), [[30; 32]]);
    assert_eq!(kept(&state), [1, 3, 4, 5]);
    assert!(state.tree(&id(), (1, asks[0].claim.root)).is_some(), "reads fall on it until 3 takes effect");
    assert!(state.observe(id(), &in_force(&asks[0].claim)).is_empty(), "an older look changes nothing");
    assert_eq!(kept(&state), [1, 3, 4, 5]);
    // It is replaced before it takes effect.
    state.observe(id(), &ledger(&asks[0].claim, &asks[4].claim));
    assert_eq!(kept(&state), [1, 5]);
    state.observe(id(), &in_force(&asks[4].claim));
    assert_eq!(kept(&state), [5]);
    assert_eq!(state.owed().len(), 5);
}

#[test]
fn nothing_is_signed_that_the_ledger_is_past() {
    let (mut state, asks) = grown(3);
    state.observe(id(), &ledger(&asks[0].claim, &asks[1].claim));
    let base = [shard(1)];
    let void = sign_of(2, &base, &[], &[shard(9)]);
    assert!(judge(&state, &void).is_err_and(|(_, text)| text.contains("has version 2")));
    let above = sign_of(3, &[shard(1), shard(2)], &[], &[shard(9)]);
    judge(&state, &above).expect("another third may still come");
    // A proof shows the ledger further than the data sets have seen.
    let mut late = terms();
    late.data = in_force(&asks[2].claim);
    let no = state.judge(&late, &above, &CHAIN, held);
    assert!(no.is_err_and(|(_, text)| text.contains("has version 3")));
}

#[test]
fn a_set_that_the_consumer_emptied_alone_is_known_and_followed() {
    let (mut state, asks) = grown(2);
    state.observe(id(), &in_force(&asks[1].claim));
    let empty = sign_of(90, &[], &[], &[]);
    let mut emptied = terms();
    emptied.data = in_force(&empty.claim);
    let first = sign_of(91, &[], &[], &[shard(7)]);
    state.judge(&emptied, &first, &CHAIN, held).expect("it is proved, if not observed");
    assert_eq!(state.observe(id(), &emptied.data), [[1; 32], [2; 32]]);
    assert!(!state.is_unknown(&id()));
    assert!(state.tree(&id(), (90, EMPTY_ROOT)).is_some_and(|tree| tree.is_empty()));
    state.keep(&judge(&state, &first).expect("on the empty one"), 0);
    state.observe(id(), &in_force(&first.claim));
    assert_eq!(state.owed(), [[7; 32]].into());
}

/// Lets shards go as terms of a height show; returns those that an audit of `at` releases.
fn released(state: &mut State, (shards, height): (Vec<Hash>, u64), at: u64, asked: &[Hash]) -> Vec<Hash> {
    state.let_go(id(), shards, height);
    let asked = asked.iter().map(|shard| (id().slot, *shard)).collect();
    state.release(at, &asked).into_values().flatten().collect()
}

const NONE: [Hash; 0] = [];

#[test]
fn a_shard_goes_once_an_audit_as_new_as_the_terms_without_it_asks_no_read_of_it_again() {
    let (mut state, asks) = grown(1);
    let swap = sign_of(2, &[shard(1)], &[0], &[shard(2), shard(3)]);
    state.keep(&judge(&state, &swap).expect("follows"), 0);
    state.observe(id(), &in_force(&asks[0].claim));
    let going = state.observe(id(), &in_force(&swap.claim));
    assert_eq!(going, [[1; 32]]);
    assert_eq!(released(&mut state, (going, 50), 49, &[]), NONE, "an older audit shows nothing");
    assert_eq!(released(&mut state, (vec![], 0), 50, &[[1; 32], [3; 32]]), NONE, "it is asked again (RD-7)");
    assert_eq!(released(&mut state, (vec![[1; 32]], 60), 59, &[]), NONE, "newer terms, as a loose shard");
    assert_eq!(released(&mut state, (vec![[1; 32]], 40), 59, &[]), NONE, "older terms change nothing");
    assert!(!state.is_leaving(&id(), &[1; 32]), "what stays may be signed for");
    let other = AgreementId { slot: id().slot + 1, ..id() };
    state.let_go(other, vec![[1; 32]], 60);
    let all = state.release(60, &[(id().slot, [1; 32])].into());
    assert_eq!(all, [(other, vec![[1; 32]])].into(), "a read of another slot is none of it");
    assert_eq!(released(&mut state, (vec![], 0), 60, &[]), [[1; 32]], "not any more");
    assert!(state.is_leaving(&id(), &[1; 32]) && !state.take_back(id(), [1; 32]), "it is being removed");
    state.gone(id(), &[[1; 32]]);
    assert!(state.take_back(id(), [1; 32]));
    assert_eq!(released(&mut state, (vec![[4; 32]], 70), 69, &[]), NONE);
    assert_eq!(state.end(&id()), [[2; 32], [3; 32], [4; 32]], "an agreement that is gone asks nothing");
    assert!(state.unheld.is_empty());
}

#[test]
fn a_shard_that_is_put_or_signed_for_again_does_not_go() {
    let (mut state, asks) = grown(2);
    state.observe(id(), &in_force(&asks[1].claim));
    assert_eq!(released(&mut state, (vec![[7; 32], [8; 32]], 50), 49, &[]), NONE);
    assert!(state.take_back(id(), [7; 32]), "it is put again");
    let again = sign_of(3, &[shard(1), shard(2)], &[], &[shard(8)]);
    state.keep(&judge(&state, &again).expect("it is there"), 50);
    assert_eq!(released(&mut state, (vec![], 0), 50, &[]), NONE);
    assert!(state.unheld.is_empty());
}

#[test]
fn the_pay_that_is_missed_counts_from_each_signature_to_the_next() {
    // Each version adds leaves (1, 2, 4 and 6), signed at heights 10, 20, 30 and 40.
    let (mut state, asks) = grown(4);
    let leaves: Vec<u64> = asks.iter().map(|ask| ask.claim.leaves).collect();
    let parameters = Parameters { round_blocks: 1, burn: ONE / 5, committee: ONE / 20, ..Parameters::LOCAL };
    let mut terms = terms();
    (terms.agreement.prices[Class::Storage].price, terms.agreement.prices[Class::Storage].slow) =
        (4 << 20, 8 << 20);
    let missed = |state: &State, terms: &Terms, height| {
        let found = state.missed(terms, height, &parameters);
        found.map(|(bringing, pay)| (bringing.claim.version, pay))
    };
    let all: u64 = leaves.iter().map(|leaves| leaves * 10).sum();
    assert_eq!(missed(&state, &terms, 50), Some((4, u128::from(3 * all))), "three quarters of four grains");
    let (bringing, _) = state.missed(&terms, 50, &parameters).expect("waits");
    assert_eq!((bringing.claim, bringing.signature), (asks[3].claim, asks[3].signature));
    // The ledger's own versions are paid, or will be; the data sets must have seen them.
    terms.data = ledger(&asks[0].claim, &asks[2].claim);
    assert_eq!(missed(&state, &terms, 50), None, "the data sets lag behind");
    state.observe(id(), &terms.data);
    let more = u128::from(leaves[3] - leaves[2]);
    assert_eq!(missed(&state, &terms, 70), Some((4, 3 * more * 30)));
    (terms.agreement.prices[Class::Storage].price, terms.agreement.prices[Class::Storage].slow) =
        (4 << 20, 2 << 20);
    assert_eq!(missed(&state, &terms, 70), Some((4, 3 * more * 30 / 2)), "paid at the lower price");
    terms.data = in_force(&asks[3].claim);
    state.observe(id(), &terms.data);
    assert_eq!(missed(&state, &terms, 70), None);
    let shrunk = sign_of(5, &[shard(1), shard(2), shard(3), shard(4)], &[3], &[]);
    state.keep(&judge(&state, &shrunk).expect("follows"), 70);
    assert_eq!(missed(&state, &terms, 99), None, "less is the consumer's to bring");
}

#[test]
fn at_most_32_versions_wait_above_what_the_ledger_has() {
    let most = u8::try_from(VERSIONS_MAX).expect("small");
    let (mut state, asks) = grown(most);
    let shards: Vec<_> = (1..=most).map(shard).collect();
    let ask = sign_of(u64::from(most) + 1, &shards, &[], &[shard(99)]);
    let (reason, text) = judge(&state, &ask).expect_err("one too many");
    assert_eq!(reason, Refusal::Busy, "it passes");
    assert!(text.contains("bring one there first"), "{text}");
    // A submitted version makes room for itself and for all before it.
    state.observe(id(), &ledger(&asks[0].claim, &asks[30].claim));
    judge(&state, &ask).expect("two wait");
}
