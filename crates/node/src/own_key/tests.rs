//! The right to sign, decided without a network.

use super::state::{Standing, State};
use crate::{
    engine::{PrivateKey, PublicKey},
    epoch::secrets::{Place, Secrets, Wait},
    genesis::{Genesis, deal},
};
use commonware_cryptography::Signer as _;
use commonware_runtime::deterministic;
use commonware_utils::{TestRng, ordered::Set};
use posync_protocol::{
    Account, Amount,
    block::{HEADER_NAMESPACE, Header},
    limits::Parameters,
    operation::sign,
};

struct Net {
    genesis: Genesis,
    keys: Vec<PrivateKey>,
}

impl Net {
    fn new() -> Self {
        let addresses: Vec<_> =
            (0..4).map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], 9_000 + port))).collect();
        let (genesis, secrets) =
            deal(&addresses, Parameters::LOCAL, Amount::sync(50_000), Vec::new(), TestRng::new(1))
                .expect("valid");
        Self { genesis, keys: secrets.into_iter().map(|secret| secret.key).collect() }
    }

    fn members(&self) -> Set<PublicKey> {
        Set::from_iter_dedup(self.keys.iter().map(PrivateKey::public_key))
    }

    fn state(&self, secrets: &Secrets, other_stopped: bool) -> State {
        let authorities = self.members().iter().cloned().collect();
        let key = self.keys[0].public_key();
        State::new(self.genesis.chain(), authorities, key, secrets.clone(), other_stopped)
    }

    /// A proposal that authority `leader` signed with the key of authority `signer`.
    fn header(&self, leader: usize, signer: usize, [term, view]: Place) -> Header {
        let mut header = self.genesis.block::<deterministic::Context>().header().clone();
        (header.term, header.view, header.height) = (term, view, 100);
        header.leader = Account::of(&self.keys[leader].public_key());
        header.signature = sign(&self.keys[signer], HEADER_NAMESPACE, &header.signed_bytes());
        header
    }

    /// Two of the other three answer with `header` in a term; returns the last change.
    fn ask(&self, state: &mut State, term: u64, header: Option<&Header>) -> Option<Standing> {
        assert_eq!(state.term(term, &self.members()), None, "nobody has answered");
        assert_eq!(state.answered(&self.keys[1].public_key(), header, 1_000, 1_000), None, "one is too few");
        assert_eq!(state.answered(&self.keys[1].public_key(), header, 1_000, 1_000), None, "nor is it twice");
        state.answered(&self.keys[2].public_key(), header, 1_000, 1_000)
    }
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
        let standing = net.ask(&mut net.state(&secrets, false), 3, header.as_ref()).expect("decided");
        assert_eq!(standing == Standing::Signs, signs, "{seen:?}");
        assert_eq!(matches!(standing, Standing::Refused(_)), !signs, "{seen:?}");
        assert_eq!(secrets.proposed(), Some([3, 9]), "the record stays");
    }
}

#[test]
fn a_liar_can_neither_stop_a_node_nor_answer_for_two() {
    let net = Net::new();
    let secrets = run_before(3, 9);
    let mut state = net.state(&secrets, false);
    for forged in [net.header(0, 1, [9, 9]), net.header(1, 1, [9, 9])] {
        assert_eq!(net.ask(&mut net.state(&secrets, false), 3, Some(&forged)), Some(Standing::Signs));
    }
    let mut foreign = net.header(0, 0, [9, 9]);
    foreign.chain = [7; 32];
    foreign.signature = sign(&net.keys[0], HEADER_NAMESPACE, &foreign.signed_bytes());
    assert_eq!(net.ask(&mut state, 3, Some(&foreign)), Some(Standing::Signs), "of another chain");
    let stranger = PrivateKey::from_seed(77).public_key();
    let mut state = net.state(&secrets, false);
    state.term(3, &net.members());
    state.answered(&net.keys[1].public_key(), None, 0, 0);
    assert_eq!(state.answered(&stranger, None, 0, 0), None, "a stranger does not count");
}

#[test]
fn another_process_with_the_key_is_noticed_at_any_time() {
    let net = Net::new();
    let secrets = run_before(3, 9);
    let mut state = net.state(&secrets, false);
    assert_eq!(net.ask(&mut state, 3, None), Some(Standing::Signs));
    assert!(secrets.may_propose(3, 12));
    assert_eq!(state.saw(&net.header(0, 0, [3, 12])), None, "its own");
    assert_eq!(state.saw(&net.header(1, 1, [3, 13])), None, "another's");
    let Some(Standing::Refused(refusal)) = state.saw(&net.header(0, 0, [3, 16])) else {
        panic!("it goes on beside the other");
    };
    assert_eq!((refusal.own, refusal.seen, refusal.height), (Some([3, 12]), [3, 16], 100));
}

#[test]
fn a_node_without_a_record_waits_a_whole_term_across_restarts() {
    let net = Net::new();
    let secrets = Secrets::memory();
    let mut state = net.state(&secrets, false);
    let old = net.header(0, 0, [3, 9]);
    assert_eq!(net.ask(&mut state, 3, Some(&old)), Some(Standing::Waits(5)));
    assert_eq!(state.term(4, &net.members()), None);
    let mut state = net.state(&secrets, false);
    assert_eq!(net.ask(&mut state, 4, Some(&old)), Some(Standing::Waits(5)), "what it knew is no news");
    assert_eq!(state.term(5, &net.members()), Some(Standing::Signs));
    assert!(!secrets.may_propose(4, 1_000) && secrets.may_propose(5, 1));
    let own = net.header(0, 0, [5, 1]);
    assert_eq!(net.ask(&mut net.state(&secrets, false), 5, Some(&own)), Some(Standing::Signs));
}

#[test]
fn a_wait_ends_in_refusal_if_the_other_process_goes_on() {
    let net = Net::new();
    for other_stopped in [true, false] {
        let secrets = if other_stopped { run_before(3, 9) } else { Secrets::memory() };
        let mut state = net.state(&secrets, other_stopped);
        let old = net.header(0, 0, [3, 20]);
        assert_eq!(net.ask(&mut state, 3, Some(&old)), Some(Standing::Waits(5)));
        assert!(matches!(state.saw(&net.header(0, 0, [4, 2])), Some(Standing::Refused(_))));
        let mut state = net.state(&secrets, false);
        let new = net.header(0, 0, [4, 2]);
        let again = state.term(4, &net.members());
        assert_eq!(again, None);
        assert!(matches!(
            state.answered(&net.keys[1].public_key(), Some(&new), 0, 0).or_else(|| state.answered(
                &net.keys[2].public_key(),
                Some(&new),
                0,
                0
            )),
            Some(Standing::Refused(_))
        ));
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
        state.answered(&net.keys[peer].public_key(), None, theirs, 10_000_000);
        state.ahead()
    };
    assert_eq!((answer(1, 6_400_000), answer(2, 6_400_000)), (None, None));
    assert_eq!(answer(3, u64::MAX), Some(3_600), "a liar does not move it");
}
