//! The right to sign, decided without a network.

use super::state::{Answered, SigningRight, State, Word};
use crate::{
    engine::{PrivateKey, PublicKey},
    epoch::{
        Directory, DirectoryEntry, Weights,
        secrets::{Secrets, SignedAt, Wait},
    },
    genesis::{Genesis, deal},
};
use commonware_cryptography::{
    Signer as _,
    bls12381::primitives::group::{Private, Scalar, Share},
};
use commonware_runtime::deterministic;
use commonware_utils::{
    Participant, TestRng,
    ordered::{Map, Set},
};
use posync_protocol::{
    Account, Amount,
    block::{HEADER_NAMESPACE, Header},
    limits::Parameters,
    operation::sign,
};

struct Net {
    genesis: Genesis,
    keys: Vec<PrivateKey>,
    weights: Weights,
}

impl Net {
    fn new() -> Self {
        let addresses: Vec<_> =
            (0..4).map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], 9_000 + port))).collect();
        let (genesis, secrets) =
            deal(&addresses, Parameters::LOCAL, Amount::sync(50_000), Vec::new(), TestRng::new(1))
                .expect("valid");
        let keys = secrets.into_iter().map(|secret| secret.key).collect();
        Self { genesis, keys, weights: Weights::default() }
    }

    fn members(&self) -> Set<PublicKey> {
        Set::from_iter_dedup(self.keys.iter().map(PrivateKey::public_key))
    }

    fn state(&self, secrets: &Secrets, other_stopped: bool) -> State {
        self.state_of(secrets, Word { other_stopped, agreed: None })
    }

    fn state_of(&self, secrets: &Secrets, word: Word) -> State {
        State::new(&self.genesis, &self.keys[0].public_key(), secrets.clone(), word, self.weights.clone())
    }

    fn key(&self, index: usize) -> PublicKey {
        self.keys[index].public_key()
    }

    /// A proposal that authority `leader` signed with the key of authority `signer`.
    fn header(&self, leader: usize, signer: usize, [term, view]: SignedAt) -> Header {
        let mut header = self.genesis.block::<deterministic::Context>().header().clone();
        (header.term, header.view, header.height) = (term, view, 100);
        header.leader = Account::of(&self.keys[leader].public_key());
        header.signature = sign(&self.keys[signer], HEADER_NAMESPACE, &header.signed_bytes());
        header
    }

    /// Two of the other three answer; returns the last change.
    fn round(&self, state: &mut State, answer: &Answered, now_ms: u64) -> Option<SigningRight> {
        let first = state.answered(&self.key(1), answer, now_ms);
        state.answered(&self.key(2), answer, now_ms).or(first)
    }

    /// Two of the other three answer with `header` in a term; returns the last change.
    fn ask(&self, state: &mut State, term: u64, header: Option<&Header>) -> Option<SigningRight> {
        assert_eq!(state.term(term, &self.members()), None, "nobody has answered");
        let answer = with(header);
        assert_eq!(state.answered(&self.key(1), &answer, 1_000), None, "one is too few");
        assert_eq!(state.answered(&self.key(1), &answer, 1_000), None, "nor is it twice");
        state.answered(&self.key(2), &answer, 1_000)
    }
}

/// Milliseconds after which a second round of answers shows that four authorities stand still.
const LATER: u64 = 4_000;

/// An answer with this proposal.
fn with(header: Option<&Header>) -> Answered {
    Answered { newest: header.cloned(), time_ms: 1_000, ..Answered::default() }
}

/// An answer of a node that has applied `height` and proves it, with this vote.
fn at(height: u64, vote: Option<SignedAt>) -> Answered {
    Answered { height, proved: Some(height), vote, ..Answered::default() }
}

fn run_before(term: u64, view: u64) -> Secrets {
    let secrets = Secrets::memory();
    assert!(secrets.may_propose(term, view));
    secrets
}

