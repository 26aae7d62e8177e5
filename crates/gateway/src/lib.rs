//! Turns files into shards and vouchers.
pub mod coding;
pub mod placement;
