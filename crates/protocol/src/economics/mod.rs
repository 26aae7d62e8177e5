//! The economic mechanism in integers: how fees split, prices move, quality is scored and pools are shared.
//!
//! Pure functions over integers, so that published worked examples run against them unchanged. Ratios are
//! parts per billion ([`crate::amount::ONE`]); every division floors unless its name or comment says *up*;
//! products go through 256 bits or more. Source: `docs/protocol.md`.

pub mod fair;
pub mod pool;
pub mod price;
pub mod score;
pub mod seats;
pub mod slash;
pub mod split;