#[test]
fn a_node_signs_once_a_quorum_knows_no_newer_proposal_of_its_key() {
    let net = Net::new();
    for (seen, signs) in [(None, true), (Some([3, 9]), true), (Some([3, 10]), false), (Some([4, 1]), false)] {
        let secrets = run_before(3, 9);
        let header = seen.map(|seen| net.header(0, 0, seen));
        let right = net.ask(&mut net.state(&secrets, false), 3, header.as_ref()).expect("decided");
        assert_eq!(right == SigningRight::Signs, signs, "{seen:?}");
        assert_eq!(matches!(right, SigningRight::Refused(_)), !signs, "{seen:?}");
        assert_eq!(secrets.proposed(), Some([3, 9]), "the record stays");
    }
}

#[test]
fn a_liar_can_neither_stop_a_node_nor_answer_for_two() {
    let net = Net::new();
    let secrets = run_before(3, 9);
    let mut state = net.state(&secrets, false);
    for forged in [net.header(0, 1, [9, 9]), net.header(1, 1, [9, 9])] {
        assert_eq!(net.ask(&mut net.state(&secrets, false), 3, Some(&forged)), Some(SigningRight::Signs));
    }
    let mut foreign = net.header(0, 0, [9, 9]);
    foreign.chain = [7; 32];
    foreign.signature = sign(&net.keys[0], HEADER_NAMESPACE, &foreign.signed_bytes());
    assert_eq!(net.ask(&mut state, 3, Some(&foreign)), Some(SigningRight::Signs), "of another chain");
    let stranger = PrivateKey::from_seed(77).public_key();
    let mut state = net.state(&secrets, false);
    state.term(3, &net.members());
    state.answered(&net.key(1), &with(None), 0);
    assert_eq!(state.answered(&stranger, &with(None), 0), None, "a stranger does not count");
}

#[test]
fn another_process_with_the_key_is_noticed_at_any_time() {
    let net = Net::new();
    let secrets = run_before(3, 9);
    let mut state = net.state(&secrets, false);
    assert_eq!(net.ask(&mut state, 3, None), Some(SigningRight::Signs));
    assert!(secrets.may_propose(3, 12));
    assert_eq!(state.saw(&net.header(0, 0, [3, 12])), None, "its own");
    assert_eq!(state.saw(&net.header(1, 1, [3, 13])), None, "another's");
    let Some(SigningRight::Refused(refusal)) = state.saw(&net.header(0, 0, [3, 16])) else {
        panic!("it goes on beside the other");
    };
    assert_eq!((refusal.own, refusal.seen, refusal.height), (Some([3, 12]), [3, 16], Some(100)));
}

#[test]
fn a_node_without_a_record_waits_for_the_next_term_across_restarts() {
    let net = Net::new();
    let secrets = Secrets::memory();
    let mut state = net.state(&secrets, false);
    let old = net.header(0, 0, [3, 9]);
    assert_eq!(net.ask(&mut state, 3, Some(&old)), Some(SigningRight::Waits(4)));
    let mut state = net.state(&secrets, false);
    assert_eq!(net.ask(&mut state, 3, Some(&old)), Some(SigningRight::Waits(4)), "what it knew is no news");
    assert_eq!(state.term(4, &net.members()), Some(SigningRight::Signs));
    assert!(!secrets.may_propose(3, 1_000) && secrets.may_propose(4, 1));
    let own = net.header(0, 0, [4, 1]);
    assert_eq!(net.ask(&mut net.state(&secrets, false), 4, Some(&own)), Some(SigningRight::Signs));
}

/// Nothing can be signed in a term that has not begun. But a process that would sign in it must have the time to
/// show itself.
#[test]
fn a_node_without_a_record_skips_a_term_that_begins_before_it_has_listened() {
    let net = Net::new();
    let term = net.genesis.parameters.term_blocks();
    // Eight blocks for each of four members.
    for (height, from) in [(3 * term, 4), (4 * term - 32, 4), (4 * term - 31, 5), (4 * term - 1, 5)] {
        let mut state = net.state(&Secrets::memory(), false);
        state.term(3, &net.members());
        state.answered(&net.key(1), &at(height, None), 0);
        assert_eq!(
            state.answered(&net.key(2), &at(height, None), 0),
            Some(SigningRight::Waits(from)),
            "{height}"
        );
    }
}

