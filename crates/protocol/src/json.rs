//! The JSON of the protocol's values, for commands, scripts and pages (feature `serde`).
//!
//! The macros that declare a struct, a record, an operation or an event write its [`Serialize`] from the same
//! list of fields. A field's name and its type decide how it is shown:
//!
//! ```text
//!   Amount            {"grains": "1500000000", "sync": "1.500000000"}
//!   Account           bech32m          [u8; N]       hex, as a hash or a seed
//!   u64 and smaller   a number         u128          digits: readers of JSON round above 2^53
//!   Bounded<u8, N>    text             Ratio         parts per billion; null if never measured
//! ```
//!
//! A field with `#[json(..)]` attributes has one entry for each of them instead of that one:
//!
//! - `#[json(skip)]`: no entry, as for signatures and the bytes of proofs;
//! - `#[json("name")]`: another name;
//! - `#[json(function)]`, `#[json("name", function)]`: shown by a function of this module;
//! - `#[json(flat)]`: the entries of the field's own fields;
//! - `#[json(units("name", ..))]`: one entry for each class of resources, under these names. Leaves and bytes
//!   are numbers, gas is digits;
//! - `#[json(prices("name", ..))]`: the same, all in digits.
//!
//! `#[json("name" = function)]` before a type's documentation adds an entry that is computed from the value.

use crate::{
    Account, Amount, Bounded, Class, Code, Hash, Metered, PerClass, Slot, Units,
    bodies::ProbeCount,
    record::{self, Address, Before, Challenge, Measured, Pair, Ratio, UNMEASURED},
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A value that has a form in JSON.
pub trait Json {
    /// Writes the value.
    ///
    /// # Errors
    /// Only those of the serializer.
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;

    /// Writes a list whose length varies.
    ///
    /// # Errors
    /// Only those of the serializer.
    fn write_list<S: Serializer>(all: &[Self], to: S) -> Result<S::Ok, S::Error>
    where
        Self: Sized,
    {
        to.collect_seq(all.iter().map(As))
    }

    /// Writes a list of fixed length.
    ///
    /// # Errors
    /// Only those of the serializer.
    fn write_array<S: Serializer>(all: &[Self], to: S) -> Result<S::Ok, S::Error>
    where
        Self: Sized,
    {
        Self::write_list(all, to)
    }
}

/// A value that is an object in JSON.
pub trait Object {
    /// Writes the entries of the object into an open one.
    ///
    /// # Errors
    /// Only those of the serializer.
    fn entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
}

/// A value in its JSON form, for a serializer.
pub struct As<'a, T: ?Sized>(pub &'a T);

impl<T: Json + ?Sized> Serialize for As<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.write_json(to)
    }
}

/// Writes an object on its own.
///
/// # Errors
/// Only those of the serializer.
pub fn object<T: Object, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(None)?;
    value.entries(&mut map)?;
    map.end()
}

macro_rules! plain {
    ($($type:ty)*) => {
        $(impl Json for $type {
            fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                self.serialize(to)
            }
        })*
    };
}

plain!(bool u16 u32 u64 str String);

impl Json for u8 {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.serialize(to)
    }

    fn write_list<S: Serializer>(all: &[Self], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&String::from_utf8_lossy(all))
    }

    fn write_array<S: Serializer>(all: &[Self], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(all))
    }
}

impl Json for u128 {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Json for Account {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Json for Amount {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry("grains", &As(&self.grains()))?;
        map.serialize_entry("sync", &self.to_string())?;
        map.end()
    }
}

impl Json for Ratio {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.measured().serialize(to)
    }
}

impl Json for Code {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(self.number())
    }
}

impl Json for Class {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(self.index())
    }
}

impl<T: Json> Json for PerClass<T> {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.values().write_json(to)
    }
}

impl<T: Json + ?Sized> Json for &T {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (*self).write_json(to)
    }
}

impl<T: Json> Json for Option<T> {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(As).serialize(to)
    }
}

impl<T: Json, const N: usize> Json for [T; N] {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        T::write_array(self, to)
    }
}

impl<T: Json> Json for Vec<T> {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        T::write_list(self, to)
    }
}

