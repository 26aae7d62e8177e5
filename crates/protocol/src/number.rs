//! Conversions between widths of integers that lose no bit, also in constants, where `From` is not available.
//!
//! This file is the only one of the crate in which `as` stands.
#![cfg_attr(
    not(test),
    expect(clippy::as_conversions, reason = "each widens, or its value is checked before")
)]

const _: () = assert!(usize::BITS >= u32::BITS && usize::BITS <= u64::BITS);

/// A length or count as a number of 64 bits.
pub(crate) const fn count(length: usize) -> u64 {
    length as u64
}

/// A number of 32 bits as an index or a length.
pub(crate) const fn index(number: u32) -> usize {
    number as usize
}

/// A number of 8 bits as an index or a length.
pub(crate) const fn index8(number: u8) -> usize {
    number as usize
}

/// A number of 16 bits as an index or a length.
pub(crate) const fn index16(number: u16) -> usize {
    number as usize
}

/// A number of 32 bits as one of 64.
pub(crate) const fn wide(number: u32) -> u64 {
    number as u64
}

/// A number of 64 bits as one of 128.
pub(crate) const fn widest(number: u64) -> u128 {
    number as u128
}

/// A bound of this crate, or a number below one, as a length.
///
/// # Panics
/// If the bound does not fit. Bounds are constants, so this fails when the crate is built.
pub(crate) const fn bound(number: u64) -> usize {
    assert!(number <= u32::MAX as u64, "a length of at most 32 bits");
    number as usize
}

/// A length that is a constant of this crate as a number of 32 bits.
///
/// # Panics
/// If the length does not fit. Bounds are constants, so this fails when the crate is built.
pub(crate) const fn bound_u32(length: usize) -> u32 {
    assert!(length <= u32::MAX as usize, "a length of at most 32 bits");
    length as u32
}

/// A number of 128 bits as one of 64, at most the largest.
pub(crate) const fn saturate(number: u128) -> u64 {
    if number > u64::MAX as u128 { u64::MAX } else { number as u64 }
}

/// A number of 64 bits as one of 32, at most the largest.
pub(crate) const fn saturate_u32(number: u64) -> u32 {
    if number > u32::MAX as u64 { u32::MAX } else { number as u32 }
}

/// A number of 64 bits as one of 8, at most the largest.
pub(crate) const fn saturate_u8(number: u64) -> u8 {
    if number > u8::MAX as u64 { u8::MAX } else { number as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_becomes_the_largest() {
        assert_eq!([saturate(7), saturate(1 << 64), saturate(u128::MAX)], [7, u64::MAX, u64::MAX]);
        assert_eq!([saturate_u32(7), saturate_u32(1 << 32)], [7, u32::MAX]);
        assert_eq!([saturate_u8(7), saturate_u8(255), saturate_u8(256)], [7, 255, 255]);
        assert_eq!(
            (count(9), index(9), index8(9), index16(9), wide(9), widest(9), bound(9), bound_u32(9)),
            (9, 9, 9, 9, 9, 9, 9, 9)
        );
    }
}