/// A process of a seat that leads no view never proposes, however long the node listens for it. The terms of four
/// seats are as short as that listening, so it would cost such a seat almost always a whole term more.
#[test]
fn a_node_of_a_seat_without_weight_loses_no_term_by_listening_for_proposals() {
    let net = Net::new();
    let term = net.genesis.parameters.term_blocks();
    let waits = |weights: [u64; 4], known: u64, height: u64| {
        let entry = |(key, weight): (&PrivateKey, u64)| {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
            (key.public_key(), DirectoryEntry { address, weight })
        };
        let entries = net.keys.iter().zip(weights).map(entry);
        net.weights.set(known, &Directory(Map::from_iter_dedup(entries)));
        let mut state = net.state(&Secrets::memory(), false);
        state.term(3, &net.members());
        state.answered(&net.key(1), &at(height, None), 0);
        state.answered(&net.key(2), &at(height, None), 0)
    };
    for (left, from) in [(31, 4), (16, 4), (15, 5), (1, 5)] {
        assert_eq!(
            waits([0, 1, 1, 1], 3, 4 * term - left),
            Some(SigningRight::Waits(from)),
            "{left} blocks left"
        );
    }
    let near = 4 * term - 31;
    assert_eq!(waits([1, 0, 1, 1], 3, near), Some(SigningRight::Waits(5)), "it leads");
    assert_eq!(
        waits([0, 0, 1, 1], 3, near),
        Some(SigningRight::Waits(5)),
        "all take turns: no quorum has weight"
    );
    assert_eq!(waits([0, 0, 0, 0], 3, near), Some(SigningRight::Waits(5)), "all take turns");
    net.weights.set(3, &Directory(Map::default()));
    assert_eq!(
        waits([0, 1, 1, 1], 2, near),
        Some(SigningRight::Waits(5)),
        "its weight in this term is not known"
    );
}

/// An authority that lags has not seen what it would have to report: its answer counts once it has caught up.
#[test]
fn an_authority_that_lags_clears_no_key() {
    let net = Net::new();
    let secrets = run_before(3, 9);
    let mut state = net.state(&secrets, false);
    state.term(3, &net.members());
    assert_eq!(state.answered(&net.key(1), &at(130, None), 0), None);
    assert_eq!(state.answered(&net.key(2), &at(120, None), 0), None, "it lags");
    assert_eq!(state.answers(), Some((1, 2)));
    // The newer proposal is above the height of the one that lagged.
    let new = net.header(0, 0, [3, 20]);
    let caught_up = Answered { newest: Some(new), ..at(130, None) };
    assert!(matches!(state.answered(&net.key(2), &caught_up, 0), Some(SigningRight::Refused(_))));

    // One that was not heard of before and proves more makes the others search again, once.
    let mut state = net.state(&secrets, false);
    state.begin(125, None);
    state.term(3, &net.members());
    assert_eq!(state.answered(&net.key(2), &at(120, None), 0), None, "this node itself is above");
    assert_eq!(state.answered(&net.key(1), &at(130, None), 0), None);
    assert_eq!(state.answered(&net.key(2), &at(129, None), 0), None);
    assert_eq!(
        state.answered(&net.key(1), &at(140, None), 0),
        None,
        "only its first answer raises the height"
    );
    assert_eq!(state.answered(&net.key(2), &at(131, None), 0), Some(SigningRight::Signs));
}

