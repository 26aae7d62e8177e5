//! Chooses the providers that get the shards of a segment, by a pure local rule without randomness.
//!
//! ```text
//!   candidates --rendezvous hash of (segment, provider)--> the first 2 x wanted
//!              --least load / (capacity x score)--> the order of asking
//!              --in one of twenty draws a newcomer first--> one per operator; per /24; two per region
//!              --> the chosen ones, and a reason for every candidate
//! ```
//!
//! Rendezvous hashing spreads segments over all providers and moves few shards when one joins or
//! leaves. The load step keeps a small provider from filling up first, and gives less to those that
//! failed. The limits bound the damage of one failure: an operator never holds two shards of a segment,
//! while the address and region rules give way when there are too few providers to keep them. Newcomers
//! get at least a twentieth of all placements, because they could not earn a score without shards.
//!
//! Invariants
//! 1. No two chosen candidates, and no chosen and `kept` ones, share an operator.
//! 2. The result depends on the set of candidates, not on their order.
//! 3. A candidate that has no room or is not eligible is never chosen.
//! 4. [`choose`] is [`explain`], filtered: the reasons reported are those that decided.
//! 5. Over many segments at least a twentieth of the shards goes to newcomers, while one fits.

use posync_protocol::Account;
use std::{cmp::Ordering, net::SocketAddr};

/// Maximum of shards of one segment in one region, while other regions have room.
pub(crate) const PER_REGION_MAX: usize = 2;
/// One in this many placements goes to a newcomer first.
pub(crate) const NEWCOMER_EVERY: u64 = 20;

/// A provider that could hold a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Account of the provider.
    pub account: Account,
    /// Operator that the provider declared.
    pub operator: Vec<u8>,
    /// Name of the region that the provider declared.
    pub region: Vec<u8>,
    /// First address on the ledger that parses as one; `None` if none does.
    pub address: Option<SocketAddr>,
    /// Leaves that this gateway holds there, including reservations.
    pub load: u64,
    /// Leaves that this gateway may hold there: the quotas of its agreements.
    pub capacity: u64,
    /// Sync score in parts per billion.
    pub score: u64,
    /// True once it was drawn for [`posync_protocol::limits::HISTORY`] reads, and so is no newcomer.
    pub vetted: bool,
    /// True if it may get new shards: it answers, its reads were found, and the ledger lets it.
    pub eligible: bool,
}

/// Why a candidate was chosen or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Reason {
    /// Chosen by rank and load.
    Chosen = 0,
    /// Chosen first, as a newcomer.
    Newcomer = 1,
    /// Chosen although its region, or its network too, was taken: there were too few others.
    GaveWay = 2,
    /// It is late, failed a read, does not answer, or is suspended or in jail.
    NotEligible = 3,
    /// The shard does not fit the capacity that is left there.
    NoRoom = 4,
    /// Its operator holds another shard of the segment.
    OperatorTaken = 5,
    /// Its /24 (or /48) holds another shard.
    NetworkTaken = 6,
    /// Its region holds [`PER_REGION_MAX`] other shards.
    RegionFull = 7,
    /// Enough others came before it: nearer to the segment, or emptier.
    Farther = 8,
}

impl Reason {
    /// True for the reasons with which a candidate gets a shard.
    pub(crate) const fn is_chosen(self) -> bool {
        matches!(self, Self::Chosen | Self::Newcomer | Self::GaveWay)
    }
}

impl Candidate {
    /// The /24 (or /48) that its address lies in.
    fn network(&self) -> Option<[u8; 6]> {
        Some(match self.address?.ip() {
            std::net::IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                [4, 0, 0, a, b, c]
            }
            std::net::IpAddr::V6(ip) => {
                let o = ip.octets();
                [o[0], o[1], o[2], o[3], o[4], o[5]]
            }
        })
    }

    fn rank(&self, segment: &[u8]) -> [u8; 32] {
        *blake3::Hasher::new_derive_key("posync gateway 2026-11 placement")
            .update(&self.account.0)
            .update(segment)
            .finalize()
            .as_bytes()
    }

    fn has_room(&self, leaves: u64) -> bool {
        self.load.checked_add(leaves).is_some_and(|load| load <= self.capacity)
    }

    /// Orders by load with the shard / (capacity x score), the least first, by cross-multiplication.
    fn compare(&self, other: &Self, leaves: u64) -> Ordering {
        let side = |load: &Self, room: &Self| {
            product(load.load.saturating_add(leaves), room.capacity.max(1), room.score.max(1))
        };
        side(self, other).cmp(&side(other, self))
    }
}

