//! Tries to break the network reproducibly: all its processes run on one thread, from one seed.

pub mod campaign;
pub mod drawn;
pub mod judge;
pub mod ledger;
pub mod machine;
pub mod market;
pub mod network;
pub mod plan;
pub mod world;
