//! Error numbers of WASI preview 1.

/// An error number that a program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) u16);

macro_rules! errnos {
    ($($name:ident $number:literal,)*) => {
        impl Errno { $(pub(crate) const $name: Self = Self($number);)* }
    };
}

errnos! {
    BADF 8,
    EXIST 20,
    FAULT 21,
    FBIG 22,
    ILSEQ 25,
    INVAL 28,
    ISDIR 31,
    MFILE 33,
    NAMETOOLONG 37,
    NOENT 44,
    NOMEM 48,
    NOSPC 51,
    NOSYS 52,
    NOTDIR 54,
    NOTEMPTY 55,
    NOTSOCK 57,
    NOTSUP 58,
    SPIPE 70,
    NOTCAPABLE 76,
}
