//! Tables for the memory: which signatures are evidence, which are sent, which are dropped.

use super::state::{AHEAD_MAX, Contradiction, HEADERS_MAX, OUTBOX_MAX, Sighting, State, TERMS_KEPT};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use posync_protocol::{
    Account, Amount, Body, Hash, Operation,
    block::{HEADER_NAMESPACE, Header},
    ledger::BlockContext,
    limits::Parameters,
    operation::{AuditCommit, Evidence, check_structure, sign},
};

const CHAIN: Hash = [9; 32];
const LOCAL: Parameters = Parameters::LOCAL;

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(seed)
}

fn account(seed: u64) -> Account {
    Account::of(&key(seed).public_key())
}

/// Creates a state that knows seats 1 and 2.
fn state() -> State {
    State::new(CHAIN, LOCAL, [account(1), account(2)])
}

fn resign(seed: u64, mut header: Header) -> Header {
    header.leader = account(seed);
    header.signature = sign(&key(seed), HEADER_NAMESPACE, &header.signed_bytes());
    header
}

/// A header of `seed` for a view; different values of `time_ms` make different headers.
fn header(seed: u64, (term, view): (u64, u64), time_ms: u64) -> Header {
    let zero = [0; 32];
    let header = Header {
        version: 1,
        chain: CHAIN,
        term,
        view,
        leader: account(seed),
        parent_view: 0,
        parent: zero,
        height: term * LOCAL.term_blocks() + view,
        time_ms,
        beacon: None,
        body_root: zero,
        receipts_root: zero,
        state_root: zero,
        ops_root: zero,
        range_start: 0,
        range_end: 1,
        signature: [0; 64],
    };
    resign(seed, header)
}

/// The verdict of a verifying node on the operation that submits it.
fn holds(found: &Contradiction) -> bool {
    let body = Body::Evidence(found.evidence.clone());
    let operation = Operation::signed(&key(7), &CHAIN, 0, Amount::sync(1), 20, body);
    let context = BlockContext {
        chain: CHAIN,
        parameters: LOCAL,
        height: 10,
        leader: Account::default(),
        parent: [0; 32],
        seed: None,
    };
    check_structure(&operation, &context).is_ok()
        && operation.signatures(&CHAIN).iter().all(|check| check.verify())
}

#[test]
fn what_two_headers_are_evidence() {
    let first = header(1, (0, 5), 1);
    let mut variant = first.clone();
    variant.signature[0] ^= 1;
    let mut forged = header(1, (0, 5), 2);
    forged.signature[0] ^= 1;
    let table = [
        ("another time", header(1, (0, 5), 2), true),
        ("another height", resign(1, Header { height: 9, ..first.clone() }), true),
        ("the same again", first.clone(), false),
        ("the same under another signature", variant, false),
        ("a forged one", forged, false),
        ("another view", header(1, (0, 6), 2), false),
        ("another term", header(1, (1, 5), 2), false),
        ("another leader", header(2, (0, 5), 2), false),
        ("of another chain", resign(1, Header { chain: [1; 32], ..first.clone() }), false),
        ("signed for another", Header { leader: account(1), ..header(2, (0, 5), 2) }, false),
    ];
    for (what, second, is_evidence) in table {
        for [one, other] in [[&first, &second], [&second, &first]] {
            let mut state = state();
            assert_eq!(state.header(one), None, "{what}");
            let found = state.header(other);
            assert_eq!(found.is_some(), is_evidence, "{what}");
            assert!(found.is_none_or(|found| holds(&found)), "{what}");
            assert_eq!(state.accused().len(), usize::from(is_evidence), "{what}");
        }
    }
}

#[test]
fn strangers_are_not_remembered() {
    let mut state = state();
    for time in 0..3 {
        assert_eq!(state.header(&header(3, (0, 5), time)), None);
    }
}

#[test]
fn a_fault_is_found_once_an_epoch_and_told() {
    let mut state = state();
    let pairs = [((0, 5), true), ((0, 6), false), ((1, 5), true)];
    for (place, is_new) in pairs {
        state.header(&header(1, place, 1));
        assert_eq!(state.header(&header(1, place, 2)).is_some(), is_new, "{place:?}");
        assert_eq!(state.header(&header(1, place, 3)), None, "one is enough");
    }
    let sent = state.take_outbox();
    assert!(sent.len() == 2 && sent.iter().all(|sighting| matches!(sighting, Sighting::Evidence(_))));
    assert!(!state.has_news() && state.take_outbox().is_empty(), "sent once");
    let open = state.open();
    assert_eq!(open.iter().map(|(fault, _)| *fault).collect::<Vec<_>>(), [0, 1].map(|e| (e, account(1))));
    state.close(&(0, account(1)));
    assert_eq!(state.open().len(), 1);
    assert_eq!(state.header(&header(1, (0, 5), 4)), None, "what is closed is not opened again");
}