impl<T: Json, const MAX: usize> Json for Bounded<T, MAX> {
    fn write_json<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        T::write_list(self, to)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.write_json(to)
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.write_json(to)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An integer of 64 bits that is shown in decimal digits, because it may exceed 2^53.
pub trait Digits {
    /// The form of the value with its integers as text.
    type Text: Serialize;
    /// The value with its integers as text.
    fn digits(&self) -> Self::Text;
}

impl Digits for u64 {
    type Text = String;
    fn digits(&self) -> String {
        self.to_string()
    }
}

impl<T: Digits, const N: usize> Digits for [T; N] {
    type Text = Vec<T::Text>;
    fn digits(&self) -> Vec<T::Text> {
        self.iter().map(T::digits).collect()
    }
}

impl<T: Digits> Digits for PerClass<T> {
    type Text = Vec<T::Text>;
    fn digits(&self) -> Vec<T::Text> {
        self.values().digits()
    }
}

/// Prices and gas: integers of 64 bits in decimal digits.
pub fn digits<T: Digits>(value: &T) -> T::Text {
    value.digits()
}

/// A price or a fee in grains that is kept in 64 bits, as money.
pub(crate) fn money(grains: &u64) -> impl Serialize {
    Amount::new((*grains).into())
}

/// A share in parts per billion; null if it was not measured.
pub trait Share {
    /// The form of the value with null for what was not measured.
    type Measured: Serialize;
    /// The value with null for what was not measured.
    fn share(&self) -> Self::Measured;
}

impl Share for u64 {
    type Measured = Option<Self>;
    fn share(&self) -> Option<Self> {
        Some(*self).filter(|parts| *parts != UNMEASURED)
    }
}

impl<T: Share, const N: usize> Share for [T; N] {
    type Measured = Vec<T::Measured>;
    fn share(&self) -> Vec<T::Measured> {
        self.iter().map(T::share).collect()
    }
}

impl<T: Share> Share for PerClass<T> {
    type Measured = Vec<T::Measured>;
    fn share(&self) -> Vec<T::Measured> {
        self.values().share()
    }
}

/// A share in parts per billion; null if it was not measured.
pub fn ratio<T: Share>(value: &T) -> T::Measured {
    value.share()
}

/// A value of `N` integers: one or two for each class of resources.
pub(crate) trait Numbers<const N: usize> {
    /// Type of the integers.
    type Number: Copy;
    /// The integers, in the order of the classes.
    fn numbers(&self) -> [Self::Number; N];
}

impl<T: Copy> Numbers<3> for PerClass<T> {
    type Number = T;
    fn numbers(&self) -> [T; 3] {
        *self.values()
    }
}

impl<T: Copy> Numbers<2> for Metered<T> {
    type Number = T;
    fn numbers(&self) -> [T; 2] {
        self.into_array()
    }
}

impl Numbers<6> for PerClass<Pair> {
    type Number = u64;
    fn numbers(&self) -> [u64; 6] {
        let [storage, egress, gas] = *self.values();
        [storage.price, storage.slow, egress.price, egress.slow, gas.price, gas.slow]
    }
}

impl Numbers<4> for Metered<Pair> {
    type Number = u64;
    fn numbers(&self) -> [u64; 4] {
        [self.egress.price, self.egress.slow, self.gas.price, self.gas.slow]
    }
}

impl Numbers<4> for Metered<Before> {
    type Number = u64;
    fn numbers(&self) -> [u64; 4] {
        [self.egress.price, self.egress.base, self.gas.price, self.gas.base]
    }
}

/// Units of each class under names: numbers, and the last of them, gas, in digits.
pub(crate) fn units<const N: usize, M: SerializeMap>(
    value: &impl Numbers<N, Number = u64>,
    names: [&'static str; N],
    map: &mut M,
) -> Result<(), M::Error> {
    for (place, (name, number)) in names.into_iter().zip(value.numbers()).enumerate() {
        if place + 1 < N {
            map.serialize_entry(name, &number)?;
        } else {
            map.serialize_entry(name, &digits(&number))?;
        }
    }
    Ok(())
}

/// Prices of each class under names, in digits.
pub(crate) fn prices<const N: usize, M: SerializeMap, T: Numbers<N, Number: ToString>>(
    value: &T,
    names: [&'static str; N],
    map: &mut M,
) -> Result<(), M::Error> {
    names
        .into_iter()
        .zip(value.numbers())
        .try_for_each(|(name, number)| map.serialize_entry(name, &number.to_string()))
}

/// Zero-padded or bounded bytes as text, without the padding.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The address that clients try first; empty if there is none.
pub fn first(addresses: &[Address]) -> String {
    addresses.first().map(|address| text(address)).unwrap_or_default()
}

/// The outcome in words, and the next step.
pub(crate) fn explain(code: &Code) -> &'static str {
    code.explain()
}

/// The last 64 outcomes as ones and zeros, the newest at the end.
pub(crate) fn bits(history: &u64) -> String {
    format!("{history:064b}")
}

/// The number of items in a list.
pub(crate) fn count<T>(all: &[T]) -> usize {
    all.len()
}

/// The height at which an open challenge was drawn.
pub(crate) fn drawn_at(challenge: &Option<Challenge>) -> Option<u64> {
    challenge.map(|open| open.height)
}

/// The agreement's slot at a place of a provider's slot tree.
pub(crate) fn slot(place: &u32) -> u32 {
    crate::fenwick::slot_at(*place)
}

/// The slots alone, without the hints beside them.
pub(crate) fn slots(all: &[(u32, Account, u64)]) -> Vec<u32> {
    all.iter().map(|(slot, ..)| *slot).collect()
}

/// The answered share in force, the first of two figures.
pub(crate) fn answered(stands: &[u64; 2]) -> impl Serialize {
    ratio(&stands[0])
}

/// The latency score in force, the second of two figures.
pub(crate) fn second(stands: &[u64; 2]) -> u64 {
    stands[1]
}

/// Epochs of a provider's measurements, newest first.
pub(crate) fn epochs_of(measured: &Measured) -> Vec<u64> {
    measured.epochs[..taken(measured)].to_vec()
}

/// Measured rates of a provider, newest first.
pub(crate) fn rates_of(measured: &Measured) -> Vec<u64> {
    measured.rates[..taken(measured)].to_vec()
}

fn taken(measured: &Measured) -> usize {
    usize::from(measured.taken).min(measured.rates.len())
}

/// Units that a provider claims beyond a voucher.
#[derive(Clone, Copy)]
pub(crate) struct Claimed(Units);

impl Serialize for Claimed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        units(&self.0, ["egress", "gas"], &mut map)?;
        map.end()
    }
}

