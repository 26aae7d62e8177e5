//! Chooses the slots of a provider among which a free one is searched. A consumer that fills the slots
//! around the number of agreements must not keep others from opening one.

use posync_protocol::limits::{READ_KEYS_MAX, SLOTS_MAX};
use std::ops::Range;

/// Slots that one read covers.
const PAGE: u32 = READ_KEYS_MAX as u32;
/// Pages that are searched above the likely one.
const PAGES_ABOVE: u32 = 4;

/// The pages of slots to read, in turn, until one has a free slot: where one is likely with `held`
/// agreements, anywhere below, then above, and last anywhere. Their number is bounded.
pub(super) fn pages(held: u32, random: &[u8; 32]) -> Vec<Range<u32>> {
    let page = |first: u32| {
        let first = first.min(SLOTS_MAX - PAGE);
        first..first + PAGE
    };
    let draw = |place: usize, below: u32| {
        let word = random[4 * place..4 * place + 4].try_into().expect("four bytes");
        u32::from_be_bytes(word) % below.max(1)
    };
    let likely = held.saturating_sub(PAGE / 2);
    let mut pages = vec![page(likely), page(draw(1, likely))];
    pages.extend((1..=PAGES_ABOVE).map(|number| page(likely.saturating_add(number * PAGE))));
    pages.extend([2, 3].map(|place| page(draw(place, SLOTS_MAX))));
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fills_the_likely_slots_keeps_nobody_out() {
        for held in [64, 1_000, 4_096, SLOTS_MAX / 2] {
            // All slots up to well above the number of agreements are taken.
            let taken = 0..held.saturating_add(PAGE * (PAGES_ABOVE + 2));
            let found = (0..64u8).filter(|seed| {
                let random: [u8; 32] = std::array::from_fn(|i| blake3::hash(&[*seed]).as_bytes()[i]);
                pages(held, &random).into_iter().flatten().any(|slot| !taken.contains(&slot))
            });
            let found = found.count();
            assert!(found >= 32, "{held}: {found} of 64 looks");
            // Every second slot below is free, as after agreements ended.
            let random = *blake3::hash(b"below").as_bytes();
            let pages = pages(held, &random);
            let is_free = |slot: u32| slot < held.saturating_sub(PAGE) && slot.is_multiple_of(2);
            assert!(held <= PAGE || pages.into_iter().flatten().any(is_free), "{held}");
        }
    }

    #[test]
    fn pages_are_few_and_within_the_slots() {
        for held in [0, 31, 64, SLOTS_MAX, u32::MAX] {
            let pages = pages(held, &[0xff; 32]);
            assert!(pages.len() <= 8);
            assert!(
                pages.iter().all(|page| page.len() == READ_KEYS_MAX && page.end <= SLOTS_MAX),
                "{pages:?}"
            );
        }
        assert_eq!(pages(0, &[7; 32])[0], 0..PAGE, "a new provider's first slots");
    }
}
