//! A typed connection to posync's services that believes only proofs.

pub mod account;
pub mod channel;
pub mod connection;
pub mod descriptors;
pub mod floor;
pub mod hold;
pub mod light;
pub mod rpc;
pub mod volume;
pub mod watch;
