//! Turns files into shards and vouchers.
pub mod catalogue;
pub mod coding;
pub mod core;
pub mod deed;
pub mod environment;
pub mod ledger;
pub mod limits;
pub mod link;
pub mod meter;
pub mod node;
pub mod placement;
pub mod purse;
pub mod repair;
pub mod serve;
pub mod transfer;