/// Egress bytes and gas that a provider claims, by name.
pub(crate) fn claimed(claim: &Option<Units>) -> Option<Claimed> {
    claim.map(Claimed)
}

struct Counted<'a>(u32, &'a ProbeCount);

impl Serialize for Counted<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("index", &self.0)?;
        Object::entries(self.1, &mut map)?;
        map.end()
    }
}

/// The counts of drawn peers, each with its receiver's index.
pub(crate) fn counts(all: &[(u32, ProbeCount)]) -> impl Serialize {
    all.iter().map(|(index, count)| Counted(*index, count)).collect::<Vec<_>>()
}

struct Outcome(Hash, Code);

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(3))?;
        map.serialize_entry("id", &hex(&self.0))?;
        map.serialize_entry("code", &As(&self.1))?;
        map.serialize_entry("text", self.1.explain())?;
        map.end()
    }
}

/// Receipts, each with its code in words.
pub(crate) fn outcomes(all: &[(Hash, Code)]) -> impl Serialize {
    all.iter().map(|(id, code)| Outcome(*id, *code)).collect::<Vec<_>>()
}

/// A record of the ledger whose kind is known only from its slot. As JSON it has the record's fields.
pub struct AnyRecord<'a> {
    slot: &'a Slot,
    /// Name of the record's kind, as users read it.
    pub name: &'static str,
}

impl<'a> AnyRecord<'a> {
    /// A record by its slot; `None` if the slot does not decode as a record of a known kind.
    pub fn read(slot: &'a Slot) -> Option<Self> {
        record::kind_name(slot).map(|name| Self { slot, name })
    }
}

impl Serialize for AnyRecord<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        record::fields(self.slot, to)
    }
}