#[test]
fn a_vote_above_the_journal_is_another_process_or_an_old_copy() {
    let net = Net::new();
    for (journal, seen, signs) in
        [(Some([3, 9]), [3, 9], true), (Some([3, 9]), [3, 10], false), (None, [2, 1], false)]
    {
        let mut state = net.state(&share(run_before(1, 1)), false);
        state.begin(0, journal);
        state.term(3, &net.members());
        state.answered(&net.key(1), &at(0, Some(seen)), 0);
        let right = state.answered(&net.key(2), &at(0, None), 0).expect("decided");
        assert_eq!(right == SigningRight::Signs, signs, "{journal:?} {seen:?}");
        if let SigningRight::Refused(refusal) = right {
            assert_eq!((refusal.own, refusal.seen, refusal.height), (journal, seen, None));
            assert!(refusal.to_string().contains("vote signed by this key at term"), "{refusal}");
        }
    }
}

/// Consensus writes the votes of others to the journal, also at a node that is refused: its views are no record of
/// what this node signed.
#[test]
fn a_refused_node_is_refused_again_whatever_consensus_wrote_meanwhile() {
    let net = Net::new();
    let secrets = share(run_before(1, 1));
    let start = |found: SignedAt, other_stopped: bool| {
        let mut state = net.state(&secrets, other_stopped);
        state.begin(0, Some(found));
        state.term(3, &net.members());
        state.answered(&net.key(1), &at(0, Some([3, 12])), 0);
        let right = state.answered(&net.key(2), &at(0, None), 0).expect("decided");
        (state, right)
    };
    for found in [[3, 9], [3, 12], [3, 40]] {
        let SigningRight::Refused(refusal) = start(found, false).1 else {
            panic!("{found:?} is taken for a vote")
        };
        assert_eq!((refusal.own, refusal.seen), (Some([3, 9]), [3, 12]));
    }
    let (mut state, right) = start([3, 40], true);
    let SigningRight::Waits(from) = right else { panic!("its operator stopped the other") };
    assert_eq!(secrets.kept_vote(), Some(Some([3, 9])), "until it signs");
    assert_eq!(state.term(from, &net.members()), Some(SigningRight::Signs));
    assert_eq!(secrets.kept_vote(), None, "its own journal is the record again");
    assert_eq!(start([from, 2], false).1, SigningRight::Signs);

    // A second process shows itself while this one signs: its next starts compare with its own last vote.
    let (mut state, _) = start([from, 2], false);
    state.votes([from, 7]);
    assert!(matches!(
        state.answered(&net.key(3), &at(0, Some([from, 8])), 0),
        Some(SigningRight::Refused(_))
    ));
    assert_eq!(secrets.kept_vote(), Some(Some([from, 7])));
}

#[test]
fn another_process_is_noticed_by_its_vote_and_never_the_own_vote() {
    let net = Net::new();
    let mut state = net.state(&share(run_before(1, 1)), false);
    state.begin(0, Some([3, 9]));
    state.term(3, &net.members());
    state.answered(&net.key(1), &at(0, Some([3, 9])), 0);
    assert_eq!(state.answered(&net.key(2), &at(0, Some([3, 9])), 0), Some(SigningRight::Signs));
    state.votes([3, 12]);
    assert_eq!(state.answered(&net.key(1), &at(0, Some([3, 12])), 0), None, "its own");
    assert!(matches!(state.answered(&net.key(3), &at(0, Some([3, 13])), 0), Some(SigningRight::Refused(_))));
}

/// A node that lost its journal takes over what its earlier self voted, as each of the others reports it first;
/// what is reported later was voted by another.
#[test]
fn votes_from_before_a_lost_journal_are_its_own_and_later_ones_are_not() {
    let net = Net::new();
    let mut state = net.state(&Secrets::memory(), false);
    state.begin(0, None);
    state.term(3, &net.members());
    state.answered(&net.key(1), &at(0, Some([3, 8])), 0);
    assert_eq!(state.answered(&net.key(2), &at(0, Some([3, 9])), 0), Some(SigningRight::Waits(4)));
    assert_eq!(state.answered(&net.key(3), &at(0, Some([3, 10])), 0), None, "the first answer of a slow one");
    assert_eq!(state.answered(&net.key(1), &at(0, Some([3, 10])), 0), None);
    assert!(matches!(state.answered(&net.key(1), &at(0, Some([3, 11])), 0), Some(SigningRight::Refused(_))));
}

