//! Money as integer grains, and the two divisions that the rules use.
//!
//! 1 SYNC = 10^9 grains. Ratios are in parts per billion ([`ONE`]). Products are computed in 256 bits,
//! so no rule overflows below the supply bound of 2^100 grains (`docs/invariants.md`, 7).

use crate::Broken;
use crate::number::widest;
use core::fmt;
use ruint::aliases::U256;

/// The ratio one, in parts per billion.
pub const ONE: u64 = 1_000_000_000;
/// Grains in one SYNC.
pub const SYNC: u128 = 1_000_000_000;
/// Number of units that a price refers to: grains per `UNIT` leaf-rounds, bytes or gas.
pub const UNIT: u128 = 1 << 20;

/// An amount of money in grains, from zero to [`Amount::MAX`]. Arithmetic is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(u128);

impl Amount {
    /// An amount of zero grains.
    pub const ZERO: Self = Self(0);
    /// The largest amount, 2^100 grains: above any supply.
    pub const MAX: Self = Self(1 << 100);

    /// An amount of `grains`; `None` above [`Amount::MAX`].
    pub const fn new(grains: u128) -> Option<Self> {
        if grains <= Self::MAX.0 { Some(Self(grains)) } else { None }
    }

    /// An amount of `whole` SYNC.
    pub const fn sync(whole: u64) -> Self {
        Self(widest(whole) * SYNC)
    }

    /// The amount as a number of grains.
    pub const fn grains(self) -> u128 {
        self.0
    }

    /// `self + other`; `None` above [`Amount::MAX`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::new(self.0.checked_add(other.0)?)
    }

    /// `self - other`; `None` below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Adds `other` to the sum that is named `what`.
    ///
    /// # Errors
    /// [`Broken`] above [`Amount::MAX`]: only for sums that the supply bounds.
    pub(crate) fn gain(&mut self, other: Self, what: &'static str) -> Result<(), Broken> {
        *self = self.checked_add(other).ok_or(Broken::bound(what))?;
        Ok(())
    }

    /// Subtracts `other` from the sum that is named `what`.
    ///
    /// # Errors
    /// [`Broken`] below zero: only where another rule or sum rules that out.
    pub(crate) fn lose(&mut self, other: Self, what: &'static str) -> Result<(), Broken> {
        *self = self.checked_sub(other).ok_or(Broken::bound(what))?;
        Ok(())
    }

    /// `self + other`, or all money there can be.
    pub fn saturating_add(self, other: Self) -> Self {
        self.checked_add(other).unwrap_or(Self::MAX)
    }

    /// `self - other`, or zero if that is negative.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Amount {
    /// Shows SYNC with nine decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / SYNC, self.0 % SYNC)
    }
}

impl commonware_codec::Write for Amount {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        self.0.write(buf);
    }
}

impl commonware_codec::FixedSize for Amount {
    const SIZE: usize = 16;
}

impl commonware_codec::Read for Amount {
    type Cfg = ();
    fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
        Self::new(u128::read_cfg(buf, &())?)
            .ok_or(commonware_codec::Error::Invalid("Amount", "above 2^100 grains"))
    }
}

/// `floor(a * b / c)`; `None` if `c` is zero or the result exceeds 128 bits.
pub fn mul_div(a: u128, b: u128, c: u128) -> Option<u128> {
    (c != 0).then(|| U256::from(a) * U256::from(b) / U256::from(c))?.try_into().ok()
}

/// `ceil(a * b / c)`; `None` if `c` is zero or the result exceeds 128 bits.
pub fn mul_div_up(a: u128, b: u128, c: u128) -> Option<u128> {
    (c != 0).then(|| (U256::from(a) * U256::from(b)).div_ceil(U256::from(c)))?.try_into().ok()
}
