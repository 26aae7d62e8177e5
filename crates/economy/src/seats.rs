//! Seats of a simulated network, given by the rules' own election: under noise, in good and bad times.
//!
//! A term is an epoch here. Every provider wants a seat and is its own operator. In one term of
//! four the seats vote for the best candidates; in the others, eligible candidates get in without
//! votes, as far as the rules allow.

use crate::{
    chance::Chance,
    honest::nakamoto,
    row::{Bound, Row, Topic},
};
use posync_protocol::{
    Account,
    amount::ONE,
    economics::{
        score,
        seats::{
            Ballots, Candidate, Changes, Decision, LEADERS_MIN, LEAVE, Seated, Track, Way, automatic_max,
            churn_max, elect, leader_weights, seats_for,
        },
    },
    limits::SEATS_MIN,
};
use std::collections::BTreeSet;

/// Votes are cast in one term out of this many.
const VOTES_EVERY: u64 = 4;

/// The account that stands for a node.
pub(crate) fn account(node: usize) -> Account {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(node as u64).to_be_bytes());
    Account(bytes)
}

fn node(account: &Account) -> usize {
    let [a, b, c, d, e, f, g, h, ..] = account.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize
}

/// A seat of a node without history.
pub(crate) fn seated(node: usize, score: u64) -> Seated {
    let account = account(node);
    Seated { account, operator: account.0, score, track: Track::default(), automatic: false, ousted: false }
}

/// A node that asks for a seat.
pub(crate) fn candidate(node: usize, score: u64, track: Track) -> Candidate {
    let account = account(node);
    Candidate { account, operator: account.0, score, track, voted: false, vetoes: BTreeSet::new() }
}

/// Counts of seat changes over a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeatChanges {
    /// Seats given without votes.
    pub automatic: u64,
    /// Seats given by votes.
    pub voted: u64,
    /// Seats that were lost.
    pub taken: u64,
    /// Most seats given and lost in one term.
    pub most: usize,
    /// Terms after which a bound did not hold: churn, the floor, the third without votes.
    pub broken: u64,
    /// The least Nakamoto coefficient of leadership in terms with at least [`LEADERS_MIN`] seats.
    pub leaders: usize,
}

/// The seats, and the record of every node's score.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    seats: Vec<Seated>,
    tracks: Vec<Track>,
    terms: u64,
    /// Counts of the changes so far.
    pub record: SeatChanges,
}

impl Seats {
    /// A genesis with seats for the first nodes.
    pub(crate) fn new(seats: usize) -> Self {
        Self {
            seats: (0..seats).map(|node| seated(node, 0)).collect(),
            tracks: Vec::new(),
            terms: 0,
            record: SeatChanges { automatic: 0, voted: 0, taken: 0, most: 0, broken: 0, leaders: usize::MAX },
        }
    }

    /// The nodes that have a seat.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = usize> {
        self.seats.iter().map(|seat| node(&seat.account))
    }

    /// Number of seats at present.
    pub(crate) const fn len(&self) -> usize {
        self.seats.len()
    }

    /// Ends an epoch with these scores, one per node, and makes the changes of a term.
    pub(crate) fn term(&mut self, scores: &[u64]) -> Changes {
        self.tracks.resize(scores.len(), Track::default());
        for (track, score) in self.tracks.iter_mut().zip(scores) {
            *track = track.after(*score);
        }
        for seat in &mut self.seats {
            let node = node(&seat.account);
            (seat.score, seat.track) = (scores[node], self.tracks[node]);
        }
        let providers = scores.iter().filter(|score| **score >= LEAVE).count() as u64;
        let has_seat: BTreeSet<usize> = self.nodes().collect();
        let wants = |node: &usize| self.tracks[*node].is_eligible() && !has_seat.contains(node);
        let asks = |node| candidate(node, scores[node], self.tracks[node]);
        let mut candidates: Vec<Candidate> = (0..scores.len()).filter(wants).map(asks).collect();
        if self.terms.is_multiple_of(VOTES_EVERY) && self.seats.len() < seats_for(providers) {
            self.vote(&mut candidates);
        }
        let changes = elect(&self.seats, &candidates, providers);
        self.apply(&changes);
        self.terms += 1;
        changes
    }

    /// Every seat votes for the best candidates, as many as a term can admit.
    fn vote(&self, candidates: &mut [Candidate]) {
        candidates.sort_unstable_by(|a, b| b.score.cmp(&a.score).then(a.account.cmp(&b.account)));
        let mut ballots = Ballots::new(self.seats.iter().map(|seat| seat.account));
        for candidate in candidates.iter_mut().take(churn_max(self.seats.len())) {
            let mut votes =
                self.seats.iter().map(|seat| ballots.vote(&seat.account, &candidate.account, true));
            candidate.voted = votes.any(|vote| vote == Ok(Some(Decision::Admitted)));
        }
    }

    fn apply(&mut self, changes: &Changes) {
        let before = self.seats.len();
        self.seats.retain(|seat| !changes.removed.contains(&seat.account));
        for (account, way) in &changes.admitted {
            let automatic = *way == Way::Automatic;
            self.seats.push(Seated { automatic, ..seated(node(account), ONE) });
            let count = if automatic { &mut self.record.automatic } else { &mut self.record.voted };
            *count += 1;
        }
        let leaders = if self.seats.len() < LEADERS_MIN { usize::MAX } else { self.leaders() };
        let (record, changed) = (&mut self.record, changes.admitted.len() + changes.removed.len());
        record.leaders = record.leaders.min(leaders);
        record.taken += changes.removed.len() as u64;
        record.most = record.most.max(changed);
        let automatic = self.seats.iter().filter(|seat| seat.automatic).count();
        let floor = before.min(SEATS_MIN as usize);
        let is_broken = changed > churn_max(before)
            || self.seats.len() < floor
            || automatic > automatic_max(self.seats.len());
        record.broken += u64::from(is_broken);
    }

    /// The Nakamoto coefficient of leadership. A seat that waits to leave does not lead.
    pub(crate) fn leaders(&self) -> usize {
        let scores = self.seats.iter().map(|seat| if seat.leaves() { 0 } else { seat.score });
        let weights = leader_weights(&scores.collect::<Vec<u64>>());
        nakamoto(&weights.into_iter().map(u128::from).collect::<Vec<u128>>())
    }
}

