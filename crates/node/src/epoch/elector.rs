//! Elects the leader of a view: the beacon draws the leaders of even views in proportion to weight; odd views
//! rotate among the authorities with weight.
//!
//! The draw keeps half of the leaders unpredictable and lets the ledger favour authorities that
//! stay in sync. The rotation guarantees every dealer a block in the second half of a term, which
//! the key reshare needs: with a pure draw and uneven weights, ceremonies fail. A dealer of weight
//! zero gets none: it signed against itself, and the reshare succeeds without it. If those with weight
//! are no quorum, the reshare would fail and no one could ever be replaced, so all take turns then.
//!
//! Invariants:
//! 1. The draw reads only the recovered seed of the unlocking certificate, which is the same for
//!    every certificate of a view.
//! 2. A view without a certificate (the first of a term) rotates.
//! 3. An authority of weight zero leads no view while those with weight are a quorum (AU-9). It is drawn only
//!    if all weigh zero.

use super::Weights;
use crate::engine::{PublicKey, Scheme, Variant};
use commonware_codec::Encode as _;
use commonware_consensus::{
    simplex::{
        elector::{Config, Dynamic, Elector, Terms},
        scheme::bls12381_threshold::vrf::Certificate,
    },
    types::{Participant, Round},
};
use commonware_cryptography::{Hasher as _, Sha256};
use commonware_utils::{Faults as _, N3f1, ordered::Set};

/// Builds a [`HybridElector`] for each term.
#[derive(Clone, Debug)]
pub(crate) struct Hybrid(pub Weights);

impl Config<Scheme> for Hybrid {
    type Elector = HybridElector;

    fn build(self, participants: &Set<PublicKey>) -> HybridElector {
        assert!(!participants.is_empty(), "a term has at least one authority");
        HybridElector { weights: self.0, participants: participants.clone() }
    }
}

/// Elects the leaders of one term.
#[derive(Clone, Debug)]
pub(crate) struct HybridElector {
    weights: Weights,
    participants: Set<PublicKey>,
}

impl Elector<Scheme> for HybridElector {
    type Mode = Dynamic;

    fn terms(&self) -> Terms {
        Terms::rotating()
    }

    fn elect(&self, round: Round, certificate: Option<&Certificate<Variant>>) -> Participant {
        let (term, view) = (round.epoch().get(), round.view().get());
        let weights = self.weights.of(term, &self.participants);
        let index = match certificate.filter(|_| view.is_multiple_of(2)) {
            Some(certificate) => {
                let signatures = certificate.get();
                let seed = signatures.expect("consensus verified the certificate");
                let seed = Sha256::hash(&[b"posync/leader", &seed.seed_signature.encode()]);
                draw(seed.as_ref(), &weights)
            }
            None => rotate(term, view, &weights),
        };
        Participant::from_usize(index)
    }
}

/// The leader of a rotating view: consecutive odd views go to consecutive authorities with weight, or to all
/// if those are no quorum.
fn rotate(term: u64, view: u64, weights: &[u64]) -> usize {
    let mut leaders: Vec<usize> = (0..weights.len()).filter(|index| weights[*index] > 0).collect();
    if leaders.len() < N3f1::quorum(weights.len()) as usize {
        leaders = (0..weights.len()).collect();
    }
    let turn = u128::from(term.wrapping_add(view / 2));
    leaders[(turn % leaders.len() as u128) as usize]
}

/// The index that `seed` picks, with probabilities in proportion to the weights.
fn draw(seed: &[u8], weights: &[u64]) -> usize {
    let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
    let number = seed.iter().take(16).fold(0u128, |n, byte| n << 8 | u128::from(*byte));
    if total == 0 {
        return (number % weights.len() as u128) as usize;
    }
    // 128 bits over a sum below 2^69 (32 weights of 64 bits): the bias is below 2^-58.
    let mut left = number % total;
    for (index, weight) in weights.iter().enumerate() {
        match left.checked_sub(u128::from(*weight)) {
            Some(rest) => left = rest,
            None => return index,
        }
    }
    unreachable!("the remainder of a division by the sum is below the sum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_weights() {
        let weights = [1u64, 0, 3, 6];
        let mut counts = [0u32; 4];
        for n in 0u64..20_000 {
            let seed = Sha256::hash(&[&n.to_be_bytes()]);
            counts[draw(seed.as_ref(), &weights)] += 1;
        }
        assert_eq!(counts[1], 0);
        for (count, weight) in counts.iter().zip(weights) {
            assert!(count.abs_diff(2_000 * weight as u32) < 300, "{counts:?}");
        }
    }

    #[test]
    fn equal_when_all_weigh_nothing() {
        let picked: std::collections::BTreeSet<_> =
            (0u64..100).map(|n| draw(Sha256::hash(&[&n.to_be_bytes()]).as_ref(), &[0, 0, 0])).collect();
        assert_eq!(picked.len(), 3);
    }

    #[test]
    fn odd_views_visit_everyone() {
        let leaders = |weights: &[u64]| (0..4).map(|n| rotate(7, 2 * n + 1, weights)).collect::<Vec<_>>();
        assert_eq!(leaders(&[1, 9, 1, 1]), [3, 0, 1, 2]);
        assert_eq!(leaders(&[1, 0, 1, 1]), [2, 3, 0, 2], "but for who weighs nothing");
        assert_eq!(leaders(&[1, 0, 0, 1]), [3, 0, 1, 2], "two of four could not reshare the key");
        assert_eq!(leaders(&[0; 4]), [3, 0, 1, 2]);
        assert_eq!(leaders(&[1, 1, 0, 1, 1]), [4, 0, 1, 3]);
        assert_eq!(leaders(&[0, 1, 0, 1, 1, 1, 1]), [4, 5, 6, 1], "five of seven can");
    }
}
