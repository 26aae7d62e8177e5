//! Promises from the doc comments of `economics::seats`: a table for each rule, a property for each
//! guarantee. The published cases of ballots are in `published.rs`.

use posync_protocol::{
    Account,
    amount::ONE,
    economics::{
        score,
        seats::{
            BALLOTS_MAX, Ballots, Candidate, Changes, Decision, ENTER, LEAVE, Refused, Seated, Track, Way,
            automatic_max, churn_max, elect, leader_weights, seats_for,
        },
    },
    limits::SEATS_MAX,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn account(number: u8) -> Account {
    Account([number; 32])
}

fn stood(scores: &[u64]) -> Track {
    scores.iter().fold(Track::default(), |track, score| track.after(*score))
}

/// Tracks in each state: eligible, between the lines, warned in this epoch, due.
fn eligible() -> Track {
    stood(&[ENTER; 8])
}

fn between() -> Track {
    stood(&[ENTER, LEAVE])
}

fn warned() -> Track {
    stood(&[LEAVE, LEAVE - 1])
}

fn due() -> Track {
    stood(&[LEAVE, 0, 0, 0, 0])
}

fn seat(number: u8) -> Seated {
    Seated {
        account: account(number),
        operator: [number; 32],
        score: ONE,
        track: between(),
        automatic: false,
        ousted: false,
    }
}

fn seats(count: u8) -> Vec<Seated> {
    (0..count).map(seat).collect()
}

fn candidate(number: u8) -> Candidate {
    Candidate {
        account: account(number),
        operator: [number; 32],
        score: ONE,
        track: eligible(),
        voted: false,
        vetoes: BTreeSet::new(),
    }
}

/// Number of providers at which there are seats for all.
const MANY: u64 = 10_000;

#[test]
fn seats_follow_the_root_of_the_providers() {
    let rows = [(0, 4), (1, 4), (3, 4), (4, 8), (100, 40), (120, 40), (121, 44), (4_095, 252), (4_096, 256)];
    for (providers, seats) in rows {
        assert_eq!(seats_for(providers), seats, "{providers}");
    }
    assert_eq!(seats_for(u64::MAX), 256);
    let rows = [(0, 1), (4, 1), (19, 1), (20, 2), (99, 9), (256, 25)];
    for (seats, most) in rows {
        assert_eq!(churn_max(seats), most, "{seats}");
    }
    let rows = [(0, 0), (1, 0), (3, 0), (4, 1), (6, 1), (7, 2), (256, 85)];
    for (seats, most) in rows {
        assert_eq!(automatic_max(seats), most, "{seats}");
    }
}

#[test]
fn a_seat_is_earned_in_eight_epochs_and_lost_in_one_that_warns_and_three_more() {
    assert!(!stood(&[ENTER; 7]).is_eligible() && stood(&[ENTER; 8]).is_eligible());
    assert!(!stood(&[ENTER - 1; 99]).is_eligible());
    let broken = [&[ENTER; 7][..], &[ENTER - 1], &[ENTER; 7]].concat();
    assert!(!stood(&broken).is_eligible(), "in a row");
    let rows: [(&[u64], bool, bool); 8] = [
        (&[LEAVE], false, false),
        (&[LEAVE, LEAVE - 1], true, false),
        (&[LEAVE, 0, 0], false, false),
        (&[LEAVE, 0, 0, 0], false, false),
        (&[LEAVE, 0, 0, 0, 0], false, true),
        (&[LEAVE, 0, 0, 0, 0, 0], false, true),
        (&[LEAVE, 0, 0, 0, 0, LEAVE], false, false),
        (&[LEAVE, 0, 0, 0, LEAVE, 0, 0, 0], false, false),
    ];
    for (scores, warned, due) in rows {
        let track = stood(scores);
        assert_eq!((track.is_warned(), track.is_due()), (warned, due), "{scores:?}");
    }
    assert!(!stood(&[LEAVE - 1; 99]).is_due(), "who never had a score has not lost it");
    let long = stood(&[[LEAVE; 1].as_slice(), &[0; 999]].concat());
    assert!(long.is_due() && !long.is_warned(), "counters stop at their end");
}

#[test]
fn who_is_due_goes_and_who_is_eligible_comes() {
    let mut six = seats(6);
    six[1].track = due();
    six[2].track = warned();
    let changes = elect(&six, &[candidate(9)], MANY);
    let expected = Changes { removed: vec![account(1)], warned: vec![account(2)], ..Changes::default() };
    assert_eq!(changes, expected, "the term's churn is used up");
    let changes = elect(&seats(5), &[candidate(9)], MANY);
    assert_eq!(changes.admitted, [(account(9), Way::Automatic)]);
}

#[test]
fn at_four_a_seat_waits_without_leadership_until_its_replacement_is_in() {
    let mut four = seats(4);
    four[0].ousted = true;
    let alone = elect(&four, &[], 0);
    assert_eq!((alone.removed, alone.waiting), (vec![], vec![account(0)]));
    let met = elect(&four, &[candidate(9)], 0);
    assert_eq!((met.admitted.len(), met.removed.len()), (1, 0), "the place of who waits is open");
    four.push(Seated { automatic: true, ..seat(9) });
    assert_eq!(elect(&four, &[], 0).removed, [account(0)]);
}

#[test]
fn who_is_voted_out_goes_before_who_is_low() {
    let mut seven = seats(7);
    (seven[1].track, seven[1].score) = (due(), 0);
    (seven[2].track, seven[2].score) = (due(), 5);
    seven[3].ousted = true;
    let changes = elect(&seven, &[], 0);
    assert_eq!(changes.removed, [account(3)]);
    assert_eq!(changes.waiting, [account(1), account(2)], "the lowest score is next");
}

#[test]
fn more_than_a_third_of_vetoes_blocks_what_is_automatic_alone() {
    let vetoed = |count: u8| Candidate { vetoes: (0..count).map(account).collect(), ..candidate(99) };
    for (seats_now, vetoes, admitted) in [(12, 4, 1), (12, 5, 0), (7, 2, 1), (7, 3, 0)] {
        let changes = elect(&seats(seats_now), &[vetoed(vetoes)], MANY);
        assert_eq!(changes.admitted.len(), admitted, "{vetoes} of {seats_now}");
    }
    let voted = Candidate { voted: true, ..vetoed(12) };
    assert_eq!(elect(&seats(12), &[voted], MANY).admitted, [(account(99), Way::Vote)]);
    let mut with_one_out = seats(12);
    with_one_out[0].ousted = true;
    with_one_out[1].track = due();
    let mut strangers = vetoed(5);
    strangers.vetoes.extend([200, 201].map(account));
    let waiting = elect(&with_one_out, &[strangers], MANY);
    assert_eq!((waiting.removed.len(), waiting.admitted.len()), (1, 0), "the churn of twelve is one");
    let mut twenty = seats(20);
    twenty[0].ousted = true;
    let seven = Candidate { vetoes: (0..7).map(account).collect(), ..candidate(99) };
    let changes = elect(&twenty, &[seven], MANY);
    assert_eq!(changes.admitted.len(), 1, "6 of 19: the veto of who was removed is dropped");
}

#[test]
fn seats_without_votes_need_an_open_one_and_stay_a_third() {
    assert_eq!(elect(&seats(8), &[candidate(9)], 4).admitted, [], "8 of 8 seats are taken");
    let voted = Candidate { voted: true, ..candidate(9) };
    assert_eq!(elect(&seats(8), &[voted], 4).admitted, [(account(9), Way::Vote)]);
    let mut seven = seats(7);
    (seven[5].automatic, seven[6].automatic) = (true, true);
    assert_eq!(elect(&seven, &[candidate(9)], MANY).admitted, [], "3 of 8 would be above a third");
    seven[0].ousted = true;
    let changes = elect(&seven, &[], MANY);
    assert_eq!((changes.removed, changes.waiting), (vec![], vec![account(0)]), "2 of 6 would be, too");
    seven[6].ousted = true;
    assert_eq!(elect(&seven, &[], MANY).removed, [account(6)], "an automatic one may go");
}

#[test]
fn one_operator_has_one_seat() {
    let of = |operator: u8, number: u8| Candidate { operator: [operator; 32], ..candidate(number) };
    assert_eq!(elect(&seats(20), &[of(3, 99)], MANY).admitted, []);
    let twins = [of(88, 99), of(88, 98)];
    assert_eq!(elect(&seats(20), &twins, MANY).admitted, [(account(98), Way::Automatic)]);
    assert_eq!(elect(&seats(20), &[candidate(3)], MANY).admitted, [], "it has a seat");
    let young = Candidate { track: between(), voted: true, ..candidate(99) };
    assert_eq!(elect(&seats(20), &[young], MANY).admitted, [], "votes do not replace the score");
}

#[test]
fn higher_scores_come_first_and_ties_go_to_the_lower_account() {
    let scored = |number: u8, score| Candidate { score, ..candidate(number) };
    let wants = [scored(99, 7), scored(98, 7), scored(97, 6), Candidate { voted: true, ..scored(200, 1) }];
    let admitted = elect(&seats(30), &wants, MANY).admitted;
    let expected = [(200, Way::Vote), (98, Way::Automatic), (99, Way::Automatic)];
    assert_eq!(admitted, expected.map(|(number, way)| (account(number), way)));
}

#[test]
fn a_ballot_is_bounded_and_forgets_at_the_end_of_an_epoch() {
    let mut ballots = Ballots::new((0..3).map(account));
    for about in 0..BALLOTS_MAX as u8 {
        assert_eq!(ballots.vote(&account(0), &account(100 + about), true), Ok(None));
    }
    assert_eq!(ballots.vote(&account(0), &account(99), true), Err(Refused::TooMany));
    assert_eq!(ballots.vote(&account(0), &account(100), true), Ok(None), "said before");
    assert_eq!(ballots.vote(&account(0), &account(100), false), Ok(None), "taken back");
    assert_eq!(ballots.vote(&account(0), &account(99), true), Ok(None));
    assert_eq!(ballots.vote(&account(1), &account(100), true), Ok(None), "it was taken back");
    ballots.end_epoch();
    assert_eq!(ballots.vote(&account(1), &account(99), true), Ok(None), "it was forgotten");
    assert_eq!(ballots.vote(&account(2), &account(99), true), Ok(Some(Decision::Admitted)));
}

#[test]
fn ballots_hold_at_most_all_seats() {
    let numbered = |number: u32| {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Account(bytes)
    };
    let mut ballots = Ballots::new((0..SEATS_MAX + 9).map(numbered));
    assert_eq!(ballots.seats().len(), SEATS_MAX as usize);
    for voter in 0..SEATS_MAX {
        assert_eq!(ballots.vote(&numbered(voter), &numbered(999), true), Ok(None), "all seats are taken");
    }
    for voter in 0..=SEATS_MAX / 2 {
        let decided = (voter == SEATS_MAX / 2).then_some(Decision::Removed);
        assert_eq!(ballots.vote(&numbered(voter), &numbered(9), false), Ok(decided));
    }
    assert_eq!(ballots.vote(&numbered(9), &numbered(999), true), Err(Refused::Stranger));
    for voter in 10..10 + SEATS_MAX / 2 {
        let decided = (voter == 9 + SEATS_MAX / 2).then_some(Decision::Admitted);
        assert_eq!(ballots.vote(&numbered(voter), &numbered(999), true), Ok(decided), "{voter}");
    }
}

/// Carries the seats and candidates from one term to the next, as a caller does.
fn apply(seats: &mut Vec<Seated>, candidates: &mut Vec<Candidate>, changes: &Changes) {
    seats.retain(|seat| !changes.removed.contains(&seat.account));
    for (account, way) in &changes.admitted {
        let place = candidates.iter().position(|candidate| candidate.account == *account);
        let got = candidates.remove(place.expect("it was a candidate"));
        let Candidate { account, operator, score, track, .. } = got;
        let automatic = *way == Way::Automatic;
        seats.push(Seated { account, operator, score, track, automatic, ousted: false });
    }
}

fn automatic(seats: &[Seated]) -> usize {
    seats.iter().filter(|seat| seat.automatic).count()
}

/// Seats and candidates in any state, with no more automatic seats than allowed.
fn election() -> impl Strategy<Value = (Vec<Seated>, Vec<Candidate>, u64)> {
    let ins = (0..5_u8, 0..4_u64, any::<bool>(), any::<bool>());
    let outs = (0..5_u8, 0..4_u64, any::<bool>(), prop::collection::btree_set(0..60_u8, 0..20));
    let track = |kind: u8| [between(), eligible(), warned(), due(), Track::default()][usize::from(kind)];
    (prop::collection::vec(ins, 4..60), prop::collection::vec(outs, 0..40), 0..5_000_u64).prop_map(
        move |(ins, outs, providers)| {
            let mut left = automatic_max(ins.len());
            let seats = (0..).zip(ins).map(|(number, (kind, score, automatic, ousted))| {
                let automatic = automatic && left > 0;
                left -= usize::from(automatic);
                let ousted = ousted && number % 3 == 0;
                Seated { track: track(kind), score, automatic, ousted, ..seat(number) }
            });
            let seats: Vec<Seated> = seats.collect();
            let candidates = (100..).zip(outs).map(|(number, (kind, score, voted, vetoes))| Candidate {
                // Some candidates share an operator with a seat or with each other.
                operator: [number % 50 + 50; 32],
                track: track(kind),
                score,
                voted,
                vetoes: vetoes.into_iter().map(account).collect(),
                ..candidate(number)
            });
            (seats, candidates.collect(), providers)
        },
    )
}

proptest! {
    #[test]
    fn an_election_keeps_its_bounds((seats, candidates, providers) in election()) {
        let (mut seats, mut candidates) = (seats, candidates);
        for _ in 0..20 {
            let before = seats.len();
            let changes = elect(&seats, &candidates, providers);
            let changed = changes.admitted.len() + changes.removed.len();
            prop_assert!(changed <= churn_max(before), "churn: {changed} of {before}");
            for account in &changes.removed {
                let seat = seats.iter().find(|seat| seat.account == *account).expect("it had a seat");
                prop_assert!(seat.leaves());
            }
            for (account, way) in &changes.admitted {
                let got = candidates.iter().find(|c| c.account == *account).expect("it asked");
                prop_assert!(got.track.is_eligible());
                let of_seats = seats.iter().filter(|seat| !seat.leaves() && got.vetoes.contains(&seat.account));
                let voters = seats.iter().filter(|seat| !seat.leaves()).count();
                prop_assert!(*way == Way::Vote || 3 * of_seats.count() <= voters);
                prop_assert_eq!(*way == Way::Vote, got.voted);
            }
            let gone: BTreeSet<Account> = changes.removed.iter().chain(&changes.waiting).copied().collect();
            let ought: BTreeSet<Account> = seats.iter().filter(|s| s.leaves()).map(|s| s.account).collect();
            prop_assert_eq!(gone, ought, "who ought to leave is removed or waits");
            let had_automatic = automatic(&seats);
            apply(&mut seats, &mut candidates, &changes);
            prop_assert!(seats.len() >= 4, "the floor");
            prop_assert!(automatic(&seats) <= automatic_max(seats.len()));
            if automatic(&seats) > had_automatic {
                prop_assert!(seats.len() <= seats_for(providers) + changes.waiting.len(), "only into open seats");
            }
            let operators: BTreeSet<[u8; 32]> = seats.iter().map(|seat| seat.operator).collect();
            let accounts: BTreeSet<Account> = seats.iter().map(|seat| seat.account).collect();
            prop_assert!(accounts.len() == seats.len());
            prop_assert!(operators.len() == seats.len());
        }
    }

    #[test]
    fn the_order_of_the_inputs_changes_nothing((seats, candidates, providers) in election(), by in any::<prop::sample::Index>()) {
        let expected = elect(&seats, &candidates, providers);
        let (mut seats, mut candidates) = (seats, candidates);
        seats.reverse();
        let middle = by.index(seats.len());
        seats.rotate_left(middle);
        candidates.reverse();
        let middle = by.index(candidates.len().max(1)).min(candidates.len());
        candidates.rotate_left(middle);
        prop_assert_eq!(elect(&seats, &candidates, providers), expected);
    }

    /// For any votes: a vote changes at most the account that it names, more than half of the seats
    /// voted for that change, and no pending vote of a stranger remains.
    #[test]
    fn a_vote_decides_about_its_account_alone(count in 1..9_u8, votes in prop::collection::vec((0..12_u8, 0..12_u8, any::<bool>()), 0..200)) {
        let mut ballots = Ballots::new((0..count).map(account));
        for (seat, about, admit) in votes {
            let (before, seat, about) = (ballots.clone(), account(seat), account(about));
            match ballots.vote(&seat, &about, admit) {
                Err(_) => prop_assert_eq!(&ballots, &before),
                Ok(decided) => {
                    let changed: Vec<&Account> = ballots.seats().symmetric_difference(before.seats()).collect();
                    prop_assert_eq!(changed.len(), usize::from(decided.is_some()));
                    prop_assert!(changed.iter().all(|changed| **changed == about));
                    prop_assert!(decided.is_none() || ballots.seats().contains(&about) == (decided == Some(Decision::Admitted)));
                }
            }
        }
    }

    #[test]
    fn no_leader_weighs_above_an_eighth(scores in prop::collection::vec(prop_oneof![Just(0_u64), 0..20_u64, 0..=ONE, any::<u64>()], 0..80)) {
        let weights = leader_weights(&scores);
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        let weighing: Vec<u64> = weights.iter().copied().filter(|weight| *weight > 0).collect();
        for (weight, score) in weights.iter().zip(&scores) {
            prop_assert!(weight <= score && (*score == 0) == (*weight == 0));
            if scores.len() >= 8 && weighing.len() >= 8 {
                prop_assert!(8 * u128::from(*weight) <= total, "{weight} of {total}");
            }
            for (other, score_of_other) in weights.iter().zip(&scores) {
                prop_assert!(score < score_of_other || weight >= other);
            }
        }
        if scores.len() < 8 {
            prop_assert_eq!(&weights, &scores);
        } else if weighing.len() < 8 {
            prop_assert!(weighing.windows(2).all(|pair| pair[0] == pair[1]));
        }
        if total > 0 && scores.iter().all(|s| 8 * u128::from(*s) <= scores.iter().map(|s| u128::from(*s)).sum()) {
            prop_assert_eq!(weights, scores, "who is below an eighth keeps its score");
        }
    }
}

#[test]
fn the_largest_leaders_are_lowered_to_an_eighth_of_all() {
    // One above an eighth of the rest; two above it; and, with exactly eight, all but the least.
    assert_eq!(leader_weights(&[100, 9, 9, 9, 9, 9, 9, 9, 9]), [10, 9, 9, 9, 9, 9, 9, 9, 9]);
    let mut two = vec![10; 20];
    (two[3], two[9]) = (900, 800);
    let lowered = leader_weights(&two);
    assert_eq!((lowered[3], lowered[9], lowered[0]), (30, 30, 10), "180 / 6");
    assert_eq!(leader_weights(&[8, 7, 6, 5, 4, 3, 2, 1]), [1; 8]);
    assert_eq!(leader_weights(&[7, 7, 1]), [7, 7, 1], "below eight nothing is lowered");
    assert_eq!(leader_weights(&[5, 0, 4, 0, 0, 0, 0, 0]), [4, 0, 4, 0, 0, 0, 0, 0]);
    assert_eq!(leader_weights(&[0; 9]), [0; 9]);
    assert_eq!(leader_weights(&[]), [] as [u64; 0]);
}

/// A small generator, because the test must repeat.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// 1,000 epochs in which every score is within 0.05 of 0.7, as the score itself or as the quality
/// that moves it, with open seats and candidates. No seat is given, lost or even warned.
#[test]
fn noise_within_a_twentieth_of_seven_tenths_moves_no_seat_in_1_000_epochs() {
    for moves_quality in [false, true] {
        let mut state = 1;
        let mut seats = seats(40);
        let mut candidates: Vec<Candidate> = (60..140)
            .map(|n| Candidate { track: Track::default(), score: ONE / 10 * 7, ..candidate(n) })
            .collect();
        for seat in &mut seats {
            (seat.score, seat.track) = (ONE / 10 * 7, Track::default());
        }
        let mut moved = |score: u64| {
            let noisy = ONE / 100 * 65 + next(&mut state) % (ONE / 10 + 1);
            if moves_quality { score::update(score, Some(noisy), false) } else { noisy }
        };
        for epoch in 0..1_000 {
            for seat in &mut seats {
                seat.score = moved(seat.score);
                seat.track = seat.track.after(seat.score);
            }
            for candidate in &mut candidates {
                candidate.score = moved(candidate.score);
                candidate.track = candidate.track.after(candidate.score);
            }
            assert_eq!(elect(&seats, &candidates, MANY), Changes::default(), "epoch {epoch}");
        }
    }
}

/// The same network with good and bad times instead of noise: seats do change, and every bound of a
/// term holds over 1,000 of them.
#[test]
fn churn_floor_and_third_hold_over_1_000_epochs_of_good_and_bad_times() {
    let mut state = 7;
    let mut seats = seats(4);
    let mut candidates: Vec<Candidate> =
        (60..140).map(|n| Candidate { track: Track::default(), score: ONE / 4, ..candidate(n) }).collect();
    let mut good = [true; 256];
    let (mut given, mut taken, mut waited) = (0, 0, 0);
    for _ in 0..1_000 {
        for (is_good, dice) in good.iter_mut().map(|is_good| (is_good, next(&mut state) % 40)) {
            *is_good = if *is_good { dice != 0 } else { dice < 8 };
        }
        let quality = |account: &Account| Some(if good[usize::from(account.0[0])] { ONE } else { ONE / 10 });
        for seat in &mut seats {
            seat.score = score::update(seat.score, quality(&seat.account), false);
            seat.track = seat.track.after(seat.score);
        }
        for candidate in &mut candidates {
            candidate.score = score::update(candidate.score, quality(&candidate.account), false);
            candidate.track = candidate.track.after(candidate.score);
            candidate.voted = next(&mut state).is_multiple_of(4);
        }
        let providers = candidates.iter().filter(|candidate| candidate.score >= LEAVE).count() as u64;
        let before = seats.clone();
        let changes = elect(&seats, &candidates, providers);
        assert!(changes.admitted.len() + changes.removed.len() <= churn_max(before.len()));
        (given, taken, waited) =
            (given + changes.admitted.len(), taken + changes.removed.len(), waited + changes.waiting.len());
        apply(&mut seats, &mut candidates, &changes);
        for gone in before.iter().filter(|seat| changes.removed.contains(&seat.account)) {
            candidates.push(Candidate {
                score: gone.score,
                track: Track::default(),
                ..candidate(gone.account.0[0])
            });
        }
        assert!(seats.len() >= 4 && automatic(&seats) <= automatic_max(seats.len()));
    }
    assert!(given > 50 && taken > 50 && waited > 0, "{given} {taken} {waited}");
}