/// Half were shown A, half B, and neither became final: each authority holds one until they exchange them.
#[test]
fn who_holds_what_the_chain_passed_over_tells_it() {
    let (mut left, mut right) = (state(), state());
    left.header(&header(1, (0, 5), 1));
    right.header(&header(1, (0, 5), 2));
    for state in [&mut left, &mut right] {
        assert!(state.block(&header(2, (0, 4), 0), &[]).is_empty() && !state.has_news(), "not passed yet");
        assert!(state.block(&header(2, (0, 7), 0), &[]).is_empty() && state.has_news());
    }
    let (from_left, from_right) = (left.take_outbox(), right.take_outbox());
    assert_eq!((from_left.len(), from_right.len()), (1, 1));
    for (state, sent) in [(&mut left, from_right), (&mut right, from_left)] {
        let found = state.hear(&sent[0]).expect("two of one view");
        assert!(holds(&found) && found.height == 7);
        assert!(matches!(state.take_outbox()[..], [Sighting::Evidence(_)]));
        state.block(&header(2, (0, 8), 0), &[]);
        assert!(!state.has_news(), "nothing is sent twice");
    }
}

/// One was shown B, the others made A final: the holder of B needs no one else.
#[test]
fn a_final_block_contradicts_another_of_its_view() {
    let mut state = state();
    state.header(&header(1, (0, 5), 1));
    assert_eq!(state.block(&header(1, (0, 5), 2), &[]).len(), 1);
    let mut late = self::state();
    late.block(&header(1, (0, 5), 2), &[]);
    late.block(&header(2, (0, 6), 0), &[]);
    assert!(!late.has_news(), "final headers are not sent");
    assert!(late.header(&header(1, (0, 5), 1)).is_some(), "shown later");
}

#[test]
fn what_others_told_is_not_told_again() {
    let mut first = state();
    first.hear(&Sighting::Header(header(1, (0, 5), 1)));
    first.block(&header(2, (0, 6), 0), &[]);
    assert!(!first.has_news());
    let mut second = state();
    second.header(&header(1, (0, 5), 1));
    let found = second.header(&header(1, (0, 5), 2)).expect("evidence");
    assert_eq!(first.hear(&Sighting::Evidence(found.evidence)).map(|found| holds(&found)), Some(true));
}

#[test]
fn the_memory_is_bounded_and_a_seat_cannot_empty_it() {
    let mut state = state();
    state.block(&header(2, (3, 20), 0), &[]);
    let mine = header(1, (3, 21), 1);
    state.header(&mine);
    // All headers that it may sign ahead, and those of earlier terms.
    for view in 0..=AHEAD_MAX + 3 {
        for term in 1..6 {
            state.header(&header(1, (term, 22 + view), 5));
        }
    }
    assert!(state.header(&header(1, (3, 21), 2)).is_some(), "it is still held");
    let ahead = [(3, 20 + AHEAD_MAX, true), (3, 21 + AHEAD_MAX, false), (4, AHEAD_MAX, true)];
    let beyond = [(4, AHEAD_MAX + 1, false), (5, 1, false), (1, 1, true), (0, 1, false)];
    for (term, view, is_kept) in ahead.into_iter().chain(beyond) {
        let mut state = self::state();
        state.block(&header(2, (3, 20), 0), &[]);
        state.header(&header(1, (term, view), 1));
        assert_eq!(state.header(&header(1, (term, view), 2)).is_some(), is_kept, "{term} {view}");
    }
    let mut state = self::state();
    state.block(&header(2, (0, HEADERS_MAX as u64), 0), &[]);
    for view in 0..=HEADERS_MAX as u64 {
        state.header(&header(1, (0, view), 1));
    }
    assert_eq!(state.header(&header(1, (0, 0), 2)), None, "the lowest gave way");
    assert!(state.header(&header(1, (0, HEADERS_MAX as u64), 2)).is_some());
}

/// While no final block is known, or a node resumes, junk of distant terms is not kept.
#[test]
fn a_memory_begins_at_what_is_final() {
    for (height, near) in [(0, (0, 9)), (0, (1, 9)), (9 * LOCAL.term_blocks() + 5, (9, 40))] {
        for (place, is_kept) in [(near, true), ((u64::MAX, u64::MAX), false), ((near.0 + 2, 1), false)] {
            let mut state = state();
            state.begin(height);
            state.header(&header_at(1, place, 1));
            assert_eq!(state.header(&header_at(1, place, 2)).is_some(), is_kept, "{height} {place:?}");
            state.block(&header(2, (9, 41), 0), &[]);
        }
    }
}

