//! The macros that write the JSON form of a declared type from its list of fields. [`crate::json`] says what
//! the form is. Without the feature `serde` they write nothing.

/// Writes the JSON form of a declared struct; nothing without the feature `serde`.
#[cfg(not(feature = "serde"))]
#[macro_export]
#[doc(hidden)]
macro_rules! json_struct {
    ($($any:tt)*) => {};
}

/// Writes the JSON form of a declared enum; nothing without the feature `serde`.
#[cfg(not(feature = "serde"))]
#[macro_export]
#[doc(hidden)]
macro_rules! json_enum {
    ($($any:tt)*) => {};
}

/// Writes the JSON form of the events; nothing without the feature `serde`.
#[cfg(not(feature = "serde"))]
macro_rules! json_events {
    ($($any:tt)*) => {};
}

/// Writes the JSON form of an enum without fields; nothing without the feature `serde`.
#[cfg(not(feature = "serde"))]
macro_rules! json_words {
    ($($any:tt)*) => {};
}

/// Writes `Serialize` for a type that has entries.
#[cfg(feature = "serde")]
#[macro_export]
#[doc(hidden)]
macro_rules! json_object {
    ($name:ident) => {
        impl $crate::json::Json for $name {
            fn write_json<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                $crate::json::object(self, to)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                $crate::json::object(self, to)
            }
        }
    };
}

/// Writes the JSON form of a declared struct.
#[cfg(feature = "serde")]
#[macro_export]
#[doc(hidden)]
macro_rules! json_struct {
    ($name:ident [$($label:literal = $extra:expr),*] { $($field:ident $how:tt)* }) => {
        impl $crate::json::Object for $name {
            fn entries<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                let _ = &map;
                $($crate::json_entries! { map, (&self.$field), $field, $how })*
                $(map.serialize_entry($label, &$crate::json::As(&($extra)(self)))?;)*
                Ok(())
            }
        }
        $crate::json_object! { $name }
    };
}

/// Writes the entries of one field: one by its name, or one for each attribute.
#[cfg(feature = "serde")]
#[macro_export]
#[doc(hidden)]
macro_rules! json_entries {
    ($map:ident, ($value:expr), $field:ident, []) => {
        $map.serialize_entry(stringify!($field), &$crate::json::As($value))?;
    };
    ($map:ident, ($value:expr), $field:ident, [(skip)]) => { let _ = $value; };
    ($map:ident, ($value:expr), $field:ident, [(flat)]) => { $crate::json::Object::entries($value, $map)?; };
    ($map:ident, ($value:expr), $field:ident, [($name:literal) $($rest:tt)*]) => {
        $map.serialize_entry($name, &$crate::json::As($value))?;
        $crate::json_more! { $map, ($value), $field, [$($rest)*] }
    };
    ($map:ident, ($value:expr), $field:ident, [($name:literal, $how:ident) $($rest:tt)*]) => {
        $map.serialize_entry($name, &$crate::json::$how($value))?;
        $crate::json_more! { $map, ($value), $field, [$($rest)*] }
    };
    ($map:ident, ($value:expr), $field:ident, [($how:ident($($name:literal),+))]) => {
        $crate::json::$how($value, [$($name),+], $map)?;
    };
    ($map:ident, ($value:expr), $field:ident, [($how:ident) $($rest:tt)*]) => {
        $map.serialize_entry(stringify!($field), &$crate::json::$how($value))?;
        $crate::json_more! { $map, ($value), $field, [$($rest)*] }
    };
}

/// Writes the further entries of a field.
#[cfg(feature = "serde")]
#[macro_export]
#[doc(hidden)]
macro_rules! json_more {
    ($map:ident, ($value:expr), $field:ident, []) => {};
    ($map:ident, ($value:expr), $field:ident, [$($rest:tt)+]) => {
        $crate::json_entries! { $map, ($value), $field, [$($rest)+] }
    };
}

/// Writes the JSON form of a declared enum.
#[cfg(feature = "serde")]
#[macro_export]
#[doc(hidden)]
macro_rules! json_enum {
    ($name:ident [$($label:literal = $extra:expr),*] { $($variant:ident [$($key:literal = $word:literal)?])* }) => {
        impl $crate::json::Object for $name {
            fn entries<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                match self {
                    $(Self::$variant(value) => {
                        $(map.serialize_entry($key, $word)?;)?
                        $crate::json::Object::entries(value, map)?;
                    })*
                }
                $(map.serialize_entry($label, &$crate::json::As(&($extra)(self)))?;)*
                Ok(())
            }
        }
        $crate::json_object! { $name }
    };
}

/// Writes the JSON form of the events.
#[cfg(feature = "serde")]
macro_rules! json_events {
    ($name:ident { $($variant:ident { $($field:ident $how:tt)* })* }) => {
        impl $crate::json::Object for $name {
            fn entries<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                match self {
                    $(Self::$variant { $($field),* } => {
                        map.serialize_entry("event", stringify!($variant))?;
                        $($crate::json_entries! { map, ($field), $field, $how })*
                    })*
                }
                Ok(())
            }
        }
        $crate::json_object! { $name }
    };
}

/// Writes the JSON form of an enum without fields.
#[cfg(feature = "serde")]
macro_rules! json_words {
    ($name:ident { $($variant:ident $word:literal)* }) => {
        impl $crate::json::Json for $name {
            fn write_json<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(match self { $(Self::$variant => $word,)* })
            }
        }
    };
}
