//! Encoding helpers: structs encoded as their fields in order, and lists with a bound.
//!
//! Everything on the wire and in the state is encoded with `commonware_codec`. The two macros and
//! [`Bounded`] only remove repetition. Invariant: no decoder here allocates more than its type's bound.

use alloc::vec::Vec;
use bytes::BufMut;
use commonware_codec::{Buf, EncodeSize, Error, RangeCfg, Read, Write};

/// A list of at most `MAX` items. A longer one does not decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> Bounded<T, MAX> {
    /// Wraps `items`; `None` if there are more than `MAX`.
    pub fn new(items: Vec<T>) -> Option<Self> {
        (items.len() <= MAX).then_some(Self(items))
    }

    /// Unwraps the list into a plain vector.
    pub fn into_inner(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> core::ops::Deref for Bounded<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Write, const MAX: usize> Write for Bounded<T, MAX> {
    fn write(&self, buf: &mut impl BufMut) {
        self.0.write(buf);
    }
}

impl<T: EncodeSize, const MAX: usize> EncodeSize for Bounded<T, MAX> {
    fn encode_size(&self) -> usize {
        self.0.encode_size()
    }
}

impl<T: Read<Cfg: Default>, const MAX: usize> Read for Bounded<T, MAX> {
    type Cfg = ();
    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(Self(Vec::read_cfg(buf, &(RangeCfg::new(0..=MAX), T::Cfg::default()))?))
    }
}

/// Declares a public struct that is encoded as its fields in order. With `#[json]` before its documentation
/// it has a JSON form under the feature `serde` (`json.rs` says which).
#[macro_export]
#[doc(hidden)]
macro_rules! encoded {
    (
        #[json $(($($label:literal = $extra:expr),* $(,)?))?] $(#[$meta:meta])* $name:ident {
            $($(#[doc = $doc:literal])* $(#[json($($how:tt)*)])* $field:ident : $type:ty,)*
        }
    ) => {
        $crate::encoded! { $(#[$meta])* $name { $($(#[doc = $doc])* $field: $type,)* } }
        $crate::json_struct! { $name [$($($label = $extra),*)?] { $($field [$(($($how)*))*])* } }
    };
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $type,)* }
        impl commonware_codec::Write for $name {
            fn write(&self, buf: &mut impl bytes::BufMut) { let _ = &buf; $(commonware_codec::Write::write(&self.$field, buf);)* }
        }
        impl commonware_codec::EncodeSize for $name {
            fn encode_size(&self) -> usize { 0 $(+ commonware_codec::EncodeSize::encode_size(&self.$field))* }
        }
        impl commonware_codec::Read for $name {
            type Cfg = ();
            fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
                let _ = &buf;
                Ok(Self { $($field: <$type as commonware_codec::Read>::read_cfg(buf, &Default::default())?,)* })
            }
        }
    };
}

/// Declares a public enum of one-field variants, encoded as a tag byte and then the field. With `#[json]`
/// before its documentation its JSON form is the field's. A variant with `#[json("key" = "word")]` adds this
/// entry to it.
#[macro_export]
#[doc(hidden)]
macro_rules! tagged {
    (
        #[json $(($($label:literal = $extra:expr),* $(,)?))?] $(#[$meta:meta])* $name:ident {
            $($(#[doc = $doc:literal])* $(#[json($key:literal = $word:literal)])? $tag:literal => $variant:ident($type:ty),)*
        }
    ) => {
        $crate::tagged! { $(#[$meta])* $name { $($(#[doc = $doc])* $tag => $variant($type),)* } }
        $crate::json_enum! { $name [$($($label = $extra),*)?] { $($variant [$($key = $word)?])* } }
    };
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $tag:literal => $variant:ident($type:ty),)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant($type),)* }
        impl commonware_codec::Write for $name {
            fn write(&self, buf: &mut impl bytes::BufMut) {
                match self { $(Self::$variant(x) => { buf.put_u8($tag); commonware_codec::Write::write(x, buf); })* }
            }
        }
        impl commonware_codec::EncodeSize for $name {
            fn encode_size(&self) -> usize {
                1 + match self { $(Self::$variant(x) => commonware_codec::EncodeSize::encode_size(x),)* }
            }
        }
        impl commonware_codec::Read for $name {
            type Cfg = ();
            fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
                match <u8 as commonware_codec::Read>::read_cfg(buf, &())? {
                    $($tag => Ok(Self::$variant(<$type as commonware_codec::Read>::read_cfg(buf, &Default::default())?)),)*
                    tag => Err(commonware_codec::Error::InvalidEnum(tag)),
                }
            }
        }
    };
}

/// Declares a public enum without fields, encoded as one byte: the number of each variant. In JSON it is the
/// words beside the variants, if they are given.
macro_rules! tags {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $tag:literal => $variant:ident $word:literal,)* }) => {
        json_words! { $name { $($variant $word)* } }
        tags! { $(#[$doc])* $name { $($(#[$vdoc])* $tag => $variant,)* } }
    };
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $tag:literal => $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $tag,)* }
        impl commonware_codec::Write for $name {
            fn write(&self, buf: &mut impl bytes::BufMut) {
                buf.put_u8(match self { $(Self::$variant => $tag,)* });
            }
        }
        impl commonware_codec::FixedSize for $name {
            const SIZE: usize = 1;
        }
        impl commonware_codec::Read for $name {
            type Cfg = ();
            fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
                match <u8 as commonware_codec::Read>::read_cfg(buf, &())? {
                    $($tag => Ok(Self::$variant),)*
                    tag => Err(commonware_codec::Error::InvalidEnum(tag)),
                }
            }
        }
    };
}
