//! Turns files into shards and vouchers.
pub mod catalogue;
pub mod coding;
pub mod limits;
pub mod placement;
