//! Tries to break the network, reproducibly: every process of it on one thread and one seed.

pub mod campaign;
pub mod drawn;
pub mod judge;
pub mod ledger;
pub mod machine;
pub mod market;
pub mod network;
pub mod plan;
pub mod world;
