//! Classes of resources, and values kept for each of them.
//!
//! ```text
//!   Class      Storage          Egress     Compute
//!   unit       leaf and round   byte       gas
//!   paid by    settlement       vouchers   vouchers
//! ```
//!
//! [`PerClass`] holds a value for every class, [`Metered`] one for each class that vouchers pay. Both encode
//! as their values in the order of [`Class::ALL`]. A rule that holds for every class loops over that list,
//! so that no class is left out.

use bytes::BufMut;
use commonware_codec::{Buf, EncodeSize, Error, FixedSize, Read, Write};
use core::ops::{Index, IndexMut};

/// A kind of resource with a price of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Kept bytes, in leaves of 1 KiB and rounds.
    Storage,
    /// Bytes that a provider sends to its consumers.
    Egress,
    /// Computation, counted in gas.
    Compute,
}

impl Class {
    /// All classes, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Storage, Self::Egress, Self::Compute];

    /// Number of the class in keys, events and encodings.
    pub const fn index(self) -> u8 {
        match self {
            Self::Storage => 0,
            Self::Egress => 1,
            Self::Compute => 2,
        }
    }

    /// Name in the output of commands and in JSON. Computation goes by its unit, gas.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Egress => "egress",
            Self::Compute => "gas",
        }
    }
}

impl Write for Class {
    fn write(&self, buf: &mut impl BufMut) {
        self.index().write(buf);
    }
}

impl FixedSize for Class {
    const SIZE: usize = 1;
}

impl Read for Class {
    type Cfg = ();
    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        let number = u8::read_cfg(buf, &())?;
        let found = Self::ALL.into_iter().find(|class| class.index() == number);
        found.ok_or(Error::InvalidEnum(number))
    }
}

/// One value for each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClass<T>([T; 3]);

impl<T> PerClass<T> {
    /// The values of storage, egress and compute.
    pub const fn new(storage: T, egress: T, compute: T) -> Self {
        Self([storage, egress, compute])
    }

    /// The values that `of` gives for each class, called in their order.
    pub fn from_fn(mut of: impl FnMut(Class) -> T) -> Self {
        Self(Class::ALL.map(&mut of))
    }

    /// The value of a class, also in constants.
    pub const fn get(&self, class: Class) -> &T {
        let Self([storage, egress, compute]) = self;
        match class {
            Class::Storage => storage,
            Class::Egress => egress,
            Class::Compute => compute,
        }
    }

    /// The same value for every class.
    pub const fn all(value: T) -> Self
    where
        T: Copy,
    {
        Self([value; 3])
    }

    /// Each class with its value, in the order of the classes.
    pub fn iter(&self) -> impl Iterator<Item = (Class, &T)> {
        Class::ALL.into_iter().zip(&self.0)
    }

    /// The values alone, in the order of the classes.
    pub const fn values(&self) -> &[T; 3] {
        &self.0
    }

    /// The values alone, to change.
    pub const fn values_mut(&mut self) -> &mut [T; 3] {
        &mut self.0
    }

    /// The same classes with changed values.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> PerClass<U> {
        PerClass(self.0.map(change))
    }
}

impl<T: Copy> PerClass<T> {
    /// The values of the classes that vouchers pay.
    pub const fn metered(&self) -> Metered<T> {
        Metered { egress: *self.get(Class::Egress), gas: *self.get(Class::Compute) }
    }
}

impl<T> Index<Class> for PerClass<T> {
    type Output = T;
    fn index(&self, class: Class) -> &T {
        self.get(class)
    }
}

impl<T> IndexMut<Class> for PerClass<T> {
    fn index_mut(&mut self, class: Class) -> &mut T {
        let Self([storage, egress, compute]) = self;
        match class {
            Class::Storage => storage,
            Class::Egress => egress,
            Class::Compute => compute,
        }
    }
}

impl<T: Write> Write for PerClass<T> {
    fn write(&self, buf: &mut impl BufMut) {
        self.0.iter().for_each(|value| value.write(buf));
    }
}

impl<T: EncodeSize> EncodeSize for PerClass<T> {
    fn encode_size(&self) -> usize {
        self.0.iter().map(EncodeSize::encode_size).sum()
    }
}

