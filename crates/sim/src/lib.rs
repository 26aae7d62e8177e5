//! Tries to break the network reproducibly: all its processes run on one thread, from one seed.

pub mod campaign;
pub mod drawn;
mod judge;
pub mod ledger;
mod machine;
#[cfg(test)]
mod market;
mod network;
pub mod plan;
pub mod world;
