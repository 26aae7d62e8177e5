//! The versions of the rules, by height: a block's header names the version that it follows.
//!
//! A change of the rules is an [`Activation`]: the program that brings it names the height from which all nodes
//! follow it. A node without that program stops one block before, with its state untouched.
//!
//! Invariant: heights and versions of a table rise.

/// Version of the rules that a chain begins with.
pub const FIRST_VERSION: u16 = 1;
/// The activations of the network, in order; none yet.
pub const ACTIVATIONS: &[Activation] = &[];

const _: () = assert!(Rules::KNOWN.is_ordered());

/// The first height of a version of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Height of the first block that follows the version.
    pub height: u64,
    /// Version of the rules, as in the header.
    pub version: u16,
}

/// The versions that a program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules(&'static [Activation]);

impl Rules {
    /// The versions that this program knows.
    pub const KNOWN: Self = Self(ACTIVATIONS);

    /// The rules of another table; `None` if its heights or versions do not rise.
    pub const fn new(activations: &'static [Activation]) -> Option<Self> {
        let rules = Self(activations);
        if rules.is_ordered() { Some(rules) } else { None }
    }

    const fn is_ordered(&self) -> bool {
        let (mut height, mut version, mut place) = (0, FIRST_VERSION, 0);
        while place < self.0.len() {
            let next = self.0[place];
            if next.height <= height || next.version <= version {
                return false;
            }
            (height, version, place) = (next.height, next.version, place + 1);
        }
        true
    }

    /// The version that the block at `height` must carry.
    pub fn version_at(&self, height: u64) -> u16 {
        let active = self.0.iter().rev().find(|activation| activation.height <= height);
        active.map_or(FIRST_VERSION, |activation| activation.version)
    }

    /// The newest version of the rules in the table.
    pub fn newest(&self) -> u16 {
        self.0.last().map_or(FIRST_VERSION, |activation| activation.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [Activation; 2] =
        [Activation { height: 10, version: 2 }, Activation { height: 30, version: 5 }];

    #[test]
    fn a_version_counts_from_its_height_on() {
        let rules = Rules::new(&TWO).expect("it rises");
        for (height, version) in [(0, 1), (9, 1), (10, 2), (29, 2), (30, 5), (u64::MAX, 5)] {
            assert_eq!(rules.version_at(height), version, "at {height}");
        }
        assert_eq!((rules.newest(), Rules::KNOWN.newest()), (5, FIRST_VERSION));
    }

    #[test]
    fn a_table_that_does_not_rise_is_refused() {
        const SAME_HEIGHT: [Activation; 2] =
            [Activation { height: 10, version: 2 }, Activation { height: 10, version: 3 }];
        const SAME_VERSION: [Activation; 1] = [Activation { height: 10, version: FIRST_VERSION }];
        const GENESIS: [Activation; 1] = [Activation { height: 0, version: 2 }];
        assert_eq!(Rules::new(&SAME_HEIGHT), None);
        assert_eq!(Rules::new(&SAME_VERSION), None);
        assert_eq!(Rules::new(&GENESIS), None);
    }
}
