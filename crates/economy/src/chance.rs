//! The only randomness of the simulations: a seeded stream of integers.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// A stream that depends on the seed and on its topic, so that a new scenario changes no other.
#[derive(Clone, Debug)]
pub struct Chance(ChaCha12Rng);

impl Chance {
    /// The stream of `topic` under `seed`.
    pub fn new(seed: u64, topic: &str) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        for (place, byte) in topic.bytes().enumerate() {
            let at = 8 + place % 24;
            key[at] = key[at].wrapping_mul(31).wrapping_add(byte);
        }
        Self(ChaCha12Rng::from_seed(key))
    }

    /// An integer below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.0.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("below the bound")
    }

    /// An integer at most `spread` away from `centre`.
    pub(crate) fn around(&mut self, centre: u64, spread: u64) -> u64 {
        centre - spread + self.below(2 * spread + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn streams_repeat_and_differ_by_topic() {
        let draw = |seed, topic| {
            let mut chance = Chance::new(seed, topic);
            [(); 8].map(|()| chance.below(1_000_000))
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }
}
