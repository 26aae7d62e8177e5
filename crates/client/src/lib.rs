//! A typed connection to posync's services that believes only proofs.

pub mod channel;
pub mod light;
pub mod rpc;