impl<T: Read<Cfg: Default>> Read for PerClass<T> {
    type Cfg = ();
    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        let mut next = || T::read_cfg(buf, &T::Cfg::default());
        Ok(Self([next()?, next()?, next()?]))
    }
}

/// One value for each class that vouchers pay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metered<T> {
    /// The value of egress.
    pub egress: T,
    /// The value of computation.
    pub gas: T,
}

/// Bytes of egress and gas.
pub type Units = Metered<u64>;

impl<T> Metered<T> {
    /// The same classes with changed values.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Metered<U> {
        Metered { egress: change(self.egress), gas: change(self.gas) }
    }

    /// Pairs the values of each class.
    pub fn zip<U>(self, other: Metered<U>) -> Metered<(T, U)> {
        Metered { egress: (self.egress, other.egress), gas: (self.gas, other.gas) }
    }

    /// The values in the order of the classes.
    pub fn into_array(self) -> [T; 2] {
        [self.egress, self.gas]
    }
}

impl<T> Metered<Option<T>> {
    /// The values of both classes; `None` if one is missing.
    pub fn both(self) -> Option<Metered<T>> {
        Some(Metered { egress: self.egress?, gas: self.gas? })
    }
}

impl Units {
    /// Neither egress nor gas.
    pub const ZERO: Self = Self { egress: 0, gas: 0 };

    /// Bytes of egress, and no gas.
    pub const fn egress(egress: u64) -> Self {
        Self { egress, gas: 0 }
    }

    /// The sum in each class; `None` if one overflows.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.zip(other).map(|(a, b)| a.checked_add(b)).both()
    }

    /// The difference in each class; `None` if one would be below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.zip(other).map(|(a, b)| a.checked_sub(b)).both()
    }

    /// The sum in each class, at most the largest number.
    pub fn saturating_add(self, other: Self) -> Self {
        self.zip(other).map(|(a, b)| a.saturating_add(b))
    }

    /// True if no class has more units than in `most`.
    pub fn is_within(self, most: Self) -> bool {
        self.egress <= most.egress && self.gas <= most.gas
    }
}

impl<T: Write> Write for Metered<T> {
    fn write(&self, buf: &mut impl BufMut) {
        self.egress.write(buf);
        self.gas.write(buf);
    }
}

impl<T: EncodeSize> EncodeSize for Metered<T> {
    fn encode_size(&self) -> usize {
        self.egress.encode_size() + self.gas.encode_size()
    }
}

impl<T: Read<Cfg: Default>> Read for Metered<T> {
    type Cfg = ();
    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        let mut next = || T::read_cfg(buf, &T::Cfg::default());
        Ok(Self { egress: next()?, gas: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_codec::{DecodeExt, Encode};

    #[test]
    fn every_class_has_its_own_place_and_bytes_in_their_order() {
        let mut values = PerClass::from_fn(|class| u64::from(class.index()));
        assert_eq!(values, PerClass::new(0, 1, 2));
        for (place, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(class.index()), place);
            values[class] += 10;
            assert_eq!(values[class], 10 + u64::from(class.index()));
        }
        assert_eq!(values.encode(), [10_u64, 11, 12].encode());
        assert_eq!(PerClass::decode(values.encode()).expect("its own bytes"), values);
        assert_eq!(Class::ALL.map(|class| class.encode()), [[0_u8], [1], [2]].map(|byte| byte.encode()));
        assert!(Class::decode([3_u8].encode()).is_err(), "no such class");
        let units = Units { egress: 7, gas: 9 };
        assert_eq!(units.encode(), (7_u64, 9_u64).encode());
        assert_eq!(Units::decode(units.encode()).expect("its own bytes"), units);
    }

    #[test]
    fn units_are_added_and_taken_in_each_class_or_in_none() {
        let (some, more) = (Units { egress: 1, gas: u64::MAX }, Units { egress: 2, gas: 1 });
        assert_eq!(some.checked_add(more), None);
        assert_eq!(some.saturating_add(more), Units { egress: 3, gas: u64::MAX });
        assert_eq!(some.checked_sub(more), None);
        assert_eq!(more.checked_sub(Units::egress(2)), Some(Units { egress: 0, gas: 1 }));
        assert!(!some.is_within(more) && Units::egress(2).is_within(more) && Units::ZERO.is_within(more));
    }
}