/// The product of three numbers, as its upper 128 and lower 64 bits.
fn product(a: u64, b: u64, c: u64) -> (u128, u64) {
    let (ab, c) = (u128::from(a) * u128::from(b), u128::from(c));
    let low = (ab & u128::from(u64::MAX)) * c;
    ((ab >> 64) * c + (low >> 64), (low & u128::from(u64::MAX)) as u64)
}

/// The rules that may give way, each true while it is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rules {
    region: bool,
    network: bool,
}

const STRICT: Rules = Rules { region: true, network: true };
/// Strictest first: the region rule gives way before the address rule; the operator rule never does.
const PASSES: [Rules; 3] =
    [STRICT, Rules { region: false, network: true }, Rules { region: false, network: false }];

/// Chooses up to `wanted` candidates with room for `leaves` more for shards of `segment`, beside the `kept`
/// ones that hold other shards of it. Returns indices into `candidates`, in the order of positions.
pub(crate) fn choose(
    segment: &[u8],
    wanted: usize,
    leaves: u64,
    candidates: &[Candidate],
    kept: &[Candidate],
) -> Vec<usize> {
    let reasons = explain(segment, wanted, leaves, candidates, kept);
    let mut chosen: Vec<usize> = (0..candidates.len()).filter(|index| reasons[*index].is_chosen()).collect();
    chosen.sort_by_key(|index| candidates[*index].rank(segment));
    chosen
}

/// For every candidate, in order, the reason why it gets a shard of the segment or not.
pub(crate) fn explain(
    segment: &[u8],
    wanted: usize,
    leaves: u64,
    candidates: &[Candidate],
    kept: &[Candidate],
) -> Vec<Reason> {
    let asked = in_order_of_asking(segment, wanted, leaves, candidates);
    let mut table = Table { candidates, kept, wanted, chosen: Vec::new(), reasons: Vec::new() };
    table.reasons.extend(candidates.iter().map(|candidate| match candidate {
        it if !it.eligible => Reason::NotEligible,
        it if !it.has_room(leaves) => Reason::NoRoom,
        _ => Reason::Farther,
    }));
    let mut newcomers = newcomers_due(segment, wanted);
    for &index in asked.iter().filter(|index| !candidates[**index].vetted) {
        if newcomers > 0 && table.refusal(STRICT, index).is_none() {
            table.choose(index, Reason::Newcomer);
            newcomers -= 1;
        }
    }
    for rules in PASSES {
        let reason = if rules == STRICT { Reason::Chosen } else { Reason::GaveWay };
        for &index in &asked {
            table.ask(rules, index, reason);
        }
    }
    table.reasons
}

/// Indices of the candidates that could hold the shard: the nearest ones by load, then the others by rank.
fn in_order_of_asking(segment: &[u8], wanted: usize, leaves: u64, candidates: &[Candidate]) -> Vec<usize> {
    let fitting = candidates.iter().enumerate().filter(|(_, c)| c.eligible && c.has_room(leaves));
    let mut order: Vec<([u8; 32], usize)> = fitting.map(|(index, c)| (c.rank(segment), index)).collect();
    order.sort_unstable();
    let nearest = order.len().min(wanted.saturating_mul(2));
    order[..nearest].sort_by(|(rank, index), (other_rank, other)| {
        candidates[*index].compare(&candidates[*other], leaves).then(rank.cmp(other_rank))
    });
    order.into_iter().map(|(_, index)| index).collect()
}