/// A header of a place whose height is unknown.
fn header_at(seed: u64, (term, view): (u64, u64), time_ms: u64) -> Header {
    resign(seed, Header { term, view, ..header(seed, (0, 0), time_ms) })
}

#[test]
fn old_terms_are_forgotten_and_so_are_old_faults() {
    let mut state = state();
    state.header(&header(1, (0, 5), 1));
    state.header(&header(2, (0, 5), 1));
    assert!(state.header(&header(2, (0, 5), 2)).is_some());
    state.block(&header(2, (TERMS_KEPT, 1), 0), &[]);
    assert_eq!(state.header(&header(1, (0, 5), 2)), None);
    assert_eq!(state.open().len(), 1, "evidence counts longer");
    state.block(&header(2, (14, 1), 0), &[]);
    assert_eq!(state.open().len(), 1);
    state.block(&header(2, (15, 1), 0), &[]);
    assert!(state.open().is_empty() && state.accused().is_empty());
}

#[test]
fn what_waits_to_be_told_is_bounded() {
    let mut state = state();
    state.block(&header(2, (0, OUTBOX_MAX as u64), 0), &[]);
    for view in 1..=OUTBOX_MAX as u64 + 9 {
        state.header(&header(1, (0, view), 1));
    }
    state.block(&header(2, (1, 1), 0), &[]);
    let sent = state.take_outbox();
    assert_eq!(sent.len(), OUTBOX_MAX);
    assert_eq!(sent.first(), Some(&Sighting::Header(header(1, (0, 10), 1))), "the oldest gave way");
}

fn commit(seed: u64, epoch: u64, digest: u8) -> AuditCommit {
    AuditCommit::signed(&key(seed), &CHAIN, epoch, [digest; 32])
}

#[test]
fn what_two_commitments_are_evidence() {
    let mut variant = commit(1, 2, 1);
    variant.signature[0] ^= 1;
    let mut forged = commit(1, 2, 2);
    forged.signature[0] ^= 1;
    let table = [
        ("another digest", 1, commit(1, 2, 2), true),
        ("the same again", 1, commit(1, 2, 1), false),
        ("the same under another signature", 1, variant, false),
        ("a forged one", 1, forged, false),
        ("of another epoch", 1, commit(1, 1, 2), false),
        ("of another seat", 2, commit(2, 2, 2), false),
        ("signed by another", 1, commit(2, 2, 2), false),
    ];
    for (what, seat, second, is_evidence) in table {
        let mut state = state();
        state.block(&header(2, (2, 1), 0), &[]);
        assert_eq!(state.commitment(&account(1), &commit(1, 2, 1)), None);
        let found = state.commitment(&account(seat), &second);
        assert_eq!(found.is_some(), is_evidence, "{what}");
        let Some(found) = found else { continue };
        assert!(holds(&found) && found.evidence.epoch(&LOCAL) == 2);
        let mut other = self::state();
        other.block(&header(2, (2, 1), 0), &[]);
        assert!(other.hear(&Sighting::Evidence(found.evidence)).is_some(), "who is sent knows as much");
    }
}

#[test]
fn commitments_are_kept_of_this_epoch_and_its_neighbours() {
    for (epoch, is_kept) in [(0, false), (1, true), (2, true), (3, true), (4, false), (u64::MAX, false)] {
        let mut state = state();
        assert_eq!(state.commitment(&account(1), &commit(1, epoch, 1)), None, "the first one");
        state.block(&header(2, (2, 1), 0), &[]);
        state.commitment(&account(1), &commit(1, epoch, 1));
        assert_eq!(state.commitment(&account(1), &commit(1, epoch, 2)).is_some(), is_kept, "{epoch}");
    }
}

/// A block may hold a commitment that another mempool accepted; the ledger's refusal does not unsign it.
#[test]
fn commitments_in_blocks_count_too() {
    let mut state = state();
    let operation = |digest| {
        let body = Body::AuditCommit(commit(1, 0, digest));
        Operation::signed(&key(1), &CHAIN, u64::from(digest), Amount::sync(1), 20, body)
    };
    assert!(state.block(&header(2, (0, 1), 0), &[operation(1)]).is_empty());
    let found = state.block(&header(2, (0, 2), 0), &[operation(2)]);
    assert!(matches!(found[..], [Contradiction { evidence: Evidence::Commitments(_), .. }]));
}
