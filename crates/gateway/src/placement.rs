//! Which providers get the shards of a segment: a pure local rule, the same answer every time.
//!
//! ```text
//!   candidates --rendezvous hash of (segment, provider)--> the first 2 x wanted
//!              --emptiest first, in sixteenths of capacity--> the order of asking
//!              --one per operator; per /24; two per region--> chosen
//! ```
//!
//! Rendezvous hashing spreads segments over all providers and moves few shards when one joins or
//! leaves; the load step keeps a small provider from filling up first. The first two rules after
//! it bound what one failure can take: an operator never holds two shards of a segment, while the
//! address and region rules give way when there are too few providers to keep them.
//!
//! Invariants
//! 1. No two chosen (nor a chosen and a `kept`) share an operator.
//! 2. The result depends on the set of candidates, not on their order.
//! 3. A candidate without room is never chosen.

use posync_protocol::Account;
use std::net::SocketAddr;

/// Shards of one segment in one region, while others have room.
pub const PER_REGION_MAX: usize = 2;
/// Loads that differ by less than a sixteenth of the capacity count as equal.
const LOAD_STEPS: u128 = 16;

/// A provider that could hold a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub account: Account,
    /// Its declared operator.
    pub operator: Vec<u8>,
    /// Its region's name.
    pub region: Vec<u8>,
    /// Where it is reached, once resolved.
    pub address: Option<SocketAddr>,
    /// Leaves we hold there.
    pub load: u64,
    /// Leaves we may hold there.
    pub capacity: u64,
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
}

/// How strictly the rules that may give way are kept.
#[derive(Clone, Copy)]
struct Rules {
    region: bool,
    network: bool,
}

/// Strictest first: a region rule gives way before an address rule; the operator rule never does.
const PASSES: [Rules; 3] = [
    Rules { region: true, network: true },
    Rules { region: false, network: true },
    Rules { region: false, network: false },
];

/// Up to `wanted` candidates with room for `leaves` more for the shards of `segment`, beside the
/// `kept` ones that hold other shards of it; indices into `candidates`, in the order of positions.
pub fn choose(
    segment: &[u8],
    wanted: usize,
    leaves: u64,
    candidates: &[Candidate],
    kept: &[Candidate],
) -> Vec<usize> {
    let mut order: Vec<([u8; 32], usize)> = candidates
        .iter()
        .enumerate()
        .filter(|(_, c)| c.load.checked_add(leaves).is_some_and(|load| load <= c.capacity))
        .map(|(index, c)| (c.rank(segment), index))
        .collect();
    order.sort_unstable();
    let nearest = order.len().min(wanted.saturating_mul(2));
    let (near, far) = order.split_at_mut(nearest);
    near.sort_by_key(|(rank, index)| (fullness(&candidates[*index]), *rank));
    let asked: Vec<usize> = near.iter().chain(far.iter()).map(|(_, index)| *index).collect();
    let mut chosen: Vec<usize> = Vec::with_capacity(wanted);
    for rules in PASSES {
        for &index in &asked {
            if chosen.len() < wanted && fits(rules, &candidates[index], candidates, &chosen, kept) {
                chosen.push(index);
            }
        }
    }
    chosen.sort_by_key(|index| candidates[*index].rank(segment));
    chosen
}

fn fullness(candidate: &Candidate) -> u128 {
    u128::from(candidate.load) * LOAD_STEPS / u128::from(candidate.capacity.max(1))
}

fn fits(rules: Rules, it: &Candidate, all: &[Candidate], chosen: &[usize], kept: &[Candidate]) -> bool {
    let others = || chosen.iter().map(|index| &all[*index]).chain(kept);
    let operator = others().all(|other| other.operator != it.operator && other.account != it.account);
    let network = !rules.network
        || it.network().is_none_or(|network| others().all(|other| other.network() != Some(network)));
    let region = !rules.region || others().filter(|other| other.region == it.region).count() < PER_REGION_MAX;
    operator && network && region
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
        }
    }

    /// Ten providers of ten operators in five regions and ten networks: the local network.
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

    proptest! {
        #[test]
        fn operators_differ_and_order_does_not_matter(
            specs in proptest::collection::vec((0u8..12, 0u8..4, 0u8..6, 0u64..=110), 0..24),
            wanted in 0usize..10,
            segment in any::<u32>(),
        ) {
            let all: Vec<Candidate> = specs.iter().enumerate()
                .map(|(i, (o, r, n, load))| candidate(i as u8, *o, *r, *n, *load)).collect();
            let chosen = choose(&segment.to_be_bytes(), wanted, 1, &all, &[]);
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
        }
    }
}
