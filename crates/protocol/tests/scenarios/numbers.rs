//! The places of the integers in an encoding, and the values at which arithmetic breaks.
//!
//! The decoder finds them: it reads the bytes through a buffer that records every integer it is
//! asked for. A field that is added to a body, a header or a message, also within a list, is
//! therefore found without a change here.

use bytes::{Buf, TryGetError};
use commonware_codec::{Encode, Read};
use posync_protocol::{Class, limits::Parameters};
use std::collections::BTreeSet;

/// An integer in an encoding: its first byte and its number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number {
    at: usize,
    width: usize,
}

/// Bytes that record which integers are read from them.
struct Recorder<'a> {
    rest: &'a [u8],
    length: usize,
    numbers: Vec<Number>,
}

impl Recorder<'_> {
    fn note(&mut self, width: usize) {
        self.numbers.push(Number { at: self.length - self.rest.len(), width });
    }
}

macro_rules! recorded {
    ($($get:ident $try_get:ident $type:ty),*) => {
        $(
            fn $get(&mut self) -> $type {
                self.note(size_of::<$type>());
                self.rest.$get()
            }
            fn $try_get(&mut self) -> Result<$type, TryGetError> {
                self.note(size_of::<$type>());
                self.rest.$try_get()
            }
        )*
    };
}

impl Buf for Recorder<'_> {
    fn remaining(&self) -> usize {
        self.rest.len()
    }
    fn chunk(&self) -> &[u8] {
        self.rest
    }
    fn advance(&mut self, count: usize) {
        self.rest = &self.rest[count..];
    }
    recorded!(
        get_u8 try_get_u8 u8,
        get_u16 try_get_u16 u16,
        get_u32 try_get_u32 u32,
        get_u64 try_get_u64 u64,
        get_u128 try_get_u128 u128
    );
}

impl commonware_codec::Buf for Recorder<'_> {}

/// The integers of an encoded `T` in their order, including tags and lengths.
pub(crate) fn numbers<T: Read<Cfg = ()>>(bytes: &[u8]) -> Vec<Number> {
    let mut recorder = Recorder { rest: bytes, length: bytes.len(), numbers: Vec::new() };
    let decoded = T::read_cfg(&mut recorder, &());
    assert!(decoded.is_ok() && recorder.rest.is_empty(), "a sample decodes");
    recorder.numbers.dedup();
    recorder.numbers
}

impl Number {
    /// The value of this integer in `bytes`.
    pub(crate) fn get(self, bytes: &[u8]) -> u128 {
        bytes[self.at..self.at + self.width].iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
    }

    /// The bytes with `value` in the place of this integer.
    pub(crate) fn set(self, bytes: &[u8], value: u128) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let big_endian = value.to_be_bytes();
        bytes[self.at..self.at + self.width].copy_from_slice(&big_endian[16 - self.width..]);
        bytes
    }

    /// The largest value that fits into this integer.
    pub(crate) const fn max(self) -> u128 {
        if self.width == 16 { u128::MAX } else { (1 << (8 * self.width)) - 1 }
    }
}

/// Exponents of bounds: slots, providers, shards, quotas, words, the supply.
const POWERS: [u32; 14] = [6, 8, 10, 12, 16, 20, 21, 22, 32, 36, 48, 63, 64, 100];

/// Bounds of the protocol with both neighbours: each parameter of the genesis (found like any other
/// number, so that a new one counts), powers of two, and the numbers in `near`.
pub(crate) fn bounds(near: &[u64]) -> BTreeSet<u128> {
    let parameters = Parameters::LOCAL.encode();
    let fixed = numbers::<Parameters>(&parameters).into_iter().map(|number| number.get(&parameters));
    let powers = POWERS.iter().map(|power| 1 << power);
    let all = fixed.chain(powers).chain(near.iter().map(|number| u128::from(*number)));
    all.flat_map(|bound: u128| [bound.saturating_sub(1), bound, bound.saturating_add(1)]).collect()
}

/// The values to which a number of this width is set: the ends of its range, the neighbours of its
/// present value, and `bounds`.
pub(crate) fn edges(number: Number, now: u128, bounds: &BTreeSet<u128>) -> BTreeSet<u128> {
    let max = number.max();
    let mut edges = BTreeSet::from([0, 1, max, max - 1, max / 2, max / 2 + 1]);
    edges.extend([now.saturating_sub(1), now.saturating_add(1).min(max)]);
    edges.extend(bounds.range(..=max));
    edges.remove(&now);
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use posync_protocol::Operation;

    /// If the recorder missed a kind of field, all tests that depend on it would pass without effect.
    #[test]
    fn every_integer_of_a_nested_value_is_found_and_set() {
        let operation = samples::envelope(samples::bodies().swap_remove(0).1);
        let bytes = operation.encode().to_vec();
        let found = numbers::<Operation>(&bytes);
        let widths: Vec<usize> = found.iter().map(|number| number.width).collect();
        assert_eq!(widths, [8, 16, 8, 1, 16], "nonce, fee, expiry, the body's tag, the amount");
        assert_eq!(found[0].get(&bytes), 5);
        let other = found[0].set(&bytes, 1 << 63);
        let decoded: Operation =
            commonware_codec::DecodeExt::decode(bytes::Bytes::from(other)).expect("an operation");
        assert_eq!(decoded.nonce, 1 << 63);
        let lists = samples::envelope(
            samples::bodies().into_iter().find(|(name, _)| *name == "body/Settle").expect("listed").1,
        );
        let bytes = lists.encode().to_vec();
        let wide = numbers::<Operation>(&bytes).iter().filter(|number| number.width == 8).count();
        assert_eq!(wide, 2 + 64 + 64, "the envelope's, one of each slot, every ending");
    }

    #[test]
    fn the_edges_hold_the_ends_and_each_bound_with_its_neighbours() {
        let number = Number { at: 0, width: 8 };
        let edges = edges(number, 7, &bounds(&[4_711]));
        let quota = u128::from(Parameters::LOCAL.quota_max[Class::Egress]);
        for value in [0, 1, u64::MAX.into(), 6, 8, quota - 1, quota, quota + 1, 4_710, 4_711, 4_712] {
            assert!(edges.contains(&value), "{value}");
        }
        assert!(!edges.contains(&7) && edges.iter().all(|value| *value <= u64::MAX.into()));
    }
}