fn share(secrets: Secrets) -> Secrets {
    let share = Share::new(Participant::new(0), Private::new(Scalar::from_u64(7)));
    secrets.seed(&share);
    secrets
}

/// More than a third of the authorities are old copies: nothing becomes final until each signs on its operators' word.
#[test]
fn an_agreed_height_lets_old_copies_sign_unless_the_network_is_above_it() {
    let net = Net::new();
    let newer = net.header(0, 0, [3, 20]);
    for (agreed, header_height, signs) in [(100, 100, true), (100, 101, true), (100, 102, false)] {
        let secrets = share(run_before(3, 9));
        let mut state = net.state_of(&secrets, Word { other_stopped: false, agreed: Some(agreed) });
        state.begin(90, Some([3, 9]));
        state.term(3, &net.members());
        let mut header = newer.clone();
        header.height = header_height;
        header.signature = sign(&net.keys[0], HEADER_NAMESPACE, &header.signed_bytes());
        let answer = Answered { newest: Some(header), ..at(agreed, Some([3, 21])) };
        let first = net.round(&mut state, &answer, 0);
        let right = first.or_else(|| net.round(&mut state, &answer, LATER)).expect("decided");
        assert_eq!(right == SigningRight::Signs, signs, "{header_height}");
        match right {
            SigningRight::Refused(refusal) => {
                let text = refusal.to_string();
                assert!(text.contains("height 102") && text.contains("height 100 named"), "{text}");
            }
            _ => {
                assert!(!secrets.may_propose(3, 1_000), "it may have proposed in this term");
                assert!(secrets.may_propose(4, 1));
            }
        }
    }
}

/// Nobody has shown the agreed block: the node waits for a machine that has it, and says so.
#[test]
fn an_agreed_height_that_nobody_has_is_waited_for() {
    let net = Net::new();
    let secrets = share(run_before(3, 9));
    let mut state = net.state_of(&secrets, Word { other_stopped: false, agreed: Some(110) });
    state.begin(90, Some([3, 9]));
    state.term(3, &net.members());
    state.answered(&net.key(1), &at(100, Some([3, 21])), 0);
    assert_eq!(state.answered(&net.key(2), &at(100, None), 0), None);
    assert_eq!(state.missing(), Some(110));
    assert_eq!(state.answered(&net.key(3), &at(110, None), 0), None, "the others search again");
    assert_eq!(state.missing(), None);
    assert_eq!(net.round(&mut state, &at(110, None), 0), None);
    assert_eq!(net.round(&mut state, &at(110, None), LATER), Some(SigningRight::Signs));
}

/// The word is for a network that stands still. In one that lives, the node listens and waits for a term.
#[test]
fn an_agreed_height_is_no_word_for_a_network_that_lives() {
    let net = Net::new();
    let word = Word { other_stopped: false, agreed: Some(100) };
    let begin = || {
        let secrets = share(run_before(3, 9));
        let mut state = net.state_of(&secrets, word);
        state.begin(90, Some([3, 9]));
        state.term(3, &net.members());
        (secrets, state)
    };
    let (secrets, mut state) = begin();
    let right = net.round(&mut state, &at(140, Some([3, 21])), 0);
    assert!(matches!(right, Some(SigningRight::Waits(4..))), "{right:?}");
    assert!(secrets.wait().is_some(), "across restarts");
    assert!(matches!(
        state.answered(&net.key(1), &at(141, Some([3, 22])), 0),
        Some(SigningRight::Refused(_))
    ));

    // A copy that was made during a wait that is over waits anew.
    let (secrets, mut state) = begin();
    secrets.begin_wait(Wait { from: 2, newest: None });
    let right = net.round(&mut state, &at(140, None), 0);
    assert!(matches!(right, Some(SigningRight::Waits(4..))), "{right:?}");

    // It moves between two answers of the same authority.
    let (_, mut state) = begin();
    assert_eq!(net.round(&mut state, &at(100, None), 0), None, "one round may fall between two blocks");
    assert_eq!(net.round(&mut state, &at(100, None), LATER - 1), None, "and a soon second one too");
    assert_eq!(state.answered(&net.key(1), &at(101, None), LATER), None);
    let right = state.answered(&net.key(2), &at(101, None), LATER);
    assert!(matches!(right, Some(SigningRight::Waits(_))), "{right:?}");

    // One answer is no second round.
    let (_, mut state) = begin();
    assert_eq!(net.round(&mut state, &at(100, None), 0), None);
    for _ in 0..3 {
        assert_eq!(state.answered(&net.key(1), &at(100, None), LATER), None);
    }
    assert_eq!(state.answered(&net.key(2), &at(100, None), LATER), Some(SigningRight::Signs));
}

