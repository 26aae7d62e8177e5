//! Tries to break the network, reproducibly: every process of it on one thread and one seed.

pub mod network;
