//! The macro that declares the operations: one entry for each, from which every choice by kind follows.
//!
//! An entry that leaves out a part does not compile. So no operation runs in a lane that nobody chose, and
//! none carries a signature that nobody verifies because a list was forgotten.

/// Declares [`Body`](super::Body) and everything that depends on an operation's kind.
///
/// An entry is `number Name(Type): Lane { .. }`. The parts are expressions over the names in the first line,
/// which are the same in all entries. `body` is the operation's fields, and the others are the parameters of
/// the function that the part becomes:
///
/// - `fits`: true if every field is in range. `touches` may then compute keys from them.
/// - `check`: further checks that need no record; `Ok(())` if there are none.
/// - `takes`: all sums that it may take out of its signer's balance, beside the fee.
/// - `touches`: names the records that the operation may read and write.
/// - `apply`: runs it on these records.
/// - `signatures`: signatures that its fields carry, beside the envelope's; `[]` if they carry none.
macro_rules! operations {
    (
        |$body:ident, $signer:ident, $expires:ident, $context:ident, $chain:ident, $touched:ident, $working:ident|
        $(
            $(#[doc = $doc:literal])*
            $number:literal $name:ident($type:ty): $lane:ident {
                fits: $fits:expr,
                check: $check:expr,
                takes: $takes:expr,
                touches: $touches:expr,
                apply: $apply:expr,
                signatures: $signatures:expr,
            }
        )*
    ) => {
        tagged! {
            #[json]
            /// The request of an operation, one variant per kind.
            Body { $($(#[doc = $doc])* $number => $name($type),)* }
        }

        #[allow(unused_variables, reason = "a part need not read the fields")]
        impl Body {
            /// The names of all kinds, in the order of their declarations.
            pub const NAMES: &[&str] = &[$(stringify!($name),)*];

            /// The name of this kind of operation, as users and scripts read it.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            /// The lane of this kind of operation.
            pub const fn lane(&self) -> Lane {
                match self { $(Self::$name(_) => Lane::$lane,)* }
            }

            /// True if every field is in range.
            pub(crate) fn fits(&self, $context: &crate::working::BlockContext) -> bool {
                match self { $(Self::$name($body) => $fits,)* }
            }

            /// Checks the relations between the fields and with the signer, once the fields are in range.
            fn check(
                &self,
                $signer: &crate::Account,
                $context: &crate::working::BlockContext,
            ) -> Result<(), crate::Code> {
                match self { $(Self::$name($body) => $check,)* }
            }

            /// The most that the operation may take out of its signer's balance, beside the fee, in a block of
            /// `context`'s height or a later one, until it expires.
            pub(super) fn takes(
                &self,
                $expires: u64,
                $context: &crate::working::BlockContext,
            ) -> crate::Amount {
                let takes: &[crate::Amount] = match self { $(Self::$name($body) => &$takes,)* };
                takes.iter().fold(crate::Amount::ZERO, |sum, taken| sum.saturating_add(*taken))
            }

            /// Names the records of the operation, without its signer's account.
            pub(crate) fn touches(
                &self,
                $signer: &crate::Account,
                $context: &crate::working::BlockContext,
                $touched: &mut crate::working::Touched,
            ) {
                match self { $(Self::$name($body) => $touches,)* }
            }

            /// Runs the operation on the records that it named. Its fee has been charged.
            pub(crate) fn apply(
                &self,
                $signer: &crate::Account,
                $working: &mut crate::working::Working<'_>,
            ) -> Result<(), crate::Halt> {
                match self { $(Self::$name($body) => $apply,)* }
            }

            /// The signatures that the fields carry.
            fn signatures(&self, $signer: &crate::Account, $chain: &crate::Hash) -> Vec<SignatureCheck> {
                match self { $(Self::$name($body) => Vec::from_iter($signatures),)* }
            }
        }
    };
}