/// Runs 20 seats among `members` for `epochs` epochs with qualities within `noise` of `centre`.
pub(crate) fn noisy(seed: u64, members: usize, epochs: u64, centre: u64, noise: u64) -> SeatChanges {
    let mut chance = Chance::new(seed, "seats");
    let mut seats = Seats::new(20);
    let mut scores = vec![centre; members];
    for _ in 0..epochs {
        for score in &mut scores {
            *score = score::update(*score, Some(chance.around(centre, noise)), false);
        }
        seats.term(&scores);
    }
    seats.record
}

/// A network that grows from 4 seats among `members` newcomers, each of which fails in one epoch of
/// 200 and is repaired in one of 20.
pub(crate) fn good_and_bad_times(seed: u64, members: usize, epochs: u64) -> Seats {
    let mut chance = Chance::new(seed, "times");
    let mut seats = Seats::new(SEATS_MIN as usize);
    let (mut scores, mut works) = (vec![score::SCORE_START; members], vec![true; members]);
    for _ in 0..epochs {
        for (score, works) in scores.iter_mut().zip(&mut works) {
            *works = if *works { chance.below(200) > 0 } else { chance.below(20) == 0 };
            let centre = if *works { ONE / 100 * 95 } else { ONE / 10 * 3 };
            *score = score::update(*score, Some(chance.around(centre, ONE / 20)), false);
        }
        seats.term(&scores);
    }
    seats
}

/// The rows of this module.
pub fn rows(seed: u64) -> Vec<Row> {
    let row = |name: &str, region: &str, figure: u64, unit, bound| {
        Row::new(Topic::Score, name, region, figure.into(), unit, bound)
    };
    let changes = |record: SeatChanges| record.automatic + record.voted + record.taken;
    let quiet = noisy(seed, 100, 1_000, ONE / 10 * 7, ONE / 20);
    let moving = noisy(seed, 100, 1_000, ONE / 10 * 9, ONE / 20);
    let (noise, times) =
        ("100 members, 20 seats, 1,000 epochs", "4 seats, 300 members that fail, 1,000 epochs");
    let seats = good_and_bad_times(seed, 300, 1_000);
    let SeatChanges { automatic, voted, taken, most, broken, leaders } = seats.record;
    let entered = moving.automatic + moving.voted;
    vec![
        row("noise of 0.05 around 0.7", noise, changes(quiet), "seat changes", Bound::Exactly(0)),
        row("those without a seat enter at 0.9", noise, entered, "seats", Bound::Exactly(20)),
        row("of them, without votes", noise, moving.automatic, "seats", Bound::AtMost(13)),
        row("broken: churn, floor of 4, a third without votes", times, broken, "terms", Bound::Exactly(0)),
        row("seats given without votes", times, automatic, "seats", Bound::AtLeast(1)),
        row("seats given by votes", times, voted, "seats", Bound::AtLeast(1)),
        row("seats taken", times, taken, "seats", Bound::AtLeast(1)),
        row("most seats given and taken in a term", times, most as u64, "seats", Bound::AtMost(6)),
        row("seats at the end", times, seats.len() as u64, "seats", Bound::AtLeast(56)),
        row("Nakamoto coefficient of leadership, least", times, leaders as u64, "leaders", Bound::AtLeast(3)),
        row(
            "Nakamoto coefficient of leadership at the end",
            times,
            seats.leaders() as u64,
            "leaders",
            Bound::AtLeast(18),
        ),
    ]
}