/// The others may have forgotten what this key proposed, and this node may not know the running term yet.
#[test]
fn nothing_is_proposed_in_the_running_term_after_the_word_whoever_remembers_a_proposal() {
    let net = Net::new();
    let secrets = share(run_before(2, 9));
    let mut state = net.state_of(&secrets, Word { other_stopped: false, agreed: Some(130) });
    state.begin(90, Some([2, 9]));
    state.term(2, &net.members());
    let first = net.round(&mut state, &at(130, None), 0);
    let right = first.or_else(|| net.round(&mut state, &at(130, None), LATER));
    assert_eq!(right, Some(SigningRight::Signs));
    assert!(!secrets.may_propose(3, 1_000), "block 131 is of term 3");
    assert!(secrets.may_propose(4, 1));

    // A second process is no question of the height.
    let Some(SigningRight::Refused(refusal)) = state.saw(&net.header(0, 0, [4, 9])) else {
        panic!("it goes on beside the other");
    };
    let text = refusal.to_string();
    assert!(text.contains("another process signs") && !text.contains("--we-agreed-on"), "{text}");
}

#[test]
fn a_wait_ends_in_refusal_if_the_other_process_goes_on() {
    let net = Net::new();
    for other_stopped in [true, false] {
        let secrets = if other_stopped { run_before(3, 9) } else { Secrets::memory() };
        let mut state = net.state(&secrets, other_stopped);
        let old = net.header(0, 0, [3, 20]);
        assert_eq!(net.ask(&mut state, 3, Some(&old)), Some(SigningRight::Waits(4)));
        assert!(matches!(state.saw(&net.header(0, 0, [4, 2])), Some(SigningRight::Refused(_))));
        let mut state = net.state(&secrets, false);
        let new = net.header(0, 0, [4, 2]);
        let again = state.term(4, &net.members());
        assert_eq!(again, None);
        let answer = with(Some(&new));
        let mut right = state.answered(&net.key(1), &answer, 0);
        right = right.or_else(|| state.answered(&net.key(2), &answer, 0));
        assert!(matches!(right, Some(SigningRight::Refused(_))));
    }
}

#[test]
fn a_wait_survives_its_bytes_and_ends_above_all_it_covers() {
    for newest in [None, Some([0, 0]), Some([7, 3])] {
        let secrets = run_before(2, 2);
        let wait = Wait { from: 9, newest };
        secrets.begin_wait(wait);
        assert_eq!(secrets.wait(), Some(wait));
        secrets.end_wait(9);
        assert_eq!((secrets.wait(), secrets.proposed()), (None, Some([8, u64::MAX])));
    }
}

#[test]
fn the_clock_is_compared_with_the_median_of_three_or_more() {
    let net = Net::new();
    let mut state = net.state(&run_before(1, 1), false);
    let mut answer = |peer: usize, theirs: u64| {
        state.answered(&net.key(peer), &Answered { time_ms: theirs, ..Answered::default() }, 10_000_000);
        state.ahead()
    };
    assert_eq!((answer(1, 6_400_000), answer(2, 6_400_000)), (None, None));
    assert_eq!(answer(3, u64::MAX), Some(3_600), "a liar does not move it");
}
