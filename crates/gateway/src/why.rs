//! Explains why a provider gets shards or not: the result of placing recent segments anew, now.
//!
//! The answer comes from the placement rule itself ([`crate::placement::explain`]) and the gateway's
//! present state, so it is what the next put of such a segment would do.
//!
//! Memory: the names of [`PLACEMENTS_MAX`] segments.

use crate::{
    agreement::state::leaves,
    coding::{SEGMENT_BYTES, SHARDS, shard_bytes},
    placement::{Candidate, Reason, explain},
    shared::Known,
};
use posync_protocol::{
    Account, Bounded,
    wire::gateway::{PLACEMENTS_MAX, Placement, Seen, Why},
};
use std::collections::VecDeque;

/// Reason on the wire: the provider is no candidate, because no agreement with it is open.
const NO_AGREEMENT: u8 = 9;
/// Reason on the wire: the provider left offers unanswered ([`crate::peer_health`]).
const SILENT: u8 = 10;

/// The names and leaves per shard of the last placed segments, newest first.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<(Vec<u8>, u64)>);

impl Recent {
    /// Records that a segment with shards of `leaves` was placed.
    pub(crate) fn note(&mut self, segment: &[u8], leaves: u64) {
        self.0.truncate(PLACEMENTS_MAX - 1);
        self.0.push_front((segment.to_vec(), leaves));
    }

    /// The recorded segments, or a sample of full ones if none was placed since the start.
    fn segments(&self) -> Vec<(Vec<u8>, u64)> {
        if !self.0.is_empty() {
            return self.0.iter().cloned().collect();
        }
        let full = leaves(shard_bytes(SEGMENT_BYTES) as u64);
        (0..PLACEMENTS_MAX as u32).map(|segment| (segment.to_be_bytes().to_vec(), full)).collect()
    }

    /// Explains how placement among `candidates` treats `provider`. `peer_health` holds the offers in a row that
    /// it left unanswered, and the blocks for which it is left out.
    pub(crate) fn why(
        &self,
        provider: &Account,
        known: Option<&Known>,
        peer_health: (u32, u64),
        candidates: &[Candidate],
    ) -> Why {
        let of = candidates.iter().position(|candidate| candidate.account == *provider);
        let seen = known.map(|known| Seen {
            trusted: known.trusted,
            vetted: known.vetted,
            score: known.score,
            room: of.map(|index| (candidates[index].load, candidates[index].capacity)),
            unanswered: peer_health.0,
            left_out: peer_health.1,
        });
        let placement = |(segment, leaves): (Vec<u8>, u64)| {
            let reasons = explain(&segment, SHARDS, leaves, candidates, &[]);
            Placement {
                reason: of.map_or(NO_AGREEMENT, |index| match reasons[index] {
                    Reason::NotEligible if peer_health.1 > 0 => SILENT,
                    reason => reason as u8,
                }),
                candidates: u32::try_from(candidates.len()).unwrap_or(u32::MAX),
                chosen: reasons.iter().filter(|reason| reason.is_chosen()).count() as u32,
                segment: Bounded::new(segment).unwrap_or_default(),
                leaves,
            }
        };
        let placements = self.segments().into_iter().map(placement).collect();
        Why {
            seen,
            recent: !self.0.is_empty(),
            placements: Bounded::new(placements).expect("the ring holds no more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: u8) -> Candidate {
        Candidate {
            account: Account([id; 32]),
            operator: vec![id],
            region: vec![id],
            address: None,
            load: 0,
            capacity: 1 << 20,
            score: 1,
            vetted: true,
            eligible: id != 3,
        }
    }

    #[test]
    fn it_says_what_the_next_put_would_do() {
        let candidates: Vec<Candidate> = (0..9).map(candidate).collect();
        let mut recent = Recent::default();
        let sample = recent.why(&Account([1; 32]), None, (0, 0), &candidates);
        assert_eq!((sample.recent, sample.seen, sample.placements.len()), (false, None, PLACEMENTS_MAX));
        for segment in 0..100u8 {
            recent.note(&[segment], 7);
        }
        let of = |id: u8| recent.why(&Account([id; 32]), None, (0, 0), &candidates);
        assert!(of(1).recent && of(1).placements.len() == PLACEMENTS_MAX);
        let first = &of(1).placements[0];
        assert_eq!((&first.segment[..], first.leaves, first.candidates, first.chosen), (&[99][..], 7, 9, 8));
        let reasons = |id| of(id).placements.iter().map(|placement| placement.reason).collect::<Vec<_>>();
        assert_eq!(reasons(1), [Reason::Chosen as u8; PLACEMENTS_MAX], "eight of eight");
        assert_eq!(reasons(3), [Reason::NotEligible as u8; PLACEMENTS_MAX]);
        assert_eq!(reasons(77), [NO_AGREEMENT; PLACEMENTS_MAX]);
        let silent = recent.why(&Account([3; 32]), None, (3, 40), &candidates);
        assert!(silent.placements.iter().all(|placement| placement.reason == SILENT));
    }
}