/// Number of newcomers that come before all others: on average over segments a twentieth of `wanted`.
fn newcomers_due(segment: &[u8], wanted: usize) -> u64 {
    let hash = blake3::derive_key("posync gateway 2026-11 newcomers", segment);
    let [a, b, c, d, ..] = hash;
    let draw = u64::from(u32::from_be_bytes([a, b, c, d])) % NEWCOMER_EVERY;
    (wanted as u64).saturating_add(NEWCOMER_EVERY - 1 - draw) / NEWCOMER_EVERY
}

/// The candidates chosen so far, and the reason for each candidate.
struct Table<'a> {
    candidates: &'a [Candidate],
    kept: &'a [Candidate],
    wanted: usize,
    chosen: Vec<usize>,
    reasons: Vec<Reason>,
}

impl Table<'_> {
    /// Chooses a candidate if shards are left and the rules allow it; records the rule that does not.
    fn ask(&mut self, rules: Rules, index: usize, reason: Reason) {
        if self.chosen.len() >= self.wanted || self.reasons[index].is_chosen() {
            return;
        }
        match self.refusal(rules, index) {
            None => self.choose(index, reason),
            Some(why) => self.reasons[index] = why,
        }
    }

    fn choose(&mut self, index: usize, reason: Reason) {
        self.chosen.push(index);
        self.reasons[index] = reason;
    }

    /// The rule that excludes a candidate; `None` if it may be chosen.
    fn refusal(&self, rules: Rules, index: usize) -> Option<Reason> {
        let it = &self.candidates[index];
        let others = || self.chosen.iter().map(|index| &self.candidates[*index]).chain(self.kept);
        let network = it.network();
        let taken = |other: &Candidate| other.operator == it.operator || other.account == it.account;
        if !cfg!(planted = "one-operator") && others().any(taken) {
            Some(Reason::OperatorTaken)
        } else if rules.network && network.is_some() && others().any(|other| other.network() == network) {
            Some(Reason::NetworkTaken)
        } else if rules.region && others().filter(|other| other.region == it.region).count() >= PER_REGION_MAX
        {
            Some(Reason::RegionFull)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(id: u8, operator: u8, region: u8, network: u8, load: u64) -> Candidate {
        Candidate {
            account: Account([id; 32]),
            operator: vec![operator],
            region: vec![region],
            address: Some(SocketAddr::from(([10, 0, network, id], 1))),
            load,
            capacity: 100,
            score: 1_000_000_000,
            vetted: true,
            eligible: true,
        }
    }

    /// Ten providers of ten operators in five regions and ten networks, as in the local network.
    fn ten() -> Vec<Candidate> {
        (0..10).map(|i| candidate(i, i, i % 5, i, 0)).collect()
    }

    fn change(mut all: Vec<Candidate>, f: impl Fn(usize, &mut Candidate)) -> Vec<Candidate> {
        all.iter_mut().enumerate().for_each(|(i, c)| f(i, c));
        all
    }

    #[test]
    fn rows() {
        let full = |all| change(all, |i, c| c.load = if i < 4 { 100 } else { 0 });
        let rows: [(&str, Vec<Candidate>, usize, usize); 8] = [
            ("ten of ten operators", ten(), 8, 8),
            ("all wanted", ten(), 10, 10),
            ("more wanted than there are", ten(), 12, 10),
            ("nobody", vec![], 8, 0),
            ("one operator under ten names", change(ten(), |_, c| c.operator = vec![7]), 8, 1),
            ("five operators", change(ten(), |i, c| c.operator = vec![i as u8 % 5]), 8, 5),
            ("one address for all gives way", change(ten(), |_, c| c.address = ten()[0].address), 8, 8),
            ("four are full", full(ten()), 8, 6),
        ];
        for (what, candidates, wanted, expected) in rows {
            let chosen = choose(b"segment", wanted, 1, &candidates, &[]);
            assert_eq!(chosen.len(), expected, "{what}");
        }
    }

    #[test]
    fn networks_and_regions_are_kept_while_possible() {
        // Twelve of twelve operators, three to a network and three to a region.
        let all: Vec<Candidate> = (0..12).map(|i| candidate(i, i, i / 3, i / 3, 0)).collect();
        for segment in 0..50u8 {
            let networks = |chosen: &[usize]| {
                chosen.iter().map(|i| i / 3).collect::<std::collections::BTreeSet<_>>().len()
            };
            assert_eq!(networks(&choose(&[segment], 4, 1, &all, &[])), 4, "one per network");
            let apart = change(all.clone(), |i, c| c.address = candidate(0, 0, 0, i as u8, 0).address);
            let chosen = choose(&[segment], 8, 1, &apart, &[]);
            for region in 0..4 {
                assert!(chosen.iter().filter(|i| *i / 3 == region).count() <= 2, "two per region");
            }
        }
    }

    #[test]
    fn a_repair_goes_to_a_spare_operator() {
        let all = ten();
        for segment in 0..50u8 {
            let chosen = choose(&[segment], 8, 1, &all, &[]);
            let kept: Vec<Candidate> = chosen[1..].iter().map(|i| all[*i].clone()).collect();
            let lost = chosen[0];
            let rest: Vec<Candidate> =
                all.iter().filter(|c| c.account != all[lost].account).cloned().collect();
            let spare = choose(&[segment], 1, 1, &rest, &kept);
            assert_eq!(spare.len(), 1);
            assert!(kept.iter().all(|k| k.operator != rest[spare[0]].operator));
        }
    }

    #[test]
    fn the_emptier_one_is_asked_first() {
        let all = change(ten(), |i, c| c.load = if i == 3 || i == 4 { 80 } else { 0 });
        for segment in 0..50u8 {
            let chosen = choose(&[segment], 8, 1, &all, &[]);
            assert!(!chosen.contains(&3) && !chosen.contains(&4));
        }
    }

    #[test]
    fn segments_spread_evenly() {
        let all = ten();
        let mut held = [0u32; 10];
        for segment in 0..1000u32 {
            for index in choose(&segment.to_be_bytes(), 8, 1, &all, &[]) {
                held[index] += 1;
            }
        }
        assert!(held.iter().all(|n| (700..=900).contains(n)), "{held:?}");
    }

    #[test]
    fn load_capacity_and_score_are_weighed_without_rounding() {
        let of = |load, capacity, score| Candidate { load, capacity, score, ..candidate(0, 0, 0, 0, 0) };
        const ONE: u64 = 1_000_000_000;
        for (what, a, b, expected) in [
            ("equal", of(1, 100, ONE), of(1, 100, ONE), Ordering::Equal),
            ("emptier", of(1, 100, ONE), of(2, 100, ONE), Ordering::Less),
            ("larger", of(1, 101, ONE), of(1, 100, ONE), Ordering::Less),
            ("better, though both are empty", of(0, 100, ONE), of(0, 100, ONE - 1), Ordering::Less),
            ("half the score is half the capacity", of(9, 100, ONE / 2), of(9, 50, ONE), Ordering::Equal),
            (
                "largest figures",
                of(u64::MAX - 2, u64::MAX, ONE),
                of(u64::MAX - 1, u64::MAX, ONE),
                Ordering::Less,
            ),
            ("nothing to weigh", of(0, 0, 0), of(0, 1, 1), Ordering::Equal),
        ] {
            assert_eq!(a.compare(&b, 1), expected, "{what}");
            assert_eq!(b.compare(&a, 1), expected.reverse(), "{what}, the other way");
        }
        assert_eq!(product(u64::MAX, u64::MAX, u64::MAX).1, u64::MAX, "(2^64 - 1)^3 ends in ones");
    }

    #[test]
    fn everybody_hears_a_reason() {
        let all: Vec<Candidate> = (0..6).map(|i| candidate(i, i, i / 3, i, 0)).collect();
        let reasons = |f: &dyn Fn(usize, &mut Candidate), wanted| {
            let mut found = explain(b"segment", wanted, 1, &change(all.clone(), f), &[]);
            found.sort_unstable();
            found
        };
        use Reason as R;
        assert_eq!(reasons(&|_, _| {}, 0), [R::Farther; 6], "nothing is wanted");
        let full = |_: usize, c: &mut Candidate| c.load = 100;
        assert_eq!(reasons(&full, 6), [R::NoRoom; 6]);
        assert_eq!(reasons(&|_, c| c.eligible = false, 6), [R::NotEligible; 6]);
        let expected = [R::Chosen, R::Chosen, R::Chosen, R::Chosen, R::GaveWay, R::GaveWay];
        assert_eq!(reasons(&|_, _| {}, 6), expected, "two regions of three hold six by giving way");
        let one = [
            R::Chosen,
            R::OperatorTaken,
            R::OperatorTaken,
            R::OperatorTaken,
            R::OperatorTaken,
            R::OperatorTaken,
        ];
        assert_eq!(reasons(&|_, c| c.operator = vec![1], 2), one);
        let same = all[0].address;
        let network = reasons(&|i, c| if i > 1 { c.address = same } else { c.region = vec![9] }, 3);
        assert!(network.contains(&R::NetworkTaken), "{network:?}");
        let region = (0..20u8).flat_map(|segment| explain(&[segment], 4, 1, &all, &[]));
        assert!(region.clone().any(|reason| reason == R::RegionFull));
        assert!(!region.clone().any(|reason| reason == R::GaveWay), "others had room");
    }

    #[test]
    fn newcomers_get_a_twentieth() {
        // A newcomer that every other order puts last: full except for one shard, and without a score.
        let newcomer = |c: &mut Candidate| (c.vetted, c.load, c.score) = (false, 99, 1);
        let all = change((0..40).map(|i| candidate(i, i, i, i, 0)).collect(), |i, c| {
            if i == 7 {
                newcomer(c)
            }
        });
        for (wanted, segments) in [(8, 2000u32), (1, 16000)] {
            let placed = |segment: u32| explain(&segment.to_be_bytes(), wanted, 1, &all, &[])[7];
            let share = (0..segments).filter(|segment| placed(*segment) == Reason::Newcomer).count();
            let shards = segments as usize * wanted;
            assert!((shards / 22..=shards / 18).contains(&share), "{share} of {shards}");
        }
        let none = change(all, |_, c| c.vetted = true);
        assert!(explain(b"x", 8, 1, &none, &[]).iter().all(|reason| *reason != Reason::Newcomer));
    }

    proptest! {
        #[test]
        fn operators_differ_and_order_does_not_matter(
            specs in proptest::collection::vec((0u8..12, 0u8..4, 0u8..6, 0u64..=110), 0..24),
            wanted in 0usize..10,
            segment in any::<u32>(),
        ) {
            let all: Vec<Candidate> = specs.iter().enumerate()
                .map(|(i, (o, r, n, load))| Candidate {
                    vetted: load % 3 > 0,
                    ..candidate(i as u8, *o, *r, *n, *load)
                }).collect();
            let mut chosen = choose(&segment.to_be_bytes(), wanted, 1, &all, &[]);
            prop_assert!(chosen.len() <= wanted);
            let mut operators: Vec<_> = chosen.iter().map(|i| &all[*i].operator).collect();
            operators.sort();
            operators.dedup();
            prop_assert_eq!(operators.len(), chosen.len());
            prop_assert!(chosen.iter().all(|i| all[*i].load < 100));
            let room: std::collections::BTreeSet<_> =
                all.iter().filter(|c| c.load < 100).map(|c| &c.operator).collect();
            prop_assert_eq!(chosen.len(), wanted.min(room.len()), "as many as there are operators");
            let mut reversed = all.clone();
            reversed.reverse();
            let again = choose(&segment.to_be_bytes(), wanted, 1, &reversed, &[]);
            let names = |list: &[Candidate], i: &[usize]| i.iter().map(|i| list[*i].account).collect::<Vec<_>>();
            prop_assert_eq!(names(&all, &chosen), names(&reversed, &again));
            let mut reasons = explain(&segment.to_be_bytes(), wanted, 1, &reversed, &[]);
            reasons.reverse();
            prop_assert_eq!(&reasons, &explain(&segment.to_be_bytes(), wanted, 1, &all, &[]));
            let told: Vec<usize> = (0..all.len()).filter(|i| reasons[*i].is_chosen()).collect();
            chosen.sort_unstable();
            prop_assert_eq!(told, chosen, "what is told is what was done");
        }
    }
}
