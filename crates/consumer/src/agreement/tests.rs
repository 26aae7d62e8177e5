//! Claims that the provider refused and the ledger shows all the same.

use super::*;
use posync_protocol::record::Version;

fn added(name: u8) -> Added {
    Added {
        file: [name; 16],
        segment: 0,
        position: 0,
        name: [name; 32],
        bytes: 100,
        sequence: 0,
        moves: false,
    }
}

fn state() -> State {
    let agreement = AgreementId { provider: Account([1; 32]), slot: 0, opened: 1 };
    State::new(0, agreement, 100, Default::default(), BTreeMap::new(), None).expect("nothing is a data set")
}

fn asked(state: &mut State, name: u8) -> DataSetClaim {
    assert!(state.reserve(100));
    state.queue(added(name));
    state.next_intent(false).expect("something is queued").claim
}

fn shown(claim: &DataSetClaim) -> Version {
    let DataSetClaim { version, root, leaves, bytes, .. } = *claim;
    Version { version, root, leaves, bytes, grown_at: 0 }
}

#[test]
fn what_was_given_up_is_signed_when_the_ledger_shows_it() {
    let mut state = state();
    let first = asked(&mut state, 1);
    assert_eq!(state.refuse().len(), 1);
    let second = asked(&mut state, 2);
    assert_eq!((first.version, second.version), (1, 1));
    assert!(!state.adopt(&Version::default()), "nothing is there yet");
    assert!(state.adopt(&shown(&first)));
    let agreed = state.sign([0; 64]).expect("the ledger has it");
    assert_eq!(agreed.adds.iter().map(|added| added.name).collect::<Vec<_>>(), [[1; 32]]);
    let third = state.next_intent(false).expect("the second is asked again");
    assert_eq!((third.claim.version, third.claim.leaves), (2, first.leaves + second.leaves));
    state.sign([0; 64]).expect("signed");
    assert_eq!(
        (state.totals().0, state.load()),
        (2, first.leaves + second.leaves),
        "nothing is reserved twice"
    );
    assert!(!state.adopt(&shown(&first)), "what was overtaken is forgotten");
}

#[test]
fn only_looks_after_a_refusal_show_that_it_was_none() {
    let mut looks = Looks { height: 10, count: 0 };
    [8, 9, 10, 10].into_iter().for_each(|height| looks.at(height));
    assert_eq!(looks.count, 0, "they began before it");
    [11, 11, 10].into_iter().for_each(|height| looks.at(height));
    assert_eq!(looks.count, 1, "the same state again shows nothing new");
    looks.at(12);
    assert_eq!(looks.count, 2);
}
